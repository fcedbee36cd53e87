"""Enlargement of images that have fewer pixels than the network takes, by more than a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medtl.preprocess.geometry import averaged_by, resize_clipped
from medtl.types import Count, FloatArray

SUPPORT = {"bicubic": 2, "lanczos": 3}
"""Method -> pixels that count on either side."""

SHARPNESS = -0.5
"""Of the cubic kernel: the value with which smooth images are met best (Keys 1981, section 3)."""


@dataclass(frozen=True)
class Superres:
    """Enlargement by a kernel that keeps edges, where an axis grows; area where it shrinks.

    No detail comes back: an image of as many pixels as the network takes gains nothing, and one
    that is reduced first loses.

    Attributes:
        method: The kernel: "bicubic" or "lanczos" (three lobes).
        at_most: Pixels of the longer side that larger images are reduced to first, to ask in a
            study what a small input costs; None takes an image's own pixels.

    Reference:
        Keys, "Cubic convolution interpolation", IEEE TASSP 1981, equation 15.

    Example:
        >>> step = np.array([[[0.0, 0.0, 1.0, 1.0]]])
        >>> Superres("bicubic")(step, (1, 8), 0.0, 1.0)[0, 0, 2:6].round(2)
        array([0. , 0.2, 0.8, 1. ], dtype=float32)
    """

    method: Literal["bicubic", "lanczos"] = "bicubic"
    at_most: Count | None = None

    def __call__(
        self, array: FloatArray, shape: tuple[int, ...], low: float, high: float
    ) -> NDArray[np.float32]:
        """Return the array clipped to [low, high] with its axes resampled over the same extent.

        Args:
            array: `(C, *S)`; NaN and infinity count as low.
            shape: The new lengths of S.
            low: Smallest value, of the result too.
            high: Largest value.
        """
        limit = max(shape) if self.at_most is None else min(self.at_most, max(shape))
        own = zip(array.shape[1:], shape, strict=True)
        reduced = tuple(min(old, max(1, round(new * limit / max(shape)))) for old, new in own)
        result = resize_clipped(array, reduced, low, high)
        for axis, length in enumerate(shape, start=1):
            if length > result.shape[axis]:
                result = enlarged(result, axis, length, self.method)
        return np.clip(result, low, high)


def enlarged(array: FloatArray, axis: int, length: int, method: str) -> NDArray[np.float32]:
    """Return an array with one axis enlarged by a kernel; beyond the edge nothing counts.

    Args:
        array: Of any shape.
        axis: Which to enlarge.
        length: Its new length, not below the old.
        method: "bicubic" or "lanczos".

    Example:
        >>> enlarged(np.array([[1.0, 1.0]]), 1, 3, "lanczos")
        array([[1., 1., 1.]], dtype=float32)
    """
    before = array.shape[axis]
    centre = (np.arange(length)[:, None] + 0.5) * before / length - 0.5
    weight = _kernel(np.abs(centre - np.arange(before)), method)
    return averaged_by(weight / weight.sum(axis=1, keepdims=True), array, axis)


def _kernel(distance: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """The weight of a pixel at a distance in old pixels."""
    support = SUPPORT[method]
    if method == "lanczos":
        weight = np.sinc(distance) * np.sinc(distance / support)
    else:
        a, d = SHARPNESS, distance
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = a * (((d - 5) * d + 8) * d - 4)
        weight = np.where(d < 1, near, far)
    return np.where(distance < support, weight, 0.0)


def in_vain(sides: Sequence[int], superres: Superres, longest: int) -> str | None:
    """Say for how many images enlargement does not do what it is for; None when for none.

    Args:
        sides: Pixels of the longer side of each image.
        superres: What is asked for.
        longest: Pixels of the longer side that the network takes.

    Example:
        >>> in_vain([1024, 100], Superres(), 224)
        'image.superres: 1 of 2 images have 224 pixels or more already: nothing of them is enlarged'
    """
    limit = superres.at_most or longest
    large = sum(side >= limit for side in sides)
    if not large:
        return None
    said = f"image.superres: {large} of {len(sides)} images have {limit} pixels or more already: "
    if superres.at_most is None:
        return said + "nothing of them is enlarged"
    return said + (
        f"they are reduced before they are enlarged to {longest}; without superres the network "
        "costs the same and their detail stays"
    )
