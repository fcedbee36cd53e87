"""An epoch after the first: decoded pixels out of the memory-mapped file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.table import Row, compare, missing

COUNT, SIDE = 512, 256


def rows() -> Iterator[Row]:
    """Yield the one comparison: every image once, in a random order."""
    from medtl.training.store import ImageStore, RowWriter

    what = f"decoded pixels of {COUNT} images, {SIDE} px, in a later epoch"
    other = "MONAI PersistentDataset"
    order = np.random.default_rng(0).permutation(COUNT)
    with TemporaryDirectory() as folder:
        writer = RowWriter(np.uint16, Path(folder) / "units")
        rng = np.random.default_rng(0)
        for _ in range(COUNT):
            writer.append(rng.integers(0, 65536, (1, SIDE, SIDE), dtype=np.uint16))
        store = ImageStore(tuple(map(str, range(COUNT))), writer.rows())

        def ours() -> float:
            return sum(float(store.unit(row)[0, 0, 0]) for row in order)

        try:
            from monai.data import PersistentDataset
        except ImportError as fault:
            yield missing(what, other, fault)
            return
        values = [{"row": row} for row in range(COUNT)]
        dataset = PersistentDataset(
            values, lambda item: store.unit(item["row"]), Path(folder) / "monai"
        )

        def theirs() -> float:
            return sum(float(dataset[int(row)][0, 0, 0]) for row in order)

        row = compare(what, other, ours, theirs)
        each = 1000 * (row.ours or 0) / COUNT
        note = f"{each:.3f} ms an image; asked for: 0.15"
        yield Row(what, other, row.ours, row.theirs, row.ratio, 0, note)
