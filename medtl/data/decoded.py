"""Decoded images kept for whoever asks next: shards of some hundred images, each with its index.

An image is found by its file (path, size, time of change, inode), its frame, how it is prepared and
this program's own code. So another recipe, fold, seed or process of the same images decodes nothing
and reads none of their bytes, and a run that was killed loses the shard it was writing, no more.
Processes that need the same images at once share the shards among them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.data.reader import Encode, ImageReader, Progress, ReadRecord, decode_cases
from medtl.data.store import ImageStore, Rows
from medtl.errors import ImageError, RunError
from medtl.io.remote import is_remote, version_of
from medtl.storage.atomic import TEMPORARY_MARK, sha256_file, write_text
from medtl.storage.cache import LOCK, code_fingerprint, make_room, mark_used
from medtl.storage.lock import locked
from medtl.types import Case

SHARD_IMAGES = 256
"""Most images of a shard: so much work is lost when a process is killed."""

SHARD_BYTES = 64 * 2**20
"""Most bytes of a shard of planar images."""

SHARD_VOLUMES = 8
"""Images of a shard where their size is not known before."""

ENTRY_BYTES = 512
"""About what an index says of one image."""

ASKED_AT_ONCE = 16
"""Files on servers that are asked for at the same time."""

YOUNG_SECONDS = 2.0
"""A file changed so shortly before it was read may change again within the clock's grain."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """One decoded image of a shard.

    Attributes:
        file: The shard.
        start: Where its levels begin, in levels.
        shape: `(C, *S)`, or None for a file that could not be read.
        record: What reading it found; the case is whose it is now.
        content: Hash of the file's bytes, of a file that was young when it was read; else "".
    """

    file: Path
    start: int
    shape: tuple[int, ...] | None
    record: Mapping[str, Any]
    content: str


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

        Raises:
            RunError: When the folder may not hold the images, or cannot be written.
        """
        if encode is not None:
            return decode_cases(cases, reader, encode=encode, file=file, progress=progress)
        work = _Work(self, cases, reader, progress)
        with _explained():
            work.decode()
        return work.result()


@dataclass
class _Work:
    """The images of some cases: what is there, what is to be decoded."""

    images: DecodedImages
    cases: Sequence[Case]
    reader: ImageReader
    progress: Progress | None
    known: dict[str, Kept] = field(default_factory=dict)
    values: dict[Path, NDArray[np.uint16]] = field(default_factory=dict)
    listed: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Find what is there."""
        way = f"{code_fingerprint()}/{replace(self.reader, root=None)!r}"
        self.key = hashlib.sha256(way.encode()).hexdigest()[:20]
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            ask = pool.map if any(is_remote(case.image) for case in self.cases) else map
            self.tags = list(ask(_tag, self.cases))
        self.look()

    def look(self) -> None:
        """Take in the shards that are new since the last look."""
        wanted = set(self.tags) - self.known.keys()
        image_of = dict(zip(self.tags, (case.image for case in self.cases), strict=True))
        for index in sorted({*self.images.folder.glob(f"{self.key}-*.json")} - self.listed):
            self.listed.add(index)
            for tag, kept in _read_index(index, wanted):
                # A file may change within the grain of the clock, and its tag stay the same.
                if not kept.content or kept.content == _content(image_of[tag]):
                    self._open(kept.file, index)
                    self.known[tag] = kept

    def _open(self, path: Path, index: Path) -> None:
        """Map a shard of this study; make it and its index the last to be deleted."""
        if path not in self.values:
            mark_used(path)
            mark_used(index)
            is_empty = path.stat().st_size == 0
            nothing = np.zeros(0, np.uint16)
            self.values[path] = nothing if is_empty else np.memmap(path, np.uint16, mode="r")

    def missing(self, chunk: range) -> list[int]:
        """The cases of a chunk that are not there."""
        return [number for number in chunk if self.tags[number] not in self.known]

    def decode(self) -> None:
        """Decode what is not there, shard by shard; leave to other processes what they are at."""
        if not (number := len(self.missing(range(len(self.cases))))):
            log.info("%d decoded images are there from an earlier run", len(self.cases))
        else:
            self._make_room(number)
        self._tell()
        bytes_each = self._bytes_each()
        size = SHARD_VOLUMES
        if bytes_each is not None:
            size = max(1, min(SHARD_IMAGES, SHARD_BYTES // bytes_each))
        total = len(self.cases)
        chunks = [range(i, min(i + size, total)) for i in range(0, total, size)]
        for wait in (False, True):
            for chunk in chunks:
                if self.missing(chunk):
                    self._claim(chunk, wait=wait)
        if number:
            make_room(self.images.folder, 0, limit_bytes=self.images.limit_bytes)

    def _claim(self, chunk: range, *, wait: bool) -> None:
        """Decode what a chunk lacks, unless another process is at it."""
        name = hashlib.sha256("".join(self.tags[i] for i in chunk).encode()).hexdigest()[:20]
        claim = self.images.folder / f".{self.key}-{name}{LOCK}"
        is_mine = False
        try:
            with locked(claim, wait=wait):
                is_mine = True
                self.look()
                if numbers := self.missing(chunk):
                    self._shard(numbers)
        except RunError:
            if wait or is_mine:
                raise
        finally:
            if is_mine:  # two who hold a claim of one name would write the same shard
                claim.unlink(missing_ok=True)

    def _shard(self, numbers: Sequence[int]) -> None:
        """Decode some cases into a shard."""
        tags = [self.tags[number] for number in numbers]
        cases = [self.cases[number] for number in numbers]
        name = hashlib.sha256("".join(tags).encode()).hexdigest()[:20]
        path = self.images.folder / f"{self.key}-{name}.units"
        # Before they are decoded: what changes in between is then not found again.
        contents = [_content(case.image) if _is_young(case.image) else "" for case in cases]
        done = sum(tag in self.known for tag in self.tags)
        with _temporary(path) as temporary:
            told = self.progress
            store, records = decode_cases(
                cases,
                self.reader,
                file=temporary,
                progress=told and (lambda more, _: told(done + more, len(self.cases))),
            )
            shapes = dict(zip(store.case_ids, store.units.shapes, strict=True))
            entries = [
                {
                    "tag": tag,
                    "shape": shapes.get(record.case_id),
                    "content": content,
                    "record": {k: v for k, v in asdict(record).items() if k != "case_id"},
                }
                for tag, content, record in zip(tags, contents, records, strict=True)
            ]
            self._room_for(temporary.stat().st_size, len(numbers))
            text = json.dumps({"sha256": store.units.sha256, "entries": entries})
            temporary.replace(path)
        digest = hashlib.sha256(text.encode()).hexdigest()
        index = path.with_suffix(".json")
        write_text(index, f"{digest}\n{text}")
        self.listed.discard(index)
        self.values.pop(path, None)  # of a shard that was damaged or out of date
        self.look()

    def _bytes_each(self) -> int | None:
        """Of a decoded image and its entry; None where it depends on the file."""
        shape = getattr(self.reader.preprocessor, "unit_shape", None)
        return None if shape is None else 2 * math.prod(shape) + ENTRY_BYTES

    def _make_room(self, number: int) -> None:
        """Say what the images will take, and make room for them, before any is decoded."""
        total, bytes_each = len(self.cases), self._bytes_each()
        if bytes_each is None:
            log.info("%d of %d images are to be decoded", number, total)
            return
        log.info(
            "%d of %d images are to be decoded, %.2f GB", number, total, number * bytes_each / 2**30
        )
        self._refuse(total * bytes_each, number * bytes_each)
        make_room(self.images.folder, number * bytes_each, limit_bytes=self.images.limit_bytes)

    def _room_for(self, size: int, number: int) -> None:
        """Hold the limit where sizes are known only now: the images left are taken to be alike."""
        if self._bytes_each() is None:
            left = len(self.missing(range(len(self.cases)))) - number
            so_far = sum(values.nbytes for values in self.values.values()) + size
            self._refuse(so_far + size // number * left, size + size // number * left)
            make_room(self.images.folder, 0, limit_bytes=self.images.limit_bytes)

    def _refuse(self, total: int, needed: int) -> None:
        """Stop before images are decoded that there is no place for.

        Raises:
            RunError: With both ways out.
        """
        free = shutil.disk_usage(self.images.folder).free
        limit = self.images.limit_bytes
        if total <= limit and needed <= free:
            return
        gigabytes = total / 2**30
        what = f"{len(self.cases)} decoded images take {gigabytes:.2g} GB"
        if total > limit:
            found = f"{what}, and run.cache_gb allows {limit / 2**30:.2g}"
        else:
            found = f"{what}, and {free / 2**30:.2g} GB are free in the cache folder"
        raise RunError(
            found,
            fix=f"State run.cache_gb={math.ceil(gigabytes * 10) / 10:g} ({free / 2**30:.0f} GB are "
            "free), or run.cache_gb=0 to decode them anew in every run",
        )

    def _tell(self) -> None:
        """Tell how many images are there."""
        if self.progress is not None:
            self.progress(sum(tag in self.known for tag in self.tags), len(self.cases))

    def result(self) -> tuple[ImageStore, list[ReadRecord]]:
        """The store of the readable cases in their order, and one record a case."""
        files = {path: number for number, path in enumerate(self.values)}
        readable, shapes, places, records = list[str](), list[tuple[int, ...]](), [], []
        for case, tag in zip(self.cases, self.tags, strict=True):
            kept = self.known[tag]
            flags = tuple(kept.record["flags"])
            records.append(ReadRecord(**{**kept.record, "flags": flags, "case_id": case.case_id}))
            if kept.shape is not None:
                readable.append(case.case_id)
                shapes.append(kept.shape)
                places.append((files[kept.file], kept.start))
        units = Rows(tuple(self.values.values()), tuple(shapes), tuple(places))
        return ImageStore(tuple(readable), units), records


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


def _read_index(index: Path, wanted: set[str]) -> list[tuple[str, Kept]]:
    """The wanted images of a shard; none when it or its index is not what was written."""
    path = index.with_suffix(".units")
    if not path.exists():  # it made room for others
        return []
    try:
        digest, _, text = index.read_text("utf-8").partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError
        stated = json.loads(text)
        found, start = list[tuple[str, Kept]](), 0
        for entry in stated["entries"]:
            shape = None if entry["shape"] is None else tuple(entry["shape"])
            if entry["tag"] in wanted:
                kept = Kept(path, start, shape, entry["record"], entry["content"])
                found.append((entry["tag"], kept))
            start += 0 if shape is None else math.prod(shape)
        if found and sha256_file(path) != stated["sha256"]:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("some decoded images of an earlier run are damaged; they are decoded again")
        return []
    return found


def _tag(case: Case) -> str:
    """Hash of what a case's files are known by on this machine without being read."""
    return _digest(file_facts(case, with_inode=True))


def file_facts(case: Case, *, with_inode: bool = False) -> list[object]:
    """Return what the file of a case, or the files of a series, are known by without being read.

    With the inode they are those of one machine: a file put in the place of another is told then,
    whatever its time says; but another machine knows the same file by another inode.

    Example:
        >>> file_facts(Case("a", "p", Path("not/there.png")))
        ['not/there.png', None, 'there.png', 2]
    """
    facts: list[object] = [str(case.image), case.frame]
    if is_remote(case.image):
        try:
            return [*facts, version_of(case.image)]
        except ImageError as error:
            return [*facts, error.found]
    for path in _files(case.image):
        try:
            stat = path.stat()
            facts += [path.name, stat.st_size, stat.st_mtime_ns]
            facts += [stat.st_ino, stat.st_mode] if with_inode else []
        except OSError as error:
            facts += [path.name, error.errno]
    return facts


def _digest(facts: Sequence[object]) -> str:
    """Hash of some facts."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _files(path: Path) -> list[Path]:
    """A file, or the files of the folder of a series."""
    return sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]


def _is_young(path: Path) -> bool:
    """Whether a file was changed a moment ago."""
    limit = time.time() - YOUNG_SECONDS
    try:
        return any(item.stat().st_mtime > limit for item in _files(path))
    except OSError:
        return False


def _content(path: Path) -> str:
    """Hash of the bytes of a file or of a series; of what cannot be read, the reason."""
    try:
        return "/".join(sha256_file(item) for item in _files(path))
    except OSError as error:
        return f"error {error.errno}"
