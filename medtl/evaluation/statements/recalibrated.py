"""Recalibration that validation shows to be needed: fitted there, tried on test, kept for use.

The rule: it is needed where the 95 % interval of the calibration slope of the validation rows lies
wholly outside 0.8 to 1.25, or that of calibration in the large wholly beyond odds that are off by a
quarter. Temperature scaling mends it, or Platt scaling where after a temperature calibration in the
large is still not 0. Both are monotone: decisions at a threshold stay as they are. Classes that
exclude each other share one temperature, whose inverse is their slope: the class of the highest
score stays the same, and a probability has no threshold of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medtl.errors import PredictionsError
from medtl.evaluation.classification import LabelRows, calibration_measures
from medtl.evaluation.curves import Curve, probability_curves
from medtl.evaluation.exclusive import Choices
from medtl.evaluation.finding_rows import label_rows
from medtl.metrics.calibration import calibration_line
from medtl.metrics.curves.decision_curve import Range
from medtl.metrics.intervals import normal_quantile, t_quantile
from medtl.metrics.scores import CI, Scores, is_clustered, num_patients
from medtl.metrics.temperature import (
    IN_THE_LARGE,
    SLOPES,
    Recalibration,
    fit_class_temperature,
    fit_recalibration,
    outside,
)
from medtl.types import FloatArray, Measure

if TYPE_CHECKING:
    import pandas as pd

OVERALL = "overall"
"""Label of what belongs to all of the classes together."""


@dataclass(frozen=True)
class Recalibrated:
    """A recalibration of the scores of one finding, or of classes, kept with the run.

    Attributes:
        label: The finding; "overall" of classes.
        fit: Fitted on validation rows alone.
        why: The measure of the validation rows that called for it, with its interval.
        classes: Those that exclude each other and are mended together; () of a finding.
    """

    label: str
    fit: Recalibration
    why: Measure
    classes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels whose scores it mends."""
        return self.classes or (self.label,)


def recalibrations(
    tests: Sequence[LabelRows],
    vals: Mapping[str, LabelRows],
    of_classes: Choices | None,
    ci: CI,
    *,
    exclusive: bool = False,
) -> tuple[list[Recalibrated], dict[str, str]]:
    """Return what the validation rows call for, and why a label has nothing.

    Args:
        tests: Test rows, of which it is asked alone whether they are probabilities too.
        vals: Label -> validation or out-of-fold rows, which decide and are fitted.
        of_classes: The same rows as choices among classes, in the order of `tests`.
        ci: Level of the intervals of the rule.
        exclusive: Whether the labels are classes that exclude each other.

    Returns:
        The recalibrations; and label -> reason, of labels that have none and are not known to need
        none. Without any validation row there are neither.

    >>> rows = Scores.of([1, 1, 0, 1, 0, 0] * 40, [0.99, 0.99, 0.99, 0.01, 0.01, 0.01] * 40)
    >>> val = LabelRows("x", "val", rows, rows.patients)
    >>> (found,), _ = recalibrations([val], {"x": val}, None, CI(resamples=9))
    >>> found.fit.method, round(found.fit.slope, 2), found.why.name
    ('temperature', 0.15, 'calibration_slope')
    >>> rows = Scores.of([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    >>> val = LabelRows("x", "val", rows, rows.patients)
    >>> _, reasons = recalibrations([val], {"x": val}, None, CI())
    >>> print(reasons["x"].partition(", so")[0])
    validation cannot say whether it needs one: the score separates the classes completely
    """
    if not vals:
        return [], {}
    if exclusive:
        found = {OVERALL: _of_classes(of_classes, [rows.label for rows in tests], ci)}
    else:
        found = {test.label: _of_finding(test, vals.get(test.label), ci) for test in tests}
    done = [one for one in found.values() if isinstance(one, Recalibrated)]
    return done, {label: why for label, why in found.items() if why and isinstance(why, str)}


def _of_finding(test: LabelRows, val: LabelRows | None, ci: CI) -> Recalibrated | str:
    """A recalibration, or why a finding has none: "" where it is known to need nothing."""
    unknown = "validation cannot say whether it needs one"
    if val is None or not val.scores.truth.size:
        return f"{unknown}: no certain case of it"
    if not (val.scores.are_probabilities and test.scores.are_probabilities):
        return "its scores are no probabilities"
    slope, large = _line(val.scores, ci)
    if slope.value is None:
        return f"{unknown}: {slope.reason}"
    needed = _called_for(slope, large)
    if not needed:
        return ""
    try:
        fit = fit_recalibration(val.scores)
        left = _line(replace(val.scores, score=fit(val.scores.score)), ci)[1]
        if outside((left.low, left.high), (0, 0)):
            fit = fit_recalibration(val.scores, method="platt")
    except PredictionsError as error:
        return f"validation calls for one, and none can be fitted: {error.found}"
    return Recalibrated(val.label, fit, replace(needed[0], label=val.label, split="val"))


def _of_classes(val: Choices | None, labels: Sequence[str], ci: CI) -> Recalibrated | str:
    """The common temperature of classes, or why they have none: "" where they need nothing."""
    unknown = "validation cannot say whether they need one"
    if val is None:
        return f"{unknown}: no case with all truths and scores"
    try:
        fit = fit_class_temperature(val.truth, val.scores, patients=val.patients)
    except PredictionsError as error:
        return f"{unknown}: {error.found}"
    method, reach = "Wald", normal_quantile(ci.level)
    patients = num_patients(val.patients)
    if is_clustered(val.patients):
        method, reach = "t, sandwich over patients", t_quantile(max(patients - 1, 1), ci.level)
    ends = fit.slope - reach * fit.slope_error, fit.slope + reach * fit.slope_error
    slope = ci.blank("calibration_slope", fit.n, patients=patients).ok(fit.slope, ends, method)
    if not outside(ends, SLOPES):
        return ""
    return Recalibrated(OVERALL, fit, replace(slope, label=OVERALL, split="val"), tuple(labels))


def _called_for(slope: Measure, large: Measure) -> list[Measure]:
    """The measures of validation that call for a recalibration."""
    bounds = (slope, SLOPES), (large, IN_THE_LARGE)
    return [measure for measure, b in bounds if outside((measure.low, measure.high), b)]


def _line(rows: Scores, ci: CI) -> tuple[Measure, Measure]:
    """Return the calibration slope and calibration in the large."""
    found = {measure.name: measure for measure in calibration_line(rows, ci=ci)}
    return found["calibration_slope"], found["calibration_in_the_large"]


def mended(done: Sequence[Recalibrated], table: pd.DataFrame) -> FloatArray:
    """Return the probability of every row; a finding that needs no mending keeps its score.

    Args:
        done: What was fitted on validation.
        table: With `case_id`, `label` and `y_score`, a row for each case and label.

    Returns:
        `(n,)`; NaN where a case lacks one of the classes that exclude each other.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"case_id": ["a", "a"], "label": ["x", "y"], "y_score": [0.9, 0.5]})
    >>> fit = Recalibration("temperature", 0.5, 0.0, "val", 9, 0.1)
    >>> mended([Recalibrated("x", fit, Measure("calibration_slope", 0.5))], rows)
    array([0.75, 0.5 ])
    """
    found = table["y_score"].to_numpy(dtype=float, copy=True)
    label, case = table["label"].to_numpy(), table["case_id"].to_numpy()
    for one in done:
        mine = np.isin(label, one.labels)
        if not one.classes:
            known = mine & np.isfinite(found)
            found[known] = one.fit(found[known])
            continue
        cases, row = np.unique(case[mine], return_inverse=True)
        column = [one.classes.index(name) for name in label[mine]]
        wide = np.full((cases.size, len(one.classes)), np.nan)
        wide[row, column] = found[mine]
        found[mine] = one.fit.jointly(wide)[row, column]
    return found


def after_recalibration(
    test: pd.DataFrame,
    done: Sequence[Recalibrated],
    prevalences: Mapping[str, float],
    ci: CI,
    acting: Range | None = None,
) -> tuple[list[Measure], list[Curve]]:
    """Return what recalibration does to the test rows: measures and curves, so named.

    Args:
        test: Test rows of the table.
        done: Fitted on validation.
        prevalences: Label -> of the clinic, for the decision curve.
        ci: Level and bootstrap of the intervals.
        acting: Range of its thresholds.
    """
    names = [name for one in done for name in one.labels]
    table = test[test["label"].isin(names)].reset_index(drop=True)
    found = label_rows(table.assign(y_score=mended(done, table)), [])[0]
    measures: list[Measure] = []
    curves: list[Curve] = []
    for name in names:
        rows = found["test", name]
        measures += [replace(m, label=name) for m in calibration_measures(rows.scores, ci)]
        curves += probability_curves(rows, prevalences.get(name), ci, acting)
    after = "after_recalibration"
    return (
        [replace(measure, name=f"{measure.name}_{after}") for measure in measures],
        [{**curve, "name": f"{curve['name']}_{after}"} for curve in curves],
    )
