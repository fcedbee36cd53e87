"""How many patients a study needs for an interval of a stated width, and what so many can show.

Every number is of patients with one image each; `with_design_effect` is for several.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from medtl.errors import PredictionsError
from medtl.metrics.intervals import Interval, newcombe_variance, normal_quantile, wilson
from medtl.metrics.operating_point import ASSURANCE, patients_for_assurance
from medtl.metrics.temperature import expit

MOST = 10**9
"""Patients beyond which no number is looked for."""

NODES = 200
"""Points of the Gauss-Hermite rule that averages over a linear predictor."""


def patients_for_share(share: float, half_width: float = 0.05, *, level: float = 0.95) -> int:
    """Return the least number of patients of a class for Wilson's interval of a share of it.

    For a sensitivity they are patients with the finding, for a specificity those without.

    Args:
        share: Expected sensitivity or specificity, in (0, 1).
        half_width: Half the width of the interval, in (0, 0.5).
        level: Of the interval.

    Raises:
        PredictionsError: If a value lies outside its range.

    Reference:
        Wilson, JASA 1927;22:209; the share stays the expected one, also where it is no whole count.

    >>> [patients_for_share(share) for share in (0.80, 0.85, 0.90, 0.95)]
    [245, 196, 141, 83]
    """
    _inside(share=share, level=level)
    _inside(0.5, half_width=half_width)

    def half(n: int) -> float:
        low, high = wilson(share * n, n, level)
        return (high - low) / 2

    return _least(lambda n: half(n) <= half_width)


def range_of_share(share: float, patients: int, *, level: float = 0.95) -> Interval:
    """Return the interval that so many patients of a class give a share of it.

    Args:
        share: Expected sensitivity or specificity, in (0, 1).
        patients: Of the class, at least 1.
        level: Of the interval.

    Raises:
        PredictionsError: If a value lies outside its range.

    >>> [round(bound, 2) for bound in range_of_share(0.8, 10)]  # ten patients show little
    [0.49, 0.94]
    """
    _inside(share=share, level=level)
    _inside(math.inf, patients=patients)
    return wilson(share * patients, patients, level)


def patients_for_auroc(
    auroc: float, prevalence: float, width: float = 0.1, *, level: float = 0.95
) -> int:
    """Return the least number of patients for an AUROC's interval of this width, Hanley-McNeil.

    Args:
        auroc: Expected, in (0, 1).
        prevalence: Of the study's patients, in (0, 1).
        width: Of the whole interval, in (0, 1).
        level: Of the interval.

    Raises:
        PredictionsError: If a value lies outside its range.

    Reference:
        Hanley and McNeil, Radiology 1982;143:29, equations 1 and 2.

    >>> [patients_for_auroc(auroc, 0.1) for auroc in (0.80, 0.85, 0.90)]
    [1135, 926, 672]
    """
    _inside(auroc=auroc, prevalence=prevalence, width=width, level=level)

    def whole(n: int) -> float:
        positives = round(n * prevalence)
        if not 0 < positives < n:
            return math.inf
        variance = auroc * (1 - auroc)
        variance += (positives - 1) * (auroc / (2 - auroc) - auroc**2)
        variance += (n - positives - 1) * (2 * auroc**2 / (1 + auroc) - auroc**2)
        variance /= positives * (n - positives)
        return 2 * normal_quantile(level) * math.sqrt(variance)

    # Whole positives make steps: a number may do and the next one not. The least one is taken.
    near = _least(lambda n: whole(n) <= width)
    return next(n for n in range(max(2, near - math.ceil(1 / prevalence)), near + 1)
                if whole(n) <= width)  # fmt: skip


def patients_for_c_statistic(
    auroc: float, prevalence: float, width: float = 0.1, *, level: float = 0.95
) -> int:
    """Return the least number of patients for an AUROC's interval of this width, Riley's criterion.

    Args:
        auroc: Expected, in (0, 1).
        prevalence: Of the study's patients, in (0, 1).
        width: Of the whole interval, in (0, 1).
        level: Of the interval.

    Raises:
        PredictionsError: If a value lies outside its range.

    Reference:
        Riley et al., Stat Med 2021;40:4230, equation 8: Newcombe's variance, as in pmvalsampsize.

    >>> patients_for_c_statistic(0.8, 0.018)
    4252
    """
    _inside(auroc=auroc, prevalence=prevalence, width=width, level=level)
    z = normal_quantile(level)

    def whole(n: int) -> float:
        variance = newcombe_variance(auroc, n * prevalence, n * (1 - prevalence))
        return 2 * z * math.sqrt(variance)

    return _least(lambda n: whole(n) <= width)


def patients_for_observed_over_expected(
    prevalence: float, width: float = 0.2, *, ratio: float = 1.0, level: float = 0.95
) -> int:
    """Return the number of patients for the interval of observed over expected events.

    Args:
        prevalence: In (0, 1).
        width: Of the whole interval of the ratio.
        ratio: Expected O / E.
        level: Of the interval.

    Raises:
        PredictionsError: If a value lies outside its range.

    Reference:
        Riley et al. 2021, equation 3: SE(ln O/E)^2 = (1 - prevalence) / (n prevalence), the error
        to the fourth decimal as pmvalsampsize takes it.

    >>> patients_for_observed_over_expected(0.018, 1.0)
    905
    """
    _inside(prevalence=prevalence, level=level)
    _inside(math.inf, width=width, ratio=ratio)
    error = math.asinh(width / (2 * ratio)) / normal_quantile(level)
    error = math.ceil(error * 1e4 - 1e-6) / 1e4
    return math.ceil((1 - prevalence) / (prevalence * error**2))


def patients_for_calibration_slope(
    mean: float, sd: float, width: float = 0.2, *, level: float = 0.95
) -> int:
    """Return the number of patients for the interval of a calibration slope that is 1.

    Args:
        mean: Of the model's linear predictor (the logit of its probability) in these patients.
        sd: Its standard deviation; the predictor is taken as normal.
        width: Of the whole interval.
        level: Of the interval.

    Raises:
        PredictionsError: If a value lies outside its range.

    Reference:
        Riley et al. 2021, equation 6: Fisher's information of y ~ a + b LP, averaged by Gauss and
        Hermite's rule in place of a simulation.

    >>> patients_for_calibration_slope(-1.75, 1.47)
    2406
    """
    _inside(level=level)
    _inside(math.inf, sd=sd, width=width)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    predictor = mean + sd * nodes
    share = expit(predictor)
    spread = weights / weights.sum() * share * (1 - share)
    one, first, second = (float(spread @ predictor**power) for power in (0, 1, 2))
    error = width / (2 * normal_quantile(level))
    return math.ceil(one / (error**2 * (one * second - first**2)))


def patients_for_net_benefit(
    sensitivity: float,
    specificity: float,
    prevalence: float,
    threshold: float,
    width: float = 0.2,
    *,
    level: float = 0.95,
) -> int:
    """Return the number of patients for the interval of the standardised net benefit.

    Args:
        sensitivity: Expected at the threshold, in (0, 1).
        specificity: Expected at the threshold, in (0, 1).
        prevalence: In (0, 1).
        threshold: Probability from which one would act, in (0, 1).
        width: Of the whole interval of net benefit / prevalence.
        level: Of the interval.

    Raises:
        PredictionsError: If a value lies outside its range.

    Reference:
        Riley et al. 2021, equation 11 (Marsh, Biometrics 2020;76:843); the error to the third
        decimal as pmvalsampsize takes it.

    >>> patients_for_net_benefit(0.8, 0.8, 0.3, 0.2)
    260
    """
    _inside(sensitivity=sensitivity, specificity=specificity, level=level)
    _inside(prevalence=prevalence, threshold=threshold)
    _inside(math.inf, width=width)
    weight = (1 - prevalence) / prevalence * threshold / (1 - threshold)
    variance = (
        sensitivity * (1 - sensitivity) / prevalence
        + weight**2 * specificity * (1 - specificity) / (1 - prevalence)
        + weight**2 * (1 - specificity) ** 2 / (prevalence * (1 - prevalence))
    )
    error = width / (2 * normal_quantile(level))
    error = round(math.ceil(error * 1e4 - 1e-6) / 1e4, 3)
    return math.ceil(variance / error**2)


def patients_for_promise(share: float, assurance: float = ASSURANCE, *, misses: int = 0) -> int:
    """Return the least number of patients of a class of whom so many may be missed in a promise.

    Args:
        share: Sensitivity or specificity promised for new patients, in (0, 1).
        assurance: Certainty of the promise, in (0, 1).
        misses: Patients that the threshold may miss; the more, the less specificity it costs.

    Raises:
        PredictionsError: If a value lies outside its range.

    Reference:
        Clopper and Pearson 1934; without a miss `patients_for_assurance`.

    >>> [patients_for_promise(0.9, misses=k) for k in range(4)]
    [22, 38, 52, 65]
    """
    from scipy.special import betainc

    _inside(share=share, assurance=assurance)
    if not misses:
        return int(patients_for_assurance(share, assurance))
    return _least(
        lambda n: n > misses and float(betainc(n - misses, misses + 1, share)) <= 1 - assurance
    )


def with_design_effect(patients: int, images_per_patient: float, icc: float) -> int:
    """Return how many images are needed when a patient has several, for what images alone need.

    Args:
        patients: Needed with one image each.
        images_per_patient: Mean number, at least 1.
        icc: Correlation of two images of a patient, in [0, 1].

    Raises:
        PredictionsError: If a value lies outside its range.

    Reference:
        Kish 1965: the design effect 1 + (m - 1) ICC.

    >>> with_design_effect(100, 3, 0.5)
    200
    """
    if not (images_per_patient >= 1 and 0 <= icc <= 1):
        raise PredictionsError(
            f"{images_per_patient:g} images per patient and an ICC of {icc:g}",
            expected="at least one image, and a correlation between 0 and 1",
        )
    return math.ceil(patients * (1 + (images_per_patient - 1) * icc) - 1e-9)


def _least(enough: Callable[[int], bool]) -> int:
    """Return the least number that is enough, all above it being enough too."""
    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            raise PredictionsError(
                f"more than {MOST:,} patients are needed", expected="a wider interval"
            )
    return bisect_left(range(high), True, lo=low, key=enough)


def _inside(limit: float = 1.0, **values: float) -> None:
    """Refuse values outside (0, limit)."""
    for name, value in values.items():
        if not 0 < value < limit:
            expected = "a number above 0" if math.isinf(limit) else f"between 0 and {limit:g}"
            raise PredictionsError(f"{name.replace('_', ' ')} is {value:g}", expected=expected)
