"""Geometry: an image of any size and spacing onto the network's grid, and results back again.

An image is enlarged or reduced by one factor in millimetres, so a circle stays a circle whatever
the spacing, and padded evenly to the target. The spatial axes are treated alike, in 2D and 3D.
Pixel centres are at half-integers: the first pixel covers [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from medtl.errors import MedtlError
from medtl.types import FloatArray, is_plainly_finite

Label = TypeVar("Label", bound=np.generic)

Resample = Callable[[FloatArray, tuple[int, ...], float, float], NDArray[np.float32]]
"""Array `(C, *S)`, the new lengths of S, smallest and largest value -> resampled."""

_BAND = 4
"""Rows made at a time when a film shrinks: what they are made from stays in the cache."""


@dataclass(frozen=True)
class Fit:
    """The place of an image on the network's grid.

    Attributes:
        source: Spatial shape of the image.
        resized: Its shape on the target grid, before padding.
        target: Spatial shape of the grid.
    """

    source: tuple[int, ...]
    resized: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def scale(self) -> tuple[float, ...]:
        """Target pixels per source pixel, per axis."""
        return tuple(new / old for new, old in zip(self.resized, self.source, strict=True))

    @property
    def offset(self) -> tuple[int, ...]:
        """First pixel of the image on the grid, per axis."""
        return tuple(
            (whole - new) // 2 for whole, new in zip(self.target, self.resized, strict=True)
        )

    @property
    def inside(self) -> tuple[EllipsisType | slice, ...]:
        """Index of the part of the grid that the image covers: `array[fit.inside]`."""
        pairs = zip(self.offset, self.resized, strict=True)
        return (..., *(slice(first, first + length) for first, length in pairs))


class Fitted(NamedTuple):
    """An image on the network's grid, its mask (or None) and where it lies."""

    array: NDArray[np.float32]
    mask: NDArray[np.generic] | None
    fit: Fit


def plan_fit(
    shape: Sequence[int], size: int | Sequence[int], *, spacing: Sequence[float] | None = None
) -> Fit:
    """Return where an image of this shape and spacing lies on a grid of this size.

    Args:
        shape: Spatial shape of the image, every axis at least 1.
        size: Shape of the grid; one number stands for all axes.
        spacing: Millimetres per pixel and axis; None takes square pixels.

    Raises:
        MedtlError: When the numbers of axes differ, or a length or spacing is not positive.

    >>> fit = plan_fit((100, 200), 64, spacing=(0.5, 0.5))
    >>> fit.resized, fit.offset
    ((32, 64), (16, 0))
    """
    source = tuple(shape)
    target = (size,) * len(source) if isinstance(size, int) else tuple(size)
    steps = (1.0,) * len(source) if spacing is None else tuple(spacing)
    if not len(source) == len(target) == len(steps):
        raise MedtlError(
            f"an image of {len(source)} axes, a size of {len(target)}, a spacing of {len(steps)}",
            expected="the same number of axes",
        )
    if min(*source, *target, *steps) <= 0 or not np.isfinite(steps).all():
        raise MedtlError(
            f"shape {source}, size {target}, spacing {steps}", expected="positive numbers"
        )
    extent = [length * step for length, step in zip(source, steps, strict=True)]
    per_mm = min(length / mm for length, mm in zip(target, extent, strict=True))
    resized = tuple(max(1, round(mm * per_mm)) for mm in extent)
    return Fit(source, resized, target)


def fit_to(
    array: FloatArray,
    size: int | Sequence[int],
    *,
    spacing: Sequence[float] | None = None,
    mask: NDArray[Label] | None = None,
    fill: float = 0.0,
    clip: tuple[float, float] | None = None,
    resample: Resample | None = None,
) -> Fitted:
    """Return the image on a grid of a given size, aspect kept in millimetres, padded evenly.

    An axis that shrinks is averaged over area, so nothing aliases; one that grows is interpolated
    linearly. Masks take the nearest pixel and are padded with 0.

    Args:
        array: `(C, *S)`, any unit.
        size: Shape of the grid; one number stands for all axes.
        spacing: Millimetres per pixel and axis; None takes square pixels.
        mask: `(*S)` or `(K, *S)`, any labels.
        fill: Value of the padding.
        clip: Smallest and largest value that are averaged, NaN and infinity as the smallest.
        resample: Does it in another way, where `clip` is given.

    Raises:
        MedtlError: When shapes, size and spacing do not belong together.

    >>> fit_to(np.ones((1, 2, 4), np.float32), 4).array[0]
    array([[0., 0., 0., 0.],
           [1., 1., 1., 1.],
           [1., 1., 1., 1.],
           [0., 0., 0., 0.]], dtype=float32)
    """
    fit = plan_fit(array.shape[1:], size, spacing=spacing)
    result = np.full((array.shape[0], *fit.target), fill, dtype=np.float32)
    if clip is None:
        result[fit.inside] = resize(array, fit.resized)
    else:
        result[fit.inside] = (resample or resize_clipped)(array, fit.resized, *clip)
    return Fitted(result, None if mask is None else fit_mask(mask, fit), fit)


def fit_mask(mask: NDArray[Label], fit: Fit) -> NDArray[Label]:
    """Return a mask on the network's grid: nearest pixel, padded with 0, labels unchanged.

    Args:
        mask: `(..., *S)` with S the image's shape.
        fit: Where the image lies on the grid.

    Raises:
        MedtlError: When the mask does not have the image's shape.

    >>> fit_mask(np.full((2, 4), 7, np.uint8), plan_fit((2, 4), 4))
    array([[0, 0, 0, 0],
           [7, 7, 7, 7],
           [7, 7, 7, 7],
           [0, 0, 0, 0]], dtype=uint8)
    """
    axes = len(fit.source)
    _check_shape(mask.shape[-axes:], fit.source, "mask", "image")
    result = np.zeros((*mask.shape[:-axes], *fit.target), dtype=mask.dtype)
    result[fit.inside] = nearest(mask, fit.resized)
    return result


def unfit(array: FloatArray, fit: Fit) -> NDArray[np.float32]:
    """Return a map on the network's grid (heat map, probability) on the image's own grid.

    Args:
        array: `(..., *T)` with T the shape of the grid.
        fit: Where the image lies on it.

    Raises:
        MedtlError: When the map does not have the grid's shape.

    >>> fit = plan_fit((2, 4), 4)
    >>> unfit(np.ones((1, 4, 4), np.float32), fit).shape
    (1, 2, 4)
    """
    axes = len(fit.target)
    _check_shape(array.shape[-axes:], fit.target, "map", "grid")
    inner = array[fit.inside].reshape(-1, *fit.resized)
    return resize(inner, fit.source).reshape(*array.shape[:-axes], *fit.source)


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...], what: str, of: str) -> None:
    """Refuse a mask or map that is not on the grid it should be on."""
    if found != expected:
        raise MedtlError(f"a {what} of shape {found}", expected=f"{expected}, that of the {of}")


def resize_clipped(
    array: FloatArray, shape: tuple[int, ...], low: float, high: float
) -> NDArray[np.float32]:
    """Return `resize` of the array clipped to [low, high]; NaN and infinity count as low.

    Args:
        array: `(C, *S)`. The rows of a picture that shrinks are clipped and averaged a band at a
            time: a film is read once and no copy of it is made.
        shape: The new lengths of S.
        low: Smallest value.
        high: Largest value.

    >>> resize_clipped(np.array([[[0.0, 9.0], [2.0, 4.0]]]), (1, 1), 0.0, 4.0)
    array([[[2.5]]], dtype=float32)
    """
    if array.ndim == 3 and shape[0] < array.shape[1]:
        planes = [_shrink_rows(plane, shape[0], low, high) for plane in array]
        if all(is_finite for _, is_finite in planes):
            return resize(np.stack([rows for rows, _ in planes]), shape)
    clipped = np.clip(array, low, high)
    if not np.isfinite(array).all():
        clipped[~np.isfinite(array)] = low
    return resize(clipped, shape)


def _shrink_rows(
    plane: FloatArray, length: int, low: float, high: float
) -> tuple[NDArray[np.float32], bool]:
    """Average the clipped rows of `(H, W)` over area: bands of it times the shares of each row.

    Says too whether all pixels are finite; if not, the average is not to be used.
    """
    step = len(plane) / length
    edges = np.arange(length + 1) * step
    result = np.empty((length, plane.shape[1]), dtype=np.float32)
    clipped = np.empty((math.ceil(_BAND * step) + 1, plane.shape[1]), dtype=np.float32)
    for start in range(0, length, _BAND):
        top, bottom = edges[start : start + _BAND + 1][:-1], edges[start + 1 : start + _BAND + 1]
        first, last = int(top[0]), min(math.ceil(bottom[-1]), len(plane))
        source = plane[first:last]
        if not is_plainly_finite(source):  # very large pixels only take the slower way
            return result, False
        band = np.clip(source, low, high, out=clipped[: last - first])
        row = np.arange(first, last)
        overlap = np.minimum(bottom[:, None], row + 1) - np.maximum(top[:, None], row)
        share = (np.maximum(overlap, 0) / step).astype(np.float32)
        np.matmul(share, band, out=result[start : start + _BAND])
    return result, True


def resize(array: FloatArray, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an array with its axes resampled over the same extent, pixel edges aligned.

    Averaged over area where an axis shrinks, so nothing aliases; linear where it grows.

    Args:
        array: `(C, *S)`.
        shape: The new lengths of S.

    >>> resize(np.array([[[0.0, 2.0, 4.0, 6.0]]]), (1, 2))
    array([[[1., 5.]]], dtype=float32)
    """
    result = np.ascontiguousarray(array, dtype=np.float32)
    # The axis that shrinks most goes first: the others then have less to do.
    order = sorted(range(len(shape)), key=lambda axis: shape[axis] / array.shape[axis + 1])
    for axis in order:
        if result.shape[axis + 1] != shape[axis]:
            result = _resize_axis(result, axis + 1, shape[axis])
    return result


def _resize_axis(array: NDArray[np.float32], axis: int, length: int) -> NDArray[np.float32]:
    """Resample one axis. One at a time: cv2 averages only when both axes shrink."""
    try:
        import cv2
    except ModuleNotFoundError:  # the core alone
        return resample_axis(array, axis, length)
    how = cv2.INTER_AREA if length < array.shape[axis] else cv2.INTER_LINEAR
    shape = (*array.shape[:axis], length, *array.shape[axis + 1 :])
    if axis == array.ndim - 1:
        plane = array.reshape(-1, array.shape[axis])
        return cv2.resize(plane, (length, len(plane)), interpolation=how).reshape(shape)
    result = np.empty(shape, dtype=np.float32)
    into = result.reshape(-1, length, int(np.prod(shape[axis + 1 :])))
    for index, plane in enumerate(array.reshape(len(into), array.shape[axis], -1)):
        into[index] = cv2.resize(plane, (plane.shape[1], length), interpolation=how)
    return result


def resample_axis(array: FloatArray, axis: int, length: int) -> NDArray[np.float32]:
    """Return what OpenCV's area (where an axis shrinks) or linear resampling of it returns.

    For installations without OpenCV, to rounding: one product with the shares of the old pixels.

    Args:
        array: Of any shape.
        axis: Which to resample.
        length: Its new length.

    >>> resample_axis(np.array([[0.0, 2.0, 4.0, 6.0]]), 1, 2)
    array([[1., 5.]], dtype=float32)
    """
    before = array.shape[axis]
    step, new, old = before / length, np.arange(length)[:, None], np.arange(before)
    if length < before:
        covered = np.minimum((new + 1) * step, old + 1) - np.maximum(new * step, old)
        share = np.maximum(covered, 0) / step
    else:
        centre = np.clip((new + 0.5) * step - 0.5, 0, before - 1)
        share = np.maximum(1 - np.abs(centre - old), 0)
    return averaged_by(share, array, axis)


def averaged_by(share: NDArray[np.float64], array: FloatArray, axis: int) -> NDArray[np.float32]:
    """Return an array whose pixels along one axis are sums of the old ones in given shares.

    Args:
        share: `(new, old)`; each row adds up to 1.
        array: Of any shape, `old` long along the axis.
        axis: Which to resample.

    >>> averaged_by(np.array([[0.5, 0.5]]), np.array([[0.0, 2.0]]), 1)
    array([[1.]], dtype=float32)
    """
    product = np.tensordot(share.astype(np.float32), array.astype(np.float32), (1, axis))
    return np.ascontiguousarray(np.moveaxis(product, 0, axis))


def nearest(mask: NDArray[Label], shape: tuple[int, ...]) -> NDArray[Label]:
    """Return a mask with its last axes resampled: the old pixel that holds a new one's centre.

    Args:
        mask: `(..., *S)`.
        shape: The new lengths of S.

    >>> nearest(np.array([[1, 2]]), (1, 4))
    array([[1, 1, 2, 2]])
    """
    first = mask.ndim - len(shape)
    for axis, length in enumerate(shape, start=first):
        chosen = ((np.arange(length) + 0.5) * mask.shape[axis] / length).astype(np.int64)
        mask = np.take(mask, chosen, axis=axis)
    return mask
