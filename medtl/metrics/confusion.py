"""The two-by-two table and what follows from it, and the table of several classes.

In a two-by-two table tp = diseased and flagged, fp = healthy and flagged, fn = diseased and not
flagged, tn = healthy and not flagged; a row is flagged if and only if score >= threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Literal

import numpy as np

from medtl.metrics.intervals import IntervalName, logit_wald, normal_quantile, proportion_of_rows
from medtl.metrics.ranking import Ranking, area_under_roc, rank, ratio
from medtl.metrics.resampling import bootstrap, patient_strata, with_percentiles
from medtl.metrics.scores import CI, CI95, NO_ROWS, ONE_CLASS, Ids, Scores, Truth, Values
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
"""Summaries of the table that need the bootstrap for their interval."""


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
    """Return F1, balanced accuracy, Youden's J, MCC and kappa with bootstrap intervals.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite.
        threshold: Flagged if and only if score >= threshold.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level and bootstrap of the intervals.

    >>> [m.name for m in summary_measures([1, 1, 0, 0], [0.9, 0.2, 0.6, 0.1])]
    ['f1', 'balanced_accuracy', 'youden', 'mcc', 'kappa']
    """
    rows = Scores.of(y_true, y_score, patients)
    flagged, blank = rows.score >= threshold, rows.blank("", ci)
    if not rows.truth.size:
        return [replace(blank, name=name).undefined(NO_ROWS) for name in SUMMARIES]
    draws = drawn_cells(rows, threshold, ci)
    whole, measures = counts_of(rows.truth, flagged), []
    for name, summary in SUMMARIES.items():
        value, measure = summary_value(name, whole), replace(blank, name=name)
        measures.append(
            measure.undefined("a row or a column of the two-by-two table is empty")
            if value is None
            else with_percentiles(replace(measure, value=value), summary(*draws))
        )
    return measures


def drawn_cells(rows: Scores, threshold: float, ci: CI) -> FloatArray:
    """Return tp, fp, fn, tn in every resample of the patients, `(4, resamples)`.

    Patients with and without a positive row are drawn apart.

    Args:
        rows: At least one.
        threshold: Flagged if and only if score >= threshold.
        ci: Resamples and seed.

    >>> drawn_cells(Scores.of([1, 1, 0], [0.9, 0.2, 0.1]), 0.5, CI(resamples=7)).sum(axis=0)
    array([3., 3., 3., 3., 3., 3., 3.])
    """
    truth, flagged, patients = rows.truth, rows.score >= threshold, rows.patients
    cells = [truth & flagged, ~truth & flagged, truth & ~flagged, ~truth & ~flagged]
    if not rows.clustered:
        # Drawing independent rows within a class is a binomial draw of the flagged ones.
        rng = np.random.default_rng(ci.seed)
        sums = [int(cell.sum()) for cell in cells]
        tp = _binomial(rng, sums[0], sums[2], ci.resamples)
        fp = _binomial(rng, sums[1], sums[3], ci.resamples)
        return np.stack([tp, fp, sums[0] + sums[2] - tp, sums[1] + sums[3] - fp])
    of_patients = np.stack([np.bincount(patients, cell).astype(float) for cell in cells], axis=1)
    strata = patient_strata(truth, patients)
    own = np.arange(len(of_patients))
    few = ci.affordable(truth.size)
    return bootstrap(lambda weights: weights @ of_patients, own, few, strata=strata).T


def _binomial(rng: np.random.Generator, flagged: int, rest: int, resamples: int) -> FloatArray:
    """Draw how many of the rows of one class are flagged."""
    total = flagged + rest
    return rng.binomial(total, flagged / total if total else 0.0, resamples).astype(float)


def likelihood_ratios(counts: Counts, *, ci: CI = CI95) -> list[Measure]:
    """Return LR+, LR- and the diagnostic odds ratio with log-normal intervals.

    A zero cell makes the interval, and often the value, undefined; nothing is added to the cells.

    Args:
        counts: Of independent rows.
        ci: Level of the intervals.

    Reference:
        Simel et al., J Clin Epidemiol 1991;44:763, as in R's epiR.

    >>> likelihood_ratios(Counts(9, 2, 1, 8))[0]
    lr_positive: 4.500 [1.281, 15.812], n = 20 (log-normal)
    """
    tp, fp, fn, tn = astuple(counts)
    return [
        _log_ratio("lr_positive", (tp, tp + fn), (fp, fp + tn), ci),
        _log_ratio("lr_negative", (fn, tp + fn), (tn, fp + tn), ci),
        _log_ratio("diagnostic_odds_ratio", (tp, fn), (fp, tn), ci, odds=True),
    ]


def _log_ratio(
    name: str, top: tuple[int, int], bottom: tuple[int, int], ci: CI, odds: bool = False
) -> Measure:
    """Return (a/b) / (c/d) with an interval on the log scale; of shares, or of odds."""
    blank = ci.blank(name, sum(top) + sum(bottom) if odds else top[1] + bottom[1])
    if 0 in (top[1], *bottom):
        return blank.undefined("a cell that it divides by is 0")
    value = (top[0] / top[1]) / (bottom[0] / bottom[1])
    if top[0] == 0:
        return blank.weak(value, "a cell is 0, so the log-normal interval does not exist")
    sign = 1 if odds else -1
    variance = 1 / top[0] + sign / top[1] + 1 / bottom[0] + sign / bottom[1]
    factor = math.exp(normal_quantile(ci.level) * math.sqrt(variance))
    return blank.ok(value, (value / factor, value * factor), "log-normal")


def predictive_values_at(counts: Counts, prevalence: float, *, ci: CI = CI95) -> list[Measure]:
    """Return PPV and NPV at a stated prevalence.

    Needed whenever the test set holds more disease than the clinic. Undefined when nobody (PPV) or
    everybody (NPV) is flagged; without an interval when sensitivity or specificity is 0 or 1.

    Args:
        counts: Of independent rows.
        prevalence: In (0, 1).
        ci: Level of the intervals.

    Reference:
        Mercaldo, Lau and Zhou, Statistics in Medicine 2007;26:2170, logit intervals.

    >>> predictive_values_at(Counts(9, 2, 1, 8), 0.1)[0]
    ppv_at_prevalence: 0.333 [0.125, 0.637], n = 20 (Mercaldo logit)
    """
    positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
    names, n = ("ppv_at_prevalence", "npv_at_prevalence"), positives + negatives
    blanks = [ci.blank(name, n, positives) for name in names]
    if not (positives and negatives):
        return [blank.undefined(ONE_CLASS) for blank in blanks]
    se, sp = counts.tp / positives, counts.tn / negatives
    shares = (
        (se * prevalence, (1 - sp) * (1 - prevalence)),
        (sp * (1 - prevalence), (1 - se) * prevalence),
    )
    errors = [math.nan, math.nan]
    if 0 < se < 1 and 0 < sp < 1:
        errors = [
            math.sqrt((1 - se) / (se * positives) + sp / ((1 - sp) * negatives)),
            math.sqrt(se / ((1 - se) * positives) + (1 - sp) / (sp * negatives)),
        ]
    return [
        _share_at_prevalence(blank, good, bad, error, prevalence)
        for blank, (good, bad), error in zip(blanks, shares, errors, strict=True)
    ]


def _share_at_prevalence(
    blank: Measure, good: float, bad: float, logit_error: float, prevalence: float
) -> Measure:
    """Fill in good / (good + bad) and its logit interval."""
    if good + bad == 0:
        return blank.undefined("nobody gets this result")
    value = good / (good + bad)
    if math.isnan(logit_error):
        reason = "sensitivity or specificity is 0 or 1, so the logit interval does not exist"
        return blank.weak(value, reason)
    error = logit_error * value * (1 - value)
    bounds = logit_wald(value, error, normal_quantile(blank.confidence))
    return blank.ok(value, bounds, f"Mercaldo logit, prevalence {prevalence:g}")


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
