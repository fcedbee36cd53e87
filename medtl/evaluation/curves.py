"""Curves for drawing, as plain numbers, thinned to `POINTS` points so that a file stays small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medtl.evaluation.classification import LabelRows, Settings
from medtl.metrics.calibration import reliability
from medtl.metrics.discrimination import ROUNDING, bootstrap_counts
from medtl.metrics.net_benefit import decision_curve, decision_draws
from medtl.metrics.ranking import Ranking, coarsen, rank
from medtl.types import FloatArray, IntArray

POINTS = 200
"""Largest number of points of a curve."""

BINS = 20
"""Bins of the score histogram."""

Curve = dict[str, Any]


def label_curves(rows: LabelRows, settings: Settings) -> list[Curve]:
    """Return ROC, precision-recall, reliability, decision, histogram and threshold table.

    Those that need both classes, or probabilities, are left out where they do not exist.
    """
    if not rows.truth.size:
        return []
    ranking = rank(rows.truth, rows.score)
    curves = []
    if ranking.num_positive and ranking.num_negative:
        curves += [_roc(rows, ranking, settings), _precision_recall(rows, ranking, settings)]
    if rows.has_probabilities:
        curves += [_reliability(rows, settings), _decision(rows, settings)]
    curves += [_histogram(rows), _threshold_table(ranking)]
    return [{"name": curve.pop("name"), "label": rows.label, "split": rows.split, **curve}
            for curve in curves]  # fmt: skip


def thin(size: int, points: int = POINTS) -> IntArray:
    """Return up to so many indices of 0..size-1, evenly spread, both ends kept."""
    return np.unique(np.linspace(0, size - 1, min(size, points)).round().astype(int))


def _spread(ranking: Ranking) -> IntArray:
    """Return which thresholds to draw: evenly spread along the ROC curve, not along the scores."""
    if ranking.thresholds.size <= POINTS:
        return np.arange(ranking.thresholds.size)
    travelled = ranking.tp / max(ranking.num_positive, 1) + ranking.fp / max(
        ranking.num_negative, 1
    )
    wanted = np.linspace(0, travelled[-1], POINTS - 1)
    nearest = np.minimum(np.searchsorted(travelled, wanted), travelled.size - 1)
    return np.unique(np.concatenate([[0], nearest, [travelled.size - 1]]))


def numbers(values: FloatArray | IntArray) -> list[float | int | str | None]:
    """Return an array as JSON can hold it: NaN is null, infinity "inf"."""
    return [
        None if math.isnan(value) else "inf" if math.isinf(value) else value
        for value in values.tolist()
    ]


def _roc(rows: LabelRows, ranking: Ranking, settings: Settings) -> Curve:
    """Return the ROC with a vertical bootstrap band over patients."""
    at = _spread(ranking)
    x = np.concatenate([[0.0], ranking.fp[at] / ranking.num_negative])
    y = np.concatenate([[0.0], ranking.tp[at] / ranking.num_positive])

    def heights(tp: IntArray, fp: IntArray) -> FloatArray:
        return np.stack([_height(hits, alarms, x) for hits, alarms in zip(tp, fp, strict=True)])

    (draws,) = bootstrap_counts(
        coarsen(ranking), [heights], patients=rows.clusters,
        resamples=min(settings.resamples, 500), seed=settings.seed,
    )  # fmt: skip
    tail = (1 - settings.confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail], axis=0)
    threshold = np.concatenate([[np.inf], ranking.thresholds[at]])
    return {"name": "roc", "x": numbers(x), "y": numbers(y), "low": numbers(low),
            "high": numbers(high), "threshold": numbers(threshold)}  # fmt: skip


def _height(tp: IntArray, fp: IntArray, x: FloatArray) -> FloatArray:
    """Return the sensitivity of one resampled ROC at false positive rates x, straight lines."""
    positives, negatives = int(tp[-1]), int(fp[-1])
    if not (positives and negatives):
        return np.full(x.size, np.nan)
    # Of several points at one rate the highest counts: the curve may rise straight up.
    last = np.flatnonzero(np.append(fp[1:] != fp[:-1], True))
    start = 0 if fp[last[0]] == 0 else None
    xs = fp[last] / negatives if start == 0 else np.append(0.0, fp[last] / negatives)
    ys = tp[last] / positives if start == 0 else np.append(0.0, tp[last] / positives)
    return np.interp(x, xs, ys)


def _precision_recall(rows: LabelRows, ranking: Ranking, settings: Settings) -> Curve:
    """Return precision against recall with its bootstrap band, and the prevalence as baseline."""
    at = _spread(ranking)
    tp, flagged = ranking.tp[at], ranking.tp[at] + ranking.fp[at]
    recall = tp / ranking.num_positive

    def precisions(tp: IntArray, fp: IntArray) -> FloatArray:
        rows = zip(tp, fp, strict=True)
        return np.stack(
            [np.concatenate(_precisions(hits, alarms, recall)) for hits, alarms in rows]
        )

    (draws,) = bootstrap_counts(
        coarsen(ranking), [precisions], patients=rows.clusters,
        resamples=min(settings.resamples, 500), seed=settings.seed,
    )  # fmt: skip
    tail = (1 - settings.confidence) / 2
    best, worst = np.split(draws.reshape(-1, 2 * recall.size), 2, axis=1)
    low, high = np.nanquantile(worst, tail, axis=0), np.nanquantile(best, 1 - tail, axis=0)
    baseline = ranking.num_positive / ranking.positive.size
    return {"name": "precision_recall", "x": numbers(recall), "y": numbers(tp / flagged),
            "low": numbers(low), "high": numbers(high),
            "threshold": numbers(ranking.thresholds[at]), "baseline": baseline}  # fmt: skip


def _precisions(tp: IntArray, fp: IntArray, recall: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the best and the worst precision of one resample at each recall.

    While only false alarms are added, precision falls at an unchanged recall: the curve has a
    vertical piece there, from the first threshold with that recall to the last.
    """
    positives = int(tp[-1])
    if not positives:
        nothing = np.full(recall.size, np.nan)
        return nothing, nothing
    # At recall 0 the first threshold that flags anybody is meant.
    wanted = np.clip(np.ceil(recall * positives - ROUNDING), 1, positives)
    first = np.searchsorted(tp, wanted)
    last = np.maximum(np.searchsorted(tp, tp[first], side="right") - 1, first)
    best, worst = (tp[at] / (tp[at] + fp[at]) for at in (first, last))
    return np.where(recall > 0, best, 1.0), np.where(recall > 0, worst, 0.0)


def _reliability(rows: LabelRows, settings: Settings) -> Curve:
    """Return the reliability diagram in ten equal-width bins with Wilson bars."""
    points = reliability(rows.truth, rows.score, confidence=settings.confidence)
    return {"name": "reliability", "x": numbers(points.predicted), "y": numbers(points.observed),
            "low": numbers(points.low), "high": numbers(points.high),
            "count": numbers(points.count)}  # fmt: skip


def _decision(rows: LabelRows, settings: Settings) -> Curve:
    """Return net benefit at threshold probabilities 0.01 to 0.99 with a bootstrap band."""
    at = np.arange(1, 100) / 100
    both = bool(rows.truth.any()) and not rows.truth.all()
    prevalence = settings.prevalence if both else None
    curve = decision_curve(rows.truth, rows.score, at, prevalence=prevalence)
    draws = decision_draws(
        rows.truth, rows.score, at, prevalence=prevalence, patients=rows.clusters,
        resamples=min(settings.resamples, 500), seed=settings.seed,
    )  # fmt: skip
    tail = (1 - settings.confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail], axis=0)
    return {"name": "decision", "x": numbers(at), "y": numbers(curve.model),
            "low": numbers(low), "high": numbers(high),
            "treat_all": numbers(curve.treat_all), "prevalence": prevalence}  # fmt: skip


def _histogram(rows: LabelRows) -> Curve:
    """Return how many positives and negatives fall in each score bin; x is its left edge."""
    low, high = (0.0, 1.0) if rows.has_probabilities else (rows.score.min(), rows.score.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    positive, _ = np.histogram(rows.score[rows.truth], edges)
    negative, _ = np.histogram(rows.score[~rows.truth], edges)
    return {"name": "score_histogram", "x": numbers(edges[:-1]), "positive": numbers(positive),
            "negative": numbers(negative)}  # fmt: skip


def _threshold_table(ranking: Ranking) -> Curve:
    """Return the two-by-two table at thinned thresholds, the first of which flags nobody."""
    at = _spread(ranking)
    tp, fp = (np.concatenate([[0], counts[at]]) for counts in (ranking.tp, ranking.fp))
    return {"name": "threshold_table",
            "threshold": numbers(np.concatenate([[np.inf], ranking.thresholds[at]])),
            "tp": numbers(tp), "fp": numbers(fp), "fn": numbers(ranking.num_positive - tp),
            "tn": numbers(ranking.num_negative - fp)}  # fmt: skip
