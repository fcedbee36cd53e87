"""Results of the frozen beginning of a network, stored once and trained on for many epochs.

A stored view of an image is what one augmentation of it gives. View v is the one that an uncached
run would have drawn in the v-th epoch of the stage; afterwards the views come again. With as many
views as epochs nothing differs from the uncached run; the gain is epochs / views.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from medtl.io.atomic import atomic_path, sha256_file, write_text
from medtl.networks.prefix import Cut
from medtl.training.batches import Batch, EpochBatches, Place, Samples, make_loader
from medtl.training.runtime import Runtime

PROBED = 4
"""Images whose final form goes into the key of a file of stored activations."""

Stored = NDArray[np.float32 | np.float16]
Half = np.dtype[np.float32] | np.dtype[np.float16]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActivationCache:
    """Where stored activations go, and how many there may be.

    Attributes:
        folder: Safe to delete at any time; another run of the same images finds its files again.
        views: Augmented views of each training image.
        limit_bytes: A stage that would need more is trained in full.
    """

    folder: Path
    views: int
    limit_bytes: int = 4 * 2**30


@dataclass(frozen=True)
class StoredSamples(Dataset[Batch]):
    """The cases of one split as the frozen layers see them; stands where `Samples` stood.

    Attributes:
        activations: `(views, n, ...)`; pooled features in float32, maps in float16.
        samples: What they were computed from.
        first_epoch: Epoch, counted over all stages, whose augmentation view 0 is.
    """

    activations: Stored
    samples: Samples
    first_epoch: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: Place) -> Batch:
        epoch, index = place
        view = (epoch - self.first_epoch) % len(self.activations)
        stored = torch.from_numpy(self.activations[view, index].astype(np.float32))
        inputs = torch.as_tensor(self.samples.inputs[index])
        target = torch.as_tensor(self.samples.targets[index])
        return stored, inputs, target, torch.tensor(index)


def store_activations(
    samples: Samples,
    cut: Cut,
    runtime: Runtime,
    cache: ActivationCache,
    *,
    views: int,
    first_epoch: int = 0,
    batch_size: int = 32,
) -> StoredSamples | None:
    """Compute the frozen layers of every image and view, or find them computed before.

    Args:
        samples: `n` cases.
        cut: The network, cut after its frozen layers.
        runtime: Device and precision of the forward pass.
        cache: Where to, and how much.
        views: How many augmentations of each image; 1 is enough without augmentation.
        first_epoch: Epoch whose augmentation view 0 is.
        batch_size: Images in one forward pass.

    Returns:
        The cases to train on, or None when they would need more than the cache may hold.
    """
    views = views if samples.augment is not None else 1
    probe = next(_passes(samples, cut, runtime, first_epoch, batch_size=1))
    dtype: Half = np.dtype(np.float32) if probe.ndim == 2 else np.dtype(np.float16)
    shape = (views, len(samples), *probe.shape[1:])
    size = math.prod(shape) * dtype.itemsize
    if size > cache.limit_bytes:
        log.info("frozen layers are computed every epoch: %.1f GB to store", size / 2**30)
        return None
    path = cache.folder / f"{_key(samples, cut, views, first_epoch)}.npy"
    stored = _find(path, shape, dtype)
    if stored is None:
        stored = _compute(
            path,
            shape,
            dtype,
            lambda view: _passes(samples, cut, runtime, first_epoch + view, batch_size=batch_size),
        )
    log.info("frozen layers computed once: %d views, %.1f MB", views, size / 2**20)
    return StoredSamples(stored, samples, first_epoch)


def _passes(
    samples: Samples, cut: Cut, runtime: Runtime, epoch: int, *, batch_size: int
) -> Iterator[Tensor]:
    """The frozen layers' results of all cases under one epoch's augmentation, batch by batch."""
    batches = EpochBatches(len(samples), batch_size, seed=None)
    batches.epoch = epoch
    for images, *_ in make_loader(samples, batches, workers=0, pin=False):
        with torch.inference_mode(), runtime.autocast():
            yield cut.prefix(runtime.to_device(images)).float().cpu()


def _compute(
    path: Path,
    shape: tuple[int, ...],
    dtype: Half,
    passes_of: Callable[[int], Iterator[Tensor]],
) -> Stored:
    """Fill the file, seal it with its hash, and map it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        values = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        for view in range(shape[0]):
            done = 0
            for batch in passes_of(view):
                values[view, done : done + len(batch)] = batch.numpy()
                done += len(batch)
        values.flush()
        del values
    write_text(path.with_suffix(".sha256"), sha256_file(path))
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _find(path: Path, shape: tuple[int, ...], dtype: Half) -> Stored | None:
    """The file of an earlier run, if it is whole; a damaged one is computed again."""
    seal = path.with_suffix(".sha256")
    if not path.is_file() or not seal.is_file():
        return None
    if seal.read_text("ascii") != sha256_file(path):
        log.warning("the stored activations are damaged; they are computed again")
        return None
    found: Stored = np.load(path, mmap_mode="r")
    return found if found.shape == shape and found.dtype == dtype else None


def _key(samples: Samples, cut: Cut, views: int, first_epoch: int) -> str:
    """Hash of all that the stored numbers depend on: images, augmentation, frozen layers."""
    digest = hashlib.sha256(f"{views}/{samples.augment!r}/{samples.seed}/{first_epoch}".encode())
    for row in samples.rows:
        digest.update(samples.store.units[int(row)].tobytes())
    for index in range(min(len(samples), PROBED)):  # what standardisation makes of them
        digest.update(samples[first_epoch, index][0].numpy().tobytes())
    for name, tensor in cut.tensors.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
