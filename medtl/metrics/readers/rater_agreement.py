"""Do several readers say the same? Agreement beyond chance, with intervals over patients."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.scores import CI, CI95, Ids, num_patients, patient_codes
from medtl.types import Measure


def reader_agreement(marks: ArrayLike, *, patients: Ids = None, ci: CI = CI95) -> list[Measure]:
    """Return the share of agreeing pairs, Fleiss' kappa and Gwet's AC1 of categorical marks.

    Kappa falls when nearly all cases are alike, however well readers agree; AC1 does not: both are
    given. A reader may have left out cases; a case that one reader alone has read counts for the
    shares of the categories only.

    Args:
        marks: `(n, r)` categories as numbers, n cases and r readers; NaN where not read.
        patients: `(n,)` identifiers, or None for one case per patient.
        ci: Level of the t intervals over patients.

    Raises:
        PredictionsError: If the marks are not a table.

    Reference:
        Fleiss, Psychol Bull 1971;76:378; Gwet, Br J Math Stat Psychol 2008;61:29; missing marks and
        variances as in Gwet, Handbook of Inter-Rater Reliability 2014 (R irrCAC).

    >>> [round(m.value, 3) for m in reader_agreement([[1, 1], [0, 0], [0, 1], [0, 0], [0, 0]])]
    [0.8, 0.524, 0.655]
    """
    table = np.asarray(marks, dtype=float)
    if table.ndim != 2:
        raise PredictionsError(f"marks of shape {table.shape}", expected="(cases, readers)")
    codes = patient_codes(patients, len(table))
    read = np.isfinite(table).sum(axis=1)
    table, codes, read = table[read > 0], codes[read > 0], read[read > 0]
    categories = np.unique(table[np.isfinite(table)])
    clusters, pairs = num_patients(codes), read > 1
    names = ("agreement", "fleiss_kappa", "gwet_ac1")
    blanks = [ci.blank(name, len(table), patients=clusters) for name in names]
    if categories.size < 2 or not pairs.any():
        reason = "all marks are equal" if pairs.any() else "no case was read by two readers"
        return [blank.undefined(reason) for blank in blanks]
    counts = (table[:, :, None] == categories).sum(axis=1)
    alike = np.zeros(len(table))
    alike[pairs] = ((counts * (counts - 1)).sum(axis=1) / (read * (read - 1.0).clip(1)))[pairs]
    observed, weight = float(alike[pairs].mean()), len(table) / pairs.sum()
    shares = counts / read[:, None]
    share = shares.mean(axis=0)
    chances = (
        np.zeros(len(table)),
        shares @ share,
        shares @ (1 - share) / (categories.size - 1),
    )
    found = []
    for blank, of_case in zip(blanks, chances, strict=True):
        chance = float(of_case.mean())
        value = (observed - chance) / (1 - chance)
        # What each case adds, with its part in the agreement by chance: Gwet 2014, section 5.4.
        mine = np.where(pairs, weight * (alike - chance) / (1 - chance), 0.0)
        moved = mine - 2 * (1 - value) * (of_case - chance) / (1 - chance) - value
        found.append(_with_interval(blank, value, np.bincount(codes, moved) / len(table)))
    return found


def _with_interval(blank: Measure, value: float, moved: np.ndarray) -> Measure:
    """Return the measure with its t interval from the influence of every patient, at most 1."""
    clusters = blank.n_patients or 0
    if clusters < 2 or not moved.any():
        return blank.weak(value, "it does not vary between patients, or there is one patient only")
    from scipy.special import stdtrit

    error = math.sqrt(clusters / (clusters - 1) * float(moved @ moved))
    half = float(stdtrit(clusters - 1, 0.5 + blank.confidence / 2)) * error
    return blank.ok(value, (max(value - half, -1.0), min(value + half, 1.0)), "t over patients")
