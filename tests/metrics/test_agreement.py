"""Readings in months."""

import math

import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics import agreement
from medtl.metrics.scores import CI

TRUTH = np.array([100.0, 110.0, 120.0, 130.0])
SCORE = np.array([106.0, 104.0, 132.0, 130.0])  # errors 6, -6, 12, 0

# Shrout and Fleiss 1979, table 2: six subjects, four judges; ICC(2,1) is 0.29.
SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]


def readings(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(10, 200, n)
    return truth, truth + 3 + rng.normal(size=n) * 8


def test_errors_by_hand() -> None:
    mae, rmse, median, r2 = agreement.error_measures(TRUTH, SCORE, ci=CI(resamples=100))
    assert (mae.name, mae.value) == ("mae_months", 6.0)
    assert rmse.value == pytest.approx(math.sqrt((36 + 36 + 144) / 4))
    assert median.value == 6.0
    assert r2.value == pytest.approx(1 - 216 / 500)


def test_no_rows_and_a_constant_reference_are_said() -> None:
    assert all(m.status == "undefined" for m in agreement.error_measures([], []))
    assert agreement.error_measures([5, 5], [4, 6], ci=CI(resamples=10))[3].status == "undefined"
    assert all(m.status == "undefined" for m in agreement.bland_altman([], []))


def test_within_is_inclusive_however_it_was_subtracted() -> None:
    assert agreement.within(TRUTH, SCORE, 6).value == 0.75
    assert agreement.within([0.1], [0.3], 0.2).value == 1.0  # 0.3 - 0.1 is 0.19999999999999998
    assert agreement.within([0.6], [0.9], 0.3).value == 1.0  # 0.9 - 0.6 is 0.30000000000000004


def test_bland_altman_by_hand() -> None:
    bias, low, high = agreement.bland_altman(TRUTH, SCORE)
    spread = math.sqrt((3**2 + 9**2 + 9**2 + 3**2) / 3)
    assert bias.value == 3.0
    assert high.value == pytest.approx(3 + 1.96 * spread)
    assert low.value == pytest.approx(3 - 1.96 * spread)
    t = 3.182446305284263  # 97.5 percent, 3 degrees of freedom
    assert bias.high == pytest.approx(3 + t * spread / 2)
    error = spread * math.sqrt(1 / 4 + 1.96**2 / 6)
    assert high.high == pytest.approx(3 + 1.96 * spread + t * error)


def test_repeated_images_do_not_narrow_the_bias() -> None:
    truth, score = readings(60)
    once = agreement.bland_altman(truth, score)[0]
    twice = agreement.bland_altman(
        np.tile(truth, 3), np.tile(score, 3), patients=np.tile(np.arange(60), 3)
    )[0]
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.01)  # type: ignore[operator]


def test_equal_errors_and_one_patient_are_degenerate() -> None:
    assert agreement.bland_altman([1, 2], [2, 3])[0].status == "degenerate"
    bias, low, _ = agreement.bland_altman([1], [2])
    assert (bias.value, bias.status, low.value) == (1.0, "degenerate", None)


def test_icc_of_shrout_and_fleiss() -> None:
    measure = agreement.intraclass_correlation(SHROUT_FLEISS)
    assert measure.value == pytest.approx(0.2898, abs=1e-4)
    assert (measure.low, measure.high) == pytest.approx((0.0188, 0.7611), abs=2e-3)


def test_icc_counts_a_constant_shift_as_disagreement() -> None:
    truth, score = readings()
    shifted = agreement.intraclass_correlation(np.column_stack([truth, score + 50])).value
    same = agreement.intraclass_correlation(np.column_stack([truth, score])).value
    assert shifted < same - 0.1  # type: ignore[operator]


def test_icc_needs_subjects_that_vary() -> None:
    assert agreement.intraclass_correlation([[1, 2]]).status == "undefined"
    assert agreement.intraclass_correlation([[1, 1], [1, 1]]).status == "undefined"
    assert agreement.intraclass_correlation([[1, 2], [3, 4]]).status == "degenerate"
    with pytest.raises(PredictionsError, match="without gaps"):
        agreement.intraclass_correlation([[1, np.nan], [1, 2]])


def test_correlations_by_definition() -> None:
    truth, score = readings()
    found = {m.name: m for m in agreement.correlation_measures(truth, score)}
    assert found["pearson_r"].value == pytest.approx(np.corrcoef(truth, score)[0, 1])
    top = 2 * np.cov(truth, score, bias=True)[0, 1]
    bottom = truth.var() + score.var() + (truth.mean() - score.mean()) ** 2
    assert found["concordance"].value == pytest.approx(top / bottom)
    slope = np.polyfit(truth, score - truth, 1)[0]
    assert found["error_slope_on_reference"].value == pytest.approx(slope)
    assert all(type(m.value) is float for m in found.values())


def test_a_model_that_says_the_mean_has_a_slope_of_minus_one() -> None:
    truth, _ = readings()
    score = np.full(300, 100.0) + np.linspace(0, 1e-6, 300)
    found = {m.name: m for m in agreement.correlation_measures(truth, score)}
    assert found["error_slope_on_reference"].value == pytest.approx(-1, abs=1e-6)


def test_too_few_or_constant_readings_have_no_correlation() -> None:
    assert all(m.status == "undefined" for m in agreement.correlation_measures([1, 2], [1, 2]))
    assert all(m.value is None for m in agreement.correlation_measures(TRUTH, np.full(4, 7.0)))


def test_readings_of_unequal_length_are_refused() -> None:
    with pytest.raises(PredictionsError, match="2 references and 1 predictions"):
        agreement.bland_altman([1, 2], [1])


def test_errors_that_differ_by_rounding_alone_have_no_interval() -> None:
    truth = np.linspace(20.3, 190.7, 50)
    measures = [
        *agreement.error_measures(truth, truth + 3),
        *agreement.bland_altman(truth, truth + 3),
        *agreement.correlation_measures(truth, truth + 3),
    ]
    weak = {m.name for m in measures if m.status == "degenerate" and m.low is m.high is None}
    slopes = {"error_slope_on_reference", "error_slope_on_mean"}
    limits = {"bias_months", "loa_low_months", "loa_high_months"}
    assert weak >= {"mae_months", "rmse_months", "pearson_r", *slopes, *limits}
    assert [m.value for m in measures if m.name in slopes] == [0, 0]


def test_errors_that_differ_by_a_thousandth_have_one() -> None:
    truth = np.linspace(20.3, 190.7, 50)
    score = truth + 3 + 0.001 * np.sin(truth)
    for found in (
        *agreement.error_measures(truth, score)[:2],
        *agreement.bland_altman(truth, score),
    ):
        assert found.status == "ok"
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.high
