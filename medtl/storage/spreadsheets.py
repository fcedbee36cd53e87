"""Sheets of Excel (.xlsx, .xls) and LibreOffice (.ods) as rows of texts."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from medtl.errors import ManifestError

ENDINGS = (".xlsx", ".xlsm", ".xls", ".ods")

TABLES = frozenset({".csv", ".tsv", ".txt", ".parquet", *ENDINGS})
"""Endings of whatever `storage.tables.read_table` takes for a table."""

_MAX_UNPACKED = 1 << 30
"""Bytes that the parts of a zipped sheet may declare."""

_FIX = "Save the sheet as CSV UTF-8"


def read_sheet(path: Path) -> list[list[str]]:
    """Return the cells of the one sheet that holds any, as texts; whole numbers without ".0".

    Args:
        path: Of `ENDINGS`. Formulas give the value that was last computed.

    Raises:
        ManifestError: Two sheets hold cells, none does, cells among others are merged, or
            the file is damaged or too large.
    """
    import python_calamine as calamine

    _refuse_bomb(path)
    try:
        with path.open("rb") as file:  # not by name: the bytes say which kind it is
            book = calamine.load_workbook(file)
            found = {name: book.get_sheet_by_name(name) for name in book.sheet_names}
            sheets = {name: one.to_python(skip_empty_area=False) for name, one in found.items()}
            merged = {name: one.merged_cell_ranges or () for name, one in found.items()}
    except (calamine.CalamineError, OSError, ValueError) as error:
        raise ManifestError(
            f"a spreadsheet that cannot be read ({type(error).__name__})", fix=_FIX
        ) from error
    filled = {name: rows for name, rows in sheets.items() if any(any(row) for row in rows)}
    if len(filled) != 1:
        names = ", ".join(f"'{name[:30]}'" for name in filled) or "none"
        raise ManifestError(
            f"{len(filled)} sheets hold cells ({names})",
            expected="one",
            fix="Save the one with a row per image as CSV UTF-8, or delete the others",
        )
    ((name, rows),) = filled.items()
    _refuse_merged(merged[name], rows)
    return [[_text(value) for value in row] for row in rows]


def _refuse_merged(
    ranges: Iterable[tuple[tuple[int, int], tuple[int, int]]], rows: list[list[Any]]
) -> None:
    """Raise when cells of a row with other cells are merged: all but one are stored empty.

    A title is merged over a row of its own.
    """

    def is_among_others(first: tuple[int, int], last: tuple[int, int]) -> bool:
        own = range(first[1], last[1] + 1)
        cells = (pair for row in rows[first[0] : last[0] + 1] for pair in enumerate(row))
        return any(cell != "" and column not in own for column, cell in cells)

    odd = [(first, last) for first, last in ranges if is_among_others(first, last)]
    if odd:
        shown = ", ".join(f"{_cell(*first)}:{_cell(*last)}" for first, last in odd[:8])
        raise ManifestError(
            f"merged cells ({shown}{', ...' if odd[8:] else ''}): one holds the value, the others "
            "nothing",
            expected="every cell by itself",
            fix="Unmerge them in the spreadsheet, and write the value into each that it holds for",
        )


def _cell(row: int, column: int) -> str:
    """The name of a cell by its numbers from 0.

    >>> _cell(0, 0), _cell(9, 27)
    ('A1', 'AB10')
    """
    letters, left = "", column + 1
    while left:
        left, letter = divmod(left - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return f"{letters}{row + 1}"


def _refuse_bomb(path: Path) -> None:
    """Raise when a zipped sheet declares more bytes than any table has."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as parts:
            declared = sum(part.file_size for part in parts.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ManifestError("a damaged spreadsheet", fix=_FIX) from error
    if declared > _MAX_UNPACKED:
        raise ManifestError(
            f"a spreadsheet that unpacks to {declared >> 20} MiB",
            expected=f"at most the limit of {_MAX_UNPACKED >> 20} MiB",
            fix=_FIX,
        )


def _text(value: Any) -> str:
    """A typed cell as the text that a reader of the sheet sees."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()
    return value.isoformat() if isinstance(value, date) else str(value).strip()
