"""Calibration without bins: the observed share as a smooth function of the probability, by loess.

The surface is that of R's `loess`: local fits at the vertices of a k-d tree, blended in between. It
is linear in the truths, so that bands and draws of the truths cost a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.calibration import NEVER_HOLDS_ZERO, drawn_truths
from medtl.metrics.intervals import normal_quantile, percentile, wilson
from medtl.metrics.scores import CI, CI95, ONE_CLASS, Ids, Scores, Truth, Values, probabilities
from medtl.types import FloatArray, Measure

SPAN = 0.75
"""Share of the rows that a local fit uses; R's default."""

CELL = 0.2
"""A cell of the tree holds at most this share of the rows of a local fit; R's default."""

MARGIN = 0.005
"""By how much of the range the outermost vertices lie beyond the values."""

FEWEST = 20
"""Rows below which nothing is smoothed."""

DRAWS = 500
"""Draws of truths at most: each is smoothed anew."""

GRID = 101
"""Points of a curve."""

PIECE = 1 << 15
"""Values that are blended at once."""

TIED, VARIED = "too many probabilities are equal to be smoothed", "values that vary"


@dataclass(frozen=True, eq=False)
class Loess:
    """A local quadratic regression: it turns truths into their smooth shares.

    Attributes:
        vertices: `(v,)` ascending; values lie between the first and the last.
        operator: `(v, 2, n)`: times the truths it gives height and slope at the vertices.

    >>> x = np.linspace(0, 1, 40)
    >>> fit = loess(x)
    >>> fit(x, x**2)[[20, 39]].round(3)  # a quadratic is reproduced
    array([0.263, 1.   ])
    """

    vertices: FloatArray
    operator: FloatArray

    def __call__(self, at: ArrayLike, truth: ArrayLike) -> FloatArray:
        """Return the smooth shares at `at`, `(m,)`, for truths `(n,)`, or `(m, b)` for `(n, b)`."""
        return self.blender(at)(self.ends(truth))

    def ends(self, truth: ArrayLike) -> FloatArray:
        """Return height and slope at the vertices, `(v, 2)` or `(v, 2, b)`, of truths."""
        return np.asarray(self.operator @ np.asarray(truth, dtype=float))

    def blender(self, at: ArrayLike) -> Callable[[FloatArray], FloatArray]:
        """Return the function from height and slope at the vertices, `(v, 2, ...)`, to values.

        Reference:
            Cubic blending: Cleveland, Devlin and Grosse, J Econometrics 1988;37:87.
        """
        z = np.asarray(at, dtype=float)
        last = self.vertices.size - 2
        cell = np.clip(np.searchsorted(self.vertices, z) - 1, 0, last)
        width = self.vertices[cell + 1] - self.vertices[cell]
        h = (z - self.vertices[cell]) / width
        weights = (
            (1 - h) ** 2 * (1 + 2 * h),
            h**2 * (3 - 2 * h),
            h * (1 - h) ** 2 * width,
            -(h**2) * (1 - h) * width,
        )

        def blend(ends: FloatArray) -> FloatArray:
            values = np.empty((z.size, *ends.shape[2:]))
            step = max(1, PIECE * z.size // values.size)
            for start in range(
                0, z.size, step
            ):  # what is in between stays in the processor's cache
                part = slice(start, start + step)
                left, right = cell[part], cell[part] + 1
                corners = ends[left, 0], ends[right, 0], ends[left, 1], ends[right, 1]
                values[part] = sum(
                    (corner.T * weight[part]).T
                    for corner, weight in zip(corners, weights, strict=True)
                )
            return values

        return blend


def loess(x: ArrayLike, *, span: float = SPAN) -> Loess:
    """Return the local quadratic regression on these values, tricube weights.

    Args:
        x: `(n,)`, at least `FEWEST` values.
        span: Share of the values that a local fit uses, in (0, 1].

    Raises:
        PredictionsError: If the values are too few, or too many of them are equal.

    Reference:
        Cleveland and Devlin, JASA 1988;83:596; R's stats::loess (surface = "interpolate").

    >>> loess(np.linspace(0, 1, 40)).vertices.size
    9
    """
    values = np.asarray(x, dtype=float)
    if values.size < FEWEST:
        raise PredictionsError(f"{values.size} rows to smooth", expected=f"at least {FEWEST}")
    near = int(values.size * span + 1e-5)
    vertices = _vertices(np.sort(values), int(values.size * span * CELL + 1e-9))
    return Loess(vertices, np.stack([_local(values, vertex, near) for vertex in vertices]))


def _vertices(ascending: FloatArray, most: int) -> FloatArray:
    """Return where the cells of the tree meet: cut at the median until a cell holds few values."""
    spread = MARGIN * max(float(np.ptp(ascending)), 1e-10 * float(np.abs(ascending).max()) + 1e-30)
    ends = float(ascending[0] - spread), float(ascending[-1] + spread)
    found, open_cells = set(ends), [(0, ascending.size - 1, *ends)]
    while open_cells:
        first, last, low, high = open_cells.pop()
        if last - first + 1 <= max(most, 1):
            continue
        middle = _untied((first + last + 2) // 2 - 1, first, last, ascending)
        cut = float(ascending[middle])
        if cut in (low, high):
            continue
        found.add(cut)
        open_cells += [(first, middle, low, cut), (middle + 1, last, cut, high)]
    return np.array(sorted(found))


def _untied(middle: int, first: int, last: int, ascending: FloatArray) -> int:
    """Return the place nearest to the middle after which a greater value comes."""
    offset = 0
    while first <= middle + offset < last:
        if ascending[middle + offset] != ascending[middle + offset + 1]:
            return middle + offset
        offset = -offset if offset > 0 else 1 - offset
    return middle


def _local(values: FloatArray, at: float, near: int) -> FloatArray:
    """Return the rows `(2, n)` that give height and slope of the fit at a vertex."""
    distance = np.abs(values - at)
    reach = float(np.partition(distance, near - 1)[near - 1])
    if not reach > 0:
        raise PredictionsError(TIED, expected=VARIED)
    root = np.sqrt(np.clip(1 - (distance / reach) ** 3, 0, None) ** 3)
    if not root.any():  # every near value is a tie at the edge of the window
        raise PredictionsError(TIED, expected=VARIED)
    design = (values - at)[:, None] ** np.arange(3) * root[:, None]
    scale = np.sqrt((design**2).sum(axis=0))
    scale[scale == 0] = 1
    inverse = np.linalg.pinv(design / scale, rcond=100 * np.finfo(float).eps)
    return np.asarray((inverse / scale[:, None])[:2] * root)


@dataclass(frozen=True, eq=False)
class SmoothCalibration:
    """Observed share against probability on a grid, with a pointwise band.

    Attributes:
        probability: `(g,)` from the lowest to the highest.
        observed: `(g,)`; `low` and `high` its band, in [0, 1].
    """

    probability: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray


def smooth_calibration(
    y_true: Truth, y_score: Values = None, *, patients: Ids = None, ci: CI = CI95
) -> SmoothCalibration:
    """Return the smooth calibration curve.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities of being positive.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the band.

    Raises:
        PredictionsError: If there are too few rows, or the probabilities do not vary enough.

    The band is the hull of two: Wilson's with the effective number of rows of the local fit, and a
    normal one with the variance of the rows that the fit rests on. Where nearly nobody is ill the
    first alone is too narrow, for the fit rests on rows with higher shares as well. Patients with
    several rows widen both by their design effect.

    Reference:
        Austin and Steyerberg, Stat Med 2014;33:517; variance of a linear smoother: Hastie and
        Tibshirani, Generalized Additive Models, 1990, section 3.8. Coverage: reports/coverage.md.

    >>> score = np.linspace(0.01, 0.99, 60)
    >>> curve = smooth_calibration(score > 0.5, score)
    >>> bool((curve.low <= curve.observed).all())
    True
    """
    rows = Scores.of(y_true, y_score, patients)
    fit = _fit_of(rows)
    grid = np.linspace(float(rows.score.min()), float(rows.score.max()), GRID)
    smooth, fitted = fit(grid, rows.truth), fit(rows.score, rows.truth)
    weights = fit.blender(grid)(fit.operator)
    residual = rows.truth - fitted
    together = _together(weights, residual, rows) if rows.clustered else None
    squares = np.square(weights, out=weights)  # in place: a million rows are a gigabyte
    design = 1.0 if together is None else _design_effect(together, squares @ residual**2)
    observed = np.clip(smooth, 0, 1)
    # A local share rests on so many rows; images of a patient count for less.
    number = 1 / squares.sum(axis=1) / design
    bounds = [wilson(p * n, n, ci.level) for p, n in zip(observed, number, strict=True)]
    low, high = np.array(bounds).T
    share = np.clip(fitted, 0, 1)
    half = normal_quantile(ci.level) * np.sqrt(squares @ (share * (1 - share)) * design)
    low, high = np.minimum(low, smooth - half), np.maximum(high, smooth + half)
    return SmoothCalibration(grid, observed, np.clip(low, 0, 1), np.clip(high, 0, 1))


_fits: WeakKeyDictionary[Scores, Loess] = WeakKeyDictionary()
"""The last rows that were smoothed: their curve and their indices need one fit."""


def _fit_of(rows: Scores) -> Loess:
    """Return the fit on the scores of these rows."""
    if rows not in _fits:
        _fits.clear()
        _fits[rows] = loess(probabilities(rows.score))
    return _fits[rows]


def _together(weights: FloatArray, residual: FloatArray, rows: Scores) -> FloatArray:
    """Return the variance of each local share, `(g,)`, from how much each patient moves it."""
    moved = np.empty((rows.num_patients, weights.shape[0]))
    for point, weight in enumerate(weights):
        moved[:, point] = np.bincount(rows.patients, weight * residual)
    return np.asarray((moved**2).sum(axis=0))


def _design_effect(together: FloatArray, apart: FloatArray) -> FloatArray:
    """Return by how much the rows of a patient widen the variance of each local share, `(g,)`."""
    widened = np.ones_like(apart)
    np.divide(together, apart, out=widened, where=apart > 0)
    return np.maximum(widened, 1)


SUMMARIES: Mapping[str, Callable[[FloatArray], float]] = {
    "ici": lambda distance: float(distance.mean()),
    "e50": lambda distance: float(np.median(distance)),
    "e90": lambda distance: float(np.quantile(distance, 0.9)),
    "emax": lambda distance: float(distance.max()),
}
"""Name -> summary of the distances between probability and smooth share over the rows."""


def calibration_indices(
    y_true: Truth, y_score: Values = None, *, patients: Ids = None, ci: CI = CI95
) -> list[Measure]:
    """Return ICI, E50, E90 and Emax, and the ICI that right probabilities would show.

    They are the mean, median, 90th percentile and largest distance between the probability and its
    smooth share. Like a calibration error they are above 0 for a perfect model, and have no
    interval: `ici_if_calibrated` is the mean and the range of truths drawn with the probabilities.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)` probabilities of being positive.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the range, and the number of draws.

    Reference:
        Austin and Steyerberg, Stat Med 2019;38:4051.

    >>> score = np.linspace(0.01, 0.99, 60)
    >>> [m.name for m in calibration_indices(score > 0.5, score, ci=CI(resamples=50))]
    ['ici', 'e50', 'e90', 'emax', 'ici_if_calibrated']
    """
    rows = Scores.of(y_true, y_score, patients)
    blanks = [rows.blank(name, ci) for name in (*SUMMARIES, "ici_if_calibrated")]
    if rows.one_class:
        return [blank.undefined(ONE_CLASS) for blank in blanks]
    try:
        fit = _fit_of(rows)
    except PredictionsError as error:
        return [blank.undefined(error.found) for blank in blanks]
    blend = fit.blender(rows.score)
    distance = np.abs(blend(fit.ends(rows.truth)) - rows.score)
    found = [
        replace(blank, method="loess, span 0.75, degree 2").weak(of(distance), NEVER_HOLDS_ZERO)
        for blank, of in zip(blanks, SUMMARIES.values(), strict=False)
    ]
    few = replace(ci, resamples=min(ci.resamples, DRAWS)).affordable(rows.truth.size)
    draws = np.concatenate([
        np.abs(blend(fit.ends(truths.T)) - rows.score[:, None]).mean(axis=0)
        for truths in drawn_truths(rows, few.resamples)
    ])  # fmt: skip
    method = f"consistency resampling, loess, B={draws.size}"
    return [*found, blanks[-1].ok(float(draws.mean()), percentile(draws, ci.level), method)]
