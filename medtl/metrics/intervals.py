"""Confidence intervals as pairs of numbers. Every function says which method it is."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from medtl.types import FloatArray

Interval = tuple[float, float]


def normal_quantile(confidence: float) -> float:
    """Return z of a two-sided interval: 1.959964 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(count: int, total: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval without continuity correction.

    Args:
        count: Successes, 0 to total.
        total: Trials, at least 1.
        confidence: In (0, 1).

    Reference:
        Wilson, JASA 1927;22:209, as in R's prop.test(correct=FALSE).
    """
    z2 = normal_quantile(confidence) ** 2
    share = count / total
    centre = share + z2 / (2 * total)
    half = math.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2)))
    low, high = (centre - half) / (1 + z2 / total), (centre + half) / (1 + z2 / total)
    # Rounding would otherwise leave 1e-17 and 0.9999999999999999 at the two ends.
    return (0.0 if count == 0 else low), (1.0 if count == total else high)


def clopper_pearson(count: int, total: int, confidence: float = 0.95) -> Interval:
    """Return the exact binomial interval from quantiles of the beta distribution.

    Args:
        count: Successes, 0 to total.
        total: Trials, at least 1.
        confidence: In (0, 1).

    Reference:
        Clopper and Pearson, Biometrika 1934;26:404.
    """
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - tail))
    return low, high


def newcombe_difference(
    first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95
) -> Interval:
    """Return the interval of first minus second, two independent proportions.

    Args:
        first: Successes and trials.
        second: Successes and trials.
        confidence: In (0, 1).

    Reference:
        Newcombe, Statistics in Medicine 1998;17:873, method 10 (hybrid of Wilson scores).
    """
    share1, share2 = first[0] / first[1], second[0] / second[1]
    low1, high1 = wilson(*first, confidence)
    low2, high2 = wilson(*second, confidence)
    difference = share1 - share2
    return (
        difference - math.hypot(share1 - low1, high2 - share2),
        difference + math.hypot(high1 - share1, share2 - low2),
    )


def newcombe_auc(auc: float, positives: int, negatives: int, confidence: float = 0.95) -> Interval:
    """Return an interval of an AUC that is usable where the variance of DeLong is 0.

    Args:
        auc: In [0, 1].
        positives: Units with the disease, at least 1.
        negatives: Units without, at least 1.
        confidence: In (0, 1).

    Reference:
        Newcombe, Statistics in Medicine 2006;25:559, method 5.
    """
    z2 = normal_quantile(confidence) ** 2
    half_total = (positives + negatives) / 2 - 1

    def excess(x: float) -> float:
        spread = 1 + half_total * (1 - x) / (2 - x) + half_total * x / (1 + x)
        return (auc - x) ** 2 - z2 * x * (1 - x) * spread / (positives * negatives)

    from scipy.optimize import brentq

    # At 0 and 1 the estimate itself is a root; the bound sought is the other one.
    inner = min(max(auc, 1e-9), 1 - 1e-9)
    low = 0.0 if auc == 0 else float(brentq(excess, 0, inner, xtol=1e-14))
    high = 1.0 if auc == 1 else float(brentq(excess, inner, 1, xtol=1e-14))
    return low, high


def wald(value: float, error: float, confidence: float = 0.95) -> Interval:
    """Return value plus and minus z standard errors.

    Args:
        value: The estimate.
        error: Its standard error.
        confidence: In (0, 1).
    """
    half = normal_quantile(confidence) * error
    return value - half, value + half


def logit_wald(value: float, error: float, quantile: float) -> Interval:
    """Return the interval of a share on the logit scale, which stays inside (0, 1).

    Args:
        value: In (0, 1), ends excluded.
        error: Standard error of the value on its own scale (delta method).
        quantile: Of the normal or t distribution (1.96 for 95 percent).
    """
    centre = math.log(value / (1 - value))
    half = quantile * error / (value * (1 - value))
    return 1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre))


def percentile(draws: FloatArray, confidence: float = 0.95) -> Interval:
    """Return the percentile bootstrap interval of the finite draws.

    Args:
        draws: `(resamples,)`; a resample without a value is NaN. At least one is finite.
        confidence: In (0, 1).
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws[np.isfinite(draws)], [tail, 1 - tail])
    return float(low), float(high)


def bias_corrected(
    draws: FloatArray, value: float, jackknife: FloatArray, confidence: float = 0.95
) -> Interval | None:
    """Return the BCa bootstrap interval, or None where the draws do not allow it.

    Args:
        draws: `(resamples,)` finite bootstrap values.
        value: The estimate.
        jackknife: `(n,)` estimates with one unit left out at a time.
        confidence: In (0, 1).

    Reference:
        Efron, JASA 1987;82:171.
    """
    below = np.count_nonzero(draws < value) / draws.size
    if not 0 < below < 1:
        return None
    normal = NormalDist()
    bias = normal.inv_cdf(below)
    spread = jackknife.mean() - jackknife
    scale = 6 * float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / scale if scale > 0 else 0.0
    levels = []
    for z in (-normal_quantile(confidence), normal_quantile(confidence)):
        shifted = bias + z
        levels.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(draws, levels)
    return float(low), float(high)
