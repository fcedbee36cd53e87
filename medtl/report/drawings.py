"""Which figures a finding gets from its curves and its subgroups."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from medtl.report import figures, panels
from medtl.report.figures import Figure, Point
from medtl.report.findings import Finding, group_sizes
from medtl.report.words import number

BY_SUBGROUP = ("sensitivity", "specificity", "auroc", "mae_months", "dice")
"""Measures that get a forest plot, in this order."""


def draw(finding: Finding) -> dict[str, Figure]:
    """The figures of a finding, by kind; a curve that metrics.json lacks is absent."""
    on_roc, on_pr = _places(finding)
    agreement = [
        number(finding.measures.get(name, {}).get("value"))
        for name in ("bias_months", "loa_low_months", "loa_high_months")
    ]
    drawers: dict[str, tuple[str, Callable[..., Figure]]] = {
        "roc": ("roc", partial(figures.roc, frozen=on_roc)),
        "precision_recall": ("pr", partial(figures.precision_recall, frozen=on_pr)),
        "score_histogram": ("hist", partial(figures.histogram, threshold=finding.threshold)),
        "reliability": ("rel", figures.reliability),
        "decision": ("dec", figures.decision),
        "bland_altman": ("bland", partial(panels.bland_altman, lines=agreement)),
        "dice_of_cases": ("strip", panels.dice_strip),
    }
    drawn = {}
    for name, (key, drawer) in drawers.items():
        curve = finding.curves.get(name)
        if curve is not None and len(curve.get("x") or []) > 1:
            drawn[key] = drawer(curve, ident=f"{finding.ident}-{key}", finding=finding.name)
    return drawn


def _places(finding: Finding) -> tuple[Point | None, Point | None]:
    """Where the frozen threshold lies on the ROC and on the precision-recall curve."""
    if finding.counts is None or finding.point is None:
        return None, None
    tp, fp, fn, tn = (finding.counts[name] for name in ("tp", "fp", "fn", "tn"))
    roc = (fp / (fp + tn), tp / (tp + fn)) if tp + fn and fp + tn else None
    recall = (tp / (tp + fn), tp / (tp + fp)) if tp + fn and tp + fp else None
    return roc, recall


def forests(finding: Finding) -> list[Figure]:
    """One forest plot per measure that was reported by subgroup."""
    sizes, drawn = group_sizes(finding), list[Figure]()
    for name in BY_SUBGROUP:
        rows = [row for row in finding.subsets if row["name"] == name]
        if rows:
            ident = f"{finding.ident}-forest-{name}"
            overall = finding.measures.get(name)
            drawn.append(panels.forest(name, overall, rows, sizes=sizes, ident=ident))
    return drawn


def gaps(finding: Finding) -> list[dict[str, str]]:
    """The differences between groups as rows of text: measure, group, difference, p, method."""
    adjusted = {
        (row["name"], row["subset"]): number(row["value"])
        for row in finding.subsets
        if str(row["name"]).endswith(("_gap_p", "_gap_p_holm"))
    }
    rows = []
    for row in finding.subsets:
        if not str(row["name"]).endswith("_gap"):
            continue
        cells = panels.gap_cells(row)
        for key in ("p", "p_holm"):
            p = adjusted.get((f"{row['name']}_{key}", row["subset"]))
            cells[key] = "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
        rows.append(cells)
    return rows
