"""Paired runs against statsmodels and scipy; the correction for overlapping splits; verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from medtl.errors import PredictionsError
from medtl.metrics.paired_runs import compare_runs, detectable_difference


@pytest.mark.parametrize(("n", "alpha"), [(2, 0.05), (5, 0.05), (5, 0.05 / 15), (30, 0.05)])
def test_the_detectable_difference_is_that_of_statsmodels(n, alpha):
    expected = TTestPower().solve_power(nobs=n, alpha=alpha, power=0.8)
    if n > 2:
        assert detectable_difference(1.0, n, alpha=alpha) == pytest.approx(expected, rel=1e-4)
    assert detectable_difference(2.0, n, alpha=alpha) == pytest.approx(
        2 * detectable_difference(1.0, n, alpha=alpha)
    )


def test_without_overlap_it_is_the_paired_t_test():
    first, second = np.random.default_rng(0).normal(size=(2, 8))
    runs = compare_runs({"a": first - second})["a"]
    expected = stats.ttest_rel(first, second)
    assert runs.p == pytest.approx(expected.pvalue)
    assert runs.p_plain == pytest.approx(expected.pvalue)
    assert runs.p_wilcoxon == pytest.approx(stats.wilcoxon(first, second).pvalue)
    low, high = expected.confidence_interval()
    assert (runs.difference.low, runs.difference.high) == pytest.approx((low, high))


def test_overlapping_splits_widen_the_interval_as_nadeau_and_bengio_say():
    values = [0.01, 0.03, 0.02, 0.05, 0.04]
    plain = compare_runs({"a": values})["a"]
    runs = compare_runs({"a": values}, overlap=0.25)["a"]
    factor = math.sqrt((1 / 5 + 0.25) / (1 / 5))
    assert runs.difference.high - runs.difference.value == pytest.approx(
        factor * (plain.difference.high - plain.difference.value)
    )
    t = 0.03 / (np.std(values, ddof=1) * math.sqrt(0.45))
    assert runs.p == pytest.approx(2 * stats.t.sf(t, 4))
    assert runs.p_plain == plain.p < runs.p
    assert runs.detectable == pytest.approx(factor * plain.detectable)


def test_the_plain_test_sees_differences_that_are_not_there():
    """The reason for the correction, by simulation: runs that share a disturbance."""
    rng = np.random.default_rng(1)
    false_plain = false_corrected = 0
    overlap, n = 0.5, 5
    correlation = overlap / (1 + overlap)  # so that the variance of the mean is the corrected one
    for _ in range(200):
        shared = rng.normal() * math.sqrt(correlation)
        runs = compare_runs(
            {"a": shared + rng.normal(size=n) * math.sqrt(1 - correlation)}, overlap=overlap
        )["a"]
        false_plain += runs.p_plain < 0.05
        false_corrected += runs.p < 0.05
    assert false_plain > 25
    assert false_corrected < 20


def test_holm_over_all_that_is_tested():
    rng = np.random.default_rng(2)
    found = compare_runs({name: rng.normal(0.5, 1, 12) for name in "abc"})
    p = sorted(runs.p for runs in found.values())
    smallest = min(found.values(), key=lambda runs: runs.p)
    assert smallest.p_holm == pytest.approx(min(1, 3 * p[0]))


def test_a_clear_difference_is_called_by_its_direction():
    clear = [0.100, 0.103, 0.098, 0.101, 0.099]
    assert compare_runs({"a": clear})["a"].verdict == "better"
    assert compare_runs({"a": clear}, larger_is_better=False)["a"].verdict == "worse"


def test_a_significant_difference_below_the_detectable_one_is_not_called_real():
    values = np.array([0.005, 0.009, 0.025, 0.007, 0.015])
    runs = compare_runs({"a": values})["a"]
    assert runs.p_holm < 0.05
    assert abs(runs.difference.value) < runs.detectable
    assert runs.verdict == "not shown"
    assert "what 5 paired runs can show" in runs.reason


def test_no_difference_says_what_could_have_been_missed():
    runs = compare_runs({"a": [0.1, -0.1, 0.05, -0.02, 0.0]})["a"]
    assert runs.verdict == "not shown"
    assert "could have been missed" in runs.reason


def test_degenerate_runs_are_said():
    found = compare_runs({"same": [0, 0, 0], "shift": [0.1, 0.1], "one": [0.2], "none": []})
    assert found["same"].verdict == "identical"
    assert found["shift"].verdict == "undefined"
    assert "same amount" in found["shift"].reason
    assert found["one"].difference.value == 0.2
    assert "two paired runs" in found["one"].reason
    assert found["none"].difference.value is None
    with pytest.raises(PredictionsError, match="finite"):
        compare_runs({"a": [0.1, float("nan")]})
