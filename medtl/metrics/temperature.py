"""Better probabilities: temperature and Platt scaling, fitted on validation and applied to test.

And the logistic regression of a truth on a logit, which is the arithmetic under calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.scores import (
    Ids,
    Scores,
    Truth,
    Values,
    is_clustered,
    num_patients,
    patient_codes,
    probabilities,
)
from medtl.types import BoolArray, FloatArray

CLIP = 1e-12
"""Nearest that a probability comes to 0 or 1 before its logit is taken."""


SLOPES = (0.8, 1.25)
"""Calibration slopes that need no recalibration (and no warning)."""

IN_THE_LARGE = (-math.log(1.25), math.log(1.25))
"""Errors of the mean logit that need none: odds that are right but for a quarter."""

FLATTEST, STEEPEST = 1e-3, 100.0
"""Slopes between which one of several classes is looked for; 100 is a temperature of 0.01."""


def logit(probability: FloatArray) -> FloatArray:
    """Return log(p / (1 - p)) of probabilities clipped at `CLIP`.

    >>> logit(np.array([0.5, 0.9])).round(3)
    array([0.   , 2.197])
    """
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def outside(interval: tuple[float | None, float | None], bounds: tuple[float, float]) -> bool:
    """Return whether a whole interval, if there is one, lies outside two bounds.

    >>> outside((0.25, 0.41), SLOPES), outside((None, None), SLOPES)
    (True, False)
    """
    low, high = interval
    return low is not None and high is not None and (high < bounds[0] or low > bounds[1])


def separates(truth: BoolArray, values: FloatArray) -> bool:
    """Return whether a cut separates the classes, so that a logistic slope would be infinite.

    >>> separates(np.array([False, True]), np.array([0.1, 0.7]))
    True
    """
    positive, negative = values[truth], values[~truth]
    return bool(positive.min() >= negative.max() or positive.max() <= negative.min())


def expit(values: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-x)) without overflow.

    >>> expit(np.array([-1000.0, 0.0]))
    array([0. , 0.5])
    """
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1, small) / (1 + small))


def logistic(
    truth: BoolArray, design: FloatArray, offset: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the maximum-likelihood coefficients and the information matrix, by Newton's method.

    Args:
        truth: `(n,)`, both classes, not separated by the design.
        design: `(n, k)`.
        offset: `(n,)` added to the linear predictor.

    Reference:
        McCullagh and Nelder 1989, section 4.4; steps are halved until the likelihood rises.

    >>> truth, one = np.array([True, True, True, False]), np.ones((4, 1))
    >>> logistic(truth, one, np.zeros(4))[0].round(3)  # log(3 / 1)
    array([1.099])
    """

    def loss(beta: FloatArray) -> float:
        predictor = design @ beta + offset
        return float((np.logaddexp(0, predictor) - truth * predictor).sum())

    beta, current = np.zeros(design.shape[1]), math.inf
    for _ in range(100):
        fitted = expit(design @ beta + offset)
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        step = np.linalg.lstsq(information, design.T @ (truth - fitted), rcond=None)[0]
        current = loss(beta)
        while loss(beta + step) > current + 1e-12 * abs(current) and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() < 1e-10 * (1 + np.abs(beta).max()):
            break
    fitted = expit(design @ beta + offset)
    return beta, design.T @ (design * (fitted * (1 - fitted))[:, None])


@dataclass(frozen=True)
class Recalibration:
    """A map from probability to probability: logit p' = intercept + slope x logit p.

    Attributes:
        method: "temperature" (intercept 0) or "platt".
        slope: 1 / temperature; positive, so that the ranking is kept.
        intercept: On the logit scale.
        fitted_on: Split it was fitted on: never the one that is reported.
        n: Rows it was fitted on.
        slope_error: Standard error of the slope, of independent rows.

    >>> Recalibration("temperature", 0.5, 0.0, "val", 9, 0.1)([0.9, 0.5]).round(3)
    array([0.75, 0.5 ])
    """

    method: str
    slope: float
    intercept: float
    fitted_on: str
    n: int
    slope_error: float

    @property
    def temperature(self) -> float:
        """T of logit / T."""
        return 1 / self.slope

    def __call__(self, y_score: ArrayLike) -> FloatArray:
        """Return the recalibrated probabilities, `(n,)`."""
        score = probabilities(np.asarray(y_score, dtype=float))
        return expit(self.intercept + self.slope * logit(score))

    def jointly(self, y_score: ArrayLike) -> FloatArray:
        """Return the probabilities of classes that exclude each other, `(n, K)`: they sum to 1."""
        raised = np.clip(np.asarray(y_score, dtype=float), CLIP, 1) ** self.slope
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def fit_recalibration(
    y_true: Truth, y_score: Values = None, *, method: str = "temperature", fitted_on: str = "val"
) -> Recalibration:
    """Return temperature scaling or Platt scaling fitted by maximum likelihood.

    Args:
        y_true: `(n,)`, 0 or 1, of the validation rows, or a `Scores`.
        y_score: `(n,)` probabilities of the validation rows.
        method: "temperature" or "platt".
        fitted_on: Name of the split, for the record.

    Raises:
        PredictionsError: If there is no finite, positive slope.

    Reference:
        Guo et al., ICML 2017; Platt 1999. Binary temperature = 1 / slope of y ~ 0 + logit(p).

    >>> truth, sharp = [1] * 3 + [0] + [0] * 3 + [1], [0.9] * 4 + [0.1] * 4
    >>> round(fit_recalibration(truth, sharp).temperature, 3), round(logit(0.9) / logit(0.75), 3)
    (2.0, np.float64(2.0))
    """
    rows = Scores.of(y_true, y_score)
    truth, both = rows.truth, not rows.one_class
    values = logit(probabilities(rows.score))
    design = values[:, None]
    if method == "platt":
        design = np.column_stack([values, np.ones_like(values)])
        finite = both and not separates(truth, values)
    else:
        right = np.where(truth, values, -values)
        finite = both and bool((right < 0).any()) and bool((right > 0).any())
    slope = intercept = error = math.nan
    if finite:
        beta, information = logistic(truth, design, np.zeros(truth.size))
        slope, intercept = float(beta[0]), float(beta[1]) if method == "platt" else 0.0
        error = math.sqrt(np.linalg.inv(information)[0, 0])
    if not slope > 0:
        raise PredictionsError(
            f"no finite, positive slope for {method} scaling on the {fitted_on} rows",
            expected="both classes, not separated by the score, and a score that ranks them",
        )
    return Recalibration(method, slope, intercept, fitted_on, truth.size, error)


def fit_class_temperature(
    y_class: ArrayLike, y_score: ArrayLike, *, patients: Ids = None, fitted_on: str = "val"
) -> Recalibration:
    """Return the one temperature of classes that exclude each other, by maximum likelihood.

    Args:
        y_class: `(n,)` number of the true class.
        y_score: `(n, K)` probabilities that sum to 1.
        patients: `(n,)` identifiers, or None for one row per patient: the error is over patients.
        fitted_on: Name of the split, for the record.

    Raises:
        PredictionsError: If there is no finite, positive slope.

    Reference:
        Guo et al., ICML 2017, section 4.2: softmax(z / T), here of z = log p.

    >>> sharp = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]
    >>> round(fit_class_temperature([0, 1, 1], sharp).temperature, 3)  # log(18) / log(4)
    2.085
    """
    from scipy.optimize import brentq

    scores = np.asarray(y_score, dtype=float)
    values = np.log(np.clip(scores, CLIP, 1))
    right = values[np.arange(len(values)), np.asarray(y_class, dtype=np.int64)]
    at = Recalibration("temperature", 1, 0, fitted_on, len(values), 0)

    def lacking(slope: float) -> FloatArray:
        return np.asarray(right - (replace(at, slope=slope).jointly(scores) * values).sum(axis=1))

    if not (lacking(FLATTEST).sum() > 0 > lacking(STEEPEST).sum()):
        raise PredictionsError(
            f"no finite, positive slope for temperature scaling on the {fitted_on} rows",
            expected="true classes that are mostly, and not always, those of the highest score",
        )
    slope = brentq(lambda slope: float(lacking(slope).sum()), FLATTEST, STEEPEST, xtol=1e-12)
    mended = replace(at, slope=slope).jointly(scores)
    mean = (mended * values).sum(axis=1, keepdims=True)
    information = float((mended * (values - mean) ** 2).sum())
    codes = patient_codes(patients, len(values))
    spread = information
    if is_clustered(codes):
        sums, clusters = np.bincount(codes, lacking(slope)), num_patients(codes)
        spread = float(sums @ sums) * clusters / max(clusters - 1, 1)
    return replace(at, slope=slope, slope_error=math.sqrt(spread) / information)
