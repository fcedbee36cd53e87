"""What every loss does with unknown targets: they are left out before the loss, not after it."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_over_known(loss: Tensor, known: Tensor) -> Tensor:
    """Return the mean of the known entries; 0 that still carries a gradient when there is none.

    Args:
        loss: Finite values of any shape. Unknown targets must have been replaced before the loss:
            NaN * 0 has a NaN gradient.
        known: Booleans of the same shape.
    """
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp(min=1)
