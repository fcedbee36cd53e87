"""Images without labels: who is on them, and that none of them is a test patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medtl.cases.columns import Columns, Where
from medtl.cases.manifest import manifest_columns, read_manifest
from medtl.data.batches import Augment, Samples
from medtl.data.patches import MaskedSamples
from medtl.data.reader import check_readable
from medtl.data.store import ImageStore
from medtl.data.unlabelled_views import WithUnlabelled
from medtl.errors import LeakError, RunError
from medtl.losses.mixmatch import FromUnlabelled, MixMatch
from medtl.preprocess.augment import Augmenter
from medtl.recipe.schema import Recipe
from medtl.run.build import build_augmenter, build_decoder
from medtl.run.kinds import UnitAugment
from medtl.run.prepare import Prepared
from medtl.types import Case, Manifest

WHERE = "finetune.learn.unlabelled"

REHEARSED = 64
"""Images that are read where nothing is to be learned."""


@dataclass(frozen=True)
class Unlabelled:
    """Images without labels, as the labelled ones are read.

    Attributes:
        images: Unit images.
        ratio: Of them for each labelled one.
        views: How they are augmented for each view.
        facts: What the study's record says of them, as JSON types.
    """

    images: ImageStore
    ratio: int
    views: tuple[Augment, ...]
    facts: Mapping[str, Any]

    def beside(self, samples: Samples | MaskedSamples) -> WithUnlabelled:
        """Return labelled cases with views of these images.

        Args:
            samples: The cases.
        """
        assert isinstance(samples, Samples)  # masks are refused by the recipe
        return WithUnlabelled(samples, self.images, self.ratio, self.views)


def find_unlabelled(
    recipe: Recipe, prepared: Prepared, *, rehearsal: bool = False
) -> Unlabelled | None:
    """Read the images without labels that a recipe learns from; None when it names none.

    Args:
        recipe: Names their manifest.
        prepared: The study that learns from them.
        rehearsal: Nothing is to be learned: a few are read, the leak by pixels is not looked for.

    Raises:
        ManifestError: For faults of the manifest.
        LeakError: When a test patient is among them, by the ids or by the pixels.
        RunError: When too many cannot be read, or no column says which images `data.where` takes.
    """
    learn = recipe.finetune.learn
    if not isinstance(learn, FromUnlabelled):
        return None
    manifest = _manifest(recipe, learn)
    test = prepared.split("test")
    tested = {case.patient_id for case in test}
    _refuse_leak(learn, {c.patient_id for c in manifest.cases} & tested, tested)
    cases = manifest.cases[:REHEARSED] if rehearsal else manifest.cases
    reader = replace(prepared.reader, root=manifest.root)
    store, records = build_decoder(recipe)(cases, reader)
    check_readable(records, recipe.data.max_unreadable)
    if not store.case_ids:
        raise RunError(f"{Path(learn.unlabelled).name} holds no image", where=WHERE)
    pixels = {record.sha256 for record in records} - {""}
    hashes = {record.case_id: record.sha256 for record in prepared.records}
    _refuse_leak(learn, {c.patient_id for c in test if hashes[c.case_id] in pixels}, tested)
    views = weak_and_strong(recipe, learn)
    return Unlabelled(store, learn.ratio, views, _facts(learn, manifest, prepared))


def weak_and_strong(recipe: Recipe, learn: FromUnlabelled) -> tuple[Augment, ...]:
    """Return the views of an image: the weak one, for FixMatch the strong one after it.

    MixMatch has two weak ones. All are of the modality's own safe table, as the recipe has it: the
    weak one moves and turns alone, the strong one does all that the recipe allows, to every image.

    Args:
        recipe: With an augmentation of images.
        learn: How many views there are.
    """
    policy = build_augmenter(recipe)
    assert isinstance(policy, Augmenter)  # `check` refuses a recipe without
    second = policy.weak() if isinstance(learn, MixMatch) else policy.strong()
    return tuple(map(UnitAugment, (policy.weak(), second)[: learn.views]))


def _manifest(recipe: Recipe, learn: FromUnlabelled) -> Manifest:
    """The images without labels, by the recipe's rules for ids and for which rows it takes."""
    rules = ("ids", "one_image_per_patient", "columns", "where")
    columns = Columns.of({key: value for key, value in recipe.data if key in rules})
    path = Path(learn.unlabelled)
    by = Where.parse(columns.where).column if columns.where else ""
    if by and by not in manifest_columns(path):
        raise RunError(
            f"{path.name} has no column {by!r}, by which data.where chooses images to learn from",
            where=WHERE,
            fix="Add it; where all of its images are meant, fill it with the value that is taken",
        )
    return read_manifest(path, columns)


def _refuse_leak(learn: FromUnlabelled, leaked: set[str], tested: set[str]) -> None:
    """Refuse images of patients on whom the network is to be tested."""
    if leaked:
        raise LeakError(
            f"leak: {Path(learn.unlabelled).name} holds images of {len(leaked)} of {len(tested)} "
            "test patients of this study",
            where=WHERE,
            fix="Take their rows out: a network that has seen them is not tested on new patients",
        )


def _facts(learn: FromUnlabelled, manifest: Manifest, prepared: Prepared) -> dict[str, Any]:
    """What the record says of the images, and how they are learned from."""
    patients = {case.patient_id for case in manifest.cases}

    def known(split: str) -> int:
        return len(patients & _patients(prepared.split(split)))

    return {
        "schema": "medtl-learning/1",
        "method": learn.method,
        "unlabelled": Path(learn.unlabelled).name,
        "unlabelled_sha256": manifest.sha256,
        "images": len(manifest.cases),
        "patients": len(patients),
        "ratio": learn.ratio,
        **learn.numbers,
        "labelled": len(prepared.split("train")),
        "training_patients_known": known("train"),
        "validation_patients": len(_patients(prepared.split("val"))),
        "validation_patients_known": known("val"),
    }


def _patients(cases: list[Case]) -> set[str]:
    """The patients of some cases."""
    return {case.patient_id for case in cases}
