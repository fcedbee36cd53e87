"""The only file that turns a recipe into objects: literal dictionaries, name -> factory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medtl.errors import WeightsError
from medtl.io.manifest import manifest_columns, read_manifest
from medtl.networks.backbones import Classifier, build_classifier
from medtl.networks.weights import InputContract, WeightsReport, WeightsSource, input_contract
from medtl.preprocess.augment import Augmenter, augmenter
from medtl.preprocess.intensity import WINDOWS
from medtl.preprocess.pipeline import Preprocessor
from medtl.recipe import Recipe, StageSpec, WeightsSpec, parse_recipe
from medtl.tasks.classification import Classes, Findings, classification_task
from medtl.tasks.task import Task
from medtl.training.checkpoint import is_checkpoint, load_checkpoint, without_prefix
from medtl.training.images import ImageReader
from medtl.training.loop import Options
from medtl.training.seeds import Stream, torch_seed
from medtl.types import Case, Manifest, Stage

TASKS: dict[str, Callable[..., Task]] = {"findings": Findings, "classes": Classes}
"""Kind of task in a checkpoint -> its class."""

COLOR_MODALITIES = {"fundus", "derm", "histology"}
"""Modalities read in colour; all others are grey."""

CONTRACT_KEYS = ("standardisation", "mean", "std", "input_range", "channels")
"""What of the preprocessing belongs to weights; size and intensity scale may change."""

DEMOGRAPHICS = ("age", "sex")
"""Manifest columns that the cohort table shows when they are there."""


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint, ready to predict.

    Attributes:
        model: The network with its best weights.
        task: What its outputs mean.
        reader: How a file becomes a unit image.
        recipe: The recipe it was trained by.
        meta: All that the checkpoint says (training profile, hashes, position).
    """

    model: Classifier
    task: Task
    reader: ImageReader
    recipe: Recipe
    meta: Mapping[str, Any]


def build_manifest(recipe: Recipe) -> Manifest:
    """Read the recipe's manifest, pseudonymised unless the recipe says its ids already are."""
    data = recipe.data
    path = Path(data.manifest)
    present = set(manifest_columns(path))
    shown = [name for name in DEMOGRAPHICS if name in present]
    return read_manifest(
        path,
        targets=data.targets,
        strata=tuple(dict.fromkeys([*data.strata, *shown])),
        ids=data.ids,
        one_image_per_patient=data.one_image_per_patient,
    )


def build_task(recipe: Recipe, cases: Sequence[Case]) -> Task:
    """Return the task that the target columns call for."""
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
        loss_name=spec.loss,
        focal_gamma=spec.focal_gamma,
        focal_alpha=spec.focal_alpha,
        label_smoothing=spec.label_smoothing,
        balanced=spec.class_weight == "balanced",
    )


def build_reader(recipe: Recipe, contract: InputContract, root: Path | None) -> ImageReader:
    """Return how the files of this recipe become unit images."""
    image = recipe.image
    scale = image.scale or ("window" if image.modality == "ct" else "percentile")
    window = WINDOWS[image.window] if isinstance(image.window, str) else image.window
    color: Literal["grey", "rgb"] = "rgb" if image.modality in COLOR_MODALITIES else "grey"
    preprocessor = Preprocessor(
        size=image.size,
        color=color,
        scale="min_max" if scale == "voi" else scale,
        percentiles=image.percentiles,
        nonzero=image.modality == "mr",
        window=window if scale == "window" else None,
        clahe=None if image.clahe is None else (image.clahe.clip_limit, image.clahe.tiles),
        standardisation=image.standardise,
        mean=contract.mean,
        std=contract.std,
        input_range=contract.value_range,
    )
    return ImageReader(preprocessor, voi=scale == "voi", color=color, root=root)


def build_augmenter(recipe: Recipe) -> Augmenter | None:
    """Return the safe augmentation of the recipe's modality, or None."""
    spec = recipe.augment
    if spec.policy == "none":
        return None
    return augmenter(
        recipe.image.modality,
        transforms=spec.transforms,
        probability=spec.probability,
        i_know=spec.i_know,
    )


@dataclass(frozen=True)
class UnitAugment:
    """An augmenter as a function from unit image to unit image, which loader processes can take."""

    policy: Augmenter

    def __call__(self, unit: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the unit image after a drawn augmentation."""
        return self.policy(unit, rng).array


def build_network(
    recipe: Recipe, outputs: int, *, extra: int = 0
) -> tuple[Classifier, WeightsReport]:
    """Return the network with its initial weights, and what was loaded."""
    spec = recipe.model
    torch.manual_seed(torch_seed(recipe.seed_of("init"), Stream.INIT))
    weights = WeightsSource(
        spec.weights.source,
        path=None if spec.weights.path is None else Path(spec.weights.path),
        sha256=spec.weights.sha256,
    )
    return build_classifier(
        spec.backbone,
        outputs=outputs,
        weights=weights,
        dropout=spec.dropout,
        extra_features=extra,
    )


def check_contract(recipe: Recipe, reader: ImageReader) -> None:
    """Refuse to go on from one of our checkpoints with an input it was not trained on.

    Raises:
        WeightsError: With every difference in mean, std, range, channels and standardisation.
    """
    path = recipe.model.weights.path
    if path is None or not is_checkpoint(Path(path)):
        return
    trained = load_checkpoint(Path(path))[1]["preprocessor"]
    fixed = {key: trained[key] for key in CONTRACT_KEYS}
    reader.preprocessor.require_contract(fixed, where=Path(path).name)


def build_contract(recipe: Recipe) -> InputContract:
    """Return the input that the recipe's initial weights were trained on."""
    return input_contract(recipe.model.backbone)


def build_stages(recipe: Recipe) -> tuple[Stage, ...]:
    """Return the stages as the library's own type."""
    return tuple(_stage(spec) for spec in recipe.finetune.stages)


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


def load_trained(path: Path) -> TrainedModel:
    """Build the model of a checkpoint with its own preprocessing.

    Args:
        path: `best.safetensors` of a run.

    Raises:
        WeightsError: When the checkpoint is damaged, or does not fit the network it names.
    """
    tensors, meta = load_checkpoint(path)
    recipe = parse_recipe(meta["recipe"], where=path.name)
    kind, fields = meta["task"]["kind"], {k: v for k, v in meta["task"].items() if k != "kind"}
    task = TASKS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    no_weights = recipe.model.model_copy(update={"weights": WeightsSpec(source="none")})
    untrained = recipe.model_copy(update={"model": no_weights})
    model, _ = build_network(untrained, task.outputs, extra=task.extra)
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
    preprocessor = Preprocessor.from_dict(meta["preprocessor"], arrays.get("pixel_mean"))
    reader = ImageReader(preprocessor, voi=recipe.image.scale == "voi", color=preprocessor.color)
    return TrainedModel(model, task, reader, recipe, meta)


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
