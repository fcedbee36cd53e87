"""One finding of `metrics.json`, arranged for the page.

Nothing is estimated here: measures, counts and curves are looked up and put into words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from medtl.metrics.catalogue import entry
from medtl.report.language.numbers import (
    describe,
    finding_name,
    interval_text,
    number,
    reason_of,
    value_text,
)
from medtl.report.language.texts import plain

POOLED = ("macro", "micro", "overall")
"""Labels of measures over several findings together."""

AT_POINT = (
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "ppv_at_prevalence",
    "npv_at_prevalence",
)
"""Measures of the table beside the slider, in this order."""
CELLS = ("tp", "fp", "fn", "tn")
"""The four numbers of a 2x2 table."""
DISCRIMINATION = ("auroc", "average_precision")
CALIBRATION = ("brier", "ece", "ici", "calibration_slope", "calibration_in_the_large")
SIGNIFICANT = 0.05
"""Of p after Holm: models differ below it, gaps above it are left out of the short print."""
QUARTILES = ("p05", "p25", "p75")
"""Endings of measures over cases that only Dice and HD95 show on the page of a structure."""

Row = Mapping[str, Any]
Counts = dict[str, int]


@dataclass(frozen=True)
class Shown:
    """One measure as text.

    Attributes:
        name: Key in metrics.json. title: Name for a reader.
        value: "87%", or "" when undefined. interval: "79% to 92%" or "".
        status: ok, undefined or degenerate. reason: Why it is not ok.
    """

    name: str
    title: str
    value: str
    interval: str
    status: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """Everything the page shows about one label.

    Attributes:
        label: As in metrics.json. name: In words. ident: Unique in the page.
        unit: "patients" when each has one image, else "images" or "cases".
        counter: What follows a number of them in languages that count so, else "".
        classified: True when it is a yes-or-no finding (it has AUROC or sensitivity).
        measures: Of the test set, subset "all", by name.
        subsets: Measures of subgroups of the test set.
        point: Operating point or None. counts: Its 2x2 table on the test set, or None.
        table: The 2x2 table at every stored threshold, low to high.
        curves: Curves of the test set by name.
        transfer: Sensitivity and specificity outside the test set.
        per_1000: Natural frequencies with `prevalence` and its `source`, or None.
    """

    label: str
    name: str
    ident: str
    unit: str
    counter: str
    classified: bool
    measures: Mapping[str, Row]
    subsets: tuple[Row, ...]
    point: Row | None
    counts: Counts | None
    table: tuple[Mapping[str, float], ...]
    curves: Mapping[str, Row]
    transfer: tuple[Row, ...]
    per_1000: Row | None

    def named(self, base: str) -> Row:
        """A measure by its name without the unit ("mae" for `mae_months`); empty without it."""
        return next((row for name, row in self.measures.items() if base_of(name) == base), {})

    def shown(self, names: Iterable[str]) -> list[Shown]:
        """The measures of `names` that there are, as text."""
        return [self._shown(name) for name in names if name in self.measures]

    def _shown(self, name: str) -> Shown:
        """A measure as text; one that no interval fits, beside what chance would show."""
        shown = show(self.measures[name])
        chance = self.measures.get(f"{name}_if_calibrated")
        if not chance or shown.status != "degenerate" or number(chance.get("low")) is None:
            return shown
        usual = interval_text(chance, describe(name)[1])
        return replace(shown, reason=plain("by_chance", value=usual))

    def main(self) -> list[str]:
        """The names of the measures without the quartiles of lesser ones."""
        return [
            name
            for name in self.measures
            if not name.endswith(QUARTILES) or name.startswith(("dice", "hd95"))
        ]

    @property
    def size(self) -> Row:
        """The measure whose `n`, `n_positive` and `n_patients` describe the whole test set."""
        return largest(self.measures.values())

    @property
    def threshold(self) -> float | None:
        """The frozen threshold; `inf` flags nobody."""
        return number(self.point.get("threshold")) if self.point else None


def base_of(name: str) -> str:
    """The name of a measure without its unit; one that says more than the unit stays as it is."""
    of = entry(name)
    return of.base if of.unit and not (of.ending or of.size or of.at) else name


def show(row: Row) -> Shown:
    """A measure as text; undefined measures have no value and say why."""
    name, value = str(row.get("name", "")), number(row.get("value"))
    title, kind = describe(name)
    if value is None:
        return Shown(name, title, "", "", "undefined", reason_of(row))
    status = str(row.get("status", "ok"))
    reason = "" if status == "ok" else reason_of(row)
    return Shown(name, title, value_text(value, kind), interval_text(row, kind), status, reason)


_NO_MEASURE: Row = MappingProxyType(
    {
        **{"name": "", "value": None, "label": "", "split": "test", "subset": "all"},
        **dict.fromkeys(("n", "n_positive", "n_patients")),
        **{"method": "", "status": "ok", "reason": ""},
    }
)


def read_measures(metrics: Row) -> list[Row]:
    """The measures of metrics.json with every field present."""
    return [{**_NO_MEASURE, **row} for row in metrics.get("measures") or []]


def read_findings(metrics: Row) -> list[Finding]:
    """The findings of the test set, in their order.

    Args:
        metrics: Content of metrics.json, its measures from `read_measures`.
    """
    tested = [str(row["label"]) for row in metrics["measures"] if row["split"] == "test"]
    labels = [label for label in dict.fromkeys(tested) if label not in POOLED]
    return [_finding(metrics, label, f"f{index}") for index, label in enumerate(labels)]


def read_pooled(metrics: Row, label: str) -> dict[str, Shown]:
    """The measures over all findings of the test set, by name; `label` is one of `POOLED`."""
    return {
        str(row["name"]): show(row)
        for row in metrics["measures"]
        if (row["label"], row["split"], row["subset"]) == (label, "test", "all")
    }


def _finding(metrics: Row, label: str, ident: str) -> Finding:
    """One finding from the parts of metrics.json that carry its label."""

    def mine(part: str) -> list[Row]:
        return [row for row in metrics.get(part) or [] if str(row.get("label", "")) == label]

    def is_test(row: Row) -> bool:
        return bool(row.get("split", "test") == "test")

    def is_whole(row: Row) -> bool:
        return bool(row.get("subset", "all") == "all")

    measures = mine("measures")
    whole = {str(row["name"]): row for row in measures if is_test(row) and is_whole(row)}
    elsewhere = [row for row in measures if is_whole(row) and not is_test(row)]
    counts = [row for row in mine("counts") if is_test(row) and is_whole(row)]
    curves = {str(row["name"]): row for row in mine("curves") if is_test(row)}
    unit = unit_of(whole.values())
    return Finding(
        label=label,
        name=finding_name(label),
        ident=ident,
        unit=plain(f"unit.{unit}"),
        counter=plain(f"counter.{unit}"),
        classified="auroc" in whole or "sensitivity" in whole,
        measures=whole,
        subsets=tuple(row for row in measures if is_test(row) and not is_whole(row)),
        point=next(iter(mine("operating_points")), None),
        counts={n: int(number(counts[0].get(n)) or 0) for n in CELLS} if counts else None,
        table=_threshold_table(curves.get("threshold_table", {})),
        curves=curves,
        transfer=tuple(row for row in elsewhere if row.get("name") in AT_POINT[:2]),
        per_1000=next(iter(mine("per_1000")), None),
    )


def largest(measures: Iterable[Row]) -> Row:
    """The measure over the most rows: its `n` is the size of the set (a share counts a part)."""
    return max(measures, key=lambda row: number(row["n"]) or 0, default=_NO_MEASURE)


def group_sizes(finding: Finding) -> dict[str, Row]:
    """Subset -> the measure over all of its rows, "all" included."""
    sizes = {"all": finding.size}
    for subset in dict.fromkeys(str(row["subset"]) for row in finding.subsets):
        sizes[subset] = largest(row for row in finding.subsets if row["subset"] == subset)
    return sizes


def unit_of(measures: Iterable[Row]) -> str:
    """The unit that is counted: patients when every one has one image, else images or cases."""
    row = largest(measures)
    n, patients = number(row["n"]), number(row["n_patients"])
    if not n or not patients:
        return "cases"
    return "patients" if n == patients else "images"


def _threshold_table(curve: Row) -> tuple[Mapping[str, float], ...]:
    """The stored 2x2 tables, by threshold from low to high; incomplete rows are dropped."""
    names = ("threshold", *CELLS)
    rows = []
    for cells in zip(*(curve.get(name) or [] for name in names), strict=False):
        values = [value for cell in cells if (value := number(cell)) is not None]
        if len(values) == len(names) and min(values) > -math.inf:
            rows.append(dict(zip(names, values, strict=True)))
    return tuple(sorted(rows, key=lambda row: row["threshold"]))
