"""Plots of a study: differences with intervals, and difference by position in the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medtl.storage.atomic import atomic_path
from medtl.studies.judgement import Effect
from medtl.types import Measure

COLORS = {"better": "#1a7f37", "worse": "#b42318"}
"""Of verdicts; all others are grey."""

LINES = (("#0969da", "-"), ("#57606a", "--"))
"""Colour and dash of the curves; they differ by dash too."""

POSITIONS = ("first3", "middle3", "last3")
"""Conditions of the zero-gamma ablation that differ in the place only, in forward order."""


def draw_study(effects: Sequence[Effect], measure: str, out: Path) -> list[str]:
    """Draw what can be drawn; return the names of the files.

    Args:
        effects: Of the study.
        measure: What was compared.
        out: Folder for `differences.svg` and `position.svg`.
    """
    known = {e.name: e for e in effects if e.runs.difference.value is not None}
    names = []
    if known:
        names.append("differences.svg")
        _draw(list(known.values()), measure, out / names[0])
    if all(name in known for name in POSITIONS):
        names.append("position.svg")
        _draw([known[name] for name in POSITIONS], measure, out / names[1], upright=True)
    return names


def draw_controls(models: Sequence[str], measures: Sequence[Measure], path: Path) -> None:
    """Draw what each model reaches, one a row, with its interval.

    Args:
        models: In words, the recipe's first.
        measures: One a model; one without a value leaves its row empty.
        path: The SVG file.
    """
    with _axes((7.0, 1.1 + 0.32 * len(models)), path) as axes:
        for place, measure in enumerate(measures):
            color = "#0969da" if place == 0 else "#57606a"
            if measure.low is not None and measure.high is not None:
                axes.plot([measure.low, measure.high], [place, place], color=color, linewidth=1.6)
            if measure.value is not None:
                axes.plot([measure.value], [place], linestyle="", marker="D", color=color)
        axes.yaxis.set_ticks(range(len(models)), models)
        axes.set_xlabel(measures[0].name.replace("_", " "))
        axes.invert_yaxis()


def draw_curves(
    patients: Sequence[int],
    lines: Mapping[str, Sequence[Sequence[float]]],
    measure: str,
    path: Path,
) -> None:
    """Draw a measure against training patients: every run as a dot, a line through the means.

    Args:
        patients: Of each share.
        lines: Model, in words -> for each share, the measure of each seed.
        measure: Its name.
        path: The SVG file.
    """
    with _axes((5.5, 3.6), path) as axes:
        for (name, by_share), (color, style) in zip(lines.items(), LINES, strict=False):
            for number, values in zip(patients, by_share, strict=True):
                axes.plot([number] * len(values), values, "o", markersize=3, color=color, alpha=0.4)
            means = [sum(values) / len(values) for values in by_share]
            axes.plot(patients, means, style, color=color, label=name)
        axes.set_xlabel("training patients")
        axes.set_ylabel(f"test {measure.replace('_', ' ')}")
        axes.legend()


def draw_levels(lines: Mapping[str, Sequence[Measure]], path: Path) -> None:
    """Draw what is reached at level 0, 1, ... of each condition, with intervals as bands.

    Args:
        lines: Name of a condition -> its measures; level 0, the images as they are, comes first.
        path: The SVG file.
    """
    names = list(lines)
    with _panels((7.5, 1.9 * -(-len(names) // 3)), len(names), path) as panels:
        for axes, name in zip(panels, names, strict=True):
            drawn = [(level, m) for level, m in enumerate(lines[name]) if m.low is not None]
            levels = [level for level, _ in drawn]
            axes.plot(levels, [m.value for _, m in drawn], "-o", markersize=3, color="#0969da")
            ends = [m.low for _, m in drawn], [m.high for _, m in drawn]
            axes.fill_between(levels, *ends, color="#0969da", alpha=0.15)
            axes.set_title(name.replace("_", " "), fontsize=9)
            axes.xaxis.get_major_locator().set_params(integer=True)


@contextmanager
def _panels(size: tuple[float, float], number: int, path: Path) -> Iterator[list[Any]]:
    """Axes in rows of three that share their vertical scale."""
    with _figure(size, path) as figure:
        rows = -(-number // 3)
        grid = figure.subplots(rows, 3, sharey=True, squeeze=False).ravel()
        for unused in grid[number:]:
            unused.set_axis_off()
        yield list(grid[:number])


@contextmanager
def _axes(size: tuple[float, float], path: Path) -> Iterator[Any]:
    """Axes whose drawing is written to an SVG file."""
    with _figure(size, path) as figure:
        yield figure.add_subplot()


@contextmanager
def _figure(size: tuple[float, float], path: Path) -> Iterator[Any]:
    """A figure that is written to an SVG file."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A fixed salt makes equal results equal bytes.
    with rc_context({"svg.hashsalt": "medtl", "svg.fonttype": "none"}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _draw(effects: Sequence[Effect], measure: str, path: Path, *, upright: bool = False) -> None:
    """Seeds as dots, means with intervals; one comparison a row, or a column when upright."""
    size = (1.5 + 1.1 * len(effects), 3.2) if upright else (7.0, 1.1 + 0.32 * len(effects))
    with _axes(size, path) as axes:
        for place, effect in enumerate(effects):
            _draw_effect(axes, place, effect, upright=upright)
        places = axes.xaxis if upright else axes.yaxis
        places.set_ticks(range(len(effects)), [effect.name for effect in effects])
        if upright:
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_ylabel(f"difference in {measure}")
        else:
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set_xlabel(f"difference in {measure}")
            axes.invert_yaxis()


def _draw_effect(axes: Any, place: int, effect: Effect, *, upright: bool) -> None:
    """One comparison: its seeds, its mean and its interval."""
    measure, color = effect.runs.difference, COLORS.get(effect.runs.verdict, "#57606a")

    def plot(values: Sequence[float], **style: Any) -> None:
        places = [place] * len(values)
        axes.plot(*((places, values) if upright else (values, places)), **style)

    seeds = list(effect.by_seed.values())
    plot(seeds, linestyle="", marker="o", markersize=3, color=color, alpha=0.35)
    if measure.low is not None and measure.high is not None:
        plot([measure.low, measure.high], color=color, linewidth=1.6)
    assert measure.value is not None
    plot([measure.value], linestyle="", marker="D", markersize=5, color=color)
