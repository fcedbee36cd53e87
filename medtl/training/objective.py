"""What training lowers, as a function of the network and one batch.

A learning method is one file beside this one: a frozen value that is called with the network and a
batch. It may call the network as often as it needs; torch's generators are seeded for the batch, so
what it draws is the same again in a repeated or resumed run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from medtl.data.batches import Batch
from medtl.errors import RunError
from medtl.losses.mixing import Mix
from medtl.losses.penalty import Penalty

Forward = Callable[[Tensor, Tensor], Tensor]
"""Images `(B, C, *S)` and the numbers that join their features `(B, E)` -> outputs, float32."""

SHOWN_CASES = 8
"""Of the cases in a batch whose loss is not finite."""


class Objective(Protocol):
    """The loss of one batch: a scalar, the mean over its cases."""

    def __call__(self, network: Forward, batch: Batch, /) -> Tensor:
        """Return the loss of a batch on the network's device."""
        ...


@dataclass(frozen=True)
class Supervised:
    """The loss of the outputs against the targets.

    Attributes:
        loss: Outputs and targets `(B, ...)` -> scalar; it leaves out targets that are not known.
    """

    loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, network: Forward, batch: Batch, /) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(network(batch.images, batch.inputs), batch.targets)


@dataclass(frozen=True)
class Mixed:
    """The loss of mixtures of two images against both of their targets, in the same shares.

    Attributes:
        loss: As of `Supervised`.
        mix: What is mixed, and how.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    mix: Mix

    def __call__(self, network: Forward, batch: Batch, /) -> Tensor:
        """Return the loss of a batch whose images were mixed with each other."""
        images, order, share = self.mix(batch.images)
        outputs = network(images, share * batch.inputs + (1 - share) * batch.inputs[order])
        first, second = self.loss(outputs, batch.targets), self.loss(outputs, batch.targets[order])
        return share * first + (1 - share) * second


@dataclass(frozen=True)
class Penalised:
    """Another objective, and a penalty on the size of weights.

    Attributes:
        objective: The other objective.
        weights: What is penalised.
        penalty: How.
    """

    objective: Objective
    weights: Sequence[nn.Parameter]
    penalty: Penalty

    def __call__(self, network: Forward, batch: Batch, /) -> Tensor:
        """Return the loss of a batch with the penalty."""
        return self.objective(network, batch) + self.penalty(self.weights)


def require_finite(loss: Tensor, stage: str, epoch: int, cases: Sequence[str]) -> None:
    """Stop at the first loss that is not finite, naming the cases.

    Args:
        loss: Of one batch.
        stage: Name of the stage.
        epoch: Counted over all stages.
        cases: In the batch.

    Raises:
        RunError: With the cases.
    """
    if not bool(torch.isfinite(loss)):
        raise RunError(
            f"the loss is not finite in stage {stage!r}, epoch {epoch}",
            where=f"cases {', '.join(cases[:SHOWN_CASES])}",
            fix="Lower the learning rate, or look at these cases",
        )
