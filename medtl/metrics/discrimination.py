"""Summaries of the ROC and precision-recall curves.

Thresholds are picked on the very set that is reported, so none of them is an operating point: that
one is chosen on validation (`operating_point`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.intervals import (
    Interval,
    Owners,
    effective_number,
    normal_quantile,
    proportion_of_rows,
    t_quantile,
    wilson,
)
from medtl.metrics.ranking import (
    Ranking,
    area_under_part_of_roc,
    rank,
    ratio,
    step_precision,
)
from medtl.metrics.resampling import ROUNDING, FromCounts, bootstrapped
from medtl.metrics.scores import CI, CI95, ONE_CLASS, Ids, Scores, Truth, Values, num_patients
from medtl.types import FloatArray, IntArray, Measure


def least_count(share: float, total: FloatArray) -> FloatArray:
    """Return the least whole count that is at least `share` of `total`.

    >>> least_count(0.9, np.array([10.0, 11.0]))
    array([ 9., 10.])
    """
    return np.asarray(np.ceil(share * total - ROUNDING))


def best_sensitivity(tp: IntArray, fp: IntArray, specificity: float) -> FloatArray:
    """Return the highest sensitivity of a threshold whose specificity is at least so high.

    Args:
        tp: `(..., k)` cumulative true positives.
        fp: `(..., k)` cumulative false positives.
        specificity: In [0, 1]. The threshold above all scores (flag nobody) counts too.

    >>> best_sensitivity(np.array([1, 2, 2]), np.array([0, 1, 4]), 0.75)
    array(1.)
    """
    positives, negatives = tp[..., -1].astype(float), fp[..., -1].astype(float)
    allowed = negatives[..., None] - fp >= least_count(specificity, negatives)[..., None]
    best = np.where(allowed, tp, 0).max(axis=-1)
    return ratio(best, positives)


def best_specificity(tp: IntArray, fp: IntArray, sensitivity: float) -> FloatArray:
    """Return the highest specificity of a threshold whose sensitivity is at least so high.

    Args:
        tp: `(..., k)` cumulative true positives.
        fp: `(..., k)` cumulative false positives.
        sensitivity: In [0, 1].

    >>> best_specificity(np.array([1, 2, 2]), np.array([0, 1, 4]), 1.0)
    array(0.75)
    """
    positives, negatives = tp[..., -1].astype(float), fp[..., -1].astype(float)
    needed = least_count(sensitivity, positives)
    allowed = tp >= needed[..., None]
    best = np.where(allowed, negatives[..., None] - fp, 0).max(axis=-1)
    best = np.where(needed <= 0, negatives, best)
    return ratio(best, negatives)


def average_precision(
    y_true: Truth, y_score: Values = None, *, patients: Ids = None, ci: CI = CI95
) -> Measure:
    """Return average precision; its chance level is the prevalence. Undefined with one class.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level and bootstrap of the interval, which is that of `curve_measures`.

    >>> average_precision([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4]).value
    0.8333333333333333
    """
    return curve_measures(rank(y_true, y_score, patients), ci=ci)[0]


def partial_auc(
    y_true: Truth,
    y_score: Values = None,
    *,
    specificity: float = 0.9,
    standardised: bool = True,
    patients: Ids = None,
    ci: CI = CI95,
) -> Measure:
    """Return the area under the ROC from this specificity up to 1. Undefined with one class.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite.
        specificity: Lower end of the range, in [0, 1).
        standardised: McClish's form, 0.5 for chance and 1 for perfect; otherwise the raw area.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level and bootstrap of the interval, which is that of `curve_measures`.

    Reference:
        McClish, Medical Decision Making 1989;9:190.

    >>> round(partial_auc([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4], specificity=0.5).value, 3)
    0.667
    """
    ranking = rank(y_true, y_score, patients)
    return curve_measures(ranking, specificity, standardised=standardised, ci=ci)[1]


PATIENTS_IN_RANGE = 3
"""Patients without the finding that the range of a partial AUC must expect, to have an interval."""


def curve_measures(
    ranking: Ranking, specificity: float = 0.9, *, standardised: bool = True, ci: CI = CI95
) -> list[Measure]:
    """Return average precision and the partial AUC with intervals from the same resamples.

    Both are means over the positives of a value between 0 and 1. Their interval is Wilson's of as
    many positives as have the bootstrap's standard error, at most their patients: with few of them
    the percentiles of the bootstrap cover as little as 0.7. A partial AUC whose range holds fewer
    than `PATIENTS_IN_RANGE` negatives has no interval, for none covers.

    Args:
        ranking: Of the n rows.
        specificity: Lower end of the range of the partial AUC, in [0, 1).
        standardised: McClish's form of it, otherwise the raw area.
        ci: Level and bootstrap.

    Reference:
        Wilson 1927 with the effective number of Korn and Graubard 1998.

    >>> curve_measures(rank([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4]), 0.5)[0].method
    'Wilson, effective number of positives, B=2000'
    """
    width = 1 - specificity
    names = ("average_precision", f"partial_auc_specificity_{percent(specificity)}_to_100")
    blank = ci.blank("", ranking.positive.size, ranking.num_positive, ranking.num_patients)
    if not (ranking.num_positive and ranking.num_negative):
        return [replace(blank, name=name).undefined(ONE_CLASS) for name in names]
    statistics: list[FromCounts] = [
        step_precision,
        lambda tp, fp: area_under_part_of_roc(tp, fp, specificity) / width,
    ]
    codes = ranking.patient_numbers
    most, others = (num_patients(codes[of]) for of in (ranking.positive, ~ranking.positive))
    found = bootstrapped(ranking, statistics, ci)
    precision = _of_positives(replace(blank, name=names[0]), *found[0], most)
    part = _of_positives(replace(blank, name=names[1]), *found[1], most)
    if width * others < PATIENTS_IN_RANGE - ROUNDING:
        needed = math.ceil(PATIENTS_IN_RANGE / width - ROUNDING)
        reason = f"an interval needs {needed} patients without the finding"
        part = replace(part, low=None, high=None, method="").weak(found[1][0], reason)

    def shown(share: float | None) -> float | None:
        raw = None if share is None else share * width
        if raw is None or not standardised:
            return raw
        least = width**2 / 2
        return (1 + (raw - least) / (width - least)) / 2

    part = replace(part, value=shown(part.value), low=shown(part.low), high=shown(part.high))
    return [precision, part]


def _of_positives(blank: Measure, value: float, draws: FloatArray, most: int) -> Measure:
    """Fill in a mean over the positives, with the interval that its bootstrap error allows."""
    known = draws[np.isfinite(draws)]
    error = float(known.std(ddof=1)) if known.size > 1 else 0.0
    method = f"Wilson, effective number of positives, B={draws.size}"
    if most < 2:
        return blank.weak(value, "an interval needs two patients with the finding")
    number = float(most)
    if error > 0 and 0 < value < 1:
        number = min(number, value * (1 - value) / error**2)
    number *= (normal_quantile(blank.confidence) / t_quantile(most - 1, blank.confidence)) ** 2
    bounds = wilson(value * number, number, blank.confidence)
    return blank.ok(value, bounds, method)


def sensitivity_at_specificity(
    y_true: Truth,
    y_score: Values = None,
    *,
    specificity: float,
    patients: Ids = None,
    ci: CI = CI95,
) -> Measure:
    """Return the best sensitivity among thresholds of at least this specificity.

    Args:
        y_true: `(n,)`, 0 or 1, both present or the measure is undefined; or a `Scores`.
        y_score: `(n,)`, finite.
        specificity: In [0, 1], compared as a whole count of negatives.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval, which holds that the threshold is taken from the negatives.

    >>> sensitivity_at_specificity([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4], specificity=1.0).value
    0.5
    """
    rows = Scores.of(y_true, y_score, patients)
    name = f"sensitivity_at_specificity_{percent(specificity)}"
    if rows.one_class:
        return rows.blank(name, ci).undefined(ONE_CLASS)
    ranking = rank(rows)
    value = float(best_sensitivity(ranking.tp, ranking.fp, specificity))
    return _at_share(rows, name, value, specificity, ci)


def specificity_at_sensitivity(
    y_true: Truth,
    y_score: Values = None,
    *,
    sensitivity: float,
    patients: Ids = None,
    ci: CI = CI95,
) -> Measure:
    """Return the best specificity among thresholds of at least this sensitivity.

    Args:
        y_true: `(n,)`, 0 or 1, both present or the measure is undefined; or a `Scores`.
        y_score: `(n,)`, finite.
        sensitivity: In [0, 1], compared as a whole count of positives.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval, which holds that the threshold is taken from the positives.

    >>> specificity_at_sensitivity([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4], sensitivity=1.0).value
    0.5
    """
    rows = Scores.of(y_true, y_score, patients)
    name = f"specificity_at_sensitivity_{percent(sensitivity)}"
    if rows.one_class:
        return rows.blank(name, ci).undefined(ONE_CLASS)
    ranking = rank(rows)
    value = float(best_specificity(ranking.tp, ranking.fp, sensitivity))
    # Seen from the other side: who is healthy is found, and low scores flag.
    other = Scores.of(~rows.truth, -rows.score, rows.patients)
    return _at_share(other, name, value, sensitivity, ci)


def _at_share(rows: Scores, name: str, value: float, share: float, ci: CI) -> Measure:
    """Return the share of positives flagged where this share of negatives is not, with MOVER.

    Two things are uncertain: the threshold, a quantile of the negatives, and the share of positives
    above a known threshold. Each gives a distance from the value to either side. A bootstrap of
    both covers 0.5 to 0.9, for the threshold is an extreme of few rows.
    """
    threshold = threshold_at_specificity(rank(rows), share)
    bounds = _bounds_of_curve(rows, ci)(value, threshold, share)
    method = "MOVER on the threshold's quantile and the share"
    return rows.blank(name, ci).ok(value, bounds, method)


def _bounds_of_curve(rows: Scores, ci: CI) -> Callable[[float, float, float], Interval]:
    """Return the function from (sensitivity, its threshold, specificity) to the interval."""
    healthy, owners = rows.score[~rows.truth], Owners.as_coded(rows.patients[~rows.truth])
    diseased, theirs = rows.score[rows.truth], Owners.of(rows.patients[rows.truth], rows.positives)
    negative, positive = np.sort(healthy), np.sort(diseased)
    ends = np.concatenate([[-math.inf], negative, [math.inf]])

    def at_least(end: float, side: Literal["left", "right"]) -> float:
        return 1 - float(np.searchsorted(positive, end, side)) / positive.size

    def bounds(value: float, threshold: float, share: float) -> Interval:
        # Wilson's interval holds the share for these numbers of negatives below the threshold.
        number = effective_number(healthy < threshold, owners, ci.level)
        reach = normal_quantile(ci.level) * math.sqrt(share * (1 - share) / number)
        fewest = max(math.ceil((share - reach) * negative.size - ROUNDING), 0)
        most = min(math.floor((share + reach) * negative.size + ROUNDING), negative.size)
        worst, best = at_least(ends[most + 1], "left"), at_least(ends[fewest], "right")
        of_positives = proportion_of_rows("", diseased >= threshold, patients=theirs, ci=ci)
        low, high = of_positives.low or 0.0, 1.0 if of_positives.high is None else of_positives.high
        return (
            max(value - math.hypot(max(value - worst, 0), value - low), 0.0),
            min(value + math.hypot(max(best - value, 0), high - value), 1.0),
        )

    return bounds


def roc_band(rows: Scores, thresholds: ArrayLike, ci: CI = CI95) -> tuple[FloatArray, FloatArray]:
    """Return the band of the sensitivity along the ROC curve, low and high, `(k,)` each.

    It is pointwise: at each specificity it is the interval of `sensitivity_at_specificity`.

    Args:
        rows: Both classes.
        thresholds: `(k,)`; infinity flags nobody.
        ci: Level.

    >>> low, high = roc_band(Scores.of([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6]), [3.0, 5.0])
    >>> low.round(2), high.round(2)
    (array([0., 0.]), array([1.  , 0.94]))
    """
    bounds = _bounds_of_curve(rows, ci)
    diseased, healthy = np.sort(rows.score[rows.truth]), np.sort(rows.score[~rows.truth])
    at = np.asarray(thresholds, dtype=float)
    flagged = (diseased.size - np.searchsorted(diseased, at)) / diseased.size
    cleared = np.searchsorted(healthy, at) / healthy.size
    found = [
        bounds(*point)
        for point in zip(flagged.tolist(), at.tolist(), cleared.tolist(), strict=True)
    ]
    low, high = np.array(found).reshape(-1, 2).T
    return low, high


def precision_band(
    rows: Scores, thresholds: ArrayLike, ci: CI = CI95
) -> tuple[FloatArray, FloatArray]:
    """Return the band of the precision along its curve, low and high, `(k,)` each.

    Pointwise: at each recall that of the specificity (`roc_band` seen from the other side), turned
    into the precision at the prevalence of the rows.

    Args:
        rows: Both classes.
        thresholds: `(k,)` scores at which somebody with the finding is flagged.
        ci: Level.

    >>> low, high = precision_band(Scores.of([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6]), [3.0])
    >>> low.round(2), high.round(2)
    (array([0.5]), array([0.94]))
    """
    at = np.asarray(thresholds, dtype=float)
    other = Scores.of(~rows.truth, -rows.score, rows.patients)
    specificity = roc_band(other, np.nextafter(-at, math.inf), ci)
    diseased = np.sort(rows.score[rows.truth])
    hits = diseased.size - np.searchsorted(diseased, at)
    healthy = rows.truth.size - rows.positives
    with np.errstate(invalid="ignore"):
        low, high = (hits / (hits + healthy * (1 - end)) for end in specificity)
    # Where nobody with the finding is flagged yet, any precision may be.
    return np.where(hits > 0, low, 0.0), np.where(hits > 0, high, 1.0)


def percent(share: float) -> str:
    """Return a share as the percentage used in names.

    >>> percent(0.9), percent(0.975)
    ('90', '97.5')
    """
    return f"{round(share * 100, 6):g}"


def threshold_at_sensitivity(ranking: Ranking, sensitivity: float) -> float:
    """Return the highest score at which at least this share of positives is flagged.

    Args:
        ranking: With at least one positive.
        sensitivity: In [0, 1]; 0 is met by flagging nobody (infinity).

    >>> threshold_at_sensitivity(rank([0, 1, 1], [0.2, 0.9, 0.4]), 0.6)
    0.4
    """
    needed = math.ceil(sensitivity * ranking.num_positive - ROUNDING)
    if needed <= 0:
        return math.inf
    return float(ranking.thresholds[np.searchsorted(ranking.tp, needed)])


def threshold_at_specificity(ranking: Ranking, specificity: float) -> float:
    """Return the score of best sensitivity with at least this specificity, the highest of equals.

    Args:
        ranking: With at least one negative.
        specificity: In [0, 1]. Infinity, flag nobody, if no score has a sensitivity above 0.

    >>> threshold_at_specificity(rank([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.1]), 1.0)
    0.4
    """
    needed = math.ceil(specificity * ranking.num_negative - ROUNDING)
    allowed = np.flatnonzero(ranking.num_negative - ranking.fp >= needed)
    if not allowed.size or ranking.tp[allowed[-1]] == 0:
        return math.inf
    return float(ranking.thresholds[np.searchsorted(ranking.tp, ranking.tp[allowed[-1]])])
