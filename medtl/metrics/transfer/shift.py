"""How other patients differ from those a model was made on, and what a shift of prevalence does."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.intervals import wald
from medtl.metrics.scores import CI, CI95, finite_vector
from medtl.metrics.temperature import expit, logit
from medtl.types import FloatArray, Measure


def standardised_difference(
    source: ArrayLike,
    target: ArrayLike,
    *,
    name: str = "standardised_difference",
    ci: CI = CI95,
) -> Measure:
    """Return (mean of target - mean of source) / pooled SD; beyond 0.1 it is called a difference.

    Args:
        source: `(n,)` numbers, or 0 and 1 for a share; one value per patient.
        target: `(m,)`.
        name: Of the measure.
        ci: Level of the interval.

    Reference:
        Austin, Statistics in Medicine 2009;28:3083; interval of Hedges and Olkin 1985.

    >>> standardised_difference([50, 60, 70, 80], [60, 70, 80, 90])
    standardised_difference: 0.775 [-0.662, 2.212], n = 4 (Hedges-Olkin)
    """
    one, two = finite_vector(source, "source"), finite_vector(target, "target")
    blank = ci.blank(name, two.size)
    if min(one.size, two.size) < 2:
        return blank.undefined("it needs two patients on either side")
    shares = np.isin([*one, *two], (0, 1)).all()
    spread = math.sqrt((one.var(ddof=0 if shares else 1) + two.var(ddof=0 if shares else 1)) / 2)
    gap = float(two.mean() - one.mean())
    if not spread > 0:
        return blank.ok(0.0, (0.0, 0.0), "") if gap == 0 else blank.undefined("it does not vary")
    value, total = gap / spread, one.size + two.size
    error = math.sqrt(total / (one.size * two.size) + value**2 / (2 * total))
    return blank.ok(value, wald(value, error, ci.level), "Hedges-Olkin")


def difference_between(source: Measure, target: Measure) -> Measure:
    """Return target minus source of one measure in two independent groups of patients.

    Args:
        source: With its interval.
        target: With its interval, of the same level.

    Reference:
        MOVER: Zou and Donner, Statistics in Medicine 2008;27:1693; Newcombe 1998 for shares.

    >>> old = Measure("auroc", 0.9, low=0.86, high=0.93)
    >>> difference_between(old, Measure("auroc", 0.8, low=0.7, high=0.87))
    auroc_difference: -0.100 [-0.204, -0.019], n = 0 (MOVER)
    """
    blank = CI(target.confidence).blank(
        f"{target.name}_difference", target.n, target.n_positive, target.n_patients
    )
    if source.value is None or target.value is None:
        which, why = ("source", source) if source.value is None else ("target", target)
        return blank.undefined(f"not estimable in the {which}: {why.reason}")
    value = target.value - source.value
    if None in (source.low, source.high, target.low, target.high):
        return blank.weak(value, "there is no interval on both sides")
    down = math.hypot(target.value - target.low, source.high - source.value)  # type: ignore[operator]
    up = math.hypot(target.high - target.value, source.value - source.low)  # type: ignore[operator]
    return blank.ok(value, (value - down, value + up), "MOVER")


def shift_prior(probability: ArrayLike, source: float, target: float) -> FloatArray:
    """Return the probabilities for another prevalence, if nothing but the prevalence differs.

    Args:
        probability: `(n,)` calibrated where the prevalence is `source`.
        source: Prevalence, in (0, 1).
        target: Prevalence, in (0, 1).

    Raises:
        PredictionsError: If a prevalence is not inside (0, 1).

    Reference:
        Elkan, IJCAI 2001; Saerens et al., Neural Computation 2002;14:21.

    >>> shift_prior([0.5], 0.5, 0.1)
    array([0.1])
    """
    odds = logit(np.array([source, target], dtype=float))
    if not (0 < source < 1 and 0 < target < 1):
        raise PredictionsError(
            f"prevalences of {source:g} and {target:g}", expected="shares between 0 and 1"
        )
    return expit(logit(np.asarray(probability, dtype=float)) + odds[1] - odds[0])
