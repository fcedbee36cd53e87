"""A training that takes a moment: two convolutional blocks, and bright and dark images for them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medtl.data.batches import Samples
from medtl.data.store import ImageStore, RowWriter, levels
from medtl.networks.batch_norm import reapply
from medtl.tasks.findings import Findings
from medtl.training import fit as loop
from medtl.training.callbacks import Listeners, Watcher
from medtl.training.epoch import validate
from medtl.training.options import Options, Training
from medtl.training.runtime import Runtime
from medtl.types import Stage

HEAD = Stage("head", "head", 2, {"head": 1e-2})
TOP = Stage("top", "head,last:1", 2, {"head": 1e-2, "base": 1e-3}, warmup_epochs=1)
FULL = Stage("full", "all", 2, {"head": 1e-2, "base": 1e-3}, layer_decay=0.5)
STAGES = (HEAD, TOP, FULL)


class Toy(nn.Sequential):
    """Two convolutional blocks with batch norm, and a head with dropout."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            OrderedDict(
                stem=nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
                layer1=nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
                head=nn.Sequential(
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4, 1)
                ),
            )
        )

    def forward(self, x, _extra=None):
        return super().forward(x)

    def train(self, mode: bool = True) -> Toy:
        super().train(mode)
        reapply(self)
        return self


def samples(n: int, seed: int, *, noisy: bool = False) -> Samples:
    """Bright images are positive."""
    rng = np.random.default_rng(seed)
    truth = (np.arange(n) % 2).astype(np.float32)
    units = rng.random((n, 1, 8, 8)) * 0.5 + 0.4 * truth[:, None, None, None]
    writer = RowWriter(np.uint16)
    for unit in units:
        writer.append(levels(unit))
    store = ImageStore(tuple(f"c{i}" for i in range(n)), writer.rows())

    def augment(unit, place_rng):
        return np.clip(unit + place_rng.normal(0, 0.05, unit.shape), 0, 1).astype(np.float32)

    return Samples(
        store=store,
        rows=np.arange(n),
        targets=truth[:, None],
        inputs=np.zeros((n, 0), dtype=np.float32),
        standardise=lambda unit: np.repeat((unit - 0.5) / 0.25, 3, axis=0).astype(np.float32),
        augment=augment if noisy else None,
        seed=seed,
    )


def training(folder: Path, watcher: Watcher | None = None, **options) -> Training:
    folder.mkdir(exist_ok=True)
    return Training(
        model=Toy(),
        task=Findings(labels=("bright",)),
        train=samples(22, 1, noisy=True),
        val=samples(10, 2),
        can_watch=False,
        options=Options(batch_size=8, lr_batch=8, **options),
        runtime=Runtime("cpu"),
        folder=folder,
        callbacks=() if watcher is None else (watcher,),
    )


def nobody(run: Training) -> Listeners:
    return Listeners((), run.runtime, lambda: False)


def loss_now(run: Training) -> float:
    return validate(run, loop.whole(run), nobody(run))[0]


def digests(model: nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(t.detach().contiguous().numpy().tobytes()).hexdigest()
        for name, t in model.state_dict().items()
    }
