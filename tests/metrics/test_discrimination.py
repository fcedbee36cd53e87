"""Sensitivity at fixed specificity, the reverse, and the bootstrap behind them."""

import math
from dataclasses import replace

import numpy as np
import pytest

from medtl.metrics import discrimination, resampling
from medtl.metrics.ranking import rank, step_precision
from medtl.metrics.resampling import bootstrap_counts
from medtl.metrics.scores import CI

NEGATIVES = np.arange(1, 11) / 20  # ten negatives: 0.05 ... 0.50
POSITIVES = np.array([0.46, 0.47, 0.9, 0.04])
TRUTH = np.repeat([0, 1], [10, 4])
SCORE = np.concatenate([NEGATIVES, POSITIVES])


def test_specificity_that_is_reached_exactly_counts() -> None:
    # 9 of 10 negatives below 0.46: the trap fpr <= 1 - 0.9 in floating point would drop it.
    measure = discrimination.sensitivity_at_specificity(
        TRUTH, SCORE, specificity=0.9, ci=CI(resamples=100)
    )
    assert measure.value == 0.75
    assert discrimination.threshold_at_specificity(rank(TRUTH, SCORE), 0.9) == 0.46


@pytest.mark.parametrize("n", range(2, 60))
def test_least_count_is_the_exact_ceiling(n: int) -> None:
    for k in range(n + 1):
        assert discrimination.least_count(k / n, np.array(float(n))) == k


def test_no_threshold_qualifies_flags_nobody() -> None:
    ranking = rank([0, 1, 1], [0.9, 0.5, 0.1])
    assert discrimination.threshold_at_specificity(ranking, 0.9) == math.inf
    measure = discrimination.sensitivity_at_specificity(
        [0, 1, 1], [0.9, 0.5, 0.1], specificity=0.9, ci=CI(resamples=50)
    )
    assert (measure.value, measure.low) == (0.0, 0.0)
    assert measure.high == pytest.approx(0.658, abs=1e-3)  # Wilson of 0 of 2


def test_highest_threshold_of_equal_sensitivity() -> None:
    # 0.3 and 0.2 flag the same positive; 0.2 flags a negative more.
    ranking = rank([1, 0, 0, 0, 0], [0.3, 0.2, 0.1, 0.1, 0.1])
    assert discrimination.threshold_at_specificity(ranking, 0.5) == 0.3


def test_specificity_at_sensitivity_by_hand() -> None:
    measure = discrimination.specificity_at_sensitivity(
        TRUTH, SCORE, sensitivity=0.75, ci=CI(resamples=100)
    )
    assert measure.value == 0.9
    assert discrimination.threshold_at_sensitivity(rank(TRUTH, SCORE), 0.75) == 0.46
    assert discrimination.threshold_at_sensitivity(rank(TRUTH, SCORE), 0.0) == math.inf
    tp, fp = rank(TRUTH, SCORE).tp, rank(TRUTH, SCORE).fp
    assert discrimination.best_specificity(tp, fp, 0.0) == 1.0


def test_one_class_is_undefined() -> None:
    measure = discrimination.average_precision([1, 1], [0.2, 0.4])
    assert (measure.value, measure.status) == (None, "undefined")


def test_names_say_the_level() -> None:
    assert discrimination.percent(0.9) == "90"
    assert discrimination.percent(0.975) == "97.5"


def test_drawing_counts_equals_drawing_rows() -> None:
    """Multinomial draws of score groups and patient by patient draws agree in mean and spread."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 2, 150)
    ranking = rank(truth, (rng.normal(size=150) + truth).round(1))
    fast, slow = (
        bootstrap_counts(each, [step_precision], CI(resamples=4000, seed=1))[0]
        for each in (ranking, replace(ranking, patients=np.arange(150)))
    )
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.004)
    assert fast.std() == pytest.approx(slow.std(), rel=0.05)


def test_fewer_thresholds_do_not_move_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    truth = (rng.random(6000) < 0.3).astype(int)
    score = rng.normal(size=6000) + truth
    thinned = discrimination.average_precision(truth, score, ci=CI(resamples=500))
    monkeypatch.setattr(resampling, "coarsen", lambda ranking: ranking)
    every = discrimination.average_precision(truth, score, ci=CI(resamples=500))
    assert (thinned.low, thinned.high) == pytest.approx((every.low, every.high), abs=0.003)


def test_long_clustered_tables_draw_fewer_resamples_and_say_so() -> None:
    drawn = [CI(resamples=2000).affordable(n).resamples for n in (20_000, 40_000, 10_000_000)]
    assert drawn == [2000, 1000, 200]
    measure = discrimination.average_precision(
        [0, 1, 0, 1], [0.1, 0.4, 0.3, 0.2], ci=CI(resamples=123)
    )
    assert "B=123" in measure.method
