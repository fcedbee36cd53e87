"""JPEG, JPEG-LS and JPEG 2000 streams: their headers, their decoders, and whether they are whole.

imagecodecs decodes (libjpeg-turbo, CharLS, OpenJPEG: permissive licences). Its header is read
first, so that a stream of another size than the file says is refused before it is decoded.
CharLS and OpenJPEG refuse a cut stream; libjpeg fills it up and reports success, so its streams
are checked here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError
from medtl.io.cost import COPY_AGAIN
from medtl.io.dicom.luts import rgb_from_ybr
from medtl.storage.content import HEAD_BYTES, content_of

_END_OF_IMAGE = b"\xff\xd9"
_TAIL_BYTES = 16
"""Encoders pad frames to even length, some with more: the end marker may stand this far in."""

_JPEG_LS = 0xF7
"""Frame marker of JPEG-LS (SOF55)."""

_ADOBE_BYTES = 12
"""An Adobe segment that is shorter says nothing about colour, and libjpeg ignores it."""

Decode = Callable[[bytes], NDArray[Any]]
"""A stream to its `(R, C)` or `(R, C, S)` integers."""


@dataclass(frozen=True)
class Codestream:
    """The header of a JPEG-family stream; `precision` in bits, `segments` its APPn heads.

    `process` is the frame marker of a JPEG stream (SOF0 is 0xC0, SOF55 of JPEG-LS 0xF7).
    """

    rows: int
    columns: int
    samples: int
    precision: int
    component_ids: tuple[int, ...] = ()
    segments: tuple[bytes, ...] = ()
    process: int = 0


def decode_codestream(
    data: bytes, family: str, shape: tuple[int, int, int], photometric: str
) -> tuple[NDArray[Any], int]:
    """Return the cells of one frame and their precision in bits.

    Args:
        data: The stream of one frame, with any padding behind its end marker.
        family: "JPEG", "JPEG-LS" or "JPEG 2000".
        shape: Rows, columns and samples per pixel that the file declares.
        photometric: Photometric Interpretation; a YBR one comes back as RGB.

    Raises:
        ImageError: No such stream, another size than declared, cut, or corrupt.

    >>> film = np.arange(24, dtype=np.uint8).reshape(4, 6)
    >>> data = imagecodecs.jpegls_encode(film)
    >>> cells, bits = decode_codestream(data, "JPEG-LS", (4, 6, 1), "MONOCHROME2")
    >>> bool((cells[..., 0] == film).all()), bits
    (True, 8)
    """
    stream = (jpeg_2000_header if family == "JPEG 2000" else jpeg_header)(data)
    if stream is None:
        raise ImageError(
            f"the pixel data hold no {family} stream that can be decoded", fix=COPY_AGAIN
        )
    if (stream.rows, stream.columns, stream.samples) != shape:
        raise ImageError(
            f"the {family} stream is {stream.rows} x {stream.columns} x {stream.samples}",
            expected="rows x columns x samples of {} x {} x {}".format(*shape),
        )
    if family != "JPEG 2000" and _END_OF_IMAGE not in data[-_TAIL_BYTES:]:
        raise ImageError(f"the {family} stream is truncated: it has no end marker", fix=COPY_AGAIN)
    decode = _decoder(family, stream, photometric)
    try:
        cells = decode(data)
    except Exception as fault:  # each codec has its own; none of them quotes a header value
        raise ImageError(
            f"the {family} stream cannot be decoded, it is corrupt or truncated "
            f"({str(fault)[:120]})",
            fix=COPY_AGAIN,
        ) from None
    if family == "JPEG" and jpeg_is_cut(data, cells, stream, decode):
        raise ImageError(
            "the JPEG stream is truncated: the decoder ran out of data before the last row",
            fix=COPY_AGAIN,
        )
    return cells.reshape(shape), stream.precision


def _decoder(family: str, stream: Codestream, photometric: str) -> Decode:
    """Return the decoder of a stream, colours to RGB exactly once."""
    if family == "JPEG":
        return _jpeg_decoder(stream, photometric)
    # JPEG-LS knows no colour space; OpenJPEG undoes YBR_RCT and YBR_ICT by itself.
    plain: Decode = (
        imagecodecs.jpeg2k_decode if family == "JPEG 2000" else imagecodecs.jpegls_decode
    )
    if stream.samples == 3 and photometric.startswith("YBR_FULL"):
        return lambda data: rgb_from_ybr(plain(data))
    return plain


def _jpeg_decoder(stream: Codestream, photometric: str) -> Decode:
    """Return the decoder of JPEG processes 1, 2, 4 and 14: 8 to 16 bits."""
    plain: Callable[..., NDArray[Any]] = imagecodecs.jpeg8_decode
    if stream.samples != 3 or any(
        part.startswith(b"Adobe") and len(part) >= _ADOBE_BYTES for part in stream.segments
    ):
        return plain  # no colour, or the marker says what it is and libjpeg obeys
    # Without the marker libjpeg would guess YCbCr. DICOM says what it is (PS3.5 8.2.1), unless
    # the stream itself says otherwise: a JFIF head means YCbCr, the letters RGB mean RGB.
    is_jfif = any(part.startswith(b"JFIF") for part in stream.segments)
    has_rgb_ids = stream.component_ids in ((82, 71, 66), (114, 103, 98))
    is_ybr = not has_rgb_ids and (is_jfif or photometric.startswith("YBR"))
    return partial(plain, colorspace="YCBCR" if is_ybr else "RGB", outcolorspace="RGB")


def family_of(data: bytes) -> str:
    """Return the family of a stream by its first bytes, or what else they are; "" if unknown.

    >>> family_of(imagecodecs.jpegls_encode(np.zeros((4, 6), np.uint8)))
    'JPEG-LS'
    >>> family_of(bytes(64))
    ''
    """
    if not data:
        return "nothing (an empty frame)"
    content = content_of(data[:HEAD_BYTES])
    if content == "JPEG":
        stream = jpeg_header(data)
        return "JPEG-LS" if stream is not None and stream.process == _JPEG_LS else "JPEG"
    return content if content in ("JPEG 2000", "PNG", "TIFF", "GIF", "BMP") else ""


def jpeg_header(data: bytes) -> Codestream | None:
    """Return what the frame header of a JPEG or JPEG-LS stream declares; None if there is none.

    Reference:
        ITU-T T.81 B.2.2 (SOF0 to SOF15), T.87 C.2.2 (SOF55).

    >>> film = np.zeros((4, 6), np.uint8)
    >>> jpeg_header(imagecodecs.jpeg8_encode(film)).rows
    4
    >>> jpeg_header(b"no JPEG") is None
    True
    """
    at = data.find(b"\xff\xd8") + 2
    segments: list[bytes] = []
    while at >= 2 and at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4])
        body = data[at + 4 : at + 2 + length]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                return None
            rows, columns = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
            ids = tuple(body[6 : 6 + 3 * body[5] : 3])
            return Codestream(rows, columns, body[5], body[0], ids, tuple(segments), marker)
        if 0xE0 <= marker <= 0xEF:
            segments.append(body[:16])
        at += 2 + length
    return None


def jpeg_2000_header(data: bytes) -> Codestream | None:
    """Return what the SIZ segment of a JPEG 2000 stream declares; None if there is none.

    Reference:
        ITU-T T.800 A.5.1.

    >>> film = np.zeros((40, 60), np.uint16)
    >>> stream = jpeg_2000_header(imagecodecs.jpeg2k_encode(film))
    >>> stream.rows, stream.columns, stream.precision
    (40, 60, 16)
    """
    at = data.find(b"\xff\x4f\xff\x51") + 4
    if at < 4 or len(data) < at + 40:
        return None
    columns, rows, left, top = (
        int.from_bytes(data[at + 4 + 4 * k : at + 8 + 4 * k]) for k in range(4)
    )
    samples = int.from_bytes(data[at + 36 : at + 38])
    return Codestream(rows - top, columns - left, samples, (data[at + 38] & 0x7F) + 1)


def halvings(data: bytes, stream: Codestream, at_least: int) -> int:
    """Return how often a JPEG 2000 picture may be halved and its longer side still be `at_least`.

    Args:
        data: The stream.
        stream: What its header declares.
        at_least: Pixels, at least 1.

    Reference:
        ITU-T T.800 A.6.1: the stream holds so many coarser pictures as COD declares levels.

    >>> data = imagecodecs.jpeg2k_encode(np.zeros((512, 512), np.uint8))
    >>> halvings(data, jpeg_2000_header(data), at_least=128)
    2
    """
    at = _marker(data, 0x52)
    levels = data[at + 9] if 0 <= at < len(data) - 9 else 0
    sides = (stream.rows, stream.columns)
    times = min(levels, max((max(sides) // max(at_least, 1)).bit_length() - 1, 0))
    # Pillow rounds a halved side to the nearest, the stream rounds it up: only where they agree.
    while any((side + (1 << times >> 1)) >> times != -(-side >> times) for side in sides):
        times -= 1
    return times


def decode_halved(data: bytes, shape: tuple[int, int, int], times: int) -> NDArray[np.uint16]:
    """Return one grey JPEG 2000 frame as its own coarser picture, `times` halved, unsigned.

    A fault in the finest details is not decoded and so not found by the decoder: that the stream
    is whole is seen from the lengths of its parts.

    Args:
        data: The stream of one frame, of one unsigned component of at most 16 bits.
        shape: Rows, columns and samples per pixel that the file declares.
        times: What `halvings` allows, at least 1.

    Raises:
        ImageError: Another size than declared, cut, or corrupt.

    >>> data = imagecodecs.jpeg2k_encode(np.full((512, 512), 7, np.uint8))
    >>> decode_halved(data, (512, 512, 1), 2).shape
    (128, 128)
    """
    from PIL import Image as Pillow

    stream = jpeg_2000_header(data)
    if stream is None or (stream.rows, stream.columns, stream.samples) != shape:
        raise ImageError("the JPEG 2000 stream has another size than the file says")
    if not _has_all_parts(data):
        raise ImageError("the JPEG 2000 stream is truncated", fix=COPY_AGAIN)
    try:
        with Pillow.open(io.BytesIO(data), formats=["JPEG2000"]) as picture:
            picture.reduce = times  # type: ignore[method-assign, assignment]
            cells = np.array(picture, np.uint16)
    except Exception as fault:
        raise ImageError(
            f"the JPEG 2000 stream cannot be decoded, it is corrupt or truncated "
            f"({type(fault).__name__})",
            fix=COPY_AGAIN,
        ) from None
    if stream.precision > 8:  # Pillow fills the 16 bits from above
        cells >>= 16 - stream.precision
    return cells


def _has_all_parts(data: bytes) -> bool:
    """Return whether the tile-parts have the lengths they declare, up to the end marker.

    Reference:
        ITU-T T.800 A.4.2: Psot counts from the first byte of SOT; 0 means up to the end.
    """
    at = _marker(data, 0x90)
    while 0 <= at < len(data) - 10 and data[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(data[at + 6 : at + 10])
        at = data.rfind(_END_OF_IMAGE) if length == 0 else at + length
    return data[at : at + 2] == _END_OF_IMAGE


def _marker(data: bytes, wanted: int) -> int:
    """Return where a marker segment of the main header begins (T.800 A.4, A.5), -1 if nowhere."""
    at = data.find(b"\xff\x4f\xff\x51") + 2
    while 2 <= at < len(data) - 4 and data[at] == 0xFF:
        if data[at + 1] == wanted:
            return at
        if data[at + 1] == 0x90:  # SOT: the main header has ended
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return -1


def jpeg_is_cut(
    data: bytes, pixels: NDArray[Any], stream: Codestream, decode: Decode, *, part: int = 1
) -> bool:
    """Return whether libjpeg ran out of data: it then fills the rest and reports success.

    A cut stream whose end marker was put back ends in mid-grey. Only a picture that does is
    decoded a second time, with junk before the end marker: a whole stream never reads the junk, a
    cut one turns it into pixels.

    Args:
        data: The stream, end marker included.
        pixels: `(R, C)` or `(R, C, S)` as `decode` returned them.
        stream: What its header declares.
        decode: The decoder, called again with the longer stream.
        part: `pixels` have so many times fewer rows than the stream: a block of 8 has 8 / part.

    >>> film = np.arange(256, dtype=np.uint8).reshape(16, 16)
    >>> data = imagecodecs.jpeg8_encode(film)
    >>> jpeg_is_cut(data, film, jpeg_header(data), imagecodecs.jpeg8_decode)
    False
    """
    side = max(4 // part, 1)
    corner = pixels[-side:, -side:].astype(np.int64)
    fills = {1 << (stream.precision - 1), 1 << (pixels.dtype.itemsize * 8 - 1)}
    is_suspect = any((np.abs(corner - grey) <= 1).all() for grey in fills)
    if not is_suspect:
        return False
    end = data.rfind(_END_OF_IMAGE)
    try:
        again = decode(data[:end] + b"\x5a\xa5" * 4096 + _END_OF_IMAGE)
    except Exception:  # the junk made the stream illegal, so it was read
        return True
    return not np.array_equal(again, pixels)
