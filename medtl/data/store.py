"""Decoded images, and their masks, as rows of one memory-mapped file; rows may differ in shape."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.types import Case

LEVELS = 65535
"""Unit images are stored in 16 bits: a rounding error of 8e-6, half the memory of float32."""


@dataclass(frozen=True)
class Rows:
    """Arrays of one type, end to end in one or several files.

    Attributes:
        values: All of them, flat, one array for each file; possibly memory-mapped.
        shapes: Shape of each row.
        places: Which of `values` holds each row, and where in it the row begins.
        sha256: Of the bytes of all rows, where they were hashed as they were written.
    """

    values: tuple[NDArray[Any], ...]
    shapes: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, int], ...]
    sha256: str = ""

    def __getitem__(self, row: int) -> NDArray[Any]:
        """One row, without a copy."""
        shape, (number, start) = self.shapes[row], self.places[row]
        values = self.values[number]
        found: NDArray[Any] = values[start : start + math.prod(shape)].reshape(shape)
        return found


@dataclass
class RowWriter:
    """Collects rows, in a file when one is given; `rows` returns them.

    Attributes:
        dtype: Of every row: levels of an image, a mask, or features.
        file: Where to put them, or None for memory.
    """

    dtype: type[np.uint8 | np.uint16 | np.float32]
    file: Path | None = None
    _digest: Any = field(default_factory=hashlib.sha256)
    _shapes: list[tuple[int, ...]] = field(default_factory=list)
    _kept: list[NDArray[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Empty the file."""
        if self.file is not None:
            self.file.write_bytes(b"")

    def append(self, array: NDArray[Any]) -> None:
        """Add one row."""
        flat = np.ascontiguousarray(array, dtype=self.dtype)
        self._shapes.append(flat.shape)
        self._digest.update(flat.data if flat.size else b"")
        if self.file is None:
            self._kept.append(flat.ravel())
        else:
            with self.file.open("ab") as stream:
                flat.tofile(stream)

    def rows(self) -> Rows:
        """All rows so far."""
        starts = np.cumsum([0, *(math.prod(shape) for shape in self._shapes)])[:-1].tolist()
        places = tuple((0, start) for start in starts)
        return Rows((self._values(),), tuple(self._shapes), places, self._digest.hexdigest())

    def _values(self) -> NDArray[Any]:
        """The rows end to end; an empty file cannot be mapped."""
        if not self._shapes:
            return np.zeros(0, dtype=self.dtype)
        if self.file is None:
            return np.concatenate(self._kept)
        return np.memmap(self.file, dtype=self.dtype, mode="r")


@dataclass(frozen=True)
class ImageStore:
    """The decoded images of a study, one row per readable case.

    Attributes:
        case_ids: The case of each row.
        units: `(C, *S)` uint16 a row, `LEVELS` is 1.0; of features `(1, D)` float32.
        masks: `(*S)` or `(K, *S)` uint8 a row on the same grid, or None without masks.
    """

    case_ids: tuple[str, ...]
    units: Rows
    masks: Rows | None = None

    def unit(self, row: int) -> NDArray[np.float32]:
        """`(C, *S)` float32 in [0, 1], or features `(1, D)` as they are."""
        stored = self.units[row]
        unit = np.asarray(stored, dtype=np.float32)
        return unit / np.float32(LEVELS) if stored.dtype == np.uint16 else unit.copy()

    def mask(self, row: int) -> NDArray[np.uint8]:
        """`(*S)` labels, or `(K, *S)` of 0 and 1 where structures may overlap.

        Raises:
            ValueError: When the study has no masks.
        """
        if self.masks is None:
            msg = "the study has no masks"
            raise ValueError(msg)
        return self.masks[row]

    def rows(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """Row numbers of some cases, in their order."""
        position = {case_id: row for row, case_id in enumerate(self.case_ids)}
        return np.array([position[case.case_id] for case in cases], dtype=np.int64)


def levels(unit: NDArray[np.float32]) -> NDArray[np.uint16]:
    """A unit image in [0, 1] in the 16 bits of the store."""
    return np.rint(unit * LEVELS).astype(np.uint16)
