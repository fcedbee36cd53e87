"""Whether a score may be read as a probability: the answer in words, mended or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medtl.metrics.temperature import IN_THE_LARGE, SLOPES, outside
from medtl.report.language.numbers import interval_text, number, reason_of, value_text
from medtl.report.language.texts import plain
from medtl.report.page.finding import Finding

Row = Mapping[str, Any]

LINE = {"calibration_slope": SLOPES, "calibration_in_the_large": IN_THE_LARGE}
"""Measures that answer, and the values between which a score may be read as it stands."""

AFTER = "_after_recalibration"


def answers(finding: Finding, metrics: Row) -> dict[str, str]:
    """The answer as a word for page one (`short`) and as sentences (`long`).

    Args:
        finding: A finding of the report.
        metrics: Content of metrics.json.
    """
    state, how = _state(finding, "")
    row = finding.measures.get("calibration_slope")
    reason = reason_of(row) if row else plain("cal.no_probability")
    said = [plain(f"cal.{state}", **_numbers(finding, ""), reason=reason)]
    said += [plain(f"cal.how.{way}") for way in how]
    method = _method(metrics, finding.label)
    short = plain(f"cal.short.{state}")
    if method:
        then, _ = _state(finding, AFTER)
        numbers = _numbers(finding, AFTER)
        said += [plain("cal.mended", method=method), plain(f"cal.then.{then}", **numbers)]
        short = plain("cal.short.mended", before=short, after=plain(f"cal.short.{then}"))
    return {"short": short, "long": " ".join(said)}


def _method(metrics: Row, label: str) -> str:
    """What mends the scores of a finding, in words; "" for nothing."""
    for done in metrics.get("recalibrations") or []:
        if label in (done.get("classes") or [done["label"]]):
            return method_name(done["fit"]["method"])
    return ""


def method_name(method: str) -> str:
    """A way of scaling, in words."""
    return plain(f"cal.method.{method}")


def _state(finding: Finding, ending: str) -> tuple[str, list[str]]:
    """One of yes, no, open and unknown, and in which ways it is wrong."""
    how, inside = [], True
    for name, (least, most) in LINE.items():
        row = finding.measures.get(name + ending, {})
        low, high = number(row.get("low")), number(row.get("high"))
        if low is None or high is None:
            return "unknown", []
        inside = inside and least <= low and high <= most
        if outside((low, high), (least, most)):
            how.append(f"{name}.{'low' if high < least else 'high'}")
    return ("no" if how else "yes" if inside else "open"), how


def _numbers(finding: Finding, ending: str) -> dict[str, str]:
    """The two measures with their intervals, as the sentences name them."""
    rows = [finding.measures.get(name + ending) for name in LINE]
    said = [with_interval(row) if row else "" for row in rows]
    return dict(zip(("slope", "large"), said, strict=True))


def with_interval(row: Row) -> str:
    """A plain number and its interval; "not estimable" for none."""
    value, interval = number(row.get("value")), interval_text(row, "number")
    if value is None:
        return plain("undefined.short")
    return value_text(value, "number") + (f" ({interval})" if interval else "")
