"""Summaries of the ROC and precision-recall curves whose interval needs the bootstrap.

Thresholds are picked again in every resample. They are picked on the very set that is reported, so
none of them is an operating point: that one is chosen on validation (`operating_point`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.inputs import blank_measure, finite_vector, num_patients, patient_codes
from medtl.metrics.intervals import percentile
from medtl.metrics.ranking import (
    ONE_CLASS,
    Ranking,
    area_under_part_of_roc,
    coarsen,
    rank,
    ratio,
    step_precision,
)
from medtl.metrics.resampling import (
    BLOCK_CELLS,
    affordable_resamples,
    bootstrap,
    patient_resamples,
    patient_strata,
)
from medtl.metrics.scores import CI, CI95
from medtl.types import FloatArray, IntArray, Measure

FromCounts = Callable[[IntArray, IntArray], FloatArray]
"""Cumulative true and false positives `(..., k)` -> a value per resample `(...)`."""

ROUNDING = 1e-9
"""Slack when a share is turned into the least count: 0.9 of 10 is 9, not 10."""


def least_count(share: float, total: FloatArray) -> FloatArray:
    """Return the least whole count that is at least `share` of `total`."""
    return np.asarray(np.ceil(share * total - ROUNDING))


def best_sensitivity(tp: IntArray, fp: IntArray, specificity: float) -> FloatArray:
    """Return the highest sensitivity of a threshold whose specificity is at least so high.

    Args:
        tp: `(..., k)` cumulative true positives.
        fp: `(..., k)` cumulative false positives.
        specificity: In [0, 1]. The threshold above all scores (flag nobody) counts too.
    """
    positives, negatives = tp[..., -1].astype(float), fp[..., -1].astype(float)
    allowed = negatives[..., None] - fp >= least_count(specificity, negatives)[..., None]
    best = np.where(allowed, tp, 0).max(axis=-1)
    return ratio(best, positives)


def interpolated_sensitivity(tp: IntArray, fp: IntArray, specificity: float) -> FloatArray:
    """Return the sensitivity of the straight-line ROC at exactly this specificity.

    Args:
        tp: `(..., k)` cumulative true positives.
        fp: `(..., k)` cumulative false positives.
        specificity: In [0, 1].

    Reference:
        pROC's ci.se; a point between two thresholds that no threshold may reach.
    """
    positives, negatives = tp[..., -1].astype(float), fp[..., -1].astype(float)
    limit = (1 - specificity) * negatives + ROUNDING
    reached = (fp <= limit[..., None]).sum(axis=-1, keepdims=True)
    zero = np.zeros_like(tp[..., :1])
    x, y = np.concatenate([zero, fp], axis=-1), np.concatenate([zero, tp], axis=-1)
    following = np.minimum(reached + 1, x.shape[-1] - 1)
    x0, x1, y0, y1 = (
        np.take_along_axis(curve, index, axis=-1)[..., 0].astype(float)
        for curve in (x, y)
        for index in (reached, following)
    )
    slope = np.divide(y1 - y0, x1 - x0, out=np.zeros_like(x0), where=x1 > x0)
    return ratio(y0 + slope * (limit - x0), positives)


def best_specificity(tp: IntArray, fp: IntArray, sensitivity: float) -> FloatArray:
    """Return the highest specificity of a threshold whose sensitivity is at least so high.

    Args:
        tp: `(..., k)` cumulative true positives.
        fp: `(..., k)` cumulative false positives.
        sensitivity: In [0, 1].
    """
    positives, negatives = tp[..., -1].astype(float), fp[..., -1].astype(float)
    needed = least_count(sensitivity, positives)
    allowed = tp >= needed[..., None]
    best = np.where(allowed, negatives[..., None] - fp, 0).max(axis=-1)
    best = np.where(needed <= 0, negatives, best)
    return ratio(best, negatives)


def bootstrap_counts(
    ranking: Ranking,
    statistics: Sequence[FromCounts],
    *,
    patients: ArrayLike | None = None,
    stratified: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> list[FloatArray]:
    """Return each statistic in the same resamples of the patients, `(B,)` or `(B, k)` each.

    Args:
        ranking: Of the n rows, n at least 1; `coarsen` a long one first.
        statistics: Of the cumulative counts at the ranking's thresholds; NaN where undefined.
        patients: `(n,)` identifiers, or None for one row per patient.
        stratified: Draw patients with and without a positive row apart, keeping their numbers.
        resamples: Number of resamples; fewer are drawn for very long clustered tables.
        seed: Of the random generator.
    """
    widths: list[int] = []

    def columns(tp: IntArray, fp: IntArray) -> FloatArray:
        parts = [np.reshape(of_counts(tp, fp), (len(tp), -1)) for of_counts in statistics]
        widths[:] = [part.shape[1] for part in parts]
        return np.concatenate(parts, axis=1)

    if patients is None:
        blocks = _independent_counts(ranking, stratified, resamples, np.random.default_rng(seed))
    else:
        codes = patient_codes(patients, ranking.positive.size)[ranking.order]
        drawn = patient_resamples(
            codes,
            strata=patient_strata(ranking.positive, codes) if stratified else None,
            resamples=affordable_resamples(resamples, codes.size),
            seed=seed,
        )
        blocks = _clustered_counts(ranking, codes, drawn)
    draws = np.concatenate([columns(*block) for block in blocks])
    return [
        part[:, 0] if part.shape[1] == 1 else part
        for part in np.split(draws, np.cumsum(widths)[:-1], axis=1)
    ]


def _independent_counts(
    ranking: Ranking, stratified: bool, resamples: int, rng: np.random.Generator
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield cumulative counts of resampled independent rows: multinomial draws of the groups."""
    size = ranking.thresholds.size
    groups = np.diff(np.stack([ranking.tp, ranking.fp]), axis=1, prepend=0)
    pools = [groups[0], groups[1]] if stratified else [groups.ravel()]
    block = max(1, BLOCK_CELLS // (2 * size))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = [
            rng.multinomial(pool.sum(), pool / max(pool.sum(), 1), size=count) for pool in pools
        ]
        both = np.concatenate(drawn, axis=1)
        yield np.cumsum(both[:, :size], axis=1), np.cumsum(both[:, size:], axis=1)


def _clustered_counts(
    ranking: Ranking, codes: IntArray, drawn: Iterator[IntArray]
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield cumulative counts of resampled patients: how often each is drawn times what it has.

    A patient has rows at few of the thresholds, so the product is a sparse one.
    """
    from scipy.sparse import csr_array

    size = ranking.thresholds.size
    threshold = np.repeat(np.arange(size), np.diff(ranking.last, prepend=-1))
    place = np.where(ranking.positive, threshold, threshold + size)
    ones = np.ones(codes.size, dtype=np.int32)
    rows = csr_array((ones, (place, codes)), shape=(2 * size, int(codes.max()) + 1))
    for times in drawn:
        both = (rows @ times.T).T
        tp, fp = (
            np.cumsum(part, axis=1, dtype=np.int64) for part in (both[:, :size], both[:, size:])
        )
        yield tp, fp


def bootstrap_measure(
    name: str,
    ranking: Ranking,
    from_counts: FromCounts,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Measure:
    """Return a statistic of the cumulative counts with its percentile bootstrap over patients.

    Undefined with one class only. A resample without a value is left out and counted.

    Args:
        name: Of the measure.
        ranking: Of the n rows.
        from_counts: The statistic; NaN where it is undefined.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
        resamples: Number of resamples; fewer are drawn for very long tables, and it is named.
        seed: Of the random generator.
    """
    (measure,) = bootstrap_measures(
        {name: from_counts}, ranking,
        patients=patients, confidence=confidence, resamples=resamples, seed=seed,
    )  # fmt: skip
    return measure


def bootstrap_measures(
    statistics: Mapping[str, FromCounts],
    ranking: Ranking,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Measure]:
    """Return several statistics with percentile intervals from the same resamples.

    Args:
        statistics: Name of the measure -> statistic; NaN where it is undefined.
        ranking: Of the n rows.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the intervals.
        resamples: Number of resamples; fewer are drawn for very long tables, and it is named.
        seed: Of the random generator.
    """
    codes = patient_codes(patients, ranking.positive.size)
    blank = blank_measure("", ranking.positive, codes, confidence)
    if not (ranking.num_positive and ranking.num_negative):
        return [replace(blank, name=name, reason=ONE_CLASS) for name in statistics]
    coarse = coarsen(ranking)
    draws = bootstrap_counts(
        coarse, list(statistics.values()), patients=patients, resamples=resamples, seed=seed
    )
    measures = []
    for (name, statistic), column in zip(statistics.items(), draws, strict=True):
        value = float(statistic(ranking.tp, ranking.fp))
        # What fewer thresholds change in the estimate, they change in every resample.
        moved = value - float(statistic(coarse.tp, coarse.fp))
        measures.append(with_percentiles(replace(blank, name=name, value=value), column + moved))
    return measures


def with_percentiles(measure: Measure, draws: FloatArray) -> Measure:
    """Return the measure with the percentile interval of its bootstrap draws.

    Args:
        measure: With its value.
        draws: `(resamples,)`, NaN where a resample had no value.
    """
    lost = int(np.count_nonzero(~np.isfinite(draws)))
    method = f"percentile bootstrap of patients, B={draws.size}"
    if lost:
        method += f", {lost} without a value"
    if lost == draws.size:
        return replace(measure, status="degenerate", reason="no resample has a value")
    low, high = percentile(draws, measure.confidence)
    if high - low > ROUNDING:
        return replace(measure, low=low, high=high, method=method, status="ok")
    reason = "all resamples agree"
    return replace(measure, low=low, high=high, method=method, status="degenerate", reason=reason)


def bootstrap_function(
    name: str,
    function: Callable[[FloatArray, FloatArray], float],
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    patients: ArrayLike | None = None,
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
    """
    truth, score = finite_vector(y_true, "y_true"), finite_vector(y_score, "y_score")
    if truth.size != score.size:
        raise PredictionsError(f"{truth.size} truths and {score.size} scores", expected="one each")
    codes = patient_codes(patients, truth.size)
    blank = Measure(name, None, confidence=ci.level, n=truth.size,
                    n_patients=num_patients(codes), status="undefined")  # fmt: skip
    value = float(function(truth, score)) if truth.size else math.nan
    if not math.isfinite(value):
        return replace(blank, reason="the function has no value on these rows")

    def statistic(weights: IntArray) -> FloatArray:
        rows = (np.repeat(np.arange(truth.size), row) for row in weights)
        return np.array([function(truth[row], score[row]) for row in rows], dtype=float)

    draws = bootstrap(
        statistic, codes, strata=patient_strata(truth == 1, codes),
        resamples=affordable_resamples(ci.resamples, truth.size), seed=ci.seed,
    )  # fmt: skip
    return with_percentiles(replace(blank, value=value), draws)


def average_precision(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Measure:
    """Return average precision; its chance level is the prevalence. Undefined with one class.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)`, finite.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
        resamples: Bootstrap resamples of the patients.
        seed: Of the bootstrap.
    """
    return bootstrap_measure(
        "average_precision", rank(y_true, y_score), step_precision,
        patients=patients, confidence=confidence, resamples=resamples, seed=seed,
    )  # fmt: skip


def partial_auc(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    specificity: float = 0.9,
    standardised: bool = True,
    patients: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Measure:
    """Return the area under the ROC from this specificity up to 1. Undefined with one class.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)`, finite.
        specificity: Lower end of the range, in [0, 1).
        standardised: McClish's form, 0.5 for chance and 1 for perfect; otherwise the raw area.
        patients: `(n,)` identifiers, or None for one row per patient.
        resamples: Bootstrap resamples of the patients.
        seed: Of the bootstrap.

    Reference:
        McClish, Medical Decision Making 1989;9:190.
    """
    widest = 1 - specificity
    least = widest**2 / 2

    def area(tp: IntArray, fp: IntArray) -> FloatArray:
        raw = area_under_part_of_roc(tp, fp, specificity)
        return (1 + (raw - least) / (widest - least)) / 2 if standardised else raw

    name = f"partial_auc_specificity_{percent(specificity)}_to_100"
    return bootstrap_measure(
        name, rank(y_true, y_score), area, patients=patients, resamples=resamples, seed=seed
    )


def sensitivity_at_specificity(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    specificity: float,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Measure:
    """Return the best sensitivity among thresholds of at least this specificity.

    Args:
        y_true: `(n,)`, 0 or 1, both present or the measure is undefined.
        y_score: `(n,)`, finite.
        specificity: In [0, 1], compared as a whole count of negatives.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
        resamples: Bootstrap resamples; the threshold is picked again in each.
        seed: Of the bootstrap.
    """
    return bootstrap_measure(
        f"sensitivity_at_specificity_{percent(specificity)}", rank(y_true, y_score),
        lambda tp, fp: best_sensitivity(tp, fp, specificity),
        patients=patients, confidence=confidence, resamples=resamples, seed=seed,
    )  # fmt: skip


def specificity_at_sensitivity(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitivity: float,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Measure:
    """Return the best specificity among thresholds of at least this sensitivity.

    Args:
        y_true: `(n,)`, 0 or 1, both present or the measure is undefined.
        y_score: `(n,)`, finite.
        sensitivity: In [0, 1], compared as a whole count of positives.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.
        resamples: Bootstrap resamples; the threshold is picked again in each.
        seed: Of the bootstrap.
    """
    return bootstrap_measure(
        f"specificity_at_sensitivity_{percent(sensitivity)}", rank(y_true, y_score),
        lambda tp, fp: best_specificity(tp, fp, sensitivity),
        patients=patients, confidence=confidence, resamples=resamples, seed=seed,
    )  # fmt: skip


def percent(share: float) -> str:
    """Return a share as the percentage used in names: 0.9 is "90", 0.975 is "97.5"."""
    return f"{round(share * 100, 6):g}"


def threshold_at_sensitivity(ranking: Ranking, sensitivity: float) -> float:
    """Return the highest score at which at least this share of positives is flagged.

    Args:
        ranking: With at least one positive.
        sensitivity: In [0, 1]; 0 is met by flagging nobody (infinity).
    """
    needed = math.ceil(sensitivity * ranking.num_positive - ROUNDING)
    if needed <= 0:
        return math.inf
    return float(ranking.thresholds[np.searchsorted(ranking.tp, needed)])


def threshold_at_specificity(ranking: Ranking, specificity: float) -> float:
    """Return the score of best sensitivity with at least this specificity, the highest of equals.

    Args:
        ranking: With at least one negative.
        specificity: In [0, 1]. Infinity, flag nobody, if no score has a sensitivity above 0.
    """
    needed = math.ceil(specificity * ranking.num_negative - ROUNDING)
    allowed = np.flatnonzero(ranking.num_negative - ranking.fp >= needed)
    if not allowed.size or ranking.tp[allowed[-1]] == 0:
        return math.inf
    return float(ranking.thresholds[np.searchsorted(ranking.tp, ranking.tp[allowed[-1]])])
