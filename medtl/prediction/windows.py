"""A large image through a network of small windows, in numpy: for graphs, which know no loops.

It does what `medtl.networks.segmenter.Segmenter` does with torch and MONAI, and is held to it by
`tests/prediction/test_portable.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

WHOLE = 2.0
"""An image of at most this many patches goes through in one pass."""

SIGMA = 0.125
"""Width of the Gaussian that weights a window, in sides of it."""

LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Windows:
    """How images of any size meet a network.

    Attributes:
        patch: Spatial shape of a window.
        stride: The network needs axes that are multiples of it.
        overlap: Of neighbouring windows, in [0, 1).

    Example:
        >>> image = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
        >>> bool((Windows((2, 2), 2)(image, lambda part: part) == image).all())
        True
    """

    patch: tuple[int, ...]
    stride: int
    overlap: float = 0.5

    def __call__(self, image: Array, network: Callable[[Array], Array]) -> Array:
        """Return the outputs `(1, K, *S)` of one image `(1, C, *S)`.

        Args:
            image: Padded evenly with its darkest value where the network asks for more.
            network: From `(1, C, *S)` to `(1, K, *S)`.
        """
        shape = image.shape[2:]
        if math.prod(shape) <= WHOLE * math.prod(self.patch):
            wanted = tuple(-(-side // self.stride) * self.stride for side in shape)
            padded, inside = _pad(image, wanted)
            return network(padded)[inside]
        padded, inside = _pad(image, [max(pair) for pair in zip(shape, self.patch, strict=True)])
        weight, total, weights = _gaussian(self.patch), None, np.zeros(padded.shape[2:], np.float32)
        for place in _places(padded.shape[2:], self.patch, self.overlap):
            found = network(np.ascontiguousarray(padded[:, :, *place]))
            if total is None:
                total = np.zeros((1, found.shape[1], *padded.shape[2:]), np.float32)
            total[:, :, *place] += found * weight
            weights[place] += weight
        assert total is not None
        return np.asarray((total / weights)[inside])


def _pad(image: Array, shape: Sequence[int]) -> tuple[Array, tuple[slice, ...]]:
    """The image in the middle of a larger grid of its darkest value, and where it lies there."""
    sizes = image.shape[2:]
    before = [(new - old) // 2 for new, old in zip(shape, sizes, strict=True)]
    padded = np.empty((*image.shape[:2], *shape), np.float32)
    padded[...] = image.min(axis=tuple(range(2, image.ndim)), keepdims=True)
    inside = (slice(None),) * 2 + tuple(slice(b, b + n) for b, n in zip(before, sizes, strict=True))
    padded[inside] = image
    return padded, inside


def _places(
    shape: Sequence[int], patch: Sequence[int], overlap: float
) -> Iterator[tuple[slice, ...]]:
    """The windows that cover an image; the last of an axis ends where it ends."""
    starts = []
    for length, side in zip(shape, patch, strict=True):
        step = max(int(side * (1 - overlap)), 1)
        starts.append([*range(0, length - side, step), length - side])
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + side) for start, side in zip(corner, patch, strict=True))


def _gaussian(patch: Sequence[int]) -> Array:
    """`(*patch)` weights of a window's pixels, the middle 1."""
    weight = np.ones((), np.float32)
    for side in patch:
        steps = np.arange(side, dtype=np.float32) - (side - 1) / 2
        line = np.exp(-(steps**2) / (2 * (SIGMA * side) ** 2)).astype(np.float32)
        weight = weight[..., None] * line
    return np.maximum(weight, max(float(weight.min()), LEAST_WEIGHT))
