"""A table of readers' marks, one row per case, reader and modality, as complete arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.errors import PredictionsError, located
from medtl.storage.tables import raise_together, read_table
from medtl.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "case_id": ("case_id", "case", "image", "study", "accession"),
    "reader": ("reader", "rater", "radiologist", "observer"),
    "modality": ("modality", "treatment", "arm", "condition", "method", "model"),
    "score": ("score", "rating", "y_score", "mark", "confidence"),
    "truth": ("truth", "y_true", "reference", "gold"),
}
"""What a table says, and the names of the column that says it; the first of them that is there."""

ONLY = "all"
"""Name of the modality of a table that has none."""


@dataclass(frozen=True, eq=False)
class Marks:
    """Marks of which none is missing, and those of models that read alone.

    Attributes:
        truth: `(n,)` 0 or 1. patients: `(n,)`.
        readers: Their r names. modalities: Their t names.
        marks: `(t, r, n)`.
        models: Name -> `(n,)` scores, of rows without a reader.
        notes: What was left out, in words.
    """

    truth: FloatArray
    patients: tuple[str, ...]
    readers: tuple[str, ...]
    modalities: tuple[str, ...]
    marks: FloatArray
    models: Mapping[str, FloatArray]
    notes: tuple[str, ...] = ()


def read_marks(path: Path, *, complete_cases: bool = False, without: Sequence[str] = ()) -> Marks:
    """Return the marks of a table, every reader having read every case in every modality.

    Args:
        path: CSV, Parquet or Excel with the columns of `COLUMNS`; `patient_id` where a patient has
            several cases. A row without a reader is of a model that reads alone.
        complete_cases: Keep the cases that every reader has read in every modality.
        without: Readers to leave out.

    Raises:
        PredictionsError: If a column is missing, a cell is no number, a mark repeats, truths
            disagree, or a reader has not read all cases: with the counts, and what is possible.
    """
    with located(path.name):
        table = _tidy(path)
        unknown = sorted(set(without) - set(table["reader"]))
        if unknown:
            raise PredictionsError(
                f"no reader {', '.join(unknown)}",
                expected=f"some of {', '.join(sorted(set(table['reader']) - {''}))}",
            )
        table = table[~table["reader"].isin(list(without))]
        keys = ["case_id", "reader", "modality"]
        repeated = int(table.duplicated(keys).sum())
        if repeated:
            raise PredictionsError(
                f"{repeated} rows repeat a case of the same reader and modality",
                expected="one mark each",
                fix="Keep one session, or name the sessions as modalities",
            )
        truths = table.groupby("case_id", sort=True)["truth"].agg(["nunique", "first"])
        apart = truths.index[truths["nunique"] > 1]
        if len(apart):
            raise PredictionsError(
                f"the truth of {len(apart)} cases differs between rows: {_listed(apart)}",
                expected="one truth a case",
            )
        return _complete(table, complete_cases)


def _tidy(path: Path) -> pd.DataFrame:
    """Return the table with the columns of `COLUMNS` and `patient_id`."""
    import pandas as pd

    read = read_table(path)
    raise_together(read.faults)
    given = pd.DataFrame(read.rows, columns=list(read.columns), dtype=object)
    by_name = {str(name).strip().casefold(): name for name in given}
    found = {
        want: next((by_name[name] for name in names if name in by_name), None)
        for want, names in COLUMNS.items()
    }
    missing = [want for want, name in found.items() if name is None and want != "modality"]
    if missing:
        wanted = "; ".join(f"{want}: {' or '.join(COLUMNS[want])}" for want in missing)
        raise PredictionsError(
            f"no column {', '.join(missing)}",
            expected=f"{wanted} (found {', '.join(map(str, given.columns))})",
        )
    table = pd.DataFrame({want: given[name] for want, name in found.items() if name is not None})
    table = pd.DataFrame({name: table[name].astype(str).str.strip() for name in table})
    if "modality" not in table:
        table["modality"] = ONLY
    patients = by_name.get("patient_id")
    table["patient_id"] = table["case_id"] if patients is None else given[patients].astype(str)
    for column in ("score", "truth"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = numbers.isna() & (table[column] != "")
        if bad.any():
            raise PredictionsError(
                f"{column} is not a number in {int(bad.sum())} rows "
                f"(first: {table[column][bad].iloc[0]!r})",
                expected="1 for present and 0 for absent, or a rating that rises with suspicion",
            )
        table[column] = numbers
    if not table["truth"].isin((0, 1)).all():
        raise PredictionsError("truth holds other values than 0 and 1", expected="0 or 1 a row")
    return table


def _complete(table: pd.DataFrame, complete_cases: bool) -> Marks:
    """Return the arrays; marks that are missing stop it, or take their case away."""
    of_readers, of_models = table[table["reader"] != ""], table[table["reader"] == ""]
    if not len(of_readers):
        raise PredictionsError("no row has a reader", expected="a reader in the rows of readers")
    cases = sorted(set(of_readers["case_id"]))
    readers, modalities = (sorted(set(of_readers[name])) for name in ("reader", "modality"))
    wide = of_readers.pivot(index=["modality", "reader"], columns="case_id", values="score")
    pairs = [(m, r) for m in modalities for r in readers]
    given = wide.reindex(index=pairs, columns=cases).to_numpy(float)
    marks = given.reshape(len(modalities), len(readers), len(cases))
    alone = {
        str(name): rows.set_index("case_id")["score"].reindex(cases).to_numpy(float)
        for name, rows in of_models.groupby("modality", sort=True)
    }
    every = np.vstack([marks.reshape(-1, len(cases)), *alone.values()])
    whole = np.isfinite(every).all(axis=0)
    notes: tuple[str, ...] = ()
    if not whole.all():
        if not complete_cases:
            _refuse_gaps(marks, alone, readers, modalities, cases, whole)
        notes = (f"{int((~whole).sum())} of {len(cases)} cases were not read by all: left out",)
    known = table.drop_duplicates("case_id").set_index("case_id").loc[cases][whole]
    if not len(known):
        raise PredictionsError("no case was read by all readers in all modalities")
    return Marks(
        known["truth"].to_numpy(float),
        tuple(known["patient_id"].astype(str)),
        tuple(readers),
        tuple(modalities),
        marks[:, :, whole],
        {name: scores[whole] for name, scores in alone.items()},
        notes,
    )


def _refuse_gaps(
    marks: FloatArray,
    alone: Mapping[str, FloatArray],
    readers: Sequence[str],
    modalities: Sequence[str],
    cases: Sequence[str],
    whole: Any,
) -> None:
    """Say who has not read what, and what can be compared nevertheless."""
    gaps = {
        f"reader {reader} in {modality}": int(np.isnan(marks[i, j]).sum())
        for i, modality in enumerate(modalities)
        for j, reader in enumerate(readers)
    } | {f"model {name}": int(np.isnan(scores).sum()) for name, scores in alone.items()}
    said = [f"{who}: {count}" for who, count in gaps.items() if count]
    more = f" and {len(said) - 6} more" if len(said) > 6 else ""
    best = [r for j, r in enumerate(readers) if np.isfinite(marks[:, j]).all()]
    worst = [r for r in readers if r not in best]
    fix = f"--complete-cases compares the {int(whole.sum())} cases that all have read"
    if len(best) > 1 and worst:
        fix += "; " + " ".join(f"--without {reader}" for reader in worst)
        fix += f" keeps all cases with {len(best)} readers"
    raise PredictionsError(
        f"marks are missing of {len(cases)} cases ({'; '.join(said[:6])}{more})",
        expected="every reader reads every case in every modality",
        fix=fix,
    )


def _listed(names: Iterable[str]) -> str:
    """Return a few names."""
    listed = list(map(str, names))
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
