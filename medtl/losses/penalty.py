"""Weight penalties added to the loss: L1, L2 and the elastic net between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medtl.types import Fraction, Positive

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Penalty:
    """`strength * (l1_ratio * sum|w| + (1 - l1_ratio) * sum w^2)`.

    The squared norm, not the norm: the gradient of `||w||` is `w / ||w||` and is undefined at 0.
    scikit-learn's ElasticNet writes half of the squared term; divide its (1 - l1_ratio) by 2.
    The subgradient of |w| shrinks weights but never makes them exactly 0.

    Attributes:
        strength: Lambda, > 0; 1e-5 to 1e-2 is usual.
        l1_ratio: 0 is L2, 1 is L1, between is the elastic net.
        layers: Selector of the layer groups whose weights are meant.

    Reference:
        Zou and Hastie, "Regularization and variable selection via the elastic net", J R Stat Soc B
        2005;67:301, equation 3.

    Example:
        >>> import torch
        >>> Penalty(0.1, l1_ratio=0.25)([torch.tensor([1.0, -1.0])])  # 0.1 (2 / 4 + 2 * 3 / 4)
        tensor(0.2000)
    """

    strength: Positive
    l1_ratio: Fraction = 0.0
    layers: str = "head"

    def __call__(self, weights: Iterable[Tensor]) -> Tensor:
        """Return the penalty of these tensors; biases and norm parameters do not belong among them.

        Raises:
            ValueError: When there is no tensor.
        """
        tensors = list(weights)
        if not tensors:
            msg = "a penalty needs at least one weight tensor"
            raise ValueError(msg)
        total = tensors[0].new_zeros(())
        for weight in tensors:
            squares = (1 - self.l1_ratio) * weight.square().sum()
            total = total + self.l1_ratio * weight.abs().sum() + squares
        return self.strength * total


def penalised_weights(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return what a penalty or weight decay applies to: matrices and kernels that train.

    One-dimensional parameters are biases and norm scales; decaying them pulls activations towards
    zero without limiting the function (He et al. 2019, "no bias decay").

    Example:
        >>> from torch import nn
        >>> [tuple(p.shape) for p in penalised_weights(nn.Linear(3, 2).parameters())]
        [(2, 3)]
    """
    return [p for p in parameters if p.requires_grad and p.ndim > 1]
