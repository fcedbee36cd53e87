"""Better probabilities: temperature and Platt scaling, fitted on validation and applied to test.

And the logistic regression of a truth on a logit, which is the arithmetic under calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.scores import Scores, Truth, Values, probabilities
from medtl.types import BoolArray, FloatArray

CLIP = 1e-12
"""Nearest that a probability comes to 0 or 1 before its logit is taken."""


def logit(probability: FloatArray) -> FloatArray:
    """Return log(p / (1 - p)) of probabilities clipped at `CLIP`.

    >>> logit(np.array([0.5, 0.9])).round(3)
    array([0.   , 2.197])
    """
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


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
