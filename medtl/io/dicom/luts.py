"""The grey-scale pipeline of DICOM in numbers: modality, padding, VOI, polarity, palette.

Order (PS3.4 N.2): stored values, modality transformation, VOI transformation, and last the
inversion that MONOCHROME1 asks for. Everything works in place on float32, one image at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXACT_FLOAT32_BITS = 24
"""Stored values of more bits than this are rescaled in float64 before they become float32."""


@dataclass(frozen=True)
class LookupTable:
    """A LUT Descriptor and its data (PS3.3 C.11.1.1): `first` maps to `table[0]`.

    >>> table = LookupTable(first=10, bits=8, table=np.array([0, 100, 255], np.float32))
    >>> table(np.array([9, 10, 11, 99]))
    array([  0.,   0., 100., 255.], dtype=float32)
    """

    first: int
    bits: int
    table: NDArray[np.float32]

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return the entries for `values`; those outside the table take its nearest end."""
        index = values if values.dtype.kind in "iu" else np.rint(values)
        places = np.clip(index.astype(np.int32) - self.first, 0, len(self.table) - 1)
        return self.table[places]


@dataclass(frozen=True)
class Rescale:
    """Rescale Slope and Intercept (PS3.3 C.11.1.1.2): output = slope * stored + intercept.

    >>> Rescale(slope=2.0, intercept=-1024.0)(np.array([0, 512], np.int16))
    array([-1024.,     0.], dtype=float32)
    """

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return the values in real-world units as a new array."""
        wide = stored.dtype.itemsize * 8 > _EXACT_FLOAT32_BITS
        values: NDArray[Any] = stored.astype(np.float64 if wide else np.float32)
        if self.slope != 1.0:
            values *= self.slope
        if self.intercept != 0.0:
            values += self.intercept
        return values.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Window:
    """Window Center and Width with their function (PS3.3 C.11.2.1.2, C.11.2.1.3).

    >>> Window(50.0, 100.0, "LINEAR_EXACT")(np.array([-9, 50, 75], np.float32))
    array([0.  , 0.5 , 0.75], dtype=float32)
    >>> Window(50.0, 0.0).fault
    'the window width is below 1'
    """

    center: float
    width: float
    function: str = "LINEAR"

    @property
    def fault(self) -> str:
        """Reason why the standard forbids this window, or ""."""
        if not (np.isfinite(self.center) and np.isfinite(self.width)):
            return "the window is not a finite number"
        if self.function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            return "the VOI LUT function is unknown"
        if self.function == "LINEAR" and self.width < 1:
            return "the window width is below 1"
        return "the window width is not positive" if self.width <= 0 else ""

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn `values` in place into display values, 0 (ymin) to 1 (ymax)."""
        center, width = self.center, self.width
        if self.function == "SIGMOID":  # C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w))
            # Not scipy's expit: it gives another last digit to a fifth of all pixels.
            values -= center
            values *= -4.0 / width
            with np.errstate(over="ignore"):
                np.exp(values, out=values)
            values += 1.0
            return np.reciprocal(values, out=values)
        if self.function == "LINEAR":  # C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5)
            center, width = center - 0.5, width - 1.0
        if width == 0.0:  # a LINEAR window of width 1 is a threshold
            return np.greater(values, center, out=values)
        # The standard's two comparisons are this clip: both ends lie on the line.
        values -= center
        values *= 1.0 / width
        values += 0.5
        return np.clip(values, 0.0, 1.0, out=values)


def lookup_table(
    descriptor: Sequence[int], data: bytes | Sequence[int], *, is_signed: bool, is_little: bool
) -> LookupTable:
    """Return the table of a LUT item.

    Args:
        descriptor: Number of entries (0 means 65536), first value mapped, bits per entry.
        data: LUT Data (0028,3006) as bytes or as a list of words.
        is_signed: Pixel values below the table are signed, so its first value is too.
        is_little: Byte order of the file.

    Raises:
        ValueError: The descriptor or the data do not make a table.

    Reference:
        PS3.3 C.11.1.1.1 and C.11.2.1.1.

    >>> table = lookup_table([3, 0, 16], [0, 10, 20], is_signed=False, is_little=True)
    >>> table(np.array([0, 2]))
    array([ 0., 20.], dtype=float32)
    """
    entries, first, bits = (int(value) for value in descriptor)
    entries = entries or 1 << 16
    if is_signed and first >= 1 << 15:
        first -= 1 << 16
    if isinstance(data, bytes):
        is_packed = len(data) < 2 * entries  # 8-bit entries, two to a word
        words = np.frombuffer(data, np.uint8 if is_packed else f"{'<' if is_little else '>'}u2")
    else:
        words = np.asarray(data, np.uint16)
    if len(words) < entries or not 1 <= bits <= 16:
        raise ValueError("the table is shorter than its descriptor says")
    return LookupTable(first, bits, words[:entries].astype(np.float32))


def invert(values: NDArray[np.float32], low: float, high: float) -> None:
    """Mirror `values` in place within `low` to `high`: MONOCHROME1, whose minimum is white.

    The range is what the stored bits can represent, not what this image happens to hold, so the
    same exposure gets the same number in every image of a detector.

    Reference:
        PS3.3 C.7.6.3.1.2.

    >>> film = np.array([0, 100, 4095], np.float32)
    >>> invert(film, 0, 4095)
    >>> film
    array([4095., 3995.,    0.], dtype=float32)
    """
    np.subtract(np.float32(low + high), values, out=values)


def is_padding(stored: NDArray[Any], value: int, limit: int | None) -> NDArray[np.bool_]:
    """Return where the stored values are padding (PS3.3 C.7.5.1.1.2): one value or a range.

    >>> is_padding(np.array([-2000, -1024, 40]), -2000, None)
    array([ True, False, False])
    >>> is_padding(np.array([-2000, -1024, 40]), -2000, -1000)
    array([ True,  True, False])
    """
    low, high = (value, value) if limit is None else sorted((value, limit))
    mask: NDArray[np.bool_] = stored == low if low == high else (stored >= low) & (stored <= high)
    return mask


def rgb_from_ybr(ybr: NDArray[Any]) -> NDArray[Any]:
    """Return RGB of full-range YCbCr, rounded and clipped to the type.

    Args:
        ybr: `(..., 3)` unsigned integers.

    Reference:
        PS3.3 C.7.6.3.1.2 (YBR_FULL): the inverse of ITU-R BT.601 at full range.

    >>> rgb_from_ybr(np.array([[128, 128, 128], [76, 85, 255]], np.uint8))  # grey, red
    array([[128, 128, 128],
           [254,   0,   0]], dtype=uint8)
    """
    top = float(np.iinfo(ybr.dtype).max)
    middle = (top + 1) / 2
    luma, blue, red = (ybr[..., k].astype(np.float32) for k in range(3))
    blue -= middle
    red -= middle
    rgb = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1
    )
    result: NDArray[Any] = np.clip(np.rint(rgb), 0, top).astype(ybr.dtype)
    return result
