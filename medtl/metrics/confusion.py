"""The two-by-two table and what follows from it.

Args of all functions: tp = diseased and flagged, fp = healthy and flagged, fn = diseased and not
flagged, tn = healthy and not flagged; a row is flagged if and only if score >= threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.discrimination import with_percentiles
from medtl.metrics.inputs import blank_measure, is_clustered, patient_codes, truth_and_score
from medtl.metrics.intervals import logit_wald, normal_quantile
from medtl.metrics.proportions import IntervalName, proportion_of_rows
from medtl.metrics.ranking import ratio
from medtl.metrics.resampling import affordable_resamples, bootstrap, patient_strata
from medtl.types import BoolArray, FloatArray, IntArray, Measure


@dataclass(frozen=True)
class Counts:
    """A two-by-two table of whole numbers."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Counts) -> Counts:
        pairs = ((self.tp, other.tp), (self.fp, other.fp), (self.fn, other.fn), (self.tn, other.tn))
        return Counts(*(first + second for first, second in pairs))


def count(y_true: ArrayLike, y_score: ArrayLike, threshold: float) -> Counts:
    """Return the two-by-two table at a threshold.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)`, finite.
        threshold: Flagged if and only if score >= threshold; infinity flags nobody.
    """
    truth, score = truth_and_score(y_true, y_score)
    return counts_of(truth, score >= threshold)


def counts_of(truth: BoolArray, flagged: BoolArray) -> Counts:
    """Return the two-by-two table of truths and decisions, both `(n,)`."""
    tp, positive, called = int((truth & flagged).sum()), int(truth.sum()), int(flagged.sum())
    return Counts(tp, called - tp, positive - tp, truth.size - positive - called + tp)


def f1(tp: FloatArray, fp: FloatArray, fn: FloatArray, _tn: FloatArray) -> FloatArray:
    """Return 2 tp / (2 tp + fp + fn), elementwise; NaN where nobody is diseased or flagged."""
    return ratio(2 * tp, 2 * tp + fp + fn)


def balanced_accuracy(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return the mean of sensitivity and specificity, elementwise; NaN with one class."""
    return (ratio(tp, tp + fn) + ratio(tn, tn + fp)) / 2


def youden(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return sensitivity + specificity - 1, elementwise; NaN with one class."""
    return ratio(tp, tp + fn) + ratio(tn, tn + fp) - 1


def matthews(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return Matthews' correlation, elementwise; NaN (not 0) where a margin is empty."""
    margins = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return ratio(tp * tn - fp * fn, margins)


def cohen_kappa(tp: FloatArray, fp: FloatArray, fn: FloatArray, tn: FloatArray) -> FloatArray:
    """Return Cohen's kappa, elementwise; NaN where chance agreement is complete."""
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
    """Return one of `SUMMARIES` of a table, or None where it is undefined."""
    cells = (np.asarray(cell, dtype=float) for cell in
             (counts.tp, counts.fp, counts.fn, counts.tn))  # fmt: skip
    value = float(SUMMARIES[name](*cells))
    return value if math.isfinite(value) else None


def share_measures(
    y_true: ArrayLike,
    y_score: ArrayLike,
    threshold: float,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    interval: IntervalName = "wilson",
) -> list[Measure]:
    """Return sensitivity, specificity, PPV, NPV, accuracy and prevalence at a threshold.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)`, finite.
        threshold: Flagged if and only if score >= threshold.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the intervals.
        interval: Used when there is one row per patient.
    """
    truth, score = truth_and_score(y_true, y_score)
    codes = patient_codes(patients, truth.size)
    flagged, everyone = score >= threshold, np.ones(truth.size, dtype=bool)
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
            name, hits[rows], patients=codes[rows], confidence=confidence, interval=interval, of=of
        )
        measures.append(replace(measure, n_positive=int(truth[rows].sum())))
    return measures


def summary_measures(
    y_true: ArrayLike,
    y_score: ArrayLike,
    threshold: float,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Measure]:
    """Return F1, balanced accuracy, Youden's J, MCC and kappa with bootstrap intervals.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)`, finite.
        threshold: Flagged if and only if score >= threshold.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the intervals.
        resamples: Bootstrap resamples of the patients.
        seed: Of the bootstrap.
    """
    truth, score = truth_and_score(y_true, y_score)
    codes, flagged = patient_codes(patients, truth.size), score >= threshold
    blank = blank_measure("", truth, codes, confidence)
    if truth.size == 0:
        return [replace(blank, name=name, reason="there are no rows") for name in SUMMARIES]
    draws = drawn_cells(truth, flagged, codes, resamples=resamples, seed=seed)
    whole, measures = counts_of(truth, flagged), []
    for name, summary in SUMMARIES.items():
        value = summary_value(name, whole)
        if value is None:
            reason = "a row or a column of the two-by-two table is empty"
            measures.append(replace(blank, name=name, reason=reason))
        else:
            measures.append(
                with_percentiles(replace(blank, name=name, value=value), summary(*draws))
            )
    return measures


def drawn_cells(
    truth: BoolArray, flagged: BoolArray, patients: IntArray, *, resamples: int, seed: int
) -> FloatArray:
    """Return tp, fp, fn, tn in every resample of the patients, `(4, resamples)`.

    Patients with and without a positive row are drawn apart.

    Args:
        truth: `(n,)`.
        flagged: `(n,)` decisions.
        patients: `(n,)` codes 0..P-1, all of which occur.
        resamples: Number of resamples.
        seed: Of the bootstrap.
    """
    cells = [truth & flagged, ~truth & flagged, truth & ~flagged, ~truth & ~flagged]
    if not is_clustered(patients):
        # Drawing independent rows within a class is a binomial draw of the flagged ones.
        rng = np.random.default_rng(seed)
        sums = [int(rows.sum()) for rows in cells]
        tp = _binomial(rng, sums[0], sums[2], resamples)
        fp = _binomial(rng, sums[1], sums[3], resamples)
        return np.stack([tp, fp, sums[0] + sums[2] - tp, sums[1] + sums[3] - fp])
    of_patients = np.stack([np.bincount(patients, rows).astype(float) for rows in cells], axis=1)
    drawn = bootstrap(
        lambda weights: weights @ of_patients,
        np.arange(len(of_patients)),
        strata=patient_strata(truth, patients),
        resamples=affordable_resamples(resamples, truth.size),
        seed=seed,
    )
    return drawn.T


def _binomial(rng: np.random.Generator, flagged: int, rest: int, resamples: int) -> FloatArray:
    """Draw how many of the rows of one class are flagged."""
    total = flagged + rest
    return rng.binomial(total, flagged / total if total else 0.0, resamples).astype(float)


def likelihood_ratios(counts: Counts, *, confidence: float = 0.95) -> list[Measure]:
    """Return LR+, LR- and the diagnostic odds ratio with log-normal intervals.

    A zero cell makes the interval, and often the value, undefined; nothing is added to the cells.

    Args:
        counts: Of independent rows.
        confidence: Level of the intervals.

    Reference:
        Simel et al., J Clin Epidemiol 1991;44:763, as in R's epiR.
    """
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    positives, negatives = tp + fn, fp + tn
    return [
        _log_ratio("lr_positive", (tp, positives), (fp, negatives), confidence),
        _log_ratio("lr_negative", (fn, positives), (tn, negatives), confidence),
        _log_ratio("diagnostic_odds_ratio", (tp, fn), (fp, tn), confidence, odds=True),
    ]


def _log_ratio(
    name: str, top: tuple[int, int], bottom: tuple[int, int], confidence: float, odds: bool = False
) -> Measure:
    """Return (a/b) / (c/d) with an interval on the log scale; of shares, or of odds."""
    n = sum(top) + sum(bottom) if odds else top[1] + bottom[1]
    blank = Measure(name, None, confidence=confidence, n=n, method="log-normal",
                    status="undefined")  # fmt: skip
    if 0 in (top[1], bottom[0], bottom[1]):
        return replace(blank, method="", reason="a cell that it divides by is 0")
    value = (top[0] / top[1]) / (bottom[0] / bottom[1])
    if top[0] == 0:
        reason = "a cell is 0, so the log-normal interval does not exist"
        return replace(blank, value=value, method="", status="degenerate", reason=reason)
    sign = 1 if odds else -1
    variance = 1 / top[0] + sign / top[1] + 1 / bottom[0] + sign / bottom[1]
    factor = math.exp(normal_quantile(confidence) * math.sqrt(variance))
    return replace(blank, value=value, low=value / factor, high=value * factor, status="ok")


def predictive_values_at(
    counts: Counts, prevalence: float, *, confidence: float = 0.95
) -> list[Measure]:
    """Return PPV and NPV at a stated prevalence.

    Needed whenever the test set holds more disease than the clinic. Undefined when nobody (PPV) or
    everybody (NPV) is flagged; without an interval when sensitivity or specificity is 0 or 1.

    Args:
        counts: Of independent rows.
        prevalence: In (0, 1).
        confidence: Level of the intervals.

    Reference:
        Mercaldo, Lau and Zhou, Statistics in Medicine 2007;26:2170, logit intervals.
    """
    positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
    blank = Measure("", None, confidence=confidence, n=positives + negatives, n_positive=positives,
                    status="undefined")  # fmt: skip
    names = ("ppv_at_prevalence", "npv_at_prevalence")
    if not (positives and negatives):
        return [replace(blank, name=name, reason="the set holds one class only") for name in names]
    se, sp = counts.tp / positives, counts.tn / negatives
    hit, false_alarm = se * prevalence, (1 - sp) * (1 - prevalence)
    clear, missed = sp * (1 - prevalence), (1 - se) * prevalence
    inner = 0 < se < 1 and 0 < sp < 1
    errors = (
        (math.sqrt((1 - se) / (se * positives) + sp / ((1 - sp) * negatives)),
         math.sqrt(se / ((1 - se) * positives) + (1 - sp) / (sp * negatives)))
        if inner else (math.nan, math.nan)
    )  # fmt: skip
    measures = []
    for name, good, bad, error in zip(
        names, (hit, clear), (false_alarm, missed), errors, strict=True
    ):
        measure = replace(blank, name=name)
        measures.append(_share_at_prevalence(measure, good, bad, error, prevalence))
    return measures


def _share_at_prevalence(
    measure: Measure, good: float, bad: float, logit_error: float, prevalence: float
) -> Measure:
    """Fill in good / (good + bad) and its logit interval."""
    if good + bad == 0:
        return replace(measure, reason="nobody gets this result")
    value = good / (good + bad)
    if math.isnan(logit_error):
        reason = "sensitivity or specificity is 0 or 1, so the logit interval does not exist"
        return replace(measure, value=value, status="degenerate", reason=reason)
    error = logit_error * value * (1 - value)
    low, high = logit_wald(value, error, normal_quantile(measure.confidence))
    method = f"Mercaldo logit, prevalence {prevalence:g}"
    return replace(measure, value=value, low=low, high=high, method=method, status="ok")


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
    """
    diseased = round(per * prevalence)
    tp, tn = round(diseased * sensitivity), round((per - diseased) * specificity)
    return Counts(tp, per - diseased - tn, diseased - tp, tn)
