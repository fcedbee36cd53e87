"""What changed between the cases a model was tested on and those it meets in use.

Every p value asks one question: how often would as large a difference come about if the patients of
then and now were drawn from one population? Patients are dealt anew to "then" and "now", so that
small numbers cannot shout, whatever the statistic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medtl.errors import PredictionsError
from medtl.metrics.ranking import area_under_roc, rank, weighted_counts
from medtl.metrics.scores import Ids, binary_truth, finite_vector, patient_codes
from medtl.types import BoolArray, FloatArray, IntArray

DRAWS = 999
"""Dealings of the patients behind a p value; 0.001 is the least there is."""

LEAST = 10
"""Patients on either side below which nothing is compared."""

BINS = 10
"""Of the stability index, with as many pooled cases in each."""

ODDS = 2.0
"""Factor on the odds of a miss that the CUSUM watches for (Steiner et al. 2000 use 2)."""

CHUNK = 64
"""Dealings that are computed together."""

Statistic = Callable[[BoolArray], FloatArray]
"""From `(B, n)`, which rows are of now, to `(B,)` distances between then and now."""


@dataclass(frozen=True)
class Change:
    """A distance between then and now.

    Attributes:
        value: The distance that was found, 0 for none.
        usual: What 95 of 100 dealings of the same patients stay below.
        p: Share of dealings that come as far.
    """

    value: float
    usual: float
    p: float


@dataclass(frozen=True)
class Cusum:
    """A running account of misses.

    Attributes:
        path: `(n,)` after each case; it falls back to 0 while all is as it was.
        limit: Reached by 5 of 100 such series when nothing has changed.
        p: Share of series without a change that come as high.
    """

    path: tuple[float, ...]
    limit: float
    p: float

    @property
    def alarm(self) -> int | None:
        """Number of the case that passed the limit, counted from 1; None when none did."""
        return next((n for n, value in enumerate(self.path, 1) if value > self.limit), None)


@dataclass(frozen=True)
class ThenAndNow:
    """The patients of a test set and of a time in use, ready to be dealt anew.

    Args:
        then: `(n,)` patients of the rows of the test set.
        now: `(m,)` patients of the rows of now. A patient may stand in both.
        seed: Of the dealing.

    Raises:
        PredictionsError: When there are fewer than `LEAST` patients on either side.
    """

    then: Ids
    now: Ids
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that show nothing."""
        for name, ids in (("then", self.then), ("now", self.now)):
            count = len(np.unique(np.asarray(ids)))
            if count < LEAST:
                raise PredictionsError(
                    f"{count} patients {name}", expected=f"{LEAST} or more to compare anything"
                )

    def distance(self, statistic: Statistic) -> Change:
        """Return a distance with what chance alone makes of it.

        Args:
            statistic: See `Statistic`; the rows of then come first.
        """
        then, now = np.asarray(self.then).astype(str), np.asarray(self.now).astype(str)
        # One who is in both is two people here, so that then and now stay as large as they are.
        codes = np.concatenate([patient_codes(then, then.size), patient_codes(now, now.size)])
        codes[then.size :] += codes[: then.size].max() + 1
        is_now = np.arange(codes.size) >= then.size
        found = float(statistic(is_now[None])[0])
        drawn = self._drawn(statistic, codes, len(np.unique(codes[is_now])))
        p = (1 + int((drawn >= found - 1e-12).sum())) / (DRAWS + 1)
        return Change(found, float(np.quantile(drawn, 0.95)), p)

    def _drawn(self, statistic: Statistic, codes: IntArray, patients_now: int) -> FloatArray:
        """The distances of `DRAWS` dealings."""
        rng = np.random.default_rng(self.seed)
        everyone = int(codes.max()) + 1
        parts = []
        for start in range(0, DRAWS, CHUNK):
            keys = rng.random((min(CHUNK, DRAWS - start), everyone))
            chosen = np.argsort(keys, axis=1)[:, :patients_now]
            dealt = np.zeros(keys.shape, dtype=bool)
            np.put_along_axis(dealt, chosen, values=True, axis=1)
            parts.append(statistic(dealt[:, codes]))
        return np.concatenate(parts)


def kolmogorov_smirnov(then: FloatArray, now: FloatArray) -> Statistic:
    """Return the greatest distance between the two distributions of a number, as a statistic.

    Args:
        then: `(n,)`, finite.
        now: `(m,)`, finite.

    Reference:
        Smirnov 1939; the null distribution is that of the dealings (Praestgaard 1995).

    >>> then, now = np.arange(20.0), np.arange(20.0) + 15
    >>> ThenAndNow(range(20), range(20)).distance(kolmogorov_smirnov(then, now)).value
    0.75
    """
    values = np.concatenate([finite_vector(then, "then"), finite_vector(now, "now")])
    order = np.argsort(values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), values.size - 1)  # of equal values

    def statistic(is_now: BoolArray) -> FloatArray:
        mine = is_now[:, order].cumsum(axis=1)[:, last]
        all_of = last + 1
        total = is_now.sum(axis=1, keepdims=True)
        other = (all_of - mine) / (values.size - total)
        return np.asarray(np.abs(mine / total - other).max(axis=1))

    return statistic


def stability_index(then: FloatArray, now: FloatArray) -> Statistic:
    """Return the population stability index over ten bins, as a statistic.

    The bins hold a tenth of the pooled cases each; half a case is added to each side of a bin, so
    that an empty one is not infinite. The customary limits (0.1, 0.25) know nothing of numbers of
    cases: read it beside `Change.usual`.

    Args:
        then: `(n,)`, finite.
        now: `(m,)`, finite.

    Reference:
        Kullback's symmetric divergence; Siddiqi 2006 for its use.

    >>> then, now = np.linspace(0, 1, 50), np.linspace(0, 1, 50)
    >>> ThenAndNow(range(50), range(50)).distance(stability_index(then, now)).value
    0.0
    """
    values = np.concatenate([finite_vector(then, "then"), finite_vector(now, "now")])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    places = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1]
    members = (places[:, None] == np.arange(places.max() + 1)).astype(float)

    def statistic(is_now: BoolArray) -> FloatArray:
        mine = is_now.astype(float) @ members + 0.5
        other = (~is_now).astype(float) @ members + 0.5
        mine, other = (part / part.sum(axis=1, keepdims=True) for part in (mine, other))
        return np.asarray(((mine - other) * np.log(mine / other)).sum(axis=1))

    return statistic


def difference_of_means(then: FloatArray, now: FloatArray) -> Statistic:
    """Return the difference of two means, of shares too, as a statistic.

    Args:
        then: `(n,)`, finite; 0 and 1 for a share.
        now: `(m,)`, finite.

    >>> then, now = np.zeros(20), np.r_[np.ones(5), np.zeros(15)]
    >>> ThenAndNow(range(20), range(20)).distance(difference_of_means(then, now)).value
    0.25
    """
    values = np.concatenate([finite_vector(then, "then"), finite_vector(now, "now")])

    def statistic(is_now: BoolArray) -> FloatArray:
        mine, other = ((mask @ values) / mask.sum(axis=1) for mask in (is_now, ~is_now))
        return np.asarray(np.abs(mine - other))

    return statistic


def difference_of_aurocs(
    truth_then: FloatArray, then: FloatArray, truth_now: FloatArray, now: FloatArray
) -> Statistic:
    """Return the difference of two AUROCs as a statistic; 0 where a dealing has one class only.

    Args:
        truth_then: `(n,)`, 0 or 1.
        then: `(n,)` scores.
        truth_now: `(m,)`, 0 or 1.
        now: `(m,)` scores.

    >>> truth, score = np.tile([0, 1], 10), np.tile([0.2, 0.8], 10)
    >>> compared = difference_of_aurocs(truth, score, truth, 1 - score)
    >>> ThenAndNow(range(20), range(20)).distance(compared).value
    1.0
    """
    truth = binary_truth(np.concatenate([truth_then, truth_now]))
    ranking = rank(truth, finite_vector(np.concatenate([then, now]), "y_score"))

    def statistic(is_now: BoolArray) -> FloatArray:
        sides = (is_now[:, ranking.order].astype(np.int64), (~is_now[:, ranking.order]).astype(int))
        one, other = (area_under_roc(*weighted_counts(ranking, side)) for side in sides)
        return np.nan_to_num(np.abs(one - other))

    return statistic


def cusum_of_misses(
    missed: BoolArray, *, misses_then: int, positives_then: int, seed: int = 0
) -> Cusum:
    """Return the running account of misses among positives, in the order in which they came.

    Each case adds the log likelihood ratio of `ODDS` times the odds of a miss against the odds of
    the test set. The limit comes from series without a change in which the rate itself is drawn
    from what the test set says of it (Jeffreys): known from few positives, it is no fixed number.

    Args:
        missed: `(n,)` of the positives in use, in order of time.
        misses_then: Of the positives of the test set, those below the threshold.
        positives_then: How many there were.
        seed: Of the series.

    Raises:
        PredictionsError: Without a positive then or now.

    Reference:
        Page, Biometrika 1954;41:100; Steiner et al., Biostatistics 2000;1:441, without risk
        adjustment.

    >>> quiet = cusum_of_misses(np.zeros(30, bool), misses_then=4, positives_then=40)
    >>> quiet.alarm, max(quiet.path), quiet.p
    (None, 0.0, 1.0)
    >>> cusum_of_misses(np.ones(10, bool), misses_then=4, positives_then=40).alarm is None
    False
    """
    missed = np.asarray(missed, dtype=bool)
    if not missed.size or not positives_then:
        raise PredictionsError("there is no positive to count misses of", expected="some, twice")
    rate = (misses_then + 0.5) / (positives_then + 1)
    worse = ODDS * rate / (1 - rate + ODDS * rate)
    steps = np.log(np.array([(1 - worse) / (1 - rate), worse / rate]))
    rng = np.random.default_rng(seed)
    rates = rng.beta(misses_then + 0.5, positives_then - misses_then + 0.5, size=DRAWS)
    series = rng.random((DRAWS, missed.size)) < rates[:, None]
    highest = _account(steps[series.astype(int)]).max(axis=1)
    path = _account(steps[missed.astype(int)][None])[0]
    p = (1 + int((highest >= path.max() - 1e-12).sum())) / (DRAWS + 1)
    return Cusum(tuple(map(float, path)), float(np.quantile(highest, 0.95)), p)


def _account(steps: FloatArray) -> FloatArray:
    """`(B, n)` running sums that never fall below 0."""
    total = steps.cumsum(axis=1)
    lowest = np.minimum.accumulate(np.minimum(total, 0.0), axis=1)
    return np.asarray(total - lowest)
