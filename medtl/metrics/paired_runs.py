"""Is one way of training better than another? Paired runs: the same seeds, or the same folds.

Runs whose seeds draw their own splits of the same patients are not independent: their training sets
overlap, and a plain paired t test finds differences that are not there. The variance of the mean
difference is then s^2 (1/n + overlap) with overlap = test share / training share (Nadeau and Bengio
2003); it is the plain s^2 / n when the overlap is 0. Last, what the folds of a cross-validation
say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.comparison import holm, wilcoxon
from medtl.metrics.ranking import Ranking, area_under_roc, rank, weighted_counts
from medtl.metrics.resampling import bootstrap, patient_strata, with_percentiles
from medtl.metrics.scores import (
    CI,
    CI95,
    NO_ROWS,
    Ids,
    binary_truth,
    finite_vector,
    num_patients,
    patient_codes,
)
from medtl.types import FloatArray, IntArray, Measure

POWER = 0.8
"""Chance with which the smallest detectable difference would be found."""

NO_SPREAD = 1e-12
"""Standard deviation of the differences below which they are all the same."""

QUANTILES = 4000
"""Points at which the distribution of the variance is averaged over."""

Verdict = Literal["better", "worse", "not shown", "identical", "undefined"]


@dataclass(frozen=True)
class PairedRuns:
    """The difference of two ways of training over paired runs.

    Attributes:
        difference: Mean of second minus first, with its interval; n is the number of pairs.
        sd: Of the differences, or None with one pair.
        p: Two-sided, of the (corrected) paired t test.
        p_plain: The same as if runs were independent; equal to `p` when they share one split.
        p_wilcoxon: Of the signed-rank test, None with fewer than six pairs.
        p_holm: `p` adjusted for everything tested together.
        detectable: Smallest true difference that so many runs find with 80 percent power.
        verdict: Whether a difference may be called real.
        reason: Why, for a reader.
    """

    difference: Measure
    sd: float | None = None
    p: float | None = None
    p_plain: float | None = None
    p_wilcoxon: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    verdict: Verdict = "undefined"
    reason: str = ""


def compare_runs(
    differences: Mapping[str, ArrayLike],
    *,
    overlap: float = 0.0,
    larger_is_better: bool = True,
    alpha: float = 0.05,
) -> dict[str, PairedRuns]:
    """Return what may be said of each set of paired differences, all tested together.

    A difference is called real only when its Holm-adjusted p is below `alpha` and it is not smaller
    than the smallest difference that this many runs could have shown. That one is computed at the
    level `alpha` / (number of comparisons), which is the first step of Holm's procedure.

    Args:
        differences: Name -> `(n,)` values of the second minus values of the first, by pair.
        overlap: Test share over training share when every run draws its own split, 0 when all runs
            share one; 1 / (k - 1) for k folds.
        larger_is_better: Whether a positive difference is good.
        alpha: Level of the tests; intervals have the level 1 - alpha.

    Raises:
        PredictionsError: For differences that are not finite.

    Reference:
        Nadeau and Bengio, Machine Learning 2003;52:239, equation 9; Holm 1979.

    >>> runs = compare_runs({"a": [0.05, 0.06, 0.055, 0.052]})["a"]
    >>> runs.verdict, round(runs.p, 4)
    ('better', 0.0001)
    """
    found = {
        name: _paired(finite_vector(values, name), overlap, alpha, max(1, len(differences)))
        for name, values in differences.items()
    }
    tested = [name for name, runs in found.items() if runs.p is not None]
    for name, p in zip(tested, holm([found[name].p or 0.0 for name in tested]), strict=True):
        found[name] = replace(found[name], p_holm=p)
    return {name: _judged(runs, larger_is_better, alpha) for name, runs in found.items()}


def detectable_difference(
    sd: float, n: int, *, overlap: float = 0.0, alpha: float = 0.05, power: float = POWER
) -> float:
    """Return the smallest true mean difference that a two-sided paired t test finds.

    Args:
        sd: Standard deviation of the paired differences.
        n: Number of pairs, at least 2.
        overlap: As `compare_runs`.
        alpha: Level of the test.
        power: Chance of finding it.

    Reference:
        Cohen 1988, chapter 2; the noncentral t as a mean of normals over the chi-square variance.

    >>> round(detectable_difference(1.0, 20), 3)  # G*Power: 0.660
    0.66
    """
    from scipy.optimize import brentq
    from scipy.special import chdtri, ndtr, stdtrit

    freedom = n - 1
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    tails = (np.arange(QUANTILES) + 0.5) / QUANTILES
    limits = critical * np.sqrt(chdtri(freedom, tails) / freedom)

    def lacking(shift: float) -> float:
        return float((ndtr(shift - limits) + ndtr(-shift - limits)).mean()) - power

    shift = float(brentq(lacking, 0.0, 10.0 + 10.0 * critical))
    return shift * sd * math.sqrt(1 / n + overlap)


def _paired(values: FloatArray, overlap: float, alpha: float, comparisons: int) -> PairedRuns:
    """Return the test of one set of differences, before what is tested with it is known."""
    blank = CI(1 - alpha).blank("mean_difference", values.size)
    if values.size < 2:
        reason = "it needs two paired runs"
        weak = blank.weak(float(values[0]), reason) if values.size else blank.undefined(reason)
        return PairedRuns(weak)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd < NO_SPREAD:
        same = blank.ok(mean, (mean, mean), "").weak(mean, "all runs differ by the same amount")
        return PairedRuns(same, sd=sd, p=1.0 if abs(mean) < NO_SPREAD else None)
    from scipy.special import stdtr, stdtrit

    freedom = values.size - 1
    error = sd * math.sqrt(1 / values.size + overlap)
    half = float(stdtrit(freedom, 1 - alpha / 2)) * error
    method = "paired t" if overlap == 0 else "paired t, variance corrected for overlapping splits"
    return PairedRuns(
        blank.ok(mean, (mean - half, mean + half), method),
        sd=sd,
        p=2 * float(stdtr(freedom, -abs(mean) / error)),
        p_plain=2 * float(stdtr(freedom, -abs(mean) / (sd / math.sqrt(values.size)))),
        p_wilcoxon=wilcoxon(values, np.zeros_like(values)).p,
        detectable=detectable_difference(
            sd, values.size, overlap=overlap, alpha=alpha / comparisons
        ),
    )


def _judged(runs: PairedRuns, larger_is_better: bool, alpha: float) -> PairedRuns:
    """Return the same with its verdict."""
    value = runs.difference.value
    if value is None or runs.sd is None:
        return replace(runs, reason=runs.difference.reason)
    if runs.sd < NO_SPREAD:
        if abs(value) < NO_SPREAD:
            return replace(runs, verdict="identical", reason="every pair of runs is equal")
        return replace(runs, reason=runs.difference.reason)
    limit, p = runs.detectable or math.inf, runs.p_holm if runs.p_holm is not None else 1.0
    if p >= alpha:
        reason = f"a true difference below {limit:.3f} could have been missed"
        return replace(runs, verdict="not shown", reason=reason)
    if abs(value) < limit:
        reason = f"smaller than {limit:.3f}, what {runs.difference.n} paired runs can show"
        return replace(runs, verdict="not shown", reason=reason)
    is_better = (value > 0) == larger_is_better
    return replace(runs, verdict="better" if is_better else "worse", reason="")


ONE_CLASS_FOLD = "a fold holds one class only"


def mean_of_folds_auroc(
    y_true: ArrayLike,
    scores: Sequence[ArrayLike],
    folds: ArrayLike,
    *,
    patients: Ids = None,
    ci: CI = CI95,
) -> list[Measure]:
    """Return the mean-of-folds AUROC of each model, and the first's less each other model's.

    Scores of different folds come from different models and are never ranked together. Patients are
    drawn within each fold, within those with and those without a positive row; all models see the
    same resamples. The interval therefore holds the sampling of test patients, not the retraining.

    Args:
        y_true: `(n,)` out-of-fold truth, 0 or 1.
        scores: One or more vectors `(n,)` of out-of-fold scores.
        folds: `(n,)` fold of each row.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level and bootstrap of the intervals.

    Returns:
        One "auroc_mean_of_folds" per model, then one "auroc_difference" (first minus other) per
        model but the first. Undefined when a fold holds one class only.

    Raises:
        PredictionsError: For truths that are not 0 or 1, scores that are not finite, or vectors of
            different lengths.

    >>> truth, folds = [0, 1, 0, 1], [1, 1, 2, 2]
    >>> mean_of_folds_auroc(truth, [[0.1, 0.2, 0.9, 0.8]], folds, ci=CI(resamples=50))[0].value
    0.5
    """
    truth = binary_truth(y_true)
    columns, parts = _folds(truth.size, scores, folds)
    codes = patient_codes(patients, truth.size)
    blanks = _blanks("auroc", len(columns), ci.blank("", truth.size, int(truth.sum())), codes)
    if any(truth[part].all() or not truth[part].any() for part in parts):
        return [blank.undefined(ONE_CLASS_FOLD) for blank in blanks]
    drawn = []
    for k, part in enumerate(parts):
        rankings = [rank(truth[part], column[part]) for column in columns]
        own = patient_codes(codes[part], part.size)

        def statistic(weights: IntArray, rankings: Sequence[Ranking] = rankings) -> FloatArray:
            counts = (weighted_counts(r, weights[:, r.order]) for r in rankings)
            return np.stack([area_under_roc(tp, fp) for tp, fp in counts], axis=1)

        value = np.array([area_under_roc(r.tp, r.fp) for r in rankings], dtype=float)
        strata = patient_strata(truth[part], own)
        of_fold = replace(ci, seed=ci.seed + k)
        draws = bootstrap(statistic, own, of_fold, strata=strata)
        drawn.append((value, _widened(draws, value, int(np.bincount(strata).min()))))
    return _mean_over_folds(blanks, drawn)


def mean_of_folds_mae(
    y_true: ArrayLike,
    predictions: Sequence[ArrayLike],
    folds: ArrayLike,
    *,
    unit: str = "months",
    patients: Ids = None,
    ci: CI = CI95,
) -> list[Measure]:
    """Return the mean-of-folds MAE of each model, and the first's less each other model's.

    Patients are drawn within each fold; all models see the same resamples, so that a difference is
    paired. The interval therefore holds the sampling of test patients, not the retraining.

    Args:
        y_true: `(n,)` out-of-fold references in the unit.
        predictions: One or more vectors `(n,)` of out-of-fold predictions in the unit.
        folds: `(n,)` fold of each row.
        unit: In the names.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level and bootstrap of the intervals.

    Returns:
        One "mae_months_mean_of_folds" per model, then one "mae_months_difference" (first minus
        other, below 0 when the first is better) per model but the first. Undefined without rows.

    Raises:
        PredictionsError: For values that are not finite, or vectors of different lengths.

    >>> models = [[11, 22, 30, 40], [10, 20, 33, 44]]
    >>> found = mean_of_folds_mae([10, 20, 30, 40], models, folds=[1, 1, 2, 2])
    >>> [measure.value for measure in found]
    [0.75, 1.75, -1.0]
    """
    truth = finite_vector(y_true, "y_true")
    columns, parts = _folds(truth.size, predictions, folds)
    codes = patient_codes(patients, truth.size)
    blanks = _blanks(f"mae_{unit}", len(columns), ci.blank("", truth.size), codes)
    if not truth.size:
        return [blank.undefined(NO_ROWS) for blank in blanks]
    errors = np.abs(np.stack(columns, axis=1) - truth[:, None])
    drawn = []
    for k, part in enumerate(parts):
        own, of_fold = patient_codes(codes[part], part.size), replace(ci, seed=ci.seed + k)

        def statistic(weights: IntArray, mine: FloatArray = errors[part]) -> FloatArray:
            return np.asarray(weights @ mine / weights.sum(axis=1, keepdims=True))

        value = errors[part].mean(axis=0)
        drawn.append(
            (value, _widened(bootstrap(statistic, own, of_fold), value, num_patients(own)))
        )
    return _mean_over_folds(blanks, drawn)


def _folds(
    n: int, vectors: Sequence[ArrayLike], folds: ArrayLike
) -> tuple[list[FloatArray], list[IntArray]]:
    """Return the checked vectors of the models, and the rows of every fold."""
    columns = [finite_vector(values, "y_score") for values in vectors]
    fold = np.unique(np.asarray(folds), return_inverse=True)[1].ravel()
    for values in (*columns, fold):
        if values.size != n:
            raise PredictionsError(
                f"{n} references and {values.size} predictions or folds", expected="one each"
            )
    return columns, [np.flatnonzero(fold == k) for k in np.unique(fold)]


def _blanks(name: str, models: int, blank: Measure, codes: IntArray) -> list[Measure]:
    """Return the measures of each model and of the differences, without their values."""
    endings = ["mean_of_folds"] * models + ["difference"] * (models - 1)
    blank = replace(blank, n_patients=num_patients(codes))
    return [replace(blank, name=f"{name}_{ending}") for ending in endings]


def _widened(draws: FloatArray, value: FloatArray, patients: int) -> FloatArray:
    """Return draws around the value that vary as much as it does, `(b, m)`.

    A resample of k patients varies by (k - 1) / k too little, and the folds are small.

    Reference:
        Rescaled bootstrap: Rao and Wu, JASA 1988;83:231, section 2.
    """
    if patients < 2:
        return draws
    return np.asarray(value + (draws - value) * math.sqrt(patients / (patients - 1)))


def _mean_over_folds(
    blanks: Sequence[Measure], parts: Sequence[tuple[FloatArray, FloatArray]]
) -> list[Measure]:
    """Return the measures of each model and difference from `(m,)` and `(b, m)` of each fold."""
    values = _with_differences(np.mean([value for value, _ in parts], axis=0))
    draws = _with_differences(np.mean([drawn for _, drawn in parts], axis=0))
    return [
        with_percentiles(replace(blank, value=float(value)), column)
        for blank, value, column in zip(blanks, values, draws.T, strict=True)
    ]


def _with_differences(values: FloatArray) -> FloatArray:
    """Append first minus other along the last axis, for each model but the first."""
    return np.concatenate([values, values[..., :1] - values[..., 1:]], axis=-1)
