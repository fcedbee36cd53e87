"""An image and its mask: the same grid, whole-number labels, and only labels that are known.

A mask that is shifted or interpolated trains a network on wrong truth, and gives wrong figures,
without an error anywhere. So nothing here is repaired: a pair that does not agree is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from textwrap import shorten

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, located
from medtl.types import FloatArray, Image

AFFINE_TOLERANCE_MM = 1e-3
"""How far a corner voxel may lie from its place in the image, where the file gives it exactly."""

AFFINE_TOLERANCE_RELATIVE = 1e-5
"""The same as a fraction of the image's extent: a NIfTI affine is stored in float32."""

ROUNDING_VOXELS = 0.05
"""How far a corner voxel may lie from its place when a program rounded the header: it is flagged.

Programs that keep direction cosines apart from the spacing write an oblique affine back with other
last digits, which add up to tenths of a millimetre at the far corner.
"""

_MAX_LABEL = np.iinfo(np.uint16).max
_LISTED = 10


@dataclass(frozen=True, repr=False)
class Mask:
    """The labels of the voxels of a grid, and where the grid lies.

    >>> Mask(np.array([[0, 1], [2, 2]], np.uint8), labels=(1, 2))
    Mask(2 x 2, labels 1, 2)

    Attributes:
        array: `(*S)` labels, 0 the background, uint8 or uint16; or `(K, *S)` of 0 and 1 where
            structures may overlap, one plane per label in ascending order.
        labels: Values of the planes, or of the voxels above 0 that were found; ascending.
        spacing: Millimetres per axis, by the file's affine where it has one; None if it says none.
        affine: `(4, 4)` voxel to RAS+ mm, or None.
        notes: What was done while reading ("255 read as label 1").
        flags: Oddities for the data-quality report.
    """

    array: NDArray[np.uint8] | NDArray[np.uint16]
    labels: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    affine: FloatArray | None = None
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The shape and the labels, never the voxels."""
        labels = shorten(", ".join(map(str, self.labels)), 200, placeholder=" ...")
        return f"Mask({_times(self.array.shape)}, labels {labels})"


def check_pair(
    image: Image, mask: Image, *, labels: Collection[int] | None = None, where: str = "mask"
) -> Mask:
    """Return the mask of an image as whole numbers, if the two agree.

    Args:
        image: `(C, *S)`.
        mask: `(1, *S)` of labels, or `(K, *S)` of 0 and 1 for structures that may overlap.
        labels: Values that a voxel may have, 0 always among them; None allows any.
        where: Name of the mask's file in messages.

    Raises:
        ImageError: Shape or affine differ, a value is no whole number or not finite, or a label
            is unknown.

    Example:
        >>> import numpy as np
        >>> image = Image(np.zeros((1, 2, 3), np.float32))
        >>> check_pair(image, Image(np.eye(2, 3, dtype=np.float32)[None]))
        Mask(2 x 3, labels 1)
        >>> check_pair(image, Image(np.full((1, 2, 3), 0.5, np.float32)))
        Traceback (most recent call last):
        ...
        medtl.errors.ImageError: mask: 6 voxels of the mask are no integer labels ...
    """
    with located(where):
        _require_shape(image, mask)
        _require_known_axes(image, mask)
        flags = _affine_flags(image, mask)
        found = labels_of(mask, labels)
        return replace(found, flags=(*flags, *found.flags))


def labels_of(mask: Image, labels: Collection[int] | None = None) -> Mask:
    """Return what a mask file holds as whole numbers. Arguments and errors as `check_pair`.

    >>> mask = Image(np.array([[[0, 2], [2, 2]]], np.float32))
    >>> labels_of(mask).labels
    (2,)
    >>> labels_of(mask, {0, 1})
    Traceback (most recent call last):
    medtl.errors.ImageError: unknown label 2 in the mask; expected one of 0, 1. Name the ...
    """
    if {"nan_voxels", "infinite_voxels"} & set(mask.flags):
        raise ImageError("the mask has voxels that are not finite, and no label")
    planes = len(mask.array)
    array = whole_labels(mask.array if planes > 1 else mask.array[0])
    found = label_values(array)
    allowed = None if labels is None else {int(label) for label in labels}
    if planes > 1:
        _require_known(found, {1})
        if allowed is not None and len(allowed - {0}) != planes:
            raise ImageError(f"the mask has {planes} planes", expected=f"{len(allowed - {0})}")
        found = tuple(sorted(allowed - {0})) if allowed else tuple(range(1, planes + 1))
    elif allowed is not None:
        _require_known(found, allowed)
    flags = [flag for flag in mask.flags if flag == "alpha_dropped"]
    flags += [] if array.any() else ["mask_empty"]
    return Mask(array, found, mask.spacing, mask.affine, mask.notes, tuple(flags))


def whole_labels(array: FloatArray) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return values that are whole numbers from 0 to 65535 in the smallest integer type.

    Raises:
        ImageError: One of them is not: the mask was interpolated, or is no mask.

    >>> whole_labels(np.array([[0.0, 300.0]]))
    array([[  0, 300]], dtype=uint16)
    >>> whole_labels(np.array([[0.0, 0.5]]))
    Traceback (most recent call last):
    medtl.errors.ImageError: 1 voxels of the mask are no integer labels (0.5 among them): ...
    """
    odd = array != np.rint(array)
    if odd.any():
        example = float(array[odd][0])
        raise ImageError(
            f"{int(odd.sum())} voxels of the mask are no integer labels ({example:.4g} among "
            "them): it was interpolated, or is no mask",
            expected="whole numbers",
            fix="Resample masks with the nearest neighbour, or name another column as the mask",
        )
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > _MAX_LABEL:
        raise ImageError(f"label values from {low:g} to {high:g}", expected=f"0 to {_MAX_LABEL}")
    return array.astype(np.uint8) if high <= np.iinfo(np.uint8).max else array.astype(np.uint16)


def label_values(array: NDArray[np.integer]) -> tuple[int, ...]:
    """Return the labels above 0 that occur, ascending.

    >>> label_values(np.array([[0, 7], [3, 7]]))
    (3, 7)
    """
    counts = np.bincount(array.ravel())
    return tuple(int(label) for label in np.flatnonzero(counts) if label)


def grid_distance_mm(ours: FloatArray, other: FloatArray, shape: tuple[int, ...]) -> float:
    """Return the largest distance in mm between the places that two affines give a corner voxel.

    Example:
        >>> import numpy as np
        >>> moved = np.eye(4)
        >>> moved[0, 3] = 100
        >>> grid_distance_mm(np.eye(4), moved, (6, 5, 4))
        100.0
    """
    return float(np.linalg.norm(_corner_shifts(ours, other, shape), axis=0).max())


def _corner_shifts(ours: FloatArray, other: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return `(3, corners)` mm from the place that one affine gives a corner to the other's."""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape), indexing="ij")).reshape(
        len(shape), -1
    )
    index = np.ones((4, corners.shape[1]))
    index[:3] = 0
    index[: len(shape)] = corners
    return np.asarray((np.asarray(other) - np.asarray(ours))[:3] @ index)


def _require_shape(image: Image, mask: Image) -> None:
    """Refuse a mask of another shape than its image."""
    ours, found = image.array.shape[1:], mask.array.shape[1:]
    if ours != found:
        raise ImageError(
            f"shape mismatch: the mask is {_times(found)}",
            expected=f"{_times(ours)}, the shape of the image",
            fix="Rows and columns are exchanged (NIfTI counts columns first): save the mask as PNG"
            if found == ours[::-1] and len(ours) == 2
            else "Name the mask that was drawn on this image",
        )


def _require_known_axes(image: Image, mask: Image) -> None:
    """Refuse a square NIfTI mask of a picture: whether rows or columns come first is unknown.

    ITK writes columns first, nibabel an array as it is; only an affine in both tells them apart.
    """
    drawn_on = image.header.get("format", "DICOM") if image.header else "NIfTI"
    is_told = image.affine is not None and mask.affine is not None
    if mask.header.get("format") != "NIfTI" or drawn_on == "NIfTI" or is_told:
        return
    rows, *others = mask.array.shape[1:]
    if others == [rows] and (mask.array != mask.array.swapaxes(1, 2)).any():
        raise ImageError(
            f"a square NIfTI mask of a {drawn_on} picture without a place in the patient: whether "
            "its first axis counts rows or columns cannot be told",
            expected="a mask in the format of its picture",
            fix="Save it as PNG, after looking at it over the picture",
        )


def _affine_flags(image: Image, mask: Image) -> tuple[str, ...]:
    """Return flags for places that differ by rounding or cannot be compared; refuse others."""
    ours, other, shape = image.affine, mask.affine, image.array.shape[1:]
    if ours is None or other is None:
        return () if ours is other else ("mask_place_not_comparable",)
    distance = grid_distance_mm(ours, other, shape)
    edges = np.linalg.norm(ours[:3, : len(shape)] * np.array(shape), axis=0)
    allowed = max(
        AFFINE_TOLERANCE_MM,
        AFFINE_TOLERANCE_RELATIVE * float(np.linalg.norm(edges)),
        AFFINE_TOLERANCE_RELATIVE * float(np.abs(ours[:3, 3]).max()),
    )
    if distance <= allowed:
        return ()
    voxels = np.linalg.solve(ours[:3, :3], _corner_shifts(ours, other, shape))
    if np.abs(voxels).max() <= ROUNDING_VOXELS:
        return ("mask_place_rounded",)
    mirrored = np.linalg.det(ours[:3, :3] @ other[:3, :3]) < 0
    sizes, others = (np.linalg.norm(a[:3, : len(shape)], axis=0) for a in (ours, other))
    resized = not np.allclose(others, sizes, rtol=1e-3)
    raise ImageError(
        f"affine mismatch: voxels of the mask lie up to {distance:.4g} mm from those of the image"
        + (", and the orientation is mirrored" if mirrored else "")
        + (", and they have other voxel sizes" if resized else ""),
        expected=f"at most {allowed:.2g} mm, or 1/20 voxel where a header was rounded",
        fix="Save the mask with the header of its image, after looking at both in a viewer",
    )


def _require_known(found: tuple[int, ...], allowed: set[int]) -> None:
    """Refuse labels that mean nothing."""
    unknown = [label for label in found if label not in allowed]
    if unknown:
        listed = ", ".join(map(str, unknown[:_LISTED])) + (
            ", ..." if len(unknown) > _LISTED else ""
        )
        raise ImageError(
            f"unknown label {listed} in the mask",
            expected="one of " + ", ".join(map(str, sorted({0, *allowed}))),
            fix="Name the value where labels are stated (task.structures or task.ignored of the "
            "recipe, labels in the YAML file beside the manifest), or correct the mask",
        )


def _times(shape: tuple[int, ...]) -> str:
    """Return a shape as people say it."""
    return " x ".join(map(str, shape))
