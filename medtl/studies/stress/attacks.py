"""What an attacker raises who knows less than the weights, and where a patch may lie."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medtl.preprocess.affine import Affine


def feature_distance(
    network: Callable[[Tensor], Tensor], affine: Affine, units: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return the squared distance of a network's features from those of the images themselves.

    Raised on the public start weights of a tuned network, it is an attack that needs neither the
    tuned weights nor a label.

    Args:
        network: From standardised images to features `(B, F)`.
        affine: The standardisation.
        units: `(B, C, *S)`, the images.
    """
    with torch.no_grad():
        clean = network(affine(units))
    return lambda changed: (network(affine(changed)) - clean).square().sum()


def frozen(network: nn.Module) -> nn.Module:
    """Return a network in evaluation mode whose weights ask for no gradient."""
    return network.eval().requires_grad_(False)


def patch_of(shape: tuple[int, ...], share: float) -> Tensor:
    """Return where a square patch lies, `(*S)`: beside the upper right corner.

    Args:
        shape: `(H, W)`.
        share: Of the picture's shorter side.
    """
    side, margin = round(min(shape) * share), round(min(shape) * 0.05)
    mask = torch.zeros(shape)
    mask[margin : margin + side, shape[1] - margin - side : shape[1] - margin] = 1
    return mask
