"""Contents of a DICOM header: storage of the pixels, their place in the patient, allowed facts.

Elements are read one by one through `value`, which turns every conversion fault of pydicom into an
`ImageError` that names the element and never its value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medtl.errors import ImageError
from medtl.io.dicom.decode import PixelFormat
from medtl.io.dicom.file import DicomFile
from medtl.types import FloatArray

SPACING_TOLERANCE = 0.01
"""Relative difference of slice distances that still counts as regular (highdicom uses the same)."""

_ORIENTATION_TOLERANCE = 1e-2
"""Departure from unit length and right angle that Image Orientation (Patient) may have."""

_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_RCT": 3,
    "YBR_ICT": 3,
}
"""Photometric Interpretation (PS3.3 C.7.6.3.1.2) -> Samples per Pixel."""

_FACTS = {
    "modality": "Modality",
    "view_position": "ViewPosition",
    "laterality": "ImageLaterality",
    "body_part": "BodyPartExamined",
    "patient_position": "PatientPosition",
    "patient_sex": "PatientSex",
    "photometric_interpretation": "PhotometricInterpretation",
    "samples_per_pixel": "SamplesPerPixel",
    "rows": "Rows",
    "columns": "Columns",
    "number_of_frames": "NumberOfFrames",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "high_bit": "HighBit",
    "pixel_representation": "PixelRepresentation",
    "pixel_spacing": "PixelSpacing",
    "imager_pixel_spacing": "ImagerPixelSpacing",
    "pixel_aspect_ratio": "PixelAspectRatio",
    "slice_thickness": "SliceThickness",
    "rescale_type": "RescaleType",
    "presentation_lut_shape": "PresentationLUTShape",
    "lossy_image_compression": "LossyImageCompression",
    "burned_in_annotation": "BurnedInAnnotation",
    "image_type": "ImageType",
    "manufacturer": "Manufacturer",
    "model_name": "ManufacturerModelName",
}
"""Fact -> element. The whole list: what is not here (ids, names, dates, free text) is not kept."""

_PLAIN_TEXT = re.compile(r"[A-Za-z0-9 _.,:/+()\\\-]{1,64}")
"""A fact that does not look like a code or a number is left out."""

_AGE = re.compile(r"(\d{3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_OLDEST_YEARS = 90.0
"""Ages above 89 identify; they are kept as 90 (as US HIPAA safe harbour asks)."""


def value(dataset: Dataset, keyword: str) -> Any:
    """Return the value of an element, or None when it is absent or empty.

    Raises:
        ImageError: The bytes are not what the element's representation says.

    >>> header = Dataset()
    >>> header.Rows = 4
    >>> value(header, "Rows"), value(header, "Columns")
    (4, None)
    """
    try:
        found = dataset.get(keyword)
    except Exception as fault:  # pydicom converts on access and raises what it meets
        raise ImageError(
            f"{element_name(keyword)} cannot be read ({type(fault).__name__})"
        ) from None
    return None if found is None or (isinstance(found, str | bytes) and not found) else found


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element as text without blanks around it, "" when it is absent or empty.

    >>> header = Dataset()
    >>> header.Modality = "CT "
    >>> text(header, "Modality"), text(header, "ViewPosition")
    ('CT', '')
    """
    return str(value(dataset, keyword) or "").strip()


def element_name(keyword: str) -> str:
    """Return name and tag as messages show them: "Rows (0028,0010)".

    >>> element_name("Rows")
    'Rows (0028,0010)'
    """
    tag = tag_for_keyword(keyword) or 0
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the numbers of an element, () when it is absent or empty.

    Raises:
        ImageError: One of them is no finite number.

    >>> header = Dataset()
    >>> header.PixelSpacing = ["0.14", "0.14"]
    >>> numbers(header, "PixelSpacing"), numbers(header, "RescaleSlope")
    ((0.14, 0.14), ())
    """
    found = value(dataset, keyword)
    if found is None:
        return ()
    parts = [found] if isinstance(found, str | int | float) else list(found)
    try:
        result = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        result = (math.nan,)
    if not all(math.isfinite(number) for number in result):
        raise ImageError(f"{element_name(keyword)} is not a number", expected="finite numbers")
    return result


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Return the one whole number of an element.

    Raises:
        ImageError: It is absent and there is no default, or it is not one whole number.

    >>> header = Dataset()
    >>> header.Rows = 4
    >>> integer(header, "Rows"), integer(header, "NumberOfFrames", 1)
    (4, 1)
    >>> integer(header, "Columns")
    Traceback (most recent call last):
    medtl.errors.ImageError: Columns (0028,0011) is missing or empty.
    """
    found = numbers(dataset, keyword)
    if not found:
        if default is None:
            raise ImageError(f"{element_name(keyword)} is missing or empty")
        return default
    if len(found) != 1 or found[0] != int(found[0]):
        raise ImageError(f"{element_name(keyword)} has no single value", expected="a whole number")
    return int(found[0])


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, [] when it is absent, empty or no sequence.

    >>> items(Dataset(), "ModalityLUTSequence")
    []
    """
    found = value(dataset, keyword)
    return list(found) if isinstance(found, Sequence) else []


def functional_group(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """Return the item of a functional group for one frame: its own, else the shared one.

    Reference:
        PS3.3 C.7.6.16.

    >>> header, group, measures = Dataset(), Dataset(), Dataset()
    >>> measures.PixelSpacing = ["0.5", "0.5"]
    >>> group.PixelMeasuresSequence = [measures]
    >>> header.SharedFunctionalGroupsSequence = [group]
    >>> functional_group(header, 0, "PixelMeasuresSequence").PixelSpacing
    [0.5, 0.5]
    """
    places = (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0))
    for sequence, index in places:
        groups = value(dataset, sequence)
        if isinstance(groups, Sequence) and index < len(groups):
            found = items(groups[index], keyword)
            if found:
                return found[0]
    return None


def group_or_top(dataset: Dataset, frame: int, keyword: str) -> Dataset:
    """Return the item of a functional group for one frame, the data set where it has none.

    >>> header = Dataset()
    >>> group_or_top(header, 0, "PixelMeasuresSequence") is header
    True
    """
    found = functional_group(dataset, frame, keyword)
    return dataset if found is None else found


def pixel_format(dataset: Dataset, kind: str) -> tuple[PixelFormat, list[str]]:
    """Return how the pixels are stored (PS3.3 C.7.6.3), and flags.

    Args:
        dataset: The header.
        kind: "integer", "float32" or "float64": what the pixel data element holds.

    Raises:
        ImageError: A required element is missing or the elements contradict each other.

    >>> header = Dataset()
    >>> header.PhotometricInterpretation = "MONOCHROME2"
    >>> header.Rows, header.Columns = 4, 6
    >>> header.BitsAllocated, header.BitsStored = 16, 12
    >>> header.PixelRepresentation = 0
    >>> fmt, flags = pixel_format(header, "integer")
    >>> fmt.bits_stored, fmt.high_bit, fmt.is_signed, flags
    (12, 11, False, [])
    """
    flags: list[str] = []
    _refuse_mosaic(dataset)
    photometric = text(dataset, "PhotometricInterpretation").upper()
    if not photometric:
        samples = integer(dataset, "SamplesPerPixel", 1)
        photometric = "RGB" if samples == 3 else "MONOCHROME2"
        flags.append("no_photometric_interpretation")
    samples = integer(dataset, "SamplesPerPixel", _SAMPLES.get(photometric, 1))
    if _SAMPLES.get(photometric) != samples:
        raise ImageError(
            f"{element_name('PhotometricInterpretation')} is unknown or does not go with "
            f"{samples} samples per pixel",
            expected=f"one of {', '.join(_SAMPLES)}",
        )
    allocated = {"float32": 32, "float64": 64}.get(kind) or integer(dataset, "BitsAllocated")
    stored = allocated if kind != "integer" else integer(dataset, "BitsStored", allocated)
    if allocated not in (1, 8, 16, 32, 64) or not 1 <= stored <= allocated:
        raise ImageError(
            f"{stored} bits stored in {allocated} bits allocated",
            expected="1, 8, 16, 32 or 64 bits allocated and no more bits stored",
        )
    high_bit = integer(dataset, "HighBit", stored - 1)
    if not stored - 1 <= high_bit < allocated:
        high_bit = stored - 1
        flags.append("high_bit_wrong")
    sign = _choice(dataset, "PixelRepresentation", flags) if kind == "integer" else 0
    if kind == "integer" and sign == 0 and _smallest(dataset) < 0:
        raise ImageError(
            "Pixel Representation (0028,0103) says that the pixels are unsigned, Smallest Image "
            "Pixel Value (0028,0106) that some are below zero",
            expected="one of the two",
            fix="Export the image again; the sign cannot be guessed",
        )
    if samples > 1 and sign == 1:  # PS3.3 C.7.6.3.1.2: colours are unsigned
        sign = 0
        flags.append("signed_colour_read_as_unsigned")
    fmt = PixelFormat(
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        samples=samples,
        frames=max(integer(dataset, "NumberOfFrames", 1), 1),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        is_signed=sign == 1,
        photometric=photometric,
        is_planar=samples > 1 and _choice(dataset, "PlanarConfiguration", flags) == 1,
    )
    return fmt, flags


def _choice(dataset: Dataset, keyword: str, flags: list[str]) -> int:
    """Return an element that is 0 or 1; 0 and a flag where it is missing."""
    if value(dataset, keyword) is None:
        flags.append(f"no_{dictionary_description(keyword).lower().replace(' ', '_')}")
        return 0
    chosen = integer(dataset, keyword)
    if chosen not in (0, 1):
        raise ImageError(f"{element_name(keyword)} is {chosen}", expected="0 or 1")
    return chosen


def _smallest(dataset: Dataset) -> float:
    """Return Smallest Image Pixel Value, 0 when the header does not say."""
    try:
        return min(numbers(dataset, "SmallestImagePixelValue"), default=0.0)
    except ImageError:
        return 0.0


def unlike_stated_range(dataset: Dataset, stored: NDArray[Any], is_signed: bool) -> list[str]:
    """Return a flag where stored pixels lie outside Smallest to Largest Image Pixel Value.

    Args:
        dataset: The header.
        stored: `(F, R, C, 1)` stored values.
        is_signed: Of the pixels; the two elements are read with the same sign.

    Reference:
        PS3.3 C.7.6.3: of the frames of the image; padding may lie outside.

    >>> header = Dataset()
    >>> header.PixelRepresentation = 0
    >>> header.SmallestImagePixelValue, header.LargestImagePixelValue = 0, 100
    >>> unlike_stated_range(header, np.array([[[[7], [900]]]], np.uint16), False)
    ['pixels_outside_smallest_and_largest_pixel_value']
    """
    try:
        ends = numbers(dataset, "SmallestImagePixelValue") + numbers(
            dataset, "LargestImagePixelValue"
        )
    except ImageError:
        return []
    if len(ends) != 2 or value(dataset, "PixelPaddingValue") is not None:
        return []
    low, high = (end - 65536 if is_signed and end > 32767 else end for end in ends)
    inside = low <= float(stored.min()) and float(stored.max()) <= high
    return [] if inside or low >= high else ["pixels_outside_smallest_and_largest_pixel_value"]


def facts(file: DicomFile) -> tuple[dict[str, str], list[str]]:
    """Return the allow-listed facts of a header, and flags for the oddities they tell.

    >>> from pydicom.data import get_testdata_file
    >>> from medtl.io.dicom.file import open_dicom
    >>> with open_dicom(get_testdata_file("CT_small.dcm")) as file:
    ...     known, flags = facts(file)
    ...
    >>> known["modality"], known["patient_sex"], "patient_name" in known
    ('CT', 'O', False)
    """
    dataset, syntax = file.dataset, file.transfer_syntax
    found: dict[str, str] = {"transfer_syntax": syntax} if _PLAIN_TEXT.fullmatch(syntax) else {}
    flags: list[str] = []
    for name, keyword in _FACTS.items():
        try:
            fact = _plain(value(dataset, keyword))
        except ImageError:
            flags.append("unreadable_header_element")
            continue
        if fact:
            found[name] = fact
    try:
        age, is_known = age_years(value(dataset, "PatientAge"))
    except ImageError:
        age, is_known = None, False
    if age is not None:
        found["patient_age_years"] = f"{age:g}"
    if not is_known:
        flags.append("malformed_age")
    if found.get("burned_in_annotation", "").upper() == "YES":
        flags.append("burned_in_annotation")
    return found, flags


def _plain(found: Any) -> str:
    """Return a value as short plain text, "" when it is absent or anything else."""
    if found is None:
        return ""
    parts = [found] if isinstance(found, str | int | float) else list(found)
    plain = "\\".join(str(part).strip() for part in parts)
    return plain if _PLAIN_TEXT.fullmatch(plain) else ""


def age_years(text: Any) -> tuple[float | None, bool]:
    """Return Patient's Age in years, and False when it is written in no known way.

    Reference:
        PS3.5 6.2, VR AS: nnnD, nnnW, nnnM or nnnY.

    >>> age_years("018M"), age_years("093Y"), age_years("old")
    ((1.5, True), (90.0, True), (None, False))
    """
    if text is None or not str(text).strip():
        return None, True
    match = _AGE.fullmatch(str(text).strip())
    if match is None:
        return None, False
    return min(int(match[1]) * _YEARS[match[2]], _OLDEST_YEARS), True


def _refuse_mosaic(dataset: Dataset) -> None:
    """Raise for a mosaic: the slices of a volume tiled in one picture, which shows no anatomy."""
    kinds = {part.strip().upper() for part in _plain(value(dataset, "ImageType")).split("\\")}
    if "MOSAIC" in kinds and integer(dataset, "NumberOfFrames", 1) <= 1:
        raise ImageError(
            "a mosaic: many slices of a volume tiled in one picture",
            expected="one slice a file, or one a frame",
            fix="Convert the series with dcm2niix and name the NIfTI file",
        )


# -------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Geometry:
    """Places of the frames.

    Attributes:
        order: Frame numbers from 0 in the order of the array: along the normal of the slices when
            they form one stack, else as stored.
        in_plane: Row and column spacing in mm, or None.
        between: Distance of neighbouring slices in mm, or None.
        affine: Array index (frame, row, column), or (row, column, 0), to RAS+ mm; or None.
        flags: Oddities.
    """

    order: tuple[int, ...]
    in_plane: tuple[float, float] | None
    between: float | None
    affine: FloatArray | None
    flags: tuple[str, ...]


def geometry(dataset: Dataset, frames: int) -> Geometry:
    """Return the geometry of an image with that many frames.

    >>> header = Dataset()
    >>> header.PixelSpacing = ["0.5", "0.25"]
    >>> place = geometry(header, 1)
    >>> place.in_plane, place.affine, place.flags
    ((0.5, 0.25), None, ())
    """
    in_plane, flags = _in_plane(dataset)
    order, places, axes, odd = _stack(dataset, frames)
    flags += odd
    between = None
    if frames > 1:
        between, odd = _slice_distance(dataset, places, axes)
        flags += odd
    affine = None
    if axes is not None and places is not None and in_plane is not None:
        is_one_stack = frames == 1 or between is not None
        affine = affine_of(axes, places[0], in_plane, between) if is_one_stack else None
    return Geometry(order, in_plane, between, affine, tuple(flags))


def coarser(place: Geometry, shape: tuple[int, int], reduced: tuple[int, ...]) -> Geometry:
    """Return the geometry of the same picture with fewer, larger pixels.

    Args:
        place: Of the picture of `shape`.
        shape: Rows and columns.
        reduced: Its rows and columns now.

    >>> place = Geometry((0,), (0.5, 0.25), None, None, ())
    >>> coarser(place, (100, 200), (50, 100)).in_plane
    (1.0, 0.5)
    """
    down, across = (old / new for old, new in zip(shape, reduced, strict=True))
    in_plane = place.in_plane and (place.in_plane[0] * down, place.in_plane[1] * across)
    affine = None if place.affine is None else place.affine.copy()
    if affine is not None:
        rows, columns = (1, 2) if len(place.order) > 1 else (0, 1)
        for axis, factor in ((rows, down), (columns, across)):
            affine[:, 3] += affine[:, axis] * (factor - 1) / 2  # the centre of the larger pixel
            affine[:, axis] *= factor
    return replace(place, in_plane=in_plane, affine=affine)


def _in_plane(dataset: Dataset) -> tuple[tuple[float, float] | None, list[str]]:
    """Return row and column spacing in mm from the first element that has it, and flags.

    Reference:
        PS3.3 10.7.1.3 (Pixel Spacing is at the patient, Imager Pixel Spacing at the detector and
        so larger than the anatomy), C.8.12.4.1.
    """
    measures = functional_group(dataset, 0, "PixelMeasuresSequence")
    sources = [
        (measures or dataset, "PixelSpacing", ""),
        (dataset, "ImagerPixelSpacing", "spacing_from_imager"),
        (dataset, "NominalScannedPixelSpacing", "spacing_from_scanner"),
    ]
    flags: list[str] = []
    for source, keyword, flag in sources:
        try:
            found = numbers(source, keyword)
        except ImageError:
            found = (0.0,)
        if len(found) == 2 and min(found) > 0:
            return (found[0], found[1]), [*flags, flag] if flag else flags
        if found:
            flags.append("bad_spacing")
    aspect = value(dataset, "PixelAspectRatio")
    return None, [*flags, "no_spacing" if aspect is None else "spacing_only_as_aspect_ratio"]


def _stack(
    dataset: Dataset, frames: int
) -> tuple[tuple[int, ...], FloatArray | None, FloatArray | None, list[str]]:
    """Return frame order, positions `(F, 3)` in that order, axes `(3, 3)` (LPS) and flags.

    Axes are the directions of increasing frame, row and column index. Frames that are not one
    stack (no positions, several orientations, one place twice) keep their stored order.
    """
    stored = tuple(range(frames))
    if frames > 1 and len(items(dataset, "PerFrameFunctionalGroupsSequence")) != frames:
        return stored, None, None, []
    groups = [(functional_group(dataset, k, "PlanePositionSequence"), k) for k in stored]
    if frames == 1 and groups[0][0] is None:
        groups = [(dataset, 0)]
    if any(group is None for group, _ in groups):
        return stored, None, None, []
    try:
        places = np.array([numbers(group, "ImagePositionPatient") for group, _ in groups if group])
        turns = np.array([_orientation(dataset, k) for k in stored])
    except (ImageError, ValueError):
        return stored, None, None, ["bad_orientation"]
    if places.shape != (frames, 3) or turns.shape != (frames, 6):
        return stored, None, None, ["bad_orientation"] if places.size else []
    across, down = turns[0, :3], turns[0, 3:]
    skew = [np.linalg.norm(across) - 1, np.linalg.norm(down) - 1, across @ down]
    if np.abs(skew).max() > _ORIENTATION_TOLERANCE:
        return stored, None, None, ["bad_orientation"]
    normal = np.cross(across, down)
    along = places @ normal
    if np.ptp(turns, axis=0).max() > _ORIENTATION_TOLERANCE or len(np.unique(along)) < frames:
        return stored, None, None, ["frames_not_one_stack"]
    order = tuple(int(k) for k in np.argsort(along, kind="stable"))
    return order, places[list(order)], np.stack([normal, down, across]), []


def _orientation(dataset: Dataset, frame: int) -> tuple[float, ...]:
    """Return the six direction cosines of a frame (PS3.3 C.7.6.2.1.1), () when there are none."""
    group = functional_group(dataset, frame, "PlaneOrientationSequence")
    return numbers(group or dataset, "ImageOrientationPatient")


def _slice_distance(
    dataset: Dataset, places: FloatArray | None, axes: FloatArray | None
) -> tuple[float | None, list[str]]:
    """Return the distance between neighbouring frames in mm, None when it is not one number."""
    if places is None or axes is None:
        stated = numbers(dataset, "SpacingBetweenSlices")
        return (abs(stated[0]) or None) if len(stated) == 1 else None, []
    steps = np.diff(places @ axes[0])
    step = float(np.median(steps))
    if np.abs(steps - step).max() > SPACING_TOLERANCE * step:
        return None, ["slice_distances_differ"]
    if (aside(places, axes[0])[1:] > SPACING_TOLERANCE * step * np.arange(1, len(places))).any():
        return None, ["frames_lie_aside_of_each_other_as_under_gantry_tilt"]
    return step, []


def aside(places: FloatArray, normal: FloatArray) -> FloatArray:
    """Return how far each slice lies, in mm within its plane, from the normal through the first.

    >>> aside(np.array([[0.0, 0, 0], [0, 3, 2], [0, 0, 4]]), np.array([0.0, 0, 1]))
    array([0., 3., 0.])
    """
    offsets = places - places[0]
    return np.asarray(np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1))


def affine_of(
    axes: FloatArray, place: FloatArray, in_plane: Iterable[float], between: float | None = None
) -> FloatArray:
    """Return the map from (frame, row, column), or (row, column, 0) of one frame, to RAS+ mm.

    Args:
        axes: `(3, 3)` directions of increasing frame, row and column index, LPS.
        place: Of the first pixel, `(3,)` in mm, LPS.
        in_plane: Row and column spacing in mm.
        between: Slice distance in mm, None for one frame.

    Reference:
        PS3.3 C.7.6.2.1.1 gives LPS; RAS+ negates its first two axes.

    >>> affine_of(np.eye(3), np.array([10.0, 20.0, 30.0]), (0.5, 0.25), 5.0)
    array([[ -5.  ,  -0.  ,  -0.  , -10.  ],
           [ -0.  ,  -0.5 ,  -0.  , -20.  ],
           [  0.  ,   0.  ,   0.25,  30.  ],
           [  0.  ,   0.  ,   0.  ,   1.  ]])
    """
    normal, down, across = axes
    rows, columns = in_plane
    affine = np.eye(4)
    if between is None:
        affine[:3, :3] = np.stack([rows * down, columns * across, normal], axis=1)
    else:
        affine[:3, :3] = np.stack([between * normal, rows * down, columns * across], axis=1)
    affine[:3, 3] = place
    affine[:2] *= -1.0
    return affine
