"""The only file that turns a recipe into objects: literal dictionaries, name -> factory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from medtl.errors import RunError, WeightsError
from medtl.io.cost import Limits
from medtl.losses.given import GivenInPython
from medtl.networks.segmenter import VOLUME_CONTRACT
from medtl.networks.weights import InputContract, WeightsReport, input_contract
from medtl.networks.zero_gamma import START, GammaSurgery, Removal, ZeroGamma, remove
from medtl.prediction.scores import Sink, TrainedModel
from medtl.preprocess.augment import Augmenter, augmenter
from medtl.preprocess.augment_volume import VolumeAugmenter, volume_augmenter
from medtl.preprocess.intensity import WINDOWS
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.volume import VolumePreprocessor
from medtl.recipe.finetune import StageSpec, ZeroGammaSpec
from medtl.recipe.schema import Recipe, WeightsSpec, parse_recipe
from medtl.run.kinds import KINDS
from medtl.storage.cache import cache_folder
from medtl.tasks.protocols import Task
from medtl.tasks.stored import read_task
from medtl.training.activations import ActivationCache
from medtl.training.checkpoint import is_checkpoint, load_checkpoint, without_prefix
from medtl.training.options import Options
from medtl.training.stage import preset_stages
from medtl.types import Case, Manifest, Stage

Decode = Callable[..., tuple[ImageStore, list[ReadRecord]]]
"""`decode_cases`, or what shares its result between runs."""

COLOR_MODALITIES = {"fundus", "derm", "histology"}
"""Modalities read in colour; all others are grey."""

CONTRACT_KEYS = ("standardisation", "mean", "std", "input_range", "channels")
"""What of the preprocessing belongs to weights; size and intensity scale may change."""

VOLUME_STANDARDISATION: dict[str, Literal["centred", "z_score", "none"]] = {
    "weights": "centred",
    "z_score": "z_score",
    "none": "none",
}
"""How volumes are standardised; no pretrained 3D weights ask for anything else."""


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
    image = recipe.image
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
        return _reader(recipe, volume, root)
    plane = Preprocessor(
        size=image.size,
        color="rgb" if image.modality in COLOR_MODALITIES else "grey",
        clahe=None if image.clahe is None else (image.clahe.clip_limit, image.clahe.tiles),
        standardisation=image.standardise,
        mean=contract.mean,
        std=contract.std,
        input_range=contract.value_range,
        **shared,
    )
    return _reader(recipe, plane, root)


def _reader(
    recipe: Recipe, preprocessor: Preprocessor | VolumePreprocessor, root: Path | None
) -> ImageReader:
    """The reader of a recipe around its preprocessing."""
    named = {
        value: name
        for name, values in recipe.task.structures.items()
        for value in ((values,) if isinstance(values, int) else values)
    }
    return ImageReader(
        preprocessor,
        voi=recipe.image.scale == "voi",
        color="rgb" if recipe.image.modality in COLOR_MODALITIES else "grey",
        root=root,
        dimensions=2 if recipe.image.spacing is None else 3,
        labels=named | dict.fromkeys(recipe.task.ignored, "not known"),
        overlapping=recipe.task.overlapping,
        at_least=2 * recipe.image.size if recipe.image.decode == "reduced" else None,
        limits=Limits(**recipe.data.limits.model_dump(exclude_none=True)),
    )


def build_augmenter(recipe: Recipe) -> Augmenter | VolumeAugmenter | None:
    """Return the safe augmentation of the recipe's modality, or None."""
    spec = recipe.augment
    if spec.policy == "none":
        return None
    if recipe.image.spacing is not None:
        return volume_augmenter(
            recipe.image.modality,
            spacing=recipe.image.spacing,
            transforms=spec.transforms,
            probability=spec.probability,
            i_know=spec.i_know,
        )
    return augmenter(
        recipe.image.modality,
        transforms=spec.transforms,
        probability=spec.probability,
        i_know=spec.i_know,
    )


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


def build_sink(recipe: Recipe) -> Sink:
    """Return where the predictions of the recipe's kind of study go."""
    return KINDS[recipe.task.kind].sink


def check_contract(recipe: Recipe, reader: ImageReader) -> None:
    """Refuse to go on from one of our checkpoints with an input it was not trained on.

    Raises:
        WeightsError: With every difference in mean, std, range, channels and standardisation.
    """
    path = recipe.model.weights.path
    if isinstance(reader.preprocessor, VolumePreprocessor):  # no pretrained volumes: no contract
        return
    if path is None or not is_checkpoint(Path(path)):
        return
    trained = load_checkpoint(Path(path))[1]["preprocessor"]
    fixed = {key: trained[key] for key in CONTRACT_KEYS}
    reader.preprocessor.require_contract(fixed, where=Path(path).name)


def build_contract(recipe: Recipe) -> InputContract:
    """Return the input that the recipe's initial weights were trained on."""
    if recipe.image.patch is not None:
        return VOLUME_CONTRACT
    return input_contract(recipe.model.backbone)


def build_stages(recipe: Recipe, groups: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stages as the library's own type.

    Args:
        recipe: With stages or a preset.
        groups: Names of the network's layer groups, stem to head.

    Raises:
        RunError: When zero-gamma waits for a stage that the preset does not have.
    """
    spec = recipe.finetune
    if spec.preset is None:
        return tuple(_stage(stage) for stage in spec.stages)
    stages = preset_stages(spec.preset, groups)
    names = [stage.name for stage in stages]
    if spec.zero_gamma.when not in (START, *names):
        raise RunError(
            f"{spec.zero_gamma.when!r} is no stage of the preset {spec.preset}",
            expected=f"start or one of {', '.join(names)}",
            where="finetune.zero_gamma.when",
        )
    return stages


def build_options(recipe: Recipe) -> Options:
    """Return what all stages share."""
    spec, stopping = recipe.finetune, recipe.finetune.early_stopping
    penalty = spec.penalty
    return Options(
        batch_size=spec.batch_size,
        accumulate=spec.accumulate,
        lr_batch=spec.lr_batch,
        optimizer=spec.optimizer,
        weight_decay=spec.weight_decay,
        clip_norm=spec.clip_norm,
        ema_decay=spec.ema_decay,
        penalty=None if penalty is None else (penalty.strength, penalty.l1_ratio, penalty.layers),
        monitor=stopping.monitor,
        min_delta=stopping.min_delta,
        baseline=stopping.baseline,
        seed=recipe.seed_of("order"),
        workers=recipe.run.workers,
    )


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
        DecodedImages(cache_folder("images"), limit_bytes).decode if limit_bytes else decode_cases
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
    plan = _zero_gamma(recipe.finetune.zero_gamma)
    return None if plan.select == "none" else GammaSurgery(model, plan, image)


def _zero_gamma(spec: ZeroGammaSpec) -> ZeroGamma:
    """Zero-gamma as the library's own type."""
    action: Literal["set", "scale", "remove"] = "set"
    amount = 0.0
    if isinstance(spec.value, float):
        amount = spec.value
    elif spec.value == "remove":
        action = "remove"
    else:
        action, amount = "scale", float(spec.value.removeprefix("scale:"))
    return ZeroGamma(
        select=spec.select if isinstance(spec.select, str) else ",".join(spec.select),
        action=action,
        amount=amount,
        beta=spec.beta,
        lr_mult=spec.lr_mult,
        when=spec.when,
        recalibrate=spec.recalibrate,
    )


def load_trained(
    path: Path, *, backbone: Callable[[], Any] | None = None
) -> TrainedModel[Any, Any]:
    """Build the model of a checkpoint with its own preprocessing. It takes no loss to predict.

    Args:
        path: `best.safetensors` of a run.
        backbone: The object that the run's backbone was, if it was given in Python.

    Raises:
        RunError: When it was, and is not given again.
        WeightsError: When the checkpoint is damaged, or does not fit the network it names.
    """
    tensors, meta = load_checkpoint(path)
    recipe = parse_recipe(meta["recipe"], where=path.name)
    task = read_task(meta["task"], recipe.task.loss)
    no_weights = recipe.model.model_copy(
        update={"weights": WeightsSpec(source="none"), "given": backbone}
    )
    untrained = recipe.model_copy(update={"model": no_weights})
    model, _ = build_network(untrained, task.outputs, extra=task.inputs.width)
    for removal in meta.get("removed", ()):
        remove(model, Removal(**removal))
    try:
        model.load_state_dict(without_prefix("model", tensors))
    except RuntimeError as error:
        raise WeightsError(
            "the tensors do not fit the network that the checkpoint names",
            expected=f"{recipe.model.backbone} with {task.outputs} outputs",
            where=path.name,
            fix="Use the timm version of environment.json",
        ) from error
    arrays = {n: t.numpy() for n, t in without_prefix("extra", tensors).items()}
    stored = meta["preprocessor"]
    preprocessor: Preprocessor | VolumePreprocessor
    if recipe.image.spacing is not None:
        preprocessor = VolumePreprocessor.from_dict(stored)
    else:
        preprocessor = Preprocessor.from_dict(stored, arrays.get("pixel_mean"))
    return TrainedModel(
        model,
        task,
        _reader(recipe, preprocessor, None),
        Columns.of(dict(recipe.data)),
        recipe.run.device,
        recipe.run.precision,
        recipe,
        meta,
    )


def _stage(spec: StageSpec) -> Stage:
    """One stage; a tuple of selectors becomes a union."""
    policies = spec.batch_norm
    if isinstance(policies, str):
        policies = {} if policies == "frozen" else {"all": policies}
    rates = {"head": spec.lr.head}
    if spec.lr.base is not None:
        rates["base"] = spec.lr.base
    return Stage(
        name=spec.name,
        train=spec.train if isinstance(spec.train, str) else ",".join(spec.train),
        epochs=spec.epochs,
        lr=rates,
        batch_norm=policies,
        warmup_epochs=spec.warmup_epochs,
        schedule=spec.schedule,
        layer_decay=spec.layer_decay,
        patience=spec.patience,
    )
