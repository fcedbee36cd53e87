"""The slices of a DICOM series as their headers describe them, before any pixel is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pydicom.dataset import Dataset

from medtl.errors import ImageError, located
from medtl.io.cost import Limits, check_regular, name_of
from medtl.io.dicom.file import looks_like_dicom, open_dicom
from medtl.io.dicom.header import group_or_top, integer, items, numbers, text, value

_OTHER_OBJECTS = frozenset({"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG"})
"""Modalities of objects that point at images and may lie beside them."""


@dataclass(frozen=True)
class Slice:
    """One slice as its header describes it: a file, or a frame of a multi-frame file."""

    path: Path
    name: str
    frame: int | None
    ids: tuple[str, str, str, str]
    size: tuple[int, int]
    samples: int
    kind: tuple[str, str, str]
    is_rescaled: bool
    is_localizer: bool
    window: tuple[tuple[float, ...], ...]
    spacing: tuple[float, ...]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    thickness: float | None


def read_slices(
    paths: Sequence[Path], root: str | PathLike[str] | None, limits: Limits
) -> tuple[list[Slice], list[str]]:
    """Return the slices of all files, and the names of the files that are none.

    A file that claims to be DICOM and is cut or corrupt is refused: it may be a slice.

    >>> from pydicom.data import get_testdata_file
    >>> from medtl.io.cost import DEFAULT_LIMITS
    >>> paths = [Path(get_testdata_file(name)) for name in ("CT_small.dcm", "rtplan.dcm")]
    >>> slices, skipped = read_slices(paths, None, DEFAULT_LIMITS)
    >>> slices[0].size, slices[0].spacing, skipped
    ((128, 128), (0.661468, 0.661468), ['rtplan.dcm'])
    """
    slices: list[Slice] = []
    skipped: list[str] = []
    for path in paths:
        name = name_of(path, root)
        with located(name):
            check_regular(path)
        with path.open("rb") as file:
            is_dicom = looks_like_dicom(file.read(132))
        found = _slices_of(path, root, limits) if is_dicom else []
        slices += found
        if not found:
            skipped.append(name)
    if not slices:
        raise ImageError(
            f"none of {len(paths)} file(s) is a DICOM image", expected="the slices of one series"
        )
    if len(paths) - len(skipped) > 1 and any(one.frame is not None for one in slices):
        raise ImageError(
            "a multi-frame file lies among other images of the series",
            expected="single slices, or one multi-frame file",
            fix="Name the multi-frame file itself in the manifest",
        )
    return slices, skipped


def _slices_of(path: Path, root: str | PathLike[str] | None, limits: Limits) -> list[Slice]:
    """Return the slices in a file, [] for an object that points at images."""
    with open_dicom(path, limits, root=root) as file:
        dataset, name = file.dataset, name_of(path, root)
        if text(dataset, "Modality") in _OTHER_OBJECTS:
            return []
        if file.pixels is None:
            raise ImageError(
                "no pixel data: the file is truncated before them, or is no image",
                fix="Copy it again from its source, or take it out of the folder of the series",
            )
        frames = max(integer(dataset, "NumberOfFrames", 1), 1)
        groups = items(dataset, "PerFrameFunctionalGroupsSequence")
        if frames == 1 and not groups:
            return [_slice(dataset, path, name, None)]
        if len(groups) != frames:
            raise ImageError(
                f"{frames} frames with {len(groups)} positions",
                expected="a functional group with Image Position (0020,0032) for every frame",
                fix="Name single frames in a 'frame' column, or convert the file to NIfTI",
            )
        return [_slice(dataset, path, name, number) for number in range(frames)]


def _slice(dataset: Dataset, path: Path, name: str, frame: int | None) -> Slice:
    """Return what the header says about one slice."""

    def group(keyword: str) -> Dataset:
        return dataset if frame is None else group_or_top(dataset, frame, keyword)

    measures, rescale = group("PixelMeasuresSequence"), group("PixelValueTransformationSequence")
    image_type = value(dataset, "ImageType") or ()
    frame_type = value(group("CTImageFrameTypeSequence"), "FrameType") or image_type
    window = group("FrameVOILUTSequence")
    thickness = numbers(measures, "SliceThickness")
    return Slice(
        path=path,
        name=name,
        frame=frame,
        ids=(
            text(dataset, "SeriesInstanceUID"),
            text(dataset, "PatientID"),
            text(dataset, "FrameOfReferenceUID"),
            text(dataset, "SOPInstanceUID"),
        ),
        size=(integer(dataset, "Rows"), integer(dataset, "Columns")),
        samples=integer(dataset, "SamplesPerPixel", 1),
        kind=(
            text(dataset, "Modality"),
            text(dataset, "PhotometricInterpretation"),
            text(rescale, "RescaleType"),
        ),
        is_rescaled=value(rescale, "RescaleSlope") is not None or "ModalityLUTSequence" in dataset,
        is_localizer="LOCALIZER" in {str(part).strip().upper() for part in frame_type},
        window=tuple(numbers(window, key) for key in ("WindowCenter", "WindowWidth")),
        spacing=numbers(measures, "PixelSpacing"),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient"),
        position=numbers(group("PlanePositionSequence"), "ImagePositionPatient"),
        thickness=thickness[0] if len(thickness) == 1 and thickness[0] > 0 else None,
    )
