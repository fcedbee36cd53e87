"""One process at a time: locks of the operating system, on Linux, macOS and Windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medtl.errors import RunError


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[None]:
    """Keep every other process out while the block runs.

    The lock is the operating system's, so it ends with the process, however that ends. The empty
    file stays: to delete it would let two processes lock two files of one name.

    Args:
        file: Made when it is not there; its folder must exist.
        wait: Wait for the other process instead of refusing.

    Raises:
        RunError: When another process holds the lock and `wait` is not asked for.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout=-1 if wait else 0, poll_interval=0.01)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(
            "another process works in this folder",
            where=str(file.parent),
            fix="Wait for it, or choose another --out",
        ) from error
    try:
        yield
    finally:
        lock.release()
