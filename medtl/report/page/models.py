"""Several models, human readers, and the same measures under other choices, as tables of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medtl.report.language.numbers import (
    describe,
    difference_text,
    finding_name,
    number,
    p_text,
    value_text,
)
from medtl.report.language.texts import plain
from medtl.report.page.finding import SIGNIFICANT, Shown, show
from medtl.report.svg.figures import roc_of_models

Row = Mapping[str, Any]


def comparison_view(metrics: Row) -> dict[str, Any] | None:
    """Several models: names, one table and picture per finding, the paired tests; None for one.

    Args:
        metrics: Content of metrics.json.
    """
    comparison = metrics.get("comparison")
    if not comparison:
        return None
    tables, figures = [], []
    labels = dict.fromkeys(str(row["measure"]["label"]) for row in comparison["rows"])
    for index, label in enumerate(labels):
        rows = [row for row in comparison["rows"] if row["measure"]["label"] == label]
        found = {(row["model"], row["measure"]["name"]): show(row["measure"]) for row in rows}
        names = list(dict.fromkeys(name for _, name in found))
        cells = [(m, [found.get((m, name)) for name in names]) for m in comparison["models"]]
        tables.append({"label": label, "names": names, "rows": cells})
        curves = [c for c in comparison.get("curves") or [] if c["label"] == label]
        if len(curves) > 1:
            plot = roc_of_models(curves)
            figures.append(plot.draw(f"models-{index}", finding=finding_name(label)))
    judged = [_noninferior(row, comparison["shown"]) for row in comparison["tests"]]
    first = [line for other in comparison["models"] for line in _against(comparison, other)]
    unequal = any(row.get("dropped") for row in comparison["tests"])
    about = {"shown": comparison["shown"], "n": len(comparison["models"])}
    lead = plain("models.lead_unequal" if unequal else "models.lead", **about)
    own = {"tables": tables, "figures": figures, "judged": judged, "first": first, "lead": lead}
    return {**comparison, **own}


def _against(comparison: Row, other: str) -> list[str]:
    """Page one about the shown model and another: what differs, and whether it is no worse."""
    shown = comparison["shown"]
    pairs = [row for row in comparison["tests"] if {row["first"], row["second"]} == {shown, other}]
    lines = []
    for row in pairs:
        p = number(row["p_holm"])
        if p is not None and p < SIGNIFICANT:
            difference = row["test"]["difference"]
            about = {"first": row["first"], "second": row["second"]}
            about |= {"finding": finding_name(row["label"]), "p": p_text(p)}
            about["measure"] = describe(difference["name"].removesuffix("_difference"))[0]
            lines.append(plain("models.differ", **about, difference=difference_text(difference)))
    tested = sum(number(row["p_holm"]) is not None for row in pairs)
    if pairs and not lines:
        key = "models.alike" if tested else "models.untested"
        lines.append(plain(key, first=shown, second=other, n=str(tested)))
    return lines + [line for row in pairs if (line := _noninferior(row, shown))]


def _noninferior(row: Row, shown: str) -> str:
    """Whether the shown model is no worse than the other of a pair, in words; "" unasked."""
    found = row.get("noninferior")
    if not found:
        return ""
    name = row["test"]["difference"]["name"].removesuffix("_difference")
    kind, other = describe(name)[1], row["second"] if row["first"] == shown else row["first"]
    margin, bound = number(found["margin"]), number(found.get("bound"))
    state = plain(f"rs.shown.{str(found['shown']).lower()}", margin=value_text(margin or 0, kind))
    line = plain("models.against", first=shown, second=other, state=state)
    if bound is None:
        return line
    worst = difference_text({"name": f"{name}_difference", "value": bound})
    return line + "; " + plain("models.bound", bound=worst)


def readers_of(metrics: Row, label: str) -> list[dict[str, Any]]:
    """Results of human readers on a finding: name, place on the ROC or None, both shares.

    Args:
        metrics: Content of metrics.json.
        label: The finding.
    """
    found = []
    for row in metrics.get("readers") or []:
        if row["label"] != label:
            continue
        se, sp = (number(row[name].get("value")) for name in ("sensitivity", "specificity"))
        place = None if se is None or sp is None else (1 - sp, se)
        shares = (show(row["sensitivity"]), show(row["specificity"]))
        found.append({"name": str(row["reader"]), "place": place, "shares": shares})
    return found


def variants_of(metrics: Row, label: str, usual: Sequence[Shown]) -> list[dict[str, Any]]:
    """The measures of a finding under other choices, the usual ones first; [] without any.

    Args:
        metrics: Content of metrics.json.
        label: The finding.
        usual: The measures as reported, in the order of the columns.
    """
    mine = [row for row in metrics.get("variants") or [] if row["measure"]["label"] == label]
    if not mine:
        return []
    rows: list[dict[str, Any]] = [{"key": "usual", "cells": list(usual), "n": None}]
    for variant in dict.fromkeys(row["variant"] for row in mine):
        measures = [row["measure"] for row in mine if row["variant"] == variant]
        by_name = {m["name"]: show(m) for m in measures}
        blank = replace(usual[0], value="–", interval="", status="ok", reason="")
        cells = [by_name.get(cell.name, blank) for cell in usual]
        size = max((number(m["n"]) or 0 for m in measures), default=0)
        rows.append({"key": variant, "cells": cells, "n": size})
    return rows
