"""Networks of one study, trained from several seeds, as one network: the mean of their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Committee(nn.Module):
    """Several trained networks that answer as one: logits or numbers, averaged before decoding.

    Of two probabilities that is the geometric mean of their odds; a committee of equal networks
    is that network. It predicts, and is not trained.

    Args:
        members: Networks of the same shape; at least one.

    Raises:
        ValueError: Without a network.

    Reference:
        Lakshminarayanan et al. 2017, section 2.4: the members differ by initialisation and order.

    Example:
        >>> zero, two = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> for layer, bias in ((zero, 0.0), (two, 2.0)):
        ...     _ = nn.init.zeros_(layer.weight), nn.init.constant_(layer.bias, bias)
        >>> Committee([zero, two])(torch.zeros(3, 1)).tolist()
        [[1.0], [1.0], [1.0]]
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            msg = "a committee of no networks"
            raise ValueError(msg)
        self.members: Any = nn.ModuleList(members)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the mean of the members' outputs for images `(B, C, *S)` and numbers `(B, E)`."""
        given = (x,) if extra is None else (x, extra)
        return torch.stack([member(*given) for member in self.members]).mean(dim=0)
