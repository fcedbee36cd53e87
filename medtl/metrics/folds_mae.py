"""Cross-validated mean absolute error: the mean over folds, and paired differences of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.discrimination import with_percentiles
from medtl.metrics.inputs import finite_vector, num_patients, patient_codes
from medtl.metrics.resampling import bootstrap
from medtl.types import FloatArray, IntArray, Measure


def mean_of_folds_mae(
    y_true: ArrayLike,
    predictions: Sequence[ArrayLike],
    folds: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Measure]:
    """Return the mean-of-folds MAE of each model, and the first's less each other model's.

    Patients are drawn within each fold; all models see the same resamples, so that a difference is
    paired. The interval therefore holds the sampling of test patients, not the retraining.

    Args:
        y_true: `(n,)` out-of-fold references in months.
        predictions: One or more vectors `(n,)` of out-of-fold predictions in months.
        folds: `(n,)` fold of each row.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the intervals.
        resamples: Number of resamples.
        seed: Of the random generator.

    Returns:
        One "mae_months_mean_of_folds" per model, then one "mae_months_difference" (first minus
        other, below 0 when the first is better) per model but the first. Undefined without rows.

    Raises:
        PredictionsError: For values that are not finite, or vectors of different lengths.
    """
    truth = finite_vector(y_true, "y_true")
    columns = [finite_vector(column, "y_score") for column in predictions]
    fold = np.unique(np.asarray(folds), return_inverse=True)[1].ravel()
    for values in (*columns, fold):
        if values.size != truth.size:
            raise PredictionsError(
                f"{truth.size} references and {values.size} predictions or folds",
                expected="one each",
            )
    codes = patient_codes(patients, truth.size)
    names = ["mae_months_mean_of_folds"] * len(columns)
    names += ["mae_months_difference"] * (len(columns) - 1)
    blank = Measure("", None, confidence=confidence, n=truth.size,
                    n_patients=num_patients(codes), status="undefined")  # fmt: skip
    if not truth.size:
        return [replace(blank, name=name, reason="there are no rows") for name in names]
    errors = np.abs(np.stack(columns, axis=1) - truth[:, None])
    parts = [np.flatnonzero(fold == k) for k in np.unique(fold)]
    values = _with_differences(np.mean([errors[part].mean(axis=0) for part in parts], axis=0))
    draws = _with_differences(
        np.mean(
            [
                _fold_draws(errors[part], codes[part], resamples, seed + k)
                for k, part in enumerate(parts)
            ],
            axis=0,
        )
    )
    return [
        with_percentiles(replace(blank, name=name, value=float(value)), column)
        for name, value, column in zip(names, values, draws.T, strict=True)
    ]


def _fold_draws(errors: FloatArray, codes: IntArray, resamples: int, seed: int) -> FloatArray:
    """Mean error of each model in every resample of a fold's patients, `(b, m)`."""
    own = np.unique(codes, return_inverse=True)[1].ravel()

    def statistic(weights: IntArray) -> FloatArray:
        return np.asarray(weights @ errors / weights.sum(axis=1, keepdims=True))

    return bootstrap(statistic, own, resamples=resamples, seed=seed)


def _with_differences(values: FloatArray) -> FloatArray:
    """Append first minus other along the last axis, for each model but the first."""
    return np.concatenate([values, values[..., :1] - values[..., 1:]], axis=-1)
