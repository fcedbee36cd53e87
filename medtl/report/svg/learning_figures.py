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


def controls_figure(rows: Sequence[Row], ident: str) -> Figure:
    """What each model reaches as a mark with its interval, the recipe on top.

    Args:
        rows: `name` in words, `measure`.
        ident: Unique in the page.
    """
    known = [
        value
        for row in rows
        for key in ("value", "low", "high")
        if (value := number(row["measure"].get(key))) is not None
    ]
    low, high = min(known, default=0.0), max(known, default=1.0)
    pad = 0.06 * ((high - low) or 1.0)
    frame = Frame(
        low - pad, high + pad, 2 * len(rows) - 0.5, -0.5, height=44.0 * len(rows) + 44, left=14.0,
        right=14.0, top=8.0, bottom=36.0,
    )  # fmt: skip
    marks: list[Mark] = []
    own = number(rows[0]["measure"].get("value"))
    if own is not None:
        marks.append(plot.Line([(own, math.inf), (own, -math.inf)], "line reference"))
    table = []
    for place, row in enumerate(rows):
        value, *around = (number(row["measure"].get(key)) for key in ("value", "low", "high"))
        marks.append(Words((-math.inf, 2 * place), row["name"], "row fair", shift=(0, 4)))
        ends = [(end, 2.0 * place + 1) for end in around if end is not None]
        if value is not None and len(ends) > 1:
            marks.append(plot.Line(ends, "whisker fair"))
        if value is not None:
            marks.append(plot.Marks([(value, 2 * place + 1)], plot.diamond(5.5), "dot fair"))
        table.append((row["name"], value, *around))
    head = ("fig.controls.model", "fig.controls.reaches", "fig.controls.low", "fig.controls.high")
    x, y = plot.Axis(ticks=4), plot.Axis(ticks=0)
    return Plot("controls", frame, marks, head, table, x, y, most=len(rows)).draw(ident)


def curve_figure(curve: Row) -> Figure:
    """The test measure against training patients, every run as a dot, lines through the means.

    Args:
        curve: Content of learning_curve.json.
    """
    patients = curve["patients"]
    known = [value for by_share in curve["values"].values() for runs in by_share for value in runs]
    pad = 0.08 * ((max(known) - min(known)) or 1.0)
    frame = Frame(0.0, 1.05 * max(patients), min(known) - pad, max(known) + 2 * pad, left=58.0)
    marks: list[Mark] = []
    names, rows = list[str](), [[str(number)] for number in patients]
    styles = ("main", "train")
    for style, (name, by_share) in zip(styles, curve["values"].items(), strict=False):
        means = [sum(runs) / len(runs) for runs in by_share]
        dots = [(n, v) for n, runs in zip(patients, by_share, strict=True) for v in runs]
        marks.append(plot.Line(zip(patients, means, strict=True), f"line {style}"))
        marks.append(plot.Marks(dots, plot.dot(2.5), "cases-dots"))
        names.append(plain(f"learned.{name}"))
        for row, mean in zip(rows, means, strict=True):
            row.append(f"{mean:.3f}")
    marks += plot.legend(list(zip((f"{s}" for s in styles), names, strict=False)), shift=(-190, 12))
    head = ("fig.curve.x", *names)
    x, y = plot.Axis("fig.curve.x"), plot.Axis("fig.curve.y")
    return Plot("curve", frame, marks, head, rows, x, y).draw("learning-curve")


def _rounded(value: object) -> str:
    """A relative change in two digits."""
    known = number(value)
    return "–" if known is None else cell(float(f"{known:.2g}"))
