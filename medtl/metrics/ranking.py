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

from medtl.metrics.inputs import (
    blank_measure,
    is_clustered,
    num_patients,
    patient_codes,
    truth_and_score,
)
from medtl.metrics.intervals import logit_wald, newcombe_auc, normal_quantile
from medtl.types import BoolArray, FloatArray, IntArray, Measure

ONE_CLASS = "the set holds one class only"

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
    """

    order: IntArray
    positive: BoolArray
    thresholds: FloatArray
    last: IntArray
    tp: IntArray
    fp: IntArray

    @property
    def num_positive(self) -> int:
        """Number of positive rows."""
        return int(np.count_nonzero(self.positive))

    @property
    def num_negative(self) -> int:
        """Number of negative rows."""
        return self.positive.size - self.num_positive


def rank(y_true: ArrayLike, y_score: ArrayLike) -> Ranking:
    """Return the ranking of the rows.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)`, finite, higher means more diseased.

    Raises:
        PredictionsError: If a value is not usable.
    """
    truth, score = truth_and_score(y_true, y_score)
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], truth[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if score.size else order
    tp = np.cumsum(positive, dtype=np.int64)[last]
    return Ranking(order, positive, score[last], last, tp, last + 1 - tp)


def coarsen(ranking: Ranking, groups: int = 2048) -> Ranking:
    """Return the ranking with at most about so many thresholds, evenly spread over the rows.

    Counts at the thresholds that stay are exact. The bootstrap works on it: an interval does not
    need every one of 200,000 thresholds.

    Args:
        ranking: Of n rows.
        groups: Largest number of thresholds.
    """
    if ranking.thresholds.size <= groups:
        return ranking
    wanted = np.linspace(0, ranking.positive.size - 1, groups)
    kept = np.unique(np.searchsorted(ranking.last, wanted))
    return replace(ranking, thresholds=ranking.thresholds[kept], last=ranking.last[kept],
                   tp=ranking.tp[kept], fp=ranking.fp[kept])  # fmt: skip


def weighted_counts(ranking: Ranking, weights: IntArray) -> tuple[IntArray, IntArray]:
    """Return true and false positives at every threshold, in every resample.

    Args:
        ranking: Of n rows with k distinct scores.
        weights: `(b, n)` how often each row is drawn, in ranking order.

    Returns:
        `(b, k)` and `(b, k)`.
    """
    starts = np.concatenate([[0], ranking.last[:-1] + 1])
    flagged, tp = (
        np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1, dtype=np.int64)
        for drawn in (weights, weights * ranking.positive)
    )
    return tp, flagged - tp


def counts_at(ranking: Ranking, threshold: float) -> tuple[int, int, int, int]:
    """Return tp, fp, fn, tn when score >= threshold is called positive."""
    flagged = int(np.searchsorted(-ranking.thresholds, -threshold, side="right"))
    tp, fp = (int(ranking.tp[flagged - 1]), int(ranking.fp[flagged - 1])) if flagged else (0, 0)
    return tp, fp, ranking.num_positive - tp, ranking.num_negative - fp


def ratio(top: ArrayLike, bottom: ArrayLike) -> FloatArray:
    """Return top / bottom elementwise, NaN where the denominator is 0."""
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
    """
    flagged = (tp + fp).astype(float)
    # A score that nobody in a resample has, above all others, gains nothing.
    precision = np.divide(tp, flagged, out=np.zeros(flagged.shape), where=flagged > 0)
    gained = np.einsum("...k,...k->...", np.diff(tp, axis=-1, prepend=0).astype(float), precision)
    return ratio(gained, tp[..., -1])


def placements(y_true: ArrayLike, y_score: ArrayLike) -> FloatArray:
    """Return per row the share of the other class that it is ranked correctly against.

    A tie counts one half. The mean over the positives, and over the negatives, is the AUC.

    Args:
        y_true: `(n,)`, 0 or 1, both present.
        y_score: `(n,)`, finite.

    Reference:
        DeLong et al., Biometrics 1988;44:837, V10 and V01, by binary search in O(n log n).
    """
    truth, score = truth_and_score(y_true, y_score)
    diseased, healthy = np.flatnonzero(truth), np.flatnonzero(~truth)
    # A search for sorted scores stays in the processor's cache: six times faster than unsorted.
    diseased, healthy = (rows[np.argsort(score[rows])] for rows in (diseased, healthy))
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
    y_true: ArrayLike, scores: ArrayLike, patients: ArrayLike | None = None
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
    """
    rows = np.atleast_2d(np.asarray(scores, dtype=float))
    truth, _ = truth_and_score(y_true, rows[0])
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


def auroc(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Measure:
    """Return the area under the ROC curve with its interval on the logit scale.

    Undefined with one class only. Without an interval when fewer than two patients have a class.
    Degenerate, with Newcombe's interval instead, when the variance is 0 (a perfect or a constant
    score): [1, 1] is no answer.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)`, finite, higher means more diseased (never flipped).
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.

    Reference:
        DeLong et al. 1988; Obuchowski 1997; Newcombe 2006 method 5.
    """
    truth, score = truth_and_score(y_true, y_score)
    codes = patient_codes(patients, truth.size)
    blank = blank_measure("auroc", truth, codes, confidence)
    clustered = patients is not None and is_clustered(codes)
    classes = (truth, ~truth)
    diseased, healthy = (
        num_patients(codes[rows]) if clustered else int(np.count_nonzero(rows)) for rows in classes
    )
    if not (diseased and healthy):
        return replace(blank, reason=ONE_CLASS)
    if clustered:
        aucs, covariance = auc_covariance(truth, score, codes)
        auc, variance = float(aucs[0]), float(covariance[0, 0])
    else:
        auc, variance = _delong(*(np.sort(score[rows]) for rows in classes))
    if math.isnan(variance):
        reason = "an interval needs at least two patients of each class"
        return replace(blank, value=auc, status="degenerate", reason=reason)
    if variance < NO_VARIANCE:
        low, high = newcombe_auc(auc, diseased, healthy, confidence)
        reason = "the variance is 0: the score separates the classes completely or not at all"
        method = "Newcombe 2006 method 5"
        return replace(blank, value=auc, low=low, high=high, method=method, status="degenerate",
                       reason=reason)  # fmt: skip
    low, high = logit_wald(auc, math.sqrt(variance), normal_quantile(confidence))
    method = "Obuchowski over patients" if clustered else "DeLong"
    return replace(blank, value=auc, low=low, high=high, method=f"{method}, logit scale",
                   status="ok")  # fmt: skip


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


def auc_influence(y_true: ArrayLike, y_score: ArrayLike) -> FloatArray:
    """Return how much each row moves the AUC: the squares, summed over patients, are its variance.

    Args:
        y_true: `(n,)`, 0 or 1, both present.
        y_score: `(n,)`, finite.

    Reference:
        The linearisation behind DeLong 1988; summed over patients as in Obuchowski 1997.
    """
    truth, score = truth_and_score(y_true, y_score)
    values = placements(truth, score)
    size = np.where(truth, np.count_nonzero(truth), np.count_nonzero(~truth))
    return np.asarray((values - values[truth].mean()) / size)
