"""What a run keeps of itself: its best model, and what going on from where it stands takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medtl.networks.zero_gamma import GammaSurgery
from medtl.training.checkpoint import (
    load_checkpoint,
    load_exactly,
    load_latest,
    optimizer_tensors,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from medtl.training.ema import MovingAverage
from medtl.training.position import Position

BEST, LAST, PREVIOUS = "best.safetensors", "last.safetensors", "previous.safetensors"
"""Files of a run's checkpoints: the model to use, what going on needs, and that of an epoch ago."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunCheckpoints:
    """`best.safetensors`, `last.safetensors` and the one before it of one run.

    Attributes:
        folder: Where they are.
        model: What they are of; loading changes it in place.
        surgery: Zero-gamma: how to undo it stands beside the weights it was done to.
        meta: What they must say besides the weights.
        extra: Tensors that they must hold besides the weights.
    """

    folder: Path
    model: nn.Module
    surgery: GammaSurgery | None
    meta: Mapping[str, Any]
    extra: Mapping[str, Tensor]

    def save(
        self,
        name: Literal["best", "last"],
        position: Position,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        average: MovingAverage | None = None,
    ) -> None:
        """Write a checkpoint: 'best' holds the model to use, 'last' all that going on needs."""
        model = self.model.state_dict()
        if name == "best" and average is not None:
            model = average.average
        tensors = {**with_prefix("model", model), **with_prefix("extra", self.extra)}
        meta = {**self.meta, "position": position.to_dict()}
        if self.surgery is not None:
            tensors |= with_prefix("gamma", self.surgery.originals)
            meta["removed"] = [removal.to_dict() for removal in self.surgery.removed]
        if optimizer is not None:
            tensors |= with_prefix("optimizer", optimizer_tensors(optimizer))
        if name == "last" and average is not None:
            tensors |= with_prefix("ema", average.average)
        if name == "best":
            save_checkpoint(self.folder / BEST, tensors, meta)
        else:
            previous = self.folder / PREVIOUS
            save_checkpoint(self.folder / LAST, tensors, meta, previous=previous)

    def load_last(self) -> tuple[Position, dict[str, Tensor]] | None:
        """Fill the model from the last whole checkpoint; None when there is none.

        Returns:
            The position, and all tensors of the checkpoint.

        Raises:
            WeightsError: When there are checkpoints and all are damaged, or do not fit.
        """
        latest = load_latest([self.folder / LAST, self.folder / PREVIOUS])
        if latest is None:
            return None
        tensors, meta = latest
        self._fill(tensors, LAST)
        return Position.from_dict(meta["position"]), tensors

    def load_best(self) -> None:
        """Give the model its best weights of all stages; keep the last ones when none was best."""
        path = self.folder / BEST
        if not path.is_file():
            log.warning("no epoch reached the baseline; the weights of the last epoch are kept")
            return
        self._fill(load_checkpoint(path)[0], path.name)

    def _fill(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Load the weights, and know whether they have been operated on."""
        load_exactly(self.model, without_prefix("model", tensors), where)
        if self.surgery is not None:
            self.surgery.originals = without_prefix("gamma", tensors)
