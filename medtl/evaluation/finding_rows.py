"""From a predictions table to the usable rows of every finding, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.errors import PredictionsError
from medtl.evaluation.bands import as_groups
from medtl.evaluation.classification import LabelRows
from medtl.metrics.scores import PAIR, Scores, usable_rows
from medtl.types import OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

LISTED = 12
"""Missed and wrongly flagged cases that are listed, per label and kind."""


def with_defaults(table: pd.DataFrame, strata: Sequence[str]) -> pd.DataFrame:
    """Return the table with split, label and patient, in a fixed order of its rows.

    Args:
        table: A predictions table.
        strata: Columns it must have.

    Raises:
        PredictionsError: If a column is missing.

    >>> import pandas as pd
    >>> list(with_defaults(pd.DataFrame({"case_id": ["b", "a"]}), []).columns)
    ['case_id', 'split', 'label', 'patient_id']
    """
    for column in ("case_id", *strata):
        if column not in table:
            raise PredictionsError(
                f"there is no column {column}",
                expected=f"one of {', '.join(map(str, table.columns))}",
            )
    defaults = {"split": "test", "label": ""}
    table = table.assign(**{name: v for name, v in defaults.items() if name not in table})
    if "patient_id" not in table:
        table = table.assign(patient_id=table["case_id"])
    return table.sort_values(["split", "label", "case_id"], kind="stable", ignore_index=True)


def refuse_mixtures(table: pd.DataFrame) -> None:
    """Refuse several models or seeds, and a case that occurs twice for one label of a split.

    Args:
        table: With defaults filled in.

    Raises:
        PredictionsError: If there is such a mixture.

    >>> import pandas as pd
    >>> refuse_mixtures(pd.DataFrame({"case_id": ["a", "a"], "split": "test", "label": "x"}))
    Traceback (most recent call last):
    medtl.errors.PredictionsError: 1 rows repeat a case of the same label and split; ...
    """
    for column in ("model", "seed"):
        if column in table and table[column].nunique() > 1:
            raise PredictionsError(
                f"the table holds {table[column].nunique()} values of {column}",
                expected="one model and one seed",
                fix=f"Filter by {column}, or compare them with evaluate(model=...)",
            )
    repeated = int(table.duplicated(["split", "label", "case_id"]).sum())
    if repeated:
        raise PredictionsError(
            f"{repeated} rows repeat a case of the same label and split",
            expected="one row per case and label",
            fix="Average the repeats, or keep one fold, seed or reader",
        )


def label_rows(
    table: pd.DataFrame, strata: Sequence[str]
) -> tuple[dict[tuple[str, str], LabelRows], list[str]]:
    """Return the usable rows of validation and test by (split, label), and notes about the others.

    Args:
        table: With defaults filled in.
        strata: Columns to report by.

    Raises:
        PredictionsError: If a truth is neither 0, 1 nor missing.
    """
    import pandas as pd

    codes, _ = pd.factorize(table["patient_id"], sort=True)
    truth = table["y_true"].to_numpy(dtype=float, na_value=np.nan)
    score = table["y_score"].to_numpy(dtype=float, na_value=np.nan)
    usable = usable_rows(truth, score)
    columns = {name: as_groups(table[name]) for name in strata}
    found, notes = {}, []
    for (split, label), part in table.groupby(["split", "label"], sort=False):
        if split not in ("val", "test"):
            continue
        index = part.index.to_numpy()
        kept = index[usable[index]]
        notes += _left_out(str(label), str(split), truth[index], score[index])
        _refuse_other_truths(truth[kept], str(label))
        scores = Scores.of(truth[kept] == 1, score[kept], codes[kept])
        groups = {name: values[kept] for name, values in columns.items()}
        rows = LabelRows(str(label), str(split), scores, codes[kept], groups)
        found[rows.split, rows.label] = rows
    return found, notes


def _left_out(label: str, split: str, truth: np.ndarray, score: np.ndarray) -> list[str]:
    """Return notes about rows that cannot be used."""
    no_truth = ~np.isfinite(truth)
    no_score = ~np.isfinite(score) & ~no_truth
    where = f"of {truth.size} {split} rows" + (f" of {label!r}" if label else "")
    parts = ((no_truth, "no certain truth"), (no_score, "no finite score"))
    return [
        f"{int(mask.sum())} {where} have {what} and were left out"
        for mask, what in parts
        if mask.any()
    ]


def _refuse_other_truths(truth: np.ndarray, label: str) -> None:
    """Refuse truths other than 0 and 1."""
    other = np.unique(truth[(truth != 0) & (truth != 1)])
    if other.size:
        raise PredictionsError(
            f"y_true of {label!r} holds {', '.join(f'{value:g}' for value in other[:3])}",
            expected="0, 1 or an empty cell for a classification",
            fix="Leave uncertain truths empty (raw value in y_true_raw), or say kind='regression'",
        )


def worst_cases(test: pd.DataFrame, points: Sequence[OperatingPoint]) -> list[dict[str, Any]]:
    """Return the missed and the wrongly flagged test cases of every label, the worst first.

    Args:
        test: Test rows with defaults filled in.
        points: Frozen thresholds; a label without one has no such cases.
    """
    found = []
    for point in points:
        rows = test[(test["label"] == point.label) & usable_rows(test["y_true"], test["y_score"])]
        flagged, positive = rows["y_score"] >= point.threshold, rows["y_true"] == 1
        kinds = (("missed", positive & ~flagged, True), ("false_alarm", ~positive & flagged, False))
        for kind, mask, ascending in kinds:
            order = rows[mask].sort_values("y_score", ascending=ascending, kind="stable")
            for _, row in order.head(LISTED).iterrows():
                case = {"label": point.label, "kind": kind, "case_id": str(row["case_id"])}
                found.append({**case, **{name: float(row[name]) for name in PAIR}})
    return found
