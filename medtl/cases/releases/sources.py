"""The rows of a release: of its tables, of the names of its files, of arrays; and their joins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medtl.cases.releases.cells import Oddities, ReleasedRow, column_of, filled
from medtl.errors import ManifestError
from medtl.storage.tables import raise_together, read_table

SOURCE_KEYS = ("table", "files", "arrays", "header", "set", "parts", "optional")
"""Keys of a source of rows."""

JOIN_KEYS = ("table", "text", "match", "header", "set", "on", "optional", "columns")
"""Keys of a join."""

_DEEPEST = 2
"""Folders that are looked into for a release that lies below the one named."""


class Release:
    """A folder of a release: which files it holds, each folder listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}
        self._globbed: dict[str, dict[str, list[str]]] = {}

    def has(self, path: str) -> bool:
        """Return whether a relative path is a file below the folder, or the folder of a series."""
        parent, _, name = path.rpartition("/")
        if ".." in path.split("/") or path.startswith("/"):
            return False
        if parent not in self._names:
            folder = self.root / parent
            there = os.scandir(folder) if folder.is_dir() else ()
            self._names[parent] = frozenset(entry.name for entry in there)
        return name in self._names[parent]

    def found(self, template: str, path: str) -> list[str]:
        """Return the files that a filled template names; `*` stands for any part of a name."""
        if "*" not in path:
            return [path] if self.has(path) else []
        shape = re.sub(r"\{[^{}]+\}", "*", template)
        if shape not in self._globbed:
            self._globbed[shape] = {}
            pattern = re.compile(_regex(re.sub(r"\{[^{}]+\}", "{}", template)))
            for file in sorted(self.root.glob(shape)):
                name = file.relative_to(self.root).as_posix()
                match = pattern.fullmatch(name)
                if match:
                    key = "\n".join(match.groups())
                    self._globbed[shape].setdefault(key, []).append(name)
        wanted = re.compile(_regex(re.sub(r"\{[^{}]+\}", "{}", template))).fullmatch(path)
        return self._globbed[shape].get("\n".join(wanted.groups()), []) if wanted else []

    def named(self, pattern: str) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the files that a pattern with {NAMES} fits, and what the names stand for."""
        regex = re.compile(_regex(pattern))
        shape = re.sub(r"\{[^{}]+\}", "*", pattern)
        for file in sorted(self.root.glob(shape)):
            name = file.relative_to(self.root).as_posix()
            match = regex.fullmatch(name)
            if match and not file.name.startswith("."):
                yield name, match.groupdict()


def find_release(folder: Path, needed: Sequence[Sequence[str]]) -> Path | None:
    """Return the folder that holds a release: this one, or the one alone below it that does.

    Args:
        folder: What the user named.
        needed: Alternatives of each file that must be there, or a pattern with {NAMES} or `*`.
    """
    level = [folder]
    for _ in range(_DEEPEST + 1):
        fitting = [one for one in level if all(_is_there(one, names) for names in needed)]
        if fitting:
            return fitting[0] if len(fitting) == 1 else None
        level = [below for one in level for below in sorted(one.iterdir()) if below.is_dir()][:200]
    return None


def _is_there(folder: Path, names: Sequence[str]) -> bool:
    """Whether one of some files lies in a folder."""
    for name in names:
        shape = re.sub(r"\{[^{}]+\}", "*", name)
        if (folder / name).is_file() if shape == name else next(folder.glob(shape), None):
            return True
    return False


def rows_of(release: Release, source: Mapping[str, Any]) -> Iterator[ReleasedRow]:
    """Yield the rows of one source: a table, or the names of files.

    Raises:
        ManifestError: The table is not there or faulty.
    """
    told = {str(name): str(value) for name, value in source.get("set", {}).items()}
    if "files" in source:
        for pattern in texts(source["files"], "files"):
            for name, parts in release.named(pattern):
                yield ReleasedRow({**parts, "file": name, **told}, name, 0)
        return
    columns, rows, name = _table(release, source)
    for line, cells in rows:
        yield ReleasedRow({**dict(zip(columns, cells, strict=True)), **told}, name, line)


def joined(
    rows: Sequence[ReleasedRow], release: Release, join: Mapping[str, Any], odd: Oddities
) -> list[ReleasedRow]:
    """Return the rows with the columns of another table, or of a text beside each image.

    Args:
        rows: To join.
        release: Their folder.
        join: `table` (with `on`: the columns that both have, or ours -> theirs) or `text` (with
            `match`: a pattern whose named groups become columns); `optional` lets rows be without,
            `optional: table` all of them (their `columns` are then empty).
        odd: Takes the rows that have no partner, or several.
    """
    if "text" in join:
        return [_with_text(row, release, join, odd) for row in rows]
    names = texts(join["table"], "table")
    if join.get("optional") == "table" and not any(map(release.has, names)):
        odd.noted[f"are without {names[0]}, which is not there"] = len(rows)
        blank = dict.fromkeys([*join.get("columns", ()), *map(str, join.get("set", {}))], "")
        return [replace(row, cells={**blank, **row.cells}) for row in rows]
    columns, others, name = _table(release, join)
    on = join["on"]
    pairs = [*on.items()] if isinstance(on, dict) else [(one, one) for one in on]
    index = {theirs: columns.index(column_of(theirs, columns)) for _, theirs in pairs}
    known: dict[tuple[str, ...], dict[str, str]] = {}
    told = {str(key): str(value) for key, value in join.get("set", {}).items()}
    for line, cells in others:
        key = tuple(cells[i] for i in index.values())
        new = {**dict(zip(columns, cells, strict=True)), **told}
        if known.setdefault(key, new) != new:
            row = ReleasedRow(new, name, line)
            odd.fault(row, f"the ids {', '.join(index)} stand in several rows that differ")
    made = []
    lonely = 0
    for row in rows:
        key = tuple(row.cells[column_of(ours, row.cells)] for ours, _ in pairs)
        partner = known.get(key)
        if partner is None and not join.get("optional"):
            odd.fault(row, f"no row of {name} has its {', '.join(index)}")
        lonely += partner is None
        theirs = partner if partner is not None else dict.fromkeys([*columns, *told], "")
        apart = [c for c in theirs if theirs[c] and row.cells.get(c) not in ("", None, theirs[c])]
        if apart:
            odd.fault(row, f"{name} says another {' and '.join(apart)} than the tables before it")
        ours = {c: cell for c, cell in row.cells.items() if cell or c not in theirs}
        made.append(replace(row, cells={**theirs, **ours}))
    if lonely and "set" not in join:  # the lists of a split say nothing of each other's rows
        odd.noted[f"have no row in {name}: its columns are empty for them"] += lonely
    return made


def _with_text(
    row: ReleasedRow, release: Release, join: Mapping[str, Any], odd: Oddities
) -> ReleasedRow:
    """A row with what a text beside its image says."""
    name = filled(join["text"], row.cells)
    pattern = re.compile(join["match"])
    found = None
    if release.has(name):
        text = (release.root / name).read_bytes()[:10_000].decode("utf-8", "replace")
        found = pattern.search(text)
        if found is None:
            odd.fault(row, f"{name} is not of the form {join['match']}")
    elif not join.get("optional"):
        odd.fault(row, "the text of the image is not there", expected=join["text"])
    else:
        odd.noted[f"have no {join['text']}"] += 1
    groups = found.groupdict() if found else dict.fromkeys(pattern.groupindex, "")
    facts = {key: (value or "").strip() for key, value in groups.items()}
    return replace(row, cells={**row.cells, **facts})


def _table(
    release: Release, source: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[tuple[int, tuple[str, ...]]], str]:
    """Columns, numbered rows and name of the first of some tables that is there."""
    names = texts(source.get("table"), "table")
    there = [name for name in names if (release.root / name).is_file()]
    if not there:
        raise ManifestError(
            "the table is not there",
            expected=f"one of {', '.join(names)}",
            where=release.root.name,
        )
    table = read_table(release.root / there[0])
    raise_together(table.faults, there[0])
    rows = [*zip(table.lines, table.rows, strict=True)]
    if "header" not in source:
        return table.columns, rows, there[0]
    header = tuple(source["header"])
    if len(header) != len(table.columns):
        found = f"{len(table.columns)} columns"
        raise ManifestError(found, expected=f"{len(header)}: {', '.join(header)}", where=there[0])
    return header, [(1, table.columns), *rows], there[0]


def texts(given: Any, key: str) -> list[str]:
    """Return one text or a list of them.

    Raises:
        ManifestError: It is neither.
    """
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not listed or not all(isinstance(t, str) for t in listed):
        raise ManifestError(f"no '{key}'", expected="a text or a list of texts")
    return listed


def _regex(pattern: str) -> str:
    """A pattern with {NAMES}, {} and `*` as a regular expression; a name twice is the same text."""
    seen: set[str] = set()
    parts = []
    for literal, name in re.findall(r"([^{]*)(\{[^{}]*\})?", pattern):
        parts.append(r"[^/]*".join(map(re.escape, literal.split("*"))))
        word = name[1:-1]
        if name:
            parts.append(
                f"(?P={word})" if word in seen else rf"({f'?P<{word}>' if word else ''}[^/]+?)"
            )
            seen |= {word} - {""}
    return "".join(parts)
