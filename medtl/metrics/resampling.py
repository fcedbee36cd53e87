"""The bootstrap over patients: all rows of a drawn patient come along.

A resample is a vector of row weights (how often the row is drawn), so that a statistic that can be
computed from weighted counts is computed for many resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.metrics.intervals import percentile, t_quantile
from medtl.metrics.ranking import Ranking, coarsen
from medtl.metrics.scores import CI, CI95, ONE_CLASS, Ids, Readings
from medtl.types import BoolArray, FloatArray, IntArray, Measure

Statistic = Callable[[IntArray], FloatArray]
"""Row weights `(b, n)` -> values `(b,)` or `(b, k)`; NaN where a resample has no value."""

FromCounts = Callable[[IntArray, IntArray], FloatArray]
"""Cumulative true and false positives `(..., k)` -> a value per resample `(...)`."""

ROUNDING = 1e-9
"""Slack below which two resampled values are the same."""

BLOCK_CELLS = 1_000_000
"""Weights held at once: small enough to stay in the processor's cache."""


def patient_strata(positive: BoolArray, patients: IntArray) -> IntArray:
    """Return per patient code 1 if any row of the patient is positive, else 0.

    Args:
        positive: `(n,)` truth of the rows.
        patients: `(n,)` codes 0..P-1.

    >>> patient_strata(np.array([True, False, False]), np.array([0, 0, 1]))
    array([1, 0])
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

    >>> blocks = drawn_patients(np.array([0, 0, 0, 1]), resamples=2, seed=0, block=5)
    >>> next(blocks).sum(axis=1)  # as many patients as there are
    array([4, 4])
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
    statistic: Statistic, patients: IntArray, ci: CI = CI95, *, strata: IntArray | None = None
) -> FloatArray:
    """Return the statistic in every resample of the patients, `(resamples,)` or `(resamples, k)`.

    Args:
        statistic: Takes row weights `(b, n)`, in the row order of `patients`.
        patients: `(n,)` codes 0..P-1.
        ci: Number of resamples, and the seed.
        strata: `(P,)` stratum of each patient; None draws from all patients together.

    Reference:
        Efron and Tibshirani 1993, chapter 8 (the unit that is drawn is the independent one).

    >>> values, patients = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])
    >>> draws = bootstrap(lambda w: w @ values / w.sum(axis=1), patients, CI(resamples=200))
    >>> np.unique(draws)  # the two rows of a patient come along together
    array([1.5, 2.5, 3.5])
    """
    blocks = patient_resamples(patients, ci, strata=strata)
    return np.concatenate([statistic(np.take(times, patients, axis=1)) for times in blocks])


def patient_resamples(
    patients: IntArray, ci: CI, *, strata: IntArray | None = None
) -> Iterator[IntArray]:
    """Return blocks `(b, P)` of how often each patient is drawn, sized for their rows.

    Args:
        patients: `(n,)` codes 0..P-1 of the rows.
        ci: Number of resamples over all blocks, and the seed.
        strata: `(P,)` stratum of each patient; None draws from all patients together.

    >>> next(patient_resamples(np.array([0, 0, 1]), CI(resamples=3))).sum(axis=1)
    array([2, 2, 2])
    """
    if strata is None:
        strata = np.zeros(int(patients.max()) + 1, dtype=np.int64)
    block = max(1, BLOCK_CELLS // max(patients.size, strata.size))
    return drawn_patients(strata, resamples=ci.resamples, seed=ci.seed, block=block)


def bootstrap_counts(
    ranking: Ranking,
    statistics: Sequence[FromCounts],
    ci: CI = CI95,
    *,
    stratified: bool = True,
) -> list[FloatArray]:
    """Return each statistic in the same resamples of the patients, `(B,)` or `(B, k)` each.

    Args:
        ranking: Of the n rows, n at least 1; `coarsen` a long one first.
        statistics: Of the cumulative counts at the ranking's thresholds; NaN where undefined.
        ci: Resamples and seed; fewer are drawn for very long clustered tables.
        stratified: Draw patients with and without a positive row apart, keeping their numbers.

    >>> from medtl.metrics.ranking import area_under_roc, rank
    >>> (draws,) = bootstrap_counts(rank([0, 1, 0, 1], [1, 2, 3, 4]), [area_under_roc], CI95)
    >>> draws.shape, float(draws.min()), float(draws.max())
    ((2000,), 0.0, 1.0)
    """
    widths: list[int] = []

    def columns(tp: IntArray, fp: IntArray) -> FloatArray:
        parts = [np.reshape(of_counts(tp, fp), (len(tp), -1)) for of_counts in statistics]
        widths[:] = [part.shape[1] for part in parts]
        return np.concatenate(parts, axis=1)

    blocks = (_independent_counts if ranking.patients is None else _clustered_counts)(
        ranking, stratified, ci
    )
    draws = np.concatenate([columns(*block) for block in blocks])
    return [
        part[:, 0] if part.shape[1] == 1 else part
        for part in np.split(draws, np.cumsum(widths)[:-1], axis=1)
    ]


def _independent_counts(
    ranking: Ranking, stratified: bool, ci: CI
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield cumulative counts of resampled independent rows: multinomial draws of the groups."""
    rng = np.random.default_rng(ci.seed)
    size = ranking.thresholds.size
    groups = np.diff(np.stack([ranking.tp, ranking.fp]), axis=1, prepend=0)
    pools = [groups[0], groups[1]] if stratified else [groups.ravel()]
    block = max(1, BLOCK_CELLS // (2 * size))
    for start in range(0, ci.resamples, block):
        count = min(block, ci.resamples - start)
        drawn = [
            rng.multinomial(pool.sum(), pool / max(pool.sum(), 1), size=count) for pool in pools
        ]
        both = np.concatenate(drawn, axis=1)
        yield np.cumsum(both[:, :size], axis=1), np.cumsum(both[:, size:], axis=1)


def _clustered_counts(
    ranking: Ranking, stratified: bool, ci: CI
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield cumulative counts of resampled patients: how often each is drawn times what it has.

    A patient has rows at few of the thresholds, so the product is a sparse one.
    """
    from scipy.sparse import csr_array

    codes = ranking.patient_numbers
    size = ranking.thresholds.size
    threshold = np.repeat(np.arange(size), np.diff(ranking.last, prepend=-1))
    place = np.where(ranking.positive, threshold, threshold + size)
    ones = np.ones(codes.size, dtype=np.int32)
    rows = csr_array((ones, (place, codes)), shape=(2 * size, int(codes.max()) + 1))
    strata = patient_strata(ranking.positive, codes) if stratified else None
    for times in patient_resamples(codes, ci.affordable(codes.size), strata=strata):
        both = (rows @ times.T).T
        tp, fp = (
            np.cumsum(part, axis=1, dtype=np.int64) for part in (both[:, :size], both[:, size:])
        )
        yield tp, fp


def bootstrap_measures(
    statistics: Mapping[str, FromCounts], ranking: Ranking, ci: CI = CI95
) -> list[Measure]:
    """Return statistics of the cumulative counts with percentile intervals of the same resamples.

    Undefined with one class only. A resample without a value is left out and counted.

    Args:
        statistics: Name of the measure -> statistic; NaN where it is undefined.
        ranking: Of the n rows.
        ci: Level and bootstrap; fewer resamples are drawn for very long tables, and it is named.

    >>> from medtl.metrics.ranking import area_under_roc, rank
    >>> ranking = rank([0, 1, 0, 1, 1], [0.1, 0.4, 0.5, 0.6, 0.9])
    >>> bootstrap_measures({"area": area_under_roc}, ranking, CI(resamples=100))[0].value
    0.8333333333333334
    """
    blank = ci.blank("", ranking.positive.size, ranking.num_positive, ranking.num_patients)
    if not (ranking.num_positive and ranking.num_negative):
        return [replace(blank, name=name).undefined(ONE_CLASS) for name in statistics]
    found = bootstrapped(ranking, list(statistics.values()), ci)
    return [
        with_percentiles(replace(blank, name=name, value=value), draws)
        for name, (value, draws) in zip(statistics, found, strict=True)
    ]


def bootstrapped(
    ranking: Ranking, statistics: Sequence[FromCounts], ci: CI = CI95
) -> list[tuple[float, FloatArray]]:
    """Return the value of each statistic of the counts, and it in the same resamples, `(B,)`.

    Args:
        ranking: Of the n rows; a long one is coarsened.
        statistics: Of the cumulative counts at the thresholds.
        ci: Resamples and seed.

    >>> from medtl.metrics.ranking import area_under_roc, rank
    >>> ((value, draws),) = bootstrapped(rank([0, 1, 0, 1], [1, 2, 3, 4]), [area_under_roc])
    >>> value, draws.size
    (0.75, 2000)
    """
    coarse = coarsen(ranking)
    found = []
    for statistic, draws in zip(statistics, bootstrap_counts(coarse, statistics, ci), strict=True):
        value = float(statistic(ranking.tp, ranking.fp))
        # What fewer thresholds change in the estimate, they change in every resample.
        found.append((value, draws + (value - float(statistic(coarse.tp, coarse.fp)))))
    return found


def bootstrap_function(
    name: str,
    function: Callable[[FloatArray, FloatArray], float],
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    patients: Ids = None,
    ci: CI = CI95,
) -> Measure:
    """Return any statistic of truth and score with its percentile bootstrap over patients.

    Undefined where the function has no finite value on these rows. A resample without one is left
    out and counted. Patients with and without a row of the truth 1 are drawn apart.

    Args:
        name: Of the measure.
        function: Takes truth and score of the same rows, `(n,)` each, and returns a number.
        y_true: `(n,)`, finite.
        y_score: `(n,)`, finite.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level and bootstrap of the interval.

    Raises:
        PredictionsError: If lengths differ or a value is not finite.

    >>> gap = lambda truth, score: score[truth == 1].mean() - score[truth == 0].mean()
    >>> bootstrap_function("gap", gap, [0, 0, 1, 1], [0.1, 0.3, 0.6, 0.8], ci=CI(resamples=100))
    gap: 0.500 [0.300, 0.700], n = 4 (percentile bootstrap of patients)
    """
    rows = Readings.of(y_true, y_score, patients)
    truth, score, blank = rows.reference, rows.prediction, rows.blank(ci, name)
    value = float(function(truth, score)) if truth.size else math.nan
    if not math.isfinite(value):
        return blank.undefined("the function has no value on these rows")

    def statistic(weights: IntArray) -> FloatArray:
        drawn = (np.repeat(np.arange(truth.size), row) for row in weights)
        return np.array([function(truth[row], score[row]) for row in drawn], dtype=float)

    strata = patient_strata(truth == 1, rows.patients)
    draws = bootstrap(statistic, rows.patients, ci.affordable(truth.size), strata=strata)
    return with_percentiles(replace(blank, value=value), draws)


def resampled_measures(
    statistics: Statistic,
    names: Sequence[str],
    blank: Measure,
    patients: IntArray,
    ci: CI,
    *,
    reason: str = "",
    units: int = 0,
) -> list[Measure]:
    """Return several statistics of weighted rows with percentile intervals of the same resamples.

    Args:
        statistics: Row weights `(b, n)` -> `(b, k)`; NaN where undefined.
        names: Of the k measures.
        blank: Measure that knows its rows.
        patients: `(n,)` codes 0..P-1.
        ci: Bootstrap.
        reason: Why a statistic without a finite value is undefined.
        units: Patients of the smallest class, for the expanded percentiles of `with_percentiles`.

    >>> spread = lambda w: np.stack([(w > 0).sum(axis=1)], axis=1)
    >>> resampled_measures(spread, ["drawn"], Measure("", None, n=3), np.arange(3), CI95)[0].value
    3.0
    """
    values = statistics(np.ones((1, patients.size), dtype=int))[0]
    draws = bootstrap(statistics, patients, ci)
    return [
        with_percentiles(replace(blank, name=name, value=float(value)), column, units)
        if math.isfinite(value)
        else replace(blank, name=name).undefined(reason)
        for name, value, column in zip(names, values, draws.T, strict=True)
    ]


def with_percentiles(measure: Measure, draws: FloatArray, units: int = 0) -> Measure:
    """Return the measure with the percentile interval of its bootstrap draws.

    Args:
        measure: With its value.
        draws: `(resamples,)`, NaN where a resample had no value.
        units: Patients of the smallest class: the tails are taken further out as t's are, for
            resamples of few patients vary too little. 0 takes the plain percentiles.

    Reference:
        Expanded percentiles: Hesterberg, American Statistician 2015;69:371, section 4.3.

    >>> with_percentiles(Measure("x", 0.5, n=9), np.linspace(0, 1, 101))
    x: 0.500 [0.025, 0.975], n = 9 (percentile bootstrap of patients)
    """
    lost = int(np.count_nonzero(~np.isfinite(draws)))
    method = f"percentile bootstrap of patients, B={draws.size}"
    if lost:
        method += f", {lost} without a value"
    if lost == draws.size:
        return replace(measure, status="degenerate", reason="no resample has a value")
    level = measure.confidence
    if units > 1:
        wider = math.sqrt(units / (units - 1)) * t_quantile(units - 1, level)
        level = math.erf(wider / math.sqrt(2))
    low, high = percentile(draws, level)
    found = replace(measure, low=low, high=high, method=method, status="ok")
    if high - low > ROUNDING:
        return found
    return replace(found, status="degenerate", reason="all resamples agree")
