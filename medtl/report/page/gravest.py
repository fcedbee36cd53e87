"""The `concerns` of metrics.json in words: what stands first on page one, the gravest on top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medtl.metrics.temperature import SLOPES, outside
from medtl.report.language.numbers import (
    describe,
    difference_text,
    finding_name,
    interval_text,
    number,
    of_100,
    p_text,
    percent,
    subset_words,
    value_text,
)
from medtl.report.language.texts import plain, translated
from medtl.report.page.probability import method_name, with_interval

Row = Mapping[str, Any]

MANY = 2
"""More findings than this with one concern share a line."""

GAPS = {"sensitivity": "missed", "specificity": "false"}
"""Measures whose gap is said by its complement: who is missed, who is wrongly flagged."""


def concern_lines(metrics: Row) -> list[str]:
    """One line for each concern, or for each kind of it that many findings share.

    Args:
        metrics: Content of metrics.json; files of earlier versions hold no concerns.

    >>> row = {"kind": "scores_reversed", "label": "mass", "value": 0.145, "low": 0.1, "high": 0.2}
    >>> concern_lines({"concerns": [row]})[0][:46]
    'mass: the scores may run the other way. AUROC '
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for row in metrics.get("concerns") or []:
        found.setdefault((row["kind"], row.get("measure") or ""), []).append(row)
    lines = []
    for (kind, _), rows in found.items():
        if kind == "gap" or len(rows) <= MANY:
            lines += [_line(row) for row in rows]
        else:
            lines.append(_together(kind, rows))
    return lines


def _line(row: Row) -> str:
    """One concern as a sentence."""
    kind, facts = row["kind"], row.get("facts") or {}
    about = {"finding": finding_name(row["label"])}
    if kind == "gap":
        return _gap(row, facts, about)
    if kind == "missing_scores":
        return _missing(facts, about)
    about["measure"] = describe(row.get("measure") or "auroc")[0]
    about["value"] = _with_interval(row)
    if kind in ("target_missed", "nothing_promised"):
        about["target"] = percent(facts["target"])
    if kind == "nothing_promised":
        return plain("concern.nothing_promised", **about, reason=translated(facts["reason"]))
    low, high = number(row.get("low")), number(row.get("high"))
    if kind == "miscalibrated" and (low or 0) <= 1 <= (high or 0) and facts.get("harmful"):
        ends = [percent(end) for end in facts["harmful"]]
        return plain("concern.useless", finding=about["finding"], low=ends[0], high=ends[1])
    line = plain(f"concern.{kind}", **about)
    if facts.get("refuted"):
        line += " " + plain("concern.refuted")
    if facts.get("harmful"):
        ends = [percent(end) for end in facts["harmful"]]
        line += " " + plain("concern.harmful", low=ends[0], high=ends[1])
    if kind == "miscalibrated":
        line += " " + " ".join(_mended(facts))
    return line


def _mended(facts: Row) -> Iterator[str]:
    """What would mend the scores, and what the test set then showed."""
    after = facts.get("after") or {}
    if facts.get("mended_by"):
        method = method_name(facts["mended_by"]).capitalize()
        short = outside((number(after.get("low")), number(after.get("high"))), SLOPES)
        yield plain("concern.mended_in_part" if short else "concern.mended", method=method)
        if number(after.get("value")) is not None:
            yield plain("concern.after", value=with_interval(after))
        if not short:
            return
    yield plain("concern.not_mended")


def _with_interval(row: Row) -> str:
    """The value of the measure, and its interval."""
    kind = describe(row.get("measure") or "auroc")[1]
    value, interval = number(row.get("value")), interval_text(row, kind)
    if value is None:
        return plain("undefined.short")
    return value_text(value, kind) + (f" ({interval})" if interval else "")


def _gap(row: Row, facts: Row, about: dict[str, str]) -> str:
    """A gap between two groups: the worse one first where misses or false alarms differ."""
    column, group = subset_words(row["subset"])
    other = subset_words(f"{row['subset'].partition('=')[0]}={facts['reference']}")[1]
    about |= {"column": column, "p": p_text(row.get("p"))}
    mine, theirs = (number(facts.get(f"{of}_value")) for of in ("group", "reference"))
    shown = GAPS.get(row["measure"])
    if shown and mine is not None and theirs is not None:
        (low, worse), (high, better) = sorted([(mine, group), (theirs, other)])
        about |= {"group": worse, "n": of_100(1 - low), "other": better, "m": of_100(1 - high)}
        return plain(f"concern.gap_{shown}", **about)
    title, kind = describe(row["measure"])
    values = [
        plain("undefined.short") if v is None else value_text(v, kind) for v in (mine, theirs)
    ]
    about |= {"measure": title, "group": group, "other": other}
    difference = difference_text({**row, "name": row["measure"]})
    return plain("concern.gap", **about, n=values[0], m=values[1], difference=difference)


def _missing(facts: Row, about: dict[str, str]) -> str:
    """How many scores are missing, and the worst and the best that this can mean."""
    counts = ("positives", "positives_missing", "negatives", "negatives_missing")
    line = plain("concern.missing_scores", **about, **{name: facts[name] for name in counts})
    for measure, worst in (facts.get("worst") or {}).items():
        if worst == facts["best"][measure]:
            continue
        title, kind = describe(measure)
        ends = {"worst": value_text(worst, kind), "best": value_text(facts["best"][measure], kind)}
        line += " " + plain("concern.bounds", measure=title, **ends)
    return line


def _together(kind: str, rows: Sequence[Row]) -> str:
    """One line for a concern that many findings share."""
    each = [f"{finding_name(row['label'])} {_short(kind, row)}".strip() for row in rows]
    measures = dict.fromkeys(describe(row.get("measure") or "auroc")[0] for row in rows)
    goals = dict.fromkeys(
        percent(of) for row in rows if (of := (row.get("facts") or {}).get("target"))
    )
    about = {"measure": " / ".join(measures), "target": " / ".join(goals)}
    return plain(f"concern.many.{kind}", n=len(rows), findings="; ".join(each), **about)


def _short(kind: str, row: Row) -> str:
    """What is said of one finding among many: its value, or how many scores it lacks."""
    facts = row.get("facts") or {}
    if kind == "missing_scores":
        missing = facts["positives_missing"] + facts["negatives_missing"]
        return f"{missing}/{facts['positives'] + facts['negatives']}"
    if kind == "nothing_promised":
        return ""
    refuted = f", {plain('concern.refuted_short')}" if facts.get("refuted") else ""
    return _with_interval(row) + refuted
