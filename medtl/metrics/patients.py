"""From rows to patients, and from raw labels to certain truths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from medtl.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd


def certain_truth(
    raw: ArrayLike,
    *,
    uncertain: Literal["ignore", "u_zeros", "u_ones"] = "ignore",
    blank: Literal["ignore", "zero"] = "ignore",
) -> FloatArray:
    """Return the truth 0, 1 or NaN (leave out) of CheXpert-style labels.

    Args:
        raw: `(n,)`: 1 present, 0 absent, -1 uncertain, NaN not mentioned.
        uncertain: Leave out (the default of evaluation), or count as absent or as present.
        blank: Leave out what is not mentioned, or count it as absent.

    Reference:
        Irvin et al., CheXpert, AAAI 2019.
    """
    truth = np.array(raw, dtype=float)
    truth[np.isnan(truth)] = {"ignore": np.nan, "zero": 0.0}[blank]
    truth[truth == -1] = {"ignore": np.nan, "u_zeros": 0.0, "u_ones": 1.0}[uncertain]
    return truth


def aggregate_patients(
    table: pd.DataFrame, *, how: Literal["max", "mean", "noisy_or"] = "max"
) -> pd.DataFrame:
    """Return one row per patient and label (and split, if the table has it).

    A patient is positive if one image is. Rows without truth or score are left out first. Other
    columns keep the value of the patient's first image.

    Args:
        table: With `patient_id`, `y_true` and `y_score`.
        how: The highest score, the mean, or noisy-or: 1 - product of (1 - score).
    """
    keys = [key for key in ("split", "label", "model", "patient_id") if key in table]
    rows = table[np.isfinite(table["y_true"]) & np.isfinite(table["y_score"])]
    groups = rows.groupby(keys, sort=True, dropna=False)
    score = (
        1 - (1 - rows["y_score"]).groupby([rows[key] for key in keys], dropna=False).prod()
        if how == "noisy_or"
        else groups["y_score"].agg(how)
    )
    first: pd.DataFrame = groups.first()
    first["y_true"], first["y_score"] = groups["y_true"].max(), score
    return first.reset_index()
