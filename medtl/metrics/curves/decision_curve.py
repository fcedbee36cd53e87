"""Decision curves: what acting on the model is worth, against acting on all or on nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.intervals import (
    Interval,
    Owners,
    correlation_of,
    mover_sum,
    proportion_of_rows,
    ratio_influence,
)
from medtl.metrics.ranking import Ranking, rank
from medtl.metrics.scores import (
    CI,
    CI95,
    NO_ROWS,
    ONE_CLASS,
    Ids,
    Scores,
    Truth,
    Values,
    probabilities,
)
from medtl.metrics.temperature import expit, logit
from medtl.types import BoolArray, FloatArray, IntArray

HUNDREDTHS = np.arange(1, 100) / 100
"""Threshold probabilities 0.01 to 0.99."""

Range = tuple[float, float]
"""Lowest and highest probability at which somebody would act."""


def thresholds_of(acting: Range | None) -> FloatArray:
    """Return the threshold probabilities to draw, `(t,)`: the range that is stated, or 1 to 99 %.

    Args:
        acting: Lowest and highest probability at which somebody would act, inside (0, 1).

    Raises:
        PredictionsError: If it is no such range.

    Reference:
        The range is the user's: Vickers, van Calster and Steyerberg, Diagn Progn Res 2019;3:18.

    >>> thresholds_of((0.05, 0.3))[[0, 1, -1]].round(4)
    array([0.05  , 0.0525, 0.3   ])
    """
    if acting is None:
        return HUNDREDTHS
    low, high = acting
    if not 0 < low < high < 1:
        raise PredictionsError(
            f"a range of thresholds from {low:g} to {high:g}",
            expected="two probabilities inside (0, 1), the lower one first",
            fix="State between which probabilities of the finding a clinician would act: 0.05,0.3",
        )
    return np.linspace(low, high, 101)


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit, in true positives per patient, at threshold probabilities `(t,)`.

    Attributes:
        threshold: Probabilities at which one would act.
        model: Acting if and only if score >= threshold.
        treat_all: Acting on everybody. Acting on nobody is 0.
        avoided_per_100: Unnecessary actions avoided per 100 patients, against acting on all.
    """

    threshold: FloatArray
    model: FloatArray
    treat_all: FloatArray
    avoided_per_100: FloatArray


def decision_curve(
    y_true: Truth,
    y_score: Values = None,
    thresholds: ArrayLike = HUNDREDTHS,
    *,
    prevalence: float | None = None,
) -> DecisionCurve:
    """Return the decision curve.

    At a stated prevalence the probabilities are moved to it first (`at_prevalence`): those of the
    rows mean the prevalence of the rows, and cutting them as they are would act on too many.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`; both classes when a prevalence is stated, any row
            otherwise.
        y_score: `(n,)` calibrated probabilities.
        thresholds: `(t,)` in (0, 1), those at which somebody would act.
        prevalence: Of the clinic, if it differs from that of the rows.

    Raises:
        PredictionsError: If a threshold lies outside (0, 1) or the rows do not allow it.

    Reference:
        Vickers and Elkin, Medical Decision Making 2006;26:565:
        tp/n - fp/n x p/(1 - p); at prevalence p0: se p0 - (1 - sp)(1 - p0) p/(1 - p).
        Elkan, IJCAI 2001, theorem 2; Saerens et al., Neural Computation 2002;14:21.

    >>> decision_curve([1, 0, 0, 1], [0.5, 0.2, 0.1, 0.1], [0.2, 0.5]).model
    array([0.1875, 0.25  ])
    """
    ranking = rank(_moved(Scores.of(y_true, y_score), prevalence))
    at = np.atleast_1d(np.asarray(thresholds, dtype=float))
    _check(ranking, at, prevalence)
    odds = at / (1 - at)
    # How many distinct scores are at least the threshold: 0 means that nobody is flagged.
    reached = np.searchsorted(-ranking.thresholds, -at, side="right")
    hits, alarms = (np.append(0, x)[reached] for x in (ranking.tp, ranking.fp))
    model = _net(hits, alarms, ranking, odds, prevalence)
    treat_all = _net(ranking.tp[-1:], ranking.fp[-1:], ranking, odds, prevalence)
    return DecisionCurve(at, model, treat_all, 100 * (model - treat_all) / odds)


def at_prevalence(probability: ArrayLike, prevalence: float, source: float) -> FloatArray:
    """Return the probabilities that patients of another prevalence have, all else being equal.

    Args:
        probability: `(n,)` calibrated where `source` is the prevalence.
        prevalence: Of the clinic, in (0, 1).
        source: Of the rows that the probabilities mean, in (0, 1).

    Reference:
        Elkan, IJCAI 2001, theorem 2; Saerens et al., Neural Computation 2002;14:21, equation 2.4:
        the logit moves by logit(prevalence) - logit(source).

    >>> at_prevalence([0.3, 0.5], 0.05, 0.3).round(3)
    array([0.05 , 0.109])
    """
    moved = logit(np.array([prevalence])) - logit(np.array([source]))
    return expit(logit(np.asarray(probability, dtype=float)) + moved)


def _moved(rows: Scores, prevalence: float | None) -> Scores:
    """Return the rows with the probabilities that the prevalence gives."""
    probabilities(rows.score)
    if prevalence is None or rows.one_class:
        return rows
    source = rows.positives / rows.truth.size
    return replace(rows, score=at_prevalence(rows.score, prevalence, source))


def decision_band(
    y_true: Truth,
    y_score: Values = None,
    thresholds: ArrayLike = HUNDREDTHS,
    *,
    prevalence: float | None = None,
    patients: Ids = None,
    ci: CI = CI95,
) -> tuple[FloatArray, FloatArray]:
    """Return the pointwise band of the model's net benefit, low and high, `(t,)` each.

    Net benefit is a sum of two shares with fixed weights; the band joins their intervals (MOVER),
    with the correlation that the patients give them.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` calibrated probabilities.
        thresholds: `(t,)` in (0, 1).
        prevalence: Of the clinic, if it differs from that of the rows.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level.

    Raises:
        PredictionsError: If a threshold lies outside (0, 1) or the rows do not allow it.

    >>> low, high = decision_band([1, 0, 0, 1], [0.5, 0.2, 0.1, 0.1], [0.2, 0.5])
    >>> low.round(2), high.round(2)
    (array([-0.08, -0.28]), array([0.66, 0.7 ]))
    """
    curve = decision_curve(y_true, y_score, thresholds, prevalence=prevalence)
    rows = _moved(Scores.of(y_true, y_score, patients), prevalence)
    ill, well = rows.truth, ~rows.truth
    if prevalence is None:
        of_hits = of_alarms = _Among.all(rows)
    else:
        of_hits, of_alarms = _Among.of(rows, ill), _Among.of(rows, well)
    found = []
    for at, odds in zip(curve.threshold, curve.threshold / (1 - curve.threshold), strict=True):
        flagged = rows.score >= at
        weights = (1.0, -odds) if prevalence is None else (prevalence, (prevalence - 1) * odds)
        shares = (ill & flagged, of_hits, weights[0]), (well & flagged, of_alarms, weights[1])
        found.append(_joined(rows, shares, ci))
    low, high = np.array(found).T
    return low, high


class _Among(NamedTuple):
    """The rows of which a share is taken, and whose they are."""

    rows: BoolArray | slice
    codes: IntArray
    owners: Owners

    @classmethod
    def all(cls, rows: Scores) -> _Among:
        """Every row."""
        return cls(slice(None), rows.patients, Owners.of(rows.patients, rows.patients.size))

    @classmethod
    def of(cls, rows: Scores, among: BoolArray) -> _Among:
        """Some of the rows."""
        theirs = rows.patients[among]
        return cls(among, theirs, Owners.of(theirs, theirs.size))


def _joined(rows: Scores, shares: Sequence[tuple[BoolArray, _Among, float]], ci: CI) -> Interval:
    """Return MOVER's interval of the weighted sum of two shares: hits, of which rows, weight."""
    ends, moved = [], []
    for flagged, among, weight in shares:
        hits = flagged[among.rows]
        share = proportion_of_rows("", hits, patients=among.owners, ci=ci)
        bounds = (share.value or 0.0, share.low or 0.0, 1.0 if share.high is None else share.high)
        value, *others = (weight * bound for bound in bounds)
        ends.append((value, min(others), max(others)))
        influence = ratio_influence(hits, among.codes)
        moved.append(weight * np.pad(influence, (0, rows.num_patients - influence.size)))
    return mover_sum(ends[0], ends[1], correlation_of(moved[0], moved[1]))


def _net(
    tp: IntArray, fp: IntArray, of: Ranking, odds: FloatArray, prevalence: float | None
) -> FloatArray:
    """Return net benefit from counts."""
    if prevalence is None:
        return np.asarray((tp - fp * odds) / of.positive.size)
    hits, alarms = tp / of.num_positive, fp / of.num_negative
    return np.asarray(hits * prevalence - alarms * (1 - prevalence) * odds)


def _check(ranking: Ranking, at: FloatArray, prevalence: float | None) -> None:
    """Refuse thresholds and rows for which there is no net benefit."""
    if not at.size or at.min() <= 0 or at.max() >= 1:
        raise PredictionsError(
            "a threshold probability is not inside (0, 1)", expected="probabilities, ends excluded"
        )
    if not ranking.order.size:
        raise PredictionsError(NO_ROWS, expected="at least one")
    if prevalence is not None and not (ranking.num_positive and ranking.num_negative):
        raise PredictionsError(ONE_CLASS, expected="both, to use a prevalence")
