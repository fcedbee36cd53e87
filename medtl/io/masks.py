"""Masks from every format that hospitals and challenges use, on the grid of their image, and back.

NIfTI and PNG hold the labels themselves; DICOM SEG and RTSTRUCT (`io.dicom.segmentations`) hold
structures that are placed on the image's grid. What is written lies exactly on the image it was
made for. This is the only reader of masks: training, evaluation, drawing and export ask it.
"""

from __future__ import annotations

import gzip
from collections.abc import Collection, Mapping
from dataclasses import replace
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, MedtlError, located
from medtl.io.cost import DEFAULT_LIMITS, check_regular, limits_beside, name_of
from medtl.io.pairs import Mask, check_pair, labels_of
from medtl.io.read import read_image
from medtl.io.remote import is_remote, local_copy
from medtl.storage.atomic import write_bytes
from medtl.types import FloatArray, Image

WHITE = 255
"""What a mask of one structure is drawn with in a picture."""

_WHITES = (WHITE, 65535)
"""The same in pictures of 8 and of 16 bits."""

_QFORM_TOLERANCE_MM = 1e-3
"""A quaternion cannot hold a sheared affine: beyond this, no qform is written."""


def read_mask(
    path: str | PathLike[str],
    like: Image | Mask | None = None,
    *,
    labels: Mapping[int, str] | None = None,
    multi_label: bool = False,
    frame: int | None = None,
    source: Path | None = None,
    root: Path | None = None,
) -> Mask:
    """Return the labels in a mask file, on the grid of its image or of another mask.

    A file whose axes are stored in another order or direction is turned, by its affine and exactly;
    nothing is interpolated or moved.

    Args:
        path: A NIfTI, PNG or TIFF file of labels, a DICOM SEG, or an RTSTRUCT.
        like: The image it belongs to, as `read_image` returned it, or the mask (of one label per
            voxel) that it is compared with. None: the file's own grid; a SEG or RTSTRUCT has none.
        labels: Value -> name of each structure. Values of a NIfTI or picture must be among them;
            segments of a SEG and regions of an RTSTRUCT are found by name, whatever their number.
            None takes all labels of a file, and the numbers of a SEG; an RTSTRUCT needs names.
        multi_label: Return `(K, *S)`, one plane per label; structures may then overlap.
        frame: The slice that the image is, when it was read with one.
        source: File or folder of the image: a SEG or RTSTRUCT of another patient is refused.
        root: Folder that messages name files from.

    Raises:
        ImageError: The file is no mask, does not lie on the grid of `like`, or holds values that
            are no labels.

    Example:
        >>> import tempfile
        >>> film = Image(np.zeros((1, 4, 4), np.float32), spacing=(0.5, 0.5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_mask(Path(folder, "lung.png"), np.eye(4, dtype=np.uint8), like=film)
        ...     read_mask(Path(folder, "lung.png"), film, labels={1: "lung"})
        Mask(4 x 4, labels 1)
    """
    path = Path(path)
    path = local_copy(path) if is_remote(path) else path
    if isinstance(like, Mask):
        like = _empty_image_on(like)
    limits = DEFAULT_LIMITS if like is None else limits_beside(like.array.shape)
    where = name_of(path, root)
    with located(where):
        if like is not None and _is_dicom(path):
            from medtl.io.dicom.segmentations import read_dicom_mask

            placed = read_dicom_mask(
                path,
                image=like,
                labels=labels,
                multi_label=multi_label,
                source=source,
                root=root,
                limits=limits,
            )
            if placed is not None:
                return placed
        drawn = read_image(path, root=root, color="keep", frame=frame, limits=limits)
        if like is not None and _is_one_slice(drawn, like):
            drawn = read_image(path, root=root, color="keep", frame=0, limits=limits)
        drawn = _one_structure(drawn, labels or ())
        if like is None:
            mask = labels_of(drawn, labels)
        else:
            mask = check_pair(like, _on_axes_of(like, drawn), labels=labels, where=where)
        has_planes = len(drawn.array) > 1
        if has_planes and not multi_label:
            raise ImageError(
                f"the mask has {len(drawn.array)} planes",
                expected="one label per voxel",
                fix="State that the structures may overlap (multi-label)",
            )
        return mask if has_planes or not multi_label else _as_planes(mask, labels)


def write_mask(path: Path, labels: NDArray[np.integer], *, like: Image) -> None:
    """Write the labels of an image so that they overlay it voxel for voxel, atomically.

    Args:
        path: Ending in .nii, .nii.gz, or, for 2D masks, .png: there a mask of the one label 1 is
            drawn in white (255), others keep their values.
        labels: `(*S)` from 0 on, S the image's shape; or, for a NIfTI volume, `(K, *S)` of 0 and
            1, which becomes a fourth dimension.
        like: The image, as it was read: its affine and spacing are written.

    Raises:
        MedtlError: The shapes differ, a label is negative or above 65535, or the format cannot
            hold the mask.

    >>> film = Image(np.zeros((1, 2, 2), np.float32))
    >>> write_mask(Path("mask.png"), np.array([[0, 1], [1, 1]]), like=film)
    >>> read_mask("mask.png", like=film).labels
    (1,)
    """
    shape = like.array.shape[1:]
    if labels.shape[-len(shape) :] != shape or labels.ndim > len(shape) + 1:
        raise MedtlError(
            f"a mask of shape {labels.shape}",
            expected=f"{shape}, that of the image",
            where=path.name,
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise MedtlError(f"labels from {low} to {high}", expected="0 to 65535", where=path.name)
    small: NDArray[Any] = labels.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")) and (labels.ndim == len(shape) or len(shape) == 3):
        data = nifti_bytes(np.moveaxis(small, 0, -1) if labels.ndim > len(shape) else small, like)
        write_bytes(path, gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    elif name.endswith(".png") and labels.ndim == 2 and small.dtype == np.uint8:
        write_bytes(path, _png(small))
    else:
        raise MedtlError(
            f"a mask of {labels.ndim} dimensions with labels up to {high} in this format",
            expected=".nii or .nii.gz, or .png for 2D masks with labels up to 255",
            where=path.name,
        )


def nifti_bytes(array: NDArray[Any], like: Image) -> bytes:
    """Return the bytes of a NIfTI-1 file that lies where an image does.

    Args:
        array: `(*S)` or `(*S, K)` with S the image's shape, in a type that NIfTI knows.
        like: The image; without an affine only its spacing is written.

    >>> volume = Image(np.zeros((1, 2, 2, 2), np.float32), (1.0, 1.0, 5.0))
    >>> len(nifti_bytes(np.zeros((2, 2, 2), np.uint8), volume))  # a header of 352 bytes, 8 voxels
    360
    """
    import nibabel

    picture: Any = nibabel.Nifti1Image(array, None)  # type: ignore[no-untyped-call]
    zooms = tuple(like.spacing or (1.0,) * (like.array.ndim - 1))
    picture.header.set_zooms(zooms + (1.0,) * (array.ndim - len(zooms)))
    picture.header.set_xyzt_units("mm")
    if like.affine is not None:
        picture.set_sform(like.affine, code="scanner")
        picture.set_qform(like.affine, code="scanner")
        if np.abs(picture.get_qform() - like.affine).max() > _QFORM_TOLERANCE_MM:
            picture.set_qform(None, code=0)
    return bytes(picture.to_bytes())


def _is_dicom(path: Path) -> bool:
    """Return whether the file is DICOM by its bytes."""
    from medtl.io.dicom.file import looks_like_dicom

    if path.is_dir():
        return False
    check_regular(path)
    try:
        with path.open("rb") as file:
            return looks_like_dicom(file.read(132))
    except OSError as fault:
        raise ImageError(f"the file cannot be opened: {fault.strerror}") from None


def _empty_image_on(mask: Mask) -> Image:
    """Return an image of zeros on the grid of a mask of one label per voxel; it takes no memory."""
    nothing = np.broadcast_to(np.float32(0), (1, *mask.array.shape))
    return Image(nothing, mask.spacing, mask.affine)


def _is_one_slice(drawn: Image, like: Image) -> bool:
    """Return whether a mask is a plane with a third axis of length 1, and its image a plane."""
    return drawn.array.ndim == like.array.ndim + 1 == 4 and drawn.array.shape[-1] == 1


def _one_structure(drawn: Image, labels: Collection[int]) -> Image:
    """Return a picture's mask with one plane, and white as the label 1 if it is all it has.

    PNG masks are drawn in black and white because 1 on 0 cannot be seen.
    """
    if drawn.affine is not None or drawn.array.ndim != 3:
        return drawn
    if len(drawn.array) > 1:
        if not (drawn.array == drawn.array[:1]).all():
            raise ImageError(
                "the mask is coloured",
                expected="one grey value per label",
                fix="Save the numbers of the labels as grey values; of a palette, its indices",
            )
        drawn = replace(drawn, array=drawn.array[:1])
    values = np.unique(drawn.array)
    if len(values) == 1 and "alpha_dropped" in drawn.flags:
        raise ImageError(
            f"every pixel of the mask has the grey value {values[0]:g}, and the file has an alpha "
            "channel: the mask may be kept there",
            expected="one grey value per label",
            fix="Save the mask without transparency, as grey on black",
        )
    white = int(values[-1])
    if white in _WHITES and white not in labels and set(values) <= {0, white}:
        array = (drawn.array == white).astype(np.float32)
        return replace(drawn, array=array, notes=(*drawn.notes, f"{white} read as label 1"))
    return drawn


def _on_axes_of(image: Image, drawn: Image) -> Image:
    """Return a mask with the axes of its image: an exact turn, no copy.

    Order and direction of the axes are the writer's choice: `(slice, row, column)` here for a DICOM
    series, any in NIfTI. Whether the voxels then lie in the same places is checked afterwards.
    """
    if image.affine is None or drawn.affine is None or drawn.array.ndim != image.array.ndim:
        return drawn
    axes = image.array.ndim - 1
    turn = np.rint(np.linalg.inv(image.affine) @ drawn.affine)[:axes, :axes]
    if not _is_turn(turn) or (turn == np.eye(axes)).all():
        return drawn
    order = [int(np.abs(row).argmax()) for row in turn]
    array = drawn.array.transpose(0, *(axis + 1 for axis in order))
    affine = drawn.affine.copy()
    affine[:, :axes] = drawn.affine[:, order]
    for axis in range(axes):
        if turn[axis, order[axis]] < 0:
            array = np.flip(array, axis + 1)
            affine[:, 3] += affine[:, axis] * (array.shape[axis + 1] - 1)
            affine[:, axis] *= -1
    spacing = drawn.spacing and tuple(drawn.spacing[axis] for axis in order)
    notes = (*drawn.notes, "axes of the mask turned to those of the image")
    return replace(drawn, array=array, affine=affine, spacing=spacing, notes=notes)


def _is_turn(matrix: FloatArray) -> bool:
    """Return whether a matrix only swaps and flips axes."""
    ones = np.abs(matrix) == 1
    is_single = (ones.sum(axis=0) == 1).all() and (ones.sum(axis=1) == 1).all()
    return bool(is_single and (matrix[~ones] == 0).all())


def _as_planes(mask: Mask, labels: Collection[int] | None) -> Mask:
    """Return one plane per label of a mask of labels."""
    values = tuple(sorted(set(labels or mask.labels) - {0}))
    if not values:
        raise ImageError("the mask is empty and no labels are stated")
    planes = np.stack([mask.array == label for label in values]).astype(np.uint8)
    return replace(mask, array=planes, labels=values)


def _png(labels: NDArray[np.uint8]) -> bytes:
    """Return the bytes of a grey PNG; the one label 1 is drawn in white."""
    from PIL import Image as Picture

    buffer = BytesIO()
    Picture.fromarray(labels * np.uint8(WHITE) if labels.max() == 1 else labels).save(
        buffer, format="PNG"
    )
    return buffer.getvalue()
