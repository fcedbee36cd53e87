"""Early stopping: which epoch is best, and when a stage has stopped improving."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal


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
