"""Limits of what a file may ask for, checked on what it declares first and on what it holds second.

A file from outside can claim any size, hide a bomb in a compressed stream, or be no file at all
(a named pipe, a device). Every reader of this package asks here before it allocates.
"""

from __future__ import annotations

import io
import math
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Annotated, BinaryIO

from annotated_types import Ge

from medtl.errors import ImageError
from medtl.types import Count

COPY_AGAIN = "Copy the file again from its source."
"""Fix for a file that is cut or corrupt."""

_CHUNK_BYTES = 1 << 20
"""Compressed streams are inflated in steps of this size, so a bomb is seen before it is large."""


@dataclass(frozen=True)
class Limits:
    """The cost allowed to one image file. Every limit can be raised by the caller.

    Attributes:
        decoded_bytes: Bytes of the decoded float32 array, and of the decoded stored values.
        pixels_per_frame: Rows times columns of one frame or slice.
        inflate_ratio: Inflated over compressed bytes of a gzip or deflate stream. It is asked only
            of streams that inflate to more than `inflate_free_bytes`: label maps of zeros are
            honestly several hundred times smaller than their voxels.
        inflate_free_bytes: See `inflate_ratio`.
        sequence_depth: Levels of DICOM sequences inside sequences.
    """

    decoded_bytes: Count = 1 << 30
    pixels_per_frame: Count = 64_000_000
    inflate_ratio: Annotated[float, Ge(1)] = 100.0
    inflate_free_bytes: Count = 256 << 20
    sequence_depth: Count = 32


DEFAULT_LIMITS = Limits()


def limits_beside(shape: Sequence[int]) -> Limits:
    """Return the limits of a mask: the usual ones, or what its image has been allowed to cost.

    Args:
        shape: `(C, *S)` of the image's float32 array.

    >>> limits_beside((1, 1000, 1000, 1000)).decoded_bytes  # more than the usual 1 GiB
    4000000000
    """
    spent = 4 * math.prod(shape)
    usual = DEFAULT_LIMITS
    return replace(
        usual,
        decoded_bytes=max(usual.decoded_bytes, spent),
        pixels_per_frame=max(usual.pixels_per_frame, math.prod(sorted(shape[1:])[-2:])),
        inflate_free_bytes=max(usual.inflate_free_bytes, spent),
    )


def _raise_it(limit: str) -> str:
    """Return the fix for an honest file above a limit."""
    return f"If the file is to be trusted, raise data.limits.{limit} in the recipe"


def name_of(path: str | PathLike[str], root: str | PathLike[str] | None) -> str:
    """Return how messages name `path`: relative to `root`, or its base name. Never absolute.

    >>> name_of("/data/chest/a.dcm", "/data"), name_of("/data/chest/a.dcm", None)
    ('chest/a.dcm', 'a.dcm')
    """
    path = Path(path)
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.name


def check_regular(path: Path) -> int:
    """Return the size in bytes of a regular file; a symbolic link to one counts.

    Raises:
        ImageError: The path is missing, empty, a folder, a pipe or a device, or not permitted.

    >>> _ = Path("film.png").write_bytes(b"12")
    >>> check_regular(Path("film.png"))
    2
    >>> check_regular(Path("none.png"))
    Traceback (most recent call last):
    medtl.errors.ImageError: the file cannot be opened: No such file or directory. Check ...
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or type(fault).__name__
        raise ImageError(
            f"the file cannot be opened: {reason}",
            fix="Check the path in the manifest and the permissions of the file.",
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file", expected="an image file")
    if status.st_size == 0:
        raise ImageError(
            "the file is empty (zero bytes), not a DICOM, PNG, JPEG, TIFF or NIfTI file",
            fix=COPY_AGAIN,
        )
    return status.st_size


def check_declared(
    spatial: Sequence[int], planes: int, bytes_per_value: int, *, limits: Limits
) -> None:
    """Refuse a size that the header declares, before anything is allocated for it.

    Args:
        spatial: Voxels per spatial axis of the part that is decoded, in pixels.
        planes: Channels, samples per pixel or time points of it.
        bytes_per_value: Bytes of one stored value; less than 4 counts as 4, the float32 result.
        limits: The limits to hold.

    Raises:
        ImageError: A dimension is not positive, or a limit is passed.

    >>> check_declared((2500, 2048), 1, 2, limits=DEFAULT_LIMITS)
    >>> check_declared((0, 2048), 1, 2, limits=DEFAULT_LIMITS)
    Traceback (most recent call last):
    medtl.errors.ImageError: the declared size is 0 x 2048; expected rows and columns above zero.
    """
    size = " x ".join(str(n) for n in spatial)
    if any(n <= 0 for n in spatial) or planes <= 0:
        raise ImageError(f"the declared size is {size}", expected="rows and columns above zero")
    # The two largest axes bound every frame of a volume, whichever way it is stored.
    pixels = math.prod(sorted(spatial)[-2:])
    if pixels > limits.pixels_per_frame:
        raise ImageError(
            f"the declared size {size} has {pixels} pixels in a frame",
            expected=f"at most the limit of {limits.pixels_per_frame}",
            fix=_raise_it("pixels_per_frame"),
        )
    declared = math.prod(spatial) * planes * max(bytes_per_value, 4)
    if declared > limits.decoded_bytes:
        raise ImageError(
            f"the declared size {size} with {planes} value(s) each needs {declared} bytes",
            expected=f"at most the limit of {limits.decoded_bytes}",
            fix=_raise_it("decoded_bytes"),
        )


def check_inflation(inflated: int, compressed: int, *, limits: Limits) -> None:
    """Refuse a compressed stream that inflates, or says it will, beyond the limits (bytes).

    >>> check_inflation(5000, 1000, limits=DEFAULT_LIMITS)
    >>> check_inflation(1 << 29, 1000, limits=DEFAULT_LIMITS)
    Traceback (most recent call last):
    medtl.errors.ImageError: 1000 compressed bytes inflate to 536870912 or more (536870 times), ...
    """
    too_dense = inflated > limits.inflate_ratio * max(compressed, 1)
    if inflated > limits.decoded_bytes or (inflated > limits.inflate_free_bytes and too_dense):
        raise ImageError(
            f"{compressed} compressed bytes inflate to {inflated} or more "
            f"({inflated // max(compressed, 1)} times), as in a decompression bomb",
            expected=f"a size within the limits ({limits.decoded_bytes} bytes, "
            f"{limits.inflate_ratio:g} times)",
            fix=_raise_it("inflate_ratio or decoded_bytes"),
        )


def inflate(source: BinaryIO, compressed: int, *, limits: Limits) -> io.BytesIO:
    """Return, as a file, the bytes of a raw deflate stream (RFC 1951) of `compressed` bytes.

    Raises:
        ImageError: The stream is corrupt or ends early, or it inflates beyond the limits.

    >>> deflated = zlib.compress(b"header and pixels", wbits=-zlib.MAX_WBITS)
    >>> inflate(io.BytesIO(deflated), len(deflated), limits=DEFAULT_LIMITS).read()
    b'header and pixels'
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = io.BytesIO()  # a bytearray would be copied once more at the end
    try:
        while not inflater.eof and (chunk := source.read(_CHUNK_BYTES)):
            while chunk and not inflater.eof:
                inflated.write(inflater.decompress(chunk, _CHUNK_BYTES))
                check_inflation(inflated.tell(), compressed, limits=limits)
                chunk = inflater.unconsumed_tail
    except zlib.error:
        raise ImageError("the deflated data set is corrupt") from None
    if not inflater.eof:
        raise ImageError(
            "the deflated data set is truncated: its stream has no end", fix=COPY_AGAIN
        )
    inflated.seek(0)
    return inflated
