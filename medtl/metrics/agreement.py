"""Agreement of two readings in the same unit: bone age in months, volumes in ml.

The error is always prediction minus reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.calibration import mean_error
from medtl.metrics.discrimination import with_percentiles
from medtl.metrics.inputs import finite_vector, is_clustered, num_patients, patient_codes
from medtl.metrics.intervals import normal_quantile
from medtl.metrics.proportions import IntervalName, proportion_of_rows
from medtl.metrics.ranking import ratio
from medtl.metrics.resampling import affordable_resamples, bootstrap
from medtl.types import FloatArray, IntArray, Measure

LIMIT_FACTOR = 1.96
"""Limits of agreement are bias plus and minus this many SDs, by convention."""

ROUNDING = 1e-9
"""Slack of "within 12 months", which includes 12 however it was subtracted."""


def readings(y_true: ArrayLike, y_score: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return reference and prediction as float64, of equal length.

    Raises:
        PredictionsError: If lengths differ or a value is not finite.
    """
    reference, prediction = finite_vector(y_true, "y_true"), finite_vector(y_score, "y_score")
    if reference.size != prediction.size:
        raise PredictionsError(
            f"{reference.size} references and {prediction.size} predictions", expected="one each"
        )
    return reference, prediction


def error_measures(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    unit: str = "months",
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Measure]:
    """Return MAE, RMSE, median absolute error and R2 with bootstrap intervals over patients.

    Args:
        y_true: `(n,)` reference in the unit.
        y_score: `(n,)` prediction in the unit.
        unit: Ends the names ("mae_months").
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the intervals.
        resamples: Bootstrap resamples of the patients.
        seed: Of the bootstrap.
    """
    reference, prediction = readings(y_true, y_score)
    error = np.abs(prediction - reference)
    order = np.argsort(error, kind="stable")
    absolute = error[order]
    codes = patient_codes(patients, reference.size)[order]
    blank = Measure("", None, confidence=confidence, n=reference.size,
                    n_patients=num_patients(codes), status="undefined")  # fmt: skip
    names = [f"mae_{unit}", f"rmse_{unit}", f"median_absolute_error_{unit}", "r2"]
    if not reference.size:
        return [replace(blank, name=name, reason="there are no rows") for name in names]
    centred = (reference - reference.mean())[order]
    sums = np.stack([absolute, absolute**2, centred, centred**2], axis=1)

    def statistics(weights: IntArray) -> FloatArray:
        mean, square, shift, spread = (weights @ sums / weights.sum(axis=1)[:, None]).T
        middle = weighted_median(absolute, weights)
        explained = 1 - ratio(square, np.maximum(spread - shift**2, 0))
        return np.stack([mean, np.sqrt(square), middle, explained], axis=1)

    values = statistics(np.ones((1, reference.size), dtype=int))[0]
    drawn = affordable_resamples(resamples, reference.size)
    draws = bootstrap(statistics, codes, resamples=drawn, seed=seed)
    return [
        with_percentiles(replace(blank, name=name, value=float(value)), column)
        if math.isfinite(value)
        else replace(blank, name=name, reason="the reference does not vary")
        for name, value, column in zip(names, values, draws.T, strict=True)
    ]


def weighted_median(ascending: FloatArray, weights: IntArray) -> FloatArray:
    """Return the median of each resample, `(b,)`.

    Args:
        ascending: `(n,)` sorted values.
        weights: `(b, n)` how often each is drawn; each row has a positive sum.
    """
    cumulative = np.cumsum(weights, axis=1)
    total = cumulative[:, -1:]
    lower = np.argmax(cumulative >= (total + 1) // 2, axis=1)
    upper = np.argmax(cumulative >= total // 2 + 1, axis=1)
    return np.asarray((ascending[lower] + ascending[upper]) / 2)


def within(
    y_true: ArrayLike,
    y_score: ArrayLike,
    limit: float,
    *,
    unit: str = "months",
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    interval: IntervalName = "wilson",
) -> Measure:
    """Return the share of rows whose absolute error is at most the limit (inclusive).

    Args:
        y_true: `(n,)` reference in the unit.
        y_score: `(n,)` prediction in the unit.
        limit: In the unit.
        unit: Ends the name ("within_12_months").
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
        interval: Used when there is one row per patient.
    """
    reference, prediction = readings(y_true, y_score)
    hits = np.abs(prediction - reference) <= limit + ROUNDING
    return proportion_of_rows(
        f"within_{limit:g}_{unit}", hits,
        patients=patients, confidence=confidence, interval=interval,
    )  # fmt: skip


def bland_altman(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    unit: str = "months",
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
) -> list[Measure]:
    """Return bias and the two limits of agreement with their intervals.

    SD with n - 1; the intervals use t with (patients - 1) degrees of freedom. Several rows per
    patient: the error of the bias is taken over patients, and that of the limits widened alike.

    Args:
        y_true: `(n,)` reference in the unit.
        y_score: `(n,)` prediction in the unit.
        unit: Ends the names ("bias_months", "loa_low_months").
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the intervals.

    Reference:
        Bland and Altman, Stat Methods Med Res 1999;8:135: SE(limit) = SD sqrt(1/n +
        1.96^2 / (2 (n - 1))).
    """
    reference, prediction = readings(y_true, y_score)
    error = prediction - reference
    codes = patient_codes(patients, error.size)
    clusters = num_patients(codes)
    blank = Measure("", None, confidence=confidence, n=error.size, n_patients=clusters,
                    status="undefined")  # fmt: skip
    names = [f"bias_{unit}", f"loa_low_{unit}", f"loa_high_{unit}"]
    if not error.size:
        return [replace(blank, name=name, reason="there are no rows") for name in names]
    bias = float(error.mean())
    if clusters < 2:
        reason = "an SD needs two patients"
        first = replace(blank, name=names[0], value=bias, status="degenerate", reason=reason)
        return [first, *(replace(blank, name=name, reason=reason) for name in names[1:])]
    from scipy.special import stdtrit

    n, spread = error.size, float(error.std(ddof=1))
    of_bias = mean_error(error, codes)
    design = of_bias / (spread / math.sqrt(n)) if spread > 0 else 1.0
    of_limit = design * spread * math.sqrt(1 / n + LIMIT_FACTOR**2 / (2 * (n - 1)))
    t = float(stdtrit(clusters - 1, 0.5 + confidence / 2))
    method = "t over patients" if is_clustered(codes) else "t"
    limit = LIMIT_FACTOR * spread
    rows = [(bias, of_bias), (bias - limit, of_limit), (bias + limit, of_limit)]
    measures = [
        replace(blank, name=name, value=value, low=value - t * se, high=value + t * se,
                method=method, status="ok")
        for name, (value, se) in zip(names, rows, strict=True)
    ]  # fmt: skip
    if spread > 0:
        return measures
    reason = "all errors are equal"
    return [replace(measure, status="degenerate", reason=reason) for measure in measures]


def intraclass_correlation(ratings: ArrayLike, *, confidence: float = 0.95) -> Measure:
    """Return ICC(2,1): two-way random, absolute agreement, single rater.

    Args:
        ratings: `(n, k)`: n subjects, k raters, no gaps.
        confidence: Level of the F interval.

    Reference:
        Shrout and Fleiss, Psychol Bull 1979;86:420; interval as in R's psych::ICC.
    """
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise PredictionsError("the ratings are not a table of numbers without gaps",
                               expected="(subjects, raters)")  # fmt: skip
    n, k = table.shape
    blank = Measure("icc_2_1", None, confidence=confidence, n=n, n_patients=n, status="undefined")
    if n < 2 or k < 2:
        return replace(blank, reason="it needs two subjects and two raters")
    grand, rows, columns = table.mean(), table.mean(axis=1), table.mean(axis=0)
    between = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    raters = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    rest = table - rows[:, None] - columns + grand
    residual = float((rest**2).sum()) / ((n - 1) * (k - 1))
    scale = between + (k - 1) * residual + k * (raters - residual) / n
    if not scale > 0:
        return replace(blank, reason="the ratings do not vary")
    value = (between - residual) / scale
    if residual <= 1e-12 * between:
        reason = "the raters differ by constants only"
        return replace(blank, value=value, status="degenerate", reason=reason)
    low, high = _shrout_fleiss(value, between, raters, residual, (n, k), confidence)
    return replace(blank, value=value, low=low, high=high, method="Shrout-Fleiss F", status="ok")


def _shrout_fleiss(
    value: float,
    between: float,
    raters: float,
    residual: float,
    shape: tuple[int, int],
    confidence: float,
) -> tuple[float, float]:
    """Return the F interval of ICC(2,1) from the three mean squares."""
    from scipy.special import fdtri

    n, k = shape
    ratio = raters / residual
    top = (k - 1) * (n - 1) * (k * value * ratio + n * (1 + (k - 1) * value) - k * value) ** 2
    bottom = (n - 1) * k**2 * value**2 * ratio**2 + (n * (1 + (k - 1) * value) - k * value) ** 2
    freedom = top / bottom
    level = 0.5 + confidence / 2
    f_low, f_high = float(fdtri(n - 1, freedom, level)), float(fdtri(freedom, n - 1, level))
    rest = k * raters + (k * n - k - n) * residual
    low = n * (between - f_low * residual) / (f_low * rest + n * between)
    high = n * (f_high * between - residual) / (rest + n * f_high * between)
    return low, high


def correlation_measures(
    y_true: ArrayLike, y_score: ArrayLike, *, confidence: float = 0.95
) -> list[Measure]:
    """Return Pearson's r, Lin's concordance and the slopes of the error.

    `error_slope_on_reference` and `error_slope_on_mean` show a bias that grows with the value
    (negative on the reference: pulled towards the middle). Intervals: Fisher z for the two
    correlations, t for the slopes.

    Args:
        y_true: `(n,)` reference.
        y_score: `(n,)` prediction.
        confidence: Level of the intervals, of independent rows.

    Reference:
        Lin, Biometrics 1989;45:255 (with n, not n - 1, and Fisher's z as in R's epiR).
    """
    reference, prediction = readings(y_true, y_score)
    blank = Measure("", None, confidence=confidence, n=reference.size, status="undefined")
    names = ["pearson_r", "concordance", "error_slope_on_reference", "error_slope_on_mean"]
    constant = min(np.ptp(reference), np.ptp(prediction)) == 0 if reference.size else True
    if reference.size < 4 or constant:
        reason = "it needs four rows and values that vary"
        return [replace(blank, name=name, reason=reason) for name in names]
    error = prediction - reference
    correlation = float(np.corrcoef(reference, prediction)[0, 1])
    covariance = float(np.cov(reference, prediction, bias=True)[0, 1])
    spread = float(reference.var() + prediction.var() + error.mean() ** 2)
    concordance = 2 * covariance / spread
    bias_shift = float(error.mean() ** 2 / (reference.std() * prediction.std()))
    return [
        _fisher(replace(blank, name="pearson_r"), correlation, 1 / math.sqrt(reference.size - 3)),
        _fisher(replace(blank, name="concordance"), concordance,
                _concordance_error(concordance, correlation, bias_shift, reference.size)),
        _slope(replace(blank, name="error_slope_on_reference"), reference, error),
        _slope(replace(blank, name="error_slope_on_mean"), (reference + prediction) / 2, error),
    ]  # fmt: skip


def _concordance_error(ccc: float, r: float, shift: float, n: int) -> float:
    """Return the standard error of atanh(concordance), Lin 1989 with the correction of 2000."""
    if not 0 < abs(r) < 1 or abs(ccc) == 1:
        return math.nan
    ratio, left = ccc / r, 1 - ccc**2
    variance = (
        (1 - r**2) * ratio**2 / left
        + 2 * ccc**3 * (1 - ccc) * shift / (r * left**2)
        - ccc**4 * shift**2 / (2 * r**2 * left**2)
    ) / (n - 2)
    return math.sqrt(variance) if variance > 0 else math.nan


def _fisher(blank: Measure, value: float, error: float) -> Measure:
    """Fill in a correlation with Fisher's z interval."""
    if not abs(value) < 1 or math.isnan(error):
        reason = "the points lie on a line, or the interval does not exist"
        return replace(blank, value=value, status="degenerate", reason=reason)
    half, centre = normal_quantile(blank.confidence) * error, math.atanh(value)
    return replace(blank, value=value, low=math.tanh(centre - half),
                   high=math.tanh(centre + half), method="Fisher z", status="ok")  # fmt: skip


def _slope(blank: Measure, x: FloatArray, y: FloatArray) -> Measure:
    """Fill in the least-squares slope of y on x with its t interval."""
    from scipy.special import stdtrit

    centred = x - x.mean()
    squares = float(centred @ centred)
    if squares == 0:
        return replace(blank, reason="the values do not vary")
    value = float(centred @ y) / squares
    residual = y - y.mean() - value * centred
    error = math.sqrt(float(residual @ residual) / (x.size - 2) / squares)
    half = float(stdtrit(x.size - 2, 0.5 + blank.confidence / 2)) * error
    return replace(blank, value=value, low=value - half, high=value + half, method="t",
                   status="ok")  # fmt: skip


def bands(values: ArrayLike, edges: Sequence[float]) -> list[str]:
    """Return the name of the band [a, b) that each value lies in, "outside" beyond the edges.

    Args:
        values: `(n,)` ages or other numbers; NaN gives "unknown".
        edges: Ascending.
    """
    numbers = np.asarray(values, dtype=float)
    names = ["outside", *(f"[{a:g},{b:g})" for a, b in pairwise(edges)),
             "outside"]  # fmt: skip
    which = np.searchsorted(np.asarray(edges, dtype=float), numbers, side="right")
    return ["unknown" if np.isnan(x) else names[i] for x, i in zip(numbers, which, strict=True)]
