"""A model on patients of another place, and the sites of a table, as tables of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medtl.report.language.numbers import describe, number, subset_text, threshold_text, value_text
from medtl.report.language.texts import plain, translated
from medtl.report.page.finding import Shown, show

Row = Mapping[str, Any]

STEP_MEASURES = ("brier", "calibration_slope", "calibration_in_the_large", "sensitivity",
                 "specificity")  # fmt: skip
"""Columns of the updating ladder."""


def external_view(metrics: Row) -> dict[str, Any] | None:
    """Source beside target, what shifted and the updating ladders; None without any.

    Args:
        metrics: Content of metrics.json.
    """
    external = metrics.get("external")
    if not external:
        return None
    beside = [
        {**row, "shown": (show(row["source"]), show(row["target"]))} for row in external["beside"]
    ]
    ladders = [_ladder(ladder) for ladder in external["ladders"]]
    notes = [translated(note) for note in external["notes"]]
    shifted = [_shift(row) for row in external["characteristics"]]
    return {**external, "beside": beside, "ladders": ladders, "notes": notes, "shifted": shifted}


def _shift(row: Row) -> dict[str, Any]:
    """A characteristic of the patients on both sides."""
    share = bool(row["group"])
    group = row["group"] if share else plain("ext.mean")
    source, target = (
        value_text(row[side], "share" if share else "number") for side in ("source", "target")
    )
    return {
        "name": subset_text(f"{row['column']}={group}"),
        "source": source,
        "target": target,
        "difference": row["difference"],
        "large": abs(number(row["difference"]["value"]) or 0) > LARGE,
    }


LARGE = 0.1
"""Standardised difference beyond which groups are said to differ (Austin 2009)."""


def _ladder(ladder: Row) -> dict[str, Any]:
    """The steps of a finding, and what the closed test advises."""
    steps = []
    for step in ladder["steps"]:
        found = {measure["name"]: show(measure) for measure in step["measures"]}
        cells: list[Shown | None] = [found.get(name) for name in STEP_MEASURES]
        cut = "" if step["threshold"] is None else threshold_text(step["threshold"])
        reason = translated(step["reason"])
        steps.append({"name": step["name"], "cells": cells, "threshold": cut, "reason": reason})
    advice = ladder["advice"]
    return {
        "label": ladder["label"],
        "names": [describe(name)[0] for name in STEP_MEASURES],
        "steps": steps,
        "advice": advice,
        "reason": translated(ladder["reason"]),
    }


def sites_view(metrics: Row) -> list[dict[str, Any]]:
    """Every measure of every finding at its sites, pooled, and what a new site may see.

    Args:
        metrics: Content of metrics.json.
    """
    tables = []
    for of in metrics.get("sites") or []:
        name = of["pooled"]["name"]
        kind = describe(name)[1]
        low, high = (number(of[end]) for end in ("predict_low", "predict_high"))
        new = ""
        if low is not None and high is not None:
            new = plain("interval", low=value_text(low, kind), high=value_text(high, kind))
        rows = [
            (m["subset"].partition("=")[2] or plain("sub.unknown"), m["n"], show(m))
            for m in of["sites"]
        ]
        tables.append({**of, "name": name, "rows": rows, "mean": show(of["pooled"]), "new": new})
    return tables
