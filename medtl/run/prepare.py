"""A study as it was read: images decoded, splits made and checked, ready to train or to plan."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtl.cases.labels import one_value_notes
from medtl.cases.leaks import check_patients, check_pixels, without_copies
from medtl.cases.splits import assign_splits, nested_share, split_hash
from medtl.data.batches import Samples
from medtl.data.patches import MaskedSamples
from medtl.data.reader import ImageReader, ReadRecord, check_readable
from medtl.data.store import ImageStore
from medtl.errors import ManifestError
from medtl.preprocess.superres import in_vain
from medtl.recipe.schema import Recipe
from medtl.run import record
from medtl.run.build import (
    Decode,
    build_contract,
    build_decoder,
    build_manifest,
    build_reader,
    build_samples,
    build_task,
)
from medtl.run.files import portable
from medtl.run.folder import Run
from medtl.run.trained import check_contract
from medtl.storage.atomic import write_json
from medtl.storage.tables import nearest, rows_text, write_table
from medtl.tasks.protocols import Task
from medtl.types import SPLITS, Case, Manifest, Progress, silent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A study whose images have been read and whose splits have been checked.

    Attributes:
        recipe: With absolute paths.
        manifest: With a split for every case.
        cases: The readable cases.
        task: What the targets mean.
        reader: How files become unit images, fitted on the training cases.
        store: The unit images.
        records: One per case of the manifest.
        hashes: Of recipe, manifest and split.
    """

    recipe: Recipe
    manifest: Manifest
    cases: tuple[Case, ...]
    task: Task
    reader: ImageReader
    store: ImageStore
    records: tuple[ReadRecord, ...]
    hashes: Mapping[str, str]

    def split(self, *names: str) -> list[Case]:
        """The readable cases of some splits, in file order."""
        return [case for case in self.cases if case.split in names]

    def samples(self, cases: Sequence[Case], *, seed: int | None = None) -> Samples | MaskedSamples:
        """Some cases as network input; augmented, and cut to patches, when a seed is given."""
        return build_samples(self.recipe, self.task, self.reader, self.store, cases, seed)


def prepare(
    recipe: Recipe,
    run: Run,
    *,
    manifest: Manifest | None = None,
    decode: Decode | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Read the study into a run that was started, and write down who is in it.

    Raises:
        ManifestError: For faults of the manifest; LeakError for a patient or pixels in two splits.
        RunError: When too many images are unreadable, or a run to go on with had another split.
    """
    run.files.cache.mkdir(exist_ok=True)
    units = run.files.cache / "units"
    prepared = read_study(recipe, manifest=manifest, file=units, decode=decode, progress=progress)
    run.refuse_other_manifest(prepared.manifest)
    quality = record.data_quality(prepared.manifest.cases, prepared.records)
    write_json(run.files.quality, quality)
    check_readable(prepared.records, recipe.data.max_unreadable)
    _write_study(prepared, run)
    log.info("%d of %d images are readable", len(prepared.cases), len(prepared.records))
    return prepared


def read_study(
    recipe: Recipe,
    *,
    manifest: Manifest | None = None,
    file: Path | None = None,
    decode: Decode | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Read manifest and images; check labels, splits and leaks. Writes nothing but `file`.

    Args:
        recipe: After the first pass of `check`.
        manifest: Already split, for a fold of a study; None reads the recipe's own.
        file: Where to memory-map the unit images; None keeps them in memory.
        decode: Reads the images, None as the recipe says; a study's runs share what it returns.
        progress: Told of reading.

    Raises:
        ManifestError: For faults of the manifest; LeakError for a patient or pixels in two splits.
    """
    is_split = manifest is not None
    manifest = manifest or build_manifest(recipe)
    task = build_task(recipe, manifest.cases)
    _refuse_stray_prevalences(recipe, task)
    if not is_split:
        manifest = split_cases(recipe, manifest, task)
    check_patients(manifest)
    reader = build_reader(recipe, build_contract(recipe), manifest.root)
    check_contract(recipe, reader)
    store, records = (decode or build_decoder(recipe))(
        manifest.cases,
        reader,
        encode=task.encode,
        file=file,
        progress=lambda done, total: progress("Reading images", done, total),
    )
    task = task.observed((case, store.mask(row)) for row, case in enumerate(store.case_ids))
    hashes = {r.case_id: r.sha256 for r in records if r.sha256}
    dropped: tuple[str, ...] = ()
    if recipe.data.duplicates == "drop":
        manifest, dropped = without_copies(hashes, manifest)
    kept = {case.case_id for case in manifest.cases}
    records = [record for record in records if record.case_id in kept]
    notes = (*dropped, *check_pixels({k: v for k, v in hashes.items() if k in kept}, manifest))
    notes = (*notes, *one_value_notes(manifest.cases, recipe.data.targets))
    readable = set(store.case_ids)
    cases = tuple(case for case in manifest.cases if case.case_id in readable)
    notes = (*notes, *_empty_masks(task, cases, records), *_vain_enlargement(recipe, records))
    return Prepared(
        recipe=recipe,
        manifest=replace(manifest, notes=(*manifest.notes, *notes)),
        cases=cases,
        task=task,
        reader=fit_reader(reader, store, [c for c in cases if c.split == "train"]),
        store=store,
        records=tuple(records),
        hashes={
            "recipe_sha256": portable(recipe).fingerprint,
            "manifest_sha256": manifest.sha256,
            "split_sha256": split_hash(manifest),
        },
    )


def _refuse_stray_prevalences(recipe: Recipe, task: Task) -> None:
    """Refuse a prevalence of no finding: the recipe itself refuses what it knows without cells."""
    stated = recipe.study.prevalence
    strangers = (
        [name for name in stated if name not in task.labels] if isinstance(stated, dict) else []
    )
    if strangers:
        near = nearest(strangers[0], task.labels)
        raise ManifestError(
            f"a prevalence is stated for {strangers[0]!r}",
            expected=f"one of {', '.join(task.labels)}",
            where="study.prevalence",
            fix=f"Did you mean {near!r}?" if near else "Name the finding as reports do",
        )


def _empty_masks(task: Task, cases: Sequence[Case], records: Sequence[ReadRecord]) -> list[str]:
    """Say how many masks show nothing: an image without a finding, or one that nobody drew.

    Raises:
        ManifestError: When no mask shows a structure, or no training mask shows anything.
    """
    if task.encode is None or not cases:
        return []
    presence = task.strata(cases)
    if not presence.any(axis=0).all():
        raise _never_shown(task, presence, records)
    shown = map(any, presence.tolist())
    empty = [case for case, is_drawn in zip(cases, shown, strict=True) if not is_drawn]
    counts = {name: sum(c.split == name for c in cases) for name in SPLITS}
    lacking = {name: sum(c.split == name for c in empty) for name in SPLITS}
    if counts["train"] and lacking["train"] == counts["train"]:
        raise ManifestError(
            f"none of {counts['train']} training masks shows one of {', '.join(task.labels)}",
            expected="masks with the values of task.structures",
            where="data.mask",
            fix="Check the column of the masks, and what their values mean",
        )
    if not empty:
        return []
    listed = ", ".join(f"{name} {lacking[name]} of {counts[name]}" for name in SPLITS)
    return [
        f"{len(empty)} masks show no structure ({listed}; {rows_text([c.row for c in empty])}): "
        "taken as images without one; leave out the rows that nobody has drawn"
    ]


def _never_shown(
    task: Task, presence: NDArray[np.int64], records: Sequence[ReadRecord]
) -> ManifestError:
    """The fault of a structure that is in no mask: its value may be another."""
    never = [label for k, label in enumerate(task.labels) if not presence[:, k].any()]
    causes = Counter(record.cause for record in records if record.cause).most_common(1)
    left_out = [f"{n} images are left out: {cause}" for cause, n in causes]
    return ManifestError(
        "; ".join([f"none of {len(presence)} masks shows {', '.join(never)}", *left_out]),
        expected="masks with the values of task.structures",
        where="task.structures",
        fix="Look which values the masks hold, and correct the value or take the structure out",
    )


def _vain_enlargement(recipe: Recipe, records: Sequence[ReadRecord]) -> list[str]:
    """Say when images are to be enlarged that have pixels enough."""
    superres = recipe.image.superres
    sides = [int(r.facts["pixels"]) for r in records if "pixels" in r.facts]
    said = None if superres is None else in_vain(sides, superres, max(recipe.image.shape))
    return [] if said is None else [said]


def split_cases(recipe: Recipe, manifest: Manifest, task: Task) -> Manifest:
    """Split by patient as the recipe says, where the manifest gives no split.

    Raises:
        ManifestError: For splits that cannot be used, or too few patients.
    """
    spec, labels = recipe.data.split, task.strata(manifest.cases)
    split = assign_splits(manifest, labels, fractions=spec.fractions, seed=recipe.seed_of("split"))
    return nested_share(split, labels, spec.train_share, recipe.seed_of("order"))


def fit_reader(reader: ImageReader, store: ImageStore, train: Sequence[Case]) -> ImageReader:
    """Fit what the preprocessing learns from the training images (a pixel mean)."""
    units = (store.unit(int(row)) for row in store.rows(train))
    return replace(reader, preprocessor=reader.preprocessor.fit(units))


def _write_study(prepared: Prepared, run: Run) -> None:
    """Write `manifest.csv` and `cohort.json`."""
    hashes = {r.case_id: r.sha256 for r in prepared.records}
    rows: list[dict[str, str]] = [
        {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            **({"exam_id": case.exam} if case.exam else {}),
            "split": case.split,
            **{f"{t}, {r}": said for r, read in case.readings.items() for t, said in read.items()},
            **case.targets,
            **case.strata,
            "content_sha256": hashes[case.case_id],
        }
        for case in prepared.manifest.cases
    ]
    write_table(rows, run.files.manifest)
    unreadable = sum(bool(r.cause) for r in prepared.records)
    facts = record.cohort(
        prepared.cases,
        prepared.task,
        excluded={"unreadable": unreadable} if unreadable else {},
        manifest_sha256=prepared.hashes["manifest_sha256"],
        split_hash=prepared.hashes["split_sha256"],
        notes=prepared.manifest.notes,
        devices=prepared.recipe.data.devices,
    )
    write_json(run.files.cohort, facts)
