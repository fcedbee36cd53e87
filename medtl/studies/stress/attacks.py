"""Images changed on purpose: the smallest change of intensity that changes an answer the most.

The change is bounded in the intensity of the unit image, before it is standardised: eps 0.01 is one
percent of the range from black to white. Elsewhere a bound would mean another thing for every
network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medtl.errors import MedtlError

Standardise = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Affine:
    """A standardisation as a factor and a shift for each channel, so that gradients pass through.

    Attributes:
        factor, shift: `(C, 1, ...)` of the network's channels.
    """

    factor: Tensor
    shift: Tensor

    @classmethod
    def of(cls, standardise: Standardise, shape: tuple[int, ...]) -> Affine:
        """Return the standardisation of unit images `(C, *S)` of this shape.

        Raises:
            MedtlError: When it takes statistics from each picture, as "z_score" does.
        """
        low, middle, high = (
            torch.from_numpy(standardise(np.full(shape, value, np.float32)))
            for value in (0.0, 0.5, 1.0)
        )
        ramp = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        found = cls(high - low, low)
        is_affine = torch.allclose((low + high) / 2, middle, atol=1e-5) and torch.allclose(
            found(torch.from_numpy(ramp)[None])[0], torch.from_numpy(standardise(ramp)), atol=1e-4
        )
        if not is_affine:
            raise MedtlError(
                "the standardisation depends on the picture: no bound on the intensity holds",
                expected="image.standardise: weights or none",
                where="image.standardise",
            )
        return found

    def __call__(self, units: Tensor) -> Tensor:
        """Return unit images `(B, C, *S)` as the network takes them."""
        channels = self.factor.shape[0]
        if units.shape[1] < channels:
            units = units.expand(-1, channels, *units.shape[2:])
        return units * self.factor + self.shift


@dataclass(frozen=True)
class Attack:
    """Projected gradient ascent on a loss, in the maximum norm.

    One step of size eps from the image itself is the fast gradient sign method (Goodfellow et al.
    2015, eq. in section 4); more steps with a random start are PGD (Madry et al. 2018, eq. 3).

    Attributes:
        eps: Largest change of a pixel, in [0, 1] of unit intensity.
        steps: Gradient steps.
        step_size: Of one step; None is eps for one step, 2.5 eps / steps for more.
        random_start: Whether the first step starts from a random change within eps.
        seed: Of that change.
    """

    eps: float
    steps: int = 1
    step_size: float | None = None
    random_start: bool = False
    seed: int = 0

    def __call__(
        self, units: Tensor, loss: Callable[[Tensor], Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Return the changed images: within eps of the images, and within [0, 1].

        Args:
            units: `(B, C, *S)` in [0, 1].
            loss: From unit images to what is raised, a sum over the images.
            mask: `(*S)` of 0 and 1: where pixels may change (a patch); None for everywhere.

        >>> image = torch.full((1, 1, 1, 2), 0.5)
        >>> Attack(0.25)(image, lambda x: x[..., 0].sum() - x[..., 1].sum()).tolist()
        [[[[0.75, 0.25]]]]
        """
        if self.eps == 0:
            return units
        allowed = torch.ones_like(units) if mask is None else mask.expand_as(units)
        low, high = (units - self.eps).clamp_min(0), (units + self.eps).clamp_max(1)
        changed = units
        if self.random_start:
            drawn = torch.rand(units.shape, generator=torch.Generator().manual_seed(self.seed))
            changed = units + (2 * drawn - 1) * self.eps * allowed
            changed = torch.maximum(torch.minimum(changed, high), low)
        size = self.step_size or (self.eps if self.steps == 1 else 2.5 * self.eps / self.steps)
        for _ in range(self.steps):
            leaf = changed.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(loss(leaf), leaf)
            changed = leaf.detach() + size * gradient.sign() * allowed
            changed = torch.maximum(torch.minimum(changed, high), low)
        return changed.detach()


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
