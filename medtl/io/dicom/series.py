"""One DICOM series as one volume: sorted by position, every doubt about its geometry refused.

The order of the slices is that of their positions along the normal of their plane; instance
numbers and file names say nothing about the patient. Axes of the array are `(slice, row, column)`,
as in a multi-frame file; the affine maps them to RAS+ mm.

What is refused, by name and with the numbers: two series, patients or frames of reference; slices
of several orientations, sizes, pixel spacings, units or kinds of pixel; a localizer among them; no
position; two slices at one position; a gap or irregular distances; a tilted (sheared) stack; a
slice that lies aside of the others; values that are rescaled in some slices and not in others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, located
from medtl.io.cost import DEFAULT_LIMITS, Limits, check_declared, name_of
from medtl.io.dicom.file import heard_warnings
from medtl.io.dicom.header import SPACING_TOLERANCE, affine_of, aside
from medtl.io.dicom.image import read_dicom
from medtl.io.dicom.slices import Slice, read_slices
from medtl.types import FloatArray, Image

SPACING_TOLERANCE_MM = 0.01
"""Difference of slice distances that positions written with two decimals have anyway."""

_SAME_PLACE_MM = 1e-3
"""Slices nearer to each other than this are at the same position."""

_DIRECTION_TOLERANCE = 1e-3
"""Difference of direction cosines (0.06 degrees) within one orientation."""

_ASIDE_PIXELS = 0.1
"""Pixels that a slice may lie aside of the line through the others."""

_SPACING_DIGITS = 4
"""Decimals of a pixel spacing in mm that are compared."""

_NOT_SLICES = frozenset({"DICOMDIR", "Thumbs.db"})
"""Files that lie beside images on discs and are no part of a series."""


@dataclass(frozen=True)
class _Stack:
    """The slices in the order of their positions, and the geometry they have together."""

    slices: tuple[Slice, ...]
    spacing: tuple[float, float, float]
    affine: FloatArray
    flags: tuple[str, ...]


def read_series(
    source: str | PathLike[str] | Sequence[Path],
    *,
    root: str | PathLike[str] | None = None,
    voi: bool = False,
    frame: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Return one DICOM series as a volume in real-world units.

    Args:
        source: The folder of the series (folders below it are not entered), its files, or one
            multi-frame file.
        root: Folder that messages name files from; else the base name is used.
        voi: Apply the window of the header, which must be the same in all slices.
        frame: Number from 0, in the order of positions, of one slice to read as a 2D image.
        limits: What the volume may cost.

    Returns:
        `(C, slices, rows, columns)` float32, spacing (between slices, rows, columns) in mm and
        the affine to RAS+. Rescale slope and intercept are applied slice by slice. Files of the
        folder that are no DICOM images are left out, counted in a note and flagged.

    Raises:
        ImageError: The files are not one series on a regular grid, or one cannot be read.

    Reference:
        PS3.3 C.7.6.2.1.1 (position and orientation, LPS), C.7.6.16 (functional groups).

    >>> from pydicom.data import get_testdata_file
    >>> volume = read_series([Path(get_testdata_file("CT_small.dcm"))])
    >>> volume.array.shape, volume.spacing
    ((1, 1, 128, 128), (5.0, 0.661468, 0.661468))
    """
    where, paths = _files(source, root)
    with located(where):
        if not paths:
            raise ImageError("the series has no files", expected="DICOM images")
        with heard_warnings():
            slices, skipped = read_slices(paths, root, limits)
        stack = _stack(slices)
        if voi:
            _require_one_window(stack.slices)
        size = (len(slices) if frame is None else 1, *stack.slices[0].size)
        check_declared(size, stack.slices[0].samples, 4, limits=limits)
        read = partial(read_dicom, root=root, voi=voi, limits=limits)
        image = _volume(stack, read) if frame is None else _one_slice(stack, frame, read)
    if not skipped:
        return image
    shown = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
    note = f"{len(skipped)} file(s) skipped, not a DICOM image: {shown}"
    flags = (*image.flags, "files_skipped_not_a_dicom_image")
    return replace(image, notes=(*image.notes, note), flags=flags)


def _files(
    source: str | PathLike[str] | Sequence[Path], root: str | PathLike[str] | None
) -> tuple[str, list[Path]]:
    """Return the name of the series in messages and its files, sorted."""
    if not isinstance(source, str | PathLike):
        paths = sorted(source)
        return name_of(paths[0].parent, root) if paths else "series", paths
    folder = Path(source)
    if not folder.is_dir():
        return name_of(folder, root), [folder]
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    counted = [path for path in files if path.name not in _NOT_SLICES and path.name[0] != "."]
    return name_of(folder, root), counted


# -------------------------------------------------------------------- geometry


def _stack(slices: Sequence[Slice]) -> _Stack:
    """Return the slices in order with their common geometry.

    Raises:
        ImageError: They are not one regular stack; the message says which rule is broken.
    """
    _require_one_source(slices)
    _require_positions(slices)
    turns = np.array([one.orientation for one in slices])
    apart = float(np.abs(turns - turns[0]).max())
    if apart > _DIRECTION_TOLERANCE:
        raise ImageError(
            f"the slices have several orientations, up to {apart:.3g} apart in a direction cosine",
            expected=f"one Image Orientation (0020,0037) within {_DIRECTION_TOLERANCE:g}",
            fix="Take the localizer or the other plane out of the folder",
        )
    across, down = turns[0, :3], turns[0, 3:]
    normal = np.cross(across, down)
    places = np.array([one.position for one in slices])
    order = np.argsort(places @ normal, kind="stable")
    ordered, places = tuple(slices[k] for k in order), places[order]
    between, flags = _distance(ordered, places, normal)
    uids = {one.ids[3] for one in slices}
    if slices[0].frame is None and "" not in uids and len(uids) < len(slices):
        flags += ("several_slices_under_one_sop_instance_uid",)
    rows, columns = ordered[0].spacing
    axes = np.stack([normal, down, across])
    affine = affine_of(axes, places[0], (rows, columns), between)
    return _Stack(ordered, (between, rows, columns), affine, flags)


def _require_one_source(slices: Sequence[Slice]) -> None:
    """Refuse slices of several series, patients, sizes, spacings or kinds of value."""
    rules: tuple[tuple[str, str, Callable[[Slice], Hashable]], ...] = (
        ("series", "one Series Instance UID (0020,000E)", lambda one: one.ids[0]),
        ("patients", "one Patient ID (0010,0020)", lambda one: one.ids[1]),
        ("frames of reference", "one frame of reference (0020,0052)", lambda one: one.ids[2]),
        ("modalities, colours or units", "one kind of pixel", lambda one: (one.kind, one.samples)),
        (
            "kinds of value, rescaled and not,",
            "Rescale Slope (0028,1053) in every slice, or in none",
            lambda one: one.is_rescaled,
        ),
    )
    for name, expected, key in rules:
        counts = Counter(key(one) for one in slices)
        if len(counts) > 1:
            sizes = ", ".join(str(n) for n in sorted(counts.values()))
            raise ImageError(
                f"{len(counts)} {name} among the slices ({sizes} slices each)",
                expected=expected,
                fix="Put every series into a folder of its own",
            )
    localizers = [one for one in slices if one.is_localizer]
    if 0 < len(localizers) < len(slices):
        raise ImageError(
            f"{len(localizers)} of {len(slices)} slices is a localizer, of its own orientation",
            where=localizers[0].name,
            fix="Take it out of the folder of the series",
        )
    _require_one_value(slices, "size in rows and columns", lambda one: "{} x {}".format(*one.size))
    _require_one_value(slices, "Pixel Spacing (0028,0030)", _spacing)


def _spacing(one: Slice) -> str:
    """Return the pixel spacing as text."""
    return " x ".join(f"{round(mm, _SPACING_DIGITS):g}" for mm in one.spacing) + " mm"


def _require_one_value(slices: Sequence[Slice], name: str, key: Callable[[Slice], str]) -> None:
    """Refuse slices that differ in a quantity; the odd one is named, with both values."""
    counts = Counter(key(one) for one in slices).most_common()
    if len(counts) > 1:
        odd = next(one for one in slices if key(one) != counts[0][0])
        raise ImageError(
            f"the {name} is {key(odd)} in {odd.path.name} and {counts[0][0]} in most slices",
            expected=f"one {name} in the whole series",
        )


def _require_positions(slices: Sequence[Slice]) -> None:
    """Refuse slices whose place, direction or spacing is missing or cannot be one."""
    for one in slices:
        turn = np.array(one.orientation)
        if len(one.position) != 3 or len(turn) != 6:
            missing = (
                "Position (0020,0032)" if len(one.position) != 3 else "Orientation (0020,0037)"
            )
            raise ImageError(
                f"{one.path.name} has no Image {missing}, so its place is unknown",
                expected="a position and an orientation in every slice",
                fix="Name single files in the manifest, or convert the series with a trusted tool",
            )
        skew = (np.linalg.norm(turn[:3]) - 1, np.linalg.norm(turn[3:]) - 1, turn[:3] @ turn[3:])
        if np.abs(skew).max() > 10 * _DIRECTION_TOLERANCE:
            raise ImageError(
                f"the orientation of {one.path.name} is not two unit vectors at right angles"
            )
        if len(one.spacing) != 2 or min(one.spacing) <= 0:
            raise ImageError(
                f"{one.path.name} has no usable Pixel Spacing (0028,0030)",
                expected="two positive numbers",
            )


def _distance(
    slices: Sequence[Slice], places: FloatArray, normal: FloatArray
) -> tuple[float, tuple[str, ...]]:
    """Return the distance between slices in mm, and flags.

    Raises:
        ImageError: Two slices at one position, a gap, irregular distances or a tilt.
    """
    if len(slices) == 1:
        if slices[0].thickness is None:
            raise ImageError(
                "a single slice without Slice Thickness (0018,0050): its spacing is unknown"
            )
        return slices[0].thickness, ("single_slice_spacing_from_thickness",)
    steps = np.diff(places @ normal)
    _require_apart(slices, steps)
    step = float(np.median(steps))
    tolerance = max(SPACING_TOLERANCE * step, SPACING_TOLERANCE_MM)
    worst = int(np.abs(steps - step).argmax())
    if abs(steps[worst] - step) > tolerance:
        missing = round(float(steps[worst]) / step) - 1
        gap = f"a gap of {steps[worst]:.4g} mm" if missing > 0 else f"{steps[worst]:.4g} mm"
        count = f", as if {missing} slice(s) were missing" if missing > 0 else ""
        raise ImageError(
            f"irregular slice spacing: {gap} between {slices[worst].path.name} and "
            f"{slices[worst + 1].path.name}, {step:.4g} mm elsewhere{count}",
            expected=f"one distance within {tolerance:.2g} mm",
            fix="Export the whole series again, or resample it with a trusted tool",
        )
    along = float(steps.sum())
    drift = aside(places, normal)
    if drift[-1] > tolerance * len(steps):
        angle = math.degrees(math.atan2(float(drift[-1]), along))
        raise ImageError(
            f"the stack is tilted by {angle:.1f} degrees (gantry tilt): its slices shift along "
            "their plane, so the volume is sheared, not orthogonal",
            expected="positions along the normal of the slices",
            fix="Correct the tilt (dcm2niix does) and use the NIfTI file",
        )
    surplus = drift - np.maximum(tolerance * np.arange(len(drift)), _aside_mm(slices[0]))
    odd = int(surplus.argmax())
    if surplus[odd] > 0:
        raise ImageError(
            f"{slices[odd].path.name} lies {drift[odd]:.4g} mm aside of the other slices, in its "
            "own plane",
            expected="positions along the normal of the slices",
            fix="Export the whole series again, or resample it with a trusted tool",
        )
    return along / len(steps), ()


def _aside_mm(one: Slice) -> float:
    """How far a slice may lie aside."""
    return _ASIDE_PIXELS * min(one.spacing)


def _require_apart(slices: Sequence[Slice], steps: NDArray[np.floating]) -> None:
    """Refuse two slices at the same position."""
    same = np.flatnonzero(steps < _SAME_PLACE_MM)
    if len(same):
        first = int(same[0])
        raise ImageError(
            f"{len(same)} pair(s) of slices at the same position (duplicate or second time "
            f"point): {slices[first].path.name} and {slices[first + 1].path.name}",
            expected="one slice per position",
            fix="Keep one time point or contrast per folder",
        )


# ---------------------------------------------------------------------- pixels


def _require_one_window(slices: Sequence[Slice]) -> None:
    """Refuse to apply windows that would make equal tissue differ between slices."""
    windows = Counter(one.window for one in slices)
    if len(windows) > 1 or not all(next(iter(windows))):
        raise ImageError(
            "no window in the header" if len(windows) == 1 else f"{len(windows)} different windows",
            expected="one window in all slices, when the window of the header is asked for",
            fix="State a window in the recipe, or scale by percentiles",
        )


def _volume(stack: _Stack, read: Callable[[Path], Image]) -> Image:
    """Return the slices decoded and stacked."""
    first = stack.slices[0]
    if first.frame is None:
        images = [read(one.path) for one in stack.slices]
        array, padding = _stacked(images)
    else:  # read_dicom sorts frames along the same normal
        images = [read(first.path)]
        array = images[0].array
        array = array if array.ndim == 4 else array[:, None]
        padding = images[0].header.get("padding_value")
    shared = set(images[0].header.items()).intersection(*(one.header.items() for one in images))
    header = dict(shared) | ({} if padding is None else {"padding_value": padding})
    spacing = tuple(float(f"{mm:.6g}") for mm in stack.spacing)
    return Image(
        array,
        spacing,
        stack.affine,
        images[0].modality,
        (
            *_merged((one.notes for one in images), "spacing "),
            f"{len(stack.slices)} slices sorted by position along their normal",
            "spacing " + " x ".join(f"{mm:g}" for mm in spacing) + " mm",
        ),
        (*_merged((one.flags for one in images), "multi_frame"), *stack.flags),
        dict(sorted(header.items())),
    )


def _stacked(images: Sequence[Image]) -> tuple[NDArray[np.float32], str | None]:
    """Return the slices as one array, and the one value its padding has, as text.

    Every slice has set its padding below its own smallest value; here it is below that of all.
    """
    array = np.stack([one.array for one in images], axis=1)
    fills = [one.header.get("padding_value") for one in images]
    if not any(fills):
        return array, None
    lowest = np.nextafter(array.min(), np.float32(-np.inf))
    for number, fill in enumerate(fills):
        if fill:
            plane = array[:, number]
            plane[plane == np.float32(fill)] = lowest
    return array, repr(float(lowest))


def _one_slice(stack: _Stack, frame: int, read: Callable[..., Image]) -> Image:
    """Return one slice as a 2D image."""
    if not 0 <= frame < len(stack.slices):
        raise ImageError(f"slice {frame} is asked for", expected=f"0 to {len(stack.slices) - 1}")
    chosen = stack.slices[frame]
    inside = None if chosen.frame is None else frame  # frames count by position there too
    image = read(chosen.path, frame=inside)
    note = f"took slice {frame} of {len(stack.slices)} by position"
    return replace(image, notes=(*image.notes, note))


def _merged(parts: Iterable[Sequence[str]], but: str) -> list[str]:
    """Return the texts of all slices, each once, without those that begin like `but`."""
    texts = dict.fromkeys(text for part in parts for text in part)
    return [text for text in texts if not text.startswith(but)]
