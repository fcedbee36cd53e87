"""Archives are never unpacked: this module says so, and what would have happened.

A member's name can lead outside the folder it is unpacked into (CVE-2025-58755), a link can do the
same in two steps, and a few kilobytes can unpack to terabytes. Whoever unpacks a data set does it
with a tool of their choice and gives medtl the folder.
"""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from os import PathLike
from pathlib import Path

from medtl.errors import MedtlError
from medtl.io.cost import DEFAULT_LIMITS, Limits

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf", b"Rar!")
"""First bytes of zip, gzip, bzip2, xz, 7-zip and RAR files."""

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
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        fault = f"and cannot be looked through ({type(error).__name__})"
    except (lzma.LZMAError, zlib.error):
        fault = "and corrupt"
    return MedtlError(
        f"an archive, which is never unpacked here{f'; it is unsafe: {fault}' if fault else ''}",
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
    unpacked = sum(member.file_size for member in members)
    return _size_fault(unpacked, sum(member.compress_size for member in members), limits)


def _tar_fault(path: Path, limits: Limits) -> str:
    """Return the fault of the members of a tar file, read only as far as the limits allow."""
    unpacked, size = 0, path.stat().st_size
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
    return ""


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
        return f"{packed} bytes unpack to {unpacked} or more, beyond the limit (a bomb)"
    return ""
