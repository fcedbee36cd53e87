"""Labelled cases, each with views of images that have no label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from medtl.data.batches import Augment, Batch, Place, Samples
from medtl.data.seeds import Stream, generator
from medtl.data.store import ImageStore


@dataclass(frozen=True)
class WithUnlabelled(Dataset[Batch]):
    """The cases of a split, and for each of them some images without labels, drawn anew each epoch.

    Attributes:
        labelled: The cases.
        unlabelled: Unit images without labels.
        ratio: Of them for each case.
        views: How each of them is augmented, for one view after another.
    """

    labelled: Samples
    unlabelled: ImageStore
    ratio: int
    views: tuple[Augment, ...]

    @property
    def store(self) -> ImageStore:
        """The images of the cases."""
        return self.labelled.store

    @property
    def rows(self) -> NDArray[np.int64]:
        """`(n,)` rows of the store."""
        return self.labelled.rows

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, place: Place) -> Batch:
        """Return a case as an epoch draws it, with `(ratio, views, C, H, W)` besides."""
        rng = generator(self.labelled.seed, Stream.UNLABELLED, *place)
        drawn = rng.integers(len(self.unlabelled.case_ids), size=self.ratio)
        units = [self.unlabelled.unit(int(row)) for row in drawn]
        seen = [torch.stack([self._view(unit, view, rng) for view in self.views]) for unit in units]
        return self.labelled[place]._replace(unlabelled=torch.stack(seen))

    def _view(self, unit: NDArray[np.float32], view: Augment, rng: np.random.Generator) -> Tensor:
        """One view of an image as the network takes it."""
        return torch.from_numpy(np.ascontiguousarray(self.labelled.standardise(view(unit, rng))))
