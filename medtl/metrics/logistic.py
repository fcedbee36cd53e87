"""Logistic regression of a truth on a logit: the arithmetic under calibration."""

from __future__ import annotations

import math

import numpy as np

from medtl.types import BoolArray, FloatArray

CLIP = 1e-12
"""Nearest that a probability comes to 0 or 1 before its logit is taken."""


def logit(probability: FloatArray) -> FloatArray:
    """Return log(p / (1 - p)) of probabilities clipped at `CLIP`."""
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def separates(truth: BoolArray, values: FloatArray) -> bool:
    """Return whether a cut separates the classes, so that a logistic slope would be infinite."""
    positive, negative = values[truth], values[~truth]
    return bool(positive.min() >= negative.max() or positive.max() <= negative.min())


def expit(values: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-x)) without overflow."""
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
