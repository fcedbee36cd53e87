"""Agreement of two readings in the same unit: bone age in months, volumes in ml.

The error is always prediction minus reference. `y_true` and `y_score` are reference and prediction,
or `y_true` is a `Readings` that holds both.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.intervals import (
    ROUNDING,
    IntervalName,
    effective_number,
    linearised_error,
    log_wald,
    normal_quantile,
    proportion_of_rows,
    quantile_ranks,
    t_quantile,
)
from medtl.metrics.scores import CI, CI95, NO_ROWS, Ids, Readings, Values, num_patients
from medtl.types import FloatArray, IntArray, Measure

LIMIT_FACTOR = 1.96
"""Limits of agreement are bias plus and minus this many SDs, by convention."""

SLACK = 1e-9
"""Slack of "within 12 months", which includes 12 however it was subtracted."""


def error_measures(
    y_true: ArrayLike | Readings,
    y_score: Values = None,
    *,
    unit: str = "months",
    patients: Ids = None,
    ci: CI = CI95,
) -> list[Measure]:
    """Return MAE, RMSE, median absolute error and R2 with their intervals over patients.

    MAE and RMSE have t's interval on the log scale, R2 that of 1 - R2, the median order statistics.

    Args:
        y_true: `(n,)` reference in the unit.
        y_score: `(n,)` prediction in the unit.
        unit: Ends the names ("mae_months").
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the intervals.

    Raises:
        PredictionsError: If lengths differ or a value is not finite.

    >>> [round(measure.value, 3) for measure in error_measures([10, 20, 30], [12, 20, 27])]
    [1.667, 2.082, 2.0, 0.935]
    """
    rows = Readings.of(y_true, y_score, patients)
    names = [f"mae_{unit}", f"rmse_{unit}", f"median_absolute_error_{unit}", "r2"]
    blanks = [rows.blank(ci, name) for name in names]
    if not rows.reference.size:
        return [blank.undefined(NO_ROWS) for blank in blanks]
    error, centred = np.abs(rows.error), rows.reference - rows.reference.mean()
    square, spread = float((error**2).mean()), float((centred**2).mean())
    root = math.sqrt(square)
    mae = _on_log_scale(blanks[0], float(error.mean()), error, rows.patients)
    # The error of a root is that of the square, divided by twice the root.
    rmse = _on_log_scale(blanks[1], root, error**2 / (2 * root) if root else error, rows.patients)
    median = quantile_measure(blanks[2], error, 0.5, rows.patients)
    if not spread > 0:
        return [mae, rmse, median, blanks[3].undefined("the reference does not vary")]
    left = square / spread
    parts = error**2 / spread - left * centred**2 / spread
    rest = _on_log_scale(blanks[3], left, parts, rows.patients)
    ends = [None if end is None else 1 - end for end in (rest.high, rest.low)]
    r2 = replace(rest, value=1 - left, low=ends[0], high=ends[1])
    return [mae, rmse, median, r2]


def _on_log_scale(blank: Measure, value: float, parts: FloatArray, patients: IntArray) -> Measure:
    """Fill in a positive value whose error is that of the mean of its parts, with t's quantile."""
    error, clusters = linearised_error(parts, patients), num_patients(patients)
    if not (error > 0 and value > 0):
        return blank.weak(value, "it does not vary between patients, or there is one patient only")
    bounds = log_wald(value, error, t_quantile(clusters - 1, blank.confidence))
    return blank.ok(value, bounds, "t over patients, log scale")


def quantile_measure(
    blank: Measure, values: ArrayLike, level: float, patients: IntArray
) -> Measure:
    """Return the blank with a quantile of values and its distribution-free interval.

    Patients with several values count as so many as know the share below the quantile as well.

    Args:
        blank: Measure that knows its name and level.
        values: `(n,)`, n at least 1, finite.
        level: Of the quantile, in (0, 1), by linear interpolation.
        patients: `(n,)` codes.

    Reference:
        `quantile_ranks`; for patients with several values Woodruff, JASA 1952;47:635.

    >>> quantile_measure(Measure("x", None, n=30), np.arange(30.0), 0.5, np.arange(30))
    x: 14.500 [9.000, 20.000], n = 30 (order statistics)
    """
    ascending = np.sort(np.asarray(values, dtype=float))
    value = float(np.quantile(ascending, level))
    below = np.asarray(values, dtype=float) <= value
    number = math.floor(effective_number(below, patients, blank.confidence))
    # Rows of a patient may stand for more than one patient, but a tail needs the patients.
    people = min(number, num_patients(patients))
    ranks = quantile_ranks(level, number, blank.confidence)
    if ranks is None or quantile_ranks(level, people, blank.confidence) is None:
        needed = next(n for n in count(1) if quantile_ranks(level, n, blank.confidence))
        return blank.weak(value, f"an interval needs {needed} patients")
    low, high = (math.ceil(place * ascending.size / number - 1e-9) - 1 for place in ranks)
    return blank.ok(value, (float(ascending[low]), float(ascending[high])), "order statistics")


def within(
    y_true: ArrayLike | Readings,
    y_score: Values = None,
    limit: float = 12.0,
    *,
    unit: str = "months",
    patients: Ids = None,
    ci: CI = CI95,
    interval: IntervalName = "wilson",
) -> Measure:
    """Return the share of rows whose absolute error is at most the limit (inclusive).

    Args:
        y_true: `(n,)` reference in the unit.
        y_score: `(n,)` prediction in the unit.
        limit: In the unit.
        unit: Ends the name ("within_12_months").
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval.
        interval: Used when there is one row per patient.

    >>> within([10, 20, 30], [12, 20, 27], 2.0)
    within_2_months: 0.667 [0.208, 0.939], n = 3 (Wilson)
    """
    rows = Readings.of(y_true, y_score, patients)
    name, hits = f"within_{limit:g}_{unit}", np.abs(rows.error) <= limit + SLACK
    return proportion_of_rows(name, hits, patients=rows.patients, ci=ci, interval=interval)


def bland_altman(
    y_true: ArrayLike | Readings,
    y_score: Values = None,
    *,
    unit: str = "months",
    patients: Ids = None,
    ci: CI = CI95,
) -> list[Measure]:
    """Return bias and the two limits of agreement with their intervals.

    SD with n - 1; the intervals use t with (patients - 1) degrees of freedom. Several rows per
    patient: the error of the bias is taken over patients, and that of the limits widened alike.

    Args:
        y_true: `(n,)` reference in the unit.
        y_score: `(n,)` prediction in the unit.
        unit: Ends the names ("bias_months", "loa_low_months").
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the intervals.

    Reference:
        Bland and Altman, Stat Methods Med Res 1999;8:135: SE(limit) = SD sqrt(1/n +
        1.96^2 / (2 (n - 1))).

    >>> bland_altman([10, 20, 30, 40], [11, 19, 32, 42])[0]
    bias_months: 1.000 [-1.250, 3.250], n = 4 (t)
    """
    rows = Readings.of(y_true, y_score, patients)
    error, clusters = rows.error, rows.num_patients
    blanks = [rows.blank(ci, f"{name}_{unit}") for name in ("bias", "loa_low", "loa_high")]
    if not error.size:
        return [blank.undefined(NO_ROWS) for blank in blanks]
    bias = float(error.mean())
    if clusters < 2:
        reason = "an SD needs two patients"
        return [blanks[0].weak(bias, reason), *(blank.undefined(reason) for blank in blanks[1:])]
    if is_constant(error, rows.reference, rows.prediction):
        same = "all errors are equal"
        return [blank.weak(bias, same) for blank in blanks]
    n, spread = error.size, float(error.std(ddof=1))
    of_bias = linearised_error(error, rows.patients)
    design = of_bias / (spread / math.sqrt(n))
    of_limit = design * spread * math.sqrt(1 / n + LIMIT_FACTOR**2 / (2 * (n - 1)))
    t = t_quantile(clusters - 1, ci.level)
    method = "t over patients" if rows.clustered else "t"
    limit = LIMIT_FACTOR * spread
    found = [(bias, of_bias), (bias - limit, of_limit), (bias + limit, of_limit)]
    return [
        blank.ok(value, (value - t * se, value + t * se), method)
        for blank, (value, se) in zip(blanks, found, strict=True)
    ]


def is_constant(error: FloatArray, reference: FloatArray, prediction: FloatArray) -> bool:
    """Whether errors differ by no more than what the readings lose when they are subtracted.

    >>> reading = np.array([0.1, 0.2, 0.3])
    >>> is_constant(reading + 0.3 - reading, reading, reading + 0.3)
    True
    """
    largest = max(float(np.abs(reading).max()) for reading in (reference, prediction))
    return bool(np.ptp(error) <= ROUNDING * largest)


def intraclass_correlation(ratings: ArrayLike, *, ci: CI = CI95) -> Measure:
    """Return ICC(2,1): two-way random, absolute agreement, single rater.

    Args:
        ratings: `(n, k)`: n subjects, k raters, no gaps.
        ci: Level of the F interval.

    Raises:
        PredictionsError: If the ratings are not a table of numbers without gaps.

    Reference:
        Shrout and Fleiss, Psychol Bull 1979;86:420; interval as in R's psych::ICC.

    >>> four_raters = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9],
    ...                [6, 2, 4, 7]]
    >>> intraclass_correlation(four_raters)  # 0.29 in the paper's table 4
    icc_2_1: 0.290 [0.019, 0.761], n = 6 (Shrout-Fleiss F)
    """
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise PredictionsError(
            "the ratings are not a table of numbers without gaps", expected="(subjects, raters)"
        )
    n, k = table.shape
    blank = ci.blank("icc_2_1", n, patients=n)
    if n < 2 or k < 2:
        return blank.undefined("it needs two subjects and two raters")
    grand, rows, columns = table.mean(), table.mean(axis=1), table.mean(axis=0)
    between = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    raters = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    rest = table - rows[:, None] - columns + grand
    residual = float((rest**2).sum()) / ((n - 1) * (k - 1))
    scale = between + (k - 1) * residual + k * (raters - residual) / n
    if not scale > 0:
        return blank.undefined("the ratings do not vary")
    value = (between - residual) / scale
    if residual <= 1e-12 * between:
        return blank.weak(value, "the raters differ by constants only")
    from scipy.special import fdtri

    spread = raters / residual
    top = (k - 1) * (n - 1) * (k * value * spread + n * (1 + (k - 1) * value) - k * value) ** 2
    bottom = (n - 1) * k**2 * value**2 * spread**2 + (n * (1 + (k - 1) * value) - k * value) ** 2
    freedom = top / bottom
    level = 0.5 + ci.level / 2
    f_low, f_high = float(fdtri(n - 1, freedom, level)), float(fdtri(freedom, n - 1, level))
    other = k * raters + (k * n - k - n) * residual
    low = n * (between - f_low * residual) / (f_low * other + n * between)
    high = n * (f_high * between - residual) / (other + n * f_high * between)
    return blank.ok(value, (low, high), "Shrout-Fleiss F")


def correlation_measures(
    y_true: ArrayLike | Readings, y_score: Values = None, *, ci: CI = CI95
) -> list[Measure]:
    """Return Pearson's r, Lin's concordance and the slopes of the error.

    `error_slope_on_reference` and `error_slope_on_mean` show a bias that grows with the value
    (negative on the reference: pulled towards the middle). Intervals: Fisher z for the two
    correlations, t for the slopes.

    Args:
        y_true: `(n,)` reference.
        y_score: `(n,)` prediction.
        ci: Level of the intervals, of independent rows.

    Reference:
        Lin, Biometrics 1989;45:255 (with n, not n - 1, and Fisher's z as in R's epiR).

    >>> [round(m.value, 3) for m in correlation_measures([1, 2, 3, 4, 5], [1, 3, 2, 5, 4])]
    [0.8, 0.8, -0.2, 0.0]
    """
    rows = Readings.of(y_true, y_score)
    reference, prediction, error = rows.reference, rows.prediction, rows.error
    names = ("pearson_r", "concordance", "error_slope_on_reference", "error_slope_on_mean")
    blanks = [ci.blank(name, reference.size) for name in names]
    if reference.size < 4 or min(np.ptp(reference), np.ptp(prediction)) == 0:
        return [blank.undefined("it needs four rows and values that vary") for blank in blanks]
    correlation = float(np.corrcoef(reference, prediction)[0, 1])
    covariance = float(np.cov(reference, prediction, bias=True)[0, 1])
    spread = float(reference.var() + prediction.var() + error.mean() ** 2)
    concordance = 2 * covariance / spread
    bias_shift = float(error.mean() ** 2 / (reference.std() * prediction.std()))
    steady = is_constant(error, reference, prediction)
    of_concordance = _concordance_error(concordance, correlation, bias_shift, reference.size)
    return [
        _fisher(blanks[0], correlation, 1 / math.sqrt(reference.size - 3)),
        _fisher(blanks[1], concordance, of_concordance),
        _slope(blanks[2], reference, error, steady),
        _slope(blanks[3], (reference + prediction) / 2, error, steady),
    ]


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
        return blank.weak(value, "the points lie on a line, or the interval does not exist")
    half, centre = normal_quantile(blank.confidence) * error, math.atanh(value)
    return blank.ok(value, (math.tanh(centre - half), math.tanh(centre + half)), "Fisher z")


def _slope(blank: Measure, x: FloatArray, y: FloatArray, steady: bool) -> Measure:
    """Fill in the least-squares slope of y on x with its t interval; 0 of a steady y."""
    if steady:
        return blank.weak(0.0, "all errors are equal")
    centred = x - x.mean()
    squares = float(centred @ centred)
    if squares == 0:
        return blank.undefined("the values do not vary")
    value = float(centred @ y) / squares
    residual = y - y.mean() - value * centred
    error = math.sqrt(float(residual @ residual) / (x.size - 2) / squares)
    half = t_quantile(x.size - 2, blank.confidence) * error
    return blank.ok(value, (value - half, value + half), "t")
