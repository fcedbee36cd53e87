"""Learning curves: known laws found again, gains with intervals, what limits on known curves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import ShuffleSplit
from sklearn.model_selection import learning_curve as sklearn_curve
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC

from medtl.errors import PredictionsError
from medtl.metrics.planning.learning_curve import (
    PowerLaw,
    fit_power_law,
    gain_of_more,
    limited_by,
)
from medtl.metrics.scores import CI

SIZES = np.array([40, 80, 160, 320, 640])


@pytest.mark.parametrize("law", [PowerLaw(1.0, 0.5, 0.1), PowerLaw(2.0, 1.0, 0.0)])
def test_a_known_law_is_found_again(law):
    found = fit_power_law(SIZES, [law(n) for n in SIZES])
    assert (found.a, found.b, found.c) == pytest.approx((law.a, law.b, law.c), abs=1e-6)


def test_errors_that_rise_promise_nothing():
    found = fit_power_law([10, 20, 40], [0.1, 0.2, 0.3])
    assert found(10) == pytest.approx(found(1000))
    assert found(10) == pytest.approx(0.2)


def test_a_law_never_falls_below_zero():
    # A straight line down would cross 0 soon; c is at least 0.
    found = fit_power_law([10, 20, 40], [0.3, 0.1, 0.0])
    assert found.c == 0
    assert found(10**9) >= 0


@pytest.mark.parametrize(
    ("sizes", "errors", "said"),
    [
        ([10, 20], [0.2, 0.1], "2 numbers of patients"),
        ([0, 20, 40], [0.2, 0.1, 0.1], "3 numbers of patients"),
        ([10, 20, 40], [0.2, np.nan, 0.1], "not finite"),
    ],
)
def test_a_curve_that_cannot_be_fitted_is_refused(sizes, errors, said):
    with pytest.raises(PredictionsError, match=said):
        fit_power_law(sizes, errors)


def test_the_gain_of_more_holds_the_truth_about_as_often_as_it_says():
    law, kept = PowerLaw(1.0, 0.5, 0.1), 0
    truth = law(640) - law(840)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        errors = [law(n) + rng.normal(0, 0.01, 5) for n in SIZES]
        gain = gain_of_more(SIZES, errors, 200, ci=CI(resamples=150))
        assert gain.low <= gain.high
        kept += gain.low <= truth <= gain.high
    assert kept >= 34


def test_one_run_a_size_has_a_gain_and_no_interval():
    gain = gain_of_more(SIZES, [[1 / n] for n in SIZES], 100)
    assert gain.value == pytest.approx(1 / 640 - 1 / 740, rel=0.01)
    assert gain.low is None
    assert "one run" in gain.reason


def test_what_limits_on_the_two_curves_of_the_digits():
    images, digits = load_digits(return_X_y=True)
    splits = ShuffleSplit(20, test_size=0.2, random_state=0)
    reached = {}
    for model in (GaussianNB(), SVC(gamma=0.001)):
        _, train, val = sklearn_curve(model, images, digits, cv=splits, train_sizes=[0.1, 1.0])
        name = type(model).__name__
        reached[name] = val.mean(axis=1), limited_by(1 - train[-1].mean(), 1 - val[-1].mean())
    assert reached["GaussianNB"][0] == pytest.approx([0.76, 0.85], abs=0.02)
    assert reached["SVC"][0][-1] == pytest.approx(0.992, abs=0.005)
    assert reached["GaussianNB"][1] == "bias"
    assert reached["SVC"][1] == "variance"


def test_a_target_that_is_reached_needs_nothing():
    assert limited_by(0.0, 0.05, target=0.06) == "nothing"
    assert limited_by(0.0, 0.05, target=0.04) == "variance"
