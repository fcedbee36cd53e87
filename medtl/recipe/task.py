"""The section `task` of a recipe: what is learned, by which loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, model_validator

from medtl.losses.auc import PairwiseLogistic
from medtl.losses.cross_entropy import CrossEntropy, Focal, Smoothing
from medtl.losses.given import GivenInPython
from medtl.losses.ordinal import (
    Coral,
    Corn,
    Decoding,
    DistancePenalisedCrossEntropy,
    ExpectedValue,
    LabelDistribution,
    MeanVariance,
)
from medtl.losses.quantity import L1, Huber, MeanSquaredError
from medtl.losses.segmentation import (
    Dice,
    DiceCrossEntropy,
    DiceFocal,
    FocalTversky,
    GeneralisedDice,
    Per,
    SquaredDice,
    Tversky,
)
from medtl.recipe.section import FromMapping, Section
from medtl.types import Fraction, NotNegative, Positive

OF_A_QUANTITY = (
    *(L1, Huber, MeanSquaredError),
    *(DistancePenalisedCrossEntropy, ExpectedValue, MeanVariance, LabelDistribution),
    *(Coral, Corn),
)
"""Losses of one number, the default first."""

LOSSES: dict[str, tuple[Any, ...]] = {
    "classification": (CrossEntropy, Focal, PairwiseLogistic),
    "regression": OF_A_QUANTITY,
    "bone_age": OF_A_QUANTITY,
    "segmentation": (
        *(DiceCrossEntropy, DiceFocal, Dice, SquaredDice, GeneralisedDice),
        *(Tversky, FocalTversky, CrossEntropy, Focal),
    ),
}
"""Kind of task -> its losses, the default first."""

NAMED = {loss.name: loss for losses in LOSSES.values() for loss in losses}
"""Name -> loss."""

if TYPE_CHECKING:
    Loss = Any
else:
    Loss = Annotated[
        Union[(*NAMED.values(), GivenInPython)], Field(discriminator="name"), FromMapping()
    ]

SHORT: dict[str, tuple[str, object]] = {
    "focal_gamma": ("gamma", 2.0),
    "focal_alpha": ("alpha", None),
    "label_smoothing": ("label_smoothing", 0.0),
    "huber_sd": ("delta", 0.2),
    "distance_strength": ("distance_strength", 100.0),
    "label_sd_months": ("sd", 12.0),
    "dice_per": ("per", "case"),
    "fp_weight": ("fp_weight", 0.3),
    "fn_weight": ("fn_weight", 0.7),
    "exponent": ("exponent", 0.75),
}
"""Key beside `loss` -> the option of the losses that it states, and its default."""

TASK_KEYS = {
    "classification": ("focal_gamma", "focal_alpha", "class_weight", "label_smoothing"),
    "regression": ("unit", "range", "class_width", "decoding", "huber_sd", "distance_strength"),
    "bone_age": ("class_months", "decoding", "huber_sd", "distance_strength", "label_sd_months"),
    "segmentation": (
        *("structures", "ignored", "overlapping", "dice_per", "focal_gamma", "focal_alpha"),
        *("fp_weight", "fn_weight", "exponent"),
    ),
}
"""Kind of task -> the keys that mean something to it."""

QUANTITIES = ("bone_age", "regression")
"""Kinds with one target column, and the sex as an input."""

OF_MASKS = ("segmentation",)
"""Kinds whose truth is drawn on the images."""


def _option(losses: str) -> Any:
    """A key beside `loss` that states an option of these losses, and is part of the loss then."""
    said = f"option of {losses}; also inside of loss"
    return Field(None, exclude=True, repr=False, description=said)


def _or_a_name(schema: dict[str, Any]) -> None:
    """Tell editors that a loss may be a name alone."""
    union = {key: schema.pop(key) for key in ("discriminator", "oneOf")}
    schema["anyOf"] = [{"enum": [*NAMED]}, union]


class TaskSpec(Section):
    """What is learned. A loss is a name, or a name with its options: {name: focal, gamma: 3}."""

    kind: Literal["classification", "regression", "bone_age", "segmentation"] = Field(
        "classification", description="of study"
    )
    loss: Loss = Field(
        CrossEntropy(),
        description="unless stated: l1 for a quantity, Dice + CE for masks",
        json_schema_extra=_or_a_name,
    )
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: rare classes count more in the loss"
    )
    unit: str | None = Field(None, min_length=1, description="regression: of the target (%, ml)")
    range: tuple[float, float] | None = Field(
        None, description="regression: smallest and largest value there can be, in the unit"
    )
    class_width: Positive | None = Field(
        None, description="regression: width of a class, ordinal losses; a twentieth of the range"
    )
    class_months: Positive = Field(12.0, description="bone age: width of a class, ordinal losses")
    decoding: Decoding = Field(
        "mean", description="ordinal losses: from the probabilities of the classes to one value"
    )
    structures: dict[str, int | tuple[int, ...]] = Field(
        {}, description="segmentation: name -> value, or values, in the masks; 0 is background"
    )
    ignored: tuple[int, ...] = Field((), description="segmentation: mask values 'not known'")
    overlapping: bool = Field(False, description="a pixel may belong to several structures")
    focal_gamma: NotNegative | None = _option("the focal losses")
    focal_alpha: Fraction | None = _option("the focal losses")
    label_smoothing: Smoothing | None = _option("cross_entropy and focal")
    huber_sd: Positive | None = _option("huber (delta)")
    distance_strength: NotNegative | None = _option("dpce")
    label_sd_months: Positive | None = _option("label_distribution (sd, in years)")
    dice_per: Per | None = _option("the Dice losses (per)")
    fp_weight: NotNegative | None = _option("the Tversky losses")
    fn_weight: NotNegative | None = _option("the Tversky losses")
    exponent: Positive | None = _option("focal_tversky")

    @model_validator(mode="before")
    @classmethod
    def _loss_with_its_options(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        kind = str(value.get("kind", "classification"))
        default = LOSSES[kind][0].name if kind in LOSSES else "cross_entropy"
        loss = value.get("loss", default)
        if isinstance(loss, str):
            return {**value, "loss": {"name": loss}}
        stated = {key for key in SHORT if value.get(key) is not None}
        twice = [key for key in stated if isinstance(loss, Mapping) and SHORT[key][0] in loss]
        if twice:
            msg = f"{', '.join(sorted(twice))} is stated inside of loss, too; state it there alone"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _belongs_to_the_kind(self) -> TaskSpec:
        names = [loss.name for loss in LOSSES[self.kind]]
        if self.loss.name not in (*names, GivenInPython.name):
            msg = f"loss {self.loss.name!r} is not one of {self.kind}: {', '.join(names)}"
            raise ValueError(msg)
        defaults = {key: field.default for key, field in type(self).model_fields.items()}
        defaults |= {key: default for key, (_, default) in SHORT.items()}
        others = {key for keys in TASK_KEYS.values() for key in keys} - {*TASK_KEYS[self.kind]}
        stated = sorted(key for key in others if getattr(self, key) not in (None, defaults[key]))
        if stated:
            msg = f"{', '.join(stated)} means nothing to kind {self.kind}"
            raise ValueError(msg)
        if self.class_weight == "balanced" and self.loss.name not in ("cross_entropy", "focal"):
            msg = f"class_weight 'balanced' means nothing to loss {self.loss.name!r}"
            raise ValueError(msg)
        if "unit" in TASK_KEYS[self.kind] and self.unit is None:
            msg = "state the unit of the target, for example unit: '%'"
            raise ValueError(msg)
        if self.range is not None and not self.range[0] < self.range[1]:
            msg = "state [smallest, largest] value that there can be"
            raise ValueError(msg)
        if "structures" in TASK_KEYS[self.kind] and not self.structures:
            msg = "name the structures and their values in the masks: structures: {lung: 1}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _weighs_once(self) -> TaskSpec:
        alphas = {self.focal_alpha, getattr(self.loss, "alpha", None)}
        if self.class_weight == "balanced" and alphas != {None}:
            msg = "class_weight 'balanced' sets the alpha of focal: state one of the two"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _short_keys_are_part_of_the_loss(self) -> TaskSpec:
        stated = {key: getattr(self, key) for key in SHORT if getattr(self, key) is not None}
        if not stated:
            return self
        if "label_sd_months" in stated:
            stated["label_sd_months"] /= 12
        options = {SHORT[key][0]: value for key, value in stated.items()}
        known = {field.name for field in fields(self.loss)}
        loss = replace(self.loss, **{key: options[key] for key in known & options.keys()})
        return self.model_copy(update={"loss": loss, **dict.fromkeys(SHORT)})
