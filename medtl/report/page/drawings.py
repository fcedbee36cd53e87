"""The figures of a finding, from its curves and its subgroups."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from medtl.report.language.numbers import number, unit_words
from medtl.report.page.finding import CELLS, Finding, Row, base_of, group_sizes
from medtl.report.svg import figures
from medtl.report.svg.figures import Reading
from medtl.report.svg.panels import forest
from medtl.report.svg.plot import Figure, Plot, Point

BY_SUBGROUP = ("sensitivity", "specificity", "auroc", "mae", "bias", "dice")
"""Measures that get a forest plot, in this order, without their units."""


def draw(finding: Finding, readers: Sequence[Reading] = ()) -> dict[str, Figure]:
    """The figures of a finding, by kind; a curve that metrics.json lacks is absent.

    Args:
        finding: Of the report.
        readers: Name and (1 - specificity, sensitivity) of human readers, for the ROC.
    """
    on_roc, on_pr = _places(finding)
    unit = unit_words(str(finding.named("mae").get("name", "")))

    def agreement(key: str, before: str = "", after: str = "") -> Callable[..., Plot]:
        """A plot of agreement with bias and limits, as far as they are known."""
        rows = (finding.named(f"{before}{part}{after}") for part in ("bias", "loa_low", "loa_high"))
        lines = [number(row.get("value")) for row in rows]
        return partial(figures.bland_altman, key=key, lines=lines)

    def of(name: str) -> Row:
        """A stored curve, empty where there is none."""
        return finding.curves.get(name, {})

    mended = {
        name: of(f"{name}_after_recalibration") for name in ("smooth_calibration", "decision")
    }
    smooth = {"smooth": of("smooth_calibration"), "mended": mended["smooth_calibration"]}
    histogram = partial(figures.histogram, finding=finding.name, threshold=finding.threshold)
    drawers: dict[str, tuple[str, Callable[..., Plot]]] = {
        "identity": ("bland_altman", figures.identity),
        "bland": ("bland_altman", agreement("bland")),
        "roc": ("roc", partial(figures.roc, frozen=on_roc, readers=readers)),
        "pr": ("precision_recall", partial(figures.precision_recall, frozen=on_pr)),
        "hist": ("score_histogram", histogram),
        "rel": ("reliability", partial(figures.reliability, **smooth)),
        "dec": ("decision", partial(figures.decision, mended=mended["decision"])),
        "strip": ("dice_of_cases", partial(figures.strip, key="strip", top=1.0)),
        "hd95": ("hd95_mm_of_cases", partial(figures.strip, key="hd95")),
        "volume": ("volume_bland_altman", agreement("volume", "volume_", "_ml")),
        "area": ("area_bland_altman", agreement("area", "area_", "_cm2")),
    }
    drawn: dict[str, Figure] = {}
    for key, (name, drawer) in drawers.items():
        curve = of(name)
        if len(curve.get("truth" if key == "identity" else "x") or []) > 1:
            words = {"finding": finding.name, "unit": unit}
            drawn[key] = drawer(curve).draw(f"{finding.ident}-{key}", **words)
    return drawn


def _places(finding: Finding) -> tuple[Point | None, Point | None]:
    """Places of the frozen threshold on the ROC and on the precision-recall curve."""
    if finding.counts is None or finding.point is None:
        return None, None
    tp, fp, fn, tn = (finding.counts[name] for name in CELLS)
    roc = (fp / (fp + tn), tp / (tp + fn)) if tp + fn and fp + tn else None
    recall = (tp / (tp + fn), tp / (tp + fp)) if tp + fn and tp + fp else None
    return roc, recall


def forests(finding: Finding) -> list[Figure]:
    """One forest plot per measure that was reported by subgroup."""
    sizes, drawn = group_sizes(finding), list[Figure]()
    for base in BY_SUBGROUP:
        rows = [row for row in finding.subsets if base_of(row["name"]) == base]
        rows.sort(key=lambda row: natural(str(row["subset"])))
        if rows:
            name = str(rows[0]["name"])
            ident = f"{finding.ident}-forest-{name}"
            drawn.append(forest(name, finding.named(base), rows, sizes=sizes, ident=ident))
    return drawn


def natural(text: str) -> tuple[tuple[bool, float, str], ...]:
    """A key that sorts "9-17" before "10-19", and what begins with "<" first."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text.replace("=<", "= 0 <"))
    return tuple(
        (False, float(part), "") if part[0].isdigit() else (True, 0.0, part) for part in parts
    )


def gaps(finding: Finding) -> list[tuple[Row, object, object]]:
    """The differences between groups, each with its p value, plain and adjusted by Holm."""
    values = {(row["name"], row["subset"]): row["value"] for row in finding.subsets}

    def p_of(row: Row, ending: str) -> object:
        return values.get((f"{row['name']}_{ending}", row["subset"]))

    rows = [row for row in finding.subsets if str(row["name"]).endswith("_gap")]
    return [(row, p_of(row, "p"), p_of(row, "p_holm")) for row in rows]
