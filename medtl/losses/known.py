"""What every loss does with unknown targets: they are left out before the loss, not after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""Value of a mask's pixel whose truth is not known."""


def mean_over_known(loss: Tensor, known: Tensor) -> Tensor:
    """Return the mean of the known entries; 0 that still carries a gradient when there is none.

    Args:
        loss: Finite values of any shape. Unknown targets must have been replaced before the loss:
            NaN * 0 has a NaN gradient.
        known: Booleans of the same shape.

    Example:
        >>> import torch
        >>> mean_over_known(torch.tensor([1.0, 7.0, 3.0]), torch.tensor([True, False, True]))
        tensor(2.)
    """
    import torch

    return torch.where(known, loss, 0.0).sum() / known.sum().clamp(min=1)


def known_targets(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which targets are known (not NaN), and the targets with 0 for the unknown ones.

    Example:
        >>> import torch
        >>> known_targets(torch.tensor([3.0, torch.nan]))
        (tensor([ True, False]), tensor([3., 0.]))
    """
    import torch

    known = ~torch.isnan(targets)
    return known, torch.where(known, targets, 0.0)


def by_pixel(outputs: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixels as cases, in float32 also under mixed precision.

    Args:
        outputs: `(B, K, *S)` logits.
        masks: `(B, *S)` class indices, or `(B, K, *S)` of 0 and 1; `IGNORE` where not known.

    Returns:
        Logits `(N, K)`, and the truth `(N,)` or `(N, K)` with NaN where it is not known.

    Example:
        >>> import torch
        >>> logits, truth = by_pixel(torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), IGNORE))
        >>> logits.shape, truth.shape, bool(truth.isnan().all())
        (torch.Size([32, 3]), torch.Size([32]), True)
    """
    import torch

    logits = outputs.float().movedim(1, -1).flatten(0, -2)
    exclusive = masks.ndim < outputs.ndim
    truth = masks.flatten() if exclusive else masks.movedim(1, -1).flatten(0, -2)
    return logits, torch.where(truth == IGNORE, torch.nan, truth.float())
