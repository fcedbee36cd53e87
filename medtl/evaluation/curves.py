"""Curves for drawing, as plain numbers, thinned to `POINTS` points so that a file stays small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medtl.errors import PredictionsError
from medtl.evaluation.classification import LabelRows
from medtl.metrics.calibration import reliability
from medtl.metrics.curves.decision_curve import (
    Range,
    decision_band,
    decision_curve,
    thresholds_of,
)
from medtl.metrics.curves.smooth_calibration import smooth_calibration
from medtl.metrics.discrimination import precision_band, roc_band
from medtl.metrics.ranking import Ranking, rank
from medtl.metrics.scores import CI, Scores
from medtl.types import FloatArray, IntArray

POINTS = 200
"""Largest number of points of a curve."""

BINS = 20
"""Bins of the score histogram."""

Curve = dict[str, Any]


def label_curves(
    rows: LabelRows, prevalence: float | None, ci: CI, acting: Range | None = None
) -> list[Curve]:
    """Return ROC, precision-recall, reliability, decision, histogram and threshold table.

    Those that need both classes, or probabilities, are left out where they do not exist.
    """
    scores = rows.scores
    if not scores.truth.size:
        return []
    ranking = rank(scores)
    curves: dict[str, Curve] = {}
    if not scores.one_class:
        curves = {
            "roc": _roc(scores, ranking, ci),
            "precision_recall": _precision_recall(scores, ranking, ci),
        }
    of_probabilities = (
        probability_curves(rows, prevalence, ci, acting) if scores.are_probabilities else []
    )
    last = {"score_histogram": _histogram(scores), "threshold_table": _threshold_table(ranking)}
    return [*_placed(rows, curves), *of_probabilities, *_placed(rows, last)]


def probability_curves(
    rows: LabelRows, prevalence: float | None, ci: CI, acting: Range | None = None
) -> list[Curve]:
    """Return the curves of scores that are probabilities: reliability, smooth too, and decision."""
    stated = None if rows.scores.one_class else prevalence
    curves = {
        "reliability": _reliability(rows.scores, ci),
        **_smooth(rows.scores, ci),
        "decision": _decision(rows.scores, stated, ci, acting),
    }
    return _placed(rows, curves)


def _placed(rows: LabelRows, curves: dict[str, Curve]) -> list[Curve]:
    """Return curves with their name, finding and split."""
    place = {"label": rows.label, "split": rows.split}
    return [{"name": name, **place, **curve} for name, curve in curves.items()]


def thin(size: int, points: int = POINTS) -> IntArray:
    """Return up to so many indices of 0..size-1, evenly spread, both ends kept.

    >>> thin(9, 3)
    array([0, 4, 8])
    """
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
    """Return an array as JSON can hold it: NaN is null, infinity "inf".

    >>> numbers(np.array([0.5, np.nan, np.inf]))
    [0.5, None, 'inf']
    """
    return [
        None if math.isnan(value) else "inf" if math.isinf(value) else value
        for value in values.tolist()
    ]


def _roc(rows: Scores, ranking: Ranking, ci: CI) -> Curve:
    """Return the ROC with its pointwise band."""
    at = _spread(ranking)
    x = np.concatenate([[0.0], ranking.fp[at] / ranking.num_negative])
    y = np.concatenate([[0.0], ranking.tp[at] / ranking.num_positive])
    threshold = np.concatenate([[np.inf], ranking.thresholds[at]])
    low, high = roc_band(rows, threshold, ci)
    return _columns(x=x, y=y, low=low, high=high, threshold=threshold)


def _columns(**values: FloatArray | IntArray) -> Curve:
    """Return arrays as JSON can hold them."""
    return {name: numbers(column) for name, column in values.items()}


def _precision_recall(rows: Scores, ranking: Ranking, ci: CI) -> Curve:
    """Return precision against recall with its pointwise band, and the prevalence as baseline."""
    at = _spread(ranking)
    tp, flagged = ranking.tp[at], ranking.tp[at] + ranking.fp[at]
    recall, threshold = tp / ranking.num_positive, ranking.thresholds[at]
    low, high = precision_band(rows, threshold, ci)
    columns = _columns(x=recall, y=tp / flagged, low=low, high=high, threshold=threshold)
    return {**columns, "baseline": ranking.num_positive / ranking.positive.size}


def _reliability(rows: Scores, ci: CI) -> Curve:
    """Return the reliability diagram in ten equal-width bins with Wilson bars."""
    points = reliability(rows, ci=ci)
    return _columns(
        x=points.predicted, y=points.observed, low=points.low, high=points.high, count=points.count
    )


def _smooth(rows: Scores, ci: CI) -> dict[str, Curve]:
    """Return the smooth calibration curve with its band, where the rows allow one."""
    try:
        curve = smooth_calibration(rows, ci=ci)
    except PredictionsError:
        return {}
    columns = _columns(x=curve.probability, y=curve.observed, low=curve.low, high=curve.high)
    return {"smooth_calibration": columns}


def _decision(rows: Scores, prevalence: float | None, ci: CI, acting: Range | None) -> Curve:
    """Return net benefit at the thresholds at which somebody would act, with its band."""
    at = thresholds_of(acting)
    curve = decision_curve(rows, thresholds=at, prevalence=prevalence)
    low, high = decision_band(rows, thresholds=at, prevalence=prevalence, ci=ci)
    columns = _columns(
        x=curve.threshold, y=curve.model, low=low, high=high, treat_all=curve.treat_all
    )
    stated = {"acting": list(acting)} if acting else {}
    return {**columns, "prevalence": prevalence, **stated}


def _histogram(rows: Scores) -> Curve:
    """Return how many positives and negatives fall in each score bin; x is its left edge."""
    low, high = (0.0, 1.0) if rows.are_probabilities else (rows.score.min(), rows.score.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    positive, _ = np.histogram(rows.score[rows.truth], edges)
    negative, _ = np.histogram(rows.score[~rows.truth], edges)
    return _columns(x=edges[:-1], positive=positive, negative=negative)


def _threshold_table(ranking: Ranking) -> Curve:
    """Return the two-by-two table at thinned thresholds, the first of which flags nobody."""
    at = _spread(ranking)
    tp, fp = (np.concatenate([[0], counts[at]]) for counts in (ranking.tp, ranking.fp))
    threshold = np.concatenate([[np.inf], ranking.thresholds[at]])
    fn, tn = ranking.num_positive - tp, ranking.num_negative - fp
    return _columns(threshold=threshold, tp=tp, fp=fp, fn=fn, tn=tn)
