"""Every fast path of the statistics against its slow twin."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.metrics.overlap import bounding_box
from medtl.metrics.ranking import (
    area_under_roc,
    auc_covariance,
    auroc,
    coarsen,
    placements,
    rank,
    step_precision,
    weighted_counts,
)
from medtl.metrics.resampling import (
    bootstrap,
    bootstrap_counts,
    drawn_patients,
    patient_strata,
)
from medtl.metrics.scores import CI

CASES = {
    "no ties": (200, 1e6),
    "many ties": (300, 4),
    "one value": (50, 0),
    "two of a class": (4, 10),
}


def scored(n: int, levels: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    truth = np.arange(n) % 3 == 0
    return truth, np.rint((truth + rng.normal(size=n)) * levels)


@pytest.mark.parametrize(("n", "levels"), CASES.values(), ids=CASES)
def test_placements_are_counted_pair_by_pair(n, levels):
    truth, score = scored(n, levels)
    other = [score[truth != own] for own in truth]
    won = [
        np.mean(np.sign(value - rest) + 1) / 2 if own else np.mean(np.sign(rest - value) + 1) / 2
        for own, value, rest in zip(truth, score, other, strict=True)
    ]
    np.testing.assert_allclose(placements(truth, score), won, atol=1e-12)


@pytest.mark.parametrize(("n", "levels"), CASES.values(), ids=CASES)
def test_independent_rows_need_no_row_numbers(n, levels):
    """The AUROC of sorted scores and the covariance of placements: the same interval."""
    truth, score = scored(n, levels)
    fast, alone = auroc(truth, score), auroc(truth, score, patients=np.arange(n))
    (auc,), covariance = auc_covariance(truth, score)
    assert fast == alone
    assert fast.value == pytest.approx(auc, abs=1e-12)
    if fast.status == "ok":
        width = np.log(fast.high / (1 - fast.high)) - np.log(fast.low / (1 - fast.low))
        spread = width / (2 * 1.959963985) * auc * (1 - auc)
        assert spread**2 == pytest.approx(covariance[0, 0], rel=1e-6)


def test_resampled_patients_are_counted_as_resampled_rows():
    """The sparse product of patients and thresholds: the counts of the rows, number by number."""
    rng = np.random.default_rng(0)
    truth, score = scored(400, 6)
    patients = rng.integers(0, 90, 400)
    whole = rank(truth, score, patients)
    for ranking in (whole, coarsen(whole, 7)):
        fast = bootstrap_counts(
            ranking, [area_under_roc, step_precision], CI(resamples=300, seed=4)
        )
        codes = np.unique(patients, return_inverse=True)[1][ranking.order]
        slow = [
            bootstrap(
                lambda weights, of=of, ranking=ranking: of(*weighted_counts(ranking, weights)),
                codes,
                CI(resamples=300, seed=4),
                strata=patient_strata(ranking.positive, codes),
            )
            for of in (area_under_roc, step_precision)
        ]
        np.testing.assert_allclose(fast, slow, atol=1e-14)


def test_draws_are_the_generator_s_own():
    """Counting by place in the stratum changes no draw: the generator's numbers, one by one."""
    strata = np.array([0, 1, 0, 0, 1, 1, 0])
    found = np.concatenate(list(drawn_patients(strata, resamples=5, seed=3, block=2)))
    rng = np.random.default_rng(3)
    expected = np.zeros((5, 7), dtype=int)
    for rows in ([0, 1], [2, 3], [4]):
        for value in (0, 1):
            members = np.flatnonzero(strata == value)
            size = (len(rows), members.size)
            drawn = rng.integers(0, members.size, size=size, dtype=np.int32)
            for row, picks in zip(rows, drawn, strict=True):
                np.add.at(expected[row], members[picks], 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(6))
def test_the_box_is_that_of_the_voxels(seed):
    mask = np.random.default_rng(seed).random((7, 9, 5)) < (0.02, 0.3)[seed % 2]
    mask[0, :, :] = False
    places = np.argwhere(mask)
    expected = tuple(
        slice(low, high + 1) for low, high in zip(places.min(0), places.max(0), strict=True)
    )
    assert bounding_box(mask) == expected


def test_an_empty_mask_has_an_empty_box():
    assert not np.zeros((4, 5, 6), dtype=bool)[bounding_box(np.zeros((4, 5, 6), dtype=bool))].size
