"""What was aimed at when the threshold was chosen, and what the test rows then showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medtl.types import Measure, OperatingPoint


@dataclass(frozen=True)
class Promise:
    """A sensitivity or specificity that was aimed at, and what became of it.

    Attributes:
        label: The finding.
        measure: "sensitivity" or "specificity".
        target: The share aimed at.
        assurance: Certainty with which new patients reach it; None where nothing is promised.
        n_patients: Patients of that class, among those the threshold was chosen from.
        reason: Why nothing is promised though it was asked for.
        value, low, high, n: The share of the test rows with its interval, None where there is none.
        met: Whether that share reaches the target; None where it is unknown.
        refuted: Whether even the upper bound of its interval lies below the target.
    """

    label: str
    measure: str
    target: float
    assurance: float | None
    n_patients: int
    reason: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    met: bool | None
    refuted: bool


def promises(points: Sequence[OperatingPoint], measures: Sequence[Measure]) -> list[Promise]:
    """Return what became of each share that an operating point aims at.

    Args:
        points: Frozen ones.
        measures: Of the test rows.

    >>> point = OperatingPoint("x", 0.4, "sensitivity >= 0.90", "val", 80, 40, 0.9, 40, 0.9)
    >>> shown = Measure("sensitivity", 0.74, label="x", low=0.6, high=0.85, n=50)
    >>> [(found.met, found.refuted) for found in promises([point], [shown])]
    [(False, True)]
    """
    found = []
    for point in points:
        name = point.rule.partition(" ")[0]
        shown = [
            m for m in measures
            if (m.name, m.label, m.split, m.subset) == (name, point.label, "test", "all")
        ]  # fmt: skip
        if point.target is None or not shown:
            continue
        of, target = shown[0], point.target
        found.append(
            Promise(
                point.label,
                name,
                target,
                point.assurance,
                point.n_patients,
                point.reason,
                of.value,
                of.low,
                of.high,
                of.n,
                met=None if of.value is None else of.value >= target,
                refuted=of.high is not None and of.high < target,
            )
        )
    return found
