"""The measures of a finding at every site, and how much they differ between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medtl.evaluation.classification import LabelRows
from medtl.metrics.calibration import calibration_line
from medtl.metrics.confusion import share_measures
from medtl.metrics.intervals import normal_quantile
from medtl.metrics.ranking import NO_VARIANCE, auc_covariance, auroc
from medtl.metrics.scores import CI, Scores
from medtl.metrics.transfer.random_effects import random_effects
from medtl.types import FloatArray, Measure

SITE_COLUMNS = ("site", "hospital", "center", "centre", "institution")
"""Columns that say where a patient was seen; the first of them that results are broken down by."""


@dataclass(frozen=True)
class SitesOf:
    """One measure of one finding at every site.

    Attributes:
        label: The finding. column: That holds the site.
        sites: The measure at each, `subset` "column=site".
        pooled: Its mean over sites like these; undefined where fewer than two have an interval.
        predict_low, predict_high: Where the measure of a new site lies; None below three sites.
        tau2: Variance between sites (AUROC and shares: on the logit scale).
        i2: Share of the variance that is between sites, 0 to 1.
        q: Cochran's Q. p: that all sites are alike.
    """

    label: str
    column: str
    sites: tuple[Measure, ...]
    pooled: Measure
    predict_low: float | None = None
    predict_high: float | None = None
    tau2: float | None = None
    i2: float | None = None
    q: float | None = None
    p: float | None = None


def sites_of(rows: LabelRows, threshold: float | None, ci: CI) -> list[SitesOf]:
    """Return AUROC, calibration and, at the threshold, sensitivity and specificity over sites.

    Args:
        rows: Of a finding; the first of `SITE_COLUMNS` among its strata holds the site.
        threshold: Frozen; None without one.
        ci: Level of the intervals.

    Returns:
        One per measure; none with fewer than two sites. Rows of an unknown site are left out.
    """
    column = next((name for name in SITE_COLUMNS if name in rows.strata), "")
    names = rows.strata[column].astype(str) if column else np.array([], dtype=str)
    sites = np.unique(names[names != "unknown"])
    if sites.size < 2:
        return []
    found: dict[str, list[tuple[Measure, float]]] = {}
    for name in sites:
        part = rows.scores.only(names == name)
        for measure, error in _measures(part, threshold, rows.scores.are_probabilities, ci):
            of = replace(measure, label=rows.label, split=rows.split, subset=f"{column}={name}")
            found.setdefault(measure.name, []).append((of, error))
    return [_pooled(rows.label, column, mine, ci) for mine in found.values()]


def _measures(
    rows: Scores, threshold: float | None, calibrated: bool, ci: CI
) -> list[tuple[Measure, float]]:
    """Return the measures of a site and their errors, on the logit scale for those in [0, 1]."""
    area, error = auroc(rows, ci=ci), math.nan
    if area.status == "ok" and area.value is not None:
        codes = rows.patients if rows.clustered else None
        variance = float(auc_covariance(rows.truth, rows.score, codes)[1][0, 0])
        if variance > NO_VARIANCE:
            error = math.sqrt(variance) / (area.value * (1 - area.value))
    found = [(area, error)]
    if calibrated:
        of_slope = calibration_line(rows, ci=ci)
        found += [(of_slope[at], _wald_error(of_slope[at])) for at in (0, 2)]
    if threshold is not None:
        for share in share_measures(rows, threshold=threshold, ci=ci)[:2]:
            found.append((share, _logit_error(share)))
    return found


def _wald_error(measure: Measure) -> float:
    """Return the standard error of a measure with a Wald interval; NaN without one."""
    if measure.status != "ok" or measure.low is None or measure.high is None:
        return math.nan
    return (measure.high - measure.low) / (2 * normal_quantile(measure.confidence))


def _logit_error(measure: Measure) -> float:
    """Return the error of a share's logit from its interval; NaN where that touches 0 or 1."""
    if measure.low is None or measure.high is None or not 0 < measure.low < measure.high < 1:
        return math.nan
    low, high = _logit(np.array([measure.low, measure.high]))
    return float(high - low) / (2 * normal_quantile(measure.confidence))


def _logit(values: FloatArray) -> FloatArray:
    """Return log(x / (1 - x))."""
    return np.asarray(np.log(values / (1 - values)))


def _pooled(label: str, column: str, found: Sequence[tuple[Measure, float]], ci: CI) -> SitesOf:
    """Return the sites of one measure with their random-effects mean."""
    sites = tuple(measure for measure, _ in found)
    first = sites[0]
    blank = replace(ci.blank(first.name, sum(m.n for m in sites)), label=label, split=first.split)
    usable = [(m.value, error) for m, error in found if error > 0]
    if len(usable) < 2:
        return SitesOf(
            label, column, sites, blank.undefined("fewer than two sites have an interval")
        )
    values, errors = (np.array(part, dtype=float) for part in zip(*usable, strict=True))
    on_logit = first.name not in ("calibration_slope", "calibration_in_the_large")
    pooled = random_effects(_logit(values) if on_logit else values, errors, ci=ci)

    def back(value: float) -> float:
        return 1 / (1 + math.exp(-value)) if on_logit else value

    method = "random effects over sites, REML, Hartung-Knapp" + (", logit scale" * on_logit)
    left = len(sites) - len(usable)
    measure = blank.ok(back(pooled.value), (back(pooled.low), back(pooled.high)), method)
    if left:
        measure = replace(measure, reason=f"{left} sites without an interval were left out")
    low, high = (
        None if end is None else back(end) for end in (pooled.predict_low, pooled.predict_high)
    )
    return SitesOf(
        label, column, sites, measure, low, high, pooled.tau2, pooled.i2, pooled.q, pooled.p
    )
