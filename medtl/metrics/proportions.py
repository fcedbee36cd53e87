"""Shares of rows with an interval that respects patients."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.inputs import is_clustered, num_patients, patient_codes
from medtl.metrics.intervals import clopper_pearson, logit_wald, wilson
from medtl.types import BoolArray, FloatArray, IntArray, Measure

IntervalName = Literal["wilson", "clopper-pearson"]


def proportion(
    name: str,
    count: int,
    total: int,
    *,
    confidence: float = 0.95,
    interval: IntervalName = "wilson",
    of: str = "rows",
) -> Measure:
    """Return count / total of independent rows; undefined when the total is 0.

    Args:
        name: Of the measure.
        count: Rows that count, 0 to total.
        total: Rows of the denominator.
        confidence: Level of the interval.
        interval: Wilson without continuity correction, or Clopper-Pearson (exact).
        of: What the denominator holds, for the reason ("positives").

    Reference:
        Wilson 1927; Clopper and Pearson 1934.
    """
    blank = Measure(name, None, confidence=confidence, n=total, status="undefined")
    if total == 0:
        return replace(blank, reason=f"there are no {of}")
    bounds = {"wilson": wilson, "clopper-pearson": clopper_pearson}[interval]
    low, high = bounds(count, total, confidence)
    method = {"wilson": "Wilson", "clopper-pearson": "Clopper-Pearson"}[interval]
    return replace(blank, value=count / total, low=low, high=high, method=method, status="ok")


def proportion_of_rows(
    name: str,
    hits: BoolArray,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    interval: IntervalName = "wilson",
    of: str = "rows",
) -> Measure:
    """Return the share of rows that are hits; patients with several rows widen the interval.

    One row per patient: `proportion`. Several: the ratio linearised over patients on the logit
    scale. If the share is 0 or 1, or there is one patient only, Wilson with patients as the count.

    Args:
        name: Of the measure.
        hits: `(n,)` of the rows in the denominator.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
        interval: Used when there is one row per patient.
        of: What the denominator holds, for the reason.

    Reference:
        Survey-weighted ratio, Korn and Graubard 1999; R survey::svyciprop(method="logit").
    """
    codes = patient_codes(patients, hits.size)
    count, clusters = int(hits.sum()), num_patients(codes)
    plain = proportion(name, count, hits.size, confidence=confidence, interval=interval, of=of)
    plain = replace(plain, n_patients=clusters)
    if not is_clustered(codes) or plain.value is None:
        return plain
    error = linearised_error(hits, codes)
    if plain.value in (0.0, 1.0) or not error > 0:
        low, high = wilson(round(plain.value * clusters), clusters, confidence)
        return replace(plain, low=low, high=high, method="Wilson with the number of patients")
    from scipy.special import stdtrit

    quantile = float(stdtrit(clusters - 1, 0.5 + confidence / 2))
    low, high = logit_wald(plain.value, error, quantile)
    method = "ratio linearised over patients, logit scale"
    return replace(plain, low=low, high=high, method=method)


def ratio_influence(hits: ArrayLike, patients: IntArray) -> FloatArray:
    """Return how much each patient moves the share of hits, `(P,)`; the sum is 0.

    Args:
        hits: `(n,)` 0 or 1, n at least 1.
        patients: `(n,)` codes 0..P-1; codes that do not occur have influence 0.
    """
    values = np.asarray(hits, dtype=float)
    return np.bincount(patients, values - values.mean()) / values.size


def linearised_error(hits: ArrayLike, patients: IntArray) -> float:
    """Return the standard error of a share over patients; NaN with one patient.

    Args:
        hits: `(n,)` 0 or 1.
        patients: `(n,)` codes.

    Reference:
        Taylor linearisation with the factor G/(G-1), as in R's survey package.
    """
    clusters = num_patients(patients)
    if clusters < 2:
        return math.nan
    moved = ratio_influence(hits, patients)
    return math.sqrt(clusters / (clusters - 1) * float(moved @ moved))
