"""The section `finetune` of a recipe: stages, rates, zero-gamma, what else steers the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medtl.losses.adversarial import AdversarialTraining
from medtl.losses.distillation import Distillation
from medtl.losses.mixing import Mix
from medtl.losses.mixmatch import MixMatch
from medtl.losses.penalty import Penalty
from medtl.losses.self_training import SelfTraining
from medtl.recipe.section import FromMapping, Section
from medtl.types import START, Count, NotNegative, Positive, Stage, ZeroGamma

Preset = Literal[
    "linear_probe",
    "lp_ft",
    "full",
    "gradual",
    "bn_only",
    "surgical:first",
    "surgical:middle",
    "surgical:last",
]


class EarlyStopping(Section):
    """When a stage ends before its last epoch."""

    monitor: Literal["auto", "val_loss", "val_metric"] = Field(
        "auto",
        description="auto: the validation loss, which asks for calibrated scores too, whatever the "
        "number of cases; val_metric: the AUROC, the error or the Dice",
    )
    min_delta: NotNegative = Field(0.0, description="an improvement is more than this")
    baseline: float | None = Field(None, description="a first epoch worse than this counts as none")


STANDARD = (
    Stage("head", "head", 10, {"head": 1e-3}),
    Stage("top", ("head", "last:1"), 10, {"head": 3e-4, "base": 1e-4}, warmup_epochs=1.0),
    Stage("full", "all", 20, {"head": 1e-4, "base": 3e-5}, warmup_epochs=1.0, layer_decay=0.8),
)
"""Head, then the last group, then all: the order of Kumar et al. 2022 with a middle step."""


def _spelled(stage: object) -> object:
    """A stage of one rate for all layers with both of them."""
    rate = stage.get("lr") if isinstance(stage, Mapping) else None
    if isinstance(rate, int | float):
        return {**stage, "lr": {"head": rate, "base": rate}}  # type: ignore[dict-item]
    return stage


class Finetune(Section):
    """How the network is trained."""

    preset: Preset | None = Field(None, description="a well-known course, instead of stages")
    stages: tuple[Annotated[Stage, FromMapping()], ...] = STANDARD
    batch_size: Annotated[int, Field(ge=2)] = Field(
        32, description="images that go through the network together"
    )
    accumulate: Count = Field(1, description="batches for one step of the optimiser")
    lr_batch: Count = Field(
        32, description="images a step that the rates are stated for; they scale linearly"
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="what takes the steps")
    weight_decay: NotNegative = Field(0.01, description="shrinks weights a little in each step")
    clip_norm: Positive | None = Field(1.0, description="greatest norm of a gradient; null for any")
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="of the average of the weights that is validated and kept",
    )
    ema_warmup: bool = Field(
        True,
        description="less ema_decay in the first steps of a stage, (1 + n) / (10 + n); false gives "
        "the figures of earlier runs",
    )
    penalty: Annotated[Penalty, FromMapping()] | None = None
    mix: Annotated[Mix, FromMapping()] | None = None
    learn: (
        Annotated[
            Distillation | SelfTraining | MixMatch | AdversarialTraining,
            Field(discriminator="method"),
            FromMapping(),
        ]
        | None
    ) = Field(None, description="from what besides the images and labels of the training cases")
    cached_views: Annotated[int, Field(ge=0)] = Field(
        0,
        description="augmented views of each image that frozen layers are run for, once, in a "
        "stage of more epochs; 0 runs them in every epoch",
    )
    zero_gamma: Annotated[ZeroGamma, FromMapping()] = ZeroGamma()
    early_stopping: EarlyStopping = EarlyStopping()

    @model_validator(mode="before")
    @classmethod
    def _preset_is_instead(cls, value: object) -> object:
        if not isinstance(value, Mapping) or value.get("preset") is None:
            return value
        return {"stages": (), **value}

    @field_validator("stages", mode="before")
    @classmethod
    def _one_rate(cls, value: object) -> object:
        return tuple(map(_spelled, value)) if isinstance(value, tuple) else value

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Finetune:
        names = [stage.name for stage in self.stages]
        if bool(names) == (self.preset is not None):
            msg = "state either stages or a preset"
            raise ValueError(msg)
        if len(set(names)) < len(names):
            msg = f"stage names must differ; got {', '.join(names)}"
            raise ValueError(msg)
        if names and self.zero_gamma.when not in (START, *names):
            msg = f"zero_gamma.when {self.zero_gamma.when!r} is no stage: {', '.join(names)}"
            raise ValueError(msg)
        return self
