"""Heads for ordered classes: one weight vector for all thresholds.

B batch, F features, T thresholds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SharedLinear(nn.Module):
    """One weighted sum of the features, with one bias per threshold.

    The thresholds then differ by constants only, so that with ordered biases "above 10 years" is
    never more probable than "above 8 years".

    Args:
        weight_1F: `(1, F)` first weights.
        outputs: Number of thresholds T.

    Reference:
        Cao, Mirjalili and Raschka, "Rank consistent ordinal regression for neural networks",
        Pattern Recognition Letters 2020;140:325, theorem 1.
    """

    def __init__(self, weight_1F: Tensor, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_1F.detach().clone())
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return logits `(B, T)`."""
        return functional.linear(features_BF, self.weight) + self.bias


def share_weights(head: nn.Module) -> None:
    """Make all outputs of a classifier's head share one weight vector, in place.

    Args:
        head: With a linear layer named `linear`, as `backbones.build_classifier` makes it; its
            first row of weights is kept.
    """
    linear = head.get_submodule("linear")
    shared = SharedLinear(linear.get_parameter("weight")[:1], len(linear.get_parameter("bias")))
    head.add_module("linear", shared)
