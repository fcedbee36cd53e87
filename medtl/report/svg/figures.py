"""The figures of one finding: curves of its score, and single cases."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from medtl.report.language.numbers import number
from medtl.report.language.texts import plain
from medtl.report.svg import plot
from medtl.report.svg.plot import Frame, Line, Mark, Marks, Plot, Point, Words

MAX_POINTS = 240
"""A curve is drawn through at most this many of its points."""

EVERY = sys.maxsize
"""Single cases are all drawn."""

CASE = plot.dot(2.6)
"""Outline of one case."""

MODEL_LINES = ("main", "reference", "nobody", "train", "fourth")
"""Styles of the curves of the first models; they differ by dash, not by colour alone."""

Reading = tuple[str, Point]
"""A reader's name and place on the ROC."""

Row = tuple[float | None, ...]
Curve = Mapping[str, Any]
NO_CURVE: Curve = MappingProxyType({})

DIAGONAL = Line([(0.0, 0.0), (1.0, 1.0)], "line reference")
ON_DIAGONAL = (0.62, 0.54)
"""Place of the words below the diagonal."""


def columns(curve: Curve, *names: str, most: int = MAX_POINTS) -> list[Row]:
    """The rows of a curve, thinned to `most`; rows without a finite x or y are dropped."""
    lists = [list(curve.get(name) or []) for name in names]
    rows = []
    for index in range(min(len(lists[0]), len(lists[1]))):
        row = tuple(number(values[index]) if index < len(values) else None for values in lists)
        if all(value is not None and math.isfinite(value) for value in row[:2]):
            rows.append(row)
    return [rows[index] for index in plot.thin(len(rows), most)]


def _known(rows: Iterable[Row], *at: int) -> list[tuple[float, ...]]:
    """Some columns, of the rows in which all of them are filled."""
    chosen = [[row[i] for i in at] for row in rows]
    return [tuple(v for v in row if v is not None) for row in chosen if None not in row]


def _points(rows: Iterable[Row]) -> list[Point]:
    """The first two columns."""
    return [(x, y) for x, y in _known(rows, 0, 1)]


def _with_band(rows: Sequence[Row]) -> list[Mark]:
    """A curve with its band where both bounds are known; `rows` are x, y, low, high."""
    inside = _known(rows, 0, 2, 3)
    there, back = [(x, high) for x, _, high in inside], [(x, low) for x, low, _ in inside]
    area = [Line([*there, *reversed(back)], "band")] if len(inside) > 1 else []
    return [*area, Line(_points(rows), "line main")]


def _frozen(frame: Frame, at: Point | None) -> list[Mark]:
    """The frozen threshold's diamond, and the ring that the slider moves."""
    if at is None:
        return []
    right_half = frame.x(at[0]) > frame.width * 0.62
    below = 18 if frame.y(at[1]) < frame.height * 0.8 else -10
    shift, anchor = ((-11, below), "end") if right_half else ((11, below), "start")
    label = Words(at, plain("fig.frozen"), "mark-label", anchor, shift)
    return [Marks([at], plot.diamond(), "frozen"), label, plot.Ring(at)]


def roc(curve: Curve, *, frozen: Point | None, readers: Sequence[Reading] = ()) -> Plot:
    """ROC curve with its band; `frozen` and `readers` are (1 - specificity, sensitivity)."""
    frame, rows = Frame(height=340.0), columns(curve, "x", "y", "low", "high", "threshold")
    marks = [DIAGONAL, Words(ON_DIAGONAL, plain("fig.chance")), *_with_band(rows)]
    for name, place in readers:
        marks.append(Marks([place], plot.CROSS, "reader"))
        marks.append(Words(place, name[:12], shift=(8, -6)))
    head = ("fig.roc.x", "fig.roc.y", "fig.low", "fig.high", "fact.threshold")
    return Plot("roc", frame, [*marks, *_frozen(frame, frozen)], head, rows)


def precision_recall(curve: Curve, *, frozen: Point | None) -> Plot:
    """Precision against recall; `frozen` is (recall, precision)."""
    frame, rows = Frame(), columns(curve, "x", "y", "low", "high", "threshold")
    marks = [*_with_band(rows), *_frozen(frame, frozen)]
    if (share := number(curve.get("baseline"))) is not None:
        words = Words((0, share), plain("fig.pr.baseline"), shift=(6, -6))
        marks = [Line([(0, share), (1, share)], "line reference"), words, *marks]
    head = ("fig.pr.x", "fig.pr.y", "fig.low", "fig.high", "fact.threshold")
    return Plot("pr", frame, marks, head, rows)


def reliability(curve: Curve, *, smooth: Curve = NO_CURVE, mended: Curve = NO_CURVE) -> Plot:
    """Observed share against mean score: a mark and interval per bin, and without bins by loess.

    Args:
        curve: By bins.
        smooth: With its band; empty where there are too few rows.
        mended: The smooth curve of the recalibrated probabilities, empty without any.
    """
    rows = columns(curve, "x", "y", "low", "high", "count")
    marks: list[Mark] = [
        DIAGONAL,
        Words(ON_DIAGONAL, plain("fig.rel.perfect")),
        *(_with_band(columns(smooth, "x", "y", "low", "high")) if smooth else []),
        *(Line([(x, low), (x, high)], "whisker") for x, low, high in _known(rows, 0, 2, 3)),
        Marks(_points(rows), plot.dot(4.5), "dot"),
    ]
    if mended:
        marks.append(Line(_points(columns(mended, "x", "y")), "line train"))
        marks += plot.legend([("train", plain("fig.mended"))], (-math.inf, math.inf), (8, 12))
    head = ("fig.rel.x", "fig.rel.y", "fig.low", "fig.high", "fig.rel.count")
    return Plot("rel", Frame(), marks, head, rows)


def _runs(points: Iterable[Point], low: float) -> list[list[Point]]:
    """The parts of a line above a height: what plunges below it is not drawn along the floor."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if point[1] >= low:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]


def decision(curve: Curve, *, mended: Curve = NO_CURVE) -> Plot:
    """Net benefit of the network, of acting on everyone and of acting on nobody.

    Args:
        curve: As stored.
        mended: That of the recalibrated probabilities, empty without any.
    """
    rows = columns(curve, "x", "y", "low", "high", "treat_all")
    positive = [value for row in rows for value in row[1:] if value is not None and value > 0]
    xs, top = [x for x, _ in _points(rows)], max(positive or [0.1]) * 1.08
    # Acting on everyone plunges below zero; how far is of no interest, so the floor is near 0.
    frame = Frame(min(xs, default=0.0), max(xs, default=1.0), -0.35 * top, top, left=58.0)
    names = {"main": "fig.dec.model", "reference": "fig.dec.all", "nobody": "fig.dec.none"}
    marks: list[Mark] = [
        Line([(-math.inf, 0), (math.inf, 0)], "line nobody"),
        Line([(x, y) for x, y in _known(rows, 0, 4) if y >= frame.y_low], "line reference"),
        *_with_band(rows)[:-1],
        *(Line(run, "line main") for run in _runs(_points(rows), frame.y_low)),
    ]
    if mended:
        names["train"] = "fig.mended"
        better = _points(columns(mended, "x", "y"))
        marks += [Line(run, "line train") for run in _runs(better, frame.y_low)]
    marks += plot.legend([(css, plain(name)) for css, name in names.items()], shift=(-124, 12))
    head = ("fig.dec.x", "fig.dec.model", "fig.low", "fig.high", "fig.dec.all")
    return Plot("dec", frame, marks, head, rows, y=plot.Axis("fig.dec.y"))


def histogram(curve: Curve, *, finding: str, threshold: float | None) -> Plot:
    """Scores of the cases with the finding (upwards) and without it (downwards)."""
    edges, positive, negative = (
        [number(value) or 0.0 for value in curve.get(name) or []]
        for name in ("x", "positive", "negative")
    )
    if len(edges) > 1 and len(edges) == len(positive):  # left edges of equal bins
        edges.append(2 * edges[-1] - edges[-2])
    up, down = (
        [100 * value / (sum(values) or 1.0) for value in values] for values in (positive, negative)
    )
    top = max([*up, *down, 1.0]) * 1.1
    head = ("fig.hist.x", "fig.hist.with", "fig.hist.without")
    marks: list[Mark] = []
    for left, right, above, below in zip(edges, edges[1:], up, down, strict=False):
        marks.append(plot.Bar((left, 0), (right, above), "bar with", gap=0.6))
        marks.append(plot.Bar((left, 0), (right, -below), "bar without", gap=0.6))
    if threshold is not None and math.isfinite(threshold):
        cut = [(threshold, math.inf), (threshold, -math.inf)]
        marks += [Line(cut, "cut"), Line(cut, "cut moving", moving=True)]
    marks += [
        Words((math.inf, edge), plain(key, finding=finding), anchor="end", shift=(0, shift))
        for key, edge, shift in ((head[1], math.inf, 12), (head[2], -math.inf, -6))
    ]
    frame, rows = (
        Frame(edges[0], edges[-1], -top, top),
        list(zip(edges, positive, negative, strict=False)),
    )
    x, y = plot.Axis(head[0], grid=False), plot.Axis("fig.hist.y", both_ways=True)
    return Plot("hist", frame, marks, head, rows, x, y)


def identity(curve: Curve) -> Plot:
    """Estimate against reference of every case, with the line on which both are equal."""
    rows = columns(curve, "truth", "prediction", most=EVERY)
    values = [value for point in _points(rows) for value in point]
    low, span = min(values), max(values) - min(values)
    pad = 0.04 * (span or 1.0)
    ends = low - pad, max(values) + pad
    marks: list[Mark] = [
        Line([(end, end) for end in ends], "line reference"),
        Words((low + 0.72 * span, low + 0.5 * span), plain("fig.identity.equal")),
        Marks(_points(rows), CASE, "cases-dots"),
    ]
    frame = Frame(*ends, *ends, height=340.0, left=58.0)
    return Plot("identity", frame, marks, ("fig.identity.x", "fig.identity.y"), rows)


def bland_altman(curve: Curve, *, lines: Sequence[float | None], key: str = "bland") -> Plot:
    """Error against mean of estimate and reference; `lines` are bias and limits of agreement."""
    rows = columns(curve, "x", "y", most=EVERY)
    points, known = _points(rows), [value for value in lines if value is not None]
    ys, xs = [0.0, *known, *(y for _, y in points)], [x for x, _ in points]
    spread = (max(ys) - min(ys)) or 1.0
    pad, decimals = 0.06 * spread, max(1, 1 - math.floor(math.log10(spread)))
    across = (-math.inf, math.inf)
    zero = Line([(x, 0.0) for x in across], "line zero")
    marks: list[Mark] = [zero, Marks(points, CASE, "cases-dots")]
    for value, css in zip(lines, ("nobody", "reference", "reference"), strict=True):
        if value is not None:
            shown = f"{value:+.{decimals}f}".replace("-", "−")
            marks.append(Line([(x, value) for x in across], f"line {css}"))
            marks.append(Words((math.inf, value), shown, "mark-label", "end", (-2, -4)))
    frame = Frame(min(xs), max(xs), min(ys) - pad, max(ys) + pad, left=58.0)
    return Plot(key, frame, marks, (f"fig.{key}.x", f"fig.{key}.y"), rows)


def strip(curve: Curve, *, key: str, top: float | None = None) -> Plot:
    """One value of every case from the worst to the best; `top` is the end of the scale."""
    rows = columns(curve, "x", "y", most=EVERY)
    points = _points(rows)
    xs, ceiling = [x for x, _ in points], top or 1.05 * max(y for _, y in points) or 1.0
    frame = Frame(min(xs), max(xs), 0.0, ceiling, left=58.0)
    marks = [Marks(points, CASE, "cases-dots")]
    return Plot(key, frame, marks, ("fig.strip.x", f"fig.{key}.y"), rows)


def roc_of_models(curves: Sequence[Curve]) -> Plot:
    """The ROC curves of several models for one finding in one picture, with a few of their points.

    Args:
        curves: `model`, `x` and `y` of each.
    """
    marks: list[Mark] = []
    rows, names = list[tuple[str, float, float]](), list[tuple[str, str]]()
    for css, curve in zip(MODEL_LINES, curves, strict=False):
        points = list(zip(curve["x"], curve["y"], strict=True))
        marks.append(Line(points, f"line {css}"))
        names.append((css, str(curve["model"])[:18]))
        rows += [(str(curve["model"]), x, y) for x, y in points[:: max(len(points) // 8, 1)]]
    marks += plot.legend(names, (0.52, 0.06), (0, -18 * (len(names) - 1) - 4))
    head = ("models.model", "fig.roc.x", "fig.roc.y")
    axes = plot.Axis(head[1]), plot.Axis(head[2])
    return Plot("models", Frame(height=340.0), marks, head, rows, *axes, most=len(rows))
