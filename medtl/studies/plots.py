"""Plots of a study: differences with intervals, and difference by position in the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtl.storage.atomic import atomic_path
from medtl.studies.judgement import Effect

COLORS = {"better": "#1a7f37", "worse": "#b42318"}
"""Of verdicts; all others are grey."""

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


def _draw(effects: Sequence[Effect], measure: str, path: Path, *, upright: bool = False) -> None:
    """Seeds as dots, means with intervals; one comparison a row, or a column when upright."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    size = (1.5 + 1.1 * len(effects), 3.2) if upright else (7.0, 1.1 + 0.32 * len(effects))
    # A fixed salt makes equal results equal bytes.
    with rc_context({"svg.hashsalt": "medtl", "svg.fonttype": "none"}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
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
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


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
