"""TIFF files that Pillow cuts to 8 bits, turns into their negative, or does not know.

Scanners of slides, detectors and scikit-image write 16-bit colour, unsigned 32-bit, half and double
floats, white-is-zero film and BigTIFF. tifffile reads them; nothing is decoded before the declared
size has been checked.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError
from medtl.io.cost import Limits, check_declared

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, little and big endian (TIFF 6.0 section 2; BigTIFF)."""

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
"""PhotometricInterpretation (262) whose numbers can be taken as they are, or turned round."""

_PLANAR = 2
"""PlanarConfiguration (284) of one plane after the other."""

_ORIENTATION = 274

_PILLOW_READS = ("uint16", "int16", "int32", "float32")
"""Types of grey values, beside 8 bits, that Pillow returns unchanged."""

_PILLOW_COLOURS = {(0, 1), (1, 1), (2, 3), (2, 4), (3, 1), (5, 4), (6, 3), (8, 3)}
"""PhotometricInterpretation and samples of 8 bits that Pillow returns whole."""

_USUAL_COMPRESSION = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000)
"""Compression (259) that Pillow decodes."""


def is_tiff(head: bytes) -> bool:
    r"""Return whether a file's first four bytes are those of a TIFF.

    >>> is_tiff(b"II*\x00"), is_tiff(b"\x89PNG")
    (True, False)
    """
    return head[:4] in MAGIC


def read_deep_tiff(
    path: Path, frame: int | None, limits: Limits, notes: list[str], flags: list[str]
) -> tuple[NDArray[Any] | None, int]:
    """Return the pixels of a TIFF that Pillow would not read as it is, None where it does.

    Args:
        path: The file.
        frame: Page from 0, None for the only one.
        limits: What the file may cost.
        notes: Learns what was done to the values.
        flags: Learns what was left out.

    Returns:
        `(R, C)` or `(R, C, 3)` values as stored, white-is-zero turned round, and the tag
        Orientation, which has not been applied.

    Raises:
        ImageError: A kind of TIFF that has no meaning here (5 channels, complex numbers), broken,
            over the limits, or of several pages and none is asked for.

    >>> import tifffile
    >>> from medtl.io.cost import DEFAULT_LIMITS
    >>> tifffile.imwrite("film.tif", np.array([[1, 70000]], np.uint32))
    >>> read_deep_tiff(Path("film.tif"), None, DEFAULT_LIMITS, [], [])
    (array([[    1, 70000]], dtype=uint32), 1)
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors say it, in our words
    is_deep = False
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            samples, stored, photometric = page.samplesperpixel, page.dtype, page.photometric
            is_usual = not file.is_bigtiff and page.compression in _USUAL_COMPRESSION
            if stored is None or (is_usual and _is_pillows(stored, samples, photometric)):
                return None, 1
            is_deep = True
            page = _page(file.pages, frame)
            shape = (page.imagelength, page.imagewidth)
            check_declared(shape, samples, stored.itemsize, limits=limits)
            _refuse_unknown(stored, samples, photometric)
            values = page.asarray()
            if page.planarconfig == _PLANAR:
                values = np.moveaxis(values.reshape(samples, *shape), 0, 2)
            tag = page.tags.get(_ORIENTATION)
            orientation = 1 if tag is None else int(tag.value)
            largest = stored.type(2 ** int(page.bitspersample) - 1) if stored.kind == "u" else None
    except ImageError:
        raise
    except Exception as fault:  # what the bytes lead tifffile and its codecs into
        if not is_deep:
            return None, 1  # Pillow says what is wrong
        raise ImageError(
            f"the TIFF cannot be decoded ({type(fault).__name__})",
            expected="a whole TIFF",
            fix="Copy the file again from its source, or save it as PNG or 16-bit grey TIFF",
        ) from None
    values = values.reshape(*shape, samples)
    if samples in (2, 4):
        flags.append("alpha_dropped")
        values = values[..., :-1]
    if photometric == _WHITE_IS_ZERO:
        notes.append("inverted white-is-zero")
        values = (values.max() if largest is None else largest) - values
    return (values[..., 0] if values.shape[2] == 1 else values), orientation


def _page(pages: Any, frame: int | None) -> Any:
    """The page that is asked for. Only it is looked up: a small file can name millions."""
    try:
        page = pages[frame or 0]
    except IndexError:
        raise ImageError(f"frame {frame} is asked for", expected="one that is there") from None
    if frame is None:
        with suppress(IndexError):
            pages[1]
            raise ImageError(
                "the file holds several frames or pages", expected="one, or a frame number"
            )
    return page


def _is_pillows(stored: np.dtype[Any], samples: int, photometric: int) -> bool:
    """Return whether Pillow reads this kind of TIFF without loss."""
    if stored.name in ("bool", "uint8"):
        return (photometric, samples) in _PILLOW_COLOURS
    return stored.name in _PILLOW_READS and samples == 1 and photometric == _BLACK_IS_ZERO


def _refuse_unknown(stored: np.dtype[Any], samples: int, photometric: int) -> None:
    """Raise for what is neither grey nor RGB of real numbers."""
    known = {_WHITE_IS_ZERO: (1, 2), _BLACK_IS_ZERO: (1, 2), _RGB: (3, 4)}
    if stored.kind not in "uif" or samples not in known.get(photometric, ()):
        raise ImageError(
            f"a TIFF of {samples} samples of type {stored.name} (photometric {photometric:d})",
            expected="grey or RGB of whole or floating-point numbers",
            fix="Convert it to 16-bit grey TIFF or PNG, one channel a file",
        )
