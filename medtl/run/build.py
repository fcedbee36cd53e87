"""The only file that turns a recipe into objects: literal dictionaries, name -> factory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch

from medtl.cases.columns import Columns
from medtl.cases.manifest import manifest_columns, read_manifest
from medtl.data.batches import Samples
from medtl.data.decoded import DecodedImages
from medtl.data.patches import MaskedSamples
from medtl.data.reader import ImageReader, ReadRecord, decode_cases
from medtl.data.store import ImageStore
from medtl.errors import RunError
from medtl.losses.adversarial import AdversarialTraining
from medtl.losses.distillation import Distillation
from medtl.losses.given import GivenInPython
from medtl.losses.mixmatch import MixMatch
from medtl.losses.self_training import SelfTraining
from medtl.networks.segmenter import VOLUME_CONTRACT
from medtl.networks.selectors import resolve
from medtl.networks.weights import InputContract, WeightsReport, input_contract
from medtl.networks.zero_gamma import GammaSurgery
from medtl.preprocess.affine import Affine
from medtl.preprocess.augment import Augmenter, augmenter
from medtl.preprocess.augment_volume import VolumeAugmenter, volume_augmenter
from medtl.preprocess.feature_scaler import FeatureScaler
from medtl.preprocess.intensity import WINDOWS
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.volume import VolumePreprocessor
from medtl.recipe.expected_input import COLOR_MODALITIES, expected_image
from medtl.recipe.schema import Recipe
from medtl.run.kinds import KINDS
from medtl.storage.cache import cache_folder
from medtl.tasks.protocols import Task
from medtl.training.objective import Attacked, Distilled, Mixed, MixMatched, Objective, SelfTrained
from medtl.training.options import ActivationCache, Options
from medtl.training.stage import preset_stages
from medtl.types import START, Case, Manifest, Stage

LEAST_ADAPTED = 32
"""Images in a batch that batch norm may take its statistics from."""

Decode = Callable[..., tuple[ImageStore, list[ReadRecord]]]
"""`decode_cases`, or what shares its result between runs."""

VOLUME_STANDARDISATION: dict[str, Literal["centred", "z_score", "none"]] = {
    "weights": "centred",
    "z_score": "z_score",
    "none": "none",
}
"""How volumes are standardised, where no weights card says otherwise."""


def build_manifest(recipe: Recipe) -> Manifest:
    """Read the recipe's manifest, pseudonymised unless the recipe says its ids already are."""
    path = Path(recipe.data.manifest)
    columns = Columns.of(dict(recipe.data))
    return read_manifest(path, columns.described_by(columns.known_names(manifest_columns(path))))


def build_task(recipe: Recipe, cases: Sequence[Case]) -> Task:
    """Return the task of the recipe, as its cases call for.

    Its loss is `recipe.task.loss`: a value that the recipe states, or an object that
    `medtl.recipe.schema.with_objects` put there.

    Raises:
        RunError: When the recipe knows no more than the name of its loss.
    """
    loss = recipe.task.loss
    if isinstance(loss, GivenInPython):
        loss.require()
    return KINDS[recipe.task.kind].task(recipe, cases)


def build_reader(recipe: Recipe, contract: InputContract, root: Path | None) -> ImageReader:
    """Return how the files of this recipe become unit images, and their masks training masks."""
    if recipe.model.is_of_features:
        return reader_around(recipe, FeatureScaler(), root)
    image = expected_image(recipe)
    scale = image.scale or ("window" if image.modality == "ct" else "percentile")
    window = WINDOWS[image.window] if isinstance(image.window, str) else image.window
    shared: dict[str, Any] = {
        "scale": "min_max" if scale == "voi" else scale,
        "percentiles": image.percentiles,
        "nonzero": image.modality == "mr",
        "window": window if scale == "window" else None,
    }
    if image.spacing is not None:
        standardisation = VOLUME_STANDARDISATION[image.standardise]
        volume = VolumePreprocessor(image.spacing, standardisation=standardisation, **shared)
        return reader_around(recipe, volume, root)
    plane = Preprocessor(
        size=image.size,
        color="rgb" if image.modality in COLOR_MODALITIES else "grey",
        clahe=None if image.clahe is None else (image.clahe.clip_limit, image.clahe.tiles),
        superres=image.superres,
        standardisation=image.standardise,
        mean=contract.mean,
        std=contract.std,
        input_range=contract.value_range,
        **shared,
    )
    return reader_around(recipe, plane, root)


def reader_around(
    recipe: Recipe,
    preprocessor: Preprocessor | VolumePreprocessor | FeatureScaler,
    root: Path | None,
) -> ImageReader:
    """Return the reader of a recipe around its preprocessing."""
    named = {
        value: name
        for name, values in recipe.task.structures.items()
        for value in ((values,) if isinstance(values, int) else values)
    }
    dimensions = 2 if recipe.image.spacing is None else 3
    if recipe.model.is_of_features:
        dimensions = 1
    return ImageReader(
        preprocessor,
        voi=recipe.image.scale == "voi",
        color="rgb" if recipe.image.modality in COLOR_MODALITIES else "grey",
        root=root,
        dimensions=dimensions,
        labels=named | dict.fromkeys(recipe.task.ignored, "not known"),
        overlapping=recipe.task.overlapping,
        at_least=2 * max(recipe.image.shape) if recipe.image.decode == "reduced" else None,
        limits=recipe.data.limits,
    )


def build_augmenter(recipe: Recipe) -> Augmenter | VolumeAugmenter | None:
    """Return the safe augmentation of the recipe's modality, or None."""
    spec = recipe.augment
    if spec.policy == "none" or recipe.model.is_of_features:
        return None
    stated: dict[str, Any] = {key: value for key, value in spec if key != "policy"}
    if recipe.image.spacing is not None:
        return volume_augmenter(recipe.image.modality, spacing=recipe.image.spacing, **stated)
    return augmenter(recipe.image.modality, **stated)


def build_samples(
    recipe: Recipe,
    task: Task,
    reader: ImageReader,
    store: ImageStore,
    cases: Sequence[Case],
    seed: int | None = None,
) -> Samples | MaskedSamples:
    """Return some cases as network input; augmented, and cut to patches, when a seed is given."""
    drawn = build_augmenter(recipe) if seed is not None else None
    return KINDS[recipe.task.kind].samples(recipe, task, reader, store, cases, drawn, seed)


def build_network(recipe: Recipe, outputs: int, *, extra: int = 0) -> tuple[Any, WeightsReport]:
    """Return the network with its initial weights, and what was loaded."""
    return KINDS[recipe.task.kind].network(recipe, outputs, extra)


def build_contract(recipe: Recipe) -> InputContract:
    """Return the input that the recipe's initial weights were trained on."""
    if recipe.image.patch is not None:
        return VOLUME_CONTRACT
    return input_contract(recipe.model.backbone, card=recipe.model.weights.known)


def build_stages(recipe: Recipe, groups: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stages as the library's own type.

    Args:
        recipe: With stages or a preset.
        groups: Names of the network's layer groups, stem to head.

    Raises:
        RunError: When zero-gamma waits for a stage that the preset does not have, batch norm is to
            follow small batches, or the first stage leaves the new head, or a whole network
            without weights, in part as it was drawn.
    """
    spec = recipe.finetune
    stages = spec.stages if spec.preset is None else preset_stages(spec.preset, groups)
    names = [stage.name for stage in stages]
    if spec.zero_gamma.when not in (START, *names):
        raise RunError(
            f"{spec.zero_gamma.when!r} is no stage of the preset {spec.preset}",
            expected=f"start or one of {', '.join(names)}",
            where="finetune.zero_gamma.when",
        )
    adapting = [stage.name for stage in stages if "adapt" in stage.policies.values()]
    if adapting and spec.batch_size < LEAST_ADAPTED:
        raise RunError(
            f"batch norm adapts to batches of {spec.batch_size} in stage {adapting[0]!r}",
            expected=f"finetune.batch_size of at least {LEAST_ADAPTED}",
            where="finetune.stages",
            fix="Raise it, or state batch_norm: frozen_stats: scale and shift train all the same",
        )
    _refuse_untrained(recipe, stages[0], groups)
    return stages


def _refuse_untrained(recipe: Recipe, first: Stage, groups: Sequence[str]) -> None:
    """Refuse a first stage that freezes what nobody trained: a new head, random layers."""
    trained = resolve(first.train, groups) if groups else []
    found = f"the first stage, {first.name!r}, trains {first.selector}"
    weights = recipe.model.weights
    is_partial = len(trained) < len(groups) or first.adapt is not None
    if recipe.model.is_random and not weights.random_features and is_partial:
        raise RunError(
            f"{found}, and freezes layers of random weights",
            expected="a first stage that trains all layers, or weights",
            where="finetune.stages.0.train",
            fix="Write train: all, or weights: bundled; for a control of random features, "
            "model.weights: {source: none, random_features: true}",
        )
    if "head" in groups and "head" not in trained:
        raise RunError(
            f"{found} below a head of random weights, which it freezes",
            where="finetune.stages.0.train",
            fix=f"Write train: [head, {first.selector.replace(',', ', ')}]",
        )


def build_options(recipe: Recipe) -> Options:
    """Return what all stages share: what `finetune` states of the fields of `Options`."""
    spec, stopping = recipe.finetune, dict(recipe.finetune.early_stopping)
    names = {field.name for field in fields(Options)} & {*type(spec).model_fields}
    stated = {name: getattr(spec, name) for name in names}
    return Options(**stated, **stopping, seed=recipe.seed_of("order"), workers=recipe.run.workers)


def build_objective(
    recipe: Recipe, task: Task, reader: ImageReader, teacher: torch.Tensor | None = None
) -> Objective | None:
    """Return how the recipe learns, None for the task's own loss alone.

    Args:
        recipe: With a method, or without.
        task: Of the training cases.
        reader: Of the images.
        teacher: `(n, K)` logits for the training cases, where the method is distillation.
    """
    learn, mix = recipe.finetune.learn, recipe.finetune.mix
    if isinstance(learn, Distillation) and teacher is not None:
        return Distilled(task.loss, learn, teacher)
    if isinstance(learn, SelfTraining):
        return SelfTrained(task.loss, learn)
    if isinstance(learn, MixMatch):
        return MixMatched(task.loss, learn)
    if isinstance(learn, AdversarialTraining):
        done = reader.preprocessor
        assert isinstance(done, Preprocessor)  # the recipe refuses volumes, and vectors
        affine = Affine.of(done.standardise, done.unit_shape)
        return Attacked(task.loss, learn, affine, done.unit_shape[0])
    return None if mix is None else Mixed(task.loss, mix)


def build_cache(recipe: Recipe) -> ActivationCache | None:
    """Return where the results of frozen layers are stored, or None when they are not."""
    views, limit_bytes = recipe.finetune.cached_views, int(recipe.run.cache_gb * 2**30)
    if not views or not limit_bytes:
        return None
    return ActivationCache(cache_folder("activations"), views, limit_bytes)


def build_decoder(recipe: Recipe) -> Decode:
    """Return what reads the images: from this user's cache, unless the recipe forbids one."""
    limit_bytes = int(recipe.run.cache_gb * 2**30)
    return (
        decode_cases
        if not limit_bytes or recipe.model.is_of_features  # which are as quickly read as cached
        else DecodedImages(cache_folder("images"), limit_bytes).decode
    )


def build_surgery(
    recipe: Recipe, model: torch.nn.Module, image: torch.Tensor
) -> GammaSurgery | None:
    """Return what zero-gamma is to do to a network, None when nothing; the network stays as it is.

    Args:
        recipe: What is to be done to which blocks.
        model: The network.
        image: `(1, C, *S)`, to see what runs in the network and in what order.
    """
    plan = recipe.finetune.zero_gamma
    return None if plan.select == "none" else GammaSurgery(model, plan, image)
