"""The sentences of page one: measured shares as "of 100", 1000 patients, the threshold's origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from medtl.report.language.numbers import (
    Kind,
    bare_text,
    count_text,
    describe,
    interval_text,
    level_text,
    number,
    of_100,
    percent,
    reason_of,
    value_text,
)
from medtl.report.language.texts import fill, plain, translated
from medtl.report.page.finding import AT_POINT, Finding, Row, show

VALUE_SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "mae": "summary.mae",
        "within_12_months": "summary.within_12",
        "dice": "summary.dice",
        "hd95": "summary.hd95",
    }
)
"""Measures of a measurement or a segmentation that page one says as a sentence."""

VALUE_COLUMNS = (
    *("mae", "bias", "within_12_months", "dice", "dice_median"),
    *("hd95_mm_median", "assd_mm_median", "nsd_2_mm", "missed"),
)
"""Columns of the table of several structures."""


def headline(finding: Finding) -> list[dict[str, Markup]]:
    """The sentences of page one about a finding: each a big `sentence` and a small `detail`."""
    if not finding.classified:
        return _value_headline(finding)
    if finding.point is None:
        return [_said(fill("summary.no_point", finding=finding.name))]
    sentences = []
    if not threshold_origin(finding)[1]:
        sentences.append(_said(fill("summary.optimistic")))
    if finding.threshold == float("inf"):
        sentences.append(_said(fill("summary.flag_nobody", finding=finding.name)))
    found, false = finding.named("sensitivity"), complement(finding.named("specificity"))
    sentences.append(_share_sentence(finding, found, "found", _counted(finding, "tp", "fn")))
    sentences.append(_share_sentence(finding, false, "false", _counted(finding, "fp", "tn")))
    if right := finding.named("ppv_at_prevalence"):
        sentences.append(_share_sentence(finding, right, "right", fill("summary.at_prevalence")))
    return sentences


def _said(sentence: Markup, detail: Markup | None = None) -> dict[str, Markup]:
    """A sentence of page one with its small print."""
    return {"sentence": sentence, "detail": detail or Markup("")}


def _share_sentence(finding: Finding, row: Row, which: str, basis: Markup) -> dict[str, Markup]:
    """A measured share as "of 100": those "found", wrongly flagged ("false"), or "right" flags."""
    about = {"finding": finding.name, "unit": finding.unit, "counter": finding.counter}
    share = number(row.get("value"))
    if share is None:
        return _said(fill(f"summary.no_{which}", **about, reason=reason_of(row)))
    low = number(row.get("low"))
    if which != "right":
        return _said(fill(f"summary.{which}", **about, n=of_100(share)), _detail(row, basis))
    if low is None:
        return _said(fill("summary.right_point", n=of_100(share)), _detail(row, basis))
    # "100 of 100 are right" is what no interval carries: the lower end is said.
    estimate = fill("summary.estimate", n=of_100(share))
    detail = Markup("; ").join([estimate, _detail(row, basis)])
    return _said(fill("summary.right", low=of_100(low)), detail)


def _counted(finding: Finding, part: str, rest: str) -> Markup:
    """The raw counts behind a share ("87 of 92 in the test set"), or nothing."""
    if finding.counts is None:
        return Markup("")
    total = finding.counts[part] + finding.counts[rest]
    return fill("summary.counted", count=f"{finding.counts[part]:,}", total=f"{total:,}")


def _detail(row: Row, basis: Markup) -> Markup:
    """The small print under a sentence: interval, what it rests on, a warning if degenerate."""
    parts = [basis]
    low, high = number(row.get("low")), number(row.get("high"))
    if low is not None and high is not None:
        level = level_text(row)
        interval = fill("summary.detail", level=level, low=of_100(low), high=of_100(high))
        parts.insert(0, interval)
    if row["status"] == "degenerate":
        parts.append(fill("degenerate", reason=reason_of(row)))
    return Markup("; ").join(part for part in parts if part)


def _value_headline(finding: Finding) -> list[dict[str, Markup]]:
    """Page one of a measurement or a segmentation: mean error, share close enough, mean overlap."""
    sentences = []
    for base, key in VALUE_SENTENCES.items():
        row = finding.named(base)
        if not row:
            continue
        shown = show(row)
        if not shown.value:
            sentences.append(_said(fill("not_estimable", reason=shown.reason)))
            continue
        is_share = describe(shown.name)[1] == "share"  # "4.1 %" may be a value in percent
        value = of_100(float(row["value"])) if is_share else shown.value
        parts = [_tested(row, finding)]
        if shown.interval:
            level = level_text(row)
            parts.insert(0, fill("summary.interval", level=level, interval=shown.interval))
        sentences.append(_said(fill(key, n=value), Markup("; ").join(parts)))
    return [*sentences, *_agreement_sentence(finding)]


def _tested(row: Row, finding: Finding) -> Markup:
    """How many cases a measure rests on, of how many."""
    n, total = count_text(row["n"]), count_text(finding.size["n"])
    return (
        fill("summary.tested", total=n)
        if n == total
        else fill("summary.tested_of", n=n, total=total)
    )


def _agreement_sentence(finding: Finding) -> list[dict[str, Markup]]:
    """The distance of a new estimate from the reference, by the limits of agreement."""
    rows = [finding.named(f"loa_{side}") for side in ("low", "high")]
    low, high = (number(row.get("value")) for row in rows)
    if low is None or high is None:
        return []
    unit = describe(str(rows[0]["name"]))[1]
    signed = low > 0 or high < 0
    known = [interval_text(row, unit) for row in rows]
    way = [fill("summary.loa_ends", low=known[0], high=known[1])] if all(known) else []
    parts = [fill("summary.limits"), *way, _bias(finding.named("bias"), unit)]
    key = "summary.loa_one_side" if signed else "summary.loa"
    ends = {"low": bare_text(low if signed else -low, unit), "high": value_text(high, unit)}
    return [_said(fill(key, **ends), Markup("; ").join(parts))]


def _bias(row: Row, unit: Kind) -> Markup:
    """The mean error in words: its direction only where its interval has one."""
    bias, low, high = (number(row.get(name)) or 0.0 for name in ("value", "low", "high"))
    interval = interval_text(row, unit)
    if interval and low <= 0 <= high:
        return fill("summary.bias_unclear", n=value_text(bias, unit), interval=interval)
    words = ("high", "low") if unit == "months" else ("above", "below")
    shown = f"{abs(bias):.1f}" if unit == "months" else value_text(abs(bias), unit)
    said = fill(f"summary.bias_{words[bias <= 0]}", n=shown)
    return fill("summary.with_interval", said=said, interval=interval) if interval else said


def values_overview(findings: Sequence[Finding]) -> dict[str, Any] | None:
    """Rows and columns of the table of several structures or readings; None for fewer than two."""
    mine = [finding for finding in findings if not finding.classified]
    if len(mine) < 2:
        return None
    names = [n for n in VALUE_COLUMNS if any(finding.named(n) for finding in mine)]
    return {"names": names, "findings": mine}


def confusion_view(metrics: Row, findings: Sequence[Finding]) -> dict[str, Any] | None:
    """The confusion table with, for each class, the share that was called rightly."""
    confusion = metrics.get("confusion")
    if not confusion:
        return None
    measured = {finding.label: finding.named("class_sensitivity") for finding in findings}
    right = {label: show(row) for label, row in measured.items() if row}
    return {**confusion, "right": right}


def overview_cell(finding: Finding, which: str) -> dict[str, str]:
    """Cell of the table of findings: "found" of 100 with it, or "false" of 100 without it."""
    row = finding.named("sensitivity" if which == "found" else "specificity")
    cell = {"value": "", "interval": "", "reason": ""}
    if not row or finding.point is None:
        return {**cell, "reason": plain("overview.no_point")}
    row = complement(row) if which == "false" else row
    value, low, high = (number(row.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return {**cell, "reason": plain("not_estimable", reason=reason_of(row))}
    if low is not None and high is not None:
        cell["interval"] = plain("interval", low=of_100(low), high=of_100(high))
    return {**cell, "value": of_100(value)}


def prevalence_cell(finding: Finding, stated: float | None) -> dict[str, str]:
    """Cell of the table of findings: the prevalence, and whether it is stated or the test set's."""
    source = "test set" if stated is None else "stated"
    share = number(finding.named("prevalence").get("value")) if stated is None else stated
    if share is None and finding.size["n_positive"] is not None and finding.size["n"]:
        share = finding.size["n_positive"] / finding.size["n"]
    value = "–" if share is None else percent(share)
    return {"value": value, "source": plain(f"overview.{source}")}


def stated_prevalence(study: Row, label: str) -> float | None:
    """The prevalence that the study states of a finding, in (0, 1), or None."""
    stated = study.get("prevalence")
    share = number(stated.get(label) if isinstance(stated, Mapping) else stated)
    return share if share is not None and 0 < share < 1 else None


def complement(row: Row) -> Row:
    """A share and its interval turned around: specificity to wrongly flagged."""
    turned = {"value": row.get("value"), "low": row.get("high"), "high": row.get("low")}
    known = {name: number(value) for name, value in turned.items()}
    return {**row, **{n: None if value is None else 1 - value for n, value in known.items()}}


def per_thousand(finding: Finding, prevalence: float | None) -> dict[str, Any] | None:
    """1000 patients at a prevalence: `tp`, `fn`, `fp`, `tn`, the `prevalence` and its `source`.

    They are those of metrics.json where it has them; else sensitivity and specificity are applied
    to whole patients, so that both rows keep their sum.
    """
    if finding.per_1000 is not None:
        return dict(finding.per_1000)
    shares = [number(finding.measures.get(n, {}).get("value")) for n in AT_POINT[:2]]
    if prevalence is None or finding.point is None or None in shares:
        return None
    sensitivity, specificity = (share or 0.0 for share in shares)
    with_it = round(1000 * prevalence)
    tp, tn = round(with_it * sensitivity), round((1000 - with_it) * specificity)
    counts = {"tp": tp, "fn": with_it - tp, "fp": 1000 - with_it - tn, "tn": tn}
    return {**counts, "prevalence": prevalence, "source": "stated"}


def threshold_origin(finding: Finding) -> tuple[str, bool]:
    """The origin of the threshold in words, and whether it is sound."""
    assert finding.point is not None
    chosen_on = str(finding.point.get("chosen_on", ""))
    on_val = "threshold.val" if finding.point.get("source") == "run" else "threshold.table"
    known = {"val": on_val, "given": "threshold.given", "test": "threshold.test"}
    if chosen_on in known:
        return plain(known[chosen_on]), chosen_on != "test"
    return plain("threshold.other", split=chosen_on or "?"), True


def threshold_facts(finding: Finding) -> list[str]:
    """The rule and the size of the set that fixed the threshold."""
    assert finding.point is not None
    facts = []
    if finding.point.get("rule"):
        facts.append(plain("threshold.rule", rule=translated(finding.point["rule"])))
    if number(finding.point.get("n")):
        numbers = {k: count_text(finding.point.get(k)) for k in ("n", "n_positive")}
        facts.append(plain("threshold.from", **numbers))
    return facts
