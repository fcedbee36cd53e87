"""Sensitivity, specificity and other shares of two deciders on the same rows; non-inferiority."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.comparison import (
    PairedTest,
    mcnemar,
    minimum_detectable_difference,
    two_sided_p,
)
from medtl.metrics.intervals import Interval, linearised_error, wilson
from medtl.metrics.scores import CI, CI95, Ids, is_clustered, num_patients, patient_codes
from medtl.types import Measure


def newcombe_paired(table: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the interval of first minus second, two proportions of the same rows.

    Args:
        table: `(2, 2)` counts: both right, only the first; only the second, neither.
        confidence: In (0, 1).

    Reference:
        Newcombe, Statistics in Medicine 1998;17:2635, method 10.

    >>> [round(bound, 4) for bound in newcombe_paired([[59, 6], [16, 80]])]
    [-0.1186, -0.0046]
    """
    (both, first), (second, neither) = np.asarray(table, dtype=float).tolist()
    n = both + first + second + neither
    one, two = both + first, both + second
    low1, high1 = wilson(int(one), int(n), confidence)
    low2, high2 = wilson(int(two), int(n), confidence)
    product, excess = one * (n - one) * two * (n - two), both * neither - first * second
    excess = excess if excess < 0 else max(excess - n / 2, 0)
    phi = excess / math.sqrt(product) if product else 0.0

    def joined(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0))

    value = (one - two) / n
    return (
        value - joined(one / n - low1, high2 - two / n),
        value + joined(high1 - one / n, two / n - low2),
    )


def paired_share(
    first_right: ArrayLike,
    second_right: ArrayLike,
    *,
    name: str = "share_difference",
    patients: Ids = None,
    ci: CI = CI95,
) -> PairedTest:
    """Return the difference of two shares of the same rows: of positives, two sensitivities.

    One row per patient: McNemar's exact test and Newcombe's interval. Several: Obuchowski's test,
    whose variance is that of equal shares, and a t interval over patients.

    Args:
        first_right: `(n,)` whether the first is right.
        second_right: `(n,)` whether the second is right.
        name: Of the difference.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the interval.

    Reference:
        McNemar 1947; Newcombe 1998 method 10; Obuchowski, Statistics in Medicine 1998;17:1495.

    >>> test = paired_share([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0])
    >>> round(test.difference.value, 3), test.p
    (0.833, 0.0625)
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    codes = patient_codes(patients, first.size)
    patients_of = num_patients(codes)
    blank = ci.blank(name, first.size, patients=patients_of)
    if not first.size:
        return PairedTest(blank.undefined("there are no rows"), None, None, "McNemar")
    moved = first.astype(float) - second
    value, error = float(moved.mean()), linearised_error(moved, codes)
    detectable = minimum_detectable_difference(error) if error > 0 else None
    if not is_clustered(codes):
        test = mcnemar(first, second)
        both = int((first & second).sum())
        rest = first.size - both - test.only_first - test.only_second
        bounds = newcombe_paired([[both, test.only_first], [test.only_second, rest]], ci.level)
        found = blank.ok(value, bounds, "Newcombe method 10, paired")
        return PairedTest(found, None, test.p, "McNemar, exact", detectable)
    method = "Obuchowski 1998 over patients"
    if not error > 0:
        same = blank.weak(value, "the difference does not vary between patients")
        return PairedTest(same, None, 1.0 if value == 0 else None, method)
    from scipy.special import stdtrit

    half = float(stdtrit(patients_of - 1, 0.5 + ci.level / 2)) * error
    sums = np.bincount(codes, moved)
    z = float(sums.sum()) / math.sqrt(patients_of / (patients_of - 1) * float(sums @ sums))
    found = blank.ok(value, (value - half, value + half), "t over patients")
    return PairedTest(found, z, two_sided_p(z), method, detectable)


@dataclass(frozen=True)
class Noninferiority:
    """Whether a difference is shown to be no worse than a margin.

    Attributes:
        margin: The loss that was said to be acceptable, above 0.
        bound: What the difference may be at worst: the limit of its interval.
        alpha: One-sided level of the statement.
        shown: Whether the bound is better than the margin; None without an interval.
    """

    margin: float
    bound: float | None
    alpha: float
    shown: bool | None

    def __str__(self) -> str:
        said = {True: "shown", False: "not shown", None: "cannot be said"}[self.shown]
        return f"not worse by {self.margin:g}: {said}; the margin must be older"


def noninferiority(
    difference: Measure, margin: float, *, higher_is_better: bool = True
) -> Noninferiority:
    """Return whether new minus old is shown to lose less than the margin.

    A margin chosen after the result was seen shows nothing: state the one of the protocol.

    Args:
        difference: New minus old, with a two-sided interval.
        margin: Above 0, on the scale of the difference.
        higher_is_better: False for errors and distances.

    Raises:
        PredictionsError: If the margin is not a number above 0.

    Reference:
        CONSORT extension, Piaggio et al., JAMA 2012;308:2594.

    >>> noninferiority(Measure("auroc_difference", 0.01, low=-0.02, high=0.04), 0.05).shown
    True
    """
    if not 0 < margin < math.inf:
        raise PredictionsError(
            f"a margin of {margin:g}", expected="a number above 0, such as 0.05 (5 points of 100)"
        )
    bound = difference.low if higher_is_better else difference.high
    alpha = round((1 - difference.confidence) / 2, 10)
    if bound is None or difference.status != "ok":
        return Noninferiority(margin, None, alpha, None)
    return Noninferiority(margin, bound, alpha, (bound if higher_is_better else -bound) > -margin)
