"""Training stops at the first number that is none, and says where."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medtl.errors import RunError

SHOWN_CASES = 8
"""Of the cases in a batch whose loss is not finite."""


def require_finite(loss: Tensor, stage: str, epoch: int, cases: Sequence[str]) -> None:
    """Refuse a loss that is not a number.

    Args:
        loss: Of one batch.
        stage: Name of the stage.
        epoch: Counted over all stages.
        cases: In the batch.

    Raises:
        RunError: With the cases.
    """
    if bool(torch.isfinite(loss)):
        return
    raise RunError(
        f"the loss is not finite in stage {stage!r}, epoch {epoch}",
        where=f"cases {', '.join(cases[:SHOWN_CASES])}",
        fix="Lower the learning rate, or look at these cases",
    )


def require_finite_value(value: float, what: str, stage: str, epoch: int) -> None:
    """Refuse a watched validation value that is not a number; arguments as `require_finite`.

    Raises:
        RunError: With the epoch.
    """
    if math.isfinite(value):
        return
    raise RunError(
        f"the {what} of stage {stage!r} is not finite",
        where=f"epoch {epoch}",
        fix="Lower the stage's learning rate",
    )
