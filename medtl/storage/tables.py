"""Tables as people write them, read as text: what a cell says is what comes out.

Nothing is converted: the id 007 stays 007, the class "NA" stays "NA", an empty cell is "". Faults
are collected, so that a table is put right in one go, and no message quotes a cell: a cell can hold
a name.

The reader is Python's `csv`, not pandas: every fault and every case names its line, which pandas
does not tell (quoted cells may hold line ends), and it drops or pads rows of another length.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import hashlib
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO, StringIO, TextIOWrapper
from os import PathLike
from pathlib import Path
from typing import Any

from medtl.errors import LeakError, ManifestError, MedtlError, located
from medtl.storage import atomic
from medtl.storage.spreadsheets import ENDINGS, read_sheet

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Separators of the cells of a text table; the one that gives the most columns is taken."""

MAX_LISTED = 20
"""Faults written out in one message."""

_LISTED_ROWS = 10
"""Row numbers written out in one message."""

MAX_BYTES = 512 << 20
"""A table of a million images has a fifth of it."""

MAX_COLUMNS = 4096
"""More are a table that lies on its side."""

_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of .xlsx and .ods (zip files) and of .xls."""

_GZIP_ONLY = 31
"""`wbits` of zlib for a gzip header, checksum included."""

_MOST_TITLES = 5
"""Lines of a title above a header that are looked at."""

_TITLES = "{} lines above the header, of one cell each, are left out"

_HEAD_BYTES = 1 << 20
"""More than any header has."""

_DANGEROUS = re.compile(r"'*[=+\-@\t\r]")
"""Start of a text that a spreadsheet would run as a formula, with the quotes that defuse it."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?inf")

_COMMA_NUMBER = re.compile(r"[-+]?\d+(,\d+)?([eE][-+]?\d+)?")

_LEGACY = {"cp949": "Korean CP949", "cp1252": "Windows-1252"}
"""Encodings of old spreadsheets that can be told from each other."""

_HANGUL = re.compile(r"[\x01-\x7f가-힣]*")
_WESTERN = re.compile(
    r"[\x01-\x7fÀ-ÖØ-öø-ÿŒœŠšŽžŸƒ€‚„…†‡‰‹‘’“”•–—™›\xa0¡£§©ª«\xad®°±²³´µ¶·¸¹º»¼½¾¿×÷]*"
)

_SIGN_IN_A_WORD = re.compile(r"(?<=[^\W\d])[¡-¬®-¿×÷](?=[^\W\d])")
"""Polish z\u0142amanie reads z\u00b3amanie in the Western code page: another one is meant."""

_Record = tuple[int, list[str]]
"""Line number and cells of a row."""

_EMPTY_FIX = "Write a header line and one row per image"
_NUL_FIX = "Save the table as 'CSV UTF-8'; it may be UTF-16 without a mark, or damaged"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        columns: Names, in order.
        rows: Cells of each row, in the order of `columns`.
        lines: Line number of each row in the file; the header is line 1.
        sha256: Hash of the file's bytes.
        notes: What was decided while reading ("the columns are separated by semicolons").
        faults: What is wrong with single rows, which `rows` then lacks.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    sha256: str
    notes: tuple[str, ...] = ()
    faults: tuple[ManifestError, ...] = ()


def read_table(path: str | PathLike[str]) -> Table:
    """Return the table in a CSV (also .csv.gz), Parquet, Excel or LibreOffice file.

    Of text, the separator (commas, semicolons, tabs, vertical bars), the encoding (UTF-8, UTF-16,
    Windows-1252, Korean CP949), a line `sep=;`, lines of comment or a title above the header, a
    column of row numbers without a name, an empty last column and decimal commas are recognised,
    and said in the notes.

    Faults of single rows are in `Table.faults`; the caller raises them with its own.

    Raises:
        ManifestError: If there is no table to speak of: no file, no text, no usable header.
    """
    path = Path(path)
    with located(path.name):
        data = _read_bytes(path)
        sha256 = hashlib.sha256(data).hexdigest()
        said, faults = list[str](), list[ManifestError]()
        if path.suffix.lower() == ".parquet":
            columns, records = _parquet_records(path)
        elif path.suffix.lower() in ENDINGS:
            columns, records = _framed(_untitled(_sheet_records(path), said), said)
        else:
            read, faults, delimiter = _text_records(data, said)
            columns, records = _framed(read, said)
            read.clear()
            if delimiter != ",":
                _point_decimals(columns, records, said)
        rows, lines, row_faults = _checked_rows(records, len(columns))
        notes = tuple(f"{path.name}: {note}" for note in said)
        return Table(columns, rows, lines, sha256, notes, (*row_faults, *faults))


def read_columns(path: str | PathLike[str]) -> list[str]:
    """Return the names of a table's columns without reading its rows.

    Raises:
        ManifestError: As `read_table`, for the header.
    """
    path = Path(path)
    with located(path.name):
        if path.suffix.lower() == ".parquet":
            return list(_checked_columns(_parquet(path).schema_arrow.names))
        if path.suffix.lower() in ENDINGS:
            return list(_framed(_untitled(_sheet_records(path), []), [])[0])
        read, _, _ = _text_records(_read_bytes(path, _HEAD_BYTES), [], most=1)
        return list(_framed(read, [])[0])


def write_table(rows: Sequence[Mapping[str, Any]], path: str | PathLike[str]) -> None:
    """Write rows as a CSV file, atomically: UTF-8, commas, Unix line ends.

    Texts that a spreadsheet would run as a formula get a leading apostrophe, which `read_table`
    takes away again. Numbers, also negative ones, stay as they are.

    Args:
        rows: Column -> value of each row; None and missing columns become empty cells.
        path: The CSV file.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([defuse(name) for name in columns])
    writer.writerows([defuse(row.get(name)) for name in columns] for row in rows)
    atomic.write_text(path, text.getvalue())


def raise_together(faults: Sequence[MedtlError], name: str = "") -> None:
    """Raise one error that lists all faults; do nothing when there are none.

    Raises:
        LeakError: If every fault is one.
        ManifestError: Otherwise.
    """
    if not faults:
        return
    kind = LeakError if all(isinstance(fault, LeakError) for fault in faults) else ManifestError
    with located(name):
        if len(faults) == 1:
            (one,) = faults
            raise kind(one.found, expected=one.expected, where=one.where, fix=one.fix)
        lines = [f"\n  - {fault}" for fault in faults[:MAX_LISTED]]
        more = len(faults) - MAX_LISTED
        lines += [f"\n  - and {more} more"] if more > 0 else []
        raise kind(f"{len(faults)} faults{''.join(lines)}")


def rows_text(lines: Sequence[int]) -> str:
    """Return numbers of rows in words, the first few written out.

    >>> rows_text([7]), rows_text(range(2, 15))
    ('row 7', 'rows 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more')
    """
    shown = ", ".join(map(str, sorted(lines)[:_LISTED_ROWS]))
    more = f" and {len(lines) - _LISTED_ROWS} more" if len(lines) > _LISTED_ROWS else ""
    return f"{'row' if len(lines) == 1 else 'rows'} {shown}{more}"


def nearest(name: str, names: Iterable[str], *, likeness: float = 0.7) -> str:
    """Return the name that was probably meant, whatever its case and separators, or "".

    Args:
        name: What was written, or looked for.
        names: What there is.
        likeness: Least ratio of matching characters, 1.0 for all.
    """
    folded = {_fold(one): one for one in names}
    near = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=likeness)
    return folded[near[0]] if near else ""


def looks_like_data(cell: str) -> bool:
    """Return whether the name of a column looks like a value, so that there may be no header."""
    return not cell or bool(re.search(r"[/\\^]|\.\w{2,4}$|^\W*\d", cell))


def _read_bytes(path: Path, size: int = -1) -> bytes:
    """Return the first bytes of a file, all by default."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
            raise ManifestError("not a regular file", expected="a table")
        if path.stat().st_size > MAX_BYTES:
            raise ManifestError(
                f"larger than the limit of {MAX_BYTES >> 20} MiB",
                fix="Keep the columns that the study needs, or divide the table",
            )
        with path.open("rb") as file:
            data = file.read(size)
    except OSError as error:
        found = f"the file is not found or cannot be read ({error.strerror})"
        raise ManifestError(found, fix="Check the path") from error
    if path.suffix.lower() == ".gz":
        data = _unzipped(data, MAX_BYTES if size < 0 else size)
    _refuse_other_texts(data)
    if data.startswith(_SPREADSHEETS) and path.suffix.lower() not in ENDINGS:
        raise ManifestError(
            "a spreadsheet or an archive, whatever its name says",
            expected=f"a table, or a spreadsheet named {', '.join(ENDINGS)}",
            fix="Give it the ending of what it is, or save the sheet as CSV UTF-8",
        )
    return data


def _refuse_other_texts(data: bytes) -> None:
    """Refuse what is a text and no table, by what it begins with."""
    start = data[:200].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    kinds = {
        (b"<html", b"<!doctype", b"<table", b"<?xml", b"<meta"): (
            "an HTML or XML page, as some systems export it under the name of a table",
            "Open it in a spreadsheet and save it as .xlsx or CSV UTF-8",
        ),
        (b'{"', b"[{", b"[\n"): (
            "JSON, no table",
            "Write it as CSV: pandas.read_json(FILE, lines=...).to_csv(index=False)",
        ),
    }
    for beginnings, (found, fix) in kinds.items():
        if start.startswith(beginnings):
            raise ManifestError(found, expected="a table", fix=fix)


def _unzipped(data: bytes, most: int) -> bytes:
    """What a gzip file holds, or its beginning where only a beginning was read."""
    try:
        inflater = zlib.decompressobj(_GZIP_ONLY)
        text = inflater.decompress(data, most + 1)
    except zlib.error as error:
        raise ManifestError(f"no gzip file that can be read ({error})") from error
    if most == MAX_BYTES and (len(text) > most or not inflater.eof):
        is_large = len(text) > most
        found = f"more than {most >> 20} MiB when unpacked" if is_large else "the file is cut"
        raise ManifestError(found, fix="" if is_large else "Download it again")
    return text[:most]


def _sheet_records(path: Path) -> list[_Record]:
    """The rows of a spreadsheet that are not empty, with their numbers."""
    if not _read_bytes(path, 8).startswith(_SPREADSHEETS):
        raise ManifestError(
            "not a spreadsheet, whatever its name says", fix="Name it .csv if it is text"
        )
    return [(line, row) for line, row in enumerate(read_sheet(path), 1) if any(row)]


def _text_records(
    data: bytes, said: list[str], most: int | None = None
) -> tuple[list[_Record], list[ManifestError], str]:
    """The rows of a text that are not empty, what stopped reading, and the separator."""
    text = _decode(data, said, is_whole=most is None)
    skipped, delimiter = 0, None
    stated = re.match(r"sep=(.)\r?\n", text)
    if stated and stated[1] in DELIMITERS:
        delimiter, skipped = stated[1], 1
        text = text[stated.end() :]
    comments = re.match(r"(#[^\n]*\n)*", text)
    lines = comments[0].splitlines() if comments else []
    below = text[len("".join(f"{line}\n" for line in lines)) :]
    common = delimiter or _find_delimiter(below)
    if lines and _num_columns(lines[-1], common) == _num_columns(below, common) > 1:
        lines.pop()  # a header whose first name begins with #
    if lines:
        said.append(f"{len(lines)} lines of comment above the header are left out")
    text = text.split("\n", len(lines))[-1]
    skipped += len(lines)
    if delimiter is None and (titles := _num_titles(text)):
        said.append(_TITLES.format(titles))
        text = text.split("\n", titles)[-1]
        skipped += titles
    delimiter = delimiter or _find_delimiter(text)
    if delimiter != ",":
        said.append(f"the columns are separated by {DELIMITERS[delimiter]}")
    return *_split_records(text, delimiter, skipped + 1, most), delimiter


def _decode(data: bytes, said: list[str], *, is_whole: bool) -> str:
    """Return a table's text; what of its encoding is not UTF-8 is said."""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if is_utf16:
        said.append("the encoding is UTF-16")
    decoder = codecs.getincrementaldecoder("utf-16" if is_utf16 else "utf-8-sig")()
    try:
        return decoder.decode(data, final=is_whole)
    except UnicodeDecodeError as error:
        data = data if is_whole else data[: data.rfind(b"\n") + 1]  # no sign cut in two
        name = "" if is_utf16 else _legacy_encoding(data)
        if not name:
            line = data.count(b"\n", 0, error.start) + 1
            raise ManifestError(
                "the encoding is not UTF-8",
                where=f"line {line}",
                fix="Save the table as 'CSV UTF-8' (other encodings are ambiguous)",
            ) from error
        said.append(f"the encoding is taken to be {_LEGACY[name]}, not UTF-8")
        return data.decode(name)


def _legacy_encoding(data: bytes) -> str:
    """The encoding of old spreadsheets that the bytes can only be, "" when they may be another.

    Korean syllables are pairs of bytes above A0 (KS X 1001); Western letters stand alone among
    ASCII, two at the most.
    """
    runs = re.findall(rb"[\x80-\xff]+", data)
    is_pairs = all(len(run) % 2 == 0 and min(run) > 0xA0 for run in runs)
    is_single = all(len(run) <= 2 for run in runs)
    for name, fits, usual in (("cp949", is_pairs, _HANGUL), ("cp1252", is_single, _WESTERN)):
        with suppress(UnicodeDecodeError):
            text = data.decode(name)
            if runs and fits and usual.fullmatch(text) and not _SIGN_IN_A_WORD.search(text):
                return name
    return ""


def _num_titles(text: str) -> int:
    """Lines above the header that are one cell each: the title of a sheet, a blank, a date.

    They are none where the first two lines have as many cells, or where what would be the header
    looks like data.
    """
    lines = text[:_HEAD_BYTES].split("\n", _MOST_TITLES + 2)
    cells = {
        sign: [[cell.strip(' "\r') for cell in line.split(sign)] for line in lines]
        for sign in DELIMITERS
    }
    first = cells[_find_delimiter(text)]
    if len(first) > 1 and len(first[0]) == len(first[1]) and sum(map(bool, first[0])) > 1:
        return 0
    for number in range(1, len(lines) - 1):
        rows = cells[_find_delimiter("\n".join(lines[number:]))]
        header = [cell for cell in rows[number] if cell]
        is_title = all(sum(map(bool, row)) <= 1 for row in rows[:number])
        fits = len(rows[number]) == len(rows[number + 1])
        if is_title and fits and len(header) > 1 and not any(map(looks_like_data, header)):
            return number
    return 0


def _untitled(records: list[_Record], said: list[str]) -> list[_Record]:
    """The rows of a sheet from its header on, without a title of one cell above it."""
    for number, (_, row) in enumerate(records[: _MOST_TITLES + 1]):
        filled = [cell for cell in row if cell]
        if len(filled) > 1:
            below = [cells for _, cells in records[number + 1 : number + 3]]
            pairs = [pair for cells in below for pair in zip(row, cells, strict=False)]
            is_named = all(name or not cell for name, cell in pairs)
            if number and is_named and not any(map(looks_like_data, filled)):
                said.append(_TITLES.format(number))
                return records[number:]
            break
    return records


def _find_delimiter(text: str) -> str:
    """Return the delimiter that gives the header the most columns; a comma if none gives two."""
    return max(DELIMITERS, key=partial(_num_columns, text))  # the first of equals: the comma


def _num_columns(text: str, delimiter: str) -> int:
    """Cells of the first line."""
    lines = StringIO(text[:_HEAD_BYTES], newline="")
    try:
        return len(next(csv.reader(lines, delimiter=delimiter), []))
    except csv.Error:
        return 0


def _split_records(
    text: str, delimiter: str, line: int, most: int | None
) -> tuple[list[_Record], list[ManifestError]]:
    """Return (line number, cells) of the rows that are not empty, and what stopped reading."""
    records: list[_Record] = []
    faults: list[ManifestError] = []
    lines = TextIOWrapper(BytesIO(text.encode()), "utf-8", newline="")  # a quarter of a StringIO
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    first, same = line - 1, dict[str, str]()
    try:
        for cells in reader:
            bare = map(str.strip, cells)  # short ones come again and again: each is kept once
            stripped = [same.setdefault(c, c) if 1 < len(c) < 6 else c for c in bare]
            if any(stripped):
                records.append((line, stripped))
            line = first + reader.line_num + 1
            if len(records) == most:
                break
    except csv.Error as error:
        fix = 'Close every quote; write a quote inside a text as ""'
        found = f"the quotes do not match ({error})"
        faults.append(ManifestError(found, where=f"row {line}", fix=fix))
    if not records:
        raise_together(faults or [ManifestError("the file is empty", fix=_EMPTY_FIX)])
    return records, faults


def _framed(records: list[_Record], said: list[str]) -> tuple[tuple[str, ...], list[_Record]]:
    """The header and the rows, without what programs put at a table's edges.

    pandas writes row numbers in a first column without a name, NIH a comma behind the last one.
    """
    if not records:
        raise ManifestError("the file is empty", fix=_EMPTY_FIX)
    header, rows = records[0][1], records[1:]
    if len(header) > 2 and not header[0] and all(cells[0].isdecimal() for _, cells in rows):
        said.append("the first column has no name, numbers the rows and is left out")
        header, rows = header[1:], [(line, cells[1:]) for line, cells in rows]
    bare = [
        i
        for i, name in enumerate(header[:-1])
        if not name and not any(cells[i] for _, cells in rows if len(cells) > i)
    ]
    if bare and any(header[max(bare) :]):
        said.append(f"{len(bare)} columns have no name, are empty and are left out")
        kept = [i for i in range(len(header)) if i not in bare]
        header = [header[i] for i in kept]
        rows = [
            (line, [cells[i] for i in kept if i < len(cells)] + cells[max(kept) + 1 :])
            for line, cells in rows
        ]
    width = len(header)
    while width > 1 and not header[width - 1]:
        if any(len(cells) >= width and cells[width - 1] for _, cells in rows):
            break
        width -= 1
    if width < len(header):
        said.append("the last column has no name, is empty and is left out")
        ends = {*range(width, len(header) + 1)}
        rows = [(line, cells[:width] if len(cells) in ends else cells) for line, cells in rows]
    return _checked_columns(header[:width]), rows


def _point_decimals(columns: Sequence[str], records: list[_Record], said: list[str]) -> None:
    """Write the decimal commas of columns that hold nothing but numbers as points."""
    for index, name in enumerate(columns):
        filled = [cells[index] for _, cells in records if len(cells) > index and cells[index]]
        has_commas = any("," in cell for cell in filled)
        if has_commas and all(_COMMA_NUMBER.fullmatch(cell) for cell in filled):
            said.append(f"column '{name}' has decimal commas")
            for _, cells in records:
                if len(cells) > index:
                    cells[index] = cells[index].replace(",", ".")


def _checked_columns(cells: Sequence[str]) -> tuple[str, ...]:
    """Return the column names of a header."""
    columns = tuple(undefuse(cell) for cell in cells)
    if len(columns) > MAX_COLUMNS:
        raise ManifestError(
            f"{len(columns)} columns",
            expected=f"at most {MAX_COLUMNS}",
            fix="Write a row per image and a column per fact",
        )
    if any("\0" in column for column in columns):
        raise ManifestError("the header holds NUL bytes", fix=_NUL_FIX)
    faults = [
        ManifestError(f"column {i} has no name", fix="Name it or delete it")
        for i, column in enumerate(columns, 1)
        if not column
    ]
    repeated = sorted({column for column in columns if column and columns.count(column) > 1})
    if repeated and any(column and looks_like_data(column) for column in columns):
        faults.append(ManifestError("the first row is no header: names repeat", fix=_EMPTY_FIX))
    else:
        fix = "Rename or delete one of them"
        faults += [ManifestError(f"duplicate column '{one[:40]}'", fix=fix) for one in repeated]
    raise_together(faults)
    return columns


def _checked_rows(
    records: list[_Record], num_columns: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...], list[ManifestError]]:
    """Return the rows that fit the header, their lines, and the faults; use the records up."""
    rows, lines, faults = [], [], []
    records.reverse()
    while records:
        line, cells = records.pop()
        whole = "".join(cells)
        if "\0" in whole:
            faults.append(ManifestError("holds NUL bytes", where=f"row {line}", fix=_NUL_FIX))
        elif len(cells) != num_columns:
            faults.append(
                ManifestError(
                    f"{len(cells)} fields",
                    expected=f"{num_columns}, one per column",
                    where=f"row {line}",
                    fix="Put quotes around a text that holds the separator",
                )
            )
        else:
            rows.append(tuple(undefuse(cell) for cell in cells) if "'" in whole else tuple(cells))
            lines.append(line)
    return tuple(rows), tuple(lines), faults


def _parquet(path: Path) -> Any:
    """Return an opened Parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        found = f"not a Parquet file that can be read ({type(error).__name__})"
        raise ManifestError(found, fix="Write it again, or use CSV") from error


def _parquet_records(path: Path) -> tuple[tuple[str, ...], list[_Record]]:
    """Return the columns and rows of a Parquet file, numbered as if a header were line 1."""
    table = _parquet(path).read()
    columns = _checked_columns(table.column_names)
    cells = [[_cell_text(value) for value in column.to_pylist()] for column in table.columns]
    rows = enumerate(zip(*cells, strict=True), 2)
    return columns, [(line, list(row)) for line, row in rows if any(row)]


def _cell_text(value: Any) -> str:
    """Return a typed cell as text: whole floats without ".0", null and NaN empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if is_whole else value).strip()


def defuse(value: Any) -> str:
    """Return a value as the text of a cell that no spreadsheet runs as a formula.

    >>> defuse("=1+1"), defuse("-2.5"), undefuse(defuse("=1+1"))
    ("'=1+1", '-2.5', '=1+1')
    """
    text = "" if value is None else str(value)
    return f"'{text}" if is_formula(text) else text


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet would run a text.

    >>> is_formula("@x"), is_formula("+82 10"), is_formula("-3"), is_formula("a=b")
    (True, True, False, False)
    """
    return bool(_DANGEROUS.match(text)) and not _NUMBER.fullmatch(text)


def undefuse(text: str) -> str:
    """Return the text that `defuse` was given.

    >>> undefuse("'@x"), undefuse("'quoted'")
    ('@x', "'quoted'")
    """
    return text[1:] if text.startswith("'") and _DANGEROUS.match(text[1:]) else text


def _fold(name: str) -> str:
    """Return a name without case and separators."""
    return "".join(sign for sign in name.casefold() if sign.isalnum())
