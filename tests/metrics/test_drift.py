"""What changed in use: distances by hand, planted changes found, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp
from sklearn.metrics import roc_auc_score

from medtl.errors import PredictionsError
from medtl.metrics.transfer import drift
from medtl.metrics.transfer.drift import (
    ThenAndNow,
    cusum_of_misses,
    difference_of_aurocs,
    difference_of_means,
    kolmogorov_smirnov,
    stability_index,
)


def pair(seed: int, n: int = 80, m: int = 60, shift: float = 0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n).round(2), rng.normal(shift, 1.0, size=m).round(2)


def test_the_distance_of_distributions_is_scipys():
    then, now = pair(0)
    found = ThenAndNow(range(80), range(60)).distance(kolmogorov_smirnov(then, now))
    theirs = ks_2samp(then, now, method="asymp")
    assert found.value == pytest.approx(theirs.statistic, abs=1e-12)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.07)


def test_the_index_by_hand():
    then, now = np.repeat([0.0, 1.0], [30, 10]), np.repeat([0.0, 1.0], [10, 30])
    found = ThenAndNow(range(40), range(40)).distance(stability_index(then, now))
    share = np.array([30.5, 10.5]) / 41
    assert found.value == pytest.approx(2 * (share[0] - share[1]) * np.log(share[0] / share[1]))


def test_the_difference_of_aurocs_is_sklearns():
    then, now = pair(1, 50, 50)
    truth = np.arange(50) % 2
    statistic = difference_of_aurocs(truth, then, truth, now)
    found = ThenAndNow(range(50), range(50)).distance(statistic).value
    expected = abs(roc_auc_score(truth, then) - roc_auc_score(truth, now))
    assert found == pytest.approx(expected, abs=1e-12)


def test_small_numbers_do_not_shout():
    """The customary limit of 0.25 is passed by chance alone; what is usual says so."""
    above = 0
    for seed in range(20):
        then, now = pair(seed, 20, 20)
        found = ThenAndNow(range(20), range(20)).distance(stability_index(then, now))
        above += found.value > 0.25
        assert found.usual > 0.25
    assert above > 10


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_false_alarms_at_the_stated_rate_and_changes_found(monkeypatch, shift):
    monkeypatch.setattr(drift, "DRAWS", 199)
    alarms = 0
    for seed in range(200):
        then, now = pair(seed, 60, 40, shift)
        alarms += (
            ThenAndNow(range(60), range(40), seed).distance(kolmogorov_smirnov(then, now)).p <= 0.05
        )
    if shift:
        assert alarms > 190
    else:
        assert binomtest(alarms, 200, 0.05).pvalue > 0.01


def clustered(seed: int) -> tuple[float, float]:
    """P values of two sets of 15 patients with ten equal images: by patient, and by image."""
    rng = np.random.default_rng(seed)
    sides = [np.repeat(rng.normal(size=15), 10) for _ in range(2)]
    people = np.repeat(np.arange(15), 10)
    statistic = difference_of_means(*sides)
    by_patient = ThenAndNow(people, people, seed).distance(statistic).p
    return by_patient, ThenAndNow(range(150), range(150), seed).distance(statistic).p


def test_patients_are_dealt_not_images(monkeypatch):
    monkeypatch.setattr(drift, "DRAWS", 199)
    found = np.array([clustered(seed) for seed in range(100)]) <= 0.05
    assert binomtest(int(found[:, 0].sum()), 100, 0.05).pvalue > 0.01
    assert found[:, 1].sum() > 40  # the negative control


def test_one_who_is_in_both_is_dealt_as_two():
    then, now = pair(2, 40, 40)
    first, second = ([f"{n:02d}" for n in range(start, start + 40)] for start in (0, 40))
    statistic = kolmogorov_smirnov(then, now)
    apart = ThenAndNow(first, second).distance(statistic)
    assert ThenAndNow(first, first).distance(statistic) == apart


def test_the_account_by_hand():
    found = cusum_of_misses(np.array([1, 0, 0, 1, 1], bool), misses_then=9, positives_then=98)
    rate = 9.5 / 99
    worse = 2 * rate / (1 + rate)
    up, down = np.log(worse / rate), np.log((1 - worse) / (1 - rate))
    path = [up, up + down, up + 2 * down, 2 * up + 2 * down, 3 * up + 2 * down]
    assert found.path == pytest.approx(path)
    assert found.path[0] > 0 > down


@pytest.mark.parametrize(("rate", "least", "most"), [(0.1, 0, 16), (0.35, 180, 200)])
def test_misses_alarm_when_they_grow(monkeypatch, rate, least, most):
    monkeypatch.setattr(drift, "DRAWS", 400)
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        then = int((rng.random(150) < 0.1).sum())
        now = rng.random(80) < rate
        alarms += (
            cusum_of_misses(now, misses_then=then, positives_then=150, seed=seed).alarm is not None
        )
    assert least <= alarms <= most  # 10 of 200 is the stated rate; 17 would be too many


def test_too_few_to_compare():
    with pytest.raises(PredictionsError, match="9 patients now; expected 10 or more"):
        ThenAndNow(range(20), range(9))
    with pytest.raises(PredictionsError, match="no positive"):
        cusum_of_misses(np.zeros(0, bool), misses_then=0, positives_then=3)
