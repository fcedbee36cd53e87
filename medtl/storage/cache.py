"""The folder of what can be computed again: decoded images, results of frozen layers.

It lies in the user's cache directory, not in a run folder, so that runs, folds and studies of the
same images share it. It shows patients, as the images do: only this user may open it. Everything in
it can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import medtl
from medtl.errors import RunError
from medtl.storage.atomic import TEMPORARY_MARK

LEFTOVER_SECONDS = 86_400
"""A temporary file that has not grown for so long was left by a process that was killed."""

LOCK = ".lock"
"""In a folder of the cache: whoever adds to a file holds it. It is never deleted to make room."""

MAKERS = (
    *("numpy", "scipy", "pydicom", "imagecodecs", "opencv-python-headless", "pillow", "nibabel"),
    *("tifffile", "albumentations", "albucore", "monai", "timm"),
)
"""Packages that make pixels of files, or images of images; another version may make others."""


@cache
def code_fingerprint() -> str:
    """Return a hash of this program's code and of its `MAKERS`: what they made may be out of date.

    It differs after every change of the code, needed or not: a cache may forget, never mislead.
    """
    root = Path(medtl.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    for name in MAKERS:
        try:
            digest.update(f"{name} {metadata.version(name)}".encode())
        except metadata.PackageNotFoundError:
            continue
    return digest.hexdigest()


def cache_folder(name: str) -> Path:
    """Return a folder of this user's cache directory, made with mode 0700 when it is not there.

    Raises:
        RunError: When it cannot be made.
    """
    import platformdirs

    folder = Path(platformdirs.user_cache_path("medtl", appauthor=False)) / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.parent.chmod(0o700)
    except OSError as error:
        raise RunError(
            f"the cache folder cannot be made: {error.strerror}",
            fix="Repair the rights of your cache directory, or state run.cache_gb=0",
        ) from error
    return folder


def make_room(folder: Path, needed_bytes: int, *, limit_bytes: int) -> bool:
    """Delete the files used longest ago until there is room; return whether there is.

    A file that a process holds open stays readable for it (POSIX) or stays where it is (Windows).

    Args:
        folder: A folder of the cache.
        needed_bytes: About to be written.
        limit_bytes: What the folder may hold afterwards.
    """
    if needed_bytes > limit_bytes:
        return False
    paths = (p for p in folder.rglob("*") if not p.name.endswith(LOCK) and not _is_written(p))
    files = [(path, path.stat()) for path in paths]
    size = sum(stat.st_size for _, stat in files)
    for path, stat in sorted(files, key=lambda item: item[1].st_mtime):
        if size + needed_bytes <= limit_bytes:
            break
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
            size -= stat.st_size
    return size + needed_bytes <= limit_bytes


def _is_written(path: Path) -> bool:
    """Whether a process may be writing this file now."""
    return TEMPORARY_MARK in path.name and time.time() - path.stat().st_mtime < LEFTOVER_SECONDS


def mark_used(path: Path) -> None:
    """Make a file the last to be deleted."""
    os.utime(path)
