"""Volumes: onto RAS axes at one spacing for the network, and what it says back onto the image.

Two steps, each undone exactly. The axes are swapped and flipped to the closest RAS+ ones, which
interpolates nothing. Then every axis is resampled over the same extent, voxel edges aligned, so
that nothing shifts by half a voxel: the spacing becomes the extent over a whole number of voxels,
within half a voxel of what was asked. 2D images keep their axes (rows, columns) and are resampled
alike; volumes without an affine keep theirs too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, MedtlError
from medtl.preprocess import intensity
from medtl.preprocess.geometry import Label, resize
from medtl.preprocess.pipeline import (
    Scale,
    plain,
    real_pixels,
    require_keys,
    require_window,
    tuples,
    unit_limits,
)
from medtl.types import FloatArray, Image

MAX_VOXELS = 2**28
"""Voxels of the target grid: 1 GiB in float32, the limit of the readers."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The place of an image on the network's grid, and the way back.

    Attributes:
        shape: Spatial shape of the image as stored.
        affine: The image's own voxel-to-RAS+ matrix, None when it has none.
        axes: Stored axis that each axis of the grid comes from.
        flips: Whether an axis of the grid runs against the stored one.
        target: Spatial shape of the grid.
        spacing: Millimetres per axis of the grid, None when the image does not say.
    """

    shape: tuple[int, ...]
    affine: FloatArray | None
    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    target: tuple[int, ...]
    spacing: tuple[float, ...] | None

    @property
    def turned(self) -> tuple[int, ...]:
        """Shape of the image on the axes of the grid, before resampling."""
        return tuple(self.shape[axis] for axis in self.axes)


def plan_grid(image: Image, spacing: Sequence[float] | None) -> Grid:
    """Return where an image lies on RAS axes at a spacing.

    Args:
        image: `(C, *S)` with two or three spatial axes.
        spacing: Millimetres per axis of the grid: (right, anterior, superior) for volumes, (row,
            column) for 2D images. None keeps the image's own.

    Raises:
        ImageError: The image has another number of axes, no spacing when one is asked for, or
            would have too many voxels.

    >>> image = Image(np.zeros((1, 10, 10, 4), np.float32), (0.5, 0.5, 5.0))
    >>> plan_grid(image, (1.0, 1.0, 2.5)).target
    (5, 5, 8)
    """
    shape = image.array.shape[1:]
    axes, flips = _ras_axes(image.affine, len(shape))
    turned = tuple(shape[axis] for axis in axes)
    own = None if image.spacing is None else tuple(image.spacing[axis] for axis in axes)
    if spacing is None:
        return Grid(shape, image.affine, axes, flips, turned, own)
    if len(spacing) != len(shape):
        raise ImageError(
            f"an image of {len(shape)} dimensions", expected=f"{len(spacing)}, as the spacing has"
        )
    if own is None:
        raise ImageError(
            "the image does not say its spacing, so it cannot be resampled to one in mm",
            expected="a header with a spacing",
            fix="Convert it with its spacing, or set image.spacing to none",
        )
    target = tuple(
        max(1, round(length * mm / wanted))
        for length, mm, wanted in zip(turned, own, spacing, strict=True)
    )
    if math.prod(target) > MAX_VOXELS:
        raise ImageError(
            f"{' x '.join(map(str, target))} voxels at the spacing asked for",
            expected=f"at most {MAX_VOXELS}",
            fix="Choose a larger spacing",
        )
    real = tuple(length * mm / new for length, mm, new in zip(turned, own, target, strict=True))
    return Grid(shape, image.affine, axes, flips, target, real)


def to_grid(array: FloatArray, grid: Grid) -> NDArray[np.float32]:
    """Return values of the image on the grid: averaged where an axis shrinks, else linear.

    Args:
        array: `(C, *S)` with S the image's shape.
        grid: What `plan_grid` returned for it.

    Raises:
        MedtlError: When the array does not have the image's shape.

    >>> image = Image(np.arange(4, dtype=np.float32).reshape(1, 1, 4), (1.0, 1.0))
    >>> to_grid(image.array, plan_grid(image, (1.0, 2.0)))
    array([[[0.5, 2.5]]], dtype=float32)
    """
    _require_shape(array.shape, grid.shape, "array", "image")
    return resize(_turn(array, grid), grid.target)


def labels_to_grid(mask: NDArray[Label], grid: Grid) -> NDArray[Label]:
    """Return labels of the image on the grid: each voxel has the label that fills most of it.

    Nearest-neighbour sampling would lose structures thinner than a voxel at random. Of labels with
    the same share, the smallest wins.

    Args:
        mask: `(*S)` labels, or `(K, *S)` of one structure each.
        grid: What `plan_grid` returned for the image.

    Raises:
        MedtlError: When the mask does not have the image's shape.

    >>> image = Image(np.zeros((1, 1, 4), np.float32), (1.0, 1.0))
    >>> labels_to_grid(np.array([[0, 1, 1, 1]]), plan_grid(image, (1.0, 4.0)))
    array([[1]])
    """
    _require_shape(mask.shape, grid.shape, "mask", "image")
    turned = _turn(mask, grid)
    if grid.turned == grid.target:
        return np.ascontiguousarray(turned)
    if mask.ndim > len(grid.shape):
        return np.stack([_majority(plane, grid.target) for plane in turned])
    return _majority(turned, grid.target)


def from_grid(array: FloatArray, grid: Grid) -> NDArray[np.float32]:
    """Return maps on the grid (probabilities) on the image's own voxels, in their stored order.

    Sums over K are kept, so probabilities stay probabilities.

    Args:
        array: `(K, *T)` with T the shape of the grid.
        grid: What `plan_grid` returned for the image.

    Returns:
        `(K, *S)` float32.

    Raises:
        MedtlError: When the array does not have the grid's shape.

    >>> image = Image(np.zeros((1, 1, 4), np.float32), (1.0, 1.0))
    >>> from_grid(np.ones((1, 1, 2), np.float32), plan_grid(image, (1.0, 2.0))).shape
    (1, 1, 4)
    """
    _require_shape(array.shape, grid.target, "map", "grid")
    turned = resize(array, grid.turned)
    turned = np.flip(turned, tuple(axis + 1 for axis, flip in enumerate(grid.flips) if flip))
    back = np.argsort(grid.axes)
    return np.ascontiguousarray(turned.transpose(0, *(int(axis) + 1 for axis in back)))


def _ras_axes(affine: FloatArray | None, axes: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the stored axis, and whether it is flipped, of each RAS axis."""
    if axes not in (2, 3):
        raise ImageError(f"an image of {axes} dimensions", expected="2 or 3")
    if affine is None or axes == 2:
        return tuple(range(axes)), (False,) * axes
    from nibabel.orientations import io_orientation

    found = io_orientation(np.asarray(affine))  # type: ignore[no-untyped-call]
    if not np.isfinite(found).all():
        raise ImageError("the affine has an axis without direction", expected="three of them")
    stored = tuple(int(axis) for axis in np.argsort(found[:, 0]))
    return stored, tuple(bool(found[axis, 1] < 0) for axis in stored)


def _turn(array: NDArray[Label], grid: Grid) -> NDArray[Label]:
    """Return a view with the last axes swapped and flipped to those of the grid."""
    before = array.ndim - len(grid.axes)
    turned = array.transpose(*range(before), *(before + axis for axis in grid.axes))
    return np.flip(turned, tuple(before + axis for axis, flip in enumerate(grid.flips) if flip))


def _majority(mask: NDArray[Label], shape: tuple[int, ...]) -> NDArray[Label]:
    """Return the label that fills most of each new voxel; one at a time, for memory."""
    labels = np.unique(mask)
    result = np.full(shape, labels[0], mask.dtype)
    best = np.zeros(shape, np.float32)
    for label in labels:
        share = resize((mask == label)[None].astype(np.float32), shape)[0]
        # A hair above the best: shares that differ by rounding are the same.
        wins = share > best + 1e-6
        result[wins], best[wins] = label, share[wins]
    return result


def _require_shape(found: tuple[int, ...], expected: tuple[int, ...], what: str, of: str) -> None:
    """Refuse an array that is not on the grid it should be on."""
    axes = len(expected)
    if found[-axes:] != expected or len(found) > axes + 1:
        raise MedtlError(f"a {what} of shape {found}", expected=f"{expected}, that of the {of}")


@dataclass(frozen=True)
class VolumePreprocessor:
    """The way of a volume to the network's input, with the methods of `Preprocessor`.

    The grid is given in mm and not in voxels, so every image has its own; the network sees patches
    of it.

    Attributes:
        spacing: Millimetres per axis of the network's grid, (right, anterior, superior); None
            keeps the image's own.
        channels: Of the image and the network; several are scaled each by itself.
        scale: How real-world values become [0, 1].
        percentiles: For "percentile": the two that become 0 and 1, taken from the whole volume.
        nonzero: Take them, and the statistics of "z_score", from the voxels that are not 0 (MR).
        window: For "window": (centre, width) in real-world units (CT).
        standardisation: After augmentation. "centred" maps [0, 1] to [-1, 1], the same in every
            patch of a volume; "z_score" takes mean and standard deviation of the whole volume, in
            its patches too; "none" keeps [0, 1].
    """

    spacing: tuple[float, ...] | None = None
    channels: int = 1
    scale: Scale = "percentile"
    percentiles: tuple[float, float] = (0.5, 99.5)
    nonzero: bool = False
    window: tuple[float, float] | None = None
    standardisation: Literal["centred", "z_score", "none"] = "centred"

    def __post_init__(self) -> None:
        """Refuse fields that contradict each other."""
        require_window(self)
        if self.spacing is not None and not all(0 < mm < math.inf for mm in self.spacing):
            raise MedtlError(f"spacing {self.spacing}", expected="positive millimetres")

    @property
    def pixel_mean(self) -> None:
        """None: volumes have no mean image, for their grids differ."""
        return None

    def grid(self, image: Image) -> Grid:
        """Return where an image lies on the network's grid, and the way back for `from_unit`.

        Raises:
            ImageError: As `plan_grid`.
        """
        return plan_grid(image, self.spacing)

    def to_unit(self, image: Image) -> NDArray[np.float32]:
        """Return the image in [0, 1] on the network's grid, before augmentation.

        Args:
            image: `(channels, *S)` in real-world units.

        Returns:
            `(channels, *T)` float32, T the shape of the image's grid.

        Raises:
            ImageError: When channels, axes or spacing are wrong, or no voxel is finite.
        """
        if len(image.array) != self.channels:
            raise ImageError(
                f"an image of {len(image.array)} channels", expected=f"{self.channels}"
            )
        grid = self.grid(image)
        real = real_pixels(image)
        scaled = []
        for channel in image.array:
            ends = unit_limits(self, channel[None], real)
            scaled.append(intensity.ramp(channel[None], *ends))
        return np.clip(to_grid(np.concatenate(scaled), grid), 0, 1)

    def mask_to_unit(self, mask: NDArray[np.integer], image: Image) -> NDArray[np.uint8]:
        """Return a mask of the image on the network's grid.

        Args:
            mask: `(*S)` labels from 0 to 255, or `(K, *S)` of 0 and 1, S the image's shape.
            image: The image it belongs to.

        Raises:
            MedtlError: When the mask does not have the image's shape, or a label is above 255.
        """
        if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) <= np.iinfo(np.uint8).max:
            raise MedtlError(f"a label {int(mask.max())}", expected="labels from 0 to 255")
        return labels_to_grid(mask.astype(np.uint8), self.grid(image))

    def from_unit(self, probabilities: FloatArray, grid: Grid) -> NDArray[np.float32]:
        """Return maps on the network's grid on the image's own voxels: `(K, *T)` to `(K, *S)`.

        Raises:
            MedtlError: When the maps do not have the grid's shape.
        """
        return from_grid(probabilities, grid)

    def standardise(self, unit: FloatArray, whole: FloatArray | None = None) -> NDArray[np.float32]:
        """Return what the network takes, after augmentation: `(channels, *T)` in the same shape.

        Args:
            unit: `(channels, *T)` in [0, 1]: a volume, or a patch of one.
            whole: The volume that a patch is of, before augmentation: its statistics are those of
                "z_score", so that a voxel is worth the same in every patch and in evaluation.
        """
        values = np.asarray(unit, dtype=np.float32)
        if self.standardisation == "centred":
            return 2.0 * values - 1.0
        if self.standardisation == "none":
            return values.copy()
        planes = []
        for one, full in zip(values, values if whole is None else whole, strict=True):
            filled = full != 0 if self.nonzero and full.any() else None
            inside = None if filled is None else one != 0
            of = None if whole is None else full if filled is None else full[filled]
            planes.append(intensity.z_score(one[None], mask=inside, of=of))
        return np.concatenate(planes)

    def fit(self, _units: Iterable[FloatArray]) -> VolumePreprocessor:
        """Return this contract: nothing of it is learned from the training split."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """The contract as JSON types."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], _pixel_mean: NDArray[np.float32] | None = None
    ) -> VolumePreprocessor:
        """Return the contract that `to_dict` wrote.

        Raises:
            WeightsError: When keys are missing or unknown.
        """
        require_keys(values, {field.name for field in fields(cls)})
        return cls(**{name: tuples(value) for name, value in values.items()})
