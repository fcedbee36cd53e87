"""A standardisation that gradients pass through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medtl.errors import MedtlError

if TYPE_CHECKING:
    from torch import Tensor

Standardise = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Affine:
    """A standardisation as a factor and a shift for each channel.

    Attributes:
        factor, shift: `(C, *S)` with the network's channels.

    Example:
        >>> found = Affine.of(lambda unit: 4 * unit - 2, (1, 2, 2))
        >>> found.factor[0, 0, 0].item(), found.shift[0, 0, 0].item()
        (4.0, -2.0)
    """

    factor: Tensor
    shift: Tensor

    @classmethod
    def of(cls, standardise: Standardise, shape: tuple[int, ...]) -> Affine:
        """Return the standardisation of unit images `(C, *S)` of this shape.

        Raises:
            MedtlError: When it takes statistics from each picture, as "z_score" does.
        """
        import torch

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
        return units * self.factor.to(units.device) + self.shift.to(units.device)

    def undone(self, images: Tensor, channels: int) -> Tensor:
        """Return the unit images of what the network takes.

        Args:
            images: `(B, C, *S)`.
            channels: Of the unit images; one stands for all of the network's.

        Example:
            >>> import torch
            >>> affine = Affine(torch.full((3, 1, 1), 2.0), torch.ones(3, 1, 1))
            >>> affine.undone(torch.full((1, 3, 1, 1), 2.0), 1).tolist()
            [[[[0.5]]]]
        """
        shift, factor = self.shift.to(images.device), self.factor.to(images.device)
        return ((images - shift) / factor)[:, :channels]
