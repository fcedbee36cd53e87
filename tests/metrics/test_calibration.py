"""Calibration against hand-computed values, statsmodels, and known distortions."""

import math

import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics import calibration, temperature
from medtl.metrics.curves.decision_curve import decision_band, decision_curve, thresholds_of
from medtl.metrics.intervals import wilson
from medtl.metrics.scores import CI
from medtl.metrics.temperature import logit


def calibrated(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probability = 1 / (1 + np.exp(-rng.normal(size=n) * 1.5))
    return (rng.random(n) < probability).astype(int), probability


def sharpen(probability: np.ndarray, factor: float, shift: float = 0.0) -> np.ndarray:
    return 1 / (1 + np.exp(-(factor * logit(probability) + shift)))


def test_bins_are_open_below_and_closed_above() -> None:
    found = calibration.bin_of(np.array([0.0, 0.1, 0.10001, 0.3, 0.7, 1.0]), 10)
    assert found.tolist() == [0, 0, 1, 2, 6, 9]


def test_expected_calibration_error_by_hand() -> None:
    # Bin (0.1, 0.2]: mean 0.15, none of 2 positive. Bin (0.8, 0.9]: mean 0.85, 1 of 2 positive.
    measure = calibration.expected_calibration_error(
        [0, 0, 1, 0], [0.12, 0.18, 0.82, 0.88], ci=CI(resamples=50)
    )
    assert measure.value == pytest.approx(0.5 * 0.15 + 0.5 * 0.35)
    assert "10 equal-width bins" in measure.method


def test_top_label_asks_whether_the_predicted_class_is_right() -> None:
    right, confidence = calibration.top_label([0, 1, 1], [0.2, 0.5, 0.1])
    assert right.tolist() == [True, True, False]
    assert confidence.tolist() == [0.8, 0.5, 0.9]


def test_brier_by_hand() -> None:
    truth, score = [1, 0, 1, 0], [0.9, 0.1, 0.6, 0.6]
    value = (0.01 + 0.01 + 0.16 + 0.36) / 4
    assert calibration.brier(truth, score).value == pytest.approx(value)
    assert calibration.scaled_brier(truth, score) == pytest.approx(1 - value / 0.25)


def test_reliability_leaves_out_empty_bins() -> None:
    points = calibration.reliability([0, 1, 1], [0.05, 0.95, 0.97])
    assert points.count.tolist() == [1, 2]
    assert points.observed.tolist() == [0, 1]
    assert (points.low <= points.observed).all()


def test_line_solves_the_score_equations() -> None:
    # At the maximum of the likelihood the residuals are orthogonal to the design.
    truth, score = calibrated(600)
    logits = logit(sharpen(score, 1.7, 0.3))
    slope, intercept, large = calibration.calibration_line(truth, sharpen(score, 1.7, 0.3))
    residual = truth - 1 / (1 + np.exp(-(intercept.value + slope.value * logits)))
    assert residual.sum() == pytest.approx(0, abs=1e-7)
    assert residual @ logits == pytest.approx(0, abs=1e-7)
    assert (truth - 1 / (1 + np.exp(-(large.value + logits)))).sum() == pytest.approx(0, abs=1e-7)


def test_line_of_two_scores_has_a_closed_form() -> None:
    # 10 of 40 positive at 0.4 and 30 of 40 at 0.6: the line goes through both logits.
    truth = np.repeat([1, 0, 1, 0], [10, 30, 30, 10])
    slope, intercept, _ = calibration.calibration_line(truth, np.repeat([0.4, 0.6], 40))
    assert slope.value == pytest.approx(math.log(3) / math.log(1.5), abs=1e-9)
    assert intercept.value == pytest.approx(0, abs=1e-9)
    error = math.sqrt(2 * (1 / 10 + 1 / 30)) / (2 * math.log(1.5))
    assert slope.high == pytest.approx(slope.value + 1.959964 * error, abs=1e-6)


def test_line_finds_the_distortion() -> None:
    truth, score = calibrated(20_000)
    slope, _, large = calibration.calibration_line(truth, sharpen(score, 2.0))
    assert slope.value == pytest.approx(0.5, abs=0.03)
    slope, intercept, large = calibration.calibration_line(truth, sharpen(score, 1.0, 0.7))
    assert (slope.value, intercept.value) == pytest.approx((1, -0.7), abs=0.08)
    assert large.value == pytest.approx(-0.7, abs=0.08)


def test_duplicated_images_do_not_narrow_the_slope() -> None:
    truth, score = calibrated(300)
    once = calibration.calibration_line(truth, score)[0]
    patients = np.tile(np.arange(300), 2)
    twice = calibration.calibration_line(np.tile(truth, 2), np.tile(score, 2), patients=patients)[0]
    assert twice.value == pytest.approx(once.value)
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.2)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("truth", "score", "reason"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], "separates"),
        ([0, 0, 0], [0.1, 0.2, 0.3], "one class"),
        ([0, 1, 0], [0.5, 0.5, 0.5], "all probabilities are equal"),
        ([], [], "one class"),
    ],
)
def test_no_finite_slope_is_said(truth: list[int], score: list[float], reason: str) -> None:
    slope = calibration.calibration_line(truth, score)[0]
    assert (slope.value, slope.status) == (None, "undefined")
    assert reason in slope.reason


def test_temperature_undoes_sharpening_and_keeps_the_ranking() -> None:
    truth, score = calibrated(8000)
    sharp = sharpen(score, 2.0)
    scaling = temperature.fit_recalibration(truth[:4000], sharp[:4000])
    assert scaling.temperature == pytest.approx(2.0, abs=0.15)
    after = scaling(sharp[4000:])
    assert (np.argsort(after, kind="stable") == np.argsort(sharp[4000:], kind="stable")).all()
    before = calibration.log_loss(truth[4000:], sharp[4000:]).value
    assert calibration.log_loss(truth[4000:], after).value < before  # type: ignore[operator]
    assert scaling.fitted_on == "val"


def test_platt_also_undoes_a_shift() -> None:
    truth, score = calibrated(8000)
    scaling = temperature.fit_recalibration(truth, sharpen(score, 2.0, 1.0), method="platt")
    assert scaling.slope == pytest.approx(0.5, abs=0.05)
    assert scaling.intercept == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_no_finite_temperature_is_an_error(method: str) -> None:
    with pytest.raises(PredictionsError, match="no finite, positive slope"):
        temperature.fit_recalibration([0, 1], [0.2, 0.9], method=method)
    with pytest.raises(PredictionsError, match="no finite, positive slope"):
        temperature.fit_recalibration([1, 1, 0, 0, 1], [0.2, 0.3, 0.9, 0.8, 0.85], method=method)


def test_extreme_probabilities_have_finite_losses() -> None:
    measure = calibration.log_loss([0, 1, 1], [1.0, 1.0, 0.0])
    assert measure.value is not None
    assert math.isfinite(measure.value)


def test_scores_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(PredictionsError, match="1 of 2 scores lie outside"):
        calibration.brier([0, 1], [0.5, 1.5])


def test_constant_losses_have_no_interval() -> None:
    assert calibration.brier([0, 1], [0.5, 0.5]).status == "degenerate"
    assert calibration.brier([], []).status == "undefined"
    assert calibration.expected_calibration_error([], []).status == "undefined"
    assert calibration.scaled_brier([1, 1], [0.5, 0.5]) is None


def test_net_benefit_by_hand() -> None:
    # At 0.2: tp 1, fp 1 of 4. At 0.5, which is a score: tp 1, fp 0.
    curve = decision_curve([1, 0, 0, 1], [0.5, 0.2, 0.1, 0.1], [0.2, 0.5])
    assert curve.model == pytest.approx([1 / 4 - 1 / 4 * 0.25, 1 / 4])
    assert curve.treat_all == pytest.approx([0.5 - 0.5 * 0.25, 0.0])
    assert curve.avoided_per_100[0] == pytest.approx(100 * (0.1875 - 0.375) / 0.25)


def test_net_benefit_above_all_scores_is_zero() -> None:
    assert decision_curve([1, 0], [0.3, 0.2], [0.9]).model == 0


def test_net_benefit_at_another_prevalence() -> None:
    curve = decision_curve([1, 1, 0, 0], [0.9, 0.1, 0.9, 0.1], [0.5], prevalence=0.1)
    assert curve.model == pytest.approx([0.5 * 0.1 - 0.5 * 0.9])


def test_net_benefit_band_holds_the_curve() -> None:
    truth, score = calibrated(300)
    at = [0.2, 0.5]
    for prevalence in (None, 0.1):
        low, high = decision_band(truth, score, at, prevalence=prevalence)
        model = decision_curve(truth, score, at, prevalence=prevalence).model
        assert ((low < model) & (model < high)).all()


def test_net_benefit_band_by_hand() -> None:
    # Of 8 rows 3 are found and 1 is a false alarm; at 0.5 a false alarm costs a find. Wilson of
    # 3 of 8 and 1 of 8; the two shares of one sample are correlated by -sqrt(3/5 x 1/7).
    truth, score = [1, 1, 1, 1, 0, 0, 0, 0], [0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1]
    (low,), (high,) = decision_band(truth, score, [0.5])
    (la, ua), (lb, ub) = wilson(3, 8), wilson(1, 8)
    r = math.sqrt(3 / 5 * 1 / 7)
    below, above = (3 / 8 - la, ub - 1 / 8), (ua - 3 / 8, 1 / 8 - lb)
    reach = [math.sqrt(a * a + b * b + 2 * r * a * b) for a, b in (below, above)]
    assert (low, high) == pytest.approx((2 / 8 - reach[0], 2 / 8 + reach[1]))


def test_copies_of_a_patient_leave_the_net_benefit_band_about_where_it_is() -> None:
    truth, score = calibrated(200)
    once = decision_band(truth, score, [0.3])
    again = decision_band(
        np.tile(truth, 3), np.tile(score, 3), [0.3], patients=np.tile(np.arange(200), 3)
    )
    assert again[1] - again[0] == pytest.approx(once[1] - once[0], rel=0.05)
    naive = decision_band(np.tile(truth, 3), np.tile(score, 3), [0.3])
    assert naive[1] - naive[0] < 0.7 * (again[1] - again[0])


@pytest.mark.parametrize("acting", [(0.3, 0.1), (0.0, 0.5), (0.2, 1.0), (0.2, 0.2)])
def test_a_range_that_is_none_is_refused(acting: tuple[float, float]) -> None:
    with pytest.raises(PredictionsError, match="a range of thresholds"):
        thresholds_of(acting)


@pytest.mark.parametrize(
    ("truth", "at", "prevalence", "message"),
    [
        ([1, 0], [0.0], None, "a threshold probability"),
        ([], [0.5], None, "there are no rows"),
        ([1, 1], [0.5], 0.1, "one class only"),
    ],
)
def test_net_benefit_refuses(
    truth: list[int], at: list[float], prevalence: float | None, message: str
) -> None:
    with pytest.raises(PredictionsError, match=message):
        decision_curve(truth, [0.5] * len(truth), at, prevalence=prevalence)


@pytest.mark.parametrize("score", [[0.5] * 40, [0.0, 1.0] * 20, [1.0, 0.0] * 20])
def test_a_loss_that_is_the_same_in_every_row_has_no_interval(score: list[float]) -> None:
    found = calibration.log_loss([0, 1] * 20, score)
    assert (found.status, found.low, found.high) == ("degenerate", None, None)
    moved = calibration.log_loss([0, 1] * 20, [0.51, *score[1:]])
    assert moved.status == "ok"
    assert moved.low is not None
    assert moved.high is not None
    assert moved.low < moved.high


def test_calibration_in_the_large_of_scores_of_0_and_1_is_not_estimated() -> None:
    certain = calibration.calibration_line([0, 1] * 20, [0.0, 1.0] * 20)[2]
    assert (certain.status, certain.value) == ("undefined", None)
    assert "so near to 0 and 1" in certain.reason
    doubtful = calibration.calibration_line([0, 1] * 20, [0.001, 0.999] * 20)[2]
    assert doubtful.status == "ok"
    assert doubtful.value == pytest.approx(0, abs=1e-6)
