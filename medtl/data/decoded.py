"""Decoded images kept for the next run of the same files: one memory-mapped file and its index.

The name of the file is a hash of the bytes of all image files, of how they are prepared and of this
program's own code, so another run either finds exactly what it would have made, or nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medtl.data.reader import Encode, ImageReader, Progress, ReadRecord, decode_cases
from medtl.data.store import ImageStore, Rows, row_starts
from medtl.errors import RunError
from medtl.storage.atomic import TEMPORARY_MARK, sha256_file, write_text
from medtl.storage.cache import code_fingerprint, make_room, mark_used
from medtl.types import Case

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedImages:
    """The images that this user's runs share; `decode` stands where `decode_cases` stood.

    Attributes:
        folder: Safe to delete at any time.
        limit_bytes: Of the folder; what was used longest ago makes room.
    """

    folder: Path
    limit_bytes: int

    def decode(
        self,
        cases: Sequence[Case],
        reader: ImageReader,
        *,
        encode: Encode | None = None,
        file: Path | None = None,
        progress: Progress | None = None,
    ) -> tuple[ImageStore, list[ReadRecord]]:
        """Return what `decode_cases` returns, decoded now or before.

        Images with masks are decoded in every run: what a mask becomes is the task's to say.
        """
        if encode is not None:
            return decode_cases(cases, reader, encode=encode, file=file, progress=progress)
        path = self.folder / f"{_key(cases, reader)}.units"
        found = _load(path)
        if found is None:
            return self._decode(path, cases, reader, progress)
        log.info("%d decoded images are there from an earlier run", len(found[0].case_ids))
        if progress is not None:
            progress(len(cases), len(cases))
        return found

    def _decode(
        self,
        path: Path,
        cases: Sequence[Case],
        reader: ImageReader,
        progress: Progress | None,
    ) -> tuple[ImageStore, list[ReadRecord]]:
        """Decode, and keep what was decoded if there may be room for it."""
        with _temporary(path) as temporary, _explained():
            store, records = decode_cases(cases, reader, file=temporary, progress=progress)
            size = temporary.stat().st_size
            if 0 < size <= self.limit_bytes:
                index = {
                    "sha256": sha256_file(temporary),
                    "case_ids": store.case_ids,
                    "shapes": store.units.shapes,
                    "records": [asdict(record) for record in records],
                }
                temporary.replace(path)
                write_text(path.with_suffix(".json"), json.dumps(index))
                make_room(self.folder, 0, limit_bytes=self.limit_bytes)
        # Without a name the file stays readable for this process, which has it mapped.
        return store, records


@contextmanager
def _explained() -> Iterator[None]:
    """Say what to do when the cache cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOMEM:  # of the memory it is mapped into: that is not the disk's
            raise
        raise RunError(
            f"the cache of decoded images cannot be written: {error.strerror}",
            fix="Free some space, or state run.cache_gb=0",
        ) from error


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A file beside `path` that is gone afterwards, unless it was renamed."""
    temporary = path.with_name(f".{TEMPORARY_MARK}{secrets.token_hex(6)}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path) -> tuple[ImageStore, list[ReadRecord]] | None:
    """What an earlier run decoded, if it is whole."""
    index_path = path.with_suffix(".json")
    if not path.is_file() or not index_path.is_file():
        return None
    try:
        index = json.loads(index_path.read_text("utf-8"))
        if index["sha256"] != sha256_file(path):
            raise ValueError
        records = [_record(fields) for fields in index["records"]]
        shapes = tuple(tuple(shape) for shape in index["shapes"])
        case_ids = tuple(index["case_ids"])
    except (ValueError, KeyError, TypeError):
        log.warning("the decoded images of an earlier run are damaged; they are decoded again")
        return None
    mark_used(path)
    mark_used(index_path)
    values = np.memmap(path, dtype=np.uint16, mode="r")
    return ImageStore(case_ids, Rows(values, shapes, row_starts(shapes))), records


def _record(fields: Mapping[str, Any]) -> ReadRecord:
    """The record that `asdict` wrote."""
    return ReadRecord(**{**fields, "flags": tuple(fields["flags"])})


def _key(cases: Sequence[Case], reader: ImageReader) -> str:
    """Hash of all that the unit images depend on."""
    digest = hashlib.sha256(f"{code_fingerprint()}/{replace(reader, root=None)!r}".encode())
    for case in cases:
        digest.update(f"{case.case_id}/{case.frame}/{_content(case.image)}".encode())
    return digest.hexdigest()[:32]


def _content(path: Path) -> str:
    """Hash of a file, or of the files of a series; "" for what is neither or cannot be read."""
    try:
        if path.is_dir():
            files = sorted(item for item in path.iterdir() if item.is_file())
            return "/".join(f"{item.name}:{sha256_file(item)}" for item in files)
        return sha256_file(path) if path.is_file() else ""
    except OSError:
        return ""
