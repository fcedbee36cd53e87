"""Sheets of Excel (.xlsx, .xls) and LibreOffice (.ods) as rows of texts."""

from __future__ import annotations

import zipfile
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
        ManifestError: Two sheets hold cells, none does, or the file is damaged or too large.
    """
    import python_calamine as calamine

    _refuse_bomb(path)
    try:
        with path.open("rb") as file:  # not by name: the bytes say which kind it is
            book = calamine.load_workbook(file)
            sheets = {
                name: book.get_sheet_by_name(name).to_python(skip_empty_area=False)
                for name in book.sheet_names
            }
    except (calamine.CalamineError, OSError, ValueError) as error:
        found = f"a spreadsheet that cannot be read ({type(error).__name__})"
        raise ManifestError(found, fix=_FIX) from error
    filled = {name: rows for name, rows in sheets.items() if any(any(row) for row in rows)}
    if len(filled) != 1:
        names = ", ".join(f"'{name[:30]}'" for name in filled) or "none"
        raise ManifestError(
            f"{len(filled)} sheets hold cells ({names})",
            expected="one",
            fix="Save the one with a row per image as CSV UTF-8, or delete the others",
        )
    (rows,) = filled.values()
    return [[_text(value) for value in row] for row in rows]


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
