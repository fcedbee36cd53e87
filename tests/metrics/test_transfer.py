"""Sites, shifts and the updating ladder."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics.ranking import auc_covariance, auroc
from medtl.metrics.scores import CI, Scores
from medtl.metrics.temperature import expit, logit
from medtl.metrics.transfer.random_effects import random_effects
from medtl.metrics.transfer.shift import difference_between, standardised_difference
from medtl.metrics.transfer.updating import advise_update, cross_fitted, updating_ladder
from medtl.types import FloatArray, Measure

SUB = Path(__file__).parents[2] / "../shared/oracles2/sub.csv"


def miscalibrated(
    n: int = 600, slope: float = 0.5, shift: float = 0.0, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Truth, and probabilities whose right recalibration is shift + slope logit p."""
    random = np.random.default_rng(seed)
    linear = random.normal(0, 2, n)
    truth = random.random(n) < expit(shift + slope * linear)
    return truth.astype(float), expit(linear)


def test_three_sites_as_in_metafor() -> None:
    # R metafor, rma(method="REML", test="knha") of logit AUROC and its delta-method error.
    aucs, errors = np.array([0.95098, 0.69502, 0.98889]), np.array([0.009736, 0.037948, 0.012706])
    found = random_effects(logit(aucs), errors / (aucs * (1 - aucs)))
    assert found.value == pytest.approx(2.5526, abs=5e-4)
    assert found.tau2 == pytest.approx(2.7502, abs=2e-3)
    assert 100 * found.i2 == pytest.approx(97.43, abs=0.02)
    assert found.q == pytest.approx(66.2226, abs=0.02)
    low, high = expit(np.array([found.low, found.high]))
    assert (low, high) == pytest.approx((0.131, 0.999), abs=5e-4)


def test_the_table_of_sites() -> None:
    if not SUB.is_file():
        pytest.skip("the table is not here")
    with SUB.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["y_score"]]
    sites, values, errors = sorted({row["site"] for row in rows}), [], []
    for site in sites:
        mine = [row for row in rows if row["site"] == site]
        truth, score = (np.array([float(row[k]) for row in mine]) for k in ("y_true", "y_score"))
        auc, variance = (float(x.ravel()[0]) for x in auc_covariance(truth, score))
        assert auroc(truth, score).value == pytest.approx(auc)
        values.append(auc)
        errors.append(math.sqrt(variance))
    assert sorted(values) == pytest.approx([0.69502, 0.95098, 0.98889], abs=5e-6)
    assert sorted(errors) == pytest.approx([0.009736, 0.012706, 0.037948], abs=5e-7)
    auc, error = np.array(values), np.array(errors)
    found = random_effects(logit(auc), error / (auc * (1 - auc)))
    assert found.value == pytest.approx(2.5526, abs=5e-5)
    assert found.tau2 == pytest.approx(2.7502, abs=5e-5)
    assert 100 * found.i2 == pytest.approx(97.43, abs=5e-3)
    assert found.q == pytest.approx(66.2226, abs=5e-5)
    assert expit(np.array(found.value)) == pytest.approx(0.9277, abs=5e-5)


def test_reml_of_equal_errors_is_the_variance_between_less_that_within() -> None:
    values = [0.2, 0.5, 0.9, 1.4]
    found = random_effects(values, [0.3] * 4)
    assert found.tau2 == pytest.approx(np.var(values, ddof=1) - 0.09)
    assert found.value == pytest.approx(np.mean(values))
    # Hartung and Knapp with equal weights is the t interval of the values.
    assert found.error == pytest.approx(np.std(values, ddof=1) / 2)


def test_alike_sites_have_no_variance_between_them() -> None:
    found = random_effects([0.5, 0.51, 0.49], [0.2, 0.2, 0.2])
    assert (found.tau2, found.i2) == (0, 0)
    assert found.p > 0.9


def test_sites_that_agree_by_chance_have_no_narrower_interval_than_their_errors() -> None:
    """Plain Hartung and Knapp gives three sites of 50 % an interval of no width."""
    same = random_effects([0.0, 0.0, 0.0], [1.4, 1.4, 1.0])
    error = 1 / math.sqrt(2 / 1.4**2 + 1)
    assert same.error == pytest.approx(error)
    assert same.high == pytest.approx(4.302653 * error, abs=1e-5)  # t with 2 degrees of freedom
    assert same.predict_high == pytest.approx(same.high)


def test_two_sites_have_no_prediction_interval_and_one_is_refused() -> None:
    assert random_effects([0.1, 0.9], [0.1, 0.1]).predict_low is None
    for values, errors in (([0.1], [0.1]), ([0.1, 0.2], [0.1]), ([0.1, 0.2], [0.1, 0.0])):
        with pytest.raises(PredictionsError, match="errors"):
            random_effects(values, errors)


def test_a_new_site_lies_in_the_prediction_interval_and_rarely_in_that_of_the_mean() -> None:
    random, inside, in_mean = np.random.default_rng(0), 0, 0
    for _ in range(400):
        values = random.normal(0, 1, 8) + random.normal(0, 0.3, 8)
        new_site = random.normal(0, 1)
        found = random_effects(values, [0.3] * 8)
        assert found.predict_low is not None
        assert found.predict_high is not None
        inside += found.predict_low < new_site < found.predict_high
        in_mean += found.low < new_site < found.high
    assert 0.92 < inside / 400 < 0.98
    assert in_mean / 400 < 0.75


def test_standardised_difference_of_a_share_and_of_a_number() -> None:
    ones, twos = [0] * 60 + [1] * 40, [0] * 40 + [1] * 60
    assert standardised_difference(ones, twos).value == pytest.approx(0.2 / math.sqrt(0.24))
    ages = np.random.default_rng(0).normal(60, 10, 2000)
    found = standardised_difference(ages, ages + 5)
    assert found.value == pytest.approx(0.5, abs=0.02)
    assert found.low is not None
    assert found.low < 0.5


def test_standardised_difference_that_does_not_exist() -> None:
    assert standardised_difference([1.0], [1.0, 2.0]).status == "undefined"
    assert standardised_difference([5, 5], [6, 6]).status == "undefined"
    assert standardised_difference([1, 1], [1, 1]).value == 0


def test_difference_of_shares_is_newcombes() -> None:
    from medtl.metrics.intervals import newcombe_difference, wilson

    def share(count: int, n: int) -> Measure:
        low, high = wilson(count, n)
        return Measure("sensitivity", count / n, low=low, high=high, n=n)

    found = difference_between(share(48, 80), share(56, 70))
    assert (found.low, found.high) == pytest.approx(newcombe_difference((56, 70), (48, 80)))


def test_difference_without_a_side_says_which() -> None:
    known, none = Measure("auroc", 0.8), Measure("auroc", None, reason="no rows")
    assert "source" in difference_between(none, known).reason
    assert "target" in difference_between(known, none).reason
    assert difference_between(known, known).status == "degenerate"


def test_no_patient_is_judged_by_a_fit_that_saw_him() -> None:
    truth, score = np.tile([0, 1], 20), np.linspace(0.1, 0.9, 40)
    patients = np.repeat(np.arange(20), 2)
    rows = Scores.of(truth, score, patients)
    seen: list[set[float]] = []

    def fit(others: Scores):  # type: ignore[no-untyped-def]
        seen.append(set(others.score))

        def update(held: FloatArray) -> FloatArray:
            assert not set(held) & seen[-1]
            return held

        return update

    with pytest.raises(PredictionsError, match="patients of one class"):
        cross_fitted(rows, fit, folds=5)  # every patient has a positive row
    truth = np.repeat([0, 1], 20)
    rows = Scores.of(truth, score, patients)
    assert cross_fitted(rows, fit, folds=5) == pytest.approx(score)
    assert len(seen) == 5


def test_the_ladder_mends_what_is_wrong_and_no_more() -> None:
    truth, score = miscalibrated(slope=0.5, shift=-0.7)
    ladder = {s.name: s for s in updating_ladder(truth, score, prevalence=0.5, ci=CI(seed=1))}
    assert list(ladder) == ["none", "prior", "intercept", "platt"]
    slope = {name: step.measures[2].value for name, step in ladder.items()}
    large = {name: step.measures[4].value for name, step in ladder.items()}
    assert slope["none"] == pytest.approx(0.5, abs=0.1) == slope["intercept"]
    assert slope["platt"] == pytest.approx(1.0, abs=0.1)
    assert large["none"] is not None
    assert abs(large["none"]) > 0.3
    assert large["intercept"] == pytest.approx(0, abs=0.05)
    assert ladder["platt"].slope == pytest.approx(0.5, abs=0.1)
    loss = [step.measures[1].value for step in ladder.values()]
    assert loss[3] == min(value for value in loss if value is not None)


def test_fitting_and_judging_on_the_same_rows_would_flatter() -> None:
    gains = []
    for seed in range(30):
        truth, score = miscalibrated(40, slope=1.0, seed=seed)
        none, *_, platt = updating_ladder(truth, score)
        if platt.measures and none.measures[1].value and platt.measures[1].value:
            gains.append(none.measures[1].value - platt.measures[1].value)
    assert len(gains) > 20
    assert np.mean(gains) < 0


def test_the_last_step_has_a_threshold_of_its_own() -> None:
    truth, score = miscalibrated(slope=0.5, shift=-1.5)
    ladder = updating_ladder(truth, score, threshold=0.5, rule={"sensitivity": 0.9})
    sensitivity = {step.name: step.measures[-2].value for step in ladder}
    assert sensitivity["platt"] is not None
    assert sensitivity["platt"] < 0.7
    assert sensitivity["platt_and_threshold"] == pytest.approx(0.9, abs=0.06)
    assert ladder[-1].threshold != 0.5
    assert ladder[0].threshold == 0.5


def test_a_step_that_cannot_be_fitted_says_why() -> None:
    truth, score = np.repeat([0, 1], 10), np.linspace(0.1, 0.9, 20)
    platt = updating_ladder(truth, score)[-1]
    assert platt.measures == ()
    assert "slope" in platt.reason
    with pytest.raises(PredictionsError, match="separates"):
        advise_update(truth, score)
    with pytest.raises(PredictionsError, match="outside"):
        updating_ladder(truth, score * 2)
    with pytest.raises(PredictionsError, match="1 patients of one class"):
        updating_ladder([1] + [0] * 9, score[:10])


@pytest.mark.parametrize(
    ("slope", "shift", "step"), [(1.0, 0.0, "none"), (1.0, 1.0, "intercept"), (0.4, 0.0, "platt")]
)
def test_the_closed_test_finds_the_step(slope: float, shift: float, step: str) -> None:
    assert advise_update(*miscalibrated(800, slope=slope, shift=shift, seed=3)).step == step


def test_the_closed_test_keeps_a_right_model_in_most_samples() -> None:
    kept = [
        advise_update(*miscalibrated(200, slope=1.0, seed=s)).step == "none" for s in range(200)
    ]
    assert np.mean(kept) > 0.9
