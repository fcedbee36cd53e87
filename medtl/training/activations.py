"""Results of the frozen beginning of a network, stored once and trained on for many epochs.

A stored view of an image is what one augmentation of it gives. View v is the one that an uncached
run draws in the v-th epoch of the stage, computed in the batches of that epoch; afterwards the
views come again. So the first epochs of a cached stage, one for each view, are those of an uncached
one; the ideal gain is epochs / views. Validation cases have one view, which is exact.

Each view of each image is a row of its own in a file that belongs to the frozen layers. Whoever
trains on the same layers and images, in another fold, seed or study, finds it there. Processes that
train together compute a share of the batches each.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from medtl.data.batches import Batch, CaseSamples, EpochBatches, Place, Samples
from medtl.data.store import ImageStore
from medtl.errors import RunError
from medtl.networks.prefix import Cut, cut_before_trained, is_exact
from medtl.networks.selectors import resolve
from medtl.storage.cache import code_fingerprint, make_room
from medtl.storage.rowfile import MISSING, RowFile, row_key
from medtl.training.options import ActivationCache, Training
from medtl.training.runtime import Runtime
from medtl.types import Stage

PROBED = 2
"""Images that a cut network is tried on."""

HALF_MAX = float(np.finfo(np.float16).max)
"""Larger activations are stored as this, rather than as infinity."""


@dataclass(frozen=True)
class Source:
    """Where the batches of a stage come from: images, or what its frozen layers make of them.

    Attributes:
        network: What takes the batches: the whole network, or the layers after the frozen ones.
        train, val: The two splits as it takes them.
        workers: Loader processes.
        prepare: Called with (epoch, callback) before each epoch; computes what the epoch needs
            and is not there, calling back as `StoredSamples.prepare` does.
    """

    network: nn.Module
    train: CaseSamples
    val: CaseSamples
    workers: int = 0
    prepare: Callable[[int, Callable[[], None]], None] = lambda *_: None


@dataclass(frozen=True)
class StoredSamples(Dataset[Batch]):
    """The cases of one split as the frozen layers see them; stands where `Samples` stood.

    Attributes:
        samples: What they are computed from.
        frozen: Standardised images `(B, C, *S)` -> activations `(B, ...)` on the CPU.
        file: Where they are stored.
        batches: Those of an uncached run of one process.
        runtime: Of the processes that train together.
        views: How often an image is stored.
        first_epoch: Epoch, counted over all stages, whose augmentation view 0 is.
        workers: Loader processes while activations are computed.
    """

    samples: Samples
    frozen: Callable[[Tensor], Tensor]
    file: RowFile
    batches: EpochBatches
    runtime: Runtime
    views: int = 1
    first_epoch: int = 0
    workers: int = 0
    _rows: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def store(self) -> ImageStore:
        """The images that they come from."""
        return self.samples.store

    @property
    def rows(self) -> NDArray[np.int64]:
        """`(n,)` rows of the store."""
        return self.samples.rows

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: Place) -> Batch:
        epoch, index = place
        value = self.file[int(self._rows[self._view(epoch)][index])]
        return Batch(
            torch.from_numpy(np.array(value, dtype=np.float32)),
            torch.as_tensor(self.samples.inputs[index]),
            torch.as_tensor(self.samples.targets[index]),
            torch.tensor(index),
        )

    def prepare(self, epoch: int, *, on_batch: Callable[[], None]) -> None:
        """Compute what an epoch needs and is not there.

        Args:
            epoch: Counted over all stages.
            on_batch: Called after each batch, by several processes once after all of them, as
                often in one as in the others; what is stored stays when it raises.

        Raises:
            RunError: When the cache cannot be written, or gives other bytes back.
        """
        view = self._view(epoch)
        if view in self._rows:
            return
        drawn = self.first_epoch + view
        keys = self._keys(drawn)
        self.batches.epoch, self.batches.first = drawn, 0
        parts = [[i for _, i in part] for part in self.batches]
        rank, processes = self.runtime.rank, self.runtime.processes
        if processes == 1:
            rows = self._compute(parts, drawn, keys, on_batch=on_batch)
        else:
            self._compute(parts[rank::processes], drawn, keys)
            self.runtime.wait()
            on_batch()
            # What processes on other hosts keep on disks of their own is still to be computed.
            rows = self._compute(parts, drawn, keys)
        if (rows == MISSING).any():
            raise RunError(
                "the disk of the cache gives other bytes back than were written",
                where=str(self.file),
                fix="Replace the disk, or state run.cache_gb=0",
            )
        self._rows[view] = rows

    def _compute(
        self,
        parts: Sequence[list[int]],
        drawn: int,
        keys: Sequence[bytes],
        *,
        on_batch: Callable[[], None] = lambda: None,
    ) -> NDArray[np.int64]:
        """Store those of some batches that are not there, as an epoch draws them; find all keys."""
        found = self.file.find(keys)
        # Whole batches, also where a part is there: so an interrupted run ends in the same bits.
        missing = [part for part in parts if (found[part] == MISSING).any()]
        loader = DataLoader(
            cast(Dataset[Batch], self.samples),
            batch_sampler=[[(drawn, i) for i in part] for part in missing],
            num_workers=self.workers if missing else 0,
        )
        for part, batch in zip(missing, loader, strict=True):
            values = self.frozen(batch.images).numpy()
            if self.file.dtype == np.float16:
                values = np.clip(values, -HALF_MAX, HALF_MAX)
            self.file.append([keys[i] for i in part], values)
            on_batch()
        return self.file.find(keys) if missing else found

    def _view(self, epoch: int) -> int:
        """The stored view that stands for an epoch."""
        return (epoch - self.first_epoch) % self.views

    def _keys(self, epoch: int) -> list[bytes]:
        """What tells each image under one epoch's augmentation from all others."""
        samples = self.samples
        units = (samples.store.units[int(row)].tobytes() for row in samples.rows)
        if samples.augment is None:
            return [row_key(unit) for unit in units]
        drawn = f"{samples.augment!r}/{samples.seed}/{epoch}"
        return [row_key(unit, f"{drawn}/{index}".encode()) for index, unit in enumerate(units)]


@dataclass(frozen=True)
class CachePlan:
    """A stage whose frozen layers are to be computed once.

    Attributes:
        cut: The network, cut after them.
        epochs: Of the stage.
        views: Of each training image.
        shape: Of one stored activation.
        train, val: The two splits.
        cache: Where to.
        runtime: Device and precision.
    """

    cut: Cut
    epochs: int
    views: int
    shape: tuple[int, ...]
    train: Samples
    val: Samples
    cache: ActivationCache
    runtime: Runtime

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the training cases: pooled features in single precision, maps in half."""
        return np.dtype(np.float32 if len(self.shape) == 1 else np.float16)

    @property
    def n_bytes(self) -> int:
        """Of all activations, training and validation."""
        images = self.views * len(self.train) * self.dtype.itemsize + len(self.val) * 4
        return math.prod(self.shape) * images

    def __str__(self) -> str:
        """What it saves, for people."""
        first, last = self.cut.frozen[0], self.cut.frozen[-1]
        return (
            f"{first if first == last else f'{first} to {last}'} run once for each of "
            f"{self.views} views, not in {self.epochs} epochs: at most "
            f"{self.epochs / self.views:.1f} times faster for them, {self.n_bytes / 2**20:.1f} MB"
        )

    def open(self, first_epoch: int, *, batch_size: int, seed: int, workers: int) -> Source:
        """Return the source of stored activations for a stage; nothing is computed yet.

        Args:
            first_epoch: Epoch, counted over all stages, with which the stage began.
            batch_size: Of an uncached run, whose batches are computed.
            seed: Of their order.
            workers: Loader processes while activations are computed.
        """

        def stored(
            samples: Samples, order: int | None, views: int, dtype: np.dtype[Any]
        ) -> StoredSamples:
            batches = EpochBatches(len(samples), batch_size, seed=order)
            path = self.cache.folder / f"{self._key(samples, batches, dtype)}.rows"
            file = RowFile(path, self.shape, dtype)
            return StoredSamples(
                samples, self.run, file, batches, self.runtime, views, first_epoch, workers
            )

        splits = (
            stored(self.train, seed, self.views, self.dtype),
            stored(self.val, None, 1, np.dtype(np.float32)),
        )
        # Only now, when its own files are open and the last ones to go.
        make_room(self.cache.folder, self.n_bytes, limit_bytes=self.cache.limit_bytes)

        def prepare(epoch: int, on_batch: Callable[[], None]) -> None:
            for split in splits:
                split.prepare(epoch, on_batch=on_batch)

        # No loader processes: a row is read in less time than it takes to send it.
        return Source(self.cut.suffix, *splits, prepare=prepare)

    def run(self, images: Tensor) -> Tensor:
        """Return what the frozen layers make of `(B, C, *S)`: float32 on the CPU."""
        with torch.inference_mode(), self.runtime.autocast():
            return self.cut.prefix(self.runtime.to_device(images)).float().cpu()

    def _key(self, samples: Samples, batches: EpochBatches, dtype: np.dtype[Any]) -> str:
        """Hash of all that a stored number depends on besides its image and augmentation."""
        largest = -(-batches.size // len(batches))  # the last bits may depend on the batch's size
        facts = (code_fingerprint(), torch.__version__, torch.get_num_threads(), dtype, largest)
        digest = hashlib.sha256(repr((*facts, self.shape)).encode())
        for name, tensor in self.cut.tensors.items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        # Standardisation, layers, device and precision: seen by what they make of a known image.
        shape = samples.store.units.shapes[int(samples.rows[0])]
        unit = np.random.default_rng(0).random(shape, dtype=np.float32)
        image = torch.from_numpy(np.ascontiguousarray(samples.standardise(unit)))
        digest.update(self.run(image[None]).numpy().tobytes())
        return digest.hexdigest()[:32]


def plan_cache(training: Training, stage: Stage) -> CachePlan | str:
    """Return what a stage would store of its frozen layers, or why it is trained in full.

    Args:
        training: After `enter_stage` for this stage.
        stage: The stage.
    """
    cache, runtime, groups = training.cache, training.runtime, training.groups
    train, val = training.train, training.val
    if cache is None:
        return "run in every epoch"
    if training.objective is not None and not getattr(training.objective, "takes_stored", False):
        return "run in every epoch: what is learned changes the images themselves"
    if not isinstance(train, Samples) or not isinstance(val, Samples):
        return "run in every epoch: each draws other patches"
    views = 1 if train.augment is None else cache.views
    if not pays(views, stage.epochs):
        return f"run in every epoch: {stage.epochs} epochs do not come back to {views} views"
    trained = resolve(stage.train, [group.name for group in groups])
    cut = cut_before_trained(training.model, groups, trained)
    if cut is None:
        return "none, the first layer trains"
    probe = default_collate([val[0, i] for i in range(min(PROBED, len(val)))])
    images, inputs = runtime.to_device(probe.images), runtime.to_device(probe.inputs)
    with runtime.autocast():
        if not is_exact(training.model, cut, images, inputs):
            return "run in every epoch: its layers do not simply follow one another"
        shape = tuple(cut.prefix(images).shape[1:])
    plan = CachePlan(cut, stage.epochs, views, shape, train, val, cache, runtime)
    if plan.n_bytes > cache.limit_bytes:
        size = f"{plan.n_bytes / 2**30:.2f} GB"
        return f"run in every epoch: the cache may not hold the {size} they give"
    return plan


def pays(views: int, epochs: int) -> bool:
    """Whether an image is met again: else storing its activations costs and saves nothing."""
    return views < epochs
