"""Figures as inline SVG: crisp, themed by CSS classes, each with a title, words and its numbers.

A figure is 360 units wide, so that on a phone one unit is about one pixel and the letters are as
large as the text around them. Colours come from `report.css`; lines also differ by dash and mark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from medtl.report.language.numbers import number
from medtl.report.language.texts import plain

MAX_POINTS = 240
"""A curve is drawn through at most this many of its points."""
TABLE_ROWS = 21
"""The table beside a figure holds at most this many rows."""

Point = tuple[float, float]

Reading = tuple[str, Point]
"""A reader's name and place on the ROC."""


@dataclass(frozen=True)
class Figure:
    """A drawing and what a reader who cannot see it needs.

    Attributes:
        svg: The picture.
        title: Heading above it.
        caption: What it shows, in a sentence; also the description inside the SVG.
        head, rows: Its numbers as a table.
        key: Name of the kind of figure ("roc"), for the script.
    """

    svg: Markup
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    key: str


@dataclass(frozen=True)
class Frame:
    """Where data lie in the picture: data limits, and the margins around the plot in units."""

    x_low: float = 0.0
    x_high: float = 1.0
    y_low: float = 0.0
    y_high: float = 1.0
    width: float = 360.0
    height: float = 320.0
    left: float = 50.0
    right: float = 14.0
    top: float = 14.0
    bottom: float = 48.0

    def x(self, value: float) -> float:
        """Horizontal place of a data value, kept inside the plot."""
        span = (self.x_high - self.x_low) or 1.0
        share = min(max((value - self.x_low) / span, 0.0), 1.0)
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Vertical place of a data value, kept inside the plot."""
        span = (self.y_high - self.y_low) or 1.0
        share = min(max((value - self.y_low) / span, 0.0), 1.0)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


def text(x: float, y: float, words: object, css: str = "", anchor: str = "start") -> str:
    """One line of text in a picture; `words` are escaped."""
    place = f'x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(words)}</text>"


def line(frame: Frame, points: Iterable[Point], css: str) -> str:
    """A polyline through data points."""
    places = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
    return f'<polyline class="line {css}" points="{places}"/>'


def band(frame: Frame, xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    """The area between two curves."""
    there = [f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(xs, high, strict=True)]
    back = [f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(xs, low, strict=True)]
    return f'<polygon class="band" points="{" ".join([*there, *reversed(back)])}"/>'


def diamond(x: float, y: float, css: str, size: float = 6.5) -> str:
    """A diamond mark at a place of the picture."""
    path = f"M{x:.1f} {y - size:.1f}l{size} {size}l{-size} {size}l{-size} {-size}z"
    return f'<path class="{css}" d="{path}"/>'


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, about `count` of them."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's number without needless zeros and with a real minus sign."""
    return f"{value:.4g}".replace("-", "−") if abs(value) > 1e-12 else "0"


def axes(frame: Frame, x_label: str, y_label: str) -> str:
    """Grid, ticks and axis names."""
    parts = []
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    for tick in nice_ticks(frame.x_low, frame.x_high):
        x = frame.x(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {frame.top}V{bottom}"/>')
        parts.append(text(x, bottom + 16, tick_text(tick), "tick", "middle"))
    for tick in nice_ticks(frame.y_low, frame.y_high):
        y = frame.y(tick)
        parts.append(f'<path class="grid" d="M{frame.left} {y:.1f}H{right}"/>')
        parts.append(text(frame.left - 6, y + 4, tick_text(tick), "tick", "end"))
    middle_x, middle_y = (frame.left + right) / 2, (frame.top + bottom) / 2
    parts.append(text(middle_x, frame.height - 10, x_label, "axis", "middle"))
    parts.append(
        f'<g transform="translate(12 {middle_y:.1f}) rotate(-90)">'
        f"{text(0, 0, y_label, 'axis', 'middle')}</g>"
    )
    return "".join(parts)


def picture(frame: Frame, body: str, *, key: str, ident: str, title: str, caption: str) -> Markup:
    """The SVG around a body, with its name and description for a screen reader."""
    plot = (
        f'data-left="{frame.left}" data-bottom="{frame.height - frame.bottom}" '
        f'data-plot-width="{frame.width - frame.left - frame.right}" '
        f'data-plot-height="{frame.height - frame.top - frame.bottom}"'
    )
    return Markup(
        f'<svg class="figure" data-figure="{key}" {plot} role="img" '
        f'viewBox="0 0 {frame.width:g} {frame.height:g}" '
        f'aria-labelledby="{ident}-t {ident}-d"><title id="{ident}-t">{escape(title)}</title>'
        f'<desc id="{ident}-d">{escape(caption)}</desc>{body}</svg>'
    )


def thin(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spaced, first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def columns(curve: Mapping[str, Any], *names: str) -> list[tuple[float | None, ...]]:
    """The rows of a curve, thinned; rows without a finite x or y are dropped."""
    lists = [list(curve.get(name) or []) for name in names]
    count = min(len(lists[0]), len(lists[1]))
    rows = []
    for index in range(count):
        row = tuple(number(values[index]) if index < len(values) else None for values in lists)
        if all(value is not None and math.isfinite(value) for value in row[:2]):
            rows.append(row)
    return [rows[index] for index in thin(len(rows), MAX_POINTS)]


def table_rows(rows: Sequence[Sequence[float | None]]) -> tuple[tuple[str, ...], ...]:
    """The rows for a figure's table, thinned again and rounded."""
    return tuple(
        tuple("–" if value is None else f"{value:.4g}".replace("-", "−") for value in rows[index])
        for index in thin(len(rows), TABLE_ROWS)
    )


def curve_body(frame: Frame, rows: Sequence[tuple[float | None, ...]]) -> str:
    """A curve with its band where both bounds are known; `rows` are x, y, low, high."""
    points = [(x, y) for x, y, *_ in rows if x is not None and y is not None]
    inside = [
        (x, low, high)
        for x, _, low, high in rows
        if x is not None and low is not None and high is not None
    ]
    area = band(frame, *zip(*inside, strict=True)) if len(inside) > 1 else ""
    return area + line(frame, points, "main")


def marks(frame: Frame, frozen: Point | None) -> str:
    """The frozen threshold's diamond, and the ring that the slider moves."""
    if frozen is None:
        return ""
    x, y = frame.x(frozen[0]), frame.y(frozen[1])
    right_half = x > frame.width * 0.62
    label = text(
        x - 11 if right_half else x + 11,
        y + (18 if y < frame.height * 0.8 else -10),
        plain("fig.frozen"),
        "mark-label",
        "end" if right_half else "start",
    )
    moving = f'<circle class="moving" data-moving cx="{x:.1f}" cy="{y:.1f}" r="9" hidden=""/>'
    return f"{diamond(x, y, 'frozen')}{label}{moving}"


def roc(
    curve: Mapping[str, Any],
    *,
    ident: str,
    finding: str,
    frozen: Point | None,
    readers: Sequence[Reading] = (),
) -> Figure:
    """ROC curve with its band; `frozen` and `readers` are (1 - specificity, sensitivity)."""
    frame, rows = Frame(height=340.0), columns(curve, "x", "y", "low", "high", "threshold")
    body = axes(frame, plain("fig.roc.x"), plain("fig.roc.y"))
    body += line(frame, [(0, 0), (1, 1)], "reference")
    body += text(frame.x(0.62), frame.y(0.54), plain("fig.chance"), "note")
    body += curve_body(frame, [row[:4] for row in rows])
    for name, place in readers:
        x, y = frame.x(place[0]), frame.y(place[1])
        body += f'<path class="reader" d="M{x - 5:.1f} {y:.1f}h10M{x:.1f} {y - 5:.1f}v10"/>'
        body += text(x + 8, y - 6, name[:12], "note")
    body += marks(frame, frozen)
    head = ("fig.roc.x", "fig.roc.y", "fig.low", "fig.high", "fact.threshold")
    return _figure("roc", frame, body, ident=ident, finding=finding, head=head, rows=rows)


def precision_recall(
    curve: Mapping[str, Any], *, ident: str, finding: str, frozen: Point | None
) -> Figure:
    """Precision against recall; `frozen` is (recall, precision)."""
    frame, rows = Frame(), columns(curve, "x", "y", "low", "high", "threshold")
    body = axes(frame, plain("fig.pr.x"), plain("fig.pr.y"))
    baseline = number(curve.get("baseline"))
    if baseline is not None:
        body += line(frame, [(0, baseline), (1, baseline)], "reference")
        above = frame.y(baseline) - 6
        body += text(frame.left + 6, above, plain("fig.pr.baseline"), "note")
    body += curve_body(frame, [row[:4] for row in rows]) + marks(frame, frozen)
    head = ("fig.pr.x", "fig.pr.y", "fig.low", "fig.high", "fact.threshold")
    return _figure("pr", frame, body, ident=ident, finding=finding, head=head, rows=rows)


def reliability(curve: Mapping[str, Any], *, ident: str, finding: str) -> Figure:
    """Observed share against mean score, one mark and interval per bin."""
    frame, rows = Frame(), columns(curve, "x", "y", "low", "high", "count")
    body = axes(frame, plain("fig.rel.x"), plain("fig.rel.y"))
    body += line(frame, [(0, 0), (1, 1)], "reference")
    body += text(frame.x(0.62), frame.y(0.54), plain("fig.rel.perfect"), "note")
    points = [(x, y) for x, y, *_ in rows if x is not None and y is not None]
    body += line(frame, points, "main thin")
    for x, y, low, high, _ in rows:
        assert x is not None
        assert y is not None
        if low is not None and high is not None:
            place, top, end = frame.x(x), frame.y(high), frame.y(low)
            body += f'<path class="whisker" d="M{place:.1f} {top:.1f}V{end:.1f}"/>'
        body += f'<circle class="dot" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4.5"/>'
    head = ("fig.rel.x", "fig.rel.y", "fig.low", "fig.high", "fig.rel.count")
    return _figure("rel", frame, body, ident=ident, finding=finding, head=head, rows=rows)


def decision(curve: Mapping[str, Any], *, ident: str, finding: str) -> Figure:
    """Net benefit of the network, of acting on everyone and of acting on nobody."""
    rows = columns(curve, "x", "y", "low", "high", "treat_all")
    known = [value for row in rows for value in row[1:] if value is not None]
    top = max([value for value in known if value > 0] or [0.1]) * 1.08
    # Acting on everyone plunges below zero; how far is of no interest, so the floor is near 0.
    frame = Frame(
        x_low=min([row[0] for row in rows if row[0] is not None] or [0.0]),
        x_high=max([row[0] for row in rows if row[0] is not None] or [1.0]),
        y_low=-0.35 * top,
        y_high=top,
        left=58.0,
    )
    body = axes(frame, plain("fig.dec.x"), plain("fig.dec.y"))
    everyone = [(row[0], row[4]) for row in rows if row[0] is not None and row[4] is not None]
    inside = [point for point in everyone if point[1] >= frame.y_low]
    body += line(frame, [(frame.x_low, 0), (frame.x_high, 0)], "nobody")
    body += line(frame, inside, "reference")
    body += curve_body(frame, [row[:4] for row in rows])
    body += legend(
        frame,
        [("main", "fig.dec.model"), ("reference", "fig.dec.all"), ("nobody", "fig.dec.none")],
    )
    head = ("fig.dec.x", "fig.dec.model", "fig.low", "fig.high", "fig.dec.all")
    return _figure("dec", frame, body, ident=ident, finding=finding, head=head, rows=rows)


def legend(frame: Frame, entries: Sequence[tuple[str, str]]) -> str:
    """Line samples with their names in the upper right corner; entries are (css, text key)."""
    parts, x = [], frame.width - frame.right - 104
    for index, (css, key) in enumerate(entries):
        y = frame.top + 12 + 18 * index
        parts.append(f'<path class="line {css}" d="M{x:.1f} {y:.1f}h26"/>')
        parts.append(text(x + 33, y + 4, plain(key), "note"))
    return "".join(parts)


def histogram(
    curve: Mapping[str, Any], *, ident: str, finding: str, threshold: float | None
) -> Figure:
    """Scores of the cases with the finding (upwards) and without it (downwards)."""
    edges = [number(value) or 0.0 for value in curve.get("x") or []]
    positive = [number(value) or 0.0 for value in curve.get("positive") or []]
    negative = [number(value) or 0.0 for value in curve.get("negative") or []]
    if len(edges) > 1 and len(edges) == len(positive):  # left edges of equal bins
        edges.append(2 * edges[-1] - edges[-2])
    shares = [
        [100 * value / (sum(values) or 1.0) for value in values] for values in (positive, negative)
    ]
    top = max([*shares[0], *shares[1], 1.0]) * 1.1
    frame = Frame(edges[0], edges[-1], -top, top)
    body = _mirrored_axes(frame, finding)
    for index in range(min(len(positive), len(negative))):
        left, right = frame.x(edges[index]) + 0.6, frame.x(edges[index + 1]) - 0.6
        for share, css in ((shares[0][index], "with"), (-shares[1][index], "without")):
            y, zero = frame.y(share), frame.y(0)
            body += (
                f'<rect class="bar {css}" x="{left:.1f}" y="{min(y, zero):.1f}" '
                f'width="{max(right - left, 0.5):.1f}" height="{abs(y - zero):.1f}"/>'
            )
    if threshold is not None and math.isfinite(threshold):
        place, end = frame.x(threshold), frame.height - frame.bottom
        body += f'<path class="cut" d="M{place:.1f} {frame.top}V{end}"/>'
        body += f'<path class="cut moving" data-moving hidden="" d="M0 {frame.top}V{end}"/>'
    rows = list(zip(edges, positive, negative, strict=False))
    title = plain("fig.hist")
    caption = plain("fig.hist.desc", finding=finding)
    return Figure(
        picture(frame, body, key="hist", ident=ident, title=title, caption=caption),
        title,
        caption,
        (
            plain("fig.hist.x"),
            plain("fig.hist.with", finding=finding),
            plain("fig.hist.without"),
        ),
        table_rows(rows),
        "hist",
    )


def _mirrored_axes(frame: Frame, finding: str) -> str:
    """Axes of the histogram: percent upwards and downwards from a middle line."""
    body, right = "", frame.width - frame.right
    for tick in nice_ticks(frame.y_low, frame.y_high):
        y = frame.y(tick)
        body += f'<path class="grid" d="M{frame.left} {y:.1f}H{right}"/>'
        body += text(frame.left - 6, y + 4, tick_text(abs(tick)), "tick", "end")
    for tick in nice_ticks(frame.x_low, frame.x_high):
        body += text(
            frame.x(tick), frame.height - frame.bottom + 16, tick_text(tick), "tick", "middle"
        )
    middle = (frame.left + right) / 2
    body += text(middle, frame.height - 10, plain("fig.hist.x"), "axis", "middle")
    place = (frame.top + frame.height - frame.bottom) / 2
    name = text(0, 0, plain("fig.hist.y"), "axis", "middle")
    body += f'<g transform="translate(12 {place:.1f}) rotate(-90)">{name}</g>'
    body += text(right, frame.top + 12, plain("fig.hist.with", finding=finding), "note", "end")
    body += text(right, frame.height - frame.bottom - 6, plain("fig.hist.without"), "note", "end")
    return body


def _figure(
    key: str,
    frame: Frame,
    body: str,
    *,
    ident: str,
    finding: str,
    head: Sequence[str],
    rows: Sequence[tuple[float | None, ...]],
) -> Figure:
    """A figure from its parts; columns of the table that are empty throughout are dropped."""
    title, caption = plain(f"fig.{key}"), plain(f"fig.{key}.desc", finding=finding)
    keep = [i for i in range(len(head)) if any(row[i] is not None for row in rows)]
    return Figure(
        picture(frame, body, key=key, ident=ident, title=title, caption=caption),
        title,
        caption,
        tuple(plain(head[i]) for i in keep),
        table_rows([[row[i] for i in keep] for row in rows]),
        key,
    )
