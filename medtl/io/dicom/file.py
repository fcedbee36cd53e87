"""The outside of a DICOM file: from bytes to a parsed header and the place of its pixel data.

Nothing here touches pixels. The header is parsed by pydicom up to the pixel data element, whose
own header is read by hand, so that a length of 4 GB costs nothing. A data set is only ever read:
no function of this package assigns to one.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medtl.errors import ImageError, located
from medtl.io.cost import DEFAULT_LIMITS, Limits, check_regular, inflate, name_of

UNDEFINED_LENGTH = 0xFFFFFFFF
"""Length of an encapsulated pixel data element (PS3.5 A.4)."""

PIXEL_TAGS = {0x7FE00008: "float32", 0x7FE00009: "float64", 0x7FE00010: "integer"}
"""Float Pixel Data, Double Float Pixel Data, Pixel Data (PS3.3 C.7.6.24, C.7.6.25, C.7.6.3)."""

_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UC", b"UN", b"UR", b"UT")
"""Explicit VRs whose length has four bytes (PS3.5 7.1.2)."""

_LARGEST_ELEMENT_BYTES = 16 << 20
"""Larger elements of a header are passed over: none that is asked for can be so large."""

_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM "
    b"UC UI UL UN UR US UT UV".split()
)


@dataclass(frozen=True)
class PixelElement:
    """Place of the pixel data: `length` declared and `available` actual bytes from `offset` on."""

    source: BinaryIO
    kind: str
    vr: bytes
    offset: int
    length: int
    available: int
    little_endian: bool


@dataclass(frozen=True)
class DicomFile:
    """A parsed header, its transfer syntax UID, the pixel data's place and the file's oddities."""

    dataset: Dataset
    transfer_syntax: str
    pixels: PixelElement | None
    flags: tuple[str, ...]


def looks_like_dicom(head: bytes) -> bool:
    r"""Return whether bytes begin like DICOM: the DICM prefix, or a first element without preamble.

    Args:
        head: At least the first 132 bytes of the file, if it has as many.

    Reference:
        PS3.10 7.1; without preamble: ACR-NEMA and files that lost their first 132 bytes.

    >>> looks_like_dicom(bytes(128) + b"DICM"), looks_like_dicom(b"\x89PNG")
    (True, False)
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    group, element, length = struct.unpack("<HHI", head[:8])
    if head[4:6] in _VRS:
        return group in (0x0002, 0x0008, 0x0200, 0x0800)  # either byte order
    return bool(group == 0x0008 and element <= 0x0070 and length <= 256)


class _Silence:
    """Keeps warnings from being shown while any thread reads.

    `warnings.catch_warnings` alone is not safe with threads: the one that enters last and leaves
    last would restore the other's filters for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._readers += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._filters.__exit__(None, None, None)


_SILENCE = _Silence()


@contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """Collect what pydicom warns about instead of showing it: its messages can quote tag values.

    pydicom logs every warning that it issues, so its log, filtered by thread, has them all.

    >>> with heard_warnings() as heard:
    ...     logging.getLogger("pydicom").warning("a value that must not be shown")
    ...
    >>> len(heard)
    1
    """
    heard: list[str] = []
    logger = logging.getLogger("pydicom")
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True  # another reader's filter keeps it
        heard.append(record.getMessage())
        return False

    logger.addFilter(keep)
    try:
        with _SILENCE:
            yield heard
    finally:
        logger.removeFilter(keep)


@contextmanager
def open_dicom(
    path: str | PathLike[str],
    limits: Limits = DEFAULT_LIMITS,
    *,
    root: str | PathLike[str] | None = None,
) -> Iterator[DicomFile]:
    """Open a DICOM file and parse its header; the file is closed when the block ends.

    The block's own errors name the file too.

    Args:
        path: The file.
        limits: What it may cost.
        root: Folder that messages name it from.

    Raises:
        ImageError: It is no regular file, no DICOM, or its header cannot be parsed.

    >>> from pydicom.data import get_testdata_file
    >>> with open_dicom(get_testdata_file("CT_small.dcm")) as file:
    ...     file.dataset.Modality, file.pixels.length
    ...
    ('CT', 32768)
    """
    path = Path(path)
    with located(name_of(path, root)):
        size = check_regular(path)
        try:
            source = path.open("rb")
        except OSError as fault:
            raise ImageError(f"the file cannot be opened: {fault.strerror}") from None
        with source:
            yield _parse(source, size, limits)


def _parse(source: BinaryIO, size: int, limits: Limits) -> DicomFile:
    """Parse the file meta information and the header; locate the pixel data."""
    head = source.read(132)
    if not looks_like_dicom(head):
        raise ImageError("not a DICOM file", expected="the prefix DICM at byte 128")
    flags = [] if head[128:] == b"DICM" else ["no_preamble"]
    source.seek(132 if not flags else 0)
    try:
        meta = read_dataset(
            source,
            False,
            True,
            stop_when=lambda tag, *_: tag >> 16 != 0x0002,
            defer_size=_LARGEST_ELEMENT_BYTES,
        )
        syntax = str(meta.get("TransferSyntaxUID") or "")
        if not syntax:
            syntax = _guess_syntax(source)
            flags.append("no_file_meta")
        if syntax == DeflatedExplicitVRLittleEndian:
            source = inflate(source, size - source.tell(), limits=limits)
            size = source.seek(0, io.SEEK_END)
            source.seek(0)
        dataset = read_dataset(
            source,
            syntax == ImplicitVRLittleEndian,
            syntax != ExplicitVRBigEndian,
            stop_when=lambda tag, *_: tag in PIXEL_TAGS,
            defer_size=_LARGEST_ELEMENT_BYTES,
        )
    except ImageError:
        raise
    except RecursionError:
        raise _too_deep(limits) from None
    except Exception as fault:  # pydicom raises whatever the bytes lead it into
        # Not chained: the parser's own message may quote the value of a tag.
        raise ImageError(
            f"the DICOM header cannot be parsed ({type(fault).__name__}): "
            "the file is corrupt or truncated"
        ) from None
    if _depth(dataset, limits.sequence_depth) > limits.sequence_depth:
        raise _too_deep(limits)
    return DicomFile(dataset, syntax, _locate_pixels(source, size, dataset), tuple(flags))


def _guess_syntax(source: BinaryIO) -> str:
    """Return the uncompressed transfer syntax that the next element is written in."""
    head = source.read(6)
    source.seek(-len(head), io.SEEK_CUR)
    if head[4:6] not in _VRS:
        return str(ImplicitVRLittleEndian)
    # Group 0008 in big endian reads as 0800 in little endian.
    return str(ExplicitVRBigEndian if head[0] == 0 else ExplicitVRLittleEndian)


def _too_deep(limits: Limits) -> ImageError:
    """Return the error for sequences inside sequences without end."""
    return ImageError(
        "sequences are nested too deeply", expected=f"at most {limits.sequence_depth} levels"
    )


def _depth(dataset: Dataset, most: int) -> int:
    """Return the levels of sequences already parsed below `dataset`, stopping above `most`.

    Sequences of defined length are parsed only when asked for, so they cannot pile up.
    """
    if most < 0:
        return 0
    below = (
        1 + _depth(item, most - 1)
        for element in dataset.values()
        if isinstance(element, DataElement) and element.VR == "SQ"
        for item in element.value
    )
    return max(below, default=0)


def _locate_pixels(source: BinaryIO, size: int, dataset: Dataset) -> PixelElement | None:
    """Read the header of the element at which parsing stopped; None if it holds no pixels."""
    is_implicit, is_little = dataset.original_encoding
    order = "<" if is_little else ">"
    head = source.read(8)
    if len(head) < 8:
        return None
    group, element = struct.unpack(f"{order}HH", head[:4])
    kind = PIXEL_TAGS.get(group << 16 | element)
    if kind is None:
        return None
    vr = b"" if is_implicit else head[4:6]
    if is_implicit:
        length = struct.unpack(f"{order}I", head[4:])[0]
    elif vr in _LONG_VRS:
        length = struct.unpack(f"{order}I", source.read(4).ljust(4, b"\0"))[0]
    else:
        length = struct.unpack(f"{order}H", head[6:])[0]
    offset = source.tell()
    return PixelElement(source, kind, vr, offset, length, size - offset, bool(is_little))
