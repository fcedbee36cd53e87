"""Which figures a finding gets from its curves and its subgroups."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from medtl.report.language.numbers import number, p_text
from medtl.report.page.finding import Finding, group_sizes
from medtl.report.svg import figures, panels, scatter
from medtl.report.svg.figures import Figure, Point, Reading

BY_SUBGROUP = ("sensitivity", "specificity", "auroc", "mae_months", "bias_months", "dice")
"""Measures that get a forest plot, in this order."""


def draw(finding: Finding, readers: Sequence[Reading] = ()) -> dict[str, Figure]:
    """The figures of a finding, by kind; a curve that metrics.json lacks is absent.

    Args:
        finding: Of the report.
        readers: Name and (1 - specificity, sensitivity) of human readers, for the ROC.
    """
    on_roc, on_pr = _places(finding)

    def limits(name: str, unit: str) -> list[float | None]:
        """Bias and limits of agreement, as far as they are known."""
        names = (f"{name}{part}_{unit}" for part in ("bias", "loa_low", "loa_high"))
        return [number(finding.measures.get(measure, {}).get("value")) for measure in names]

    drawers: dict[str, tuple[str, Callable[..., Figure]]] = {
        "roc": ("roc", partial(figures.roc, frozen=on_roc, readers=readers)),
        "precision_recall": ("pr", partial(figures.precision_recall, frozen=on_pr)),
        "score_histogram": ("hist", partial(figures.histogram, threshold=finding.threshold)),
        "reliability": ("rel", figures.reliability),
        "decision": ("dec", figures.decision),
        "dice_of_cases": ("strip", partial(scatter.strip, key="strip", top=1.0)),
        "hd95_mm_of_cases": ("hd95", partial(scatter.strip, key="hd95")),
    }
    for size, unit in (("volume", "ml"), ("area", "cm2")):
        agreement = partial(scatter.bland_altman, lines=limits(f"{size}_", unit), key=size)
        drawers[f"{size}_bland_altman"] = (size, agreement)
    curve = finding.curves.get("bland_altman")
    drawn: dict[str, Figure] = {}
    if curve is not None and len(curve.get("x") or []) > 1:
        about = {"finding": finding.name}
        if curve.get("truth"):
            ident = f"{finding.ident}-identity"
            drawn["identity"] = scatter.identity(curve, ident=ident, **about)
        drawn["bland"] = scatter.bland_altman(
            curve, ident=f"{finding.ident}-bland", lines=limits("", "months"), **about
        )
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
        rows.sort(key=lambda row: natural(str(row["subset"])))
        if rows:
            ident = f"{finding.ident}-forest-{name}"
            overall = finding.measures.get(name)
            drawn.append(panels.forest(name, overall, rows, sizes=sizes, ident=ident))
    return drawn


def natural(text: str) -> tuple[tuple[bool, float, str], ...]:
    """A key that sorts "9-17" before "10-19", and what begins with "<" first."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text.replace("=<", "= 0 <"))
    return tuple(
        (False, float(part), "") if part[0].isdigit() else (True, 0.0, part) for part in parts
    )


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
            cells[key] = p_text(p)
        rows.append(cells)
    return rows
