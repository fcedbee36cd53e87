"""The predictions table: the one door between machine learning and medicine.

A tidy CSV or Parquet file, one row per case and label. Its row order and number format are fixed
and nothing in it depends on the time, so that equal predictions are equal bytes.
"""

from __future__ import annotations

import csv
import difflib
import io
import logging
import math
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.cases.case_rows import split_named
from medtl.cases.pseudonyms import band_age
from medtl.cases.spellings import folded, is_no_id, may_fold, spelled_alike
from medtl.errors import ManifestError, PredictionsError, located
from medtl.storage.atomic import atomic_path, write_text
from medtl.storage.spreadsheets import ENDINGS
from medtl.storage.tables import defuse, raise_together, read_columns, read_table, undefuse
from medtl.storage.yaml import load_yaml
from medtl.types import SPLITS, FloatArray

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SCORED = ("case_id", "y_true", "y_score")
"""Columns that every table of scores has."""

MASKED = ("case_id", "truth", "prediction")
"""Columns that every table of segmentations has: paths relative to the file."""

WORDS_AS_TRUTH = "Write 1 for the finding and 0 for none"
"""What to do where the truth is told in words."""

KEYS = ("split", "label", "model", "fold", "seed", "reader", "case_id")
"""Columns that identify a row, in the order of the sort. Two rows with equal keys are a fault."""

ORDER = ("case_id", "patient_id", "split", "label", "model", "fold", "seed", "reader", "y_true",
         "y_score", "y_true_raw", "truth", "prediction")  # fmt: skip
"""Order of the known columns; all others are strata and follow in alphabetical order."""

MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
"""Cells, in lower case, that mean "no value" in a column of numbers."""

SHOWN = 5
"""Row numbers listed in a message."""


def read_predictions(
    path: str | PathLike[str], *, one_image_per_patient: bool = False
) -> pd.DataFrame:
    r"""Return a predictions table after checking it.

    Missing truths and scores are NaN. A table without `split` is all test. Numbers of rows in
    messages count the header as row 1.

    Args:
        path: A CSV, Parquet, Excel or LibreOffice file, as for a manifest; what was recognised is
            logged.
        one_image_per_patient: States that every case is its own patient, for a table without
            `patient_id`.

    Returns:
        `case_id`, `patient_id`, `split` and all other columns but the numbers as text, an `age`
        above 89 as "90+"; `y_true` and
        `y_score` as float64, in a fixed order of rows.

    Raises:
        PredictionsError: If a column is missing or a cell cannot be what it should be.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "scores.csv")
        ...     _ = file.write_text("case_id,patient_id,y_true,y_score\n007,p1,1,0.25\n")
        ...     read_predictions(file)[["case_id", "split", "y_score"]].to_dict("records")
        [{'case_id': '007', 'split': 'test', 'y_score': 0.25}]
    """
    source = Path(path)
    with located(source.name):
        table = _read_text(source)
        required = _required_columns(table)
        if not len(table):
            raise PredictionsError("the table has no rows", expected="one per case")
        for column in ("y_true", "y_score"):
            if column in required:
                table[column] = _numbers(table[column])
        table = _with_patients(table, one_image_per_patient)
        table = _with_splits(table)
        _refuse_empty_ids(table)
        _refuse_repeats(table)
        pairs = table[["case_id", "patient_id"]].drop_duplicates()
        _refuse_shared_cases(table, pairs)
        _refuse_shared_patients(table)
        _refuse_spellings(table, pairs)
        _refuse_respelled_names(table)
        return _ordered(_with_banded_ages(table))


def mask_labels(path: str | PathLike[str]) -> dict[int, str]:
    """Return value in a mask -> structure, from the YAML file beside a table of masks.

    Args:
        path: The table; the file has its name and the ending .yaml, and may be absent: {}.

    Raises:
        PredictionsError: If its `labels` name no structure.
    """
    file = Path(path).with_suffix(".yaml")
    labels = load_yaml(file).get("labels") if file.is_file() else None
    if labels is None:
        return {}
    try:
        named = {int(value): str(name) for value, name in labels.items() if int(value) != 0}
    except (AttributeError, ValueError):
        named = {}
    if not named:
        raise PredictionsError(
            "labels do not name the values of the masks",
            expected="labels: {1: liver, 2: spleen}",
            where=file.name,
        )
    return named


def write_predictions(table: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write a predictions table, atomically, such that reading it gives the same numbers.

    Args:
        table: As `read_predictions` returns it; `y_true` NaN where there is no certain truth.
        path: A .csv or .parquet file.

    Raises:
        PredictionsError: If a required column is missing, a key repeats or the format is unknown.
    """
    target = Path(path)
    with located(target.name):
        _required_columns(table)
        _refuse_repeats(table)
        _refuse_unknown_format(target)
    table = _ordered(table)
    if target.suffix == ".parquet":
        with atomic_path(target) as temporary:
            table.to_parquet(temporary, index=False)
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    columns = [[_cell(value) for value in table[name].tolist()] for name in table.columns]
    writer.writerows(zip(*columns, strict=True))
    write_text(target, buffer.getvalue())


def _cell(value: Any) -> str:
    """Return a value as text: shortest that reads back the same, whole numbers without a point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return defuse("" if str(value) == "<NA>" else value)


def _refuse_unknown_format(path: Path, endings: Sequence[str] = (".csv", ".parquet")) -> None:
    """Refuse a file of another ending."""
    if path.suffix.lower() not in endings:
        found = f"the format {path.suffix or '(none)'} is unknown"
        raise PredictionsError(found, expected=f"{', '.join(endings[:-1])} or {endings[-1]}")


def _read_text(path: Path) -> pd.DataFrame:
    """Return all cells of a table as text."""
    import pandas as pd

    ending = path.suffix.lower()
    _refuse_unknown_format(path, (".csv", ".tsv", *ENDINGS, ".parquet"))
    if not path.is_file():
        raise PredictionsError("the file does not exist", fix="Check the path")
    try:
        if ending == ".parquet":
            table = pd.read_parquet(path)
            cells = {name: [_cell(value) for value in table[name].tolist()] for name in table}
            return pd.DataFrame(cells, dtype=object)
        plain = _plain_csv(path) if ending == ".csv" else None
        if plain is not None:
            return plain
        read = read_table(path)
        raise_together(read.faults)
    except (ValueError, OSError, ManifestError) as error:
        lines = [line.strip(" -") for line in str(error).replace(str(path), path.name).splitlines()]
        reason = "; ".join(lines[:1] if len(lines) == 1 else lines[1:4])
        found = f"the table cannot be read ({reason})"
        expected = "a CSV, Parquet, Excel or LibreOffice file"
        raise PredictionsError(found, expected=expected) from error
    for note in read.notes:
        log.warning("%s", note)
    return pd.DataFrame(read.rows, columns=list(read.columns), dtype=object)


def _plain_csv(path: Path) -> pd.DataFrame | None:
    """Return a table in commas and UTF-8, None for any other: `read_table` then says what it is.

    A million rows take a second here and four there. But pandas fills short rows up, gives a second
    column of one name another one, and takes what its rows have more than the header for their
    numbers, so that all cells move by a column: such tables are left to `read_table` too.
    """
    import pandas as pd

    raw = path.read_bytes()
    if b"\0" in raw:
        return None
    try:
        table = pd.read_csv(
            io.BytesIO(raw), dtype=object, keep_default_na=False, encoding="utf-8-sig"
        )
    except ValueError:  # another encoding, or rows that are too long
        return None
    bare = re.sub(rb'"[^"]*"', b"", raw) if b'"' in raw else raw
    fits = isinstance(table.index, pd.RangeIndex) and bare.count(b",") == (len(table) + 1) * (
        len(table.columns) - 1
    )
    table.columns = table.columns.str.strip()
    if not fits or "case_id" not in table or list(table.columns) != read_columns(path):
        return None
    if (table["case_id"] == "").any():  # an empty row, which spreadsheets leave at the end
        return None
    if b"'" in raw:
        table = table.map(undefuse).astype(object)
    if _has_blank_ends(raw):
        table = table.apply(lambda cells: cells.str.strip())
    return table


def _has_blank_ends(raw: bytes) -> bool:
    """Whether a cell of a table in commas begins or ends with a blank."""
    blanks = [blank for blank in (b" ", b"\t", b"\xc2\xa0") if blank in raw]
    ends = (b",", b"\n", b"\r", b'"')
    return any(blank + end in raw or end + blank in raw for blank in blanks for end in ends)


def _required_columns(table: pd.DataFrame) -> Sequence[str]:
    """Return the columns that a table of its kind has; refuse one that lacks any of them."""
    required = MASKED if "y_score" not in table and "prediction" in table else SCORED
    names = [str(name) for name in table.columns]
    missing = [name for name in required if name not in names]
    if not missing:
        return required
    near = difflib.get_close_matches(missing[0], names, n=1, cutoff=0.4)
    raise PredictionsError(
        f"no column {', '.join(missing)}",
        expected=f"the columns {', '.join(required)} (found {', '.join(names[:12])})",
        fix=f"Rename {near[0]} if that is {missing[0]}" if near else "",
    )


def _rows(mask: Any) -> str:
    """Return the row numbers of a mask in words, the header being row 1."""
    numbers = [str(index + 2) for index, bad in enumerate(mask) if bad]
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:SHOWN])}{more}"


def _numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of numbers as float64; infinite values count as missing."""
    import pandas as pd

    values: FloatArray
    try:  # in one go where every cell is a number, as most columns are
        values = column.to_numpy(dtype=object).astype(np.float64)
    except ValueError:
        values = _some_numbers(column)
    values[np.isinf(values)] = math.nan
    return pd.Series(values, index=column.index)


def _some_numbers(column: pd.Series[Any]) -> FloatArray:
    """Return the numbers of a column with words for "no value", NaN for these."""
    values = np.full(len(column), math.nan)
    bad = [False] * len(column)
    for place, text in enumerate(column):
        stripped = text.strip()
        if stripped.lower() not in MISSING:
            try:
                values[place] = float(stripped)
            except ValueError:
                bad[place] = True
    if any(bad):
        first = next(text for text, wrong in zip(column, bad, strict=True) if wrong)
        raise PredictionsError(
            f"{column.name} is not a number in {_rows(bad)} (first: {first!r})",
            expected="a number, or an empty cell",
            fix=WORDS_AS_TRUTH if column.name == "y_true" else "",
        )
    return values


def _with_patients(table: pd.DataFrame, alone: bool) -> pd.DataFrame:
    """Return the table with patients; the user must say when a case is a patient."""
    if "patient_id" in table:
        return table
    if alone:
        return table.assign(patient_id=table["case_id"])
    others = [str(name) for name in table.columns if name not in SCORED]
    nearest = difflib.get_close_matches("patient_id", others, cutoff=0.5)
    hint = f"Rename {nearest[0]}, or state" if nearest else "Add it, or state"
    raise PredictionsError(
        "no column patient_id",
        expected="the patient of every case, because intervals are over patients",
        fix=f"{hint} --one-image-per-patient if every case is another patient",
    )


def _with_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a valid split in every row, by the names that a manifest may use."""
    if "split" not in table or not table["split"].str.strip().any():
        return table.assign(split=table["case_id"].map(lambda _: "test").astype(object))
    read = {one: split_named(one) for one in table["split"].unique()}
    if not all(read.values()):
        bad = table["split"].map(read) == ""
        found = sorted({str(value) for value in table["split"][bad]})[:3]
        raise PredictionsError(
            f"split is {', '.join(map(repr, found))} in {_rows(bad)}",
            expected=f"one of {', '.join(SPLITS)}",
        )
    others = {given: split for given, split in read.items() if given != split}
    for given, split in others.items():
        log.warning("the split %r is read as %s", given, split)
    return table.assign(split=table["split"].map(read).astype(object)) if others else table


def _refuse_empty_ids(table: pd.DataFrame) -> None:
    """Refuse rows without a case or a patient, whatever word says so."""
    for column in ("case_id", "patient_id"):
        empty = table[column].str.strip() == ""
        if empty.any():
            found = f"{column} is empty in {_rows(empty)}"
            raise PredictionsError(found, expected="an identifier")
    for word in filter(is_no_id, table["patient_id"].unique()):
        nobody = table["patient_id"] == word
        if table["case_id"][nobody].nunique() > 1:
            raise PredictionsError(
                f"patient_id is {word!r}, a word for 'missing', in {_rows(nobody)}",
                expected="an identifier",
                fix="Write who it is: all these cases would count as one patient",
            )


def _refuse_repeats(table: pd.DataFrame) -> None:
    """Refuse two rows about the same thing."""
    keys = [key for key in KEYS if key in table]
    repeated = table.duplicated(keys)
    if repeated.any():
        raise PredictionsError(
            f"{int(repeated.sum())} rows repeat another: {_rows(repeated)}",
            expected=f"one row per {', '.join(keys)}",
        )


def _refuse_shared_cases(table: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Refuse a case of two patients, in the rows of two labels or models: each would count."""
    shared = pairs["case_id"][pairs.duplicated("case_id")]
    if len(shared):
        raise PredictionsError(
            f"{shared.nunique()} cases have two patients: {_rows(table['case_id'].isin(shared))}",
            expected="one patient a case, in the rows of all labels and models",
            fix="Correct patient_id, or give every image a case_id of its own",
        )


def _with_banded_ages(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with ages above 89 as one band, as they leave a manifest."""
    for name in table.columns:
        if str(name).casefold() == "age":
            banded = {one: band_age(one) for one in table[name].unique()}
            table = table.assign(**{str(name): table[name].map(banded).astype(object)})
    return table


def _refuse_shared_patients(table: pd.DataFrame) -> None:
    """Refuse a patient in two splits of the same model, fold and seed."""
    run = [key for key in ("model", "fold", "seed") if key in table]
    splits = table.drop_duplicates([*run, "patient_id", "split"])
    shared = splits.duplicated([*run, "patient_id"])
    if shared.any():
        raise PredictionsError(
            f"{int(shared.sum())} patients are in two splits",
            expected="every patient in one split",
            fix="A threshold or calibration fitted on a patient cannot be tested on the same one",
        )


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its columns and rows in the fixed order."""
    known = [name for name in ORDER if name in table]
    others = sorted(str(name) for name in table.columns if name not in ORDER)
    keys = [key for key in KEYS if key in table]

    def rank(column: pd.Series[Any]) -> pd.Series[Any]:
        if column.name != "split":
            return column.astype(str)
        return column.map({name: place for place, name in enumerate(SPLITS)})

    return table[[*known, *others]].sort_values(keys, key=rank, kind="stable", ignore_index=True)


def _refuse_spellings(table: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Refuse one patient under two spellings in two splits; within one split, say it.

    Intervals are over patients: 60 that are counted as 120 make them too narrow.
    """
    cases = pairs[pairs.duplicated("patient_id", keep=False)]
    if may_fold(cases["case_id"]):
        twice = int(cases.assign(case_id=cases["case_id"].map(folded)).duplicated().sum())
        if twice:
            said = "%d cases of one patient differ by case or a .0 alone: counted twice"
            log.warning(said, twice)
    groups = spelled_alike(pairs["patient_id"].unique(), ids=True)
    if not groups:
        return
    apart = [g for g in groups if table["split"][table["patient_id"].isin(g)].nunique() > 1]
    found = f"{len(groups)} patients have ids in two spellings (12 and 12.0, P3 and p3)"
    if apart:
        raise PredictionsError(
            f"{found}, {len(apart)} of them in two splits",
            expected="one spelling a patient",
            fix="Write the id of one person in one way",
        )
    log.warning("%s: counted as different patients", found)


def _refuse_respelled_names(table: pd.DataFrame) -> None:
    """Refuse one label or model under two spellings, or in some rows alone: two halves of one.

    Rows of a reader, a person, need no model.
    """
    machine = table[table["reader"].str.strip() == ""] if "reader" in table else table
    for column in ("label", "model"):
        names = sorted(machine[column].unique()) if column in table else []
        alike = spelled_alike(names)
        if alike:
            raise PredictionsError(
                f"one {column} in several spellings: {', '.join(map(repr, alike[0]))}",
                expected=f"one spelling a {column}",
                fix="Write it in one way",
            )
        if "" in names and len(names) > 1:
            empty = table.index.isin(machine.index[machine[column] == ""])
            raise PredictionsError(
                f"{column} is empty in {_rows(empty)}, and not in others",
                expected=f"a {column} in every row, or in none",
            )
