"""How well a score ranks diseased above healthy: ROC, its area, precision and recall.

One core under all of it: the distinct scores in descending order and, at each, how many positives
and negatives score at least as high. A row is called positive if and only if score >= threshold.
Higher always means more diseased; the direction is never flipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.intervals import logit_wald, newcombe_auc, normal_quantile, t_quantile
from medtl.metrics.scores import (
    CI,
    CI95,
    ONE_CLASS,
    Ids,
    Scores,
    Truth,
    Values,
    is_clustered,
    num_patients,
    patient_codes,
)
from medtl.types import BoolArray, FloatArray, IntArray, Measure

FEW = 30
"""Patients of the smaller class below which DeLong's interval of an AUC covers too little."""

NO_VARIANCE = 1e-18
"""A variance of an AUC below this is 0 but for rounding."""


@dataclass(frozen=True)
class Ranking:
    """Rows in descending order of their score.

    Attributes:
        order: `(n,)` row numbers, highest score first.
        positive: `(n,)` truth in that order.
        thresholds: `(k,)` distinct scores, descending.
        last: `(k,)` position of the last row with that score or a higher one.
        tp, fp: `(k,)` positives and negatives with score >= threshold.
        patients: `(n,)` patient codes in that order, or None where each has one row.
    """

    order: IntArray
    positive: BoolArray
    thresholds: FloatArray
    last: IntArray
    tp: IntArray
    fp: IntArray
    patients: IntArray | None = None

    @property
    def patient_numbers(self) -> IntArray:
        """Patient codes, the row's own number where each patient has one row."""
        return np.arange(self.positive.size) if self.patients is None else self.patients

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return num_patients(self.patient_numbers)

    @property
    def num_positive(self) -> int:
        """Number of positive rows."""
        return int(np.count_nonzero(self.positive))

    @property
    def num_negative(self) -> int:
        """Number of negative rows."""
        return self.positive.size - self.num_positive


def rank(y_true: Truth, y_score: Values = None, patients: Ids = None) -> Ranking:
    """Return the ranking of the rows.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite, higher means more diseased.
        patients: `(n,)` identifiers, or None for one row per patient.

    Raises:
        PredictionsError: If a value is not usable.

    >>> ranking = rank([0, 1, 1], [0.2, 0.9, 0.2])
    >>> ranking.thresholds, ranking.tp, ranking.fp
    (array([0.9, 0.2]), array([1, 2]), array([0, 1]))
    """
    rows = Scores.of(y_true, y_score, patients)
    order = np.argsort(-rows.score, kind="stable")
    score, positive = rows.score[order], rows.truth[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if score.size else order
    tp = np.cumsum(positive, dtype=np.int64)[last]
    codes = rows.patients[order] if rows.clustered else None
    return Ranking(order, positive, score[last], last, tp, last + 1 - tp, codes)


def coarsen(ranking: Ranking, groups: int = 2048) -> Ranking:
    """Return the ranking with at most about so many thresholds, evenly spread over the rows.

    Counts at the thresholds that stay are exact. The bootstrap works on it: an interval does not
    need every one of 200,000 thresholds.

    Args:
        ranking: Of n rows.
        groups: Largest number of thresholds.

    >>> coarsen(rank([0, 1] * 50, np.arange(100)), 10).thresholds.size
    10
    """
    if ranking.thresholds.size <= groups:
        return ranking
    wanted = np.linspace(0, ranking.positive.size - 1, groups)
    kept = np.unique(np.searchsorted(ranking.last, wanted))
    parts = {name: getattr(ranking, name)[kept] for name in ("thresholds", "last", "tp", "fp")}
    return replace(ranking, **parts)


def weighted_counts(ranking: Ranking, weights: IntArray) -> tuple[IntArray, IntArray]:
    """Return true and false positives at every threshold, in every resample.

    Args:
        ranking: Of n rows with k distinct scores.
        weights: `(b, n)` how often each row is drawn, in ranking order.

    Returns:
        `(b, k)` and `(b, k)`.

    >>> weighted_counts(rank([0, 1, 1], [0.2, 0.9, 0.2]), np.array([[2, 0, 1]]))
    (array([[2, 3]]), array([[0, 0]]))
    """
    starts = np.concatenate([[0], ranking.last[:-1] + 1])
    flagged, tp = (
        np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1, dtype=np.int64)
        for drawn in (weights, weights * ranking.positive)
    )
    return tp, flagged - tp


def ratio(top: ArrayLike, bottom: ArrayLike) -> FloatArray:
    """Return top / bottom elementwise, NaN where the denominator is 0.

    >>> ratio([1, 1], [2, 0])
    array([0.5, nan])
    """
    below = np.asarray(bottom, dtype=float)
    out = np.full(below.shape, np.nan)
    return np.asarray(np.divide(np.asarray(top, dtype=float), below, out=out, where=below != 0))


def area_under_roc(tp: IntArray, fp: IntArray) -> FloatArray:
    """Return the area under the ROC curve from counts; NaN with one class only.

    Args:
        tp: `(..., k)` cumulative true positives.
        fp: `(..., k)` cumulative false positives.

    Reference:
        Trapezoids of the ROC = P(positive scores higher) + P(tie) / 2; Bamber 1975.

    >>> area_under_roc(np.array([1, 2]), np.array([0, 1]))
    array(0.75)
    """
    previous = np.concatenate([np.zeros_like(tp[..., :1]), tp[..., :-1]], axis=-1)
    steps = np.diff(fp, axis=-1, prepend=0)
    twice = np.einsum("...k,...k->...", steps.astype(float), (tp + previous).astype(float))
    pairs = tp[..., -1].astype(float) * fp[..., -1]
    return ratio(twice / 2, pairs)


def area_under_part_of_roc(tp: IntArray, fp: IntArray, specificity: float) -> FloatArray:
    """Return the raw area under the ROC where specificity is at least so high; NaN with one class.

    Args:
        tp: `(..., k)` cumulative true positives.
        fp: `(..., k)` cumulative false positives.
        specificity: Lower end of the range, in [0, 1).

    >>> area_under_part_of_roc(np.array([2, 2]), np.array([0, 4]), 0.75).round(2)
    np.float64(0.25)
    """
    positives, negatives = tp[..., -1:].astype(float), fp[..., -1:].astype(float)
    with np.errstate(invalid="ignore"):
        y, x = tp / positives, fp / negatives
    before_y = np.concatenate([np.zeros_like(y[..., :1]), y[..., :-1]], axis=-1)
    before_x = np.concatenate([np.zeros_like(x[..., :1]), x[..., :-1]], axis=-1)
    width = np.minimum(x, 1 - specificity) - np.minimum(before_x, 1 - specificity)
    whole = x - before_x
    share = np.divide(width, whole, out=np.zeros_like(whole), where=whole > 0)
    return np.asarray((width * (before_y + share * (y - before_y) / 2)).sum(axis=-1))


def step_precision(tp: IntArray, fp: IntArray) -> FloatArray:
    """Return average precision, sum of (recall step) x precision; NaN without positives.

    Args:
        tp: `(..., k)` cumulative true positives.
        fp: `(..., k)` cumulative false positives.

    Reference:
        The step sum of scikit-learn's average_precision_score; trapezoids would be optimistic.

    >>> step_precision(np.array([1, 1, 2]), np.array([0, 1, 1])).round(3)
    np.float64(0.833)
    """
    flagged = (tp + fp).astype(float)
    # A score that nobody in a resample has, above all others, gains nothing.
    precision = np.divide(tp, flagged, out=np.zeros(flagged.shape), where=flagged > 0)
    gained = np.einsum("...k,...k->...", np.diff(tp, axis=-1, prepend=0).astype(float), precision)
    return ratio(gained, tp[..., -1])


def placements(y_true: Truth, y_score: Values = None) -> FloatArray:
    """Return per row the share of the other class that it is ranked correctly against.

    A tie counts one half. The mean over the positives, and over the negatives, is the AUC.

    Args:
        y_true: `(n,)`, 0 or 1, both present, or a `Scores`.
        y_score: `(n,)`, finite.

    Reference:
        DeLong et al., Biometrics 1988;44:837, V10 and V01, by binary search in O(n log n).

    >>> placements([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9])
    array([1.  , 0.75, 0.75, 1.  ])
    """
    rows = Scores.of(y_true, y_score)
    truth, score = rows.truth, rows.score
    # A search for sorted scores stays in the processor's cache: six times faster than unsorted.
    diseased, healthy = (
        mine[np.argsort(score[mine])] for mine in (np.flatnonzero(truth), np.flatnonzero(~truth))
    )
    values = np.empty(score.size)
    below, not_above = _twice_correct(score[diseased], score[healthy])
    values[diseased] = below / (2 * healthy.size)
    values[healthy] = 1 - not_above / (2 * diseased.size)
    return values


def _twice_correct(diseased: FloatArray, healthy: FloatArray) -> tuple[IntArray, IntArray]:
    """Return per diseased row twice the healthy rows below it, per healthy row those not above it.

    Both scores ascend; a tie counts one, half of a row.
    """
    below = np.searchsorted(healthy, diseased, side="left")
    upto = np.searchsorted(healthy, diseased, side="right")
    # A healthy row has above it the diseased rows that have it below them: counted, not searched.
    not_above = np.zeros(healthy.size + 1, dtype=np.int64)
    for places in (below, upto):
        not_above += np.bincount(places, minlength=healthy.size + 1)
    np.cumsum(not_above, out=not_above)
    below += upto
    return below, not_above[:-1]


def auc_covariance(
    y_true: ArrayLike, scores: ArrayLike, patients: Ids = None
) -> tuple[FloatArray, FloatArray]:
    """Return the AUCs of k scores of the same rows and their covariance over patients.

    With one row per patient this is DeLong exactly; with several it is Obuchowski's extension.

    Args:
        y_true: `(n,)`, 0 or 1, both present.
        scores: `(k, n)`, finite.
        patients: `(n,)` identifiers, or None for one row per patient.

    Returns:
        `(k,)` AUCs and `(k, k)` covariance; NaN where fewer than two patients have a class.

    Reference:
        DeLong et al., Biometrics 1988;44:837; Obuchowski, Biometrics 1997;53:567, equation 5.

    >>> aucs, covariance = auc_covariance([0, 0, 1, 1], [[1, 3, 2, 4], [1, 2, 3, 4]])
    >>> aucs, covariance.round(3)
    (array([0.75, 1.  ]), array([[0.125, 0.   ],
           [0.   , 0.   ]]))
    """
    rows = np.atleast_2d(np.asarray(scores, dtype=float))
    truth = Scores.of(y_true, rows[0]).truth
    codes = patient_codes(patients, truth.size)
    values = np.stack([placements(truth, row) for row in rows])
    aucs = values[:, truth].mean(axis=1)
    centred = values - aucs[:, None]

    def per_patient(selected: BoolArray) -> FloatArray:
        total = int(codes.max()) + 1
        sums = [np.bincount(codes[selected], row[selected], minlength=total) for row in centred]
        return np.stack(sums) / np.count_nonzero(selected)

    def spread(clusters: int) -> float:
        return clusters / (clusters - 1) if clusters > 1 else math.nan

    diseased, healthy = per_patient(truth), per_patient(~truth)
    cross = diseased @ healthy.T
    covariance = (
        spread(num_patients(codes[truth])) * (diseased @ diseased.T)
        + spread(num_patients(codes[~truth])) * (healthy @ healthy.T)
        + (spread(num_patients(codes)) * (cross + cross.T) if is_clustered(codes) else 0.0)
    )
    return aucs, covariance


def auroc(y_true: Truth, y_score: Values = None, *, patients: Ids = None, ci: CI = CI95) -> Measure:
    """Return the area under the ROC curve with its interval on the logit scale.

    With fewer than `FEW` patients in the smaller class it is the hull of DeLong's and Newcombe's,
    of which neither covers alone; with several rows a patient it has t's quantile. Undefined with
    one class only. Without an interval when fewer than two patients have a class. Degenerate, with
    Newcombe's interval alone, when the variance is 0 (a perfect or a constant score): [1, 1] is no
    answer.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite, higher means more diseased (never flipped).
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval.

    Raises:
        PredictionsError: If lengths differ or a value is not usable.

    Reference:
        DeLong et al. 1988; Obuchowski 1997; Newcombe 2006 method 5.

    >>> auroc([0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.7])
    auroc: 0.889 [0.261, 0.995], n = 6 (hull of DeLong and Newcombe 2006 method 5)
    """
    rows = Scores.of(y_true, y_score, patients)
    blank, truth, codes = rows.blank("auroc", ci), rows.truth, rows.patients
    if rows.one_class:
        return blank.undefined(ONE_CLASS)
    if rows.clustered:
        aucs, covariance = auc_covariance(truth, rows.score, codes)
        auc, variance = float(aucs[0]), float(covariance[0, 0])
    else:
        auc, variance = _delong(*(np.sort(rows.score[mine]) for mine in (truth, ~truth)))
    if math.isnan(variance):
        return blank.weak(auc, "an interval needs at least two patients of each class")
    diseased, healthy = (num_patients(codes[mine]) for mine in (truth, ~truth))
    if variance < NO_VARIANCE:
        bounds = newcombe_auc(auc, diseased, healthy, ci.level)
        reason = "the variance is 0: the score separates the classes completely or not at all"
        return blank.ok(auc, bounds, "Newcombe 2006 method 5").weak(auc, reason)
    smaller, error = min(diseased, healthy), math.sqrt(variance)
    if rows.clustered:
        bounds = logit_wald(auc, error, t_quantile(smaller - 1, ci.level))
        return blank.ok(auc, bounds, "Obuchowski over patients, t, logit scale")
    bounds = logit_wald(auc, error, normal_quantile(ci.level))
    if smaller >= FEW:
        return blank.ok(auc, bounds, "DeLong, logit scale")
    other = newcombe_auc(auc, diseased, healthy, ci.level)
    bounds = min(bounds[0], other[0]), max(bounds[1], other[1])
    return blank.ok(auc, bounds, "hull of DeLong and Newcombe 2006 method 5, logit scale")


def _delong(diseased: FloatArray, healthy: FloatArray) -> tuple[float, float]:
    """Return the AUC and its variance from the sorted scores of both classes, one row a patient.

    The variance needs no row's own placement, only all of them: nothing is put back in order.
    """
    below, not_above = _twice_correct(diseased, healthy)
    auc = int(below.sum()) / (2 * diseased.size * healthy.size)

    def spread(twice: IntArray, others: int) -> float:
        return float(twice.var(ddof=1)) / twice.size / (2 * others) ** 2

    if min(diseased.size, healthy.size) < 2:
        return auc, math.nan
    return auc, spread(below, healthy.size) + spread(not_above, diseased.size)


def auc_influence(y_true: Truth, y_score: Values = None) -> FloatArray:
    """Return how much each row moves the AUC: the squares, summed over patients, are its variance.

    Args:
        y_true: `(n,)`, 0 or 1, both present, or a `Scores`.
        y_score: `(n,)`, finite.

    Reference:
        The linearisation behind DeLong 1988; summed over patients as in Obuchowski 1997.

    >>> auc_influence([0, 0, 1, 1], [1, 3, 2, 4])
    array([ 0.125, -0.125, -0.125,  0.125])
    """
    rows = Scores.of(y_true, y_score)
    values = placements(rows)
    size = np.where(rows.truth, rows.positives, rows.truth.size - rows.positives)
    return np.asarray((values - values[rows.truth].mean()) / size)
