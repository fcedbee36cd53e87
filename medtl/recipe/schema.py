"""The recipe: everything a run needs, as one frozen, checked value.

A recipe is YAML that people write; this module knows its keys, their types and ranges, and nothing
else. `parse_recipe` reports every fault at once, each with the nearest valid name. Only `run/` and
what lies above it ever see a `Recipe`; the library takes plain arguments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from medtl.errors import MedtlError, RecipeError
from medtl.recipe.faults import faults_of
from medtl.recipe.finetune import Finetune
from medtl.recipe.section import Count, Fraction, Positive, Section

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
UncertainPolicy = Literal["ignore", "zeros", "ones", "smoothed"]
Side = Annotated[int, Field(ge=8, le=512)]


class OperatingPointRule(Section):
    """How the decision threshold is chosen on the validation cases. State exactly one."""

    sensitivity: Probability | None = Field(None, description="highest threshold that reaches it")
    specificity: Probability | None = Field(None, description="lowest threshold that reaches it")
    youden: Literal[True] | None = Field(None, description="maximise sensitivity + specificity")
    f1: Literal[True] | None = Field(None, description="maximise F1")
    net_benefit: Probability | None = Field(None, description="at this threshold probability")
    cost_ratio: Positive | None = Field(None, description="cost of a miss over a false alarm")

    @model_validator(mode="after")
    def _exactly_one(self) -> OperatingPointRule:
        if len(self.rule()) != 1:
            msg = "state exactly one rule, for example {sensitivity: 0.90}"
            raise ValueError(msg)
        return self

    def rule(self) -> dict[str, float | bool]:
        """The one rule that is stated, as `{name: value}`."""
        return {name: value for name, value in self if value is not None}


class Study(Section):
    """What the study asks, for the first page of the report."""

    question: str = Field(description="the clinical question in words")
    title: str = Field("", description="short name of the study, above the question")
    intended_use: str = Field("", description="who would use the model, where in the pathway")
    out_of_scope: str = Field("", description="on whom, or for what, it must not be used")
    reference_standard: str = Field("", description="who read, how, how blinded, agreement")
    sampling: str = Field("", description="how patients were chosen, where and when")
    external: str = Field("", description="whether the test set is internal or external")
    endpoint: str = Field("", description="the primary endpoint, fixed beforehand")
    funding: str = Field("", description="funding, conflicts of interest, contact")
    operating_point: OperatingPointRule = OperatingPointRule(sensitivity=0.90)
    prevalence: Probability | None = Field(None, description="of the finding where it will be used")
    synthetic: bool = Field(False, description="the images are drawn, not taken")


class SplitSpec(Section):
    """How patients are divided when the manifest does not say."""

    fractions: tuple[Positive, Positive, Positive] = (8.0, 1.0, 1.0)
    seed: int = 0


class LimitsSpec(Section):
    """What one image file may cost, where it may be more than `medtl.io.cost` allows."""

    decoded_bytes: Count | None = None
    pixels_per_frame: Count | None = None
    inflate_ratio: Annotated[float, Field(ge=1)] | None = None
    sequence_depth: Count | None = None


class Data(Section):
    """The manifest and what its columns are used for."""

    manifest: str = Field(description="CSV or Parquet, relative to the recipe")
    target: str | tuple[str, ...] = Field(
        (), description="one column, or several for multi-label; none for segmentation"
    )
    mask: str | None = Field(None, description="column with the mask of each image")
    sex: str | None = Field(
        None, description="column that the network is told besides the image (bone age): F or M"
    )
    names: dict[str, str] | None = Field(
        None, description="target column -> what the finding is called in the report"
    )
    positive: str | None = Field(None, description="class that counts as positive, if two texts")
    classes: tuple[str, ...] = Field(
        (), description="all values the target column may have; any other is a fault"
    )
    uncertain: UncertainPolicy | dict[str, UncertainPolicy] = Field(
        "ignore", description="what training does with -1, for all labels or per label"
    )
    missing: Literal["ignore", "zeros"] = Field("ignore", description="what an empty cell means")
    strata: tuple[str, ...] = Field((), description="columns that the report breaks results by")
    ids: Literal["pseudonymise", "pseudonymous"] = "pseudonymise"
    one_image_per_patient: bool = Field(False, description="there is no patient_id column")
    split: SplitSpec = SplitSpec()
    max_unreadable: Fraction = Field(0.05, description="share of bad files at which a run stops")
    limits: LimitsSpec = LimitsSpec()

    @model_validator(mode="after")
    def _something_to_learn(self) -> Data:
        if not self.targets and self.mask is None:
            msg = "state the target column, or for segmentation the mask column"
            raise ValueError(msg)
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The target columns, always as a tuple."""
        return (self.target,) if isinstance(self.target, str) else self.target


class Clahe(Section):
    """Contrast-limited adaptive histogram equalisation, on full precision."""

    clip_limit: Positive = 2.0
    tiles: Annotated[int, Field(ge=1, le=64)] = 8


class ImageSpec(Section):
    """From a file to what the network sees."""

    modality: Literal["cxr", "hand", "ct", "mr", "fundus", "derm", "histology", "us"]
    size: Annotated[int, Field(ge=32, le=2048)] = 224
    spacing: tuple[Positive, Positive, Positive] | None = Field(
        None, description="volumes: mm per voxel to resample to; makes the study one of volumes"
    )
    patch: tuple[Side, Side, Side] | None = Field(
        None, description="volumes: shape of training patches and of windows, in voxels"
    )
    scale: Literal["percentile", "min_max", "window", "voi"] | None = Field(
        None, description="real-world values to [0, 1]; ct: window, else percentile"
    )
    window: str | tuple[float, Positive] | None = Field(
        None, description="a preset ('lung') or [centre, width] in real-world units"
    )
    percentiles: tuple[float, float] = (0.5, 99.5)
    decode: Literal["whole", "reduced"] = Field(
        "whole", description="reduced: JPEG 2000 and JPEG at about twice the size; docs/speed.md"
    )
    clahe: Clahe | None = None
    standardise: Literal["weights", "z_score", "pixel_mean", "local_contrast", "none"] = "weights"

    @field_validator("percentiles")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 100:
            msg = "state [low, high] with 0 <= low < high <= 100"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _window_is_stated(self) -> ImageSpec:
        if self.scale == "window" and self.window is None:
            msg = "scale 'window' needs image.window, a preset or [centre, width]"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _volumes_have_patches(self) -> ImageSpec:
        if (self.spacing is None) != (self.patch is None):
            msg = "volumes need both spacing (mm) and patch (voxels)"
            raise ValueError(msg)
        if self.spacing is not None and self.decode == "reduced":
            msg = "slices of a volume are decoded whole; leave decode out"
            raise ValueError(msg)
        if self.spacing is not None and self.standardise in ("pixel_mean", "local_contrast"):
            msg = f"volumes cannot be standardised by {self.standardise}; state z_score or none"
            raise ValueError(msg)
        return self


class Augment(Section):
    """Training-time augmentation; what is safe is looked up in the safety table by modality."""

    policy: Literal["safe", "none"] = "safe"
    probability: Fraction = 0.5
    transforms: dict[str, dict[str, Any]] | None = Field(
        None, description="instead of the modality's own list: name -> parameters"
    )
    i_know: tuple[str, ...] = Field((), description="unsafe transforms wanted all the same")


class WeightsSpec(Section):
    """Where the initial weights come from."""

    source: Literal["bundled", "file", "timm", "none"] = "bundled"
    path: str | None = Field(None, description="for 'file', relative to the recipe")
    sha256: str | None = Field(None, description="for 'file': its hash, checked before loading")

    @model_validator(mode="after")
    def _file_has_a_path(self) -> WeightsSpec:
        if (self.source == "file") != (self.path is not None):
            msg = "a path goes with source 'file', and only with it"
            raise ValueError(msg)
        return self


class Model(Section):
    """The network."""

    backbone: str = Field(
        "tf_efficientnet_lite0", description="any timm name; for volumes unet_3d, segresnet_3d, ..."
    )
    weights: WeightsSpec = WeightsSpec()
    reuse_until: str | None = Field(
        None, description="last layer group of the backbone that is used; far domains need fewer"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    decoder: Literal["unet", "fpn", "deeplabv3plus"] = Field(
        "unet", description="segmentation of planes: what stands on the backbone"
    )
    width: Annotated[int, Field(ge=4, le=128)] = Field(
        16, description="segmentation of volumes: channels of the first level"
    )
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.5, description="segmentation: of the windows that a large image goes through in"
    )

    @field_validator("weights", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value


LOSSES = {
    "classification": ("cross_entropy", "focal"),
    "bone_age": (
        *("l1", "huber", "mse"),
        *("dpce", "dex", "mean_variance", "label_distribution", "coral", "corn"),
    ),
    "segmentation": (
        *("dice_cross_entropy", "dice_focal", "dice", "dice_squared", "generalised_dice"),
        *("tversky", "focal_tversky", "cross_entropy", "focal"),
    ),
}
"""Kind of task -> its losses, the default first."""

TASK_KEYS = {
    "classification": ("focal_gamma", "focal_alpha", "class_weight", "label_smoothing"),
    "bone_age": ("class_months", "decoding", "huber_sd", "distance_strength", "label_sd_months"),
    "segmentation": (
        *("structures", "ignored", "overlapping", "dice_per", "focal_gamma", "focal_alpha"),
        *("fp_weight", "fn_weight", "exponent"),
    ),
}
"""Kind of task -> the keys that mean something to it."""


class TaskSpec(Section):
    """What is learned."""

    kind: Literal["classification", "bone_age", "segmentation"] = "classification"
    loss: Literal[
        "cross_entropy",
        "focal",
        "l1",
        "huber",
        "mse",
        "dpce",
        "dex",
        "mean_variance",
        "label_distribution",
        "coral",
        "corn",
        "dice_cross_entropy",
        "dice_focal",
        "dice",
        "dice_squared",
        "generalised_dice",
        "tversky",
        "focal_tversky",
    ] = Field("cross_entropy", description="unless stated: l1 for bone age, Dice + CE for masks")
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    focal_alpha: Fraction | None = Field(None, description="weight of the positive class")
    class_weight: Literal["none", "balanced"] = "none"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    class_months: Positive = Field(12.0, description="bone age: width of a class, ordinal losses")
    decoding: Literal["argmax", "mean", "median"] = Field(
        "mean", description="bone age: from the probabilities of the classes to one age"
    )
    huber_sd: Positive = Field(0.2, description="bone age: error, in SDs, where huber is a line")
    distance_strength: Annotated[float, Field(ge=0.0)] = Field(
        100.0, description="bone age: lambda of dpce, for distances between 0 and 1"
    )
    label_sd_months: Positive = Field(12.0, description="bone age: SD of label_distribution")
    structures: dict[str, int | tuple[int, ...]] = Field(
        {}, description="segmentation: name -> value, or values, in the masks; 0 is background"
    )
    ignored: tuple[int, ...] = Field((), description="segmentation: mask values 'not known'")
    overlapping: bool = Field(False, description="a pixel may belong to several structures")
    dice_per: Literal["case", "batch"] = Field("case", description="what the Dice losses sum over")
    fp_weight: Annotated[float, Field(ge=0.0)] = Field(0.3, description="of the Tversky losses")
    fn_weight: Annotated[float, Field(ge=0.0)] = Field(0.7, description="of the Tversky losses")
    exponent: Positive = Field(0.75, description="of focal_tversky; the paper's 1 / gamma")

    @model_validator(mode="before")
    @classmethod
    def _loss_of_the_kind(cls, value: object) -> object:
        if not isinstance(value, Mapping) or str(value.get("kind")) not in LOSSES:
            return value
        return {"loss": LOSSES[str(value["kind"])][0], **value}

    @model_validator(mode="after")
    def _belongs_to_the_kind(self) -> TaskSpec:
        if self.loss not in LOSSES[self.kind]:
            msg = f"loss {self.loss!r} is not one of {self.kind}: {', '.join(LOSSES[self.kind])}"
            raise ValueError(msg)
        fields = type(self).model_fields
        others = {key for keys in TASK_KEYS.values() for key in keys} - {*TASK_KEYS[self.kind]}
        stated = sorted(key for key in others if getattr(self, key) != fields[key].default)
        if stated:
            msg = f"{', '.join(stated)} means nothing to kind {self.kind}"
            raise ValueError(msg)
        if self.kind == "segmentation" and not self.structures:
            msg = "name the structures and their values in the masks: structures: {lung: 1}"
            raise ValueError(msg)
        return self


class Seeds(Section):
    """Separate seeds, for studies that vary one source of randomness and hold the others."""

    split: Annotated[int, Field(ge=0)] | None = Field(
        None, description="who trains and who tests; data.split.seed when not stated"
    )
    init: Annotated[int, Field(ge=0)] | None = Field(None, description="weights of new layers")
    order: Annotated[int, Field(ge=0)] | None = Field(
        None, description="order of the training cases, and dropout"
    )
    augment: Annotated[int, Field(ge=0)] | None = None


class Runtime(Section):
    """On what, and from which seed."""

    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Seeds | None = Field(None, description="instead of seed, for what is named")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
    cache_gb: Annotated[float, Field(ge=0.0)] = Field(
        20.0, description="what this user's cache of images and activations may hold; 0 for none"
    )
    tensorboard: bool = True
    mlflow: str | None = Field(None, description="tracking URI; needs medtl[tracking]")


class Recipe(Section):
    """A whole study."""

    study: Study
    data: Data
    image: ImageSpec
    augment: Augment = Augment()
    model: Model = Model()
    task: TaskSpec = TaskSpec()
    finetune: Finetune = Finetune()
    run: Runtime = Runtime()

    @model_validator(mode="after")
    def _columns_of_the_kind(self) -> Recipe:
        is_bone_age = self.task.kind == "bone_age"
        if is_bone_age and len(self.data.targets) != 1:
            msg = f"bone age has one target column; data.target names {len(self.data.targets)}"
            raise ValueError(msg)
        if self.image.decode == "reduced" and self.task.kind == "segmentation":
            msg = "masks are drawn on whole images: image.decode 'reduced' is not for segmentation"
            raise ValueError(msg)
        if self.data.sex is not None and not is_bone_age:
            msg = f"data.sex is an input of kind bone_age, not of {self.task.kind}"
            raise ValueError(msg)
        return self

    def seed_of(self, source: Literal["split", "init", "order", "augment"]) -> int:
        """The seed of one source of randomness."""
        stated = None if self.run.seeds is None else getattr(self.run.seeds, source)
        if stated is not None:
            return int(stated)
        return self.data.split.seed if source == "split" else self.run.seed

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe, every default written out, as plain JSON types."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return data

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the resolved recipe; two recipes with one fingerprint train alike."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def parse_recipe(data: object, *, where: str = "recipe") -> Recipe:
    """Return the checked recipe.

    Args:
        data: What the YAML file holds, as plain Python types.
        where: The recipe's file name, for messages.

    Raises:
        RecipeError: With every fault of the schema, in one go.
    """
    if not isinstance(data, Mapping):
        fault = MedtlError(
            f"the recipe is a {type(data).__name__}",
            expected=f"a mapping with the keys {', '.join(Recipe.model_fields)}",
        )
        raise RecipeError([fault], where=where)
    try:
        return Recipe.model_validate(_with_tuples(data))
    except ValidationError as error:
        raise RecipeError(faults_of(error, Recipe), where=where) from None


def _with_tuples(value: Any) -> Any:
    """YAML's lists as the tuples of a frozen recipe: strict validation takes nothing else."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value
