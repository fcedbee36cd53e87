"""Who is in a predictions table, in the form of a run's cohort.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medtl.metrics.scores import usable_rows
from medtl.types import SPLITS

if TYPE_CHECKING:
    import pandas as pd


def describe_table(rows: pd.DataFrame, classified: bool) -> dict[str, Any]:
    """Return who is in a table, in the form of a run's cohort.json.

    Args:
        rows: A predictions table.
        classified: Whether its truths are yes or no.

    >>> import pandas as pd
    >>> cells = {"case_id": ["a", "b"], "patient_id": "p", "split": "test", "y_true": [0, 1]}
    >>> describe_table(pd.DataFrame(cells), True)["splits"]["test"]["labels"]
    {'': {'positive': 1, 'negative': 1, 'missing': 0}}
    """
    splits = {
        name: _describe_part(part, classified)
        for name in SPLITS
        if len(part := rows[rows["split"] == name])
    }
    excluded = []
    if "y_score" in rows:
        usable = usable_rows(rows["y_true"], rows["y_score"])
        lost = rows.assign(usable=usable).groupby("case_id")["usable"].max()
        if not lost.all():
            reason = "no certain truth, or no score: not in the statistics"
            excluded.append({"reason": reason, "n": int((~lost.astype(bool)).sum())})
    return {"splits": splits, "excluded": excluded}


def _describe_part(rows: pd.DataFrame, classified: bool) -> dict[str, Any]:
    """Return one split of a table in numbers."""
    facts: dict[str, Any] = {
        "images": int(rows["case_id"].nunique()),
        "patients": int(rows["patient_id"].nunique()),
    }
    if classified and "y_true" in rows:
        by_label = rows.groupby("label", sort=False) if "label" in rows else [("", rows)]
        facts["labels"] = {
            str(label): {
                "positive": int((part["y_true"] == 1).sum()),
                "negative": int((part["y_true"] == 0).sum()),
                "missing": int(part["y_true"].isna().sum()),
            }
            for label, part in by_label
        }
    if "sex" in rows:
        cases = rows.drop_duplicates("case_id")["sex"].replace("", "unknown")
        facts["sex"] = {str(k): int(n) for k, n in cases.value_counts().sort_index().items()}
    return facts
