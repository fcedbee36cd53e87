"""Cross-validated AUROC and mean absolute error: the mean over folds, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.discrimination import with_percentiles
from medtl.metrics.inputs import (
    blank_measure,
    finite_vector,
    num_patients,
    patient_codes,
    truth_and_score,
)
from medtl.metrics.ranking import area_under_roc, rank, weighted_counts
from medtl.metrics.resampling import bootstrap, patient_strata
from medtl.types import BoolArray, FloatArray, IntArray, Measure

ONE_CLASS_FOLD = "a fold holds one class only"


def mean_of_folds_auroc(
    y_true: ArrayLike,
    scores: Sequence[ArrayLike],
    folds: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Measure]:
    """Return the mean-of-folds AUROC of each model and, for two models, their difference.

    Scores of different folds come from different models and are never ranked together. Patients are
    drawn within each fold, within those with and those without a positive row; all models see the
    same resamples. The interval therefore holds the sampling of test patients, not the retraining.

    Args:
        y_true: `(n,)` out-of-fold truth, 0 or 1.
        scores: One or two vectors `(n,)` of out-of-fold scores.
        folds: `(n,)` fold of each row.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the intervals.
        resamples: Number of resamples.
        seed: Of the random generator.

    Returns:
        One "auroc_mean_of_folds" per model, then "auroc_difference" (first minus second) if there
        are two. Undefined when a fold holds one class only.

    Raises:
        PredictionsError: For truths that are not 0 or 1, or scores that are not finite.
    """
    truth = truth_and_score(y_true, scores[0])[0]
    columns = [finite_vector(score, "y_score") for score in scores]
    fold = np.unique(np.asarray(folds), return_inverse=True)[1].ravel()
    codes = patient_codes(patients, truth.size)
    names = ["auroc_mean_of_folds"] * len(columns)
    names += ["auroc_difference"] * (len(columns) - 1)
    blanks = [blank_measure(name, truth, codes, confidence) for name in names]
    rows = [np.flatnonzero(fold == k) for k in np.unique(fold)]
    if any(truth[part].all() or not truth[part].any() for part in rows):
        return [replace(blank, reason=ONE_CLASS_FOLD) for blank in blanks]
    parts = [
        _auroc_of_fold(truth, columns, codes, part, resamples, seed + k)
        for k, part in enumerate(rows)
    ]
    return _mean_over_folds(blanks, parts)


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
    drawn = [
        (errors[part].mean(axis=0), _mae_draws(errors[part], codes[part], resamples, seed + k))
        for k, part in enumerate(parts)
    ]
    return _mean_over_folds([replace(blank, name=name) for name in names], drawn)


def _mean_over_folds(
    blanks: Sequence[Measure], parts: Sequence[tuple[FloatArray, FloatArray]]
) -> list[Measure]:
    """The measures of each model, then of the differences, of `(m,)` and `(b, m)` of each fold."""
    values = _with_differences(np.mean([value for value, _ in parts], axis=0))
    draws = _with_differences(np.mean([drawn for _, drawn in parts], axis=0))
    return [
        with_percentiles(replace(blank, value=float(value)), column)
        for blank, value, column in zip(blanks, values, draws.T, strict=True)
    ]


def _auroc_of_fold(
    truth: BoolArray,
    columns: Sequence[FloatArray],
    codes: IntArray,
    part: IntArray,
    resamples: int,
    seed: int,
) -> tuple[FloatArray, FloatArray]:
    """AUROC of each model in one fold `(m,)`, and in every resample of its patients `(b, m)`."""
    rankings = [rank(truth[part], column[part]) for column in columns]
    values = np.array([area_under_roc(r.tp, r.fp) for r in rankings], dtype=float)
    own = np.unique(codes[part], return_inverse=True)[1].ravel()

    def statistic(weights: IntArray) -> FloatArray:
        counts = (weighted_counts(r, weights[:, r.order]) for r in rankings)
        return np.stack([area_under_roc(tp, fp) for tp, fp in counts], axis=1)

    strata = patient_strata(truth[part], own)
    return values, bootstrap(statistic, own, strata=strata, resamples=resamples, seed=seed)


def _mae_draws(errors: FloatArray, codes: IntArray, resamples: int, seed: int) -> FloatArray:
    """Mean error of each model in every resample of a fold's patients, `(b, m)`."""
    own = np.unique(codes, return_inverse=True)[1].ravel()

    def statistic(weights: IntArray) -> FloatArray:
        return np.asarray(weights @ errors / weights.sum(axis=1, keepdims=True))

    return bootstrap(statistic, own, resamples=resamples, seed=seed)


def _with_differences(values: FloatArray) -> FloatArray:
    """Append first minus other along the last axis, for each model but the first."""
    return np.concatenate([values, values[..., :1] - values[..., 1:]], axis=-1)
