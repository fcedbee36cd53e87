"""Losses of one quantity, with unknown targets masked before the loss.

B batch. Predictions and targets share one unit; a task standardises its targets by the mean and SD
of the training cases, so that the losses have no unit and a Huber threshold counts SDs. Targets
are float; NaN means "not known" and contributes neither to the value nor to the gradient; nothing
known is 0 with a gradient of 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from medtl.losses.known import known_targets, mean_over_known
from medtl.types import Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class L1:
    """Mean absolute error: its optimum is the median.

    Example:
        >>> import torch
        >>> L1()(torch.tensor([1.0, 5.0, 9.0]), torch.tensor([2.0, 2.0, torch.nan]))
        tensor(2.)
    """

    name: Literal["l1"] = field(default="l1", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the known targets.

        Args:
            outputs: `(B,)`.
            targets: `(B,)` in the unit of the outputs; NaN where not known.

        Raises:
            ValueError: When the shapes differ.
        """
        known, targets = _paired(outputs, targets)
        return mean_over_known((outputs - targets).abs(), known)


@dataclass(frozen=True)
class MeanSquaredError:
    """Mean squared error: its optimum is the mean.

    Example:
        >>> import torch
        >>> MeanSquaredError()(torch.tensor([1.0, 5.0]), torch.tensor([3.0, torch.nan]))
        tensor(4.)
    """

    name: Literal["mse"] = field(default="mse", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the known targets; arguments and `Raises` as for `L1`."""
        known, targets = _paired(outputs, targets)
        return mean_over_known((outputs - targets).square(), known)


@dataclass(frozen=True)
class Huber:
    """Half of the squared error up to `delta`, beyond it the line `delta * (|error| - delta / 2)`.

    Attributes:
        delta: Error, in the unit of the targets (SDs of the training targets in a study), at which
            the square becomes a line; > 0.

    Reference:
        Huber, "Robust estimation of a location parameter", Ann Math Stat 1964;35:73, equation 1.4.

    Example:
        >>> import torch
        >>> Huber(delta=1.0)(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 3.0]))  # 1/2 and 5/2
        tensor(1.5000)
    """

    delta: Positive = 0.2
    name: Literal["huber"] = field(default="huber", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the known targets; arguments and `Raises` as for `L1`."""
        from torch.nn import functional

        known, targets = _paired(outputs, targets)
        loss = functional.huber_loss(outputs, targets, reduction="none", delta=self.delta)
        return mean_over_known(loss, known)


def _paired(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which targets are known, and the targets with 0 for the unknown ones; shapes must agree."""
    if outputs.shape != targets.shape:
        # (B, 1) against (B,) would compare every case with every other one.
        msg = f"predictions {tuple(outputs.shape)}, targets {tuple(targets.shape)}"
        raise ValueError(msg)
    return known_targets(targets)
