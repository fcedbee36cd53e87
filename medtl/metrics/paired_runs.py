"""Is one way of training better than another? Paired runs: the same seeds, or the same folds.

Runs whose seeds draw their own splits of the same patients are not independent: their training sets
overlap, and a plain paired t test finds differences that are not there. The variance of the mean
difference is then s^2 (1/n + overlap) with overlap = test share / training share (Nadeau and Bengio
2003); it is the plain s^2 / n when the overlap is 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.comparison import holm, wilcoxon
from medtl.metrics.inputs import finite_vector
from medtl.types import FloatArray, Measure

POWER = 0.8
"""Chance with which the smallest detectable difference would be found."""

NO_SPREAD = 1e-12
"""Standard deviation of the differences below which they are all the same."""

QUANTILES = 4000
"""Points at which the distribution of the variance is averaged over."""

Verdict = Literal["better", "worse", "not shown", "identical", "undefined"]


@dataclass(frozen=True)
class PairedRuns:
    """The difference of two ways of training over paired runs.

    Attributes:
        difference: Mean of second minus first, with its interval; n is the number of pairs.
        sd: Of the differences, or None with one pair.
        p: Two-sided, of the (corrected) paired t test.
        p_plain: The same as if runs were independent; equal to `p` when they share one split.
        p_wilcoxon: Of the signed-rank test, None with fewer than six pairs.
        p_holm: `p` adjusted for everything tested together.
        detectable: Smallest true difference that so many runs find with 80 percent power.
        verdict: Whether a difference may be called real.
        reason: Why, for a reader.
    """

    difference: Measure
    sd: float | None = None
    p: float | None = None
    p_plain: float | None = None
    p_wilcoxon: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    verdict: Verdict = "undefined"
    reason: str = ""


def compare_runs(
    differences: Mapping[str, ArrayLike],
    *,
    overlap: float = 0.0,
    larger_is_better: bool = True,
    alpha: float = 0.05,
) -> dict[str, PairedRuns]:
    """Return what may be said of each set of paired differences, all tested together.

    A difference is called real only when its Holm-adjusted p is below `alpha` and it is not smaller
    than the smallest difference that this many runs could have shown. That one is computed at the
    level `alpha` / (number of comparisons), which is the first step of Holm's procedure.

    Args:
        differences: Name -> `(n,)` values of the second minus values of the first, by pair.
        overlap: Test share over training share when every run draws its own split, 0 when all runs
            share one; 1 / (k - 1) for k folds.
        larger_is_better: Whether a positive difference is good.
        alpha: Level of the tests; intervals have the level 1 - alpha.

    Raises:
        PredictionsError: For differences that are not finite.

    Reference:
        Nadeau and Bengio, Machine Learning 2003;52:239, equation 9; Holm 1979.
    """
    found = {
        name: _paired(finite_vector(values, name), overlap, alpha, max(1, len(differences)))
        for name, values in differences.items()
    }
    tested = [name for name, runs in found.items() if runs.p is not None]
    for name, p in zip(tested, holm([found[name].p or 0.0 for name in tested]), strict=True):
        found[name] = replace(found[name], p_holm=p)
    return {name: _judged(runs, larger_is_better, alpha) for name, runs in found.items()}


def detectable_difference(
    sd: float, n: int, *, overlap: float = 0.0, alpha: float = 0.05, power: float = POWER
) -> float:
    """Return the smallest true mean difference that a two-sided paired t test finds.

    Args:
        sd: Standard deviation of the paired differences.
        n: Number of pairs, at least 2.
        overlap: As `compare_runs`.
        alpha: Level of the test.
        power: Chance of finding it.

    Reference:
        Cohen 1988, chapter 2; the noncentral t as a mean of normals over the chi-square variance.
    """
    from scipy.optimize import brentq
    from scipy.special import chdtri, ndtr, stdtrit

    freedom = n - 1
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    tails = (np.arange(QUANTILES) + 0.5) / QUANTILES
    limits = critical * np.sqrt(chdtri(freedom, tails) / freedom)

    def lacking(shift: float) -> float:
        return float((ndtr(shift - limits) + ndtr(-shift - limits)).mean()) - power

    shift = float(brentq(lacking, 0.0, 10.0 + 10.0 * critical))
    return shift * sd * math.sqrt(1 / n + overlap)


def _paired(values: FloatArray, overlap: float, alpha: float, comparisons: int) -> PairedRuns:
    """The test of one set of differences, before what is tested with it is known."""
    blank = Measure(
        "mean_difference", None, n=values.size, confidence=1 - alpha, status="undefined"
    )
    if values.size < 2:
        reason = "it needs two paired runs"
        value = float(values[0]) if values.size else None
        status: Literal["degenerate", "undefined"] = "degenerate" if values.size else "undefined"
        return PairedRuns(replace(blank, value=value, status=status, reason=reason))
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd < NO_SPREAD:
        reason = "all runs differ by the same amount"
        same = replace(blank, value=mean, low=mean, high=mean, status="degenerate", reason=reason)
        return PairedRuns(same, sd=sd, p=1.0 if abs(mean) < NO_SPREAD else None)
    from scipy.special import stdtr, stdtrit

    freedom = values.size - 1
    error = sd * math.sqrt(1 / values.size + overlap)
    half = float(stdtrit(freedom, 1 - alpha / 2)) * error
    method = "paired t" if overlap == 0 else "paired t, variance corrected for overlapping splits"
    done = replace(blank, value=mean, low=mean - half, high=mean + half, method=method, status="ok")
    return PairedRuns(
        done,
        sd=sd,
        p=2 * float(stdtr(freedom, -abs(mean) / error)),
        p_plain=2 * float(stdtr(freedom, -abs(mean) / (sd / math.sqrt(values.size)))),
        p_wilcoxon=wilcoxon(values, np.zeros_like(values)).p,
        detectable=detectable_difference(
            sd, values.size, overlap=overlap, alpha=alpha / comparisons
        ),
    )


def _judged(runs: PairedRuns, larger_is_better: bool, alpha: float) -> PairedRuns:
    """The same with its verdict."""
    value = runs.difference.value
    if value is None or runs.sd is None:
        return replace(runs, reason=runs.difference.reason)
    if runs.sd < NO_SPREAD:
        if abs(value) < NO_SPREAD:
            return replace(runs, verdict="identical", reason="every pair of runs is equal")
        return replace(runs, reason=runs.difference.reason)
    limit, p = runs.detectable or math.inf, runs.p_holm if runs.p_holm is not None else 1.0
    if p >= alpha:
        reason = f"a true difference below {limit:.3f} could have been missed"
        return replace(runs, verdict="not shown", reason=reason)
    if abs(value) < limit:
        reason = f"smaller than {limit:.3f}, what {runs.difference.n} paired runs can show"
        return replace(runs, verdict="not shown", reason=reason)
    is_better = (value > 0) == larger_is_better
    return replace(runs, verdict="better" if is_better else "worse", reason="")
