"""Sizes of studies, against printed values and against the interval that they are for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, norm

from medtl.errors import PredictionsError
from medtl.metrics.intervals import newcombe_variance, wilson
from medtl.metrics.planning import sample_size as plan


@pytest.mark.parametrize(("share", "n"), [(0.80, 245), (0.85, 196), (0.90, 141), (0.95, 83)])
def test_a_share_has_wilson_s_half_width(share: float, n: int) -> None:
    assert plan.patients_for_share(share) == n
    halves = [(wilson(share * m, m)[1] - wilson(share * m, m)[0]) / 2 for m in (n, n - 1)]
    assert halves[0] <= 0.05 < halves[1]


@pytest.mark.parametrize(("auroc", "n"), [(0.80, 1135), (0.85, 926), (0.90, 672)])
def test_an_auroc_by_hanley_and_mcneil(auroc: float, n: int) -> None:
    assert plan.patients_for_auroc(auroc, 0.1) == n
    assert plan.patients_for_auroc(auroc, 0.1, 0.2) < n / 3.5


def test_the_least_number_is_the_first_one() -> None:
    """Whole positives: a plain bisection would overlook a smaller number."""
    q1, q2 = 0.9 / 1.1 - 0.81, 2 * 0.81 / 1.9 - 0.81

    def width(n: int) -> float:
        m = round(n * 0.03)
        return 2 * 1.959963985 * math.sqrt((0.09 + (m - 1) * q1 + (n - m - 1) * q2) / (m * (n - m)))

    first = next(n for n in range(40, 9000) if width(n) <= 0.08)
    assert plan.patients_for_auroc(0.9, 0.03, 0.08) == first


def test_riley_2021_by_his_own_example() -> None:
    assert plan.patients_for_observed_over_expected(0.018, 1.0) == 905
    assert plan.patients_for_c_statistic(0.8, 0.018) == 4252
    # The printed size comes from a million draws: 4544, a fifth of a percent off.
    assert plan.patients_for_calibration_slope(-5, 2.5) == pytest.approx(4544, rel=0.003)


def test_a_ratio_that_is_not_one_has_a_wider_interval() -> None:
    wide = plan.patients_for_observed_over_expected(0.1, 0.2, ratio=1.5)
    assert wide > 2 * plan.patients_for_observed_over_expected(0.1, 0.2)
    error = math.sqrt(0.9 / 0.1 / wide)
    width = 1.5 * (math.exp(1.96 * error) - math.exp(-1.96 * error))
    assert width == pytest.approx(0.2, rel=2e-3)


def test_the_slope_s_information_by_another_integral() -> None:
    def mean(power: int) -> float:
        def density(x: float) -> float:
            p = 1 / (1 + math.exp(-x))
            return float(norm.pdf(x, -1.75, 1.47)) * p * (1 - p) * x**power

        return float(quad(density, -20, 20, epsabs=1e-12)[0])

    one, first, second = mean(0), mean(1), mean(2)
    error = 0.2 / (2 * 1.959963985)
    expected = one / (one * second - first**2) / error**2
    assert plan.patients_for_calibration_slope(-1.75, 1.47) == math.ceil(expected)


def test_net_benefit_by_hand() -> None:
    # w = (0.7 / 0.3) x (0.2 / 0.8) = 0.58333; SE 0.0511, to three decimals 0.051
    w = 7 / 12
    variance = 0.16 / 0.3 + w**2 * 0.16 / 0.7 + w**2 * 0.04 / 0.21
    assert plan.patients_for_net_benefit(0.8, 0.8, 0.3, 0.2) == math.ceil(variance / 0.051**2)


@pytest.mark.parametrize("misses", [0, 1, 2, 5, 10])
def test_a_promise_with_misses(misses: int) -> None:
    n = plan.patients_for_promise(0.9, misses=misses)
    assert beta.ppf(0.1, n - misses, misses + 1) >= 0.9
    assert n - 1 == misses or beta.ppf(0.1, n - 1 - misses, misses + 1) < 0.9


def test_what_a_test_part_can_show() -> None:
    low, high = plan.range_of_share(0.8, 10)
    assert (round(100 * low), round(100 * high)) == (49, 94)
    assert plan.range_of_share(0.8, 245)[1] - plan.range_of_share(0.8, 245)[0] <= 0.1


def test_design_effect() -> None:
    assert plan.with_design_effect(245, 1, 0.9) == 245
    assert plan.with_design_effect(245, 2, 0.5) == math.ceil(245 * 1.5)
    with pytest.raises(PredictionsError, match=r"0\.5 images per patient"):
        plan.with_design_effect(245, 0.5, 0.1)
    with pytest.raises(PredictionsError, match="ICC of 1"):
        plan.with_design_effect(245, 2, 1.5)


def test_the_variance_depends_on_the_prevalence() -> None:
    assert newcombe_variance(0.8, 500, 500) < newcombe_variance(0.8, 100, 900)
    assert plan.patients_for_c_statistic(0.8, 0.5) < plan.patients_for_c_statistic(0.8, 0.1)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.2, np.nan])
def test_values_outside_their_range_are_named(value: float) -> None:
    with pytest.raises(PredictionsError, match=r"share is .*expected between 0 and 1"):
        plan.patients_for_share(value)
    with pytest.raises(PredictionsError, match="prevalence is"):
        plan.patients_for_auroc(0.9, value)
    with pytest.raises(PredictionsError, match="auroc is"):
        plan.patients_for_c_statistic(value, 0.1)


def test_widths_that_mean_nothing_are_named() -> None:
    with pytest.raises(PredictionsError, match=r"half width is 0\.5.*between 0 and 0\.5"):
        plan.patients_for_share(0.9, 0.5)
    with pytest.raises(PredictionsError, match=r"sd is 0.*a number above 0"):
        plan.patients_for_calibration_slope(-2, 0)
    with pytest.raises(PredictionsError, match="more than 1,000,000,000 patients"):
        plan.patients_for_share(0.9, 1e-6)
