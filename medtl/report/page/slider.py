"""The 2x2 tables of every stored threshold: points of the slider, rows of the printed table."""

from __future__ import annotations

from typing import Any

from medtl.report.language.numbers import number
from medtl.report.page.finding import CELLS, Finding
from medtl.report.svg.plot import thin

SLIDER_POINTS = 400
"""At most this many thresholds per finding go into the page."""
TABLE_POINTS = 9
"""Rows of the printed table of thresholds."""


def slider_points(finding: Finding) -> tuple[list[list[float | str]], int]:
    """The slider's 2x2 tables `[threshold, tp, fp, fn, tn]`, low to high, and the frozen index.

    The index is -1 when the finding has no operating point with counts. A threshold above every
    score is the word "inf", because JSON has no infinity.
    """
    kept = [finding.table[i] for i in thin(len(finding.table), SLIDER_POINTS)]
    rows = [[row[name] for name in ("threshold", *CELLS)] for row in kept]
    frozen = finding.threshold
    index = -1
    if frozen is not None and finding.counts is not None:
        rows = [row for row in rows if row[0] != frozen]
        index = sum(row[0] < frozen for row in rows)
        rows.insert(index, [frozen, *(finding.counts[name] for name in CELLS)])
    return [["inf" if v == float("inf") else v for v in row] for row in rows], index


def printed_points(finding: Finding) -> list[dict[str, Any]]:
    """A few thresholds with their counts, for paper and for readers without JavaScript."""
    points, frozen = slider_points(finding)
    chosen = set(thin(len(points), TABLE_POINTS)) | ({frozen} if frozen >= 0 else set())
    rows = []
    for index in sorted(chosen):
        threshold, *counts = (number(value) or 0.0 for value in points[index])
        rows.append({"frozen": index == frozen, "threshold": threshold, "counts": counts})
    return rows
