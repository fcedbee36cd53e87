"""Figures that are not curves of a score: 1000 patients, subgroups, the course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from medtl.report.language.numbers import (
    Kind,
    count_text,
    describe,
    interval_text,
    number,
    reason_of,
    value_text,
)
from medtl.report.language.texts import knows, plain, translated
from medtl.report.svg.figures import (
    Figure,
    Frame,
    axes,
    diamond,
    legend,
    line,
    nice_ticks,
    picture,
    text,
    thin,
    tick_text,
)

FEW_CASES, FEW_POSITIVES = 30, 10
"""A subgroup with fewer cases, or fewer with the finding, is shown in grey and not compared."""

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
    caption = plain("thousand.alt", finding=finding, **counts)
    height = _STEP * (-(-index // _COLUMNS))
    return Markup(
        f'<svg class="thousand" role="img" viewBox="0 0 {_STEP * _COLUMNS:g} {height:g}" '
        f'aria-labelledby="{ident}-t"><title id="{ident}-t">{escape(caption)}</title>'
        f"{''.join(paths)}</svg>"
    )


def is_small(size: Mapping[str, Any]) -> bool:
    """True when a subgroup is too small to be compared; `size` is a measure over all its rows."""
    positives = number(size["n_positive"])
    return (number(size["n"]) or 0) < FEW_CASES or (
        positives is not None and positives < FEW_POSITIVES
    )


def subset_text(subset: str) -> str:
    """A subset in words ("sex=F" as "sex: F"); an empty value is said to be unknown."""
    if subset == "all":
        return plain("word.all")
    column, _, value = subset.partition("=")
    return f"{_column_text(column)}: {_value_text(value)}"


def _column_text(column: str) -> str:
    """The name of a column of groups; the known ones are in the language of the report."""
    key = f"column.{column}"
    return plain(key) if knows(key) else column.replace("_", " ")


def _value_text(value: str) -> str:
    """The name of a group."""
    return plain("sub.unknown") if value in ("", "unknown") else value


def forest(
    name: str,
    overall: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, Any]],
    *,
    sizes: Mapping[str, Mapping[str, Any]],
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
    lines = _forest_lines(overall, rows)
    measured = [measure for _, measure in lines if measure is not None]
    floor, ceiling = _forest_range(measured, kind)
    height = 26.0 * len(lines) + 44
    frame = Frame(floor, ceiling, height=height, left=108.0, right=118.0, top=8.0, bottom=36.0)
    body = ""
    for tick in nice_ticks(floor, ceiling, 3):
        x = frame.x(tick)
        body += f'<path class="grid" d="M{x:.1f} {frame.top}V{height - frame.bottom}"/>'
        body += text(x, height - frame.bottom + 16, tick_text(tick), "tick", "middle")
    if overall and (centre := number(overall.get("value"))) is not None:
        x = frame.x(centre)
        body += f'<path class="line reference" d="M{x:.1f} {frame.top}V{height - frame.bottom}"/>'
    for index, (label, measure) in enumerate(lines):
        y = 20.0 + 26 * index
        if measure is None:
            body += text(0, y + 6, label, "row group")
            continue
        small = is_small(sizes[measure["subset"]])
        body += _forest_row(frame, y, label, measure, kind=kind, small=small)
    caption = plain("fig.forest.desc", measure=title)
    table = tuple(
        _forest_cells(subset_text(str(measure["subset"])), measure, kind, sizes[measure["subset"]])
        for measure in measured
    )
    head = (plain("sub.subgroup"), plain("sub.n"), title)
    svg = picture(frame, body, key="forest", ident=ident, title=title, caption=caption)
    return Figure(svg, title, caption, head, table, "forest")


def _forest_lines(
    overall: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Mapping[str, Any] | None]]:
    """The lines of a forest plot: all, then each column (its name, no measure) and its groups."""
    lines: list[tuple[str, Mapping[str, Any] | None]] = []
    if overall:
        lines.append((plain("word.all"), overall))
    before = ""
    for row in rows:
        column, _, value = str(row["subset"]).partition("=")
        if column != before:
            lines.append((_column_text(column), None))
        lines.append((_value_text(value), row))
        before = column
    return lines


def _forest_range(measures: Sequence[Mapping[str, Any]], kind: Kind) -> tuple[float, float]:
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


def _forest_row(
    frame: Frame, y: float, label: str, measure: Mapping[str, Any], *, kind: Kind, small: bool
) -> str:
    """One line of a forest plot: name, mark with whiskers, value."""
    css = "small" if small else "fair"
    short = label if len(label) <= 17 else label[:16] + "…"
    body = text(8, y + 4, short, f"row {css}")
    value = number(measure.get("value"))
    edge = frame.width - frame.right + 9
    if value is None:
        return body + text(edge, y + 4, plain("undefined.short"), f"row {css}")
    low, high = number(measure.get("low")), number(measure.get("high"))
    if low is not None and high is not None:
        body += f'<path class="whisker {css}" d="M{frame.x(low):.1f} {y}H{frame.x(high):.1f}"/>'
    if css == "small":
        body += f'<circle class="dot small" cx="{frame.x(value):.1f}" cy="{y}" r="4"/>'
    else:
        body += diamond(frame.x(value), y, "dot fair", 5.5)
    interval = "" if low is None or high is None else f" ({_bare(low, kind)}–{_bare(high, kind)})"
    return body + text(edge, y + 4, f"{_bare(value, kind)}{interval}", f"row value {css}")


def _bare(value: float, kind: Kind) -> str:
    """A value without its unit, short enough for a forest plot."""
    return value_text(value, kind).removesuffix("%") if kind == "share" else f"{value:.2f}"


def _forest_cells(
    label: str, measure: Mapping[str, Any], kind: Kind, size: Mapping[str, Any]
) -> tuple[str, ...]:
    """One row of a forest plot's table."""
    value = number(measure.get("value"))
    shown = plain("undefined.short") if value is None else value_text(value, kind)
    interval = interval_text(measure, kind)
    cases = f"{count_text(size['n'])} ({count_text(size['n_positive'])})"
    return label, cases, f"{shown} ({interval})" if interval else shown


def gap_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A difference between groups as text."""
    return {
        "measure": describe(str(row["name"]).removesuffix("_gap"))[0],
        "group": subset_text(str(row["subset"])),
        "value": difference_text(row),
        "method": translated(row["method"]),
    }


def difference_text(row: Mapping[str, Any]) -> str:
    """A difference with its sign and interval; shares differ by points of 100."""
    kind = describe(str(row["name"]).removesuffix("_gap").removesuffix("_difference"))[1]
    value = number(row.get("value"))
    if value is None:
        return plain("not_estimable", reason=reason_of(row))
    factor, digits = (100, ".1f") if kind == "share" else (1, ".3f" if kind == "score" else ".2f")

    def signed(difference: float) -> str:
        return format(factor * difference, f"+{digits}").replace("-", "−")

    shown = signed(value)
    low, high = number(row.get("low")), number(row.get("high"))
    if low is not None and high is not None:
        shown += f" ({plain('interval', low=signed(low), high=signed(high))})"
    return plain("value.points", n=shown) if kind == "share" else shown


def course(history: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Loss and watched measure by epoch, the stages shaded and the kept epoch marked."""
    figures = []
    series = [("train_loss", "train", "fig.train"), ("val_loss", "main", "fig.val")]
    figures.append(_course(history, series, key="loss", ident="history-loss"))
    if any(number(row.get("val_metric")) is not None for row in history):
        watched = [("val_metric", "main", "fig.val")]
        figures.append(_course(history, watched, key="metric", ident="history-metric"))
    return figures


def _course(
    history: Sequence[Mapping[str, Any]],
    series: Sequence[tuple[str, str, str]],
    *,
    key: str,
    ident: str,
) -> Figure:
    """One panel of the course of training."""
    values = [
        v for name, _, _ in series for row in history if (v := number(row.get(name))) is not None
    ]
    low, high = min(values or [0.0]), max(values or [1.0])
    pad = 0.08 * ((high - low) or 1.0)
    frame = Frame(
        0.5, len(history) + 0.5, low - pad, high + 3 * pad, height=300.0, left=58.0, bottom=48.0
    )
    body = _stage_columns(frame, history)
    body += axes(frame, plain("fig.epoch"), plain(f"fig.{key}.y"))
    for name, css, _ in series:
        points = [
            (float(index), value)
            for index, row in enumerate(history, start=1)
            if (value := number(row.get(name))) is not None
        ]
        body += line(frame, points, css)
    kept = [index for index, row in enumerate(history, start=1) if number(row.get("best")) == 1]
    if kept and (value := number(history[kept[-1] - 1].get(series[-1][0]))) is not None:
        x, y = frame.x(kept[-1]), frame.y(value)
        body += diamond(x, y, "frozen") + text(x, y - 11, plain("fig.best"), "mark-label", "middle")
    if len(series) > 1:
        body += legend(frame, [(css, words) for _, css, words in series])
    title, caption = plain(f"fig.{key}"), plain(f"fig.{key}.desc")
    chosen = thin(len(history), 40)
    rows = tuple(
        (
            str(index + 1),
            str(history[index].get("stage", "")),
            *(_short(history[index].get(name)) for name, _, _ in series),
        )
        for index in chosen
    )
    head = (
        plain("fig.epoch"),
        plain("learning.stage"),
        *(plain(words) for _, _, words in series),
    )
    svg = picture(frame, body, key=key, ident=ident, title=title, caption=caption)
    return Figure(svg, title, caption, head, rows, key)


def _short(value: object) -> str:
    """A number with four figures, or a dash."""
    result = number(value)
    return "–" if result is None else f"{result:.4g}".replace("-", "−")


def _stage_columns(frame: Frame, history: Sequence[Mapping[str, Any]]) -> str:
    """Shaded columns, one per stage, with the stage's name at the foot of the plot."""
    body, start = "", 0
    for index in range(1, len(history) + 1):
        ends = index == len(history) or history[index].get("stage") != history[start].get("stage")
        if not ends:
            continue
        left, right = frame.x(start + 0.5), frame.x(index + 0.5)
        floor = frame.height - frame.bottom
        css = "even" if len({str(r.get("stage")) for r in history[:index]}) % 2 else "odd"
        body += (
            f'<rect class="stage {css}" x="{left:.1f}" y="{frame.top}" '
            f'width="{right - left:.1f}" height="{floor - frame.top:.1f}"/>'
        )
        name = str(history[start].get("stage", ""))
        room = max(int((right - left) / 6.5), 2)
        short = name if len(name) <= room else name[: room - 1] + "…"
        body += text((left + right) / 2, floor - 6, short, "note", "middle")
        start = index
    return body
