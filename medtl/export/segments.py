"""Masks as a DICOM Segmentation, BINARY, in the geometry of the source images (PS3.3 A.51)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medtl.errors import ImageError
from medtl.export.codes import own_scheme, structure_code
from medtl.export.identity import MANUFACTURER, RESEARCH_ONLY, Algorithm, identifiers, stamp
from medtl.export.source import made_from
from medtl.types import FloatArray

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

LABEL_LENGTH = 64
"""Most characters of a Segment Label (LO, PS3.5 6.2)."""

TOLERANCE_VOXELS = 0.05
"""Largest distance between corners of a mask and of the source images, in voxels of the mask."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's patient axes point left and back, NIfTI's right and front."""


def segmentation(
    masks: Sequence[NDArray[np.integer]],
    sources: Sequence[Dataset],
    algorithm: Algorithm,
    *,
    labels: Mapping[int, str],
) -> Dataset:
    """Return masks as one DICOM Segmentation object with a segment per label.

    Args:
        masks: One label map, or several where structures overlap: each `(rows, columns)` for one
            image, or `(images, rows, columns)` in the order of `sources`; 0 is background.
        sources: Headers of the images that were segmented (`source.read_source`).
        algorithm: What made the mask.
        labels: Value in the mask -> what the structure is called. A structure that the mask does
            not show is a segment without frames.

    Raises:
        ImageError: When the mask does not fit the images, holds a value that `labels` does not
            name, shows nothing, or the header cannot be used.
    """
    maps = [mask[None] if mask.ndim == 2 else mask for mask in masks]
    _check_masks(maps, sources, labels)
    import highdicom

    values = sorted(labels)
    pixels = _pixels(maps, values)
    content = pixels.tobytes() + json.dumps([labels[value] for value in values]).encode()
    with made_from("source image"):
        made = highdicom.seg.Segmentation(
            source_images=list(sources),
            pixel_array=pixels,
            segmentation_type="BINARY",
            segment_descriptions=_segments([labels[value] for value in values], algorithm),
            content_label="MEDTL",
            content_description=RESEARCH_ONLY,
            coding_schemes=own_scheme(),
            **identifiers("SEG", sources[0], algorithm, content),
        )
        if "ImagePositionPatient" not in sources[0]:  # a projection
            made.PatientOrientation = sources[0].get("PatientOrientation") or ""
        return stamp(made, algorithm)


def on_series(
    mask: NDArray[np.integer], affine: FloatArray, sources: Sequence[Dataset]
) -> NDArray[np.integer]:
    """Return a volume's mask as `(images, rows, columns)`, in the order of the images of a series.

    The axes may be permuted and reversed, as between NIfTI and DICOM; nothing is interpolated.

    Args:
        mask: `(i, j, k)`.
        affine: `(4, 4)`, voxel of the mask to RAS+ mm.
        sources: Headers of single-frame images with position, orientation and spacing.

    Raises:
        ImageError: When the mask is no volume, voxels of it are not voxels of the images, or some
            are left over.
    """
    if mask.ndim != 3:
        raise ImageError(
            f"a mask of {mask.ndim} axes with an affine",
            expected="a volume, or a PNG for a plane",
            where="mask",
        )
    planes = [_voxels_of(mask.shape, affine, source) for source in sources]
    used = {plane.tobytes() for plane in planes}
    if len(used) < len(planes) or sum(plane[0].size for plane in planes) != mask.size:
        raise ImageError(
            f"the mask has {mask.size} voxels and the {len(sources)} images have others",
            expected="one voxel of the mask for every pixel of the series",
            where="mask",
        )
    return np.stack([mask[tuple(plane)] for plane in planes])


def _segments(names: Sequence[str], algorithm: Algorithm) -> list[SegmentDescription]:
    """The segments, numbered from 1, each with its structure and its maker."""
    import highdicom
    from pydicom.sr.codedict import codes

    method = highdicom.AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        source=MANUFACTURER,
        parameters={"recipe": algorithm.recipe_sha256, "use": RESEARCH_ONLY},
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:LABEL_LENGTH],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=structure_code(name),
            algorithm_type="AUTOMATIC",
            algorithm_identification=method,
        )
        for number, name in enumerate(names, start=1)
    ]


def _check_masks(
    maps: Sequence[NDArray[np.integer]], sources: Sequence[Dataset], labels: Mapping[int, str]
) -> None:
    """Refuse masks that are not of these images, or that say what `labels` do not name."""
    shapes = {(int(one.Rows), int(one.Columns)) for one in sources}
    frames = [int(one.get("NumberOfFrames") or 1) for one in sources]
    present: set[int] = set()
    for planes in maps:
        if max(frames) > 1 or shapes != {planes.shape[1:]} or len(planes) != len(sources):
            found = " x ".join(map(str, planes.shape))
            raise ImageError(
                f"the mask is {found} (images, rows, columns)",
                expected=f"{len(sources)} single-frame images of {sorted(shapes)} pixels",
                where="mask",
            )
        present |= {int(value) for value in np.unique(planes)} - {0}
    if not present:
        raise ImageError("the mask shows no structure", where="mask")
    if unknown := sorted(present - set(labels)):
        raise ImageError(
            f"the mask holds the values {unknown[:5]}",
            expected=f"those that have a meaning: {sorted(labels)}",
            where="mask",
        )


def _pixels(maps: Sequence[NDArray[np.integer]], values: Sequence[int]) -> NDArray[np.uint8]:
    """`(images, rows, columns)` of segment numbers; a further axis of segments if they overlap."""
    if len(maps) > 1:
        segments = [np.any([planes == value for planes in maps], axis=0) for value in values]
        return np.stack(segments, axis=-1).astype(np.uint8)
    numbered = np.zeros(maps[0].shape, dtype=np.uint8)
    for number, value in enumerate(values, start=1):
        numbered[maps[0] == value] = number
    return numbered


def _voxels_of(shape: tuple[int, ...], affine: FloatArray, source: Dataset) -> NDArray[np.integer]:
    """Return `(3, rows, columns)`: the voxel of the mask at each pixel of an image."""
    rows, columns = int(source.Rows), int(source.Columns)
    to_voxel = np.linalg.inv(affine) @ _LPS_TO_RAS @ _pixel_to_patient(source)
    row, column = np.mgrid[:rows, :columns]
    ones = np.ones_like(row)
    exact = np.tensordot(to_voxel, np.stack([column, row, 0 * ones, ones]), axes=1)[:3]
    voxels = np.rint(exact).astype(np.int64)
    limits = np.array(shape)[:, None, None]
    if np.abs(exact - voxels).max() > TOLERANCE_VOXELS or ((voxels < 0) | (voxels >= limits)).any():
        raise ImageError(
            "the mask lies elsewhere than the source images, or on another grid",
            expected="a mask in the geometry of the series",
            where="mask",
            fix="Resample the mask to the series",
        )
    return voxels


def _pixel_to_patient(source: Dataset) -> FloatArray:
    """Return `(4, 4)` from (column, row, 0, 1) to DICOM patient coordinates in mm (C.7.6.2.1.1)."""
    names = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if missing := [name for name in names if not source.get(name)]:
        raise ImageError(f"a source image has no {', '.join(missing)}", where="source image")
    along_row, along_column = np.reshape([float(x) for x in source.ImageOrientationPatient], (2, 3))
    between_rows, between_columns = (float(x) for x in source.PixelSpacing)
    matrix = np.eye(4)
    matrix[:3, 0] = along_row * between_columns
    matrix[:3, 1] = along_column * between_rows
    matrix[:3, 3] = [float(x) for x in source.ImagePositionPatient]
    return matrix
