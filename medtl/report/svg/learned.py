"""Figures of what was learned: how far each layer moved, what controls reach, more patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medtl.report.language.numbers import cell, count_text, number, shortened
from medtl.report.language.texts import plain
from medtl.report.svg import plot
from medtl.report.svg.plot import Figure, Frame, Mark, Plot, Words

Row = Mapping[str, Any]


def weight_changes(groups: Sequence[Row]) -> Figure:
    """The relative change of each layer's weights as bars, stem to head.

    Args:
        groups: Of layers.json: `name`, `parameters`, `trained`, `change`.
    """
    known = [number(row["change"]) for row in groups if row["name"] != "head"]
    most = max((value for value in known if value), default=0.0)
    frame = Frame(
        0.0, most or 1.0, len(groups) - 0.5, -0.5, height=24.0 * len(groups) + 56, left=108.0,
        right=64.0, top=8.0, bottom=48.0,
    )  # fmt: skip
    marks: list[Mark] = []
    for place, row in enumerate(groups):
        change = number(row["change"])
        text = plain("fig.layers.frozen") if not row["trained"] else _rounded(change)
        marks.append(Words((-math.inf, place), shortened(row["name"], 15), "row", shift=(-100, 4)))
        if row["trained"] and change:
            end = min(change, most or change)
            marks.append(plot.Bar((0, place - 0.3), (end, place + 0.3), "bar with"))
        marks.append(Words((math.inf, place), text, "row value", shift=(9, 4)))
    head = ("fig.layers.layer", "fig.layers.parameters", "fig.layers.change")
    rows = [(row["name"], count_text(row["parameters"]), _rounded(row["change"])) for row in groups]
    x, y = plot.Axis("fig.layers.change", ticks=3), plot.Axis(ticks=0)
    return Plot("layers", frame, marks, head, rows, x, y, most=len(rows)).draw("layers")


def _rounded(value: object) -> str:
    """A relative change in two digits."""
    known = number(value)
    return "–" if known is None else cell(float(f"{known:.2g}"))
