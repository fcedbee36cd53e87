"""One door for images: the format is told by the bytes, never by the name."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, located
from medtl.io.cost import DEFAULT_LIMITS, Limits, check_regular, name_of
from medtl.io.gunzip import Gunzip
from medtl.io.remote import is_remote, local_copy, shown_name
from medtl.storage.content import HEAD_BYTES, content_of
from medtl.types import Image, is_plainly_finite

Format = Literal["DICOM", "NIfTI", "PNG", "JPEG", "TIFF"]

_RASTERS = ("PNG", "JPEG", "TIFF")
"""What `read_raster` reads, in the words of `content_of`."""

_NAMED = {
    **dict.fromkeys((".dcm", ".dicom", ".ima"), "DICOM"),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".nii", ".hdr"), "NIfTI"),
    **dict.fromkeys((".bmp", ".gif", ".webp", ".csv", ".txt", ".zip", ".pdf"), "none of these"),
    ".png": "PNG",
}
"""Ending -> the format that it promises. An ending that is not here promises nothing."""

_GLANCE_BYTES = 64 << 20
"""Of a compressed file that is no image, so much is inflated to tell a bomb by."""

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601), the ones DICOM's YBR uses."""

_SMALL_PIXELS = 16
"""An image with fewer rows or columns is flagged: resizing would invent most of it."""

_EXTREME_ASPECT = 10.0
"""An image longer than this many times its width is flagged."""


def read_image(
    path: str | PathLike[str],
    *,
    root: str | PathLike[str] | None = None,
    voi: bool = False,
    color: Literal["grey", "rgb", "keep"] = "grey",
    frame: int | None = None,
    at_least: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Return one image file or DICOM series in real-world units, with the record of every step.

    Args:
        path: A DICOM, PNG, JPEG, TIFF or NIfTI file, whatever its name, or the folder of one DICOM
            series; or the address of a file (`medtl.io.remote`).
        root: Folder that messages name the file from; else its base name is used.
        voi: DICOM only: apply VOI LUT or window; values are then 0 (black) to 1 (white).
        color: "grey" turns colour into luma, "rgb" repeats grey in three channels, "keep" neither.
        frame: Number from 0 of one frame, page, slice of the last NIfTI axis, or slice of a series
            by position; gives a 2D image.
        at_least: Let JPEG 2000 of a single DICOM file, and JPEG files, be decoded at the coarsest
            resolution they offer whose longer side has so many pixels; another picture than the
            whole one shrunk. Flagged `reduced_resolution`.
        limits: What the file may cost.

    Returns:
        `(C, rows, columns)` or `(C, *S)` for volumes, float32, always finite: voxels that are not
        are set to the smallest finite one, counted in a note and flagged.

    Raises:
        ImageError: Another format, or a file that is corrupt, truncated or over the limits.

    >>> from pydicom.data import get_testdata_file
    >>> image = read_image(get_testdata_file("CT_small.dcm"))
    >>> image.modality, image.array.shape, image.spacing
    ('ct', (1, 128, 128), (0.661468, 0.661468))
    >>> read_image("none.dcm")
    Traceback (most recent call last):
    medtl.errors.ImageError: none.dcm: the file cannot be opened: No such file or ...
    """
    path = Path(path)
    remote = is_remote(path)
    with located(shown_name(path) if remote else name_of(path, root)):
        path = local_copy(path) if remote else path
        kind = "series" if path.is_dir() else _format_of(path)
        try:
            if kind == "series":
                from medtl.io.dicom.series import read_series

                image = read_series(path, root=root, voi=voi, frame=frame, limits=limits)
            elif kind == "DICOM":
                from medtl.io.dicom.image import read_dicom

                image = read_dicom(
                    path, root=root, voi=voi, frame=frame, at_least=at_least, limits=limits
                )
            elif kind == "NIfTI":
                from medtl.io.nifti import read_nifti

                image = read_nifti(path, root=root, frame=frame, limits=limits)
            else:
                from medtl.io.raster import read_raster

                image = read_raster(path, root=root, frame=frame, at_least=at_least, limits=limits)
            image = _flag_oddities(_to_color(_finite(image), color))
            return image if kind == "series" else _flag_other_ending(image, path, kind)
        except MemoryError:
            raise ImageError(
                "there is not enough memory to decode the file",
                fix="Read fewer files at once, or single frames.",
            ) from None


def _format_of(path: Path) -> Format:
    """Return the format that the first bytes of a file show."""
    from medtl.io.nifti import looks_like_nifti

    check_regular(path)
    try:
        with path.open("rb") as source:
            head = source.read(HEAD_BYTES)
            if head[:2] == b"\x1f\x8b":
                source.seek(0)
                inside = io.BufferedReader(Gunzip(source))
                head = inside.read(HEAD_BYTES)
                if looks_like_nifti(head):
                    return "NIfTI"
                raise _compressed(content_of(head), inside, path.stat().st_size)
    except (EOFError, zlib.error):
        raise ImageError("the gzip stream is truncated or corrupt") from None
    except OSError as fault:
        raise ImageError(f"the file cannot be opened: {fault.strerror}") from None
    content = content_of(head)
    if content in ("DICOM", *_RASTERS):
        return cast(Format, content)
    if looks_like_nifti(head):
        return "NIfTI"
    from medtl.io.dicom.file import looks_like_dicom  # a folder of PNG files waits for no pydicom

    if looks_like_dicom(head):
        return "DICOM"
    raise ImageError(
        "not an image of a known format" + (f": by its content it is {content}" if content else ""),
        expected="the bytes of a DICOM, PNG, JPEG, TIFF or NIfTI file",
        fix="Convert it, or leave it out",
    )


def _compressed(content: str, inside: BinaryIO, packed: int) -> ImageError:
    """Return the error for a gzip stream that holds no NIfTI; a bomb is called one."""
    inflated = sum(len(chunk) for chunk in _chunks(inside, _GLANCE_BYTES))
    if inflated >= _GLANCE_BYTES and inflated > DEFAULT_LIMITS.inflate_ratio * packed:
        return ImageError(
            f"a gzip bomb: {packed} compressed bytes inflate to {inflated} or more "
            f"({inflated // packed} times), beyond the limit",
            expected="an image",
            fix="Delete it",
        )
    return ImageError(
        f"the file is compressed with gzip{f', and holds {content}' if content else ''}",
        expected="a file as it is; of compressed ones NIfTI alone",
        fix="Unpack it: gunzip FILE",
    )


def _chunks(source: BinaryIO, most: int) -> Iterator[bytes]:
    """Yield the bytes of a stream, up to `most` of them."""
    while most > 0 and (chunk := source.read(min(most, 1 << 20))):
        most -= len(chunk)
        yield chunk


def _flag_other_ending(image: Image, path: Path, content: Format) -> Image:
    """Return the image with a word about an ending that promises another format."""
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    promised = _NAMED.get(suffix.lower(), content)
    if promised == content:
        return image
    note = f"the name ends in {suffix.lower()}, the content is {content}: read by its content"
    flag = f"content_is_{content}_not_as_its_ending_{suffix.lower()}_says"
    return replace(image, notes=(*image.notes, note), flags=(*image.flags, flag))


def _finite(image: Image) -> Image:
    """Return the image without NaN and infinite voxels: they become the smallest finite one."""
    array = image.array
    if is_plainly_finite(array):
        return image
    is_finite = np.isfinite(array)
    if is_finite.all():
        return image
    if not is_finite.any():
        raise ImageError("no voxel is finite (all are NaN or infinite)")
    nans = int(np.isnan(array).sum())
    infinite = int(array.size - is_finite.sum()) - nans
    flags = ["nan_voxels"] * bool(nans) + ["infinite_voxels"] * bool(infinite)
    floor = np.min(array, where=is_finite, initial=np.inf)
    note = f"{nans} NaN and {infinite} infinite voxel(s) set to the smallest finite value"
    return replace(
        image,
        array=np.where(is_finite, array, floor).astype(np.float32),
        notes=(*image.notes, note),
        flags=(*image.flags, *flags),
    )


def _to_color(image: Image, color: str) -> Image:
    """Return the image with the channels asked for; several channels that are no RGB stay."""
    channels = len(image.array)
    is_rgb = channels == 3 and "fourth_dimension_as_channels" not in image.flags
    if color == "grey" and is_rgb:
        grey = _luma(image.array)[None]
        return replace(image, array=grey, notes=(*image.notes, "colour to grey (BT.601 luma)"))
    if color == "rgb" and channels == 1:
        repeated = np.repeat(image.array, 3, axis=0)
        return replace(image, array=repeated, notes=(*image.notes, "grey repeated in 3 channels"))
    return image


def _luma(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weighted sum of three channels, one temporary at a time."""
    grey: NDArray[np.float32] = rgb[0] * np.float32(_LUMA[0])
    for channel, weight in zip(rgb[1:], _LUMA[1:], strict=True):
        grey += channel * np.float32(weight)
    return grey


def _flag_oddities(image: Image) -> Image:
    """Return the image with flags for what no network should see unnoticed."""
    flags = list(image.flags)
    array, shape = image.array, image.array.shape[1:]
    # A coarse look first: nearly every image differs there, and the full look is skipped.
    first = array.flat[0]
    if (array.reshape(-1)[:: max(array.size // 64, 1)] == first).all() and (array == first).all():
        flags.append("constant_image")
    if len(shape) == 2:
        flags += ["small_image"] if min(shape) < _SMALL_PIXELS else []
        flags += ["extreme_aspect"] if max(shape) > _EXTREME_ASPECT * min(shape) else []
    return replace(image, flags=tuple(dict.fromkeys(flags)))
