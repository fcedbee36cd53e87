"""Archives are never unpacked: this module says so, and what would have happened.

A member's name can lead outside the folder it is unpacked into (CVE-2025-58755), a link can do the
same in two steps, and a few kilobytes can unpack to terabytes. Whoever unpacks a data set does it
with a tool of their choice and gives medtl the folder.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from medtl.errors import MedtlError
from medtl.io.cost import DEFAULT_LIMITS, Limits

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf", b"Rar!")
"""First bytes of zip, gzip, bzip2, xz, 7-zip and RAR files."""

_NESTED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tar")
"""Endings of archives inside an archive, but for .nii.gz."""

_GLANCE_BYTES = 64 << 20
"""Of a compressed single file, so much is inflated to tell a bomb by."""

_MOST_MEMBERS = 100_000
"""Members that are looked at."""


def is_archive(path: str | PathLike[str]) -> bool:
    r"""Return whether the bytes of a regular file are those of an archive or a compressed file.

    >>> from pathlib import Path
    >>> _ = Path("study.zip").write_bytes(b"PK\x03\x04")
    >>> is_archive(Path("study.zip"))
    True
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(262)
    return head.startswith(_MAGIC) or head[257:262] == b"ustar"


def archive_error(path: str | PathLike[str], limits: Limits = DEFAULT_LIMITS) -> MedtlError:
    """Return the error for an archive where data were expected; it names the worst of its faults.

    Args:
        path: The archive. Nothing of it is written anywhere.
        limits: Sizes that a harmless archive keeps to.

    >>> import zipfile
    >>> from pathlib import Path
    >>> with zipfile.ZipFile("study.zip", "w") as archive:
    ...     archive.writestr("../outside.dcm", b"")
    ...
    >>> print(archive_error(Path("study.zip")))
    study.zip: an archive, which is never unpacked here; it is unsafe: member 1 has a ...
    """
    path = Path(path)
    try:
        fault = _zip_fault(path, limits) if zipfile.is_zipfile(path) else _tar_fault(path, limits)
        said = f"; it is unsafe: {fault}" if fault else ""
    except tarfile.ReadError:
        said = _single_stream(path, limits)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:
        said = f"; it cannot be looked through ({type(error).__name__})"
    except (lzma.LZMAError, zlib.error, EOFError):
        said = "; it is corrupt"
    return MedtlError(
        f"an archive, which is never unpacked here{said}",
        expected="a folder or a table",
        where=path.name,
        fix="Unpack it with a tool that refuses paths outside its folder, and give the folder",
    )


def _zip_fault(path: Path, limits: Limits) -> str:
    """Return the fault of the members of a zip file, by its directory alone; "" for none."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()[:_MOST_MEMBERS]
    for number, member in enumerate(members, 1):
        if fault := _name_fault(member.filename):
            return f"member {number} {fault}"
        if stat.S_ISLNK(member.external_attr >> 16):
            return f"member {number} is a link"
        if not member.filename.lower().endswith(".nii.gz") and (
            PurePosixPath(member.filename).suffix.lower() in _NESTED
        ):
            return f"member {number} is an archive itself, which could be nested without end"
    packed, unpacked = (
        sum(sizes) for sizes in zip(*((m.compress_size, m.file_size) for m in members), strict=True)
    )
    if packed > path.stat().st_size:
        return "its members overlap, as in a bomb"
    if len({member.filename for member in members}) < len(members):
        return "two members have one name, and the second would replace the first"
    return _size_fault(unpacked, packed, limits)


def _tar_fault(path: Path, limits: Limits) -> str:
    """Return the fault of the members of a tar file, read only as far as the limits allow."""
    unpacked, size, number = 0, path.stat().st_size, 0
    with tarfile.open(path) as archive:
        for number, member in enumerate(archive, 1):
            if fault := _name_fault(member.name):
                return f"member {number} {fault}"
            if not (member.isreg() or member.isdir()):
                return f"member {number} is a link or a device, not a file"
            unpacked += member.size
            if fault := _size_fault(unpacked, size, limits):
                return fault
            if unpacked > limits.inflate_free_bytes or number >= _MOST_MEMBERS:
                break
    if number == 0:  # zeros are an empty tar archive
        raise tarfile.ReadError("no members")
    return ""


def _single_stream(path: Path, limits: Limits) -> str:
    """Return what is to be said of a compressed file that holds no tar archive."""
    openers: dict[bytes, Callable[[Path], Any]]
    openers = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with path.open("rb") as file:
        opener = openers.get(file.read(2))
    if opener is None:
        return "; it cannot be looked through"
    size, inflated = path.stat().st_size, 0
    try:
        with opener(path) as stream:
            while inflated < _GLANCE_BYTES and (chunk := stream.read(1 << 20)):
                inflated += len(chunk)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return "; it is corrupt"
    if inflated > limits.inflate_ratio * size and inflated >= _GLANCE_BYTES:
        return f"; it is unsafe: {size} bytes unpack to {inflated} or more, as in a bomb"
    return "; it holds a single file"


def _name_fault(name: str) -> str:
    """Return the fault of a member's name; it is not quoted, it may name a person."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "has an absolute path, outside the folder"
    if ".." in re.split(r"[/\\]", name):
        return "has a path that leads outside the folder"
    return ""


def _size_fault(unpacked: int, packed: int, limits: Limits) -> str:
    """Return the fault of the sizes, "" for none."""
    if unpacked > limits.inflate_free_bytes and unpacked > limits.inflate_ratio * max(packed, 1):
        times = unpacked // max(packed, 1)
        sizes = f"{packed} bytes unpack to {unpacked} or more ({times} times)"
        return f"{sizes}, beyond the limit (a bomb)"
    return ""
