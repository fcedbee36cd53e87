"""Several models, human readers, and the same measures under other choices, as tables of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medtl.report.language.numbers import (
    count_text,
    describe,
    difference_text,
    finding_name,
    number,
    p_text,
)
from medtl.report.language.texts import plain, translated
from medtl.report.page.finding import Shown, show
from medtl.report.svg.figures import roc_of_models
from medtl.report.svg.plot import Figure

Row = Mapping[str, Any]


def comparison_view(metrics: Row) -> dict[str, Any] | None:
    """What the page shows of several models: names, one table per finding, the paired tests.

    Args:
        metrics: Content of metrics.json.
    """
    comparison = metrics.get("comparison")
    if not comparison:
        return None
    rows = comparison["rows"]
    labels = list(dict.fromkeys(str(row["measure"]["label"]) for row in rows))
    return {
        "models": list(comparison["models"]),
        "shown": comparison["shown"],
        "tables": [_table(comparison, label) for label in labels],
        "tests": [_test(test) for test in comparison["tests"]],
        "figures": [
            f for i, name in enumerate(labels) for f in _roc_of_models(comparison, name, i)
        ],
    }


def _table(comparison: Row, label: str) -> dict[str, Any]:
    """The measures of every model for one finding."""
    rows = [row for row in comparison["rows"] if row["measure"]["label"] == label]
    names = list(dict.fromkeys(row["measure"]["name"] for row in rows))
    found = {(row["model"], row["measure"]["name"]): show(row["measure"]) for row in rows}
    return {
        "finding": finding_name(label),
        "head": [describe(name)[0] for name in names],
        "rows": [
            (model, [found.get((model, name)) for name in names]) for model in comparison["models"]
        ],
    }


def _test(test: Row) -> dict[str, str]:
    """One paired difference as text."""
    difference = test["test"]["difference"]
    return {
        "finding": finding_name(test["label"]),
        "pair": plain("models.minus", first=test["first"], second=test["second"]),
        "measure": describe(str(difference["name"]).removesuffix("_difference"))[0],
        "difference": difference_text(difference),
        "p": p_text(test["test"]["p"]),
        "p_holm": p_text(test["p_holm"]),
        "n": count_text(difference["n"]),
        "method": translated(test["test"]["method"]),
    }


def _roc_of_models(comparison: Row, label: str, index: int) -> list[Figure]:
    """The ROC curves of all models for one finding in one picture."""
    curves = [c for c in comparison.get("curves") or [] if c["label"] == label]
    if len(curves) < 2:
        return []
    return [roc_of_models(curves).draw(f"models-{index}", finding=finding_name(label))]


def readers_of(metrics: Row, label: str) -> list[dict[str, Any]]:
    """How human readers did on a finding: name, place on the ROC or None, both shares.

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
    rows = [{"name": plain("variant.usual"), "cells": list(usual), "n": ""}]
    for variant in dict.fromkeys(row["variant"] for row in mine):
        measures = [row["measure"] for row in mine if row["variant"] == variant]
        by_name = {m["name"]: show(m) for m in measures}
        blank = replace(usual[0], value="–", interval="", status="ok", reason="")
        cells = [by_name.get(cell.name, blank) for cell in usual]
        size = max((number(m["n"]) or 0 for m in measures), default=0)
        rows.append({"name": plain(f"variant.{variant}"), "cells": cells, "n": count_text(size)})
    return rows
