"""The updating ladder: how little must be changed for a model to fit the patients of a new place.

Each step is fitted on some of the patients and judged on others (cross-fitting), so that a step
with more freedom does not look better for that alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from medtl.errors import PredictionsError
from medtl.metrics.calibration import brier, calibration_line, fitted_line, log_loss
from medtl.metrics.confusion import share_measures
from medtl.metrics.curves.decision_curve import at_prevalence
from medtl.metrics.operating_point import Rule, choose_operating_point
from medtl.metrics.scores import CI, CI95, Ids, Scores, Truth, Values, probabilities
from medtl.metrics.temperature import expit, fit_recalibration, logit
from medtl.types import FloatArray, IntArray, Measure

STEPS = ("none", "prior", "intercept", "platt", "platt_and_threshold")
"""As delivered; moved to the new prevalence; intercept; with slope; with a new threshold, too."""

FOLDS = 10
"""Parts of the patients; fewer where a class has fewer patients."""

Update = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Step:
    """One step of the ladder, judged on patients that it was not fitted on.

    Attributes:
        name: One of `STEPS`.
        intercept, slope: Of logit p' = intercept + slope logit p, fitted on all rows; None where
            the step could not be fitted.
        threshold: That goes with the updated probability; None without one, and where the rule
            flags nobody.
        measures: Brier score, log loss, calibration and, with a threshold, sensitivity and
            specificity, of the cross-fitted probabilities.
        reason: Why there is none.
    """

    name: str
    intercept: float | None = None
    slope: float | None = None
    threshold: float | None = None
    measures: tuple[Measure, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Advice:
    """What a closed test says: the smallest step that the rows do not contradict.

    Attributes:
        step: "none", "intercept" or "platt".
        p_none: p of "nothing need change". p_intercept: p of "the intercept is enough".
    """

    step: str
    p_none: float
    p_intercept: float


def cross_fitted(
    rows: Scores, fit: Callable[[Scores], Update], *, folds: int = FOLDS, seed: int = 0
) -> FloatArray:
    """Return per row what `fit` makes of its score, fitted on other patients.

    Args:
        rows: The patients of the new place.
        fit: Returns the update that its rows ask for.
        folds: Parts, each with patients of both classes.
        seed: Of the parts.

    Raises:
        PredictionsError: If a class has fewer than two patients.

    >>> rows = Scores.of([0, 1, 0, 1], [0.2, 0.6, 0.4, 0.8])
    >>> cross_fitted(rows, lambda others: lambda score: score + others.score.size, folds=2)
    array([2.2, 2.6, 2.4, 2.8])
    """
    part = _parts(rows, folds, seed)
    out = np.empty(rows.score.size)
    for number in range(int(part.max()) + 1):
        held = part[rows.patients] == number
        out[held] = fit(rows.only(~held))(rows.score[held])
    return out


def updating_ladder(
    y_true: Truth,
    y_score: Values = None,
    *,
    threshold: float | None = None,
    rule: Rule | None = None,
    prevalence: float | None = None,
    patients: Ids = None,
    ci: CI = CI95,
) -> list[Step]:
    """Return every step of the ladder with its cross-fitted measures.

    The threshold of the model is a number on its own scale: it is held against the updated
    probability as it stands, but in the last step, which chooses another by the rule.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities of the model as delivered.
        threshold: Frozen with the model.
        rule: How that threshold was chosen, for the last step.
        prevalence: Of the rows the model was made on, in (0, 1), for the step "prior".
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the intervals; its seed draws the parts.

    Raises:
        PredictionsError: If a score is no probability or a class has fewer than two patients.

    Reference:
        Steyerberg et al., Statistics in Medicine 2004;23:2567; Vergouwe et al. 2017;36:4529.

    >>> truth, sharp = [1] * 6 + [0] * 2 + [0] * 6 + [1] * 2, [0.99] * 8 + [0.01] * 8
    >>> ladder = updating_ladder(truth, sharp)
    >>> [(step.name, round(step.slope, 2)) for step in ladder if step.slope is not None]
    [('none', 1.0), ('intercept', 1.0), ('platt', 0.24)]
    """
    rows = Scores.of(y_true, y_score, patients)
    probabilities(rows.score)
    _parts(rows, FOLDS, ci.seed)
    found = []
    for name in STEPS:
        if (name == "prior" and prevalence is None) or (
            name == "platt_and_threshold" and (threshold is None or rule is None)
        ):
            continue
        try:
            found.append(_step(name, rows, threshold, rule, prevalence, ci))
        except PredictionsError as error:
            found.append(Step(name, reason=error.found))
    return found


def advise_update(y_true: Truth, y_score: Values = None, *, patients: Ids = None) -> Advice:
    """Return the smallest update that the rows do not contradict at the 5 percent level.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities.
        patients: `(n,)` identifiers, or None for one row per patient.

    Raises:
        PredictionsError: If no line can be fitted to the rows.

    Reference:
        The closed testing procedure of Vergouwe et al., Statistics in Medicine 2017;36:4529, for a
        model with one score, with Wald tests (over patients where they have several rows).

    >>> truth, sharp = [1] * 30 + [0] * 10 + [0] * 30 + [1] * 10, [0.99] * 40 + [0.01] * 40
    >>> advise_update(truth, sharp).step
    'platt'
    """
    rows = Scores.of(y_true, y_score, patients)
    logits = logit(probabilities(rows.score))
    line = fitted_line(rows, np.column_stack([logits, np.ones_like(logits)]), np.zeros(logits.size))
    if isinstance(line, str):
        raise PredictionsError(line, expected="both classes, not separated by the score")
    from scipy.special import chdtrc

    moved, covariance = line[0] - (1, 0), line[1]
    p_none = float(chdtrc(2, moved @ np.linalg.solve(covariance, moved)))
    p_intercept = float(chdtrc(1, moved[0] ** 2 / covariance[0, 0]))
    step = "none" if p_none >= LEVEL else "intercept" if p_intercept >= LEVEL else "platt"
    return Advice(step, p_none, p_intercept)


LEVEL = 0.05
"""Of the closed test."""


def _step(
    name: str,
    rows: Scores,
    threshold: float | None,
    rule: Rule | None,
    prevalence: float | None,
    ci: CI,
) -> Step:
    """Return a step with its measures."""

    def update(others: Scores) -> tuple[float, float]:
        return _line(name, others, prevalence)

    def fit(others: Scores) -> Update:
        intercept, slope = update(others)
        if name == "none":  # as it stands: at the threshold, the last bit counts
            return lambda score: score
        return lambda score: expit(intercept + slope * logit(score))

    def decide(others: Scores) -> Update:
        moved = fit(others)
        point = choose_operating_point(replace(others, score=moved(others.score)), rule=rule or {})
        return lambda score: (moved(score) >= point.threshold).astype(float)

    updated = replace(rows, score=cross_fitted(rows, fit, seed=ci.seed))
    measures = [brier(updated, ci=ci), log_loss(updated, ci=ci), *calibration_line(updated, ci=ci)]
    intercept, slope = update(rows)
    if name == "platt_and_threshold" and rule is not None:
        whole = replace(rows, score=fit(rows)(rows.score))
        threshold = choose_operating_point(whole, rule=rule).threshold
        decided = replace(rows, score=cross_fitted(rows, decide, seed=ci.seed))
        measures += share_measures(decided, threshold=1.0, ci=ci)[:2]
    elif threshold is not None:
        measures += share_measures(updated, threshold=threshold, ci=ci)[:2]
    if threshold is not None and math.isinf(threshold):
        threshold = None
    return Step(name, intercept, slope, threshold, tuple(measures))


def _line(name: str, rows: Scores, prevalence: float | None) -> tuple[float, float]:
    """Return intercept and slope of a step, fitted on the rows."""
    logits = logit(rows.score)
    if name == "none":
        return 0.0, 1.0
    if name == "prior" and prevalence is not None:
        there = rows.positives / rows.truth.size
        return float(logit(at_prevalence([0.5], there, prevalence))[0]), 1.0
    if name == "intercept":
        shift = fitted_line(rows, np.ones((logits.size, 1)), logits)
        if isinstance(shift, str):
            raise PredictionsError(shift)
        return float(shift[0][0]), 1.0
    found = fit_recalibration(rows, method="platt", fitted_on="target")
    return found.intercept, found.slope


def _parts(rows: Scores, folds: int, seed: int) -> IntArray:
    """Return the part of every patient, `(P,)`: both classes spread evenly, drawn by the seed."""
    diseased = rows.per_patient().truth
    smaller = int(min(diseased.sum(), (~diseased).sum()))
    if smaller < 2:
        raise PredictionsError(
            f"{smaller} patients of one class",
            expected="two of each, to fit on one and judge on one",
        )
    order = np.random.default_rng(seed).permutation(diseased.size)
    order = order[np.argsort(diseased[order], kind="stable")]
    part = np.empty(diseased.size, dtype=np.int64)
    part[order] = np.arange(diseased.size) % min(folds, smaller)
    return part
