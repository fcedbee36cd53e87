"""What differs between kinds of study outside of their tasks: the only table of kinds.

No other code asks which kind it has: it takes the entry of `KINDS` and calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medtl.cases.columns import Columns
from medtl.data.batches import Samples
from medtl.data.patches import MaskedSamples
from medtl.data.reader import ImageReader
from medtl.data.seeds import Stream, torch_seed
from medtl.data.store import ImageStore
from medtl.errors import RunError
from medtl.losses.ordinal import Head
from medtl.networks.backbones import Classifier, build_classifier
from medtl.networks.heads import share_weights
from medtl.networks.pretrained.cards import NO_CARD
from medtl.networks.segmenter import Segmenter, build_segmenter
from medtl.networks.weights import WeightsReport, WeightsSource
from medtl.preprocess.augment import Augmenter
from medtl.preprocess.augment_volume import VolumeAugmenter
from medtl.recipe.expected_input import input_notes
from medtl.recipe.schema import GIVEN, Recipe
from medtl.storage.yaml import scalar
from medtl.tasks.classes import classification_task
from medtl.tasks.protocols import Task
from medtl.tasks.regression import Quantity, Regression, bone_age_task, regression_task
from medtl.tasks.structures import segmentation_task
from medtl.types import Case

Augment = Augmenter | VolumeAugmenter


@dataclass(frozen=True)
class Kind:
    """One kind of study.

    Attributes:
        task: From the recipe and all its cases to the meaning of the numbers.
        network: From the recipe, the number of outputs and of inputs besides the image to the
            network with its initial weights, and what was loaded.
        samples: From recipe, task, reader, store, cases, augmenter and seed to network input.
        hints: From the recipe and the manifest's columns to what it may have forgotten.
    """

    task: Callable[[Recipe, Sequence[Case]], Task]
    network: Callable[[Recipe, int, int], tuple[Any, WeightsReport]]
    samples: Callable[..., Samples | MaskedSamples]
    hints: Callable[[Recipe, Sequence[str]], list[str]] = lambda _recipe, _columns: []


def _classification_task(recipe: Recipe, cases: Sequence[Case]) -> Task:
    """Findings or classes, by what the target columns hold."""
    data, spec = recipe.data, recipe.task
    uncertain = data.uncertain
    if isinstance(uncertain, str):
        uncertain = dict.fromkeys(data.targets, uncertain)
    return classification_task(
        cases,
        data.targets,
        names=data.names,
        positive=data.positive,
        uncertain=uncertain,
        missing=data.missing,
        soft=Columns.of(dict(data)).soft,
        criterion=spec.loss,
        balanced=spec.class_weight == "balanced",
    )


def _segmentation_task(recipe: Recipe, _: Sequence[Case]) -> Task:
    """The structures that the recipe names."""
    spec = recipe.task
    return segmentation_task(
        spec.structures,
        ignored=spec.ignored,
        overlapping=spec.overlapping,
        criterion=spec.loss,
    )


def _regression_task(recipe: Recipe, cases: Sequence[Case]) -> Regression:
    """A quantity in the recipe's unit, from the image and the sex if a column holds it."""
    spec, column = recipe.task, recipe.data.targets[0]
    label = (recipe.data.names or {}).get(column, column)
    return regression_task(
        cases,
        column,
        Quantity(label, spec.unit or "", spec.range),
        sex_column=recipe.data.sex or "",
        criterion=spec.loss,
        class_width=spec.class_width,
        decoding=spec.decoding,
    )


def _bone_age_task(recipe: Recipe, cases: Sequence[Case]) -> Regression:
    """Months, from the image and the sex if a column holds it."""
    spec = recipe.task
    return bone_age_task(
        cases,
        recipe.data.targets[0],
        sex_column=recipe.data.sex or "",
        criterion=spec.loss,
        class_months=spec.class_months,
        decoding=spec.decoding,
    )


SEX_COLUMNS = frozenset({"sex", "gender", "male", "female", "patientsex", "patient_sex"})
"""Names of a column that holds the sex."""


def _untold_sex(recipe: Recipe, columns: Sequence[str]) -> list[str]:
    """A sex that the manifest knows and the network is not told.

    Reference:
        Greulich & Pyle 1959: girls and boys have standards of their own.
    """
    found = [name for name in columns if name.casefold() in SEX_COLUMNS]
    if recipe.data.sex is not None or not found:
        return []
    return [
        f"The manifest has a column {found[0]!r} that the network is not told, though bone ages "
        f"are read by sex: state data.sex: {scalar(found[0])}, unless it is meant so"
    ]


def classifier(recipe: Recipe, outputs: int, extra: int = 0) -> tuple[Classifier, WeightsReport]:
    """Return a backbone with a head for one vector of outputs, and what was loaded.

    Raises:
        RunError: When the backbone was given in Python and is not there.
    """
    spec = recipe.model
    if spec.given is None and spec.backbone.startswith(GIVEN):
        raise RunError(
            f"the backbone {spec.backbone.removeprefix(GIVEN)} was given in Python",
            where="model.backbone",
            fix="Give the object again: Study.fit(backbone=...), load_trained(..., backbone=...)",
        )
    weights = _seeded_weights(recipe)
    model, loaded = build_classifier(
        spec.backbone if spec.given is None else spec.given(),
        outputs=outputs,
        weights=weights,
        dropout=spec.dropout,
        reuse_until=spec.reuse_until,
        extra_features=extra,
        image=(3, *recipe.image.shape),
    )
    head: Head | None = getattr(recipe.task.loss, "head", None)
    if head is not None and head.shared:
        share_weights(model.head)
    return model, replace(loaded, notes=(*loaded.notes, *input_notes(recipe)))


def segmenter(recipe: Recipe, outputs: int, extra: int = 0) -> tuple[Segmenter, WeightsReport]:
    """Return a network with an output per pixel, and what was loaded.

    Raises:
        RunError: When the recipe asks for a part of the backbone.
    """
    del extra
    spec, image = recipe.model, recipe.image
    if spec.reuse_until is not None:
        raise RunError("a decoder needs the whole encoder", where="model.reuse_until")
    model, loaded = build_segmenter(
        spec.backbone,
        outputs=outputs,
        patch=image.shape,
        weights=_seeded_weights(recipe),
        decoder=spec.decoder,
        width=spec.width,
        overlap=spec.overlap,
    )
    return model, replace(loaded, notes=(*loaded.notes, *input_notes(recipe)))


def _seeded_weights(recipe: Recipe) -> WeightsSource:
    """Seed torch for the new layers; return where the others come from."""
    torch.manual_seed(torch_seed(recipe.seed_of("init"), Stream.INIT))
    weights = recipe.model.weights
    path = None if weights.path is None else Path(weights.path)
    allowed = weights.allow_missing or ()
    card = weights.known or (None if weights.card is None else NO_CARD)
    return WeightsSource(weights.source, path, weights.sha256, allowed, card)


@dataclass(frozen=True)
class UnitAugment:
    """An augmenter as a function from unit image to unit image, which loader processes can take."""

    policy: Augmenter | VolumeAugmenter

    def __call__(self, unit: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the unit image after a drawn augmentation."""
        return self.policy(unit, rng).array


@dataclass(frozen=True)
class PairAugment:
    """An augmenter as a function from a unit image and its mask to both, moved alike."""

    policy: Augmenter | VolumeAugmenter

    def __call__(
        self, unit: NDArray[np.float32], mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return both after a drawn augmentation."""
        moved = self.policy(unit, rng, mask)
        assert moved.mask is not None
        return moved.array, moved.mask.astype(np.uint8, copy=False)


def _samples(
    recipe: Recipe,
    task: Task,
    reader: ImageReader,
    store: ImageStore,
    cases: Sequence[Case],
    augment: Augment | None,
    seed: int | None,
) -> Samples:
    """Whole images with their targets and what the network is told besides."""
    del recipe
    return Samples(
        store=store,
        rows=store.rows(cases),
        # What steers the training and is tested on is certain; only training learns from the rest.
        targets=task.certain_targets(cases) if seed is None else task.targets(cases),
        inputs=task.inputs(cases),
        standardise=reader.preprocessor.standardise,
        augment=None if augment is None else UnitAugment(augment),
        seed=seed or 0,
    )


def _masked_samples(
    recipe: Recipe,
    task: Task,
    reader: ImageReader,
    store: ImageStore,
    cases: Sequence[Case],
    augment: Augment | None,
    seed: int | None,
) -> MaskedSamples:
    """Images, in training patches of them, with their masks."""
    del task
    return MaskedSamples(
        store=store,
        rows=store.rows(cases),
        standardise=reader.preprocessor.standardise,
        patch=recipe.image.patch if seed is not None else None,
        augment=None if augment is None else PairAugment(augment),
        seed=seed or 0,
    )


KINDS: dict[str, Kind] = {
    "classification": Kind(_classification_task, classifier, _samples),
    "regression": Kind(_regression_task, classifier, _samples),
    "bone_age": Kind(_bone_age_task, classifier, _samples, _untold_sex),
    "segmentation": Kind(_segmentation_task, segmenter, _masked_samples),
}
"""Word in a recipe -> what is particular to its kind of study."""
