"""A run's model where it was not made: source beside target, what shifted, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medtl.errors import PredictionsError
from medtl.evaluation.classification import LabelRows
from medtl.metrics.catalogue import entry
from medtl.metrics.operating_point import Rule
from medtl.metrics.scores import CI, CI95
from medtl.metrics.transfer.shift import difference_between, standardised_difference
from medtl.metrics.transfer.updating import Advice, Step, advise_update, updating_ladder
from medtl.types import Measure, OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

COMPARED = ("prevalence", "auroc", "sensitivity", "specificity", "calibration_slope",
            "calibration_intercept", "calibration_in_the_large", "brier",
            "calibration_slope_after_recalibration",
            "calibration_in_the_large_after_recalibration")  # fmt: skip
"""Measures of a classifier that stand beside each other; of other studies, the headlines."""

FEW = 10
"""Values of a column up to which it is read as groups and not as numbers."""


@dataclass(frozen=True)
class Beside:
    """One measure of a finding where the model was made, and where it is used."""

    label: str
    source: Measure
    target: Measure
    difference: Measure


@dataclass(frozen=True)
class Characteristic:
    """How the patients differ in one respect.

    Attributes:
        column: Of the table. group: The share of it that is meant; "" for the mean.
        source, target: Mean or share, one value per patient.
        difference: Standardised, target minus source.
    """

    column: str
    group: str
    source: float
    target: float
    difference: Measure


@dataclass(frozen=True)
class Ladder:
    """What of a finding's model must be changed here.

    Attributes:
        label: The finding.
        steps: Of the updating ladder, cross-fitted by patient.
        advice: The smallest step that the rows do not contradict; None where it cannot be said.
        reason: Why there is no ladder, or no advice.
    """

    label: str
    steps: tuple[Step, ...] = ()
    advice: Advice | None = None
    reason: str = ""


@dataclass(frozen=True)
class External:
    """An external validation.

    Attributes:
        source: Name of the run.
        beside: Measures of source and target.
        characteristics: Of the patients on both sides.
        ladders: One per finding.
        notes: What was taken, left out or could not be done, in words.
    """

    source: str
    beside: tuple[Beside, ...] = ()
    characteristics: tuple[Characteristic, ...] = ()
    ladders: tuple[Ladder, ...] = ()
    notes: tuple[str, ...] = ()


def measures_beside(source: Sequence[Measure], target: Sequence[Measure]) -> list[Beside]:
    """Return the measures that both evaluations have on all their test rows, and the difference.

    Args:
        source: Measures of the run.
        target: Measures of the external rows.

    >>> old, new = Measure("auroc", 0.9), Measure("auroc", 0.7)
    >>> round(measures_beside([old], [new])[0].difference.value, 3)
    -0.2
    """
    there = {(m.label, m.name): m for m in source if (m.split, m.subset) == ("test", "all")}
    found = []
    for measure in target:
        known = there.get((measure.label, measure.name))
        shown = measure.name in COMPARED or entry(measure.name).headline
        if known is None or not shown or (measure.split, measure.subset) != ("test", "all"):
            continue
        difference = replace(difference_between(known, measure), label=measure.label)
        found.append(Beside(measure.label, known, measure, difference))
    order = {name: at for at, name in enumerate(COMPARED)}
    return sorted(found, key=lambda row: order.get(row.target.name, len(order)))


def characteristics(
    source: pd.DataFrame, target: pd.DataFrame, columns: Sequence[str], *, ci: CI = CI95
) -> list[Characteristic]:
    """Return the standardised differences of what both tables know of their patients.

    Args:
        source: Rows with `patient_id` and the columns, as text.
        target: The same of the other place.
        columns: As far as both have them.
        ci: Level of the intervals.

    >>> import pandas as pd
    >>> old = pd.DataFrame({"patient_id": list("abcd"), "sex": ["F", "F", "M", "M"]})
    >>> new = pd.DataFrame({"patient_id": list("efgh"), "sex": ["F", "F", "F", "M"]})
    >>> [(c.group, c.source, c.target) for c in characteristics(old, new, ["sex"])]
    [('F', 0.5, 0.75), ('M', 0.5, 0.25)]
    """
    found = []
    for column in columns:
        if column not in source or column not in target:
            continue
        parts = [_per_patient(table, column) for table in (source, target)]
        if not all(len(part) for part in parts):
            continue
        numbers = [_numbers(part) for part in parts]
        pairs: dict[str, Any] = {"": numbers}
        if any(part is None for part in numbers):
            values = sorted({*parts[0], *parts[1]})
            if len(values) > FEW:
                continue
            pairs = {value: [(part == value).to_numpy(float) for part in parts] for value in values}
        for group, (old, new) in pairs.items():
            difference = standardised_difference(old, new, ci=ci)
            found.append(
                Characteristic(column, group, float(old.mean()), float(new.mean()), difference)
            )
    return found


def _per_patient(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Return the first known value of every patient."""
    texts = table[column].astype(str).str.strip()
    known = texts.where(~texts.str.lower().isin(("", "nan", "unknown", "none", "<na>"))).dropna()
    return known.groupby(table.loc[known.index, "patient_id"]).first()


def _numbers(values: pd.Series[Any]) -> Any:
    """Return the values as numbers, or None where one is none or they are few kinds of text."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    return None if numbers.isna().any() else numbers.to_numpy(float)


def ladder_of(
    rows: LabelRows,
    point: OperatingPoint | None,
    rule: Rule | None,
    prevalence: float | None,
    ci: CI = CI95,
) -> Ladder:
    """Return the updating ladder of a finding and what a closed test advises.

    Args:
        rows: Of the finding in the target.
        point: Its frozen operating point, if the run has one.
        rule: That the run chose it by.
        prevalence: Of the finding in the run's test set.
        ci: Level of the intervals.
    """
    try:
        steps = updating_ladder(
            rows.scores,
            threshold=None if point is None else point.threshold,
            rule=rule,
            prevalence=prevalence if prevalence and 0 < prevalence < 1 else None,
            ci=ci,
        )
    except PredictionsError as error:
        return Ladder(rows.label, reason=error.found)
    try:
        return Ladder(rows.label, tuple(steps), advise_update(rows.scores))
    except PredictionsError as error:
        return Ladder(rows.label, tuple(steps), reason=error.found)
