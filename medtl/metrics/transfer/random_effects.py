"""One measure at several sites: how much it differs between them, and what a new site may see."""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.scores import CI, CI95, finite_vector
from medtl.types import FloatArray


@dataclass(frozen=True)
class RandomEffects:
    """A measure pooled over sites, on the scale on which it was given.

    Attributes:
        value: Mean over sites like these. low, high: Its interval.
        error: Its standard error.
        tau2: Variance between sites.
        i2: Share of the variance that is between sites, 0 to 1.
        q: Cochran's Q. p: of Q, that all sites are alike.
        predict_low, predict_high: Where what a new site like these measures lies, None below three
            sites.
        sites: How many.
    """

    value: float
    low: float
    high: float
    error: float
    tau2: float
    i2: float
    q: float
    p: float
    predict_low: float | None
    predict_high: float | None
    sites: int


def random_effects(values: ArrayLike, errors: ArrayLike, *, ci: CI = CI95) -> RandomEffects:
    """Return the random-effects mean of the sites by REML, with Hartung and Knapp's interval.

    Args:
        values: `(k,)` of k sites, at least 2, on a scale on which they are about normal: logits.
        errors: `(k,)` standard errors, above 0.
        ci: Level of the interval and of the prediction interval, both of t with k - 1.

    Raises:
        PredictionsError: If there are not two sites with an error each.

    Reference:
        Viechtbauer, J Educ Behav Stat 2005;30:261 (REML, I2); Hartung and Knapp, Statistics in
        Medicine 2001;20:3875; R metafor; where no variance between sites is found, with the lower
        bound of Knapp and Hartung (2003;22:2693), metafor's "adhoc". Prediction: the wider of
        IntHout et al., BMJ Open 2016;6:e010247, which alone covers .85 to .94 with 3 to 20 sites,
        and of that from the spread of the sites' values themselves (Hahn and Meeker 1991, section
        4.7).

    >>> pooled = random_effects([0.1, 0.5, 0.9], [0.1, 0.1, 0.1])
    >>> round(pooled.value, 3), round(pooled.tau2, 3)  # 0.16 - 0.01
    (0.5, 0.15)
    """
    y, error = finite_vector(values, "values"), finite_vector(errors, "errors")
    if y.size < 2 or y.size != error.size or not (error > 0).all():
        raise PredictionsError(
            f"{y.size} values and {error.size} errors", expected="two sites, each with an error"
        )
    from scipy.optimize import brentq
    from scipy.special import chdtrc, stdtrit

    variance = error**2

    def score(tau2: float) -> float:
        weight, mean = _weighted(y, variance + tau2)
        total = weight.sum()
        return float(
            (weight**2 @ (y - mean) ** 2) - total + (weight @ weight) / total
        )  # twice the derivative of the restricted likelihood

    tau2 = 0.0
    if score(0.0) > 0:
        above = float(y.var(ddof=1)) + float(variance.max())
        while score(above) > 0:
            above *= 2
        tau2 = float(brentq(score, 0.0, above, xtol=1e-14, rtol=1e-14))
    fixed, mean = _weighted(y, variance)
    q = float(fixed @ (y - mean) ** 2)
    weight, mean = _weighted(y, variance + tau2)
    freedom = y.size - 1
    # Sites that agree by chance would have no width: never narrower than their own errors.
    excess = float(weight @ (y - mean) ** 2) / freedom
    spread = (excess if tau2 > 0 else max(excess, 1.0)) / float(weight.sum())
    t = float(stdtrit(freedom, 0.5 + ci.level / 2))
    half, observed = t * math.sqrt(spread), float(y.var(ddof=1)) * (1 + 1 / y.size)
    ahead = t * math.sqrt(max(spread + tau2, observed))
    typical = freedom * fixed.sum() / (fixed.sum() ** 2 - fixed @ fixed)
    low, high = (mean - ahead, mean + ahead) if y.size > 2 else (None, None)
    i2, p = float(tau2 / (tau2 + typical)), float(chdtrc(freedom, q))
    error_of = math.sqrt(spread)
    return RandomEffects(
        mean, mean - half, mean + half, error_of, tau2, i2, q, p, low, high, y.size
    )


def _weighted(values: FloatArray, variance: FloatArray) -> tuple[FloatArray, float]:
    """Return the weights of the sites and their weighted mean."""
    weight = 1 / variance
    return weight, float(weight @ values / weight.sum())
