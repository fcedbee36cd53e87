"""DICOM SEG and RTSTRUCT on the grid of the image they were drawn on.

SEG: every frame is placed by its own position; it must lie on the voxels of the image. BINARY and
LABELMAP are labels; FRACTIONAL becomes one where the fraction is at least one half, with a flag.

RTSTRUCT: a voxel belongs to a region if its centre is inside by the even-odd rule: a ray from it
crosses the contours of its slice an odd number of times. So a contour within another cuts a hole,
and keyholes and XOR contours need no case of their own. A centre exactly on a contour belongs to
the side with the larger index.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medtl.errors import ImageError
from medtl.io.cost import Limits, check_declared
from medtl.io.dicom.decode import decode_frames
from medtl.io.dicom.file import DicomFile, heard_warnings, open_dicom
from medtl.io.dicom.header import (
    affine_of,
    functional_group,
    integer,
    items,
    numbers,
    pixel_format,
    text,
    value,
)
from medtl.io.pairs import Mask
from medtl.types import BoolArray, FloatArray, Image

GRID_TOLERANCE = 0.1
"""Voxels by which a frame or contour may miss the voxels of the image it is placed on."""

_DIGITS = 4
"""Decimals of a voxel that count, so that rounding does not decide about centres on a contour."""

_FILLED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
"""Contours that enclose an area (PS3.3 C.8.8.6.3); points and open lines do not."""

_Planes = dict[int, BoolArray]
"""Label -> `(i, j, k)` voxels that belong to it."""


def read_dicom_mask(
    path: Path,
    *,
    image: Image,
    labels: Mapping[int, str] | None,
    multi_label: bool,
    source: Path | None,
    root: Path | None,
    limits: Limits,
) -> Mask | None:
    """Return the mask in a SEG or RTSTRUCT file, None for any other DICOM file.

    Args:
        path: The file.
        image: The image it belongs to, with its affine.
        labels: Value -> name of each structure; None takes the numbers of a SEG.
        multi_label: Return `(K, *S)`; else structures that overlap are refused.
        source: File or folder of the image, whose patient and frame of reference must be the same.
        root: Folder that messages name the file from.
        limits: What the file may cost.

    Raises:
        ImageError: It does not lie on the image's grid, is of another patient, lacks all the
            structures, or cannot be read.

    Reference:
        PS3.3 C.8.20 (segmentation), C.8.8.5 and C.8.8.6 (structure set, ROI contour).

    >>> from pydicom.data import get_testdata_file
    >>> from medtl.io.dicom.image import read_dicom
    >>> image = read_dicom(get_testdata_file("CT_small.dcm"))
    >>> options = {"labels": None, "multi_label": False, "source": None, "root": None}
    >>> path = Path(get_testdata_file("CT_small.dcm"))  # neither SEG nor RTSTRUCT
    >>> read_dicom_mask(path, image=image, limits=Limits(), **options) is None
    True
    """
    with heard_warnings(), open_dicom(path, limits, root=root) as file:
        modality = text(file.dataset, "Modality")
        if modality not in ("SEG", "RTSTRUCT"):
            return None
        if image.affine is None:
            raise ImageError(
                "the image has no position in the patient, so the mask cannot be placed on it",
                expected="an image with an affine: a DICOM image or series, or a NIfTI file",
            )
        if source is not None:
            _require_same_patient(file.dataset, source)
        if modality == "SEG":
            planes, flags = _segments(file, image, labels, limits)
        else:
            planes, flags = _regions(file.dataset, image, labels)
        return _composed(planes, flags, image, multi_label)


def _require_same_patient(dataset: Dataset, source: Path) -> None:
    """Refuse a mask whose patient or frame of reference is not that of the image."""
    names = {"PatientID": "patient", "FrameOfReferenceUID": "frame of reference"}
    for path in sorted(source.iterdir()) if source.is_dir() else [source]:
        with suppress(ImageError), open_dicom(path) as other:
            if other.pixels is None:
                continue
            ids = {key: (_ids(dataset, key), _ids(other.dataset, key)) for key in names}
            break
    else:
        return
    for key, (ours, theirs) in ids.items():
        if ours and theirs and not ours & theirs:
            raise ImageError(f"the mask is of another {names[key]} than the image")


def _ids(dataset: Dataset, keyword: str) -> set[str]:
    """Return the values of an element at the top and, for a structure set, in its references."""
    below = items(dataset, "ReferencedFrameOfReferenceSequence")
    found = (value(one, keyword) for one in (dataset, *below))
    return {str(text).strip() for text in found if text is not None}


def _composed(planes: _Planes, flags: Sequence[str], image: Image, multi_label: bool) -> Mask:
    """Return the mask of the structures; overlaps are refused where a voxel has one label."""
    shape = image.array.shape[1:]
    values = tuple(sorted(planes))
    place = (image.spacing, image.affine)
    all_flags = list(flags)
    if not any(plane.any() for plane in planes.values()):
        all_flags.append("mask_empty")
    if multi_label:
        stacked = np.stack([planes[label].reshape(shape) for label in values])
        return Mask(stacked.astype(np.uint8), values, *place, flags=tuple(all_flags))
    array = np.zeros(shape, np.uint16 if max(values) > np.iinfo(np.uint8).max else np.uint8)
    for label in values:
        plane = planes[label].reshape(shape)
        shared = int((array[plane] != 0).sum())
        if shared:
            raise ImageError(
                f"structure {label} overlaps another one in {shared} voxels",
                expected="structures that do not overlap",
                fix="State that the structures may overlap (multi-label)",
            )
        array[plane] = label
    return Mask(array, values, *place, flags=tuple(all_flags))


def _numbers_of(
    known: Mapping[int, str], labels: Mapping[int, str] | None, what: str
) -> tuple[dict[int, int], list[str]]:
    """Return number in the file -> label, found by name, and flags.

    Args:
        known: Number -> name of the structures in the file.
        labels: Value -> name of the structures asked for; None takes the numbers.
        what: "segment" or "region".
    """
    if labels is None:
        return {number: number for number in known}, []
    wanted = {name.strip().casefold(): label for label, name in labels.items() if label}
    chosen = {
        number: wanted[name.strip().casefold()]
        for number, name in known.items()
        if name.strip().casefold() in wanted
    }
    if not chosen:
        raise ImageError(
            f"none of the {len(known)} {what}s has the name of a structure",
            expected=f"one of {', '.join(labels[label] for label in sorted(wanted.values()))}",
            fix="Write the labels of the sidecar as the file names them",
        )
    absent = set(wanted.values()) - set(chosen.values())
    return chosen, ["structures_absent_taken_as_empty"] if absent else []


def _grid_shape(image: Image) -> tuple[int, int, int]:
    """Return the shape of the image's grid with three axes; a single slice has one voxel across."""
    shape = image.array.shape[1:]
    return (shape[0], shape[1], shape[2] if len(shape) == 3 else 1)


# ------------------------------------------------------------------------- SEG


def _segments(
    file: DicomFile, image: Image, labels: Mapping[int, str] | None, limits: Limits
) -> tuple[_Planes, list[str]]:
    """Return the voxels of each segment of a SEG, and flags."""
    dataset = file.dataset
    known = {
        integer(item, "SegmentNumber"): str(value(item, "SegmentLabel") or "")
        for item in items(dataset, "SegmentSequence")
    }
    known.pop(0, None)  # a LABELMAP may describe its background
    chosen, flags = _numbers_of(known, labels, "segment")
    kind = text(dataset, "SegmentationType")
    frames, odd = _frames(file, kind, limits)
    planes = {label: np.zeros(_grid_shape(image), bool) for label in _labels(chosen, labels)}
    for number, pixels in enumerate(frames):
        if kind == "LABELMAP":
            parts = {segment: pixels == segment for segment in chosen}
        else:
            group = functional_group(dataset, number, "SegmentIdentificationSequence")
            segment = integer(group or dataset, "ReferencedSegmentNumber")
            parts = {segment: pixels} if segment in chosen else {}
        affine = _frame_affine(dataset, number) if parts else np.eye(4)
        for segment, part in parts.items():
            if part.any():
                _place(planes[chosen[segment]], part, affine, image)
    return planes, [*flags, *odd]


def _labels(chosen: Mapping[int, int], labels: Mapping[int, str] | None) -> set[int]:
    """Return all labels of the result: those asked for, found or not."""
    return set(chosen.values()) if labels is None else set(labels) - {0}


def _frames(file: DicomFile, kind: str, limits: Limits) -> tuple[NDArray[np.generic], list[str]]:
    """Return `(F, R, C)` bool, or the segment numbers of a LABELMAP, and flags."""
    dataset = file.dataset
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise ImageError(
            "an unknown Segmentation Type (0062,0001)", expected="BINARY, FRACTIONAL or LABELMAP"
        )
    if file.pixels is None:
        raise ImageError("the segmentation has no pixel data")
    fmt, flags = pixel_format(dataset, file.pixels.kind)
    size = (fmt.frames, fmt.rows, fmt.columns)
    check_declared(size, 1, fmt.bits_allocated // 8, limits=limits)
    stored, odd = decode_frames(file.pixels, fmt, file.transfer_syntax, range(fmt.frames))
    pixels = stored[..., 0]
    if kind == "LABELMAP":
        return pixels, [*flags, *odd]
    if kind == "BINARY":
        return pixels != 0, [*flags, *odd]
    whole = integer(dataset, "MaximumFractionalValue")
    return pixels * 2.0 >= whole, [*flags, *odd, "fractional_segmentation_cut_at_one_half"]


def _frame_affine(dataset: Dataset, frame: int) -> FloatArray:
    """Return (row, column, 0) of a frame to RAS+ mm (PS3.3 C.7.6.2.1.1)."""
    found = []
    for sequence, keyword, length in (
        ("PlanePositionSequence", "ImagePositionPatient", 3),
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        ("PixelMeasuresSequence", "PixelSpacing", 2),
    ):
        group = functional_group(dataset, frame, sequence)
        part = () if group is None else numbers(group, keyword)
        if len(part) != length:
            raise ImageError(f"frame {frame} has no {keyword}")
        found.append(np.array(part))
    place, turn, spacing = found
    across, down = turn[:3], turn[3:]
    return affine_of(np.stack([np.cross(across, down), down, across]), place, spacing)


def _place(plane: BoolArray, pixels: NDArray[np.generic], affine: FloatArray, image: Image) -> None:
    """Set the voxels of the image that a frame's pixels are, in place.

    Raises:
        ImageError: The pixels lie between voxels, or, for a volume, outside the image.
    """
    rows, columns = np.nonzero(pixels)
    index = np.linalg.inv(np.asarray(image.affine)) @ affine
    exact = index[:3] @ np.stack([rows, columns, np.zeros_like(rows), np.ones_like(rows)])
    voxels = np.rint(exact).astype(np.int64)
    is_slice = image.array.ndim == 3
    if is_slice and (np.abs(exact[2]) > GRID_TOLERANCE).all():
        return  # a frame of another slice
    off = float(np.abs(exact - voxels).max())
    steps = np.abs(index[:3, :2])
    is_same_size = np.allclose(steps.max(axis=0), 1, atol=GRID_TOLERANCE)
    if off > GRID_TOLERANCE or not is_same_size:
        raise ImageError(
            f"the grid of the segmentation is not that of the image: pixels lie {off:.2g} voxels "
            f"off, and are {steps.max(axis=0).min():.3g} to {steps.max():.3g} voxels large",
            expected=f"the same grid within {GRID_TOLERANCE:g} voxels",
            fix="Use the image that the segmentation was drawn on",
        )
    shape = np.array(plane.shape)[:, None]
    inside = ((voxels >= 0) & (voxels < shape)).all(axis=0)
    if not inside.all():
        raise ImageError(f"{int((~inside).sum())} pixels of the segmentation lie outside the image")
    plane[tuple(voxels)] = True


# -------------------------------------------------------------------- RTSTRUCT


def _regions(
    dataset: Dataset, image: Image, labels: Mapping[int, str] | None
) -> tuple[_Planes, list[str]]:
    """Return the voxels of each region of a structure set, and flags."""
    if labels is None:
        raise ImageError(
            "an RTSTRUCT needs the names of the regions to read",
            fix="Write value and name of each structure as `labels` into the manifest's sidecar",
        )
    known = {
        integer(item, "ROINumber"): str(value(item, "ROIName") or "")
        for item in items(dataset, "StructureSetROISequence")
    }
    chosen, flags = _numbers_of(known, labels, "region")
    to_voxels = np.linalg.inv(np.asarray(image.affine))
    contours: dict[int, list[FloatArray]] = defaultdict(list)
    for item in items(dataset, "ROIContourSequence"):
        number = integer(item, "ReferencedROINumber")
        if number in chosen:
            points, odd = _contours(item, to_voxels)
            contours[chosen[number]] += points
            flags += odd
    planes: _Planes = {}
    across = _plane_axis([one for several in contours.values() for one in several])
    for label in _labels(chosen, labels):
        planes[label], odd = rasterise(contours[label], _grid_shape(image), across)
        flags += odd
    return planes, list(dict.fromkeys(flags))


def _contours(item: Dataset, to_voxels: FloatArray) -> tuple[list[FloatArray], list[str]]:
    """Return the closed contours of a region, each `(N, 3)` in voxels, and flags."""
    found: list[FloatArray] = []
    flags: list[str] = []
    for contour in items(item, "ContourSequence"):
        kind = text(contour, "ContourGeometricType")
        data = np.array(numbers(contour, "ContourData"))
        if len(data) % 3:
            raise ImageError("a contour has a point without its three coordinates")
        if kind not in _FILLED or len(data) < 9:
            flags.append("contours_that_enclose_nothing_left_out")
            continue
        points = data.reshape(-1, 3) * (-1.0, -1.0, 1.0)  # LPS to RAS+
        found.append(points @ to_voxels[:3, :3].T + to_voxels[:3, 3])
    return found, flags


def _plane_axis(contours: Sequence[FloatArray]) -> int:
    """Return the axis of the image along which every contour is flat."""
    if not contours:
        return 0
    heights = np.max([np.ptp(points, axis=0) for points in contours], axis=0)
    axis = int(heights.argmin())
    if heights[axis] > GRID_TOLERANCE:
        raise ImageError(
            f"a contour rises over {heights[axis]:.3g} slices",
            expected="contours in the planes of the image",
            fix="Use the image series that the contours were drawn on",
        )
    return axis


def rasterise(
    contours: Sequence[FloatArray], shape: tuple[int, int, int], across: int
) -> tuple[BoolArray, list[str]]:
    """Return the voxels whose centre is inside the contours by the even-odd rule, and flags.

    Args:
        contours: Each `(N, 3)` in voxels, closed from its last point to its first.
        shape: Of the image's grid.
        across: Axis along which the contours are flat: that of the slices.

    Raises:
        ImageError: A contour lies between two slices.

    >>> square = np.array([[0, 0.5, 0.5], [0, 0.5, 2.5], [0, 2.5, 2.5], [0, 2.5, 0.5]])
    >>> voxels, flags = rasterise([square], (1, 4, 4), across=0)
    >>> voxels[0].astype(int)
    array([[0, 0, 0, 0],
           [0, 1, 1, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    rows, columns = (axis for axis in range(3) if axis != across)
    counts = np.zeros((shape[across], shape[rows], shape[columns] + 1), np.uint8)
    used: set[int] = set()
    flags: list[str] = []
    for points in contours:
        height = float(points[:, across].mean())
        number = round(height)
        if not 0 <= number < shape[across]:
            flags.append("contours_outside_the_image_left_out")
            continue
        if abs(height - number) > GRID_TOLERANCE:
            raise ImageError(
                f"a contour lies {abs(height - number):.2g} slices beside the nearest slice",
                expected="contours on the slices of the image",
                fix="Use the image series that the contours were drawn on",
            )
        used.add(number)
        drawn = np.round(points, _DIGITS)
        for row, column in _crossings(drawn[:, rows], drawn[:, columns], shape[rows]):
            np.add.at(counts[number], (row, np.clip(column, 0, shape[columns])), 1)
    if used and len(used) <= max(used) - min(used):
        flags.append("contours_skip_slices")
    # Only parity matters, and that survives the overflow of a byte.
    inside = np.cumsum(counts, axis=2, dtype=np.uint8)[:, :, :-1] % 2 == 1
    return np.moveaxis(inside, 0, across), flags


def _crossings(
    rows: FloatArray, columns: FloatArray, num_rows: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield, for each edge, the rows it crosses and the first column behind the crossing."""
    next_rows, next_columns = np.roll(rows, -1), np.roll(columns, -1)
    for first, second, start, end in zip(rows, next_rows, columns, next_columns, strict=True):
        low, high = sorted((first, second))
        # Half-open: an edge owns its lower end, so that a vertex counts once.
        crossed = np.arange(max(int(np.ceil(low)), 0), min(int(np.ceil(high)), num_rows))
        if len(crossed):
            at = start + (crossed - first) * ((end - start) / (second - first))
            yield crossed, np.ceil(np.round(at, _DIGITS)).astype(np.int64)
