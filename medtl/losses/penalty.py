"""Weight penalties added to the loss: L1, L2 and the elastic net between them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def elastic_penalty(weights: Iterable[Tensor], *, strength: float, l1_ratio: float) -> Tensor:
    """Return `strength * (l1_ratio * sum|w| + (1 - l1_ratio) * sum w^2)`.

    The squared norm, not the norm: the gradient of `||w||` is `w / ||w||` and is undefined at 0.
    scikit-learn's ElasticNet writes half of the squared term; divide its (1 - l1_ratio) by 2.
    The subgradient of |w| shrinks weights but never makes them exactly 0.

    Args:
        weights: Tensors to penalise; biases and norm parameters do not belong among them.
        strength: Lambda, > 0; 1e-5 to 1e-2 is usual.
        l1_ratio: 0 is L2, 1 is L1.

    Raises:
        ValueError: When `weights` is empty.
    """
    tensors = list(weights)
    if not tensors:
        msg = "a penalty needs at least one weight tensor"
        raise ValueError(msg)
    total = tensors[0].new_zeros(())
    for weight in tensors:
        total = total + l1_ratio * weight.abs().sum() + (1 - l1_ratio) * weight.square().sum()
    return strength * total


def penalised_weights(parameters: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Those parameters a penalty or weight decay applies to: matrices and kernels that train.

    One-dimensional parameters are biases and norm scales; decaying them pulls activations towards
    zero without limiting the function (He et al. 2019, "no bias decay").
    """
    return [p for p in parameters if p.requires_grad and p.ndim > 1]
