"""`medtl run` with nothing kept at all: every image is read again whenever it is asked for.

    python -m benchmarks.undecoded RECIPE key=value ... --out FOLDER

medtl has no switch for it, and needs none. It is what a training loop over image files does, and so
the recipe "with every cache off".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from medtl.cli.main import main
from medtl.data.reader import ImageReader, ReadRecord, decode_cases
from medtl.data.store import ImageStore, Rows, levels
from medtl.types import Case


@dataclass(frozen=True)
class ReadAgain:
    """Stands where the rows of decoded images stand."""

    cases: tuple[Case, ...]
    reader: ImageReader
    shapes: tuple[tuple[int, ...], ...]

    def __getitem__(self, row: int) -> NDArray[np.uint16]:
        """One row, from its file."""
        return levels(self.reader.preprocessor.to_unit(self.reader.read(self.cases[row])))


def decode(
    cases: Sequence[Case], reader: ImageReader, **arguments: Any
) -> tuple[ImageStore, list[ReadRecord]]:
    """Read all cases for what must be known of them, and forget their pixels."""
    store, records = decode_cases(cases, reader, **arguments)
    by_id = {case.case_id: case for case in cases}
    readable = tuple(by_id[case_id] for case_id in store.case_ids)
    rows = ReadAgain(readable, reader, store.units.shapes)
    return ImageStore(store.case_ids, cast(Rows, rows)), records


if __name__ == "__main__":
    with patch("medtl.run.prepare.build_decoder", lambda _: decode):
        main()
