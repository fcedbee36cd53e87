"""What a model reaches against the level of a change of its images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medtl.report.language.numbers import describe, number
from medtl.report.language.texts import plain
from medtl.report.svg import plot
from medtl.report.svg.plot import Figure, Frame, Mark, Plot, Point

Row = Mapping[str, Any]


def level_figure(rows: Sequence[Row], *, ident: str, title: str, promised: float | None) -> Figure:
    """The measure with its band, and the sensitivity at the frozen threshold where there is one.

    Args:
        rows: Of robustness.json, one label and condition, the images as they are first.
        ident: Unique in the page.
        title: What happens to the images.
        promised: The sensitivity that the operating point asks for.
    """
    levels = [int(row["level"]) for row in rows]
    reaches = [row["reaches"] for row in rows]
    name = str(reaches[0]["name"])
    is_share = not name.startswith("mae")
    highs = [h for row in reaches if (h := number(row.get("high", row["value"]))) is not None]
    top = 1.0 if is_share else 1.1 * max(highs, default=1.0)
    frame = Frame(0, max(levels), 0.0, top, height=250.0)
    marks: list[Mark] = []
    if band := _band(levels, reaches):
        marks.append(plot.Line(band, "band"))
    marks.append(plot.Line(_points(levels, reaches), "line main"))
    marks.append(plot.Marks(_points(levels, reaches), plot.dot(3), "cases-dots"))
    legend = [("main", describe(name)[0])]
    shares = [row["shares"].get("sensitivity", {}) for row in rows]
    if found := _points(levels, shares):
        marks.append(plot.Line(found, "line train"))
        legend.append(("train", describe("sensitivity")[0]))
    if found and promised is not None:
        marks.append(plot.Line([(-math.inf, promised), (math.inf, promised)], "line reference"))
        legend.append(("reference", plain("breaking.promised")))
    marks += plot.legend(legend, (0, 0), (8, -18 * (len(legend) - 1) - 10))
    head = ("breaking.x", "fig.controls.reaches", "fig.controls.low", "fig.controls.high")
    table = [
        (str(level), *(number(row.get(key)) for key in ("value", "low", "high")))
        for level, row in zip(levels, reaches, strict=True)
    ]
    x, y = plot.Axis("breaking.x", whole=True), plot.Axis(plain("breaking.y"))
    return Plot("levels", frame, marks, head, table, x, y, title=title).draw(ident)


def _points(levels: Sequence[int], measures: Sequence[Row]) -> list[Point]:
    """Level and value where it is known."""
    known = zip(levels, (number(row.get("value")) for row in measures), strict=True)
    return [(level, value) for level, value in known if value is not None]


def _band(levels: Sequence[int], measures: Sequence[Row]) -> list[Point]:
    """The outline of the intervals: along their upper ends, and back along the lower ones."""
    ends = [
        (level, low, high)
        for level, row in zip(levels, measures, strict=True)
        if (low := number(row.get("low"))) is not None
        and (high := number(row.get("high"))) is not None
    ]
    upper: list[Point] = [(level, high) for level, _, high in ends]
    return [*upper, *((level, low) for level, low, _ in reversed(ends))]
