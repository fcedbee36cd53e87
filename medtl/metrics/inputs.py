"""Checks of the arrays that every statistic takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.types import BoolArray, FloatArray, IntArray, Measure

PAIR = ("y_true", "y_score")
"""Columns of truth and prediction."""


def usable_rows(y_true: ArrayLike, y_score: ArrayLike) -> BoolArray:
    """Return which rows have a finite truth and a finite score.

    Args:
        y_true: `(n,)` truth; missing or uncertain is NaN.
        y_score: `(n,)` score.
    """
    truth, score = np.asarray(y_true, dtype=float), np.asarray(y_score, dtype=float)
    usable: BoolArray = np.isfinite(truth) & np.isfinite(score)
    return usable


def finite_vector(values: ArrayLike, name: str) -> FloatArray:
    """Return `values` as a float64 vector.

    Args:
        values: `(n,)` numbers.
        name: What they are, for the message.

    Raises:
        PredictionsError: If they are not one-dimensional and finite.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise PredictionsError(f"{name} has shape {vector.shape}", expected="one dimension")
    bad = int(np.count_nonzero(~np.isfinite(vector)))
    if bad:
        raise PredictionsError(
            f"{bad} of {vector.size} values of {name} are not finite",
            expected="numbers only",
            fix="Leave those rows out with metrics.inputs.usable_rows and report how many they are",
        )
    return vector


def binary_truth(y_true: ArrayLike) -> BoolArray:
    """Return the truth as booleans.

    Args:
        y_true: `(n,)`, 0 or 1.

    Raises:
        PredictionsError: If a value is neither 0 nor 1.
    """
    if isinstance(y_true, np.ndarray) and y_true.dtype == bool and y_true.ndim == 1:
        return y_true
    truth = finite_vector(y_true, "y_true")
    other = np.unique(truth[(truth != 0) & (truth != 1)])
    if other.size:
        found = ", ".join(f"{value:g}" for value in other[:3])
        raise PredictionsError(f"y_true holds {found}", expected="0 or 1")
    positive: BoolArray = truth == 1
    return positive


def truth_and_score(y_true: ArrayLike, y_score: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Return truth as booleans and scores as float64, of equal length.

    Args:
        y_true: `(n,)`, 0 or 1.
        y_score: `(n,)`, finite; higher means more diseased.

    Raises:
        PredictionsError: If lengths differ or a value is not usable.
    """
    truth, score = binary_truth(y_true), finite_vector(y_score, "y_score")
    if truth.size != score.size:
        raise PredictionsError(f"{truth.size} truths and {score.size} scores", expected="one each")
    return truth, score


def probabilities(y_score: FloatArray) -> FloatArray:
    """Return the scores unchanged after checking that they can be probabilities.

    Args:
        y_score: `(n,)` in [0, 1].

    Raises:
        PredictionsError: If a score lies outside [0, 1].
    """
    outside = int(np.count_nonzero((y_score < 0) | (y_score > 1)))
    if outside:
        raise PredictionsError(
            f"{outside} of {y_score.size} scores lie outside [0, 1]",
            expected="probabilities",
            fix="Calibration and net benefit need probabilities, not logits or ratings",
        )
    return y_score


def patient_codes(patients: ArrayLike | None, n: int) -> IntArray:
    """Return an integer per row that says whose it is; without patients each row is its own.

    Args:
        patients: `(n,)` identifiers, or None for one image per patient.
        n: Number of rows.

    Raises:
        PredictionsError: If there are not n identifiers.
    """
    if patients is None:
        return np.arange(n)
    given = np.asarray(patients)
    if given.size != n:
        raise PredictionsError(f"{given.size} patient ids for {n} rows", expected="one each")
    if given.dtype.kind in "iu" and n and given.min() >= 0 and given.max() < 8 * n:
        # Codes already: closing the gaps is linear, sorting is not.
        present = np.bincount(given) > 0
        return np.asarray((np.cumsum(present) - 1)[given])
    return np.unique(given, return_inverse=True)[1].ravel()


def num_patients(codes: IntArray) -> int:
    """Return how many different codes occur."""
    return int(np.count_nonzero(np.bincount(codes))) if codes.size else 0


def is_clustered(codes: IntArray) -> bool:
    """Return whether some patient has more than one row."""
    return codes.size > 0 and int(np.bincount(codes).max()) > 1


def blank_measure(name: str, truth: BoolArray, codes: IntArray, confidence: float) -> Measure:
    """Return a measure without a value that already knows its rows, positives and patients."""
    return Measure(
        name,
        None,
        confidence=confidence,
        n=truth.size,
        n_positive=int(truth.sum()),
        n_patients=num_patients(codes),
        status="undefined",
    )
