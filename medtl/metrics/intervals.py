"""Confidence intervals as pairs of numbers, and shares of rows with an interval over patients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.scores import CI, CI95, Ids, is_clustered, num_patients, patient_codes
from medtl.types import BoolArray, FloatArray, IntArray, Measure

Interval = tuple[float, float]

Bounded = tuple[float, float, float]
"""A value, and the low and high end of its interval."""

ROUNDING = 1e-12
"""Share of a number below which a difference from it is one of rounding."""

IntervalName = Literal["wilson", "clopper-pearson"]


@dataclass(frozen=True, eq=False)
class Owners:
    """Whose the rows are, with what every share of the same rows asks of it: counted once.

    Attributes:
        codes: `(n,)` of the rows.
        number: How many different ones occur.
        are_shared: Whether some patient has several rows.

    >>> owners = Owners.of([0, 2, 2], 3)
    >>> owners.codes.tolist(), owners.number, owners.are_shared
    ([0, 1, 1], 2, True)
    """

    codes: IntArray
    number: int
    are_shared: bool

    @classmethod
    def of(cls, patients: Ids, n: int) -> Owners:
        """Return those of n rows, their codes without gaps."""
        return cls.as_coded(patient_codes(patients, n))

    @classmethod
    def as_coded(cls, codes: IntArray) -> Owners:
        """Return those of rows whose codes may have gaps."""
        return cls(codes, num_patients(codes), is_clustered(codes))


def normal_quantile(confidence: float) -> float:
    """Return z of a two-sided interval.

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def t_quantile(freedom: float, confidence: float) -> float:
    """Return t of a two-sided interval.

    >>> round(t_quantile(9, 0.95), 3)
    2.262
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def wilson(count: float, total: float, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval without continuity correction.

    Args:
        count: Successes, 0 to total; for an expected share no whole number.
        total: Trials, at least 1, or the effective number of them.
        confidence: In (0, 1).

    Reference:
        Wilson, JASA 1927;22:209, as in R's prop.test(correct=FALSE).

    >>> [round(bound, 3) for bound in wilson(9, 10)]
    [0.596, 0.982]
    """
    z2 = normal_quantile(confidence) ** 2
    share = count / total
    centre = share + z2 / (2 * total)
    half = math.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2)))
    low, high = (centre - half) / (1 + z2 / total), (centre + half) / (1 + z2 / total)
    # Rounding would otherwise leave 1e-17 and 0.9999999999999999 at the two ends.
    return (0.0 if count == 0 else low), (1.0 if count == total else high)


def clopper_pearson(count: int, total: int, confidence: float = 0.95) -> Interval:
    """Return the exact binomial interval from quantiles of the beta distribution.

    Args:
        count: Successes, 0 to total.
        total: Trials, at least 1.
        confidence: In (0, 1).

    Reference:
        Clopper and Pearson, Biometrika 1934;26:404.

    >>> [round(bound, 3) for bound in clopper_pearson(9, 10)]
    [0.555, 0.997]
    """
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - tail))
    return low, high


def newcombe_difference(
    first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95
) -> Interval:
    """Return the interval of first minus second, two independent proportions.

    Args:
        first: Successes and trials.
        second: Successes and trials.
        confidence: In (0, 1).

    Reference:
        Newcombe, Statistics in Medicine 1998;17:873, method 10 (hybrid of Wilson scores).

    >>> [round(bound, 3) for bound in newcombe_difference((56, 70), (48, 80))]
    [0.052, 0.334]
    """
    low, high = wilson(*second, confidence)
    return mover_sum(
        (first[0] / first[1], *wilson(*first, confidence)), (-second[0] / second[1], -high, -low)
    )


def mover_sum(first: Bounded, second: Bounded, correlation: float = 0.0) -> Interval:
    """Return the interval of the sum of two estimates from their own intervals.

    Args:
        first: Value, low and high.
        second: Value, low and high.
        correlation: Of the two estimates, in [-1, 1]; 0 where they are independent.

    Reference:
        MOVER: Zou and Donner, Stat Med 2008;27:1693, equation 10; of two Wilson intervals it is
        Newcombe 1998, method 10. With a correlation Zou, Psychol Methods 2007;12:399, equation 13.

    >>> [round(bound, 3) for bound in mover_sum((0.45, 0.30, 0.49), (0.40, 0.25, 0.47))]
    [0.638, 0.931]
    """
    (a, la, ua), (b, lb, ub) = first, second

    def joined(x: float, y: float) -> float:
        return math.sqrt(max(x * x + y * y + 2 * correlation * x * y, 0.0))

    return a + b - joined(a - la, b - lb), a + b + joined(ua - a, ub - b)


def mover_ratio(top: Bounded, bottom: Bounded) -> Interval:
    """Return the interval of the ratio of two independent, non-negative estimates.

    It exists for counts of 0 too; the upper end is infinite where the denominator may be 0.

    Args:
        top: Value, low and high.
        bottom: Value, low and high; not both values may be 0.

    Reference:
        MOVER-R: Donner and Zou, Stat Methods Med Res 2012;21:347.

    >>> [round(bound, 3) for bound in mover_ratio((0.9, 0.6, 0.98), (0.2, 0.06, 0.51))]
    [1.601, 15.025]
    """
    (a, la, ua), (b, lb, ub) = top, bottom

    def root(part: float, other: float) -> float:
        return math.sqrt(max((a * b) ** 2 - part * (2 * a - part) * other * (2 * b - other), 0.0))

    # The lower end without the difference of its two nearly equal terms.
    upwards, below = a * b + root(la, ub), lb * (2 * b - lb)
    low = la * (2 * a - la) / upwards if upwards > 0 else 0.0
    return low, (a * b + root(ua, lb)) / below if below > 0 else math.inf


def newcombe_variance(auc: float, positives: float, negatives: float) -> float:
    """Return the variance of an AUC as a function of its value and the sizes of the classes alone.

    Args:
        auc: In [0, 1].
        positives: Units with the disease.
        negatives: Units without.

    Reference:
        Newcombe, Statistics in Medicine 2006;25:559, methods 4 and 5.

    >>> round(newcombe_variance(0.8, 10, 10), 4)
    0.0104
    """
    others = (positives + negatives) / 2 - 1
    spread = 1 + others * (1 - auc) / (2 - auc) + others * auc / (1 + auc)
    return auc * (1 - auc) * spread / (positives * negatives)


def newcombe_auc(auc: float, positives: int, negatives: int, confidence: float = 0.95) -> Interval:
    """Return an interval of an AUC that is usable where the variance of DeLong is 0.

    Args:
        auc: In [0, 1].
        positives: Units with the disease, at least 1.
        negatives: Units without, at least 1.
        confidence: In (0, 1).

    Reference:
        Newcombe, Statistics in Medicine 2006;25:559, method 5.

    >>> [round(bound, 3) for bound in newcombe_auc(1.0, 10, 10)]
    [0.8, 1.0]
    """
    z2 = normal_quantile(confidence) ** 2

    def excess(x: float) -> float:
        return (auc - x) ** 2 - z2 * newcombe_variance(x, positives, negatives)

    from scipy.optimize import brentq

    # At 0 and 1 the estimate itself is a root; the bound sought is the other one.
    inner = min(max(auc, 1e-9), 1 - 1e-9)
    low = 0.0 if auc == 0 else float(brentq(excess, 0, inner, xtol=1e-14))
    high = 1.0 if auc == 1 else float(brentq(excess, inner, 1, xtol=1e-14))
    return low, high


def wald(value: float, error: float, confidence: float = 0.95) -> Interval:
    """Return value plus and minus z standard errors.

    Args:
        value: The estimate.
        error: Its standard error.
        confidence: In (0, 1).

    >>> [round(bound, 3) for bound in wald(0.5, 0.1)]
    [0.304, 0.696]
    """
    half = normal_quantile(confidence) * error
    return value - half, value + half


def logit_wald(value: float, error: float, quantile: float) -> Interval:
    """Return the interval of a share on the logit scale, which stays inside (0, 1).

    Args:
        value: In (0, 1), ends excluded.
        error: Standard error of the value on its own scale (delta method).
        quantile: Of the normal or t distribution (1.96 for 95 percent).

    >>> [round(bound, 3) for bound in logit_wald(0.9, 0.05, 1.96)]
    [0.752, 0.964]
    """
    centre = math.log(value / (1 - value))
    half = quantile * error / (value * (1 - value))
    return 1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre))


def log_wald(value: float, error: float, quantile: float) -> Interval:
    """Return the interval of a positive value on the log scale.

    Args:
        value: Above 0.
        error: Standard error of the value on its own scale (delta method).
        quantile: Of the normal or t distribution.

    >>> [round(bound, 3) for bound in log_wald(2.0, 0.5, 1.96)]
    [1.225, 3.265]
    """
    factor = math.exp(quantile * error / value)
    return value / factor, value * factor


def skewed_mean(values: ArrayLike, patients: IntArray, confidence: float = 0.95) -> Interval | None:
    """Return the t interval of a mean of skewed values over patients; None where nothing varies.

    t's own interval misses to one side where values are skewed, as distances and overlaps are. The
    t statistic is turned into one whose skewness is gone.

    Args:
        values: `(n,)`, n at least 1.
        patients: `(n,)` codes 0..P-1, each of which occurs.
        confidence: In (0, 1).

    Reference:
        Hall, JRSS B 1992;54:221, equation 2.3, on the patients' linearised values.

    >>> low, high = skewed_mean([1, 1, 2, 2, 3, 9], np.arange(6))
    >>> round(low, 2), round(high, 2)  # t: -0.22 to 6.22
    (0.84, 14.05)
    """
    moved = ratio_influence(values, patients)
    clusters, error = num_patients(patients), linearised_error(values, patients)
    if not error > 0:
        return None
    size = math.sqrt(clusters)
    skewness = float((moved**3).mean()) / float((moved**2).mean()) ** 1.5
    bend, shift = skewness / 3 / size, skewness / 6 / size
    t, mean = t_quantile(clusters - 1, confidence), float(np.asarray(values, dtype=float).mean())
    if abs(bend) < 1e-9:
        return mean - t * error, mean + t * error
    low, high = ((np.cbrt(1 + 3 * bend * (end - shift)) - 1) / bend for end in (t, -t))
    return mean - error * float(low), mean - error * float(high)


def quantile_ranks(level: float, n: int, confidence: float = 0.95) -> tuple[int, int] | None:
    """Return which of n ordered values, counted from 1, hold a quantile; None if no two do.

    The tails are equal where they can be; near an end one of them takes what it needs.

    Args:
        level: Of the quantile, in (0, 1).
        n: Number of independent values.
        confidence: In (0, 1).

    Reference:
        Hahn and Meeker 1991, section 5.2: distribution-free, from order statistics.

    >>> quantile_ranks(0.5, 30), quantile_ranks(0.05, 58), quantile_ranks(0.05, 59)
    ((10, 21), None, (1, 10))
    """
    from scipy.special import bdtr

    below = bdtr(np.arange(n + 1), n, level)  # P(so many values or fewer lie below the quantile)
    miss, tail = 1 - confidence, (1 - confidence) / 2
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail)) + 1
    if low == 0:
        low, tail = 1, miss - float(below[0])
        high = int(np.searchsorted(below, 1 - tail)) + 1
    if high > n:
        high, tail = n, miss - (1 - float(below[n - 1]))
        low = int(np.searchsorted(below, tail, side="right"))
    covered = float(below[high - 1] - below[low - 1]) if 0 < low < high <= n else 0.0
    return (low, high) if covered >= confidence - 1e-12 else None


def percentile(draws: FloatArray, confidence: float = 0.95) -> Interval:
    """Return the percentile bootstrap interval of the finite draws.

    Args:
        draws: `(resamples,)`; a resample without a value is NaN. At least one is finite.
        confidence: In (0, 1).

    >>> percentile(np.array([0, 1, 2, 3, 4, np.nan]), 0.5)
    (1.0, 3.0)
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws[np.isfinite(draws)], [tail, 1 - tail])
    return float(low), float(high)


def bias_corrected(
    draws: FloatArray, value: float, jackknife: FloatArray, confidence: float = 0.95
) -> Interval | None:
    """Return the BCa bootstrap interval, or None where the draws do not allow it.

    Args:
        draws: `(resamples,)` finite bootstrap values.
        value: The estimate.
        jackknife: `(n,)` estimates with one unit left out at a time.
        confidence: In (0, 1).

    Reference:
        Efron, JASA 1987;82:171.

    >>> draws, left_out = np.linspace(0, 1, 101), np.array([0.4, 0.5, 0.6])
    >>> [round(bound, 3) for bound in bias_corrected(draws, 0.5, left_out, 0.5)]
    [0.242, 0.742]
    """
    below = np.count_nonzero(draws < value) / draws.size
    if not 0 < below < 1:
        return None
    normal = NormalDist()
    bias = normal.inv_cdf(below)
    spread = jackknife.mean() - jackknife
    scale = 6 * float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / scale if scale > 0 else 0.0
    levels = []
    for z in (-normal_quantile(confidence), normal_quantile(confidence)):
        shifted = bias + z
        levels.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(draws, levels)
    return float(low), float(high)


def proportion(
    name: str,
    count: int,
    total: int,
    *,
    ci: CI = CI95,
    interval: IntervalName = "wilson",
    of: str = "rows",
) -> Measure:
    """Return count / total of independent rows; undefined when the total is 0.

    Args:
        name: Of the measure.
        count: Rows that count, 0 to total.
        total: Rows of the denominator.
        ci: Level of the interval.
        interval: Wilson without continuity correction, or Clopper-Pearson (exact).
        of: What the denominator holds, for the reason ("positives").

    Reference:
        Wilson 1927; Clopper and Pearson 1934.

    >>> proportion("sensitivity", 9, 10)
    sensitivity: 0.900 [0.596, 0.982], n = 10 (Wilson)
    """
    blank = ci.blank(name, total)
    if total == 0:
        return blank.undefined(f"there are no {of}")
    method, bounds = {
        "wilson": ("Wilson", wilson),
        "clopper-pearson": ("Clopper-Pearson", clopper_pearson),
    }[interval]
    return blank.ok(count / total, bounds(count, total, ci.level), method)


def proportion_of_rows(
    name: str,
    hits: BoolArray,
    *,
    patients: Ids | Owners = None,
    ci: CI = CI95,
    interval: IntervalName = "wilson",
    of: str = "rows",
) -> Measure:
    """Return the share of rows that are hits; patients with several rows widen the interval.

    One row per patient: `proportion`. Several: the ratio linearised over patients on the logit
    scale. If the share is 0 or 1, or there is one patient only, Wilson with patients as the count.

    Args:
        name: Of the measure.
        hits: `(n,)` of the rows in the denominator.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval.
        interval: Used when there is one row per patient.
        of: What the denominator holds, for the reason.

    Reference:
        Survey-weighted ratio, Korn and Graubard 1999; R survey::svyciprop(method="logit").

    >>> proportion_of_rows("accuracy", np.array([True, True, False, True]), patients=[1, 1, 2, 3])
    accuracy: 0.750 [0.004, 1.000], n = 4 (ratio linearised over patients)
    """
    owners = patients if isinstance(patients, Owners) else Owners.of(patients, hits.size)
    count, clusters = int(np.count_nonzero(hits)), owners.number
    plain = proportion(name, count, hits.size, ci=ci, interval=interval, of=of)
    plain = replace(plain, n_patients=clusters)
    if not owners.are_shared or plain.value is None:
        return plain
    error = linearised_error(hits, owners)
    if plain.value in (0.0, 1.0) or not error > 0:
        bounds = wilson(round(plain.value * clusters), clusters, ci.level)
        return plain.ok(plain.value, bounds, "Wilson with the number of patients")
    bounds = logit_wald(plain.value, error, t_quantile(clusters - 1, ci.level))
    return plain.ok(plain.value, bounds, "ratio linearised over patients, logit scale")


def ratio_influence(hits: ArrayLike, patients: IntArray) -> FloatArray:
    """Return how much each patient moves the share of hits, `(P,)`; the sum is 0.

    Args:
        hits: `(n,)` 0 or 1, n at least 1.
        patients: `(n,)` codes 0..P-1; codes that do not occur have influence 0.

    >>> ratio_influence([1, 1, 0, 0], np.array([0, 0, 1, 2]))
    array([ 0.25 , -0.125, -0.125])
    """
    values = np.asarray(hits, dtype=float)
    return np.bincount(patients, values - values.mean()) / values.size


def correlation_of(first: FloatArray, second: FloatArray) -> float:
    """Return the correlation of two estimates from how much each patient moves them, `(P,)` both.

    >>> round(correlation_of(np.array([1.0, -1.0, 0.0]), np.array([0.0, 1.0, -1.0])), 3)
    -0.5
    """
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / spread if spread > 0 else 0.0


def linearised_error(values: ArrayLike, patients: IntArray | Owners) -> float:
    """Return the standard error of a share or a mean over patients; NaN with one patient.

    It is 0 where the values differ by rounding alone.

    Args:
        values: `(n,)` of the rows, n at least 1.
        patients: `(n,)` codes.

    Reference:
        Taylor linearisation with the factor G/(G-1), as in R's survey package.

    >>> round(linearised_error([1, 1, 0, 0], np.array([0, 0, 1, 2])), 4)
    0.375
    """
    owners = patients if isinstance(patients, Owners) else Owners.as_coded(patients)
    clusters = owners.number
    if clusters < 2:
        return math.nan
    moved = ratio_influence(values, owners.codes)
    error = math.sqrt(clusters / (clusters - 1) * float(moved @ moved))
    return error if error > ROUNDING * abs(float(np.asarray(values, dtype=float).mean())) else 0.0


def effective_number(
    hits: BoolArray, patients: IntArray | Owners, confidence: float = 0.95
) -> float:
    """Return how many independent rows know a share as well as these rows of patients do.

    Args:
        hits: `(n,)` of the rows in the denominator, n at least 1.
        patients: `(n,)` codes, or their `Owners`.
        confidence: Of the interval that it is for: few patients have the wider t distribution.

    Reference:
        Korn and Graubard, Surv Methodol 1998;24:193.

    >>> effective_number(np.array([True, True, False, False]), np.arange(4))
    4
    >>> round(effective_number(np.repeat([True, False], 20), np.arange(40) // 2), 1)
    16.7
    """
    owners = patients if isinstance(patients, Owners) else Owners.as_coded(patients)
    clusters = owners.number
    if clusters == hits.size:
        return hits.size
    share, error = float(np.count_nonzero(hits) / hits.size), linearised_error(hits, owners)
    if not error > 0 or share in (0.0, 1.0):
        return clusters
    wider = t_quantile(clusters - 1, confidence) / normal_quantile(confidence)
    return min(float(hits.size), share * (1 - share) / (error * wider) ** 2)
