"""Intervals against published or hand-computed bounds."""

import math

import numpy as np
import pytest

from medtl.metrics import intervals


def test_normal_quantile_of_95_percent() -> None:
    assert intervals.normal_quantile(0.95) == pytest.approx(1.959963984540054, abs=1e-12)


def test_wilson_of_newcombe_1998() -> None:
    # Newcombe, Stat Med 1998;17:857, table I: 81 of 263.
    low, high = intervals.wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_at_the_ends_is_exact() -> None:
    assert intervals.wilson(0, 10)[0] == 0.0
    assert intervals.wilson(10, 10)[1] == 1.0
    z2 = 1.959963984540054**2
    assert intervals.wilson(0, 10)[1] == pytest.approx(z2 / (10 + z2))


def test_clopper_pearson_of_zero_has_a_closed_form() -> None:
    assert intervals.clopper_pearson(0, 20) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert intervals.clopper_pearson(20, 20)[0] == pytest.approx(0.025 ** (1 / 20))


def test_clopper_pearson_holds_wilson_inside_its_tail_probability() -> None:
    from scipy.stats import binom

    low, high = intervals.clopper_pearson(7, 30)
    assert binom.sf(6, 30, low) == pytest.approx(0.025)
    assert binom.cdf(7, 30, high) == pytest.approx(0.025)


def test_newcombe_difference_of_newcombe_1998() -> None:
    # Newcombe, Stat Med 1998;17:873, table II, method 10: 56/70 against 48/80.
    low, high = intervals.newcombe_difference((56, 70), (48, 80))
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


def test_newcombe_difference_changes_sign_with_the_order() -> None:
    low, high = intervals.newcombe_difference((5, 20), (9, 30))
    assert intervals.newcombe_difference((9, 30), (5, 20)) == pytest.approx((-high, -low))


@pytest.mark.parametrize("auc", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_newcombe_auc_holds_the_estimate_and_mirrors(auc: float) -> None:
    low, high = intervals.newcombe_auc(auc, 20, 30)
    assert 0 <= low <= auc <= high <= 1
    assert high - low > 0.02
    mirrored = intervals.newcombe_auc(1 - auc, 30, 20)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_logit_interval_stays_inside_and_is_symmetric_in_the_logit() -> None:
    low, high = intervals.logit_wald(0.99, 0.02, 1.96)
    assert 0 < low < 0.99 < high < 1
    logits = [math.log(x / (1 - x)) for x in (low, 0.99, high)]
    assert logits[1] - logits[0] == pytest.approx(logits[2] - logits[1])


def test_percentile_leaves_out_resamples_without_a_value() -> None:
    draws = np.append(np.arange(101.0), np.nan)
    assert intervals.percentile(draws) == pytest.approx((2.5, 97.5))


def test_bias_corrected_equals_percentile_without_bias_and_skew() -> None:
    draws = np.linspace(-1, 1, 2001)
    found = intervals.bias_corrected(draws, 0.0, np.array([-1.0, 0.0, 1.0]))
    assert found == pytest.approx(intervals.percentile(draws), abs=2e-3)


def test_bias_corrected_has_no_answer_when_all_draws_lie_on_one_side() -> None:
    assert intervals.bias_corrected(np.ones(10), 0.0, np.arange(3.0)) is None
