"""NIfTI volumes and slices, orientation and spacing kept.

nibabel parses the header; the voxels are read here, because nibabel stops at the last voxel and so
never sees the checksum at the end of a gzip stream, and trusts the size that a header declares.
Axes stay those of the file, `(i, j, k)`; nothing is reoriented.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, located
from medtl.io.cost import (
    COPY_AGAIN,
    DEFAULT_LIMITS,
    Limits,
    check_declared,
    check_inflation,
    check_regular,
    name_of,
)
from medtl.io.gunzip import Gunzip
from medtl.types import FloatArray, Image

_GZIP = b"\x1f\x8b"
_HEADER_BYTES = {348: 1, 540: 2}
"""sizeof_hdr -> version of NIfTI."""

_AFFINE_TOLERANCE_MM = 1e-3
"""Difference of sform and qform beyond which they contradict each other."""

_QUATERNION_EXCESS = 1e-6
"""Excess over length 1 that rounding to float32 gives a quaternion."""

_FARTHEST_MM = 1e9
"""No scanner has a voxel or an origin of this size: such an affine is damaged."""

_MILLIMETRES = {1: 1000.0, 3: 1e-3}
"""Spatial code of xyzt_units (metre, micron) -> millimetres; every other code counts as mm."""

_CHUNK_BYTES = 1 << 20
_EXTENSION_BYTES = 4
"""Between a header and its voxels in one file: whether extensions follow (nifti1.h)."""

_MOST_SURPLUS_BYTES = 16 << 20
"""Bytes behind the last voxel of a gzip stream that are passed over (or as many as there are)."""


def looks_like_nifti(head: bytes) -> bool:
    """Return whether bytes begin like a NIfTI header, of version 1 or 2, alone or with an .img.

    Args:
        head: At least the first 352 bytes of the (unzipped) file, if it has as many.

    >>> import nibabel
    >>> looks_like_nifti(nibabel.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)).to_bytes())
    True
    >>> looks_like_nifti(b"DICM")
    False
    """
    return _version(head) != 0


def _version(head: bytes) -> int:
    """Return 1 or 2, or 0 for bytes that are no NIfTI header."""
    if len(head) < 348:
        return 0
    for order in "<>":
        version = _HEADER_BYTES.get(struct.unpack(f"{order}i", head[:4])[0], 0)
        if version == 1 and head[344:348] in (b"n+1\0", b"ni1\0"):
            return 1
        if version == 2 and head[4:8] in (b"n+2\0", b"ni2\0"):
            return 2
    return 0


def read_nifti(
    path: str | PathLike[str],
    *,
    root: str | PathLike[str] | None = None,
    frame: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Return a NIfTI file (.nii, .nii.gz, or .hdr with its .img) as an image.

    Args:
        path: The file, or the .hdr of a pair.
        root: Folder that messages name the file from.
        frame: Number from 0 of one slice of the last spatial axis, for 2D studies.
        limits: What the file may cost.

    Returns:
        `(C, i, j, k)`, or `(C, i, j)` for one slice or a 2D file: C is 1, the fourth dimension, or
        3 for RGB voxels. `spacing` in mm per axis; `affine` to RAS+ mm, of the slice's own origin
        when a slice is taken; both unchanged in orientation.

    Raises:
        ImageError: Not NIfTI, truncated, of a wrong checksum, complex, or over the limits.

    >>> import nibabel
    >>> voxels = np.zeros((4, 5, 6), np.int16)
    >>> nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0])), "brain.nii.gz")
    >>> brain = read_nifti("brain.nii.gz")
    >>> brain.array.shape, brain.spacing
    ((1, 4, 5, 6), (2.0, 2.0, 5.0))
    """
    path = Path(path)
    flags: list[str] = []
    with located(name_of(path, root)):
        raw, header = _stored(path, flags, limits)
        return _assemble(raw, header, frame, flags)


def _stored(path: Path, flags: list[str], limits: Limits) -> tuple[NDArray[Any], Any]:
    """Return the stored voxels `(i, j, k, t...)` and the header."""
    size = check_regular(path)
    try:
        with _opened(path, flags) as (source, packed):
            header = _header(source, flags)
            data_path = _pair(path, header)
            if data_path is None:
                return _voxels(source, header, packed, size, limits, flags), header
        size = check_regular(data_path)
        with _opened(data_path, flags) as (source, packed):
            return _voxels(source, header, packed, size, limits, flags), header
    except (EOFError, zlib.error) as fault:
        cause = "truncated" if isinstance(fault, EOFError) else "corrupt (its checksum is wrong)"
        raise ImageError(f"the gzip stream is {cause}", fix=COPY_AGAIN) from None
    except OSError as fault:
        raise ImageError(f"the file cannot be read: {fault.strerror}") from None


@contextmanager
def _opened(path: Path, flags: list[str]) -> Iterator[tuple[BinaryIO, bool]]:
    """Open a file, through gzip if its bytes say so; the second value says whether they do."""
    with path.open("rb") as source:
        packed = source.read(2) == _GZIP
        source.seek(0)
        if packed:
            if path.suffix.lower() != ".gz":
                flags.append("gzip_compressed_but_not_named_gz")
            yield io.BufferedReader(Gunzip(source), _CHUNK_BYTES), True
            return
        if path.suffix == ".gz":
            flags.append("named_gz_but_not_gzip_compressed")
        yield source, False


def _header(source: BinaryIO, flags: list[str]) -> Any:
    """Return the header as nibabel parses it; the source is left behind it."""
    import nibabel

    head = source.read(348)
    version = _version(head)
    if version == 0:
        raise ImageError("not a NIfTI file", expected="a header of NIfTI-1 or NIfTI-2")
    kind: Any = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
    head += source.read(540 - 348) if version == 2 else b""
    try:
        header = _repaired(kind(head, check=False), flags)
        header.get_data_dtype(), header.get_data_shape(), header.get_best_affine()
        header.get_slope_inter(), int(header.get_data_offset())
    except Exception as fault:  # nibabel raises what a broken header leads it into
        raise ImageError(
            f"the NIfTI header is broken ({type(fault).__name__}: {str(fault)[:120]})"
        ) from None
    return header


def _repaired(header: Any, flags: list[str]) -> Any:
    """The header with what ITK-SNAP and others write wrongly and every reader understands.

    Reference:
        nifti1.h: pixdim[0] (qfac) is 1 or -1, "if it is 0, treat it as 1"; grid sizes are positive.
    """
    sizes = header["pixdim"]
    if sizes[0] == 0:
        sizes[0] = 1.0
        flags.append("qfac_zero_read_as_one")
    if (sizes[1:4] < 0).any():
        sizes[1:4] = np.abs(sizes[1:4])
        flags.append("negative_pixdim_made_positive")
    if int(header["bitpix"]) != 8 * header.get_data_dtype().itemsize:
        flags.append("bitpix_contradicts_datatype")
    header.quaternion_threshold = -_QUATERNION_EXCESS
    return header


def _pair(path: Path, header: Any) -> Path | None:
    """Return the .img file of a .hdr, None when header and voxels are in one file."""
    if bytes(header["magic"]).rstrip(b"\0").startswith(b"n+"):
        return None
    name = path.name.removesuffix(".gz").removesuffix(".hdr")
    for candidate in (path.with_name(f"{name}.img"), path.with_name(f"{name}.img.gz")):
        if candidate.is_file():
            return candidate
    raise ImageError("the .img file of this .hdr is missing", fix=COPY_AGAIN)


def _voxels(
    source: BinaryIO, header: Any, packed: bool, size: int, limits: Limits, flags: list[str]
) -> NDArray[Any]:
    """Return the stored voxels `(i, j, k, t...)`, the stream read to its end.

    Args:
        source: Positioned behind the header, or at the start of an .img file.
        header: The header.
        packed: The source is a gzip stream, so only reading tells its size.
        size: Bytes of the file on disk.
        limits: What the file may cost.
        flags: Learns of contradictions between the header and the bytes.
    """
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    kind = header.get_data_dtype()
    if kind.kind == "c":
        raise ImageError("the voxels are complex numbers", expected="real numbers")
    if kind.names is None and (kind.kind not in "biuf" or not kind.itemsize):
        raise ImageError("the voxels are of no known type", expected="numbers")
    if not 2 <= len(shape) <= 4:
        raise ImageError(f"the image has {len(shape)} dimensions", expected="2, 3 or 4")
    colours = len(kind.names or (None,))
    planes = (shape[3] if len(shape) == 4 else 1) * colours
    check_declared(shape[:3], planes, kind.itemsize // colours, limits=limits)
    is_single = bytes(header["magic"]).startswith(b"n+")
    offset = int(header.get_data_offset())
    if is_single and offset < int(header["sizeof_hdr"]) + _EXTENSION_BYTES:
        raise ImageError(
            f"the voxels are declared to start inside the header, at byte {offset}",
            expected=f"at least {int(header['sizeof_hdr']) + _EXTENSION_BYTES} (vox_offset)",
            fix=COPY_AGAIN,
        )
    wanted = math.prod(shape) * kind.itemsize
    if packed:
        check_inflation(offset + wanted, size, limits=limits)
    elif size < offset + wanted:
        raise _short(size - offset, wanted)
    _skip(source, offset - source.tell())
    data = source.read(wanted)
    if len(data) < wanted:
        raise _short(len(data), wanted)
    surplus = _drain(source, wanted, size, limits) if packed else len(source.read(1))
    if surplus:
        flags.append("voxel_data_longer_than_declared_size")
    return np.frombuffer(data, kind).reshape(shape, order="F")


def _short(actual: int, wanted: int) -> ImageError:
    """Return the error for a file with fewer voxels than its header declares."""
    return ImageError(
        f"the file is truncated: {max(actual, 0)} bytes of voxels",
        expected=f"{wanted} bytes",
        fix=COPY_AGAIN,
    )


def _skip(source: BinaryIO, count: int) -> None:
    """Read over header extensions."""
    while count > 0:
        chunk = source.read(min(count, _CHUNK_BYTES))
        if not chunk:
            raise _short(0, count)
        count -= len(chunk)


def _drain(source: BinaryIO, wanted: int, size: int, limits: Limits) -> int:
    """Read a gzip stream to its end, where its checksum stands; return the bytes passed over."""
    surplus, most = 0, max(wanted, min(_MOST_SURPLUS_BYTES, limits.inflate_free_bytes))
    while chunk := source.read(_CHUNK_BYTES):
        surplus += len(chunk)
        if surplus > most:
            raise ImageError(
                f"a gzip bomb: {size} compressed bytes inflate to {surplus} bytes or more behind "
                f"the last voxel, beyond the limit",
                expected=f"{wanted} bytes of voxels, as the header declares",
                fix=COPY_AGAIN,
            )
    return surplus


def _assemble(raw: NDArray[Any], header: Any, frame: int | None, flags: list[str]) -> Image:
    """Return the image: one slice if asked, channels first, scaled, with its geometry."""
    notes = ["decoded NIfTI"]
    affine, spacing, odd = _geometry(header, min(raw.ndim, 3))
    flags += odd
    has_channels = raw.ndim == 4
    if frame is not None:
        slices = raw.shape[2] if raw.ndim > 2 else 1
        if not 0 <= frame < slices:
            raise ImageError(f"slice {frame} is asked for", expected=f"0 to {slices - 1}")
        notes.append(f"took slice {frame} of {slices}")
        raw = raw[:, :, frame] if raw.ndim > 2 else raw
        spacing = spacing[:2] if spacing else None
        if affine is not None:
            affine[:, 3] += affine[:, 2] * frame
    if raw.dtype.names is not None:
        flags.append("rgb_voxels")
        channels = np.stack([raw[name] for name in raw.dtype.names[:3]])
    elif has_channels:
        flags.append("fourth_dimension_as_channels")
        channels = np.moveaxis(raw, -1, 0)
    else:
        channels = raw[None]
    return Image(
        _scaled(channels, header, notes),
        spacing,
        affine,
        notes=tuple(notes),
        flags=tuple(flags),
        header={"format": "NIfTI", "data_type": str(header.get_value_label("datatype"))},
    )


def _scaled(channels: NDArray[Any], header: Any, notes: list[str]) -> NDArray[np.float32]:
    """Return float32 values after slope and intercept; slope 0 means none (NIfTI-1, scl_slope)."""
    slope, inter = header.get_slope_inter()
    is_scaled = slope is not None and (slope, inter) != (1.0, 0.0)
    # Integers of up to 16 bits are exact in float32, wider values are scaled before they narrow.
    kind = np.float32 if not is_scaled or channels.dtype.itemsize <= 2 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is counted by `read_image`
        values: NDArray[Any] = np.array(channels, kind, order="C")
        if is_scaled:
            notes.append("slope and intercept applied")
            values *= slope
            values += inter
        return values.astype(np.float32, copy=False)


def _geometry(
    header: Any, axes: int
) -> tuple[FloatArray | None, tuple[float, ...] | None, list[str]]:
    """Return the affine to RAS+ mm, the spacing in mm of the first `axes` axes, and flags.

    Reference:
        NIfTI-1 standard, methods 2 (qform) and 3 (sform); the sform goes first, as in nibabel.
    """
    flags: list[str] = []
    scale = _MILLIMETRES.get(int(header["xyzt_units"]) & 0x07, 1.0)
    if scale != 1.0:
        flags.append("spacing_converted_to_mm")
    known = [
        form
        for form in (_form(header, "sform", flags), _form(header, "qform", flags))
        if form is not None
    ]
    if not known:
        flags.append("orientation_unknown_no_usable_sform_or_qform")
    if len(known) == 2 and np.abs(known[0] - known[1]).max() > _AFFINE_TOLERANCE_MM:
        flags.append("sform_qform_conflict")
    affine = known[0].copy() if known else None
    if affine is not None:
        affine[:3] *= scale
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
    else:
        sizes = np.array([abs(float(zoom)) for zoom in header.get_zooms()[:3]]) * scale
    if not np.isfinite(sizes).all() or (sizes[:axes] <= 0).any():
        return None, None, [*flags, "no_spacing"]
    return affine, tuple(float(f"{size:.6g}") for size in sizes[:axes]), flags


def _form(header: Any, name: str, flags: list[str]) -> FloatArray | None:
    """Return the sform or qform if its code is set and it is invertible."""
    try:
        matrix, code = getattr(header, f"get_{name}")(coded=True)
    except Exception:  # a quaternion longer than 1 makes nibabel raise
        matrix, code = None, 1
    if not code:
        return None
    usable = matrix is not None and np.abs(matrix).max() < _FARTHEST_MM  # also False for NaN
    if not usable or abs(np.linalg.det(matrix)) < 1e-12:
        flags.append(f"{name}_affine_singular")
        return None
    return np.array(matrix, np.float64)
