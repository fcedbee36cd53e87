"""Regression losses, with unknown targets masked before the loss.

B batch. Predictions and targets share one unit; the bone-age task standardises months by the mean
and SD of its training ages, so that the losses have no unit and a Huber threshold counts SDs.
Targets are float; NaN means "not known" and contributes neither to the value nor to the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medtl.losses.known import mean_over_known


def masked_l1(predictions_B: Tensor, targets_B: Tensor) -> Tensor:
    """Return the mean absolute error over the known targets: its optimum is the median.

    Args:
        predictions_B: `(B,)`.
        targets_B: `(B,)` in the unit of the predictions; NaN where not known.

    Returns:
        Scalar; 0 with a gradient of 0 when nothing is known.

    Raises:
        ValueError: When the shapes differ.
    """
    known, targets = _known_targets(predictions_B, targets_B)
    return mean_over_known((predictions_B - targets).abs(), known)


def masked_squared(predictions_B: Tensor, targets_B: Tensor) -> Tensor:
    """Return the mean squared error over the known targets: its optimum is the mean.

    Args:
        predictions_B: `(B,)`.
        targets_B: `(B,)` in the unit of the predictions; NaN where not known.

    Raises:
        ValueError: When the shapes differ.
    """
    known, targets = _known_targets(predictions_B, targets_B)
    return mean_over_known((predictions_B - targets).square(), known)


def masked_huber(predictions_B: Tensor, targets_B: Tensor, *, delta: float = 1.0) -> Tensor:
    """Return the mean Huber loss over the known targets.

    Half of the squared error up to `delta`, beyond it the line `delta * (|error| - delta / 2)`.

    Args:
        predictions_B: `(B,)`.
        targets_B: `(B,)` in the unit of the predictions; NaN where not known.
        delta: Error, in that unit, at which the square becomes a line; > 0.

    Raises:
        ValueError: When the shapes differ.

    Reference:
        Huber, "Robust estimation of a location parameter", Ann Math Stat 1964;35:73, equation 1.4.
    """
    known, targets = _known_targets(predictions_B, targets_B)
    loss = functional.huber_loss(predictions_B, targets, reduction="none", delta=delta)
    return mean_over_known(loss, known)


def _known_targets(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which targets are known, and the targets with 0 in place of the unknown ones."""
    if predictions.shape != targets.shape:
        # (B, 1) against (B,) would compare every case with every other one.
        msg = f"predictions {tuple(predictions.shape)}, targets {tuple(targets.shape)}"
        raise ValueError(msg)
    known = ~torch.isnan(targets)
    return known, torch.where(known, targets, 0.0)
