"""Images with masks: random patches for training, whole images for evaluation.

A patch is drawn around a pixel of a structure, or anywhere. Rare structures would otherwise hardly
be seen: where they fill less than a hundredth of the image, how patches are drawn matters more than
the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from medtl.data.batches import Batch, Place
from medtl.data.seeds import Stream, generator
from medtl.data.store import ImageStore
from medtl.losses.known import IGNORE

Unit = NDArray[np.float32]
Mask = NDArray[np.uint8]
AugmentPair = Callable[[Unit, Mask, np.random.Generator], tuple[Unit, Mask]]
"""From a unit image, its mask and a generator to both, moved by the same drawn transform."""

FOREGROUND = 0.5
"""Share of the patches that are drawn around a pixel of a structure."""


@dataclass(frozen=True)
class MaskedSamples(Dataset[Batch]):
    """The cases of one split of a segmentation study.

    Attributes:
        store: Unit images and masks, of any shapes.
        rows: `(n,)` rows of the store.
        standardise: Unit image -> network input; of a patch, it is given the whole image as well.
        patch: Shape of the patches, or None for whole images: training, or evaluation.
        augment: Applied to a patch and its mask before `standardise`, or None.
        seed: Of the patches and of the augmentation.
    """

    store: ImageStore
    rows: NDArray[np.int64]
    standardise: Callable[..., Unit]
    patch: tuple[int, ...] | None = None
    augment: AugmentPair | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Place) -> Batch:
        epoch, index = place
        row = int(self.rows[index])
        whole, mask = self.store.unit(row), self.store.mask(row)
        unit = whole
        rng = generator(self.seed, Stream.AUGMENT, epoch, index)
        if self.patch is not None:
            corner = draw_corner(mask, self.patch, rng, exclusive=mask.ndim == unit.ndim - 1)
            unit, mask = (cut(array, corner, self.patch) for array in (unit, mask))
        if self.augment is not None:
            unit, mask = self.augment(unit, mask, rng)
        given = (unit,) if self.patch is None else (unit, whole)
        image = torch.from_numpy(np.ascontiguousarray(self.standardise(*given)))
        target = torch.from_numpy(np.array(mask))
        return Batch(image, torch.zeros(0), target, torch.tensor(index))


def draw_corner(
    mask: Mask, patch: Sequence[int], rng: np.random.Generator, *, exclusive: bool
) -> tuple[int, ...]:
    """Return the first pixel of a patch; negative where the patch is larger than the image.

    Half of the patches are centred on a pixel of a structure, each structure of the image being as
    likely as any other, and moved into the image; the others lie anywhere in it.

    Args:
        mask: `(*S)` class indices, or `(K, *S)` of 0 and 1.
        patch: Shape of the patch.
        rng: Advanced by three draws, or by fewer.
        exclusive: Which of the two the mask is.
    """
    shape = mask.shape if exclusive else mask.shape[1:]
    room = [size - length for size, length in zip(shape, patch, strict=True)]
    if rng.random() < FOREGROUND and max(room) > 0:
        center = _structure_pixel(mask, rng, exclusive=exclusive)
        if center is not None:
            wanted = (at - length // 2 for at, length in zip(center, patch, strict=True))
            return tuple(
                min(max(first, 0), free) if free > 0 else free // 2
                for first, free in zip(wanted, room, strict=True)
            )
    return tuple(int(rng.integers(free + 1)) if free > 0 else free // 2 for free in room)


def _structure_pixel(
    mask: Mask, rng: np.random.Generator, *, exclusive: bool
) -> tuple[int, ...] | None:
    """A pixel of a structure, or None when the image shows none."""
    if exclusive:
        counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)
        shown = np.flatnonzero(counts[1:IGNORE]) + 1
    else:
        shown = np.flatnonzero((mask == 1).reshape(len(mask), -1).any(axis=1))
    if not shown.size:
        return None
    number = int(rng.choice(shown))
    plane = mask == number if exclusive else mask[number] == 1
    pixel = int(rng.choice(np.flatnonzero(plane)))
    return tuple(int(at) for at in np.unravel_index(pixel, plane.shape))


def cut(array: NDArray[np.generic], corner: Sequence[int], patch: Sequence[int]) -> NDArray[Any]:
    """Return a patch of an image or a mask, with 0 where it lies outside.

    Args:
        array: `(..., *S)`.
        corner: First pixel of the patch; may be negative.
        patch: Shape of the patch.
    """
    axes = len(patch)
    result = np.zeros((*array.shape[:-axes], *patch), dtype=array.dtype)
    inside: list[slice] = []
    place: list[slice] = []
    for first, length, size in zip(corner, patch, array.shape[-axes:], strict=True):
        low, high = max(first, 0), min(first + length, size)
        inside.append(slice(low, high))
        place.append(slice(low - first, high - first))
    everything: tuple[EllipsisType | slice, ...] = (...,)
    result[everything + tuple(place)] = array[everything + tuple(inside)]
    return result
