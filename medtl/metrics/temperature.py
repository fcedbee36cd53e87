"""Better probabilities: temperature and Platt scaling, fitted on validation and applied to test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.inputs import probabilities, truth_and_score
from medtl.metrics.logistic import expit, logistic, logit, separates
from medtl.types import FloatArray


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
    y_true: ArrayLike, y_score: ArrayLike, *, method: str = "temperature", fitted_on: str = "val"
) -> Recalibration:
    """Return temperature scaling or Platt scaling fitted by maximum likelihood.

    Args:
        y_true: `(n,)`, 0 or 1, of the validation rows.
        y_score: `(n,)` probabilities of the validation rows.
        method: "temperature" or "platt".
        fitted_on: Name of the split, for the record.

    Raises:
        PredictionsError: If there is no finite, positive slope.

    Reference:
        Guo et al., ICML 2017; Platt 1999. Binary temperature = 1 / slope of y ~ 0 + logit(p).
    """
    truth, score = truth_and_score(y_true, y_score)
    values = logit(probabilities(score))
    both = bool(truth.size) and bool(truth.any()) and not truth.all()
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
