"""Do the probabilities mean what they say? Reliability, Brier score, calibration line.

Probabilities are clipped to [1e-12, 1 - 1e-12] wherever a logarithm is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.discrimination import FromCounts, bootstrap_counts, with_percentiles
from medtl.metrics.inputs import (
    blank_measure,
    num_patients,
    patient_codes,
    probabilities,
    truth_and_score,
)
from medtl.metrics.intervals import wald, wilson
from medtl.metrics.logistic import CLIP, expit, logistic, logit, separates
from medtl.metrics.ranking import Ranking, coarsen, rank
from medtl.types import BoolArray, FloatArray, IntArray, Measure


def log_losses(truth: BoolArray, probability: FloatArray) -> FloatArray:
    """Return the negative log-likelihood of every row, in nats, clipped at `CLIP`."""
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    return np.asarray(-np.where(truth, np.log(clipped), np.log1p(-clipped)))


@dataclass(frozen=True)
class Reliability:
    """Observed share against mean probability in bins that hold rows.

    Attributes:
        predicted: `(b,)` mean probability.
        observed: `(b,)` share of positives; `low` and `high` its Wilson interval.
        count: `(b,)` rows.
    """

    predicted: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray
    count: IntArray


def bin_of(probability: FloatArray, bins: int) -> IntArray:
    """Return the number of the equal-width bin (a, b] of each probability; the first holds 0 too.

    Edges are computed as i / bins, so that 0.3 lies in the third of ten bins.
    """
    edges = np.arange(bins + 1) / bins
    return np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)


def reliability(
    y_true: ArrayLike, y_score: ArrayLike, *, bins: int = 10, confidence: float = 0.95
) -> Reliability:
    """Return the points of the reliability diagram; empty bins are left out.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)` probabilities of being positive.
        bins: Number of equal-width bins.
        confidence: Level of the Wilson intervals of independent rows.
    """
    truth, score = truth_and_score(y_true, y_score)
    which = bin_of(probabilities(score), bins)
    count = np.bincount(which, minlength=bins)
    positives = np.bincount(which, truth, minlength=bins).astype(int)
    total = np.bincount(which, score, minlength=bins)
    used = count > 0
    count, positives, total = count[used], positives[used], total[used]
    bounds = [wilson(int(k), int(n), confidence) for k, n in zip(positives, count, strict=True)]
    low, high = np.array(bounds).reshape(-1, 2).T
    return Reliability(total / count, positives / count, low, high, count)


def expected_calibration_error(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    bins: int = 10,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Measure:
    """Return the mean distance between observed share and mean probability over the bins.

    Equal-width bins (a, b], the first closed. It is biased upward: with few rows per bin even a
    perfect model has an error above 0, and so have its resamples.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)` probabilities of being positive.
        bins: Number of bins.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
        resamples: Bootstrap resamples of the patients.
        seed: Of the bootstrap.

    Reference:
        Naeini, AAAI 2015; Guo, ICML 2017, equation 3.
    """
    truth, score = truth_and_score(y_true, y_score)
    codes = patient_codes(patients, truth.size)
    blank = blank_measure("ece", truth, codes, confidence)
    if not truth.size:
        return replace(blank, reason="there are no rows")
    probabilities(score)
    ranking = rank(truth, score)
    coarse = coarsen(ranking)
    error, of_coarse = (
        _error_from_counts(ranking, score, bins),
        _error_from_counts(coarse, score, bins),
    )
    value = float(error(ranking.tp, ranking.fp))
    (draws,) = bootstrap_counts(
        coarse, [of_coarse],
        patients=patients, stratified=False, resamples=resamples, seed=seed,
    )  # fmt: skip
    moved = value - float(of_coarse(coarse.tp, coarse.fp))
    measure = with_percentiles(replace(blank, value=value), draws + moved)
    return replace(measure, method=f"{bins} equal-width bins; {measure.method}")


def top_label(y_true: ArrayLike, y_score: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Return whether the predicted class is right, and its probability: for the top-label error.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)` probabilities of being positive; positive is predicted from 0.5 on.
    """
    truth, score = truth_and_score(y_true, y_score)
    called = probabilities(score) >= 0.5
    return truth == called, np.where(called, score, 1 - score)


def _error_from_counts(ranking: Ranking, score: FloatArray, bins: int) -> FromCounts:
    """Return the function from cumulative counts to the expected calibration error."""
    starts = np.concatenate([[0], ranking.last[:-1] + 1])
    rows = ranking.last - starts + 1
    # A group is one score, or neighbouring ones in a coarse ranking: it counts with their mean.
    mean = np.add.reduceat(score[ranking.order], starts) / rows
    first = np.flatnonzero(np.diff(bin_of(mean, bins), prepend=-1))

    def error(tp: IntArray, fp: IntArray) -> FloatArray:
        positives, negatives = (np.diff(counts, axis=-1, prepend=0) for counts in (tp, fp))
        excess = positives - (positives + negatives) * mean
        gaps = np.abs(np.add.reduceat(excess, first, axis=-1)).sum(axis=-1)
        return np.asarray(gaps / (tp[..., -1] + fp[..., -1]))

    return error


def brier(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Measure:
    """Return the mean squared error of the probabilities; interval over patients.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)` probabilities.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.

    Reference:
        Brier, Monthly Weather Review 1950;78:1.
    """
    truth, score = truth_and_score(y_true, y_score)
    losses = (probabilities(score) - truth) ** 2
    return mean_over_rows("brier", losses, truth, patients=patients, confidence=confidence)


def log_loss(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Measure:
    """Return the mean negative log-likelihood in nats; interval over patients.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)` probabilities, clipped at `CLIP`.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
    """
    truth, score = truth_and_score(y_true, y_score)
    losses = log_losses(truth, probabilities(score))
    return mean_over_rows("log_loss", losses, truth, patients=patients, confidence=confidence)


def mean_over_rows(
    name: str,
    losses: FloatArray,
    truth: BoolArray,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Measure:
    """Return the mean of a non-negative value per row with a Wald interval over patients.

    Args:
        name: Of the measure.
        losses: `(n,)`, at least 0.
        truth: `(n,)` for the counts.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
    """
    codes = patient_codes(patients, losses.size)
    blank = blank_measure(name, truth, codes, confidence)
    if not losses.size:
        return replace(blank, reason="there are no rows")
    value, error = float(losses.mean()), mean_error(losses, codes)
    if not error > 0:
        reason = "it does not vary between patients, or there is one patient only"
        return replace(blank, value=value, status="degenerate", reason=reason)
    low, high = wald(value, error, confidence)
    return replace(blank, value=value, low=max(low, 0.0), high=high,
                   method="Wald over patients", status="ok")  # fmt: skip


def mean_error(values: FloatArray, codes: IntArray) -> float:
    """Return the standard error of a mean over patients; NaN with one patient."""
    clusters = num_patients(codes)
    if clusters < 2:
        return math.nan
    moved = np.bincount(codes, values - values.mean()) / values.size
    return math.sqrt(clusters / (clusters - 1) * float(moved @ moved))


def scaled_brier(y_true: ArrayLike, y_score: ArrayLike) -> float | None:
    """Return 1 - Brier / Brier of the prevalence; None where all rows are of one class.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)` probabilities.
    """
    truth, score = truth_and_score(y_true, y_score)
    if truth.size == 0 or truth.all() or not truth.any():
        return None
    prevalence = truth.mean()
    return float(1 - ((score - truth) ** 2).mean() / (prevalence * (1 - prevalence)))


@dataclass(frozen=True)
class BrierParts:
    """Brier = reliability - resolution + uncertainty + within_bins, exactly.

    Attributes:
        reliability: Squared distance of observed share and mean probability (0 is best).
        resolution: Squared distance of observed share and prevalence (large is best).
        uncertainty: Of the outcome: prevalence x (1 - prevalence).
        within_bins: What binning leaves over, because probabilities in a bin differ.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


def brier_parts(y_true: ArrayLike, y_score: ArrayLike, *, bins: int = 10) -> BrierParts:
    """Return Murphy's decomposition of the Brier score over equal-width bins.

    Args:
        y_true: `(n,)`, 0 or 1, n at least 1.
        y_score: `(n,)` probabilities.
        bins: Number of equal-width bins.

    Reference:
        Murphy, J Appl Meteorol 1973;12:595; within-bin part, Stephenson et al. 2008.
    """
    truth, score = truth_and_score(y_true, y_score)
    points = reliability(truth, score, bins=bins)
    share, prevalence = points.count / truth.size, truth.mean()
    parts = (
        float(share @ (points.predicted - points.observed) ** 2),
        float(share @ (points.observed - prevalence) ** 2),
        float(prevalence * (1 - prevalence)),
    )
    whole = float(((score - truth) ** 2).mean())
    return BrierParts(*parts, within_bins=whole - (parts[0] - parts[1] + parts[2]))


def calibration_line(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
) -> list[Measure]:
    """Return calibration slope, its intercept, and calibration in the large.

    `calibration_slope` b and `calibration_intercept` a of logistic y ~ a + b logit(p), and
    `calibration_in_the_large` a of y ~ a + 1 logit(p). Right is 1, 0 and 0. Undefined with one
    class, and where the score separates the classes (no finite estimate).

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)` probabilities.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the Wald intervals; clustered rows have the sandwich error.

    Reference:
        Cox, Biometrika 1958;45:562; Van Calster et al., BMC Medicine 2019;17:230.
    """
    truth, score = truth_and_score(y_true, y_score)
    codes = patient_codes(patients, truth.size)
    score = logit(probabilities(score))
    blank = blank_measure("", truth, codes, confidence)
    one, column = np.ones((truth.size, 1)), score[:, None]
    line = _fit(truth, np.hstack([column, one]), np.zeros(truth.size), patients, codes)
    shift = _fit(truth, one, score, patients, codes)
    measures = []
    for name, fit, at in (
        ("calibration_slope", line, 0),
        ("calibration_intercept", line, 1),
        ("calibration_in_the_large", shift, 0),
    ):
        if isinstance(fit, str):
            measures.append(replace(blank, name=name, reason=fit))
            continue
        value, error = float(fit[0][at]), math.sqrt(fit[1][at, at])
        low, high = wald(value, error, confidence)
        method = "Wald" if patients is None else "Wald, sandwich over patients"
        measures.append(replace(blank, name=name, value=value, low=low, high=high, method=method,
                                status="ok"))  # fmt: skip
    return measures


Fit = tuple[FloatArray, FloatArray]


def _fit(
    truth: BoolArray,
    design: FloatArray,
    offset: FloatArray,
    patients: ArrayLike | None,
    codes: IntArray,
) -> Fit | str:
    """Return coefficients and covariance of a logistic regression, or why there are none."""
    if not truth.size or truth.all() or not truth.any():
        return "the set holds one class only"
    if np.ptp(design, axis=0).max() == 0 and design.shape[1] > 1:
        return "all probabilities are equal"
    if design.shape[1] > 1 and separates(truth, design[:, 0]):
        return "the score separates the classes completely, so there is no finite estimate"
    coefficients, information = logistic(truth, design, offset)
    inverse = np.linalg.inv(information)
    if patients is None:
        return coefficients, inverse
    residual = truth - expit(design @ coefficients + offset)
    sums = np.stack([np.bincount(codes, residual * column) for column in design.T])
    clusters = num_patients(codes)
    if clusters < 2:
        return "there is one patient only"
    return coefficients, inverse @ (sums @ sums.T) @ inverse * clusters / (clusters - 1)
