"""Intensity: real-world values to [0, 1], and [0, 1] to what the weights expect.

Arrays are `(C, *S)`; results are float32 and never share memory with the input. A pixel that is NaN
or infinite takes part in no statistic and becomes 0. A constant image becomes all zeros. Statistics
are over all channels together, which keeps colour, unless `per_channel` says that the channels are
unrelated (sequences of one MR examination).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, MedtlError
from medtl.types import BoolArray, FloatArray, is_plainly_finite

WINDOWS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "lung": (-300.0, 1400.0),
        "soft": (40.0, 400.0),
        "bone": (400.0, 1800.0),
        "brain": (40.0, 80.0),
    }
)
"""CT presets, name -> (centre, width) in Hounsfield units."""

CLAHE_BINS = 256
"""Bins of the local histograms. The mapping is interpolated inside a bin: it bounds the slope, not
the number of grey levels."""

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""

PERCENTILE_SAMPLE = 2**18
"""Pixels that percentiles are taken from; the standard error of the rank is 0.014 points at 0.5."""

FLAT = 1e-6
"""An image whose range is below this fraction of its largest value is constant in float32."""


def percentile_scale(
    array: FloatArray,
    low: float = 0.5,
    high: float = 99.5,
    *,
    mask: BoolArray | None = None,
    per_channel: bool = False,
) -> NDArray[np.float32]:
    """Return the image with two percentiles mapped to 0 and 1 and the rest clipped.

    When the two percentiles coincide in an image that is not constant (a small object on an empty
    background), minimum and maximum take their place: nothing is erased.

    Args:
        array: `(C, *S)`, any unit.
        low: Percentile that becomes 0, in [0, 100].
        high: Percentile that becomes 1, in (low, 100].
        mask: `(*S)`, True where the percentiles are taken; None takes them everywhere.
        per_channel: Scale every channel by its own percentiles.

    Raises:
        ImageError: When no pixel to take percentiles from is finite.

    >>> percentile_scale(np.array([[-1000.0, 0.0, 50.0, 100.0]]), 25, 75).round(2)
    array([[0.  , 0.8 , 0.96, 1.  ]], dtype=float32)
    """
    if per_channel:
        planes = [percentile_scale(plane[None], low, high, mask=mask) for plane in array]
        return np.concatenate(planes)
    return ramp(array, *percentile_limits(array, low, high, mask=mask))


def percentile_limits(
    array: FloatArray, low: float, high: float, *, mask: BoolArray | None = None
) -> tuple[float, float]:
    """Return the two values that `percentile_scale` maps to 0 and 1.

    Args:
        array: `(C, *S)`, any unit.
        low: Percentile that becomes 0, in [0, 100].
        high: Percentile that becomes 1, in (low, 100].
        mask: `(*S)`, True where the percentiles are taken; None takes them everywhere.

    Raises:
        ImageError: When no pixel to take percentiles from is finite.

    >>> percentile_limits(np.arange(101.0)[None], 1, 99)
    (1.0, 99.0)
    """
    values = _finite(array, mask)
    bottom, top = _percentiles(values, low, high)
    if bottom == top:
        bottom, top = float(values.min()), float(values.max())
    return bottom, top


def min_max(
    array: FloatArray, *, mask: BoolArray | None = None, per_channel: bool = False
) -> NDArray[np.float32]:
    """Return the image with its minimum at 0 and its maximum at 1; one outlier moves both.

    Args:
        array: `(C, *S)`, any unit.
        mask: `(*S)`, True where the two are sought; pixels outside it are clipped.
        per_channel: Scale every channel by its own range.

    Raises:
        ImageError: When no pixel is finite.

    >>> min_max(np.array([[0.0, 5.0, 20.0]]))
    array([[0.  , 0.25, 1.  ]], dtype=float32)
    """
    return percentile_scale(array, 0.0, 100.0, mask=mask, per_channel=per_channel)


def window(array: FloatArray, center: float, width: float) -> NDArray[np.float32]:
    """Return `center - width / 2` mapped to 0, `center + width / 2` to 1, the rest clipped.

    Args:
        array: `(C, *S)`, in the unit of the window (Hounsfield for `WINDOWS`).
        center: Value that becomes 0.5.
        width: Range that becomes [0, 1], above 0.

    Raises:
        MedtlError: When the width is not positive.

    Reference:
        DICOM PS3.3 C.11.2.1.3.2, VOI LUT function LINEAR_EXACT.

    >>> window(np.array([[-1000.0, -300.0, 40.0, 400.0]]), *WINDOWS["lung"]).round(2)
    array([[0.  , 0.5 , 0.74, 1.  ]], dtype=float32)
    """
    return ramp(array, *window_limits(center, width))


def window_limits(center: float, width: float) -> tuple[float, float]:
    """Return the two values that `window` maps to 0 and 1.

    Raises:
        MedtlError: When the width is not positive.

    >>> window_limits(40.0, 400.0)
    (-160.0, 240.0)
    """
    if not width > 0:
        raise MedtlError(f"a window {width:g} wide", expected="a positive width")
    return center - width / 2, center + width / 2


def z_score(
    array: FloatArray,
    *,
    mask: BoolArray | None = None,
    of: FloatArray | None = None,
    per_channel: bool = False,
) -> NDArray[np.float32]:
    """Return the image with mean 0 and standard deviation 1.

    Args:
        array: `(C, *S)`, any unit.
        mask: `(*S)`, True where the statistics are taken (`array[0] != 0` for MR); pixels outside
            it become 0, the mean, as in nnU-Net.
        of: Values whose mean and standard deviation are taken in place of the array's own, for a
            patch of a larger image.
        per_channel: Standardise every channel by itself.

    Raises:
        ImageError: When no pixel is finite.

    >>> z_score(np.array([[1.0, 2.0, 3.0]])).round(3)
    array([[-1.225,  0.   ,  1.225]], dtype=float32)
    >>> head = np.array([[0.0, 1.0, 3.0]])
    >>> z_score(head, mask=head[0] != 0)
    array([[ 0., -1.,  1.]], dtype=float32)
    """
    if per_channel:
        return np.concatenate([z_score(plane[None], mask=mask, of=of) for plane in array])
    values = (_finite(array, mask) if of is None else _finite(of, None)).astype(np.float64)
    if np.ptp(values) <= FLAT * np.abs(values).max():
        return np.zeros(array.shape, dtype=np.float32)
    result = ((array - values.mean()) / values.std()).astype(np.float32)
    inside = np.isfinite(array) if mask is None else np.isfinite(array) & mask
    return np.where(inside, result, np.float32(0))


def local_contrast(
    array: FloatArray, *, sigma: float = 2.0, kernel: int | None = None
) -> NDArray[np.float32]:
    """Return the image with local mean about 0 and local standard deviation about 1.

    With G a Gaussian that sums to 1 over its window and all channels, and the picture mirrored at
    its border: `v = x - G*x`, `s = sqrt(G * v^2)`, `y = v / max(mean(s), s)`. The result does not
    change when x becomes a x + b with a > 0.

    Args:
        array: `(C, *S)` of 2 or 3 spatial axes, any unit.
        sigma: Standard deviation of the Gaussian in pixels, above 0.
        kernel: Side of its window in pixels, odd; None takes two sigma on each side.

    Raises:
        MedtlError: When sigma or kernel are not such numbers.
        ImageError: When no pixel is finite.

    Reference:
        Jarrett et al. 2009, What is the best multi-stage architecture for object recognition?,
        section 2.1 (9 x 9 window).

    >>> step = np.repeat([[[0.0, 1.0]]], 8, axis=2)
    >>> local_contrast(step).shape, local_contrast(np.ones((1, 8, 8))).max()
    ((1, 1, 16), np.float32(0.0))
    """
    side = 2 * int(np.ceil(2 * sigma)) + 1 if kernel is None else kernel
    if not sigma > 0 or side < 1 or side % 2 == 0:
        raise MedtlError(f"sigma {sigma:g} and kernel {side}", expected="sigma > 0, kernel odd")
    values = _finite(array, None)
    center = values.mean(dtype=np.float64)
    if np.ptp(values) <= FLAT * np.abs(values).max():
        return np.zeros(array.shape, dtype=np.float32)
    # The mean goes first: it changes nothing, and a large offset would cost float32 its digits.
    x = np.where(np.isfinite(array), array - center, 0.0).astype(np.float32)
    v = x - _local_mean(x, sigma, side)
    s = np.sqrt(np.maximum(_local_mean(v * v, sigma, side), 0))
    floor = s.mean(dtype=np.float64)
    return (v / np.maximum(s, np.float32(floor))).astype(np.float32)


def clahe(unit: FloatArray, clip_limit: float = 2.0, tiles: int = 8) -> NDArray[np.float32]:
    """Return the image with its contrast equalised tile by tile, at full precision.

    The histogram of each tile is cut at `clip_limit` times its mean height and the excess spread
    evenly, so the slope of a tile's mapping never exceeds `clip_limit` + 1. The mapping is the
    interpolated cumulative histogram: different inputs stay different. Mappings are interpolated
    between tile centres. An RGB image (3 channels) is equalised in luminance; other channels one by
    one.

    Args:
        unit: `(C, H, W)` in [0, 1].
        clip_limit: Highest bin over the mean bin, above 0; 2 to 4 is usual.
        tiles: Tiles along each side, at least 1.

    Raises:
        MedtlError: When the image is not 2D in [0, 1], or has fewer pixels than tiles on a side.

    Reference:
        Zuiderveld 1994, Contrast limited adaptive histogram equalization, Graphics Gems IV.

    >>> unit = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    >>> equalised = clahe(unit, clip_limit=2.0, tiles=2)
    >>> float(equalised.min()) >= 0, float(equalised.max()) <= 1
    (True, True)
    """
    if unit.ndim != 3 or not (np.min(unit) >= 0 and np.max(unit) <= 1):
        raise MedtlError("CLAHE was given something else", expected="one image (C, H, W) in [0, 1]")
    if clip_limit <= 0 or not 1 <= tiles <= min(unit.shape[1:]):
        raise MedtlError(
            f"clip limit {clip_limit:g} and {tiles} tiles",
            expected=f"a positive limit and 1 to {min(unit.shape[1:])} tiles",
        )
    image = unit.astype(np.float32)
    if len(image) == 3:
        before = np.tensordot(LUMINANCE, image, 1)
        change = _clahe_plane(before, clip_limit, tiles) - before
        return np.clip(image + change, 0, 1)
    return np.stack([_clahe_plane(plane, clip_limit, tiles) for plane in image])


def _finite(array: FloatArray, mask: BoolArray | None) -> FloatArray:
    """The finite values, inside the mask if there is one; at least one."""
    if mask is None and array.size > 0 and is_plainly_finite(array):
        return array.ravel()
    chosen = np.isfinite(array) if mask is None else np.isfinite(array) & mask
    values = array.ravel() if chosen.all() else array[chosen]
    if values.size == 0:
        raise ImageError(
            "no pixel to take statistics from",
            expected="finite pixel values" + ("" if mask is None else " inside the mask"),
        )
    return values


def _percentiles(values: FloatArray, low: float, high: float) -> tuple[float, float]:
    """Two percentiles; of a large image from a regular sample of it, except for its extremes."""
    if (low, high) == (0, 100):
        return float(values.min()), float(values.max())
    sample = np.sort(values[:: _step(values.size)])
    rank = np.array((low, high)) / 100 * (sample.size - 1)
    bottom, top = np.interp(rank, np.arange(sample.size), sample)
    if low == 0:
        bottom = values.min()
    if high == 100:
        top = values.max()
    return float(bottom), float(top)


def _step(size: int) -> int:
    """Distance of the values in a sample of about `PERCENTILE_SAMPLE` of them.

    It has no divisor in common with the size, so none with the length of an axis: every slice, row
    and column gives its share. (A step of K in a volume of K slices would see one slice alone.)
    """
    step = max(1, size // PERCENTILE_SAMPLE)
    while math.gcd(step, size) > 1:
        step += 1
    return step


def ramp(array: FloatArray, bottom: float, top: float) -> NDArray[np.float32]:
    """Return [bottom, top] mapped to [0, 1], clipped; NaN, infinity and a flat ramp become 0.

    Args:
        array: Any shape and unit.
        bottom: Value that becomes 0.
        top: Value that becomes 1.

    >>> ramp(np.array([-1.0, 0.0, 5.0, np.nan]), 0.0, 10.0)
    array([0. , 0. , 0.5, 0. ], dtype=float32)
    """
    if not top > bottom:
        return np.zeros(array.shape, dtype=np.float32)
    result = np.subtract(array, np.float32(bottom), dtype=np.float32)
    result /= np.float32(top - bottom)
    np.clip(result, 0, 1, out=result)
    finite = np.isfinite(array)
    if not finite.all():
        result[~finite] = 0
    return result


def _local_mean(array: NDArray[np.float32], sigma: float, side: int) -> NDArray[np.float32]:
    """Gaussian mean over a window and over the channels; the border is mirrored."""
    from scipy.ndimage import correlate1d

    offsets = np.arange(side) - side // 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    result: NDArray[np.float32] = array.mean(axis=0, keepdims=True)
    for axis in range(1, array.ndim):
        result = correlate1d(result, weights / weights.sum(), axis=axis, mode="mirror")
    return result


def _clahe_plane(plane: NDArray[np.float32], clip_limit: float, tiles: int) -> NDArray[np.float32]:
    """CLAHE of one `(H, W)` plane."""
    rows, columns = plane.shape
    height, width = -(-rows // tiles), -(-columns // tiles)
    padding = ((0, height * tiles - rows), (0, width * tiles - columns))
    mappings = _tile_mappings(np.pad(plane, padding, mode="reflect"), clip_limit, tiles)
    position = plane * CLAHE_BINS
    bins = np.minimum(position.astype(np.int64), CLAHE_BINS - 1)
    within = position - bins
    top, bottom, down = _neighbours(rows, height, tiles)
    left, right, across = _neighbours(columns, width, tiles)

    def mapped(tile_row: NDArray[np.int64], tile_column: NDArray[np.int64]) -> NDArray[np.float32]:
        start = (tile_row[:, None] * tiles + tile_column) * (CLAHE_BINS + 1) + bins
        lower = mappings.take(start)
        return lower + within * (mappings.take(start + 1) - lower)

    upper = mapped(top, left) * (1 - across) + mapped(top, right) * across
    lower = mapped(bottom, left) * (1 - across) + mapped(bottom, right) * across
    return np.clip(upper * (1 - down[:, None]) + lower * down[:, None], 0, 1)


def _tile_mappings(
    padded: NDArray[np.float32], clip_limit: float, tiles: int
) -> NDArray[np.float32]:
    """`(tiles * tiles, bins + 1)` cumulative histograms at the bin edges, from 0 to 1."""
    height, width = padded.shape[0] // tiles, padded.shape[1] // tiles
    blocks = padded.reshape(tiles, height, tiles, width).swapaxes(1, 2).reshape(tiles * tiles, -1)
    bins = np.minimum((blocks * CLAHE_BINS).astype(np.int64), CLAHE_BINS - 1)
    bins += np.arange(tiles * tiles)[:, None] * CLAHE_BINS
    counts = np.bincount(bins.ravel(), minlength=tiles * tiles * CLAHE_BINS)
    share = counts.reshape(-1, CLAHE_BINS) / blocks.shape[1]
    kept = np.minimum(share, clip_limit / CLAHE_BINS)
    kept += (1 - kept.sum(axis=1, keepdims=True)) / CLAHE_BINS
    mappings = np.zeros((tiles * tiles, CLAHE_BINS + 1), dtype=np.float32)
    mappings[:, 1:] = np.cumsum(kept, axis=1)
    return mappings


def _neighbours(
    size: int, step: int, tiles: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each pixel of an axis: the tile before, the tile after, the share of the one after."""
    position = (np.arange(size) + 0.5) / step - 0.5
    before = np.floor(position).astype(np.int64)
    share = (position - before).astype(np.float32)
    last = tiles - 1
    return np.clip(before, 0, last), np.clip(before + 1, 0, last), share
