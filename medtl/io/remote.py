"""Files on servers and in object stores, read through a copy on this machine.

A manifest may name `https://host/film.dcm` or `s3://bucket/film.dcm` where it names files. As a
`Path` that is `https:/host/film.dcm`, which no file below a data folder can be.
"""

from __future__ import annotations

import hashlib
import re
from itertools import count
from pathlib import Path
from typing import Any

from medtl.errors import ImageError
from medtl.storage.atomic import atomic_path
from medtl.storage.cache import cache_folder, make_room, mark_used

CACHE_BYTES = 20 * 2**30
"""What the copies may take; those used longest ago make room."""

FILE_BYTES = 4 * 2**30
"""What one file may have."""

_CHUNK_BYTES = 1 << 20

_ADDRESS = re.compile(r"(https?|s3):/+([^/:][^:]*(:\d+)?[^:]*)")
"""Of one server's file. No further colons: fsspec chains file systems by them, also local ones."""

_VERSION = ("ETag", "etag", "LastModified", "last_modified", "mtime", "Content-MD5", "size")
"""What servers say of a file's content, whichever of them there is."""

_FETCHES = count(1)
_FETCHES_BETWEEN_LOOKS = 64
"""Looking for room takes time with each copy that is there."""


def is_remote(path: str | Path) -> bool:
    """Tell whether a path is the address of a file on a server or in an object store.

    >>> is_remote("s3://films/a.dcm"), is_remote(Path("https://host/a.dcm"))
    (True, True)
    >>> is_remote("films/a.dcm"), is_remote("C:/a.dcm"), is_remote("https://a::file:///b")
    (False, False, False)
    """
    text = path.as_posix() if isinstance(path, Path) else path
    return _ADDRESS.fullmatch(text) is not None


def address_of(path: Path) -> str:
    """Return the address that a path holds.

    >>> address_of(Path("https://host:8080/films/a.dcm"))
    'https://host:8080/films/a.dcm'
    """
    scheme, _, rest = path.as_posix().partition(":/")
    return f"{scheme}://{rest.lstrip('/')}"


def shown_name(path: Path) -> str:
    """Return the name of a file for messages: without what signs the address.

    >>> shown_name(Path("https://host/a.dcm?signature=abc"))
    'a.dcm'
    """
    return path.name.partition("?")[0]


def version_of(path: Path) -> tuple[str, ...]:
    """Return what the server says of a file's content now, without fetching it.

    Raises:
        ImageError: When the server does not answer, or has no such file.

    Example:
        >>> version_of(Path("http://127.0.0.1:9/a.dcm"))
        Traceback (most recent call last):
        ...
        medtl.errors.ImageError: a.dcm: the file cannot be fetched ...
    """
    try:
        system, place = _opened(path)
        told = system.info(place)
    except Exception as error:  # each protocol has errors of its own
        raise _unreachable(path, error) from error
    return tuple(f"{key} {told[key]}" for key in _VERSION if told.get(key) is not None)


def local_copy(path: Path, folder: Path | None = None) -> Path:
    """Return a copy of a file on this machine, fetched unless that version of it is there.

    Args:
        path: For which `is_remote` holds.
        folder: Of the copies; by default in this user's cache directory.

    Raises:
        ImageError: When the file cannot be fetched.
        RunError: When the copy cannot be written.

    Example:
        >>> local_copy(Path("http://127.0.0.1:9/a.dcm"))
        Traceback (most recent call last):
        ...
        medtl.errors.ImageError: a.dcm: the file cannot be fetched ...
    """
    folder = cache_folder("remote") if folder is None else folder
    known_by = repr((address_of(path), version_of(path)))
    digest = hashlib.sha256(known_by.encode()).hexdigest()[:32]
    copy = folder / f"{digest}-{shown_name(path)[-80:]}"
    if copy.is_file():
        mark_used(copy)
        return copy
    with atomic_path(copy) as temporary:
        try:
            _fetch(path, temporary)
        except ImageError:
            raise
        except Exception as error:
            raise _unreachable(path, error) from error
    if next(_FETCHES) % _FETCHES_BETWEEN_LOOKS == 0:
        make_room(folder, 0, limit_bytes=CACHE_BYTES)
    return copy


def _fetch(path: Path, to: Path) -> None:
    """Write a file's bytes as they come; a server may send without an end."""
    system, place = _opened(path)
    as_stream = {"block_size": 0} if path.parts[0].startswith("http") else {}
    taken = 0
    with system.open(place, "rb", **as_stream) as source, to.open("wb") as copy:
        while chunk := source.read(_CHUNK_BYTES):
            taken += len(chunk)
            if taken > FILE_BYTES:
                raise ImageError(
                    f"larger than the limit of {FILE_BYTES >> 20} MiB", where=shown_name(path)
                )
            copy.write(chunk)


def _opened(path: Path) -> tuple[Any, str]:
    """The file system of an address, and the place in it."""
    import fsspec

    found: tuple[Any, str] = fsspec.core.url_to_fs(address_of(path))
    return found


def _unreachable(path: Path, error: Exception) -> ImageError:
    """The error for a file that cannot be fetched. It quotes no address: that may be signed."""
    if isinstance(error, ImportError):
        extra = "s3" if path.parts[0] == "s3:" else "remote"
        return ImageError(
            f"a library for {path.parts[0]}// is not installed",
            where=shown_name(path),
            fix=f"Run pip install 'medtl[{extra}]'",
        )
    return ImageError(
        f"the file cannot be fetched ({type(error).__name__})",
        where=shown_name(path),
        fix="Check the address, and that this machine may read it",
    )
