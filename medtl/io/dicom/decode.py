"""Pixel data elements to stored values, per transfer syntax.

The codecs decompress (`codestream`, and imagecodecs for RLE); what is here is what they do not
know: how frames lie in the element, which bits of a cell are the sample, what the colours mean.

Arrays are `(F, R, C, S)`: frames, rows, columns, samples per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import generate_frames

from medtl.errors import ImageError
from medtl.io.codestream import (
    decode_codestream,
    decode_halved,
    family_of,
    halvings,
    jpeg_2000_header,
    jpeg_header,
)
from medtl.io.cost import COPY_AGAIN
from medtl.io.dicom.file import UNDEFINED_LENGTH, PixelElement
from medtl.io.dicom.luts import rgb_from_ybr

StoredArray = NDArray[Any]
"""`(F, R, C, S)` integers, or floats where the element holds floats."""

NATIVE_SYNTAXES = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)

_FAMILIES: dict[str, str] = {
    **dict.fromkeys(
        (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1), "JPEG"
    ),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), "JPEG-LS"),
    **dict.fromkeys(
        (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K),
        "JPEG 2000",
    ),
}
"""Transfer syntax UID -> family of the compressed streams."""

_LOSSLESS_SYNTAXES = (uid.JPEGLossless, uid.JPEGLosslessSV1)
_LOSSLESS = 0xC3
"""Frame marker of JPEG process 14 (SOF3)."""


@dataclass(frozen=True)
class PixelFormat:
    """Storage of one sample (PS3.5 8.1.1) and the number of samples.

    Attributes:
        rows, columns, samples, frames: The declared size.
        bits_allocated, bits_stored, high_bit: Of one cell.
        is_signed: Two's complement (Pixel Representation 1).
        photometric: Photometric Interpretation (0028,0004).
        is_planar: Colour by plane (Planar Configuration 1), for native data.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    photometric: str
    is_planar: bool

    @property
    def cells(self) -> int:
        """Samples in one frame."""
        return self.rows * self.columns * self.samples


def decode_frames(
    element: PixelElement,
    fmt: PixelFormat,
    syntax: str,
    frames: Sequence[int],
    *,
    at_least: int | None = None,
) -> tuple[StoredArray, list[str]]:
    """Return the stored values of the asked frames, colours as RGB, and the flags raised.

    Args:
        element: Place of the pixel data.
        fmt: How they are stored.
        syntax: Transfer syntax UID.
        frames: Frame numbers from 0, ascending.
        at_least: Of JPEG 2000, one grey unsigned sample: decode a coarser picture whose longer
            side has still so many pixels; None decodes all.

    Returns:
        `(len(frames), rows, columns, samples)`; YBR colours are RGB, palette indices stay indices.

    Raises:
        ImageError: The syntax has no decoder, or the data are short, cut, corrupt or of another
            size than the header says.

    >>> from pydicom.data import get_testdata_file
    >>> from medtl.io.dicom.file import open_dicom
    >>> from medtl.io.dicom.header import pixel_format
    >>> with open_dicom(get_testdata_file("MR_small_RLE.dcm")) as file:
    ...     fmt, _ = pixel_format(file.dataset, file.pixels.kind)
    ...     stored, flags = decode_frames(file.pixels, fmt, file.transfer_syntax, [0])
    ...
    >>> stored.shape, int(stored.max()), flags
    ((1, 64, 64, 1), 2145, [])
    """
    if element.kind != "integer" or syntax in NATIVE_SYNTAXES:
        return _native(element, fmt, frames)
    if syntax not in _FAMILIES and syntax != uid.RLELossless:
        shown = syntax if uid.UID(syntax).is_valid else "not a UID"
        raise ImageError(
            f"the transfer syntax {shown} cannot be decoded",
            expected="uncompressed, deflated, RLE, JPEG, JPEG-LS or JPEG 2000",
            fix="Convert the file to an uncompressed transfer syntax (dcmdjpeg, gdcmconv --raw).",
        )
    if element.length != UNDEFINED_LENGTH:
        raise ImageError(
            "the transfer syntax is a compressed one but the pixel data are not encapsulated",
            expected="pixel data of undefined length (PS3.5 A.4)",
        )
    decode = _rle if syntax == uid.RLELossless else _codestream
    wanted = set(frames)
    pictures: list[StoredArray] = []
    flags: dict[str, None] = {}
    for number, data in enumerate(_encapsulated(element, fmt)):
        if number in wanted:
            flags |= dict.fromkeys(_stream_flags(data, fmt, syntax))
            halved = _halved(data, fmt, syntax, at_least)
            pictures.append(decode(data, fmt, syntax) if halved is None else halved)
        if number >= fmt.frames:
            flags["more_frames_than_declared"] = None
        elif number < fmt.frames - 1 and len(pictures) == len(wanted):
            break
    if len(pictures) == len(wanted):
        stored = np.stack(pictures) if len(pictures) > 1 else pictures[0][None]
        return stored, [*flags, *_beyond_bits_stored(stored, fmt)]
    raise ImageError(
        f"the pixel data hold fewer frames than Number of Frames says ({fmt.frames})",
        expected=f"frame {max(wanted)} (from 0)",
        fix=COPY_AGAIN,
    )


def _encapsulated(element: PixelElement, fmt: PixelFormat) -> Iterator[bytes]:
    """Yield the compressed frames (PS3.5 A.4); faults in the item structure are named."""
    element.source.seek(element.offset)
    try:
        yield from generate_frames(element.source, number_of_frames=fmt.frames)
    except Exception as fault:  # pydicom raises ValueError, struct.error, EOFError, ...
        raise ImageError(
            f"the encapsulated pixel data are truncated or corrupt ({type(fault).__name__})",
            fix=COPY_AGAIN,
        ) from None


# ---------------------------------------------------------------- uncompressed


def _native(
    element: PixelElement, fmt: PixelFormat, frames: Sequence[int]
) -> tuple[StoredArray, list[str]]:
    """Return uncompressed frames (PS3.5 8.1.1, 8.2)."""
    if element.length == UNDEFINED_LENGTH:
        raise ImageError(
            "the pixel data have no length: they are encapsulated, but the transfer syntax is an "
            "uncompressed one"
        )
    is_422 = fmt.photometric == "YBR_FULL_422" and element.kind == "integer"
    bits = fmt.cells * fmt.bits_allocated
    if is_422 and _declared(element) * 8 < bits * fmt.frames:
        if fmt.columns % 2:
            raise ImageError("YBR_FULL_422 needs an even number of columns")
        bits = bits * 2 // 3  # two luma samples share one pair of chroma samples: PS3.3 C.7.6.3.1.2
    else:
        is_422 = False
    flags = _check_length(element, math.ceil(bits * fmt.frames / 8), fmt)
    first, last = min(frames), max(frames)
    start = first * bits // 16 * 2  # words: big-endian ones are swapped as a whole
    element.source.seek(element.offset + start)
    data = np.empty(math.ceil(bits * (last + 1) / 16) * 2 - start, np.uint8)
    # Into memory of our own, which `_sample` may change; an odd end has no second byte.
    data = data[: cast(BufferedIOBase, element.source).readinto(data.data)]
    cells = _cells(data, element, fmt)
    skipped = (first * bits - start * 8) // fmt.bits_allocated
    frame_cells = bits // fmt.bits_allocated
    cells = cells[skipped : skipped + frame_cells * (last + 1 - first)]
    cells = cells.reshape(last + 1 - first, frame_cells)
    if len(frames) < len(cells):
        cells = cells[[number - first for number in frames]]
    if element.kind == "integer" and fmt.bits_allocated > 1:
        high_bit, odd = _true_high_bit(cells, fmt)
        flags += odd
        cells = _sample(cells, high_bit, fmt.bits_stored, fmt.is_signed)
    return _lay_out(cells, fmt, is_422), flags


def _declared(element: PixelElement) -> int:
    """Return the bytes that are both declared and there."""
    return min(element.length, element.available)


def _check_length(element: PixelElement, expected: int, fmt: PixelFormat) -> list[str]:
    """Compare the declared and actual length with the `expected` bytes; return flags."""
    if element.available == 0 or element.length == 0:
        raise ImageError("the pixel data are empty", expected=f"{expected} bytes of pixel data")
    actual = _declared(element)
    if actual < expected:
        raise ImageError(
            f"the pixel data are truncated: {actual} bytes",
            expected=f"{expected} bytes for {fmt.frames} frame(s) of {fmt.rows} rows and "
            f"{fmt.columns} columns",
            fix=COPY_AGAIN,
        )
    if element.length > element.available:
        return ["pixel_data_length_wrong"]
    if actual > expected + expected % 2:
        return ["pixel_data_longer_than_declared_size"]
    return []


def _cells(data: NDArray[np.uint8], element: PixelElement, fmt: PixelFormat) -> StoredArray:
    """Return the flat cells of native pixel data; bits unpacked where a cell is one bit."""
    order = "<" if element.little_endian else ">"
    if element.kind != "integer":
        return np.frombuffer(data, f"{order}f{fmt.bits_allocated // 8}")
    if fmt.bits_allocated in (1, 8) and not element.little_endian and element.vr == b"OW":
        # PS3.5 8.1.1: 8-bit cells travel in swapped pairs when the words are big endian
        words = data[: len(data) // 2 * 2].view(np.uint16)
        words.byteswap(inplace=True)
    if fmt.bits_allocated == 1:
        return np.unpackbits(data, bitorder="little")
    return np.frombuffer(data, f"{order}u{fmt.bits_allocated // 8}")


def _true_high_bit(cells: StoredArray, fmt: PixelFormat) -> tuple[int, list[str]]:
    """Return the highest bit of the sample, and flags where header and cells are at odds.

    Reference:
        PS3.5 8.1.1: High Bit is Bits Stored - 1. Files from before that rule may keep the sample
        further up; then the bits below it are zero. A file whose low bits are in use and whose
        high ones are not has a wrong High Bit.
    """
    if fmt.bits_stored == fmt.bits_allocated:
        return fmt.high_bit, []
    used = int(np.bitwise_or.reduce(cells, axis=None))
    below = (1 << (fmt.high_bit + 1 - fmt.bits_stored)) - 1
    above = used >> (fmt.high_bit + 1)
    if not used & below:  # also where High Bit is as the rule says
        odd = ["high_bit_not_bits_stored_less_one"] if below else []
        is_sign = fmt.is_signed and above
        if is_sign and fmt.high_bit + 1 == fmt.bits_stored:  # a sign that goes on is no overlay
            signed = cells.view(cells.dtype.str.replace("u", "i"))
            limit = 1 << (fmt.bits_stored - 1)
            is_sign = bool(signed.min() >= -limit and signed.max() < limit)
            above = 0 if is_sign else above
        return fmt.high_bit, [*odd, *["bits_above_high_bit_left_out"] * bool(above)]
    if used >> fmt.bits_stored:
        raise ImageError(
            f"High Bit (0028,0102) is {fmt.high_bit} and Bits Stored (0028,0101) is "
            f"{fmt.bits_stored}, and the pixels use bits on both sides of the sample",
            expected=f"High Bit {fmt.bits_stored - 1}, or pixels that fit another",
            fix="Export the image again; which bits are the sample cannot be guessed",
        )
    return fmt.bits_stored - 1, ["high_bit_wrong"]


def _sample(cells: StoredArray, high_bit: int, bits_stored: int, is_signed: bool) -> StoredArray:
    """Return the sample of each cell: bits above the high bit dropped, the sign extended.

    In place: a film has millions of cells, and nobody else holds them.

    Reference:
        PS3.5 8.1.1: bits outside the sample may hold anything (retired overlays did), so two
        shifts, the second one arithmetic for signed values, isolate it.
    """
    width = cells.dtype.itemsize * 8
    samples: StoredArray = cells.view(cells.dtype.str.replace("u", "i")) if is_signed else cells
    if bits_stored == width:
        return samples
    if not is_signed and high_bit + 1 == bits_stored:  # then one mask is the two shifts
        samples &= samples.dtype.type((1 << bits_stored) - 1)
        return samples
    if high_bit + 1 < width:
        samples <<= width - 1 - high_bit
    samples >>= width - bits_stored
    return samples


def _lay_out(cells: StoredArray, fmt: PixelFormat, is_422: bool) -> StoredArray:
    """Return `(F, R, C, S)` from flat frames, undoing colour planes and shared chroma."""
    frames = len(cells)
    if is_422:
        pairs = cells.reshape(frames, fmt.rows, fmt.columns // 2, 4)
        luma = pairs[..., :2].reshape(frames, fmt.rows, fmt.columns, 1)
        chroma = np.repeat(pairs[..., 2:], 2, axis=2)
        shaped = np.concatenate([luma, chroma], axis=3)
    elif fmt.is_planar and fmt.samples > 1:
        planes = cells.reshape(frames, fmt.samples, fmt.rows, fmt.columns)
        shaped = np.moveaxis(planes, 1, 3)
    else:
        shaped = cells.reshape(frames, fmt.rows, fmt.columns, fmt.samples)
    return rgb_from_ybr(shaped) if fmt.photometric in ("YBR_FULL", "YBR_FULL_422") else shaped


# ------------------------------------------------------------------ compressed


def _rle(data: bytes, fmt: PixelFormat, _syntax: str) -> StoredArray:
    """Return one RLE frame `(R, C, S)` (PS3.5 annex G): byte planes, most significant first."""
    size = fmt.bits_allocated // 8
    if size == 0:
        raise ImageError("RLE of 1-bit pixels is not defined")
    buffer = np.empty(fmt.cells * size, np.uint8)
    try:
        decoded = imagecodecs.dicomrle_decode(data, np.dtype(f"<u{size}"), out=buffer.data)
    except Exception as fault:
        raise ImageError(
            f"the RLE frame cannot be decoded, it is corrupt or truncated ({fault})", fix=COPY_AGAIN
        ) from None
    if len(decoded) != len(buffer):
        raise ImageError(
            f"the RLE frame is truncated: it decodes to {len(decoded)} bytes",
            expected=f"{len(buffer)} bytes",
        )
    planes = buffer.view(f"<u{size}").reshape(fmt.samples, fmt.rows, fmt.columns)
    samples = _sample(np.moveaxis(planes, 0, 2), fmt.high_bit, fmt.bits_stored, fmt.is_signed)
    return rgb_from_ybr(samples) if fmt.photometric in ("YBR_FULL", "YBR_FULL_422") else samples


def _halved(data: bytes, fmt: PixelFormat, syntax: str, at_least: int | None) -> StoredArray | None:
    """Return a coarser picture `(r, c, 1)` of one JPEG 2000 frame, None where there is none."""
    is_grey = fmt.samples == 1 and fmt.photometric != "PALETTE COLOR" and not fmt.is_signed
    if at_least is None or not is_grey or _FAMILIES.get(syntax) != "JPEG 2000":
        return None
    stream = jpeg_2000_header(data)
    times = 0 if stream is None or stream.precision > 16 else halvings(data, stream, at_least)
    if times == 0:
        return None
    shape = (fmt.rows, fmt.columns, fmt.samples)
    return decode_halved(data, shape, times)[..., None]


def _stream_flags(data: bytes, fmt: PixelFormat, syntax: str) -> list[str]:
    """Return flags for a stream that is not as the header says; refuse one of another format.

    Reference:
        PS3.5 A.4: processes of the transfer syntaxes; ITU-T T.81 table B.1 for the markers.
    """
    family = _FAMILIES.get(syntax, "RLE")
    found = family_of(data)
    if found not in ("", family):
        raise ImageError(
            f"the pixel data hold {found}, but the transfer syntax says {family}",
            expected="one format in header and pixel data",
            fix="Export the image again, or correct the transfer syntax",
        )
    if family not in ("JPEG", "JPEG-LS", "JPEG 2000"):
        return []
    stream = (jpeg_2000_header if family == "JPEG 2000" else jpeg_header)(data)
    if stream is None:
        return []  # decoding says it
    if stream.precision > fmt.bits_allocated:
        raise ImageError(
            f"the {family} stream has {stream.precision} bits a sample",
            expected=f"at most the {fmt.bits_allocated} bits allocated that the header declares",
        )
    flags = ["stream_precision_below_bits_stored"] * (stream.precision < fmt.bits_stored)
    is_lossless = stream.process == _LOSSLESS
    if family == "JPEG" and is_lossless != (syntax in _LOSSLESS_SYNTAXES):
        flags.append("jpeg_process_not_that_of_the_transfer_syntax")
    return flags


def _beyond_bits_stored(stored: StoredArray, fmt: PixelFormat) -> list[str]:
    """Return a flag where grey values need more bits than Bits Stored."""
    if fmt.samples > 1 or fmt.bits_stored == fmt.bits_allocated:
        return []
    low = -(1 << (fmt.bits_stored - 1)) if fmt.is_signed else 0
    inside = low <= int(stored.min()) and int(stored.max()) < low + (1 << fmt.bits_stored)
    return [] if inside else ["pixels_beyond_bits_stored"]


def _codestream(data: bytes, fmt: PixelFormat, syntax: str) -> StoredArray:
    """Return one JPEG, JPEG-LS or JPEG 2000 frame `(R, C, S)`."""
    shape = (fmt.rows, fmt.columns, fmt.samples)
    cells, precision = decode_codestream(data, _FAMILIES[syntax], shape, fmt.photometric)
    if cells.dtype.kind == "i":  # a signed JPEG 2000 stream: whatever the header says, these are
        return cells
    # No stream but JPEG 2000 knows signs: two's complement comes out as unsigned cells.
    return _sample(cells, precision - 1, precision, fmt.is_signed)
