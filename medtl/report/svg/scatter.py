"""Figures of single cases: estimate against reference, agreement, the Dice of every case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medtl.report.language.numbers import number
from medtl.report.language.texts import plain
from medtl.report.svg.figures import Figure, Frame, axes, line, picture, table_rows, text

RADIUS = 2.6
"""Of a case's mark, in units of the picture."""

Pair = tuple[float, float]


def identity(curve: Mapping[str, Any], *, ident: str, finding: str) -> Figure:
    """Estimate against reference of every case, with the line on which both are equal."""
    points = _pairs(curve, "truth", "prediction")
    values = [value for point in points for value in point]
    low, high = min(values), max(values)
    pad = 0.04 * ((high - low) or 1.0)
    frame = Frame(low - pad, high + pad, low - pad, high + pad, height=340.0, left=58.0)
    body = axes(frame, plain("fig.identity.x"), plain("fig.identity.y"))
    body += line(frame, [(low - pad, low - pad), (high + pad, high + pad)], "reference")
    body += text(
        frame.x(low + 0.72 * (high - low)),
        frame.y(low + 0.5 * (high - low)),
        plain("fig.identity.equal"),
        "note",
    )
    return _figure("identity", frame, body + _marks(frame, points), ident, finding, points)


def bland_altman(
    curve: Mapping[str, Any],
    *,
    ident: str,
    finding: str,
    lines: Sequence[float | None],
    key: str = "bland",
) -> Figure:
    """Error against mean of estimate and reference; `lines` are bias and limits of agreement."""
    points = _pairs(curve, "x", "y")
    xs, known = [x for x, _ in points], [value for value in lines if value is not None]
    low, high = (
        min([0.0, *known, *(y for _, y in points)]),
        max([0.0, *known, *(y for _, y in points)]),
    )
    pad = 0.06 * ((high - low) or 1.0)
    frame = Frame(min(xs), max(xs), low - pad, high + pad, left=58.0)
    decimals = max(1, 1 - math.floor(math.log10((high - low) or 1.0)))
    body = axes(frame, plain(f"fig.{key}.x"), plain(f"fig.{key}.y"))
    body += line(frame, [(frame.x_low, 0.0), (frame.x_high, 0.0)], "zero")
    body += _marks(frame, points)
    for value, css in zip(lines, ("nobody", "reference", "reference"), strict=True):
        if value is None:
            continue
        body += line(frame, [(frame.x_low, value), (frame.x_high, value)], css)
        shown = f"{value:+.{decimals}f}".replace("-", "−")
        body += text(frame.width - frame.right - 2, frame.y(value) - 4, shown, "mark-label", "end")
    return _figure(key, frame, body, ident, finding, points)


def strip(
    curve: Mapping[str, Any], *, ident: str, finding: str, key: str, top: float | None = None
) -> Figure:
    """One value of every case from the worst to the best; `top` is the end of the scale."""
    points = _pairs(curve, "x", "y")
    xs = [x for x, _ in points]
    ceiling = top if top is not None else 1.05 * max(y for _, y in points) or 1.0
    frame = Frame(min(xs), max(xs), 0.0, ceiling, left=58.0)
    body = axes(frame, plain("fig.strip.x"), plain(f"fig.{key}.y")) + _marks(frame, points)
    return _figure(key, frame, body, ident, finding, points, x_label="fig.strip.x")


def _pairs(curve: Mapping[str, Any], first: str, second: str) -> list[Pair]:
    """The points of a curve that have both numbers."""
    cells = zip(curve.get(first) or [], curve.get(second) or [], strict=False)
    read = [(number(x), number(y)) for x, y in cells]
    return [(x, y) for x, y in read if x is not None and y is not None]


def _marks(frame: Frame, points: Sequence[Pair]) -> str:
    """A dot per case, in one path so that five hundred cases stay small."""
    size = 2 * RADIUS
    data = "".join(
        f"M{frame.x(x) - RADIUS:.1f} {frame.y(y):.1f}"
        f"a{RADIUS} {RADIUS} 0 1 0 {size} 0a{RADIUS} {RADIUS} 0 1 0 -{size} 0"
        for x, y in points
    )
    return f'<path class="cases-dots" d="{data}"/>'


def _figure(
    key: str,
    frame: Frame,
    body: str,
    ident: str,
    finding: str,
    points: Sequence[Pair],
    *,
    x_label: str = "",
) -> Figure:
    """A figure of single points with its table."""
    title, caption = plain(f"fig.{key}"), plain(f"fig.{key}.desc", finding=finding)
    svg = picture(frame, body, key=key, ident=ident, title=title, caption=caption)
    head = (plain(x_label or f"fig.{key}.x"), plain(f"fig.{key}.y"))
    return Figure(svg, title, caption, head, table_rows(points), key)
