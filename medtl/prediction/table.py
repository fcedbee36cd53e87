"""Scores become the predictions table: the one door between machine learning and medicine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medtl.tasks.protocols import Task
from medtl.types import Case

if TYPE_CHECKING:
    import pandas as pd


def predictions_table(
    task: Task,
    cases: Sequence[Case],
    scores: NDArray[np.float32],
    *,
    strata: Sequence[str] = (),
    with_truth: bool = True,
) -> pd.DataFrame:
    """Return the tidy table of some cases: one row per case and label.

    Args:
        task: Names the labels and reads the truth.
        cases: `n` cases.
        scores: `(n, K)` in the unit of the report.
        strata: Columns of `Case.strata` that the report breaks results by.
        with_truth: False leaves `y_true` empty for images without labels.

    Returns:
        Columns `case_id, patient_id, split, label, y_true, y_true_raw, y_score` and `strata`.
    """
    import pandas as pd

    rows = []
    for case, score in zip(cases, scores, strict=True):
        who = {"case_id": case.case_id, "patient_id": case.patient_id, "split": case.split}
        for row in task.rows(case, score):
            truth = {} if with_truth else {"y_true": None, "y_true_raw": ""}
            rows.append({**who, **row, **truth, **{s: case.strata.get(s, "") for s in strata}})
    table = pd.DataFrame(rows)
    table["y_true"] = table["y_true"].astype("Float64")
    return table
