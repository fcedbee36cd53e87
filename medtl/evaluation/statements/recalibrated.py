"""Recalibration that validation shows to be needed: fitted there, tried on test, kept for use.

The rule: it is needed where the 95 % interval of the calibration slope of the validation rows lies
wholly outside 0.8 to 1.25, or that of calibration in the large wholly beyond odds that are off by a
quarter. Temperature scaling mends it, or Platt scaling where after a temperature calibration in the
large is still not 0. Both are monotone: decisions at a threshold stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from medtl.errors import PredictionsError
from medtl.evaluation.classification import LabelRows, calibration_measures
from medtl.evaluation.curves import Curve, probability_curves
from medtl.metrics.calibration import calibration_line
from medtl.metrics.scores import CI, Scores
from medtl.metrics.temperature import Recalibration, fit_recalibration
from medtl.types import Measure

SLOPES = (0.8, 1.25)
"""Slopes that need no recalibration (and no warning)."""

IN_THE_LARGE = (-math.log(1.25), math.log(1.25))
"""Errors of the mean logit that need none: odds that are right but for a quarter."""


@dataclass(frozen=True)
class Recalibrated:
    """A recalibration of the scores of one finding, kept with the run.

    Attributes:
        label: The finding.
        fit: Fitted on validation rows alone.
        why: The measure of the validation rows that called for it, with its interval.
    """

    label: str
    fit: Recalibration
    why: Measure


def outside(measure: Measure, bounds: tuple[float, float]) -> bool:
    """Return whether the whole interval of a measure lies outside two bounds.

    >>> outside(Measure("calibration_slope", 0.33, low=0.25, high=0.41), SLOPES)
    True
    """
    if measure.low is None or measure.high is None:
        return False
    return measure.high < bounds[0] or measure.low > bounds[1]


def fit_where_needed(test: LabelRows, val: LabelRows | None, ci: CI) -> Recalibrated | None:
    """Return the recalibration of a finding's probabilities, None where none is called for.

    Args:
        test: Test rows, of which it is asked alone whether they are probabilities too.
        val: Validation or out-of-fold rows, which decide and are fitted; None for none.
        ci: Level of the intervals of the rule.

    >>> rows = Scores.of([1, 1, 0, 1, 0, 0] * 40, [0.99, 0.99, 0.99, 0.01, 0.01, 0.01] * 40)
    >>> val = LabelRows("x", "val", rows, rows.patients)
    >>> found = fit_where_needed(replace(val, split="test"), val, CI(resamples=9))
    >>> found.fit.method, round(found.fit.slope, 2), found.why.name
    ('temperature', 0.15, 'calibration_slope')
    """
    if val is None or val.scores.one_class or not val.scores.are_probabilities:
        return None
    if not test.scores.are_probabilities:
        return None
    slope, large = _line(val.scores, ci)
    needed = [m for m, b in ((slope, SLOPES), (large, IN_THE_LARGE)) if outside(m, b)]
    if not needed:
        return None
    try:
        fit = fit_recalibration(val.scores)
        left = _line(replace(val.scores, score=fit(val.scores.score)), ci)[1]
        if outside(left, (0, 0)):
            fit = fit_recalibration(val.scores, method="platt")
    except PredictionsError:
        return None
    return Recalibrated(val.label, fit, replace(needed[0], label=val.label, split="val"))


def _line(rows: Scores, ci: CI) -> tuple[Measure, Measure]:
    """Return the calibration slope and calibration in the large."""
    found = {measure.name: measure for measure in calibration_line(rows, ci=ci)}
    return found["calibration_slope"], found["calibration_in_the_large"]


def after_recalibration(
    test: LabelRows, done: Recalibrated, prevalence: float | None, ci: CI
) -> tuple[list[Measure], list[Curve]]:
    """Return what the recalibration does to the test rows: measures and curves, so named.

    Args:
        test: Test rows of the finding, probabilities.
        done: Fitted on validation.
        prevalence: Of the clinic, for the decision curve.
        ci: Level and bootstrap of the intervals.
    """
    rows = replace(test, scores=replace(test.scores, score=done.fit(test.scores.score)))
    named = [
        replace(measure, name=f"{measure.name}_after_recalibration", label=test.label)
        for measure in calibration_measures(rows.scores, ci)
    ]
    curves = probability_curves(rows, prevalence, ci)
    return named, [{**c, "name": f"{c['name']}_after_recalibration"} for c in curves]
