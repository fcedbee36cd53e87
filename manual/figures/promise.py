"""Thresholds that keep their promise: how often new patients reach the sensitivity aimed at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from manual.figures.canvas import BLUE, GREY, ORANGE, canvas
from medtl.metrics.operating_point import Rule, choose_operating_point

TARGET, STUDIES = 0.90, 400
POSITIVES = (25, 50, 100, 200)
"""Validation patients with the finding; as many have none."""

RULES: dict[str, Rule] = {
    "plain": {"sensitivity": TARGET},
    "assured": {"sensitivity": TARGET, "assurance": 0.9},
}


def measure_promise() -> dict[str, Any]:
    """Return, by rule, the share of drawn studies whose threshold keeps 0.90 on all new patients.

    Scores are normal, one standard deviation wide, 1.8 apart: the sensitivity of a threshold on
    endless new patients is then known, not estimated.
    """
    from scipy.stats import norm

    found: dict[str, Any] = {"target": TARGET, "studies": STUDIES, "positives": list(POSITIVES)}
    for name, rule in RULES.items():
        kept = []
        for n in POSITIVES:
            rng = np.random.default_rng(n)
            truth = np.repeat([1, 0], n)
            reached = [
                norm.sf(choose_operating_point(truth, rng.normal(1.8 * truth), rule).threshold, 1.8)
                for _ in range(STUDIES)
            ]
            kept.append(round(float(np.mean(np.asarray(reached) >= TARGET)), 2))
        found[name] = kept
    return found


def draw_promise(out: Path, found: dict[str, Any]) -> None:
    """Write `promise.png`."""
    figure, (axes,) = canvas(6, 2.8)
    for name, colour, told in (
        ("assured", BLUE, "with an assurance of 0.90 (medtl)"),
        ("plain", ORANGE, "highest threshold that reached 0.90"),
    ):
        axes.plot(found["positives"], found[name], color=colour, marker="o", label=told)
    axes.axhline(0.9, color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="validation patients with the finding", ylim=(0, 1.05),
             ylabel="studies that keep\na sensitivity of 0.90")  # fmt: skip
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(out / "promise.png")
