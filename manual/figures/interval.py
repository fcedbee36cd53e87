"""Reading an interval: forty studies of one model, each with its AUROC and interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import medtl as mt
from manual.figures.canvas import BLUE, GREY, ORANGE, canvas

APART = 1.2
"""Standard deviations between the scores with and without the finding."""

PATIENTS, DRAWN = (60, 600), 40


def measure_intervals() -> dict[str, Any]:
    """Return the true AUROC and, by number of patients, low, value and high of each study."""
    from scipy.stats import norm

    true = float(norm.cdf(APART / np.sqrt(2)))
    found: dict[str, Any] = {"true": round(true, 3), "studies": DRAWN}
    for n in PATIENTS:
        rng = np.random.default_rng(11)
        truth = np.arange(n) % 3 == 0
        drawn = [mt.metrics.auroc(truth, rng.normal(APART * truth)) for _ in range(DRAWN)]
        rows = [[round(float(v or 0), 3) for v in (m.low, m.value, m.high)] for m in drawn]
        found[str(n)] = rows
        found[f"{n}_missed"] = sum(not low <= true <= high for low, _, high in rows)
        found[f"{n}_width"] = round(float(np.median([high - low for low, _, high in rows])), 2)
    return found


def draw_intervals(out: Path, found: dict[str, Any]) -> None:
    """Write `interval.png`."""
    figure, axes = canvas(8, 3.2, 2)
    for at, n in zip(axes, PATIENTS, strict=True):
        for row, (low, value, high) in enumerate(found[str(n)]):
            holds = low <= found["true"] <= high
            colour = BLUE if holds else ORANGE
            at.plot([low, high], [row, row], color=colour, linewidth=1.4 if holds else 2.4)
            at.plot(value, row, "o", color=colour, markersize=2.5)
        at.axvline(found["true"], color=GREY, linestyle=":")
        at.set(xlim=(0.5, 1), xlabel="AUROC", yticks=[])
        at.set_title(f"{n} patients a study", fontsize=9)
        at.spines["left"].set_visible(False)
    figure.tight_layout()
    figure.savefig(out / "interval.png")
