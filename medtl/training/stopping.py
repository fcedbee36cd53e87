"""Where a run stands: its epochs so far, which is best, when a stage has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from medtl.types import Stage

PLATEAU_PATIENCE = 2
"""Epochs without improvement before the 'plateau' schedule drops the rate."""


@dataclass(frozen=True)
class Stopping:
    """The state of early stopping; every update returns a new one, so it can be saved as data.

    Attributes:
        mode: Whether a smaller ("min") or a larger ("max") value is better.
        min_delta: An improvement must exceed this.
        baseline: The first value must beat this to count, or None.
        best: Best value over all stages so far, or None before the first.
        best_epoch: Epoch of the best value, counted over all stages.
        waited: Epochs since the last improvement within this stage.
        stage_best: Best value of this stage.
    """

    mode: Literal["min", "max"] = "min"
    min_delta: float = 0.0
    baseline: float | None = None
    best: float | None = None
    best_epoch: int = -1
    waited: int = 0
    stage_best: float | None = None

    def update(self, value: float, epoch: int) -> Stopping:
        """The state after one epoch; a NaN never improves anything."""
        improves_stage = self.beats(value, self.stage_best)
        improves_all = self.beats(value, self.best)
        return replace(
            self,
            waited=0 if improves_stage else self.waited + 1,
            stage_best=value if improves_stage else self.stage_best,
            best=value if improves_all else self.best,
            best_epoch=epoch if improves_all else self.best_epoch,
        )

    def next_stage(self) -> Stopping:
        """The state at the start of a stage: patience starts again, the best of all stays."""
        return replace(self, waited=0, stage_best=None)

    def beats(self, value: float, reference: float | None) -> bool:
        """Return whether `value` beats `reference` (or the baseline) by more than `min_delta`."""
        if math.isnan(value):
            return False
        reference = self.baseline if reference is None else reference
        if reference is None:
            return True
        gain = reference - value if self.mode == "min" else value - reference
        return gain > self.min_delta


@dataclass(frozen=True)
class Position:
    """Where a run stands: after its last finished epoch, or after some batches of the next one.

    Attributes:
        stage: Index of the current stage; the number of stages when all are done.
        epoch: Finished epochs of the current stage.
        total_epochs: Finished epochs of all stages.
        batch: Finished batches of the current epoch, 0 between two epochs.
        loss_sum: Of the training cases in these batches.
        parts: Name -> the same of what the objective says besides.
        drops: How often the plateau rule has fired in this stage.
        stopping: State of early stopping.
        history: One row per finished epoch.
    """

    stage: int = 0
    epoch: int = 0
    total_epochs: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    drops: int = 0
    stopping: Stopping = field(default_factory=Stopping)
    history: tuple[Mapping[str, Any], ...] = ()

    @property
    def in_stage(self) -> bool:
        """Whether the stage has begun, so that its optimiser has a state to go on from."""
        return self.epoch > 0 or self.batch > 0

    @property
    def improved(self) -> bool:
        """Whether the last finished epoch is the best of all."""
        return self.total_epochs > 0 and self.stopping.best_epoch == self.total_epochs - 1

    def after_epoch(self, stage: Stage, watched: float, row: Mapping[str, Any]) -> Position:
        """The position one epoch later.

        Args:
            stage: The stage the epoch belongs to.
            watched: Value of the monitored quantity.
            row: What the history says of the epoch.
        """
        stopping = self.stopping.update(watched, self.total_epochs)
        stuck = stopping.waited > 0 and stopping.waited % PLATEAU_PATIENCE == 0
        best = stopping.best_epoch == self.total_epochs
        return replace(
            self,
            epoch=self.epoch + 1,
            total_epochs=self.total_epochs + 1,
            batch=0,
            loss_sum=0.0,
            parts={},
            drops=self.drops + (stage.schedule == "plateau" and stuck),
            stopping=stopping,
            history=(*self.history, {**row, "best": int(best)}),
        )

    def next_stage(self) -> Position:
        """The position at the start of the next stage."""
        return replace(
            self, stage=self.stage + 1, epoch=0, drops=0, stopping=self.stopping.next_stage()
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {**asdict(self), "history": [dict(row) for row in self.history]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Position:
        """The position that `to_dict` wrote."""
        history = tuple(data["history"])
        return cls(**{**data, "stopping": Stopping(**data["stopping"]), "history": history})
