"""The two-by-two table and what follows from it, and the table of several classes.

In a two-by-two table tp = diseased and flagged, fp = healthy and flagged, fn = diseased and not
flagged, tn = healthy and not flagged; a row is flagged if and only if score >= threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

import numpy as np

from medtl.metrics.intervals import (
    Bounded,
    Interval,
    IntervalName,
    mover_ratio,
    mover_sum,
    proportion,
    proportion_of_rows,
)
from medtl.metrics.ranking import Ranking, area_under_roc, rank, ratio
from medtl.metrics.scores import CI, CI95, NO_ROWS, ONE_CLASS, Ids, Scores, Truth, Values
from medtl.metrics.temperature import logit
from medtl.types import BoolArray, FloatArray, IntArray, Measure


@dataclass(frozen=True)
class Counts:
    """A two-by-two table of whole numbers.

    >>> Counts(9, 2, 1, 8) + Counts(1, 0, 0, 1)
    Counts(tp=10, fp=2, fn=1, tn=9)
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Counts) -> Counts:
        pairs = ((self.tp, other.tp), (self.fp, other.fp), (self.fn, other.fn), (self.tn, other.tn))
        return Counts(*(first + second for first, second in pairs))


Table = Counts | Sequence[Measure]
"""A two-by-two table, or its sensitivity and specificity with their intervals."""


def count(y_true: Truth, y_score: Values = None, threshold: float = 0.5) -> Counts:
    """Return the two-by-two table at a threshold.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite.
        threshold: Flagged if and only if score >= threshold; infinity flags nobody.

    >>> count([0, 1, 1], [0.5, 0.2, 0.9])
    Counts(tp=1, fp=1, fn=1, tn=0)
    """
    rows = Scores.of(y_true, y_score)
    return counts_of(rows.truth, rows.score >= threshold)


def counts_of(truth: BoolArray, flagged: BoolArray) -> Counts:
    """Return the two-by-two table of truths and decisions, both `(n,)`.

    >>> counts_of(np.array([True, False]), np.array([True, True]))
    Counts(tp=1, fp=1, fn=0, tn=0)
    """
    tp, positive, called = int((truth & flagged).sum()), int(truth.sum()), int(flagged.sum())
    return Counts(tp, called - tp, positive - tp, truth.size - positive - called + tp)


def f1(tp: FloatArray, fp: FloatArray, fn: FloatArray, _tn: FloatArray) -> FloatArray:
    """Return 2 tp / (2 tp + fp + fn), elementwise; NaN where nobody is diseased or flagged.

    >>> f1(*np.array([9.0, 2.0, 1.0, 8.0])).round(3)
    np.float64(0.857)
    """
    return ratio(2 * tp, 2 * tp + fp + fn)


def balanced_accuracy(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return the mean of sensitivity and specificity, elementwise; NaN with one class.

    >>> balanced_accuracy(*np.array([9.0, 2.0, 1.0, 8.0])).round(3)
    np.float64(0.85)
    """
    return (ratio(tp, tp + fn) + ratio(tn, tn + fp)) / 2


def youden(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return sensitivity + specificity - 1, elementwise; NaN with one class.

    >>> youden(*np.array([9.0, 2.0, 1.0, 8.0])).round(3)
    np.float64(0.7)
    """
    return ratio(tp, tp + fn) + ratio(tn, tn + fp) - 1


def matthews(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return Matthews' correlation, elementwise; NaN (not 0) where a margin is empty.

    >>> matthews(*np.array([9.0, 2.0, 1.0, 8.0])).round(3)
    np.float64(0.704)
    """
    margins = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return ratio(tp * tn - fp * fn, margins)


def cohen_kappa(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return Cohen's kappa, elementwise; NaN where chance agreement is complete.

    >>> cohen_kappa(*np.array([9.0, 2.0, 1.0, 8.0])).round(3)
    np.float64(0.7)
    """
    total = tp + fp + fn + tn
    chance = (tp + fp) * (tp + fn) + (tn + fp) * (tn + fn)
    return ratio(total * (tp + tn) - chance, total * total - chance)


SUMMARIES: Mapping[str, Callable[..., FloatArray]] = {
    "f1": f1,
    "balanced_accuracy": balanced_accuracy,
    "youden": youden,
    "mcc": matthews,
    "kappa": cohen_kappa,
}
"""Summaries of the table."""


def summary_value(name: str, counts: Counts) -> float | None:
    """Return one of `SUMMARIES` of a table, or None where it is undefined.

    >>> summary_value("youden", Counts(9, 2, 1, 8)), summary_value("mcc", Counts(1, 0, 0, 0))
    (0.7000000000000002, None)
    """
    value = float(SUMMARIES[name](*np.array(astuple(counts), dtype=float)))
    return value if math.isfinite(value) else None


def share_measures(
    y_true: Truth,
    y_score: Values = None,
    threshold: float = 0.5,
    *,
    patients: Ids = None,
    ci: CI = CI95,
    interval: IntervalName = "wilson",
) -> list[Measure]:
    """Return sensitivity, specificity, PPV, NPV, accuracy and prevalence at a threshold.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite.
        threshold: Flagged if and only if score >= threshold.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the intervals.
        interval: Used when there is one row per patient.

    >>> share_measures([1, 1, 0, 0, 0], [0.9, 0.2, 0.6, 0.1, 0.3])[1]
    specificity: 0.667 [0.208, 0.939], n = 3 (Wilson)
    """
    scores = Scores.of(y_true, y_score, patients)
    truth, codes, flagged = scores.truth, scores.patients, scores.score >= threshold
    everyone = np.ones(truth.size, dtype=bool)
    parts = {
        "sensitivity": (truth, flagged, "positives"),
        "specificity": (~truth, ~flagged, "negatives"),
        "ppv": (flagged, truth, "flagged rows"),
        "npv": (~flagged, ~truth, "rows that were not flagged"),
        "accuracy": (everyone, truth == flagged, "rows"),
        "prevalence": (everyone, truth, "rows"),
    }
    measures = []
    for name, (rows, hits, of) in parts.items():
        measure = proportion_of_rows(
            name, hits[rows], patients=codes[rows], ci=ci, interval=interval, of=of
        )
        measures.append(replace(measure, n_positive=int(truth[rows].sum())))
    return measures


def summary_measures(
    y_true: Truth,
    y_score: Values = None,
    threshold: float = 0.5,
    *,
    patients: Ids = None,
    ci: CI = CI95,
) -> list[Measure]:
    """Return F1, balanced accuracy, Youden's J, MCC and kappa with their intervals.

    The intervals move one rate at a time to the end of its own interval and add what changes as
    MOVER does, which for the two sums is MOVER: with five positives a bootstrap covers a half.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite.
        threshold: Flagged if and only if score >= threshold.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the intervals.

    Reference:
        Zou and Donner, Stat Med 2008;27:1693; Newcombe, Confidence Intervals, 2013, chapter 7.

    >>> summary_measures([1, 1, 0, 0], [0.9, 0.2, 0.6, 0.1])[1]
    balanced_accuracy: 0.500 [0.213, 0.787], n = 4 (MOVER on the two rates)
    """
    rows = Scores.of(y_true, y_score, patients)
    flagged, blank = rows.score >= threshold, rows.blank("", ci)
    if not rows.truth.size:
        return [replace(blank, name=name).undefined(NO_ROWS) for name in SUMMARIES]
    whose = " over patients" if rows.clustered else ""
    whole, measures = counts_of(rows.truth, flagged), []
    rates = None if rows.one_class else share_measures(rows, threshold=threshold, ci=ci)[:2]
    for name, summary in SUMMARIES.items():
        value, measure = summary_value(name, whole), replace(blank, name=name)
        if value is None:
            reason = "a row or a column of the two-by-two table is empty"
            measures.append(measure.undefined(reason))
        elif rates is None:
            measures.append(measure.weak(value, ONE_CLASS))
        else:
            bounds = _one_at_a_time(summary, value, rates, rows)
            measures.append(measure.ok(value, bounds, f"MOVER on the two rates{whose}"))
    return measures


def _one_at_a_time(
    summary: Callable[..., FloatArray], value: float, rates: Sequence[Measure], rows: Scores
) -> Interval:
    """Return the interval of a summary that rises with both rates."""
    positives, negatives = rows.positives, rows.truth.size - rows.positives
    (se, *se_ends), (sp, *sp_ends) = map(_bounded, rates)

    def at(se: float, sp: float) -> float:
        cells = np.array(
            [positives * se, negatives * (1 - sp), positives * (1 - se), negatives * sp]
        )
        # Where nobody is flagged, or everybody, these have no value; their limit is 0.
        return float(np.nan_to_num(summary(*cells)))

    low, high = (
        math.hypot(at(se_end, sp) - value, at(se, sp_end) - value)
        for se_end, sp_end in zip(se_ends, sp_ends, strict=True)
    )
    return value - low, value + high


def _bounded(measure: Measure) -> Bounded:
    """Return the value and the interval of a share that is defined."""
    bounds = (measure.value, measure.low, measure.high)
    return tuple(math.nan if x is None else x for x in bounds)  # type: ignore[return-value]


def likelihood_ratios(table: Table, *, ci: CI = CI95) -> list[Measure]:
    """Return LR+, LR- and the diagnostic odds ratio; nothing is added to a cell of 0.

    A ratio whose denominator is 0 has no value, but a lower end: its `low`, and in its reason.

    Args:
        table: Counts of independent rows, or sensitivity and specificity with their intervals.
        ci: Level of the intervals.

    Reference:
        MOVER-R on Wilson's limits (Donner and Zou 2012), which exists for every table; of the odds
        ratio MOVER on their logits.

    >>> likelihood_ratios(Counts(9, 2, 1, 8))[0]
    lr_positive: 4.500 [1.597, 15.904], n = 20 (MOVER-R)
    """
    found, blank = _rates(table, ci)
    names = ("lr_positive", "lr_negative", "diagnostic_odds_ratio")
    blanks = [replace(blank, name=name) for name in names]
    if found is None:
        return [blank.undefined(ONE_CLASS) for blank in blanks]
    se, sp = found
    return [
        _ratio(blanks[0], se, _complement(sp)),
        _ratio(blanks[1], _complement(se), sp),
        _odds_ratio(blanks[2], se, sp),
    ]


def _rates(table: Table, ci: CI) -> tuple[tuple[Bounded, Bounded] | None, Measure]:
    """Return sensitivity and specificity with their limits, None for one class, and a blank."""
    if isinstance(table, Counts):
        tp, fp, fn, tn = astuple(table)
        table = (proportion("", tp, tp + fn, ci=ci), proportion("", tn, tn + fp, ci=ci))
    se, sp = table[:2]
    clustered = any(share.n_patients not in (None, share.n) for share in (se, sp))
    blank = replace(
        ci.blank("", se.n + sp.n), method="MOVER-R over patients" if clustered else "MOVER-R"
    )
    return None if None in (se.value, sp.value) else (_bounded(se), _bounded(sp)), blank


def _complement(share: Bounded) -> Bounded:
    """Return one minus a share, with its limits."""
    value, low, high = share
    return 1 - value, 1 - high, 1 - low


def _ratio(blank: Measure, top: Bounded, bottom: Bounded) -> Measure:
    """Fill in the ratio of two independent shares."""
    if top[0] == bottom[0] == 0:
        return blank.undefined("nobody gets this result")
    low, high = mover_ratio(top, bottom)
    if bottom[0] == 0:
        return replace(blank, low=low).undefined(f"it divides by 0: it is at least {low:.2f}")
    if math.isinf(high):
        return blank.weak(top[0] / bottom[0], f"it is at least {low:.2f} and has no upper end")
    return blank.ok(top[0] / bottom[0], (low, high), blank.method)


def _odds_ratio(blank: Measure, se: Bounded, sp: Bounded) -> Measure:
    """Fill in the product of the odds of the two shares."""
    if 1 in (se[0], sp[0]):
        return blank.undefined("a cell that it divides by is 0")
    if 0 in (se[0], sp[0]):
        return blank.weak(0.0, "a cell is 0, so the interval on the log scale does not exist")
    first, second = (tuple(logit(np.array(share)).tolist()) for share in (se, sp))
    low, high = mover_sum(first, second)
    value = se[0] * sp[0] / ((1 - se[0]) * (1 - sp[0]))
    return blank.ok(value, (math.exp(low), math.exp(high)), f"{blank.method}, log scale")


def predictive_values_at(table: Table, prevalence: float, *, ci: CI = CI95) -> list[Measure]:
    """Return PPV and NPV at a stated prevalence.

    Needed whenever the test set holds more disease than the clinic. Undefined when nobody (PPV) or
    everybody (NPV) is flagged; with an interval for every other table.

    Args:
        table: Counts of independent rows, or sensitivity and specificity with their intervals.
        prevalence: In (0, 1).
        ci: Level of the intervals.

    Reference:
        MOVER-R (Donner and Zou, Stat Methods Med Res 2012;21:347) on Wilson's limits of the ratio
        (1 - specificity) / sensitivity, of which PPV is a monotone function, and of (1 -
        sensitivity) / specificity, NPV's. Mercaldo's logit interval has none where a cell is 0.

    >>> predictive_values_at(Counts(28, 0, 3, 32), 0.1)[0]
    ppv_at_prevalence: 1.000 [0.480, 1.000], n = 63 (MOVER-R)
    """
    names = ("ppv_at_prevalence", "npv_at_prevalence")
    found, blank = _rates(table, ci)
    blanks = [replace(blank, name=name) for name in names]
    if found is None:
        return [blank.undefined(ONE_CLASS) for blank in blanks]
    se, sp = found
    odds = (1 - prevalence) / prevalence
    return [
        _share_at_prevalence(blanks[0], _complement(sp), se, odds, prevalence),
        _share_at_prevalence(blanks[1], _complement(se), sp, 1 / odds, prevalence),
    ]


def _share_at_prevalence(
    blank: Measure, wrong: Bounded, right: Bounded, odds: float, prevalence: float
) -> Measure:
    """Fill in 1 / (1 + odds x wrong / right)."""
    if wrong[0] == right[0] == 0:
        return blank.undefined("nobody gets this result")
    value = right[0] / (right[0] + odds * wrong[0])
    low, high = (1 / (1 + odds * end) for end in reversed(mover_ratio(wrong, right)))
    return blank.ok(value, (low, high), f"{blank.method}, prevalence {prevalence:g}")


def natural_frequencies(
    sensitivity: float, specificity: float, prevalence: float, *, per: int = 1000
) -> Counts:
    """Return what happens to so many patients, in whole patients; both rows keep their sum.

    Args:
        sensitivity: In [0, 1].
        specificity: In [0, 1].
        prevalence: In [0, 1].
        per: Number of patients.

    Reference:
        Gigerenzer et al., Psychological Science in the Public Interest 2007;8:53.

    >>> natural_frequencies(0.9, 0.8, 0.01)
    Counts(tp=9, fp=198, fn=1, tn=792)
    """
    diseased = round(per * prevalence)
    tp, tn = round(diseased * sensitivity), round((per - diseased) * specificity)
    return Counts(tp, per - diseased - tn, diseased - tp, tn)


def confusion_matrix(truth: IntArray, predicted: IntArray, classes: int) -> IntArray:
    """Return how often each truth (row) was called each class (column), `(c, c)`.

    Args:
        truth: `(n,)` class numbers 0..c-1.
        predicted: `(n,)` class numbers.
        classes: Number of classes c.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    cells = np.asarray(truth) * classes + np.asarray(predicted)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def kappa(matrix: IntArray, *, weights: Literal["none", "quadratic"] = "none") -> float | None:
    """Return Cohen's kappa of a confusion matrix; None where chance agreement is complete.

    Args:
        matrix: `(c, c)` counts.
        weights: "quadratic" for ordered classes: a miss costs its squared distance.

    Reference:
        Cohen 1960; Cohen 1968.

    >>> round(kappa(np.array([[9, 1], [2, 8]])), 3)
    0.7
    """
    counts = np.asarray(matrix, dtype=float)
    index = np.arange(len(counts))
    distance = np.abs(index[:, None] - index).astype(float)
    cost = distance**2 if weights == "quadratic" else (distance > 0).astype(float)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(counts.sum(), 1)
    chance = float((cost * expected).sum())
    return 1 - float((cost * counts).sum()) / chance if chance > 0 else None


def mean_recall(matrix: IntArray) -> float | None:
    """Return the mean recall over the classes that occur (balanced accuracy); None without rows.

    >>> mean_recall(np.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]]))
    0.75
    """
    counts = np.asarray(matrix, dtype=float)
    return _mean(ratio(np.diag(counts), counts.sum(axis=1)))


def f1_macro(matrix: IntArray) -> float | None:
    """Return the mean F1 over the classes that are true or called somewhere; None without rows.

    >>> round(f1_macro(np.array([[1, 1], [0, 2]])), 3)
    0.733
    """
    counts = np.asarray(matrix, dtype=float)
    return _mean(ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1)))


def _mean(values: FloatArray) -> float | None:
    """Return the mean of the values that are defined, None if none is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


CLASS_SUMMARIES: Mapping[str, Callable[[IntArray], float | None]] = {
    "balanced_accuracy": mean_recall,
    "f1_macro": f1_macro,
    "kappa": kappa,
    "kappa_quadratic": lambda matrix: kappa(matrix, weights="quadratic"),
}
"""Summaries of a confusion matrix; the quadratic kappa means something for ordered classes only."""


def hand_till(truth: IntArray, scores: FloatArray) -> float | None:
    """Return the mean AUC over pairs of classes; None if fewer than two classes occur.

    Args:
        truth: `(n,)` class numbers 0..c-1.
        scores: `(n, c)` probabilities.

    Reference:
        Hand and Till, Machine Learning 2001;45:171, equation 7.

    >>> hand_till(np.array([0, 1, 1]), np.array([[0.8, 0.2], [0.3, 0.7], [0.9, 0.1]]))
    0.5
    """
    rankings = (ranking for _, ranking in pair_rankings(truth, scores))
    aucs = [area_under_roc(ranking.tp, ranking.fp) for ranking in rankings]
    return float(np.mean(aucs)) if aucs else None


def pair_rankings(truth: IntArray, scores: FloatArray) -> list[tuple[IntArray, Ranking]]:
    """Return, for every ordered pair of classes that occur, its rows and their ranking.

    Args:
        truth: `(n,)` class numbers 0..c-1.
        scores: `(n, c)` probabilities.

    >>> [rows for rows, _ in pair_rankings(np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]]))]
    [array([0, 1]), array([1, 0])]
    """
    present = np.unique(truth)
    found: list[tuple[IntArray, Ranking]] = []
    for one in present:
        for other in present[present != one]:
            rows = np.flatnonzero((truth == one) | (truth == other))
            ranking = rank(truth[rows] == one, scores[rows, one])
            found.append((rows[ranking.order], ranking))
    return found
