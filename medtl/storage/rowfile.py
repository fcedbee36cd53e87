"""Arrays of one shape in a file that only grows, each found by its key and checked by its hash."""

from __future__ import annotations

import hashlib
import logging
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medtl.errors import RunError
from medtl.storage.cache import LOCK, mark_used
from medtl.storage.lock import locked

KEY_BYTES = 16
"""Of a key and of a hash: no two of a billion rows are alike by chance."""

MISSING = -1
"""Row number of a key that is not in the file."""

log = logging.getLogger(__name__)


class RowFile:
    """Key -> array, memory-mapped; several processes may add to it at once.

    A row that a killed process left half written, or that the disk has changed, is not found, so it
    is computed again. The file stays open: when it is deleted to make room, this process keeps it.

    Args:
        path: Made when it is not there.
        shape: Of every array.
        dtype: Of every array.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: DTypeLike) -> None:
        self._record = np.dtype(
            [("key", f"V{KEY_BYTES}"), ("check", f"V{KEY_BYTES}"), ("value", dtype, tuple(shape))]
        )
        self.dtype = np.dtype(dtype)
        self._name = path.name
        self._lock = path.with_name(LOCK)
        self._file = path.open("a+b", buffering=0)
        weakref.finalize(self, self._file.close)
        mark_used(path)
        self._map()

    def find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the row number of each key, `MISSING` where there is none or it is damaged."""
        self._map()
        own = np.ascontiguousarray(self._rows["key"]).tobytes()
        places = {own[i * KEY_BYTES : (i + 1) * KEY_BYTES]: i for i in range(len(self._rows))}
        found = np.array([places.get(key, MISSING) for key in keys], dtype=np.int64)
        damaged = [i for i, row in enumerate(found) if row != MISSING and not self._is_whole(row)]
        if damaged:
            log.warning("%d stored rows are damaged; they are computed again", len(damaged))
            found[damaged] = MISSING
        return found

    def append(self, keys: Sequence[bytes], values: NDArray[np.generic]) -> None:
        """Add rows; a key that is there already gets the new value.

        Args:
            keys: `KEY_BYTES` bytes each.
            values: `(n, *shape)`.

        Raises:
            RunError: When the disk is full or refuses to be written.
        """
        records = np.zeros(len(keys), dtype=self._record)
        records["value"] = values
        for record, key in zip(records, keys, strict=True):
            record["key"] = np.void(key)
            record["check"] = np.void(_hash(key, record["value"]))
        with locked(self._lock, wait=True):
            try:
                size = os.fstat(self._file.fileno()).st_size
                if half := size % self._record.itemsize:  # Windows cuts no file that is mapped
                    self._file.truncate(size - half)
                self._write(records.tobytes())
            except OSError as error:
                raise RunError(
                    f"the cache cannot be written: {error.strerror}",
                    where=self._name,
                    fix="Free some space, or state run.cache_gb=0",
                ) from error

    def __str__(self) -> str:
        """Its name."""
        return self._name

    def __getitem__(self, row: int) -> NDArray[np.generic]:
        """One array, without a copy; `find` gave its number."""
        value: NDArray[np.generic] = self._rows["value"][row]
        return value

    def _write(self, data: bytes) -> None:
        """Append all bytes; a full disk may take some and only then refuse."""
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def _map(self) -> None:
        """Map all whole rows that are in the file now."""
        count = os.fstat(self._file.fileno()).st_size // self._record.itemsize
        if count:
            self._rows = np.memmap(self._file, dtype=self._record, mode="r", shape=(count,))
        else:  # an empty file cannot be mapped
            self._rows = np.zeros(0, dtype=self._record)  # type: ignore[assignment]

    def _is_whole(self, row: int) -> bool:
        """Return whether a row is what was written."""
        record = self._rows[row]
        return bool(record["check"].tobytes() == _hash(record["key"].tobytes(), record["value"]))


def row_key(*parts: bytes) -> bytes:
    """Return the key of what some bytes say together."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _hash(key: bytes, value: NDArray[np.generic]) -> bytes:
    """Hash of a key and its array."""
    return row_key(key, np.ascontiguousarray(value).tobytes())
