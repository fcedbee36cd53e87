"""An epoch after the first: decoded pixels, and whether batches come as fast as they are used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import staged
from benchmarks.table import Row, compare, missing

COUNT, SIDE = 512, 256


def rows() -> Iterator[Row]:
    """Yield decoded pixels, then batches."""
    yield decoded_pixels()
    yield batches()


def decoded_pixels() -> Row:
    """Every image once, in a random order."""
    what = f"decoded pixels of {COUNT} images, {SIDE} px, in a later epoch"
    other = "MONAI PersistentDataset"
    order = np.random.default_rng(0).permutation(COUNT)
    with TemporaryDirectory() as folder:
        store = staged.pictures(np.random.default_rng(0), COUNT, SIDE, Path(folder) / "units")

        def ours() -> float:
            return sum(float(store.unit(row)[0, 0, 0]) for row in order)

        try:
            from monai.data import PersistentDataset
        except ImportError as fault:
            return missing(what, other, fault)
        values = [{"row": row} for row in range(COUNT)]
        dataset = PersistentDataset(
            values, lambda item: store.unit(item["row"]), Path(folder) / "monai"
        )

        def theirs() -> float:
            return sum(float(dataset[int(row)][0, 0, 0]) for row in order)

        row = compare(what, other, ours, theirs)
        each = 1000 * (row.ours or 0) / COUNT
        note = f"{each:.3f} ms an image; asked for: 0.15"
        return Row(what, other, row.ours, row.theirs, row.ratio, 0, note)


def batches() -> Row:
    """A batch read, augmented and standardised, beside the training step that waits for it."""
    import timm
    import torch

    from medtl.data.batches import EpochBatches, make_loader
    from medtl.preprocess.augment import augmenter
    from medtl.run.kinds import UnitAugment

    torch.set_num_threads(1)
    samples = staged.samples(staged.BATCH, UnitAugment(augmenter("cxr")))
    order = EpochBatches(len(samples), staged.BATCH, seed=0)
    loader = make_loader(samples, order, workers=0, pin=False)
    model = timm.create_model("resnet18", num_classes=1).to(memory_format=torch.channels_last)

    def load() -> object:
        order.epoch += 1
        return next(iter(loader))

    images = next(iter(loader))[0].contiguous(memory_format=torch.channels_last)

    def step() -> None:
        model.zero_grad()
        model(images).square().mean().backward()

    what = f"a batch of {staged.BATCH} augmented images, {staged.SIDE} px"
    note = "above 1x one process loads faster than one trains"
    return compare(what, "the training step of ResNet-18", load, step, note)
