"""From the cell of a manifest to the file that it names, or to why there is none."""

from __future__ import annotations

import functools
import os
import stat
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PureWindowsPath

from medtl.io.remote import address_of, is_remote

_IMAGE_ENDINGS = (".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz")
"""Endings that a table may leave out, or write in another case."""


_LISTED_AFTER = 16
"""Files of one folder that are looked at one by one, before the folder is read as a whole."""


def locator(root: Path, respelled: list[str]) -> Callable[[str], str | tuple[str, str]]:
    """Return a function from a cell to the path it names below `root`, or to a fault and its fix.

    The path is a text: a million of them are checked sooner than made into objects.

    A name without its ending, in another case or with backslashes is taken where one file alone can
    be meant, and kept in `respelled`. Links are followed before the check, so that none leads out
    of the folder.
    """
    outside = "the path leads outside the manifest's folder (absolute, `..` or a link)"
    inside = "Put the file below the manifest, and write its path relative to it"
    real_folder = functools.cache(lambda folder: folder.resolve())
    names_in = functools.cache(_names_in)  # of this reading: files come and go between two

    as_written = _plain_files(root)

    def locate(cell: str) -> str | tuple[str, str]:
        if not cell:
            return "no path", "Fill the cell or delete the row"
        if (known := as_written(cell) or _on_a_server(cell)) is not None:
            return known
        path = root / cell
        try:
            path = path.resolve() if path.is_symlink() else real_folder(path.parent) / path.name
            if path.name == ".." or path == root or not path.is_relative_to(root):
                return outside, inside
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            meant = _meant(cell, root, names_in)
            if meant is None:
                return _missing(cell, root)
            respelled.append(meant)
            return locate(meant)
        except (OSError, ValueError, RuntimeError):  # name too long, NUL, a loop of links
            return "the path cannot be used", inside
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return "neither a file nor a folder", "Name an image file or the folder of a series"
        return str(path)

    return locate


def path_below(path: Path, root: Path) -> str:
    """Return a file's path below a folder, its name alone if it lies elsewhere.

    Example:
        >>> path_below(Path("films/a/1.png"), Path("films"))
        'a/1.png'
    """
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _on_a_server(cell: str) -> str | tuple[str, str] | None:
    """The path of an address, or why it cannot be one; None for the files of this machine."""
    if not is_remote(cell):
        return None
    path = Path(cell)
    if address_of(path) == cell:
        return str(path)
    return "the address cannot be used", "Write it without // and /./ in its path"


def _plain_files(root: Path) -> Callable[[str], str | None]:
    """Return a quick function for most cells: to the plain file below `root` of that very name."""

    @functools.cache
    def folder_of(part: str) -> _Folder | None:
        real = (root / part).resolve()
        return _Folder(f"{real}{os.sep}") if real.is_dir() and real.is_relative_to(root) else None

    def as_written(cell: str) -> str | None:
        part, _, name = cell.rpartition("/")
        if name in ("", ".", "..") or "\\" in cell:
            return None
        with suppress(OSError, ValueError, RuntimeError):
            folder = folder_of(part)
            if folder is not None and folder.has_plain(name):
                return folder.path + name
        return None

    return as_written


class _Folder:
    """One folder: which plain files lie in it, for a table that asks after few or after all."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._asked = 0
        self._unseen: set[str] = set()

    def has_plain(self, name: str) -> bool:
        """Return whether the name is that of a plain file, neither a link nor a folder.

        Raises:
            OSError: When there is none of that name.
        """
        self._asked += 1
        if self._asked == _LISTED_AFTER:  # one look at all costs as much as a few at one
            with os.scandir(self.path) as entries:
                self._unseen = {one.name for one in entries if one.is_file(follow_symlinks=False)}
        if name in self._unseen:
            self._unseen.remove(name)  # asked after once: a set of all names takes memory
            return True
        return stat.S_ISREG(os.lstat(self.path + name).st_mode)


def _meant(cell: str, root: Path, names_in: Callable[[Path], tuple[str, ...]]) -> str | None:
    """The path that a cell can only mean: of one file alone that differs in ending, case, slashes.

    A stated ending of another format ("a.jpg" where "a.png" lies) is no spelling of it.
    """
    if PureWindowsPath(cell).is_absolute():
        return None
    path = root / cell.replace("\\", "/")
    if not path.resolve().is_relative_to(root):
        return None
    stem, ending = _stem(path.name), _ending(path.name)
    twins = [
        name
        for name in names_in(path.parent)
        if _stem(name) == stem and (not ending or _ending(name) == ending)
    ]
    if len(twins) != 1:
        return None
    found = (path.parent / twins[0]).relative_to(root).as_posix()
    return found if found != cell else None


def _missing(cell: str, root: Path) -> tuple[str, str]:
    """Return the fault and the fix for a path at which there is nothing."""
    if PureWindowsPath(cell).is_absolute():
        return "the path is absolute", "Write it relative to the manifest's folder"
    path = root / cell.replace("\\", "/")
    lost = [folder for folder in path.parents if root in folder.parents and not folder.exists()]
    if lost:
        found = f"the folder {lost[-1].relative_to(root).as_posix()} is not found"
        return found, "Correct the path"
    # A cell that does not look like a path may be a name that slipped into the column.
    name = f" {Path(cell).as_posix()}" if "/" in cell or Path(cell).suffix else ""
    return f"the file{name} is not found", "Correct the path or delete the row"


def _names_in(folder: Path) -> tuple[str, ...]:
    """Names of the files in a folder; none when it is not there."""
    try:
        return tuple(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        return ()


def _ending(name: str) -> str:
    """The ending of an image's file name, without case; "" for none that is known."""
    endings = [ending for ending in _IMAGE_ENDINGS if name.casefold().endswith(ending)]
    return max(endings, key=len, default="")


def _stem(name: str) -> str:
    """A file's name without the ending of an image, in one form of Unicode and without case."""
    return unicodedata.normalize("NFC", name).casefold().removesuffix(_ending(name))
