"""Two or more models on the same cases. The sign is always first minus second."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.intervals import normal_quantile, t_quantile
from medtl.metrics.ranking import FEW, NO_VARIANCE, auc_covariance, auc_influence
from medtl.metrics.scores import CI, CI95, ONE_CLASS, Ids, Scores, finite_vector, num_patients
from medtl.types import FloatArray, IntArray, Measure


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison.

    Attributes:
        difference: First minus second, with its interval.
        statistic: z or t of the test, or W of Wilcoxon; None where there is no test.
        p: Two-sided; None where there is no test.
        method: Name of the test.
        detectable: Smallest true difference found with 80 percent power at this precision.
    """

    difference: Measure
    statistic: float | None
    p: float | None
    method: str
    detectable: float | None = None


def minimum_detectable_difference(
    error: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return the smallest true difference that a two-sided test finds with this power.

    Args:
        error: Standard error of the difference.
        alpha: Level of the test.
        power: Chance of finding it.

    Reference:
        (z of alpha/2 + z of power) x SE; Cohen 1988.

    >>> round(minimum_detectable_difference(0.01), 4)
    0.028
    """
    return (normal_quantile(1 - alpha) + normal_quantile(2 * power - 1)) * error


def two_sided_p(z: float) -> float:
    """Return the two-sided normal p of a z statistic.

    >>> round(two_sided_p(1.96), 3)
    0.05
    """
    return math.erfc(abs(z) / math.sqrt(2))


def paired_auroc(
    y_true: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    patients: Ids = None,
    ci: CI = CI95,
) -> PairedTest:
    """Return the difference of two AUCs on the same rows with DeLong's z test.

    With fewer than `FEW` patients in the smaller class interval and test are t's, with the freedom
    of the two classes' variances. Undefined with one class only or fewer than two patients of a
    class. Identical rankings have a difference of 0 without variance: degenerate, p = 1.

    Args:
        y_true: `(n,)`, 0 or 1.
        first: `(n,)` scores of the first model.
        second: `(n,)` scores of the second model.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval.

    Reference:
        DeLong et al., Biometrics 1988;44:837; clustered, Obuchowski 1997. Freedom: Welch 1947.

    >>> test = paired_auroc([0, 0, 0, 1, 1, 1], [1, 2, 5, 3, 4, 6], [2, 5, 6, 1, 3, 4])
    >>> round(test.difference.value, 3), round(test.p, 3)
    (0.556, 0.113)
    """
    rows = Scores.of(y_true, first, patients)
    blank = rows.blank("auroc_difference", ci)
    method = "paired Obuchowski over patients" if rows.clustered else "paired DeLong"
    if rows.one_class:
        return PairedTest(blank.undefined(ONE_CLASS), None, None, method)
    codes = rows.patients if rows.clustered else None
    aucs, covariance = auc_covariance(rows.truth, np.stack([first, second]), codes)
    value = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if math.isnan(variance):
        weak = blank.weak(value, "it needs at least two patients of each class")
        return PairedTest(weak, None, None, method)
    if variance < NO_VARIANCE:
        reason = "the difference does not vary between patients"
        same = blank.ok(value, (value, value), method).weak(value, reason)
        return PairedTest(same, None, 1.0 if abs(value) < 1e-12 else None, method)
    error, freedom = math.sqrt(variance), math.inf
    people = [num_patients(rows.patients[of]) for of in (rows.truth, ~rows.truth)]
    if min(people) < FEW:
        moved = auc_influence(rows.truth, first) - auc_influence(rows.truth, second)
        freedom, method = _welch_freedom(moved, rows, people), f"{method}, t"
    half = t_quantile(freedom, ci.level) * error
    difference = blank.ok(value, (value - half, value + half), method)
    from scipy.special import stdtr

    z, p = value / error, 2 * float(stdtr(freedom, -abs(value) / error))
    detectable = minimum_detectable_difference(error)
    return PairedTest(difference, z, p, method, detectable)


def _welch_freedom(moved: FloatArray, rows: Scores, people: Sequence[int]) -> float:
    """Return the degrees of freedom of a sum over both classes from how much each row moves it."""
    sums = [np.bincount(rows.patients[of], moved[of]) for of in (rows.truth, ~rows.truth)]
    parts = [k / (k - 1) * float(s @ s) for k, s in zip(people, sums, strict=True)]
    return sum(parts) ** 2 / sum(part**2 / (k - 1) for k, part in zip(people, parts, strict=True))


@dataclass(frozen=True)
class McNemar:
    """Disagreements of two deciders: `only_first` right, `only_second` right; exact p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> McNemar:
    """Return McNemar's exact test; on positives it compares sensitivities.

    Args:
        first_right: `(n,)` whether the first is right. One row per patient.
        second_right: `(n,)` whether the second is right.

    Reference:
        McNemar 1947; exact binomial, p = 1 without disagreements.

    >>> mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0])
    McNemar(only_first=5, only_second=0, p=0.0625)
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    if b == c:
        return McNemar(b, c, 1.0)
    from scipy.special import bdtr

    return McNemar(b, c, min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))))


def fisher_exact(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return Fisher's two-sided p of two independent shares.

    Args:
        first: Successes and trials.
        second: Successes and trials.

    Reference:
        Fisher 1935; the two-sided p adds all tables that are no more likely, as R's fisher.test.

    >>> round(fisher_exact((3, 4), (1, 4)), 4)
    0.4857
    """
    from scipy.special import gammaln

    successes = first[0] + second[0]
    total = first[1] + second[1]
    possible = np.arange(max(0, successes - second[1]), min(successes, first[1]) + 1)

    def log_choose(n: int, k: IntArray) -> FloatArray:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    log_p = log_choose(first[1], possible) + log_choose(second[1], successes - possible)
    log_p -= log_choose(total, np.array(successes))
    observed = log_p[first[0] - possible[0]]
    return min(1.0, float(np.exp(log_p[log_p <= observed + 1e-7]).sum()))


def paired_t(first: ArrayLike, second: ArrayLike, *, ci: CI = CI95) -> PairedTest:
    """Return the mean difference of paired values (seeds, folds, patients) with its t test.

    Args:
        first: `(n,)` values, such as one AUC per seed.
        second: `(n,)` values of the same seeds.
        ci: Level of the interval.

    >>> paired_t([0.84, 0.86, 0.85], [0.80, 0.83, 0.82]).difference
    mean_difference: 0.033 [0.019, 0.048], n = 3 (paired t)
    """
    difference = finite_vector(first, "first") - finite_vector(second, "second")
    blank, name = ci.blank("mean_difference", difference.size), "paired t"
    if difference.size < 2:
        return PairedTest(blank.undefined("it needs two pairs"), None, None, name)
    value = float(difference.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(difference.size)
    if not error > 1e-15:
        same = blank.ok(value, (value, value), "").weak(value, "all differences are equal")
        return PairedTest(same, None, 1.0 if value == 0 else None, name)
    from scipy.special import stdtr, stdtrit

    freedom = difference.size - 1
    half = float(stdtrit(freedom, 0.5 + ci.level / 2)) * error
    done = blank.ok(value, (value - half, value + half), name)
    p = 2 * float(stdtr(freedom, -abs(value / error)))
    return PairedTest(done, value / error, p, name, minimum_detectable_difference(error))


def wilcoxon(first: ArrayLike, second: ArrayLike, *, ci: CI = CI95) -> PairedTest:
    """Return the pseudo-median of paired differences with Wilcoxon's signed-rank test.

    The interval of the Hodges-Lehmann estimate uses the normal quantile of the rank sum. Zero
    differences are left out of the test (Wilcoxon's own rule).

    Args:
        first: `(n,)` values, such as the Dice of each patient.
        second: `(n,)` values of the same patients.
        ci: Level of the interval.

    Reference:
        Hollander and Wolfe 1999, chapter 3.

    >>> wilcoxon([0.9, 0.8, 0.85, 0.7, 0.95, 0.6], [0.8, 0.6, 0.55, 0.3, 0.45, 0.0]).p
    0.03125
    """
    difference = finite_vector(first, "first") - finite_vector(second, "second")
    n, name = difference.size, "Wilcoxon signed-rank"
    blank = ci.blank("median_difference", n)
    if not n:
        return PairedTest(blank.undefined("there are no pairs"), None, None, name)
    rows, columns = np.triu_indices(n)
    walsh = np.sort((difference[rows] + difference[columns]) / 2)
    value = float(np.median(walsh))
    if not difference.any():
        return PairedTest(blank.weak(value, "all differences are 0"), None, 1.0, name)
    if n < 6:
        return PairedTest(blank.weak(value, "it needs six pairs"), None, None, name)
    from scipy.stats import wilcoxon as signed_rank

    result = signed_rank(difference)
    centre, spread = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    skip = max(0, math.floor(centre - normal_quantile(ci.level) * spread))
    bounds = float(walsh[skip]), float(walsh[-1 - skip])
    done = blank.ok(value, bounds, f"{name}, Hodges-Lehmann")
    return PairedTest(done, float(result.statistic), float(result.pvalue), name)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given.

    Reference:
        Holm, Scand J Statist 1979;6:65.

    >>> holm([0.25, 0.03125, 0.125])
    [0.25, 0.09375, 0.25]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return _in_order(adjusted, order)


def where_known(
    adjust: Callable[[Sequence[float]], list[float]], p_values: Sequence[float | None]
) -> list[float | None]:
    """Return adjusted p values; a comparison without one is no member of the family.

    Args:
        adjust: `holm` or `benjamini_hochberg`.
        p_values: In the order of the comparisons, None where none could be made.

    >>> where_known(holm, [0.25, None, 0.03125, 0.125])
    [0.25, None, 0.09375, 0.25]
    """
    adjusted = iter(adjust([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for the false discovery rate, in the order given.

    Reference:
        Benjamini and Hochberg, JRSS B 1995;57:289.

    >>> benjamini_hochberg([0.25, 0.03125, 0.125])
    [0.25, 0.09375, 0.1875]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")[::-1]
    adjusted = np.minimum.accumulate(p[order] * p.size / np.arange(p.size, 0, -1))
    return _in_order(adjusted, order)


def _in_order(adjusted: FloatArray, order: IntArray) -> list[float]:
    """Return adjusted p values, at most 1, in the order in which they were given."""
    out = np.empty(order.size)
    out[order] = np.minimum(adjusted, 1)
    return [float(value) for value in out]
