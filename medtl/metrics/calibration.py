"""Do the probabilities mean what they say? Reliability, Brier score, calibration line.

Probabilities are clipped to [1e-12, 1 - 1e-12] wherever a logarithm is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from medtl.metrics.intervals import (
    linearised_error,
    log_wald,
    normal_quantile,
    percentile,
    t_quantile,
    wilson,
)
from medtl.metrics.ranking import Ranking, rank
from medtl.metrics.resampling import BLOCK_CELLS, FromCounts
from medtl.metrics.scores import (
    CI,
    CI95,
    NO_ROWS,
    ONE_CLASS,
    Ids,
    Scores,
    Truth,
    Values,
    num_patients,
)
from medtl.metrics.scores import probabilities as checked
from medtl.metrics.temperature import CLIP, expit, logistic, logit, separates
from medtl.types import BoolArray, FloatArray, IntArray, Measure

WIDEST = 100.0
"""Standard error, in logits, beyond which a coefficient is one of the clipped scores alone."""


def log_losses(truth: BoolArray, probability: FloatArray) -> FloatArray:
    """Return the negative log-likelihood of every row, in nats, clipped at `CLIP`.

    >>> log_losses(np.array([True, False]), np.array([0.5, 0.1])).round(3)
    array([0.693, 0.105])
    """
    of_truth = np.where(truth, probability, 1 - probability)
    return np.asarray(-np.log(np.clip(of_truth, CLIP, 1 - CLIP)))


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

    >>> bin_of(np.array([0.0, 0.1, 0.3, 0.31]), 10)
    array([0, 0, 2, 3])
    """
    edges = np.arange(bins + 1) / bins
    return np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)


def reliability(
    y_true: Truth, y_score: Values = None, *, bins: int = 10, ci: CI = CI95
) -> Reliability:
    """Return the points of the reliability diagram; empty bins are left out.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities of being positive.
        bins: Number of equal-width bins.
        ci: Level of the Wilson intervals of independent rows.

    >>> reliability([0, 1, 1, 1], [0.02, 0.91, 0.93, 0.08]).observed
    array([0.5, 1. ])
    """
    rows = Scores.of(y_true, y_score)
    which = bin_of(checked(rows.score), bins)
    count = np.bincount(which, minlength=bins)
    positives = np.bincount(which, rows.truth, minlength=bins).astype(int)
    total = np.bincount(which, rows.score, minlength=bins)
    used = count > 0
    count, positives, total = count[used], positives[used], total[used]
    bounds = [wilson(int(k), int(n), ci.level) for k, n in zip(positives, count, strict=True)]
    low, high = np.array(bounds).reshape(-1, 2).T
    return Reliability(total / count, positives / count, low, high, count)


def expected_calibration_error(
    y_true: Truth,
    y_score: Values = None,
    *,
    bins: int = 10,
    patients: Ids = None,
    ci: CI = CI95,
) -> Measure:
    """Return the mean distance between observed share and mean probability over the bins.

    Equal-width bins (a, b], the first closed. It is above 0 for a perfect model too, the more so
    the fewer rows a bin has, so that an interval of it never holds 0: it has none, and is read
    beside `calibrated_error`, which is what a perfect model would show.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities of being positive.
        bins: Number of bins.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level, for the record.

    Reference:
        Naeini, AAAI 2015; Guo, ICML 2017, equation 3.

    >>> found = expected_calibration_error([0, 0, 1, 0], [0.12, 0.18, 0.82, 0.88])
    >>> round(found.value, 3)  # (0.15 + 0.35) / 2
    0.25
    """
    rows = Scores.of(y_true, y_score, patients)
    blank = rows.blank("ece", ci)
    if not rows.truth.size:
        return blank.undefined(NO_ROWS)
    ranking = rank(checked_rows(rows))
    value = float(_error_from_counts(ranking, rows.score, bins)(ranking.tp, ranking.fp))
    return replace(blank, method=f"{bins} equal-width bins").weak(value, NEVER_HOLDS_ZERO)


NEVER_HOLDS_ZERO = "no interval holds 0; compare it with that of right probabilities"
"""Why a calibration error has no interval."""


def calibrated_error(
    y_true: Truth,
    y_score: Values = None,
    *,
    bins: int = 10,
    patients: Ids = None,
    ci: CI = CI95,
) -> Measure:
    """Return the calibration error that these rows would have if the probabilities were right.

    The value is the mean and the interval the range of the errors of truths drawn with the rows'
    own probabilities. An error inside the range is no sign of a wrong calibration.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities of being positive.
        bins: As in `expected_calibration_error`.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the range, and the number of draws.

    Reference:
        Consistency resampling: Broecker and Smith, Weather and Forecasting 2007;22:651.

    >>> calibrated_error([0, 0, 1, 0], [0.12, 0.18, 0.82, 0.88], ci=CI(resamples=500)).n
    4
    """
    rows = Scores.of(y_true, y_score, patients)
    blank = rows.blank("ece_if_calibrated", ci)
    if not rows.truth.size:
        return blank.undefined(NO_ROWS)
    few = ci.affordable(rows.truth.size)
    which, n = bin_of(checked_rows(rows).score, bins), rows.truth.size
    of_bin = np.zeros((n, bins))
    of_bin[np.arange(n), which] = 1 / n
    draws = np.concatenate([
        np.abs((truths - rows.score) @ of_bin).sum(axis=1)
        for truths in drawn_truths(rows, few.resamples)
    ])  # fmt: skip
    method = f"consistency resampling, {bins} equal-width bins, B={draws.size}"
    return blank.ok(float(draws.mean()), percentile(draws, ci.level), method)


def drawn_truths(rows: Scores, resamples: int) -> Iterator[BoolArray]:
    """Yield blocks `(b, n)` of truths that the probabilities would bring; a patient's go together.

    No value may hang on a seed, on the patients' names or on how often their rows stand there: the
    seed is fixed, and patients are drawn in the order of their lowest score.

    Args:
        rows: With probabilities.
        resamples: Number of truths over all blocks.

    >>> rows = Scores.of([0, 1], [0.0, 1.0])
    >>> next(drawn_truths(rows, 2)).tolist()
    [[False, True], [False, True]]
    """
    rng, n = np.random.default_rng(0), rows.truth.size
    order = np.argsort(rows.score, kind="stable")
    _, first, place = np.unique(rows.patients[order], return_index=True, return_inverse=True)
    owner = np.empty(n, dtype=np.int64)
    owner[order] = np.argsort(np.argsort(first))[place]
    block = max(1, BLOCK_CELLS // n)
    for start in range(0, resamples, block):
        lot = rng.random((min(block, resamples - start), rows.num_patients))
        yield np.take(lot, owner, axis=1) < rows.score


def checked_rows(rows: Scores) -> Scores:
    """Return the rows unchanged after checking that their scores can be probabilities.

    >>> checked_rows(Scores.of([0, 1], [0.2, 0.9])).positives
    1
    """
    checked(rows.score)
    return rows


def top_label(y_true: Truth, y_score: Values = None) -> tuple[BoolArray, FloatArray]:
    """Return whether the predicted class is right, and its probability: for the top-label error.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities of being positive; positive is predicted from 0.5 on.

    >>> top_label([0, 1, 1], [0.2, 0.5, 0.1])
    (array([ True,  True, False]), array([0.8, 0.5, 0.9]))
    """
    rows = Scores.of(y_true, y_score)
    called = checked(rows.score) >= 0.5
    return rows.truth == called, np.where(called, rows.score, 1 - rows.score)


def _error_from_counts(ranking: Ranking, score: FloatArray, bins: int) -> FromCounts:
    """Return the function from cumulative counts to the expected calibration error."""
    starts = np.concatenate([[0], ranking.last[:-1] + 1])
    rows = ranking.last - starts + 1
    # A group is one score, or neighbouring ones in a coarse ranking: it counts with their mean. The
    # mean of equal scores is not taken, for its rounding moves a score off the edge of its bin.
    ordered = score[ranking.order]
    mean = np.add.reduceat(ordered, starts) / rows
    mean = np.where(ordered[starts] == ordered[ranking.last], ordered[starts], mean)
    first = np.flatnonzero(np.diff(bin_of(mean, bins), prepend=-1))

    def error(tp: IntArray, fp: IntArray) -> FloatArray:
        positives, negatives = (np.diff(counts, axis=-1, prepend=0) for counts in (tp, fp))
        excess = positives - (positives + negatives) * mean
        gaps = np.abs(np.add.reduceat(excess, first, axis=-1)).sum(axis=-1)
        return np.asarray(gaps / (tp[..., -1] + fp[..., -1]))

    return error


def brier(y_true: Truth, y_score: Values = None, *, patients: Ids = None, ci: CI = CI95) -> Measure:
    """Return the mean squared error of the probabilities; interval over patients.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval.

    Raises:
        PredictionsError: If a score lies outside [0, 1].

    Reference:
        Brier, Monthly Weather Review 1950;78:1.

    >>> round(brier([1, 0, 1, 0], [0.9, 0.1, 0.6, 0.6]).value, 3)
    0.135
    """
    rows = Scores.of(y_true, y_score, patients)
    return _mean("brier", (checked(rows.score) - rows.truth) ** 2, rows, ci)


def log_loss(
    y_true: Truth, y_score: Values = None, *, patients: Ids = None, ci: CI = CI95
) -> Measure:
    """Return the mean negative log-likelihood in nats; interval over patients.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities, clipped at `CLIP`.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval.

    Raises:
        PredictionsError: If a score lies outside [0, 1].

    >>> round(log_loss([1, 0], [0.5, 0.1]).value, 3)
    0.399
    """
    rows = Scores.of(y_true, y_score, patients)
    return _mean("log_loss", log_losses(rows.truth, checked(rows.score)), rows, ci)


def _mean(name: str, losses: FloatArray, rows: Scores, ci: CI) -> Measure:
    """Return the mean of a non-negative value per row with t's interval on the log scale."""
    blank = rows.blank(name, ci)
    if not losses.size:
        return blank.undefined(NO_ROWS)
    value, error = float(losses.mean()), linearised_error(losses, rows.patients)
    if not error > 0:
        reason = "it does not vary between patients, or there is one patient only"
        return blank.weak(value, reason)
    bounds = log_wald(value, error, t_quantile(rows.num_patients - 1, ci.level))
    return blank.ok(value, bounds, "t over patients, log scale")


def scaled_brier(y_true: Truth, y_score: Values = None) -> float | None:
    """Return 1 - Brier / Brier of the prevalence; None where all rows are of one class.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities.

    >>> round(scaled_brier([1, 0, 1, 0], [0.9, 0.1, 0.6, 0.6]), 3)
    0.46
    """
    rows = Scores.of(y_true, y_score)
    if rows.one_class:
        return None
    prevalence = rows.truth.mean()
    squares = (rows.score - rows.truth) ** 2
    return float(1 - squares.mean() / (prevalence * (1 - prevalence)))


def calibration_line(
    y_true: Truth, y_score: Values = None, *, patients: Ids = None, ci: CI = CI95
) -> list[Measure]:
    """Return calibration slope, its intercept, and calibration in the large.

    `calibration_slope` b and `calibration_intercept` a of logistic y ~ a + b logit(p), and
    `calibration_in_the_large` a of y ~ a + 1 logit(p). Right is 1, 0 and 0. Undefined with one
    class, and where the score separates the classes (no finite estimate).

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the intervals; clustered rows have the sandwich error and t's quantile.

    Reference:
        Cox, Biometrika 1958;45:562; Van Calster et al., BMC Medicine 2019;17:230.

    >>> truth, score = [1] * 3 + [0] + [0] * 3 + [1], [0.9] * 4 + [0.1] * 4
    >>> round(calibration_line(truth, score)[0].value, 3)  # logit(0.75) / logit(0.9)
    0.5
    """
    rows = Scores.of(y_true, y_score, patients)
    logits = logit(checked(rows.score))
    one = np.ones((rows.truth.size, 1))
    line = fitted_line(rows, np.hstack([logits[:, None], one]), np.zeros(rows.truth.size))
    shift = fitted_line(rows, one, logits)
    method, reach = "Wald", normal_quantile(ci.level)
    if rows.clustered and not rows.one_class:
        fewer = min(num_patients(rows.patients[of]) for of in (rows.truth, ~rows.truth))
        method, reach = "t, sandwich over patients", t_quantile(max(fewer - 1, 1), ci.level)
    measures = []
    for name, fit, at in (
        ("calibration_slope", line, 0),
        ("calibration_intercept", line, 1),
        ("calibration_in_the_large", shift, 0),
    ):
        blank = rows.blank(name, ci)
        if isinstance(fit, str):
            measures.append(blank.undefined(fit))
            continue
        value, error = float(fit[0][at]), math.sqrt(fit[1][at, at])
        measures.append(blank.ok(value, (value - reach * error, value + reach * error), method))
    return measures


def fitted_line(
    rows: Scores, design: FloatArray, offset: FloatArray
) -> tuple[FloatArray, FloatArray] | str:
    """Return coefficients and covariance of a logistic regression, or why there are none.

    Args:
        rows: Truth and patients; rows of one patient share their error (sandwich).
        design: `(n, k)`; a constant column comes last where there are two.
        offset: `(n,)` added to the linear predictor.

    >>> rows = Scores.of([1, 1, 1, 0], [0.5] * 4)
    >>> fitted_line(rows, np.ones((4, 1)), np.zeros(4))[0].round(3)  # log(3 / 1)
    array([1.099])
    """
    truth = rows.truth
    if rows.one_class:
        return ONE_CLASS
    if np.ptp(design, axis=0).max() == 0 and design.shape[1] > 1:
        return "all probabilities are equal"
    if design.shape[1] > 1 and separates(truth, design[:, 0]):
        return "the score separates the classes completely, so there is no finite estimate"
    coefficients, information = logistic(truth, design, offset)
    no_estimate = "the probabilities are so near to 0 and 1 that there is no finite estimate"
    try:
        inverse = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        return no_estimate
    if np.diag(inverse).max() > WIDEST**2:
        return no_estimate
    if not rows.clustered:
        return coefficients, inverse
    clusters = rows.num_patients
    if clusters < 2:
        return "there is one patient only"
    residual = truth - expit(design @ coefficients + offset)
    sums = np.stack([np.bincount(rows.patients, residual * column) for column in design.T])
    return coefficients, inverse @ (sums @ sums.T) @ inverse * clusters / (clusters - 1)
