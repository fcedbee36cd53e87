"""Files that are either wholly there or not there: nothing reads half a result.

The order is the one that survives a power cut: write a temporary name in the same folder, flush it
to the disk, rename it over the target, flush the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medtl.errors import RunError
from medtl.storage.interrupt import held

TEMPORARY_MARK = ".medtl-tmp-"
"""Part of every temporary name, so that a leftover of a killed run can be recognised."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; it replaces `path` when the block succeeds.

    The block must leave a file at the temporary path. Its name keeps the suffix of `path`, because
    writers choose the format by it. When the block fails, `path` is as it was before. Signals to
    stop wait until the block has ended.

    Args:
        path: The file to write. Its folder must exist.

    Raises:
        RunError: If the folder is missing, cannot be written, or the disk is full.
    """
    target = Path(path)
    mark = f".{target.stem[:100]}{TEMPORARY_MARK}{secrets.token_hex(6)}{target.suffix}"
    temporary = target.with_name(mark)
    with held():
        try:
            yield temporary
            _flush_to_disk(temporary)
            temporary.replace(target)
            _flush_to_disk(target.parent)
        except OSError as error:
            raise _write_error(target, error) from error
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with its line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write `data` to `path` atomically, as indented JSON with keys in the order given.

    Raises:
        ValueError: If a number is NaN or infinite: an undefined statistic is null with its reason.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the content of a JSON file; NaN, which is no JSON, is read as "no value".

    Raises:
        RunError: When the file is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RunError(
            "not a readable JSON file", where=path.name, fix="Run the step that writes it again"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of a killed process, in a folder and all below it.

    Args:
        folder: Nobody else may be writing into it.
    """
    for path in folder.rglob(f"*{TEMPORARY_MARK}*"):
        path.unlink(missing_ok=True)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_to_disk(path: Path) -> None:
    """Wait until a file, or the entry of a renamed file in its folder, is on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder and needs no flush of it
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_error(target: Path, error: OSError) -> RunError:
    """Return the error for a file that could not be written; it holds no absolute path."""
    try:
        free = f" ({shutil.disk_usage(target.parent).free >> 20} MiB are free there)"
    except OSError:
        free = ""
    return RunError(
        f"cannot be written: {error.strerror or type(error).__name__}{free}",
        where=target.name,
        fix="Check that the folder exists, may be written and has free space",
    )
