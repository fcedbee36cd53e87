"""Summaries of the ROC and precision-recall curves whose interval needs the bootstrap.

Thresholds are picked again in every resample. They are picked on the very set that is reported, so
none of them is an operating point: that one is chosen on validation (`operating_point`).
"""

from __future__ import annotations

import math

import numpy as np

from medtl.metrics.ranking import (
    Ranking,
    area_under_part_of_roc,
    rank,
    ratio,
    step_precision,
)
from medtl.metrics.resampling import ROUNDING, FromCounts, bootstrap_measures
from medtl.metrics.scores import CI, CI95, Ids, Truth, Values
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
        ci: Level and bootstrap of the interval.

    >>> average_precision([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4]).value
    0.8333333333333333
    """
    ranking = rank(y_true, y_score, patients)
    return bootstrap_measures({"average_precision": step_precision}, ranking, ci)[0]


def part_of_roc(specificity: float = 0.9, *, standardised: bool = True) -> dict[str, FromCounts]:
    """Return the statistic behind `partial_auc` by the name of its measure.

    >>> list(part_of_roc(0.8))
    ['partial_auc_specificity_80_to_100']
    """
    widest = 1 - specificity
    least = widest**2 / 2

    def area(tp: IntArray, fp: IntArray) -> FloatArray:
        raw = area_under_part_of_roc(tp, fp, specificity)
        return (1 + (raw - least) / (widest - least)) / 2 if standardised else raw

    return {f"partial_auc_specificity_{percent(specificity)}_to_100": area}


def at_specificity(specificity: float) -> dict[str, FromCounts]:
    """Return the statistic behind `sensitivity_at_specificity` by the name of its measure.

    >>> list(at_specificity(0.9))
    ['sensitivity_at_specificity_90']
    """
    name = f"sensitivity_at_specificity_{percent(specificity)}"
    return {name: lambda tp, fp: best_sensitivity(tp, fp, specificity)}


def at_sensitivity(sensitivity: float) -> dict[str, FromCounts]:
    """Return the statistic behind `specificity_at_sensitivity` by the name of its measure.

    >>> list(at_sensitivity(0.9))
    ['specificity_at_sensitivity_90']
    """
    name = f"specificity_at_sensitivity_{percent(sensitivity)}"
    return {name: lambda tp, fp: best_specificity(tp, fp, sensitivity)}


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
        ci: Level and bootstrap of the interval.

    Reference:
        McClish, Medical Decision Making 1989;9:190.

    >>> round(partial_auc([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4], specificity=0.5).value, 3)
    0.667
    """
    statistic = part_of_roc(specificity, standardised=standardised)
    return bootstrap_measures(statistic, rank(y_true, y_score, patients), ci)[0]


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
        ci: Level and bootstrap of the interval; the threshold is picked again in each resample.

    >>> sensitivity_at_specificity([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4], specificity=1.0).value
    0.5
    """
    ranking = rank(y_true, y_score, patients)
    return bootstrap_measures(at_specificity(specificity), ranking, ci)[0]


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
        ci: Level and bootstrap of the interval; the threshold is picked again in each resample.

    >>> specificity_at_sensitivity([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.4], sensitivity=1.0).value
    0.5
    """
    ranking = rank(y_true, y_score, patients)
    return bootstrap_measures(at_sensitivity(sensitivity), ranking, ci)[0]


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
