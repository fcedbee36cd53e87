"""Limits of the result, found by fixed rules in the run's own records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medtl.report.language.numbers import number, percent, subset_text
from medtl.report.language.texts import plain
from medtl.report.page.finding import CALIBRATION, Finding, group_sizes, show
from medtl.report.svg.panels import is_small

FEW_WITH_FINDING = 50
"""With fewer tested cases that have the finding, the rates are called imprecise."""
WIDE_OF_100 = 15
"""An interval of sensitivity that spans more than this many of 100 is called wide."""
PREVALENCE_FACTOR = 1.5
"""A test-set prevalence this many times off the stated one is pointed out."""

GRAVITY = (
    *("threshold_test", "no_threshold", "missed", "undefined", "degenerate"),
    *("slope_low", "slope_high", "few", "few_cases", "miscalibrated", "wide", "prevalence_shift"),
)
"""Kinds of limits that a finding can have, the gravest first."""

VALUES = ("mae", "bias", "dice", "hd95", "assd")
"""Measures of a reading or a mask whose failure is pointed out, without their units."""

PERSON_FIELDS = (
    *("intended_use", "out_of_scope", "reference_standard", "sampling"),
    *("external", "endpoint", "funding", "ethics", "registration", "annotators", "dates"),
    *("protocol", "availability"),
)
"""Fields of `study` that no software can fill; empty ones are shown as not stated."""


def stated(study: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What only a person can state, by name, "" where it is missing; then other items stated."""
    fields = {name: str(study.get(name) or "") for name in PERSON_FIELDS}
    return [*fields.items(), *(study.get("reporting") or {}).items()]


def find_limits(
    findings: Sequence[Finding],
    *,
    prevalences: Mapping[str, float | None],
    quality: Mapping[str, Any] | None,
    synthetic: bool,
    openings: Mapping[str, int] | None = None,
) -> list[str]:
    """The limits in words, the gravest kind first; what many findings share is one line.

    Args:
        findings: Those of the report.
        prevalences: Label -> the stated one in [0, 1], or None.
        quality: data_quality.json.
        synthetic: True when the images are phantoms.
        openings: How many models the test set was opened for, and which this one is.
    """
    limits = [plain("limit.synthetic")] if synthetic else []
    if openings and openings["models"] > 1:
        limits.append(plain("limit.openings", **openings))
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in findings:
        mine = [_status_limits(finding)]
        if finding.classified:
            stated = prevalences[finding.label]
            mine += [_threshold_limits(finding), _size_limits(finding)]
            mine += [_prevalence_limits(finding, stated), _calibration_limits(finding)]
        else:
            mine.append(_value_limits(finding))
        for kind, about in (limit for limits_of in mine for limit in limits_of):
            found.setdefault(kind, []).append({"finding": finding.name, **about})
    for kind in sorted(found, key=GRAVITY.index):
        limits += _lines(kind, found[kind], len(findings))
    if any(finding.classified and prevalences[finding.label] is None for finding in findings):
        limits.append(plain("limit.no_prevalence"))
    limits.extend(_subgroup_limits(findings))
    refused = len((quality or {}).get("quarantined") or [])
    if refused:
        limits.append(plain("limit.quarantined", n=refused))
    return [*limits, plain("limit.external"), plain("limit.human")]


def _lines(kind: str, rows: Sequence[dict[str, Any]], total: int) -> list[str]:
    """A line for each finding; one for all of them where more than two share the kind."""
    if len(rows) <= 2:
        return [plain(f"limit.{kind}", **row) for row in rows]
    together: dict[str, object] = {}
    for name in rows[0]:
        values = list(dict.fromkeys(row[name] for row in rows))
        if len(values) > 1 and all(isinstance(value, int) for value in values):
            values = [f"{min(values)}–{max(values)}"]
        together[name] = ", ".join(map(str, values))
    if len(rows) == total:
        together["finding"] = plain("overview.all")
    return [plain(f"limit.{kind}", **together)]


_Limits = Iterator[tuple[str, dict[str, Any]]]
"""Kind of a limit, and what its text is filled with beside the finding."""


def _calibration_limits(finding: Finding) -> _Limits:
    """No measure of calibration at all."""
    if not any(name in finding.measures for name in CALIBRATION):
        yield "miscalibrated", {}


def _threshold_limits(finding: Finding) -> _Limits:
    """A threshold that is missing, or was chosen on the set it is reported on."""
    if finding.point is None:
        yield "no_threshold", {}
    elif finding.point.get("chosen_on") == "test":
        yield "threshold_test", {}


def _status_limits(finding: Finding) -> _Limits:
    """Undefined and degenerate measures among those that page one uses."""
    rows = (finding.named(base) for base in ("auroc", "sensitivity", "specificity", *VALUES))
    for shown in (show(row) for row in rows if row):
        if shown.status in ("undefined", "degenerate"):
            about = {"measure": shown.title, "reason": shown.reason}
            yield shown.status, about


def _value_limits(finding: Finding) -> _Limits:
    """Few cases, missed structures, and errors that grow with the value."""
    cases = number(finding.size["n"])
    if cases is not None and cases < FEW_WITH_FINDING:
        yield "few_cases", {"n": int(cases)}
    missed = number(finding.named("missed").get("value"))
    if missed:
        yield "missed", {"share": percent(missed)}
    slope = finding.named("error_slope_on_reference")
    low, high = number(slope.get("low")), number(slope.get("high"))
    if low is not None and high is not None and not low <= 0 <= high:
        yield "slope_low" if high < 0 else "slope_high", {}


def _size_limits(finding: Finding) -> _Limits:
    """Few cases with the finding, or a wide interval of sensitivity."""
    positives = number(finding.size["n_positive"])
    if positives is not None and positives < FEW_WITH_FINDING:
        about = {"unit": finding.unit, "counter": finding.counter}
        yield "few", {"n": int(positives), **about}
    low, high = (number(finding.named("sensitivity").get(side)) for side in ("low", "high"))
    if low is not None and high is not None and 100 * (high - low) > WIDE_OF_100:
        width = int(100 * (high - low) + 0.5)
        yield "wide", {"unit": finding.unit, "width": width}


def _prevalence_limits(finding: Finding, stated: float | None) -> _Limits:
    """A test set with many more, or many fewer, positives than the stated prevalence."""
    if stated is None or finding.counts is None:
        return
    total = sum(finding.counts.values())
    tested = (finding.counts["tp"] + finding.counts["fn"]) / total if total else 0.0
    if tested and max(tested / stated, stated / tested) > PREVALENCE_FACTOR:
        shares = {"test": percent(tested), "stated": percent(stated)}
        yield "prevalence_shift", shares


def _subgroup_limits(findings: Sequence[Finding]) -> Iterator[str]:
    """Subgroups that are too small, or none at all."""
    if not any(finding.subsets for finding in findings):
        yield plain("limit.no_subgroups")
        return
    small = dict.fromkeys(
        subset_text(subset)
        for finding in findings
        for subset, size in group_sizes(finding).items()
        if subset != "all" and is_small(size)
    )
    if small:
        yield plain("limit.subgroup_small", groups="; ".join(small))
