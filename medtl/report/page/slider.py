"""The 2x2 tables of every stored threshold: points of the slider, rows of the printed table."""

from __future__ import annotations

from typing import Any

from medtl.report.language.numbers import count_text, number, of_100, percent, threshold_text
from medtl.report.page.finding import Finding
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
    rows = [[row[name] for name in ("threshold", "tp", "fp", "fn", "tn")] for row in kept]
    frozen = finding.threshold
    index = -1
    if frozen is not None and finding.counts is not None:
        rows = [row for row in rows if row[0] != frozen]
        index = sum(row[0] < frozen for row in rows)
        rows.insert(index, [frozen, *(finding.counts[name] for name in ("tp", "fp", "fn", "tn"))])
    return [["inf" if v == float("inf") else v for v in row] for row in rows], index


def printed_points(finding: Finding) -> list[dict[str, Any]]:
    """A few thresholds as text, for paper and for readers without JavaScript."""
    points, frozen = slider_points(finding)
    chosen = set(thin(len(points), TABLE_POINTS)) | ({frozen} if frozen >= 0 else set())
    rows = []
    for index in sorted(chosen):
        threshold, tp, fp, fn, tn = (number(v) or 0.0 for v in points[index])
        rows.append(
            {
                "frozen": index == frozen,
                "threshold": threshold_text(threshold),
                "found": share_text(tp, tp + fn),
                "false": share_text(fp, fp + tn),
                "ppv": share_text(tp, tp + fp),
                "npv": share_text(tn, tn + fn),
                "counts": [count_text(v) for v in (tp, fn, fp, tn)],
            }
        )
    return rows


def share_text(part: float, whole: float) -> str:
    """A share in percent, or an en dash when there is nothing to divide by."""
    return percent(part / whole) if whole else "–"


def at_frozen(finding: Finding) -> dict[str, str]:
    """The counts at the frozen threshold as "of 100", for the sentence beside the slider."""
    if finding.counts is None:
        return {}
    tp, fp, fn, tn = (finding.counts[name] for name in ("tp", "fp", "fn", "tn"))
    return {
        "found": of_100(tp / (tp + fn)) if tp + fn else "–",
        "missed": of_100(fn / (tp + fn)) if tp + fn else "–",
        "false": of_100(fp / (fp + tn)) if fp + tn else "–",
    }
