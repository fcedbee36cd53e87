"""One way to draw: axes, lines, areas, marks, bars and words from a description, as inline SVG.

A figure is 360 units wide, so that on a phone one unit is about one pixel and the letters are as
large as the text around them. Colours come from `report.css`; lines also differ by dash and mark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from medtl.report.language.numbers import cell, sentence
from medtl.report.language.texts import knows, plain

TABLE_ROWS = 21
"""The table beside a figure holds at most this many rows."""

Point = tuple[float, float]
"""A place in the units of the data; an infinite number is the edge of the plot."""

CROSS = "m-5 0h10m-5 -5v10"
"""Outline of a reader's mark, relative to its place."""


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
    """The place of data in the picture: data limits, and the margins around the plot in units."""

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


@dataclass(frozen=True)
class Line:
    """A line through points, or the outline of an area; a `moving` one is placed by the slider."""

    points: Iterable[Point]
    css: str
    moving: bool = False

    def svg(self, frame: Frame) -> str:
        """The mark as an element."""
        places = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in self.points)
        return f'<path class="{self.css}"{_MOVING * self.moving} d="M{places}"/>'


@dataclass(frozen=True)
class Marks:
    """One outline at some points, in one path so that five hundred cases stay small."""

    points: Sequence[Point]
    outline: str
    css: str

    def svg(self, frame: Frame) -> str:
        """The mark as an element."""
        data = "".join(f"M{frame.x(x):.1f} {frame.y(y):.1f}{self.outline}" for x, y in self.points)
        return f'<path class="{self.css}" d="{data}"/>'


@dataclass(frozen=True)
class Ring:
    """The ring that the slider moves over a curve, hidden until then."""

    at: Point

    def svg(self, frame: Frame) -> str:
        """The mark as an element."""
        x, y = frame.x(self.at[0]), frame.y(self.at[1])
        return f'<circle class="moving"{_MOVING} cx="{x:.1f}" cy="{y:.1f}" r="9"/>'


@dataclass(frozen=True)
class Bar:
    """A rectangle between two corners, `gap` units narrower on each side."""

    start: Point
    end: Point
    css: str
    gap: float = 0.0

    def svg(self, frame: Frame) -> str:
        """The mark as an element."""
        left, right = frame.x(self.start[0]) + self.gap, frame.x(self.end[0]) - self.gap
        top, floor = sorted((frame.y(self.start[1]), frame.y(self.end[1])))
        return (
            f'<rect class="{self.css}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{max(right - left, 0.5):.1f}" height="{floor - top:.1f}"/>'
        )


@dataclass(frozen=True)
class Words:
    """One line of text at a place, `shift` units away from it."""

    at: Point
    text: str
    css: str = "note"
    anchor: str = "start"
    shift: Point = (0.0, 0.0)

    def svg(self, frame: Frame) -> str:
        """The mark as an element; the text is escaped."""
        x, y = frame.x(self.at[0]) + self.shift[0], frame.y(self.at[1]) + self.shift[1]
        return _text(x, y, self.text, self.css, self.anchor)


Mark = Line | Marks | Ring | Bar | Words

_MOVING = ' data-moving hidden=""'


@dataclass(frozen=True)
class Axis:
    """The labels along one side of a plot.

    Attributes:
        label: Key of its name; none when empty.
        ticks: About how many numbers; 0 for none.
        grid: Whether lines go from the numbers through the plot.
        both_ways: Whether it counts away from 0 in both directions, so that no number is negative.
        factor: Of the numbers that are written: 100 for shares in percent.
        whole: Whether only whole numbers are written: of epochs, of cases.
    """

    label: str = ""
    ticks: int = 5
    grid: bool = True
    both_ways: bool = False
    factor: float = 1
    whole: bool = False

    def numbers(self, low: float, high: float) -> list[tuple[float, str]]:
        """Places and texts of the numbers between two ends."""
        ticks = nice_ticks(low, high, self.ticks) if self.ticks else []
        return [
            (tick, tick_text(self.factor * (abs(tick) if self.both_ways else tick)))
            for tick in ticks
            if not self.whole or tick == round(tick)
        ]


@dataclass(frozen=True)
class Plot:
    """A figure as data. Its title, caption, axes and table head are keys of texts, or words.

    Attributes:
        key: Name of the kind of figure ("roc"), also for the script.
        frame: Where data lie.
        marks: What is drawn over the axes, in this order; `under`, what lies under them.
        head, rows: The table beside it. Columns without any value are left out.
        x, y: The axes; the first two columns of the table unless stated.
        title: `fig.KEY` unless stated.
        most: The table is thinned to this many rows.
    """

    key: str
    frame: Frame
    marks: Sequence[Mark]
    head: Sequence[str]
    rows: Sequence[Sequence[float | str | None]]
    x: Axis | None = None
    y: Axis | None = None
    under: Sequence[Mark] = ()
    title: str = ""
    most: int = TABLE_ROWS

    def draw(self, ident: str, **words: str) -> Figure:
        """Return the figure, its name and description inside it for a screen reader.

        Args:
            ident: Unique in the page.
            words: What its texts name (`finding`).
        """
        frame, words = self.frame, {"unit": "", **words}
        title, caption, *head = (
            worded(key, words)
            for key in (self.title or f"fig.{self.key}", f"fig.{self.key}.desc", *self.head)
        )
        caption = sentence(caption)
        under, over = ("".join(m.svg(frame) for m in marks) for marks in (self.under, self.marks))
        names = (self.x or Axis(self.head[0]), self.y or Axis(self.head[1]))
        axes = _axes(frame, *(replace(a, label=worded(a.label, words)) for a in names))
        svg = Markup(
            f'<svg class="figure" data-figure="{self.key}" data-left="{frame.left}" '
            f'data-bottom="{frame.height - frame.bottom}" '
            f'data-plot-width="{frame.width - frame.left - frame.right}" '
            f'data-plot-height="{frame.height - frame.top - frame.bottom}" role="img" '
            f'viewBox="0 0 {frame.width:g} {frame.height:g}" '
            f'aria-labelledby="{ident}-t {ident}-d"><title id="{ident}-t">{escape(title)}</title>'
            f'<desc id="{ident}-d">{escape(caption)}</desc>{under}{axes}{over}</svg>'
        )
        keep = [i for i in range(len(head)) if any(row[i] is not None for row in self.rows)]
        rows = [self.rows[index] for index in thin(len(self.rows), self.most)]
        cells = tuple(tuple(cell(row[i]) for i in keep) for row in rows)
        return Figure(svg, title, caption, tuple(head[i] for i in keep), cells, self.key)


def worded(key: str, words: Mapping[str, str]) -> str:
    """The text of a key, or the words themselves."""
    return plain(key, **words) if knows(key) else key


def _axes(frame: Frame, across: Axis, up: Axis) -> str:
    """Grid, numbers and names of the axes."""
    parts = list[str]()
    floor, right = frame.height - frame.bottom, frame.width - frame.right
    for tick, words in across.numbers(frame.x_low, frame.x_high):
        x = frame.x(tick)
        if across.grid:
            parts.append(f'<path class="grid" d="M{x:.1f} {frame.top}V{floor}"/>')
        parts.append(_text(x, floor + 16, words, "tick", "middle"))
    for tick, words in up.numbers(frame.y_low, frame.y_high):
        y = frame.y(tick)
        parts.append(f'<path class="grid" d="M{frame.left} {y:.1f}H{right}"/>')
        parts.append(_text(frame.left - 6, y + 4, words, "tick", "end"))
    if across.label:
        middle = (frame.left + right) / 2
        parts.append(_text(middle, frame.height - 10, across.label, "axis", "middle"))
    if up.label:
        name = _text(0, 0, up.label, "axis", "middle")
        place = f"translate(12 {(frame.top + floor) / 2:.1f}) rotate(-90)"
        parts.append(f'<g transform="{place}">{name}</g>')
    return "".join(parts)


def _text(x: float, y: float, words: str, css: str, anchor: str) -> str:
    """One line of text in a picture; `words` are escaped."""
    place = f'x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(words)}</text>"


def diamond(size: float = 6.5) -> str:
    """Outline of a diamond, relative to its middle."""
    return f"m0 {-size}l{size} {size}l{-size} {size}l{-size} {-size}z"


def dot(radius: float) -> str:
    """Outline of a disc, relative to its middle."""
    half = f"a{radius} {radius} 0 1 0"
    return f"m{-radius} 0{half} {2 * radius} 0{half} {-2 * radius} 0"


def legend(
    entries: Sequence[tuple[str, str]], at: Point = (math.inf, math.inf), shift: Point = (-104, 12)
) -> list[Mark]:
    """Line samples with their names, one below the other; entries are (css, name).

    The first one starts `shift` units away from `at`, the upper right corner unless stated.
    """
    marks: list[Mark] = []
    for index, (css, name) in enumerate(entries):
        x, y = shift[0], shift[1] + 18 * index
        marks.append(Marks([at], f"m{x:.1f} {y:.1f}h26", f"line {css}"))
        marks.append(Words(at, name, shift=(x + 33, y + 4)))
    return marks


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
    return cell(value) if abs(value) > 1e-12 else "0"


def thin(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spaced, first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
