"""PNG, JPEG and TIFF in stored units: 8 and 16 bits stay what they are, nothing is rescaled.

Pillow reads; only the three formats of the allow-list are ever offered to it, so a file cannot
choose a decoder that nobody expects. It has no 16-bit colour, which libpng (imagecodecs) reads.
"""

from __future__ import annotations

import io
import math
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from medtl.errors import ImageError, located
from medtl.io.codestream import jpeg_header, jpeg_is_cut
from medtl.io.cost import COPY_AGAIN, DEFAULT_LIMITS, Limits, check_declared, check_regular, name_of
from medtl.io.png import oversized_part
from medtl.io.tiff import is_tiff, read_deep_tiff
from medtl.types import Image

FORMATS = ("PNG", "JPEG", "TIFF")
"""Pillow formats that may be opened."""

_PNG_SLACK_BYTES = 1 << 12
"""Of a PNG that is larger than its pixels by no more, the parts are not looked at."""

_ORIENTATION = 0x0112
"""EXIF and TIFF tag Orientation."""

_PHOTOMETRIC = 262
"""TIFF tag PhotometricInterpretation; Pillow turns 1 and 8 bits round where it is 0."""

_UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""Orientation -> how `(R, C, ...)` is turned upright (TIFF 6.0 section 8; EXIF 2.3 4.6.4)."""

_USUAL_JPEG = (0xC0, 0xC1, 0xC2)
_JPEG_LS = 0xF7
"""Frame markers of baseline, extended and progressive JPEG, and of JPEG-LS (T.81 B.1.1.3)."""

_TO_RGB = {"P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}
"""Pillow modes whose numbers are no grey or RGB values, and what they are converted to."""


def read_raster(
    path: str | PathLike[str],
    *,
    root: str | PathLike[str] | None = None,
    frame: int | None = None,
    at_least: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Return a PNG, JPEG or TIFF file as an image in stored units.

    Args:
        path: The file.
        root: Folder that messages name the file from.
        frame: Page from 0 of a TIFF (or animated PNG) with several; required then.
        at_least: Let libjpeg decode a grey or RGB JPEG at the smallest of 1/2, 1/4 and 1/8 whose
            longer side has so many pixels. Flagged `reduced_resolution`.
        limits: What the file may cost.

    Returns:
        `(C, rows, columns)`, upright by its EXIF orientation. C is 1 or 3; an alpha channel is
        dropped, palettes are looked up, 1-bit images are 0 and 255. No spacing: the resolution
        that such files state is one of printing.

    Raises:
        ImageError: Not one of the three formats, truncated, corrupt, over the limits, or of
            several pages and none is asked for.

    >>> film = np.array([[0, 65535]], np.uint16)
    >>> Pillow.fromarray(film).save("film.png")
    >>> image = read_raster("film.png")
    >>> image.array, image.spacing, image.header["bits_allocated"]
    (array([[[    0., 65535.]]], dtype=float32), None, '16')
    """
    path = Path(path)
    notes: list[str] = []
    flags: list[str] = []
    with located(name_of(path, root)):
        kind, values = _decoded(path, frame, at_least, limits, notes, flags)
    header = {
        "format": "JPEG" if kind == "MPO" else kind,
        "rows": str(values.shape[0]),
        "columns": str(values.shape[1]),
        "bits_allocated": str(values.dtype.itemsize * 8),
    }
    planes = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
    return Image(
        np.ascontiguousarray(planes, np.float32),
        notes=(f"decoded {header['format']}", *notes),
        flags=tuple(flags),
        header=header,
    )


def _decoded(
    path: Path,
    frame: int | None,
    at_least: int | None,
    limits: Limits,
    notes: list[str],
    flags: list[str],
) -> tuple[str, NDArray[Any]]:
    """Return Pillow's name of the format, and the `(R, C)` or `(R, C, 3)` upright values."""
    size = check_regular(path)
    if size > limits.decoded_bytes:
        raise ImageError(
            f"the file has {size} bytes", expected=f"at most the limit of {limits.decoded_bytes}"
        )
    with path.open("rb") as source:
        head = source.read(4)
    if is_tiff(head):
        values, orientation = read_deep_tiff(path, frame, limits, notes, flags)
        if values is not None:
            if orientation in _UPRIGHT:
                values = _UPRIGHT[orientation](values)
                notes.append(f"turned upright from EXIF orientation {orientation}")
            return "TIFF", values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Pillow.DecompressionBombWarning)
        try:
            # An open file, not a path: Pillow 13 maps uncompressed TIFFs of a path into memory
            # with rows and columns swapped when their orientation turns them.
            with path.open("rb") as source, Pillow.open(source, formats=FORMATS) as picture:
                _choose_page(picture, frame)
                check_declared(picture.size[::-1], len(picture.getbands()), 4, limits=limits)
                _refuse_surplus(picture, path, size)
                part = _scale(picture, at_least, notes, flags)
                return str(picture.format), _pixels(picture, path, part, notes, flags)
        except ImageError:
            raise
        except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
            raise ImageError(
                "the declared size is that of a decompression bomb",
                expected=f"at most the limit of {limits.pixels_per_frame} pixels",
            ) from None
        except Exception as fault:  # Pillow's plugins raise what the bytes lead them into
            if bomb := oversized_part(path):
                raise bomb from None
            if unusual := _unusual_jpeg(path):
                raise unusual from None
            raise ImageError(
                f"the image is truncated, corrupt or of another format ({type(fault).__name__})",
                expected="a whole PNG, JPEG or TIFF file",
                fix=COPY_AGAIN,
            ) from None


def _unusual_jpeg(path: Path) -> ImageError | None:
    """Return the error for a whole JPEG of a kind that cameras do not write, None for others."""
    stream = jpeg_header(path.read_bytes())
    if stream is None or (stream.precision == 8 and stream.process in _USUAL_JPEG):
        return None
    kind = "JPEG-LS" if stream.process == _JPEG_LS else "JPEG"
    return ImageError(
        f"a {kind} of {stream.precision} bits (frame marker FF{stream.process:X})",
        expected="a JPEG of 8 bits, baseline or progressive",
        fix="Convert it to PNG or TIFF of 16 bits, or keep it in its DICOM file",
    )


def _pixels(
    picture: Pillow.Image, path: Path, part: int, notes: list[str], flags: list[str]
) -> NDArray[Any]:
    """Return `(R, C)` or `(R, C, 3)` upright stored values."""
    is_deep = _is_deep_colour(picture)
    before = picture.getexif().get(_ORIENTATION, 1)  # this loads a PNG, which forgets its tiles
    if is_deep:
        import imagecodecs

        values = np.asarray(imagecodecs.png_decode(path.read_bytes()))
        if values.shape[2] in (2, 4):
            flags.append("alpha_dropped")
            values = values[..., :-1]
        values = values[..., 0] if values.shape[2] == 1 else values
    else:
        picture.load()  # turns a TIFF upright, which changes its size
        values = _values(picture, notes, flags)
    if picture.format in ("JPEG", "MPO"):
        _refuse_cut_jpeg(path.read_bytes(), values, part)
    after = picture.getexif().get(_ORIENTATION, 1)  # Pillow turns TIFF itself while loading
    if before in _UPRIGHT:
        notes.append(f"turned upright from EXIF orientation {before}")
    return _UPRIGHT[after](values) if after in _UPRIGHT else values


def _refuse_surplus(picture: Pillow.Image, path: Path, size: int) -> None:
    """Raise for a PNG with more compressed pixels than its picture can have; few are so large."""
    raw = math.prod(picture.size) * 8  # bytes: at most four samples of 16 bits
    large = picture.format == "PNG" and size > raw + _PNG_SLACK_BYTES
    if large and (bomb := oversized_part(path, raw)):
        raise bomb


def _choose_page(picture: Pillow.Image, frame: int | None) -> None:
    """Go to the page that is asked for; several pages and no wish is an error."""
    # Counting the pages of a TIFF reads them all, and a small file can have millions.
    if frame is None:
        if picture.format != "MPO" and _has_page(picture, 1):
            raise ImageError(
                "the file holds several frames or pages", expected="one, or a frame number"
            )
        frame = 0
    if not _has_page(picture, frame):
        raise ImageError(f"frame {frame} is asked for", expected="one that is there")


def _scale(picture: Pillow.Image, at_least: int | None, notes: list[str], flags: list[str]) -> int:
    """Let libjpeg decode an eighth, a quarter or a half of the size; return 8, 4, 2 or 1."""
    if (
        at_least is None
        or picture.format not in ("JPEG", "MPO")
        or picture.mode not in ("L", "RGB")
    ):
        return 1
    sides = picture.size
    fits = (part for part in (8, 4, 2) if max(sides) >= part * at_least and min(sides) >= part)
    part = next(fits, 1)
    if part > 1:
        picture.draft(None, _drafted(picture, part))
        flags.append("reduced_resolution")
        notes.append(f"decoded at {picture.size[1]} x {picture.size[0]} pixels")
    return part


def _drafted(picture: Pillow.Image, part: int) -> tuple[int, int]:
    """The size to ask Pillow's `draft` for, which takes the largest part that is no smaller."""
    columns, rows = picture.size
    return columns // part, rows // part


def _has_page(picture: Pillow.Image, frame: int) -> bool:
    """Go to a page, and return whether it is there; the picture stays where it was if not."""
    if frame < 0 or (frame > 0 and picture.format == "MPO"):
        return False
    try:
        picture.seek(frame)
    except EOFError:
        return False
    return True


def _is_deep_colour(picture: Pillow.Image) -> bool:
    """Return whether a PNG has 16-bit colour or grey with alpha, which Pillow would cut to 8."""
    if picture.format != "PNG" or picture.mode not in ("RGB", "RGBA", "LA"):
        return False
    return any("16" in str(tile[3]) for tile in getattr(picture, "tile", []))


def _values(picture: Pillow.Image, notes: list[str], flags: list[str]) -> NDArray[Any]:
    """Return the pixels of a loaded picture; palette and print colours become RGB."""
    if picture.mode in _TO_RGB:
        notes.append(f"{picture.mode} converted to RGB")
        flags += ["cmyk_converted"] if picture.mode == "CMYK" else []
        picture = picture.convert(_TO_RGB[picture.mode])
    values = np.asarray(picture)
    if picture.format == "TIFF" and getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        notes.append("inverted white-is-zero")
    if picture.mode == "1":
        values = values.astype(np.uint8) * np.uint8(255)
        notes.append("1-bit values shown as 0 and 255")
    if picture.mode in ("LA", "RGBA", "La", "RGBa", "RGBX"):
        flags.append("alpha_dropped")
        values = values[..., :-1]
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


def _refuse_cut_jpeg(data: bytes, values: NDArray[Any], part: int) -> None:
    """Raise for a cut JPEG whose end marker was put back: Pillow fills it with grey silently."""
    stream = jpeg_header(data)
    if stream is None or stream.samples not in (1, 3):
        return

    def decode(longer: bytes) -> NDArray[Any]:
        with Pillow.open(io.BytesIO(longer), formats=("JPEG",)) as picture:
            picture.draft(None, _drafted(picture, part))
            return np.asarray(picture)

    if jpeg_is_cut(data, values, stream, decode, part=part):
        raise ImageError("the JPEG is truncated: it ends before its last row", fix=COPY_AGAIN)
