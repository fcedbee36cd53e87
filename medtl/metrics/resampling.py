"""The bootstrap over patients: all rows of a drawn patient come along.

A resample is a vector of row weights (how often the row is drawn), so that a statistic that can be
computed from weighted counts is computed for many resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from medtl.types import BoolArray, FloatArray, IntArray

Statistic = Callable[[IntArray], FloatArray]
"""Row weights `(b, n)` -> values `(b,)` or `(b, k)`; NaN where a resample has no value."""

BLOCK_CELLS = 1_000_000
"""Weights held at once: small enough to stay in the processor's cache."""

FULL_ROWS = 20_000
"""Up to so many rows all resamples are drawn; beyond, fewer (never below 200), and it is named."""


def affordable_resamples(resamples: int, rows: int) -> int:
    """Return how many resamples to draw: all, or fewer for tables beyond `FULL_ROWS` rows.

    With so many rows the interval is narrow and its Monte-Carlo error is no longer what matters.
    """
    return min(resamples, max(200, resamples * FULL_ROWS // max(rows, 1)))


def patient_strata(positive: BoolArray, patients: IntArray) -> IntArray:
    """Return per patient code 1 if any row of the patient is positive, else 0.

    Args:
        positive: `(n,)` truth of the rows.
        patients: `(n,)` codes 0..P-1.
    """
    strata = np.zeros(int(patients.max()) + 1 if patients.size else 0, dtype=np.int64)
    strata[patients[positive]] = 1
    return strata


def drawn_patients(
    strata: IntArray, *, resamples: int, seed: int, block: int
) -> Iterator[IntArray]:
    """Yield blocks `(b, P)` of how often each patient is drawn, stratum by stratum.

    Args:
        strata: `(P,)` stratum of each patient; each stratum keeps its size in every resample.
        resamples: Total number of resamples.
        seed: Of the random generator; the same seed gives the same resamples.
        block: Resamples per block.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    patients = strata.size
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        counts = np.zeros((size, patients), dtype=np.int32)
        for group in members:
            # Counted by place in the stratum, which lies closer together than the patients do.
            drawn = rng.integers(0, group.size, size=(size, group.size), dtype=np.int32)
            places = drawn + np.arange(size)[:, None] * group.size
            times = np.bincount(places.ravel(), minlength=size * group.size)
            counts[:, group] = times.reshape(size, group.size)
        yield counts


def bootstrap(
    statistic: Statistic,
    patients: IntArray,
    *,
    strata: IntArray | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> FloatArray:
    """Return the statistic in every resample of the patients, `(resamples,)` or `(resamples, k)`.

    Args:
        statistic: Takes row weights `(b, n)`, in the row order of `patients`.
        patients: `(n,)` codes 0..P-1.
        strata: `(P,)` stratum of each patient; None draws from all patients together.
        resamples: Number of resamples.
        seed: Of the random generator.

    Reference:
        Efron and Tibshirani 1993, chapter 8 (the unit that is drawn is the independent one).
    """
    blocks = patient_resamples(patients, strata=strata, resamples=resamples, seed=seed)
    return np.concatenate([statistic(np.take(times, patients, axis=1)) for times in blocks])


def patient_resamples(
    patients: IntArray, *, strata: IntArray | None, resamples: int, seed: int
) -> Iterator[IntArray]:
    """Return blocks `(b, P)` of how often each patient is drawn, sized for their rows.

    Args:
        patients: `(n,)` codes 0..P-1 of the rows.
        strata: `(P,)` stratum of each patient; None draws from all patients together.
        resamples: Number of resamples over all blocks.
        seed: Of the random generator.
    """
    if strata is None:
        strata = np.zeros(int(patients.max()) + 1, dtype=np.int64)
    block = max(1, BLOCK_CELLS // max(patients.size, strata.size))
    return drawn_patients(strata, resamples=resamples, seed=seed, block=block)
