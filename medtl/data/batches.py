"""Batches whose content is a function of (seed, epoch, step), whatever the number of workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medtl.data.seeds import Stream, generator
from medtl.data.store import ImageStore
from medtl.errors import RunError

Augment = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]
Standardise = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Place = tuple[int, int]
"""(epoch, position in the split): all that a draw may depend on."""


class Batch(NamedTuple):
    """Cases as a network takes them; a single case lacks the first axis.

    Attributes:
        images: `(B, C, *S)` float32, or what the frozen layers made of them, `(B, ...)`.
        inputs: `(B, E)` numbers that join the pooled features.
        targets: `(B, ...)`, NaN where not known.
        places: `(B,)` positions in the split.
        unlabelled: `(B, N, V, C, *S)`, V views of N images without labels beside each case; `(B,
            0)` where a method asks for none.
    """

    images: Tensor
    inputs: Tensor
    targets: Tensor
    places: Tensor
    unlabelled: Tensor = torch.empty(0)


class CaseSamples(Protocol):
    """The cases of one split: `Samples`, `MaskedSamples`, `StoredSamples`, `WithUnlabelled`."""

    @property
    def store(self) -> ImageStore:
        """The images that they come from."""
        ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """`(n,)` rows of the store."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, place: Place) -> Batch: ...


@dataclass(frozen=True)
class Samples(Dataset[Batch]):
    """The cases of one split.

    Attributes:
        store: Unit images.
        rows: `(n,)` rows of the store.
        targets: `(n, ...)` float32, NaN where not known.
        inputs: `(n, E)` float32 that join the pooled features.
        standardise: Unit image -> network input `(channels, H, W)`.
        augment: Applied before `standardise`, or None.
        seed: Of the augmentation stream.
    """

    store: ImageStore
    rows: NDArray[np.int64]
    targets: NDArray[np.float32]
    inputs: NDArray[np.float32]
    standardise: Standardise
    augment: Augment | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Place) -> Batch:
        """Return one case as an epoch draws it; an epoch without augmentation draws nothing."""
        epoch, index = place
        unit = self.store.unit(int(self.rows[index]))
        if self.augment is not None:
            unit = self.augment(unit, generator(self.seed, Stream.AUGMENT, epoch, index))
        return Batch(
            torch.from_numpy(np.ascontiguousarray(self.standardise(unit))),
            torch.as_tensor(self.inputs[index]),
            torch.as_tensor(self.targets[index]),
            torch.tensor(index),
        )


class EpochBatches(Sampler[list[Place]]):
    """The batches of one epoch: a seeded permutation cut into nearly equal parts.

    Parts differ by at most one case, so no batch of one reaches a batch-norm layer. With several
    processes each takes its slice of every batch.

    Args:
        size: Cases in the split.
        batch_size: Largest batch, over all processes.
        seed: Of the order stream; None keeps the order of the split.
        rank, processes: This process among all.

    Raises:
        RunError: When a batch would have no case for one of the processes.

    Attributes:
        epoch: Which order is drawn.
        first: Batch of the epoch to begin with.
    """

    def __init__(
        self, size: int, batch_size: int, *, seed: int | None, rank: int = 0, processes: int = 1
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.processes = rank, processes
        self.epoch = self.first = 0
        if size // max(len(self), 1) < processes:
            raise RunError(
                f"batches of {size // max(len(self), 1)} images for {processes} processes",
                expected="at least one for each",
                fix="Raise finetune.batch_size, or start fewer processes",
            )

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch_size)

    def share(self, index: int, own: int) -> float:
        """Return the weight of this process's mean loss in the mean over processes.

        Parts of a batch may differ by one case; with this weight each case counts alike.

        Args:
            index: Of the batch in its epoch.
            own: Cases of it that this process has.
        """
        whole = self.size // len(self) + (index < self.size % len(self))
        return own * self.processes / whole

    def __iter__(self) -> Iterator[list[Place]]:
        order = np.arange(self.size)
        if self.seed is not None:
            order = generator(self.seed, Stream.ORDER, self.epoch).permutation(self.size)
        for part in np.array_split(order, len(self))[self.first :]:
            yield [(self.epoch, int(i)) for i in part[self.rank :: self.processes]]


def make_loader(
    samples: CaseSamples, batches: EpochBatches, *, workers: int, pin: bool
) -> DataLoader[Batch]:
    """Return a loader of some batches of these cases."""
    return DataLoader(
        cast(Dataset[Batch], samples),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
    )
