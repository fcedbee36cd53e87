"""Figures that are not of one score: 1000 patients, subgroups, the course of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from medtl.report.language.numbers import (
    Kind,
    bare_text,
    count_text,
    describe,
    interval_text,
    number,
    of_1000,
    shortened,
    subset_text,
    subset_words,
    unit_words,
    value_text,
)
from medtl.report.language.texts import plain
from medtl.report.svg import plot
from medtl.report.svg.plot import Figure, Frame, Line, Mark, Marks, Plot, Words

FEW_CASES, FEW_POSITIVES = 30, 10
"""A subgroup with fewer cases, or fewer with the finding, is shown in grey and not compared."""

COURSE_ROWS = 40
"""The table beside the course of training holds at most this many epochs."""

Row = Mapping[str, Any]

_COLUMNS, _STEP = 50, 7.2
_ICONS: Mapping[str, tuple[float, str]] = {
    "tp": (2.7, "h5.4v5.4h-5.4z"),
    "fn": (2.6, "l5.2 5.2m-5.2 0l5.2 -5.2"),
    "fp": (2.3, "h4.6v4.6h-4.6z"),
    "tn": (0.9, "h1.8v1.8h-1.8z"),
}
"""Of each mark: how far its start lies left of and above the middle, and its outline."""


def thousand(counts: Mapping[str, int], *, ident: str, finding: str) -> Markup:
    """1000 marks: found (filled), missed (cross), wrongly flagged (ring), rightly left (dot).

    Args:
        counts: `tp`, `fn`, `fp`, `tn`; they sum to 1000.
        ident: Unique id in the page.
        finding: The finding in words.
    """
    paths, index = [], 0
    for name, (offset, shape) in _ICONS.items():
        data = ""
        for _ in range(counts[name]):
            row, column = divmod(index, _COLUMNS)
            x, y = _STEP * (column + 0.5) - offset, _STEP * (row + 0.5) - offset
            data += f"M{x:.1f} {y:.1f}{shape}"
            index += 1
        paths.append(f'<path class="icon {name}" d="{data}"/>')
    caption = plain("thousand.alt", finding=finding, **of_1000(counts))
    height = _STEP * (-(-index // _COLUMNS))
    return Markup(
        f'<svg class="thousand" role="img" viewBox="0 0 {_STEP * _COLUMNS:g} {height:g}" '
        f'aria-labelledby="{ident}-t"><title id="{ident}-t">{escape(caption)}</title>'
        f"{''.join(paths)}</svg>"
    )


def is_small(size: Row) -> bool:
    """Tell that a subgroup is too small to be compared; `size` is a measure over all its rows."""
    cases, positives = number(size["n"]), number(size["n_positive"])
    return (cases or 0) < FEW_CASES or (positives is not None and positives < FEW_POSITIVES)


LETTER = 6.6
"""Width of a letter beside a forest plot, in units of the figure."""


def forest(
    name: str,
    overall: Row | None,
    rows: Sequence[Row],
    *,
    sizes: Mapping[str, Row],
    ident: str,
) -> Figure:
    """One measure in every subgroup as marks with intervals, the whole test set on top.

    Args:
        name: Of the measure.
        overall: The measure of the whole test set.
        rows: The measure of each subgroup.
        sizes: Subset -> a measure whose `n` and `n_positive` count the whole subgroup.
        ident: Unique id in the page.
    """
    title, kind = describe(name)
    titled = title + (", %" if kind == "share" else unit_words(name))
    measured = [*([overall] if overall else []), *rows]
    marks: list[Mark] = []
    if overall and (centre := number(overall.get("value"))) is not None:
        marks.append(Line([(centre, math.inf), (centre, -math.inf)], "line reference"))
    before, place = "", 0
    for row in measured:
        column, value = subset_words(str(row["subset"]))
        if column != before:
            marks.append(Words((-math.inf, place), column, "row group", shift=(-108, 6)))
            before, place = column, place + 1
        css = "small" if is_small(sizes[row["subset"]]) else "fair"
        marks += _forest_row(place, value, row, kind=kind, css=css)
        place += 1
    # One line is 26 units high, and its middle lies 12 below its upper edge.
    low, high = _forest_range(measured, kind)
    longest = max(
        (len(m.text) for m in marks if isinstance(m, Words) and "value" in m.css), default=0
    )
    right = max(118.0, 14 + LETTER * longest)
    margins = {"left": 108.0, "right": right, "top": 8.0, "bottom": 36.0}
    frame = Frame(low, high, place - 12 / 26, -12 / 26, height=26.0 * place + 44, **margins)
    head = ("sub.subgroup", "sub.n", title)
    table = [_forest_cells(row, kind, sizes[row["subset"]]) for row in measured]
    x, y = plot.Axis(ticks=3, factor=100 if kind == "share" else 1), plot.Axis(ticks=0)
    drawn = Plot("forest", frame, marks, head, table, x, y, title=titled, most=len(table))
    return drawn.draw(ident, measure=title)


def _forest_range(measures: Sequence[Row], kind: Kind) -> tuple[float, float]:
    """The ends of the scale: shares and scores end at 1 and start at 0 or at one half."""
    values = [
        value
        for measure in measures
        for name in ("value", "low", "high")
        if (value := number(measure.get(name))) is not None
    ]
    if kind in ("share", "score"):
        return (0.5 if min(values, default=0.0) >= 0.5 else 0.0), 1.0
    return min([0.0, *values]), max(values, default=1.0)


def _forest_row(place: int, label: str, measure: Row, *, kind: Kind, css: str) -> list[Mark]:
    """One line of a forest plot: name, mark with whiskers, value."""
    value, low, high = (number(measure.get(name)) for name in ("value", "low", "high"))
    shown, css_value = plain("undefined.short"), f"row {css}"
    marks: list[Mark] = [
        Words((-math.inf, place), shortened(label, 17), f"row {css}", shift=(-100, 4))
    ]
    if value is not None:
        shown, css_value = _bare(value, kind), f"row value {css}"
        if low is not None and high is not None:
            marks.append(Line([(low, place), (high, place)], f"whisker {css}"))
            ends = _bare(low, kind), _bare(high, kind)
            between = plain("interval", low=ends[0], high=ends[1]) if low < 0 else "–".join(ends)
            shown += f" ({between})"
        outline = plot.dot(4) if css == "small" else plot.diamond(5.5)
        marks.append(Marks([(value, place)], outline, f"dot {css}"))
    return [*marks, Words((math.inf, place), shown, css_value, shift=(9, 4))]


def _bare(value: float, kind: Kind) -> str:
    """A value without its unit, short enough to stand beside a forest plot."""
    return f"{value:.2f}" if kind == "score" else bare_text(value, kind).removesuffix("%")


def _forest_cells(measure: Row, kind: Kind, size: Row) -> tuple[str, ...]:
    """One row of a forest plot's table."""
    value = number(measure.get("value"))
    shown = plain("undefined.short") if value is None else value_text(value, kind)
    interval = interval_text(measure, kind)
    cases = f"{count_text(size['n'])} ({count_text(size['n_positive'])})"
    label = subset_text(str(measure["subset"]))
    return label, cases, f"{shown} ({interval})" if interval else shown


def course(history: Sequence[Row]) -> list[Figure]:
    """Loss and watched measure by epoch, the stages shaded and the kept epoch marked."""
    series = {"train_loss": ("train", "fig.train"), "val_loss": ("main", "fig.val")}
    figures = [_course(history, series, key="loss")]
    if any(number(row.get("val_metric")) is not None for row in history):
        figures.append(_course(history, {"val_metric": ("main", "fig.val")}, key="metric"))
    return figures


def _course(history: Sequence[Row], series: Mapping[str, tuple[str, str]], *, key: str) -> Figure:
    """One panel of the course of training; `series` is column -> css and key of its name."""
    values = {
        name: {
            epoch: value
            for epoch, row in enumerate(history, start=1)
            if (value := number(row.get(name))) is not None
        }
        for name in series
    }
    known = [value for column in values.values() for value in column.values()]
    low, high = min(known, default=0.0), max(known, default=1.0)
    pad = 0.08 * ((high - low) or 1.0)
    frame = Frame(0.5, len(history) + 0.5, low - pad, high + 3 * pad, height=300.0, left=58.0)
    marks: list[Mark] = [
        Line(values[name].items(), f"line {css}") for name, (css, _) in series.items()
    ]
    watched = values[list(series)[-1]]
    kept = [epoch for epoch, row in enumerate(history, start=1) if number(row.get("best")) == 1]
    if kept and kept[-1] in watched:
        at = (kept[-1], watched[kept[-1]])
        marks.append(Marks([at], plot.diamond(), "frozen"))
        marks.append(Words(at, plain("fig.best"), "mark-label", "middle", (0, -11)))
    names = [words for _, words in series.values()]
    if len(series) > 1:
        marks += plot.legend([(css, plain(words)) for css, words in series.values()])
    rows = [
        (str(epoch), str(row.get("stage", "")), *(values[name].get(epoch) for name in series))
        for epoch, row in enumerate(history, start=1)
    ]
    head, x, y = ("fig.epoch", "learning.stage", *names), "fig.epoch", f"fig.{key}.y"
    under, most = _stage_columns(frame, history), COURSE_ROWS
    drawn = Plot(
        key, frame, marks, head, rows, plot.Axis(x, whole=True), plot.Axis(y), under, most=most
    )
    return drawn.draw(f"history-{key}")


def _stage_columns(frame: Frame, history: Sequence[Row]) -> list[Mark]:
    """Shaded columns, one per stage, with the stage's name at the foot of the plot."""
    marks, start = list[Mark](), 0
    stages = [str(row.get("stage", "")) for row in history]
    for end, stage in enumerate(stages, start=1):
        if stages[end : end + 1] == [stage]:
            continue
        left, right = start + 0.5, end + 0.5
        css = "even" if len(set(stages[:end])) % 2 else "odd"
        room = max(int((frame.x(right) - frame.x(left)) / 6.5), 2)
        marks.append(plot.Bar((left, math.inf), (right, -math.inf), f"stage {css}"))
        foot = ((left + right) / 2, -math.inf)
        marks.append(Words(foot, shortened(stage, room), anchor="middle", shift=(0, -6)))
        start = end
    return marks
