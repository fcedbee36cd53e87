"""The recipe: everything a run needs, as one frozen, checked value.

A recipe is YAML that people write; this module knows its keys, their types and ranges, and nothing
else. `parse_recipe` reports every fault at once, each with the nearest valid name. Only `build.py`
and what lies above it ever see a `Recipe`; the library takes plain arguments.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from medtl.errors import MedtlError, RecipeError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
UncertainPolicy = Literal["ignore", "zeros", "ones", "smoothed"]
BatchNormPolicy = Literal["frozen", "frozen_stats", "adapt"]


class Section(BaseModel):
    """A part of the recipe: unknown keys are faults, values are never coerced, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
    intended_use: str = Field("", description="who would use the model, where in the pathway")
    operating_point: OperatingPointRule = OperatingPointRule(sensitivity=0.90)
    prevalence: Probability | None = Field(None, description="of the finding where it will be used")
    synthetic: bool = Field(False, description="the images are drawn, not taken")


class SplitSpec(Section):
    """How patients are divided when the manifest does not say."""

    fractions: tuple[Positive, Positive, Positive] = (8.0, 1.0, 1.0)
    seed: int = 0


class Data(Section):
    """The manifest and what its columns are used for."""

    manifest: str = Field(description="CSV or Parquet, relative to the recipe")
    target: str | tuple[str, ...] = Field(description="one column, or several for multi-label")
    names: dict[str, str] | None = Field(
        None, description="target column -> what the finding is called in the report"
    )
    positive: str | None = Field(None, description="class that counts as positive, if two texts")
    uncertain: UncertainPolicy | dict[str, UncertainPolicy] = Field(
        "ignore", description="what training does with -1, for all labels or per label"
    )
    missing: Literal["ignore", "zeros"] = Field("ignore", description="what an empty cell means")
    strata: tuple[str, ...] = Field((), description="columns that the report breaks results by")
    ids: Literal["pseudonymise", "pseudonymous"] = "pseudonymise"
    one_image_per_patient: bool = Field(False, description="there is no patient_id column")
    split: SplitSpec = SplitSpec()
    max_unreadable: Fraction = Field(0.05, description="share of bad files at which a run stops")

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
    scale: Literal["percentile", "min_max", "window", "voi"] | None = Field(
        None, description="real-world values to [0, 1]; ct: window, else percentile"
    )
    window: str | tuple[float, Positive] | None = Field(
        None, description="a preset ('lung') or [centre, width] in real-world units"
    )
    percentiles: tuple[float, float] = (0.5, 99.5)
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

    backbone: str = Field("tf_efficientnet_lite0", description="any timm name")
    weights: WeightsSpec = WeightsSpec()
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2

    @field_validator("weights", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value


class TaskSpec(Section):
    """What is learned."""

    kind: Literal["classification"] = "classification"
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    focal_alpha: Fraction | None = Field(None, description="weight of the positive class")
    class_weight: Literal["none", "balanced"] = "none"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0


class LearningRates(Section):
    """Learning rates of the head and of the layers below it."""

    head: Positive
    base: Positive | None = None


class StageSpec(Section):
    """One stage: which layer groups train, how long, how fast."""

    name: str
    train: str | tuple[str, ...] = Field(description="selector of layer groups")
    epochs: Annotated[int, Field(ge=1)]
    lr: LearningRates
    batch_norm: BatchNormPolicy | dict[str, BatchNormPolicy] = "frozen"
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    schedule: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    patience: Annotated[int, Field(ge=1)] = 5

    @field_validator("lr", mode="before")
    @classmethod
    def _one_rate(cls, value: object) -> object:
        return {"head": value, "base": value} if isinstance(value, int | float) else value


class Penalty(Section):
    """Explicit weight penalty added to the loss: strength * (ratio * |w| + (1 - ratio) * w^2)."""

    strength: Positive
    l1_ratio: Fraction = Field(0.0, description="0 is L2, 1 is L1, between is elastic net")
    layers: str = Field("head", description="selector of layer groups")


class EarlyStopping(Section):
    """When a stage ends before its last epoch."""

    monitor: Literal["auto", "val_loss", "val_metric"] = "auto"
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0
    baseline: float | None = Field(None, description="a first epoch worse than this counts as none")


def _standard_stages() -> tuple[StageSpec, ...]:
    """Head, then the last group, then all: the order of Kumar et al. 2022 with a middle step."""
    return (
        StageSpec(name="head", train="head", epochs=10, lr=LearningRates(head=1e-3)),
        StageSpec(
            name="top",
            train=("head", "last:1"),
            epochs=10,
            lr=LearningRates(head=3e-4, base=1e-4),
            warmup_epochs=1,
        ),
        StageSpec(
            name="full",
            train="all",
            epochs=20,
            lr=LearningRates(head=1e-4, base=3e-5),
            warmup_epochs=1,
            layer_decay=0.8,
        ),
    )


class Finetune(Section):
    """How the network is trained."""

    stages: tuple[StageSpec, ...] = Field(default_factory=_standard_stages, min_length=1)
    batch_size: Annotated[int, Field(ge=2)] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1
    lr_batch: Annotated[int, Field(ge=1)] = Field(
        32, description="images a step that the rates are stated for; they scale linearly"
    )
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    clip_norm: Positive | None = 1.0
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    penalty: Penalty | None = None
    early_stopping: EarlyStopping = EarlyStopping()

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Finetune:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            msg = f"stage names must differ; got {', '.join(names)}"
            raise ValueError(msg)
        return self


class Runtime(Section):
    """On what, and from which seed."""

    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
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
        # JSON mode is strict (no "10" for 10, no true for 1) and yet takes lists for tuples.
        return Recipe.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        faults = [_fault(dict(entry)) for entry in error.errors()]
        raise RecipeError(_distinct(faults), where=where) from None


_WORDS = {
    "a valid string": "a text",
    "a valid array": "a list",
    "a valid tuple": "a list",
    "an object": "a mapping",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
}
"""pydantic's words for types -> those of somebody who writes YAML."""


def _distinct(faults: list[MedtlError]) -> list[MedtlError]:
    """One fault per place: members of a union are joined, a section with faulty keys is dropped."""
    merged: dict[str, MedtlError] = {}
    for fault in faults:
        first = merged.get(fault.where)
        if first is not None and fault.expected:
            expected = f"{first.expected} or {fault.expected}"
            merged[fault.where] = MedtlError(
                first.found, expected=expected, where=fault.where, fix=first.fix
            )
        else:
            merged[fault.where] = fault
    return [
        fault
        for where, fault in merged.items()
        if not any(other.startswith(f"{where}.") for other in merged)
    ]


def _fault(entry: dict[str, Any]) -> MedtlError:
    """Say one pydantic error in our words."""
    keys = [str(part) for part in entry["loc"] if not _names_union_member(part)]
    where = ".".join(keys)
    kind, value = entry["type"], entry.get("input")
    if kind == "extra_forbidden":
        valid = list(_fields_of(_section_at(keys[:-1])))
        return MedtlError("unknown key", where=where, fix=_nearest(keys[-1], valid))
    if kind == "missing":
        return MedtlError("this key is missing", where=where, fix=_purpose(keys))
    if kind == "literal_error":
        allowed = entry["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        expected = f"one of {', '.join(allowed)}"
        near = _nearest(str(value), allowed)
        return MedtlError(f"got {value!r}", expected=expected, where=where, fix=near)
    message = entry["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return MedtlError(message, where=where)
    return MedtlError(f"got {value!r}", expected=_WORDS.get(message, message), where=where)


def _names_union_member(part: str | int) -> bool:
    """Whether pydantic added this part of a location to say which type of a union it tried."""
    return isinstance(part, str) and (part in {"str", "float"} or "[" in part)


def _section_at(keys: list[str]) -> Any:
    """The section class that `keys` lead to, or None."""
    section: Any = Recipe
    for key in keys:
        if not key.isdigit():
            section = _fields_of(section).get(key)
    return section


def _fields_of(section: Any) -> dict[str, Any]:
    """Key -> type of a section's fields; empty for anything that is not a section."""
    if isinstance(section, type) and issubclass(section, Section):
        return {name: _section_in(field.annotation) for name, field in section.model_fields.items()}
    return {}


def _section_in(annotation: Any) -> Any:
    """The section class inside an annotation such as `tuple[StageSpec, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


def _purpose(keys: list[str]) -> str:
    """What a missing key is for."""
    field = _section_at(keys[:-1]).model_fields[keys[-1]]
    return f"Add it: {field.description}" if field.description else "Add it"


def _nearest(name: str, valid: list[str]) -> str:
    """'Did you mean ...' with the nearest valid name, or the whole list when none is near."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Valid here: {', '.join(valid)}" if valid else "Remove it"
