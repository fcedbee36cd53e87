"""How other patients differ from those a model was made on, and what that does to its measures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.intervals import mover_sum, wald
from medtl.metrics.scores import CI, CI95, finite_vector
from medtl.types import Measure


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
        reason = "it does not vary"
        return blank.weak(0.0, reason) if gap == 0 else blank.undefined(reason)
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
        which = "source" if source.value is None else "target"
        return blank.undefined(f"the {which} has no value")
    value = target.value - source.value
    if source.low is None or source.high is None or target.low is None or target.high is None:
        return blank.weak(value, "there is no interval on both sides")
    here, minus = (
        (target.value, target.low, target.high),
        (-source.value, -source.high, -source.low),
    )
    return blank.ok(value, mover_sum(here, minus), "MOVER")
