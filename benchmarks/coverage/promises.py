"""How often a threshold keeps the sensitivity that was promised on validation."""

from __future__ import annotations

import math
import zlib

import numpy as np
from scipy.special import ndtr, ndtri

from medtl.metrics.operating_point import choose_operating_point

STUDIES = 2000
"""Simulated studies of a cell; each chooses its threshold on validation rows of its own."""

SHARE, ASSURANCE = 0.9, 0.9

CELLS = tuple((positives, auroc) for positives in (40, 100) for auroc in (0.85, 0.95))
"""Validation positives, and as many negatives; AUROC of the binormal scores."""


def kept_and_specificity(
    positives: int, auroc: float, assurance: float, seed: int
) -> tuple[float, float]:
    """Return the share of studies whose threshold keeps the sensitivity, and the mean specificity.

    Both are the true ones of the threshold, on patients without number.
    """
    shift = math.sqrt(2) * float(ndtri(auroc))
    truth = np.repeat([False, True], [positives, positives])
    rng = np.random.default_rng([seed, zlib.crc32(f"{positives}, {auroc}".encode())])
    scores = rng.normal(size=(STUDIES, truth.size)) + shift * truth
    rule = {"sensitivity": SHARE, "assurance": assurance}
    at = np.array([choose_operating_point(truth, row, rule).threshold for row in scores])
    return float((ndtr(shift - at) >= SHARE).mean()), float(ndtr(at).mean())


def section(seed: int) -> list[str]:
    """Return the lines of the report."""
    lines = [
        "## Promised sensitivity",
        "",
        f"Share of {STUDIES:,} simulated studies in which the threshold that validation chose for",
        f"a sensitivity of {SHARE:g} has it on new patients, and the mean specificity there: by",
        f"the plain rule, and with an assurance of {ASSURANCE:g}, which is the default.",
        "",
        "| positives | AUROC | plain: kept | specificity | assured: kept | specificity |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for positives, auroc in CELLS:
        found = [
            f"{value:.3f}"
            for assurance in (0.0, ASSURANCE)
            for value in kept_and_specificity(positives, auroc, assurance, seed)
        ]
        lines.append(f"| {positives} | {auroc:g} | {' | '.join(found)} |")
    return [*lines, ""]
