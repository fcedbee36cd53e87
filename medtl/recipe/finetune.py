"""The section `finetune` of a recipe: stages, rates, zero-gamma, what else steers the training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medtl.recipe.section import Count, Fraction, Positive, Section

BatchNormPolicy = Literal["frozen", "frozen_stats", "bn_only", "adapt", "recalibrate"]


class LearningRates(Section):
    """Learning rates of the head and of the layers below it."""

    head: Positive
    base: Positive | None = None


class StageSpec(Section):
    """One stage: which layer groups train, how long, how fast."""

    name: str
    train: str | tuple[str, ...] = Field(description="selector of layer groups")
    epochs: Count
    lr: LearningRates
    batch_norm: BatchNormPolicy | dict[str, BatchNormPolicy] = "frozen"
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    schedule: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    patience: Count = 5

    @field_validator("lr", mode="before")
    @classmethod
    def _one_rate(cls, value: object) -> object:
        return {"head": value, "base": value} if isinstance(value, int | float) else value


class Penalty(Section):
    """Explicit weight penalty added to the loss: strength * (ratio * |w| + (1 - ratio) * w^2)."""

    strength: Positive
    l1_ratio: Fraction = Field(0.0, description="0 is L2, 1 is L1, between is elastic net")
    layers: str = Field("head", description="selector of layer groups")


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


class ZeroGammaSpec(Section):
    """Residual blocks whose branch is silenced, damped or removed before training goes on."""

    select: str | tuple[str, ...] = Field("none", description="selector of eligible blocks")
    value: float | str = Field(
        0.0, description="gamma becomes 0 or 1, 'scale:0.1' of itself, or 'remove' the block"
    )
    beta: Literal["keep", "zero"] = "keep"
    lr_mult: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="factor on the learning rate of the treated gammas"
    )
    when: str = Field("start", description="'start', or the stage before which it happens")
    recalibrate: bool = Field(
        False, description="estimate the statistics downstream anew; kept if validation gains"
    )

    @field_validator("value")
    @classmethod
    def _known_value(cls, value: float | str) -> float | str:
        if value in (0, 1, "remove") or re.fullmatch(r"scale:(\d+\.?\d*|\.\d+)", str(value)):
            return value
        msg = f"got {value!r}; state 0, 1, scale:0.1 (any factor) or remove"
        raise ValueError(msg)

    @model_validator(mode="after")
    def _removed_at_the_start(self) -> ZeroGammaSpec:
        if self.value == "remove" and self.when != "start":
            msg = "blocks can only be removed at the start; leave 'when' out"
            raise ValueError(msg)
        return self


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

    preset: Preset | None = Field(None, description="a well-known course, instead of stages")
    stages: tuple[StageSpec, ...] = Field(default_factory=_standard_stages)
    batch_size: Annotated[int, Field(ge=2)] = 32
    accumulate: Count = 1
    lr_batch: Count = Field(
        32, description="images a step that the rates are stated for; they scale linearly"
    )
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    clip_norm: Positive | None = 1.0
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    penalty: Penalty | None = None
    cached_views: Annotated[int, Field(ge=0)] = Field(
        0,
        description="augmented views of each image that frozen layers are run for, once, in a "
        "stage of more epochs; 0 runs them in every epoch",
    )
    zero_gamma: ZeroGammaSpec = ZeroGammaSpec()
    early_stopping: EarlyStopping = EarlyStopping()

    @model_validator(mode="before")
    @classmethod
    def _preset_is_instead(cls, value: object) -> object:
        if not isinstance(value, Mapping) or value.get("preset") is None:
            return value
        return {"stages": (), **value}

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Finetune:
        names = [stage.name for stage in self.stages]
        if bool(names) == (self.preset is not None):
            msg = "state either stages or a preset"
            raise ValueError(msg)
        if len(set(names)) < len(names):
            msg = f"stage names must differ; got {', '.join(names)}"
            raise ValueError(msg)
        if names and self.zero_gamma.when not in ("start", *names):
            msg = f"zero_gamma.when {self.zero_gamma.when!r} is no stage: {', '.join(names)}"
            raise ValueError(msg)
        return self
