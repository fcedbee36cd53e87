"""The bootstrap draws patients, within strata, and nothing else."""

import numpy as np

from medtl.metrics import resampling
from medtl.metrics.scores import CI

PATIENTS = np.array([0, 0, 1, 2, 2, 2, 3])


def test_all_rows_of_a_drawn_patient_come_along() -> None:
    seen = []

    def keep(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return weights.sum(axis=1).astype(float)

    totals = resampling.bootstrap(keep, PATIENTS, CI(resamples=50))
    weights = np.concatenate(seen)
    assert totals.shape == (50,)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    drawn = weights[:, [0, 2, 3, 6]]
    assert (drawn.sum(axis=1) == 4).all()


def test_every_stratum_keeps_its_size() -> None:
    strata = resampling.patient_strata(np.array([0, 1, 0, 0, 0, 1, 0], dtype=bool), PATIENTS)
    assert strata.tolist() == [1, 0, 1, 0]
    for block in resampling.drawn_patients(strata, resamples=30, seed=0, block=7):
        assert (block[:, strata == 1].sum(axis=1) == 2).all()
        assert (block[:, strata == 0].sum(axis=1) == 2).all()


def test_the_seed_decides_and_blocks_do_not() -> None:
    strata = np.zeros(5, dtype=int)
    first, second = (
        np.concatenate(list(resampling.drawn_patients(strata, resamples=20, seed=3, block=20)))
        for _ in range(2)
    )
    assert (first == second).all()
    assert first.shape == (20, 5)


def test_the_spread_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    draws = resampling.bootstrap(
        lambda weights: weights @ values / 400, np.arange(400), CI(resamples=3000)
    )
    assert abs(draws.std() / (values.std() / 20) - 1) < 0.05
