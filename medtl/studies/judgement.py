"""A study's comparisons in words: the table, and what a reader must know to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medtl.metrics.paired_runs import PairedRuns

Kind = Literal["condition", "main", "interaction"]


@dataclass(frozen=True)
class Effect:
    """One comparison.

    Attributes:
        name: A condition, a level of a factor, or two of them.
        kind: Against the reference, the mean effect of a factor, or of two factors on each other.
        runs: The paired differences, judged.
        by_seed: Seed -> difference.
    """

    name: str
    kind: Kind
    runs: PairedRuns
    by_seed: Mapping[int, float]


def markdown_table(align: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; `align` has an l or an r for every column."""
    rule = "|".join("--:" if side == "r" else "---" for side in align)
    return [f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]


def effects_table(runs: Mapping[str, PairedRuns]) -> list[str]:
    """Return the lines of a Markdown table: interval, tests and verdict of every comparison.

    Args:
        runs: Name of the comparison -> what `compare_runs` says of it.
    """
    tests = ("p (t)", "p (Holm)", "p (Wilcoxon)")
    head = ("comparison", "pairs", "difference [95 % interval]", *tests, "can show", "verdict")
    return markdown_table(
        "lrlrrrrl", head, [[name, *_cells(found)] for name, found in runs.items()]
    )


def comparison_notes(runs: Mapping[str, PairedRuns], overlap: float) -> list[str]:
    """Return what a reader must know to read the table.

    Args:
        runs: As `effects_table`.
        overlap: Test share over training share of the splits; 0 when all runs share one.
    """
    if not runs:
        return []
    each = f" / {len(runs)}" if len(runs) > 1 else ""
    lines = [
        "Differences are paired, with 95 % intervals of the paired t test; p (Holm) is adjusted "
        f"for all comparisons of the table ({len(runs)}). 'Can show' is the smallest true "
        f"difference found with 80 % power at the level 0.05{each}; nothing below it is called "
        "real."
    ]
    if overlap:
        lines.append(
            "The runs split the same patients in different ways, so they are not independent: the "
            f"variance of a mean difference is s^2 (1/n + {overlap:.2f}), test share over training "
            "share (Nadeau and Bengio 2003). Wilcoxon's test does not know this."
        )
    if all(found.p_wilcoxon is None for found in runs.values()):
        lines.append("Wilcoxon's test needs six pairs: with five its p is never below 0.06.")
    return lines


def _cells(runs: PairedRuns) -> list[str]:
    """One comparison as the cells of its row."""
    measure = runs.difference
    interval = ""
    if measure.low is not None and measure.high is not None:
        interval = f" [{measure.low:+.3f}, {measure.high:+.3f}]"
    difference = "" if measure.value is None else f"{measure.value:+.3f}{interval}"
    numbers = (runs.p, runs.p_holm, runs.p_wilcoxon, runs.detectable)
    shown = ["" if value is None else f"{value:.3f}" for value in numbers]
    verdict = f"{runs.verdict}: {runs.reason}" if runs.reason else runs.verdict
    return [str(measure.n), difference, *shown, verdict]
