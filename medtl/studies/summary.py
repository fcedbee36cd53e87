"""The result of a study of conditions: a table with intervals and a verdict per comparison."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from medtl.metrics.paired_runs import compare_runs
from medtl.storage.atomic import write_json, write_text
from medtl.studies.conditions import PLAN_FILE, Plan, load_plan
from medtl.studies.judgement import (
    Effect,
    Kind,
    comparison_notes,
    effects_table,
    markdown_table,
)
from medtl.studies.plots import draw_study
from medtl.studies.rows import Row, finished, lower_is_better, primary_measure, read_rows, values_of


@dataclass(frozen=True)
class Cell:
    """One condition on its own: mean and standard deviation over its finished runs."""

    condition: str
    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Cost:
    """What one condition takes: its network in words, and means over its finished runs.

    Attributes:
        condition: Its name.
        network: Parameters, operations and receptive field.
        minutes: Of training.
        peak_gb: Peak of memory, of the GPU where there is one; None where it is not known.
    """

    condition: str
    network: str
    minutes: float
    peak_gb: float | None


@dataclass(frozen=True)
class Summary:
    """The findings of a study so far.

    Attributes:
        plan: What it does.
        measure: What is compared.
        cells: One per condition.
        effects: One per comparison; empty with one condition.
        overlap: Test share over training share of the splits of two seeds; 0 for one split.
        failed: Runs that failed, with the reason.
        missing: Runs that have not been done.
        costs: One per condition, where they differ in their network.
    """

    plan: Plan
    measure: str
    cells: tuple[Cell, ...]
    effects: tuple[Effect, ...]
    overlap: float
    failed: tuple[str, ...]
    missing: int
    costs: tuple[Cost, ...] = ()


def summarise_study(out: str | PathLike[str], *, measure: str | None = None) -> Summary:
    """Sum a study up; leaves `summary.json`, `summary.md` and its plots in the folder.

    Args:
        out: A study folder; it may be unfinished.
        measure: Column of the rows; the plan's own when not stated.

    Raises:
        RunError: When the folder holds no plan, or the rows have no such measure.
    """
    out = Path(out)
    plan, rows = load_plan(out), read_rows(out)
    summary = summarise(plan, rows, measure=measure, overlap=split_overlap(out))
    write_json(out / "summary.json", to_json(summary))
    pictures = draw_study(summary.effects, summary.measure, out)
    write_text(out / "summary.md", to_markdown(summary, pictures))
    return summary


def summarise(
    plan: Plan, rows: Sequence[Row], *, measure: str | None = None, overlap: float = 0.0
) -> Summary:
    """Return what the rows of a study say.

    Args:
        plan: Of the study.
        rows: Of its runs.
        measure: Column of the rows; the plan's own when not stated.
        overlap: See `split_overlap`; used when seeds have splits of their own.

    Raises:
        RunError: When the rows have no such measure.
    """
    measure = measure or plan.measure or primary_measure(rows)
    values = {name: values_of(rows, name, measure) for name in plan.conditions}
    overlap = 0.0 if plan.shares_the_split else overlap
    differences = _factor_effects(plan, values) if plan.factors else _contrasts(plan, values)
    judged = compare_runs(
        {name: list(by_seed.values()) for (name, _), by_seed in differences.items()},
        overlap=overlap,
        larger_is_better=not lower_is_better(measure),
    )
    ended = {(row["condition"], row["seed"]) for row in rows}
    return Summary(
        plan=plan,
        measure=measure,
        cells=tuple(_cell(name, list(by_seed.values())) for name, by_seed in values.items()),
        effects=tuple(
            Effect(name, kind, judged[name], by_seed)
            for (name, kind), by_seed in differences.items()
        ),
        overlap=overlap,
        failed=tuple(
            f"{row['condition']}, seed {row['seed']}: {row['error']}"
            for row in rows
            if row["status"] == "failed"
        ),
        missing=sum(pair not in ended for pair in plan.pairs),
        costs=_costs(plan, rows),
    )


def _costs(plan: Plan, rows: Sequence[Row]) -> tuple[Cost, ...]:
    """What each condition takes; nothing where all have one network, which says it once."""
    done = finished(rows)
    found = []
    for name in plan.conditions:
        own = [row for (condition, _), row in done.items() if condition == name]
        known = [row for row in own if row.get("network")]
        if known:
            peaks = [row["peak_gb"] for row in known if row.get("peak_gb") is not None]
            minutes = float(np.mean([row["seconds"] for row in known])) / 60
            peak = float(np.mean(peaks)) if peaks else None
            found.append(Cost(name, known[0]["network"], minutes, peak))
    return tuple(found) if len({cost.network for cost in found}) > 1 else ()


def split_overlap(out: Path) -> float:
    """Return test share over training share (validation included) of a study's own splits."""
    stored = json.loads((out / PLAN_FILE).read_text("utf-8"))
    train, val, test = stored["recipe"]["data"]["split"]["fractions"]
    return float(test / (train + val))


Differences = dict[tuple[str, Kind], dict[int, float]]
"""(name, kind) of a comparison -> seed -> difference."""


def _contrasts(plan: Plan, values: Mapping[str, Mapping[int, float]]) -> Differences:
    """Every condition minus the reference, over the seeds that both have."""
    reference = values[plan.reference]
    return {
        (name, "condition"): {s: own[s] - reference[s] for s in sorted(own) if s in reference}
        for name, own in values.items()
        if name != plan.reference
    }


def _factor_effects(plan: Plan, values: Mapping[str, Mapping[int, float]]) -> Differences:
    """Main effects of the factors and, for factors of two levels, of one factor on another."""
    seeds = sorted(set.intersection(*(set(own) for own in values.values())))

    def effect(more: Sequence[str], less: Sequence[str]) -> dict[int, float]:
        return {
            s: float(np.mean([values[c][s] for c in more]) - np.mean([values[c][s] for c in less]))
            for s in seeds
        }

    found: Differences = {}
    pairs: dict[str, tuple[str, set[str], set[str]]] = {}
    for factor, levels in plan.factors.items():
        first, *others = levels
        for level in others:
            name = f"{factor}: {level} instead of {first}"
            found[name, "main"] = effect(levels[level], levels[first])
        if len(levels) == 2:
            pairs[factor] = (others[0], set(levels[others[0]]), set(levels[first]))
    for (_, (name, more, less)), (_, (other, also, not_also)) in itertools.combinations(
        pairs.items(), 2
    ):
        same = sorted((more & also) | (less & not_also))
        crossed = sorted((more & not_also) | (less & also))
        # How much more the one does with the other: the difference of two differences.
        found[f"{name} x {other}", "interaction"] = {
            s: 2 * value for s, value in effect(same, crossed).items()
        }
    return found


def _cell(condition: str, values: Sequence[float]) -> Cell:
    """One condition on its own."""
    mean = float(np.mean(values)) if values else None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Cell(condition, len(values), mean, sd)


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the content of `summary.json`."""
    return {
        "schema": "medtl-study/1",
        "measure": summary.measure,
        "reference": summary.plan.reference,
        "seeds": list(summary.plan.seeds),
        "vary": list(summary.plan.vary),
        "overlap": summary.overlap,
        "missing": summary.missing,
        "failed": list(summary.failed),
        "cells": [asdict(cell) for cell in summary.cells],
        "costs": [asdict(cost) for cost in summary.costs],
        "effects": [asdict(effect) for effect in summary.effects],
        "notes": notes(summary),
    }


def notes(summary: Summary) -> list[str]:
    """Return what a reader must know to read the table."""
    lines = []
    if summary.missing:
        lines.append(f"Unfinished: {summary.missing} runs have not been done.")
    if summary.plan.shares_the_split:
        lines.append(
            "All seeds share one split: the intervals hold the variation between trainings, not "
            "the sampling of patients."
        )
    judged = {effect.name: effect.runs for effect in summary.effects}
    return lines + comparison_notes(judged, summary.overlap)


def to_markdown(summary: Summary, pictures: Sequence[str] = ()) -> str:
    """Return the result as Markdown.

    Args:
        summary: Of a study.
        pictures: Names of files beside it.
    """
    plan, reference = summary.plan, summary.plan.reference
    cells = []
    for cell in summary.cells:
        spread = ["" if value is None else f"{value:.3f}" for value in (cell.mean, cell.sd)]
        cells.append([cell.condition, str(cell.n), *spread])
    table = markdown_table("lrrr", ("condition", "runs", "mean", "SD"), cells)
    lines = [plan.question, ""] if plan.question else []
    lines += [f"Test {summary.measure}, reference: {reference}.", "", *table, ""]
    lines += _cost_table(summary.costs)
    if summary.effects:
        lines += [*effects_table({e.name: e.runs for e in summary.effects}), ""]
    lines += [f"- {note}" for note in notes(summary)]
    lines += [f"- Failed: {text}" for text in summary.failed]
    lines += ["", *(f"![{name}]({name})" for name in pictures)]
    return "\n".join(lines).rstrip() + "\n"


def _cost_table(costs: Sequence[Cost]) -> list[str]:
    """The lines of a Markdown table of what each condition takes, and an empty one after it."""
    if not costs:
        return []
    head = ("condition", "network", "minutes a run", "peak memory, GB")
    rows = [
        [
            cost.condition,
            cost.network,
            f"{cost.minutes:.1f}",
            "" if cost.peak_gb is None else f"{cost.peak_gb:.1f}",
        ]
        for cost in costs
    ]
    return [*markdown_table("llrr", head, rows), ""]
