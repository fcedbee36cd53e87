"""What every statistic takes: truth and score of the same rows, checked once, and an interval."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.types import BoolArray, FloatArray, IntArray, Measure

PAIR = ("y_true", "y_score")
"""Columns of truth and prediction."""

NO_ROWS = "there are no rows"
ONE_CLASS = "the set holds one class only"


@dataclass(frozen=True)
class CI:
    """How intervals are made.

    Attributes:
        level: In (0, 1).
        resamples: Of the patients, where an interval needs the bootstrap.
        seed: Of the bootstrap.

    >>> CI(level=0.9)
    CI(level=0.9, resamples=2000, seed=0)
    """

    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def affordable(self, rows: int) -> CI:
        """Return the same with fewer resamples for tables beyond `FULL_ROWS` rows.

        With so many rows the interval is narrow and its Monte-Carlo error no longer matters.

        >>> CI(resamples=2000).affordable(100_000).resamples
        400
        """
        most = max(200, self.resamples * FULL_ROWS // max(rows, 1))
        return replace(self, resamples=min(self.resamples, most))

    def blank(
        self, name: str = "", n: int = 0, positives: int | None = None, patients: int | None = None
    ) -> Measure:
        """Return a measure without a value that already knows its level and its rows."""
        return Measure(
            name,
            None,
            confidence=self.level,
            n=n,
            n_positive=positives,
            n_patients=patients,
            status="undefined",
        )


FULL_ROWS = 20_000
"""Up to so many rows all resamples are drawn; beyond, fewer (never below 200), and it is named."""

CI95 = CI()
"""The interval of everything that states none: 95 percent, 2000 resamples."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Truth and score of the same rows, and whose rows they are; made and checked by `of`.

    Attributes:
        truth: `(n,)`, True for positive.
        score: `(n,)` float64, finite; higher means more diseased.
        patients: `(n,)` codes 0..P-1; the row's own number where every patient has one row.
    """

    truth: BoolArray
    score: FloatArray
    patients: IntArray

    @classmethod
    def of(cls, y_true: Truth, y_score: Values = None, patients: Ids = None) -> Scores:
        """Return the checked rows; a `Scores` is returned as it is.

        Args:
            y_true: `(n,)`, 0 or 1.
            y_score: `(n,)`, finite.
            patients: `(n,)` identifiers, or None for one row per patient.

        Raises:
            PredictionsError: If lengths differ or a value is not usable.

        >>> Scores.of([0, 1, 1], [0.2, 0.7, 0.9], patients=["a", "b", "a"])
        Scores(3 rows, 2 positive, 2 patients)
        """
        if isinstance(y_true, Scores):
            return y_true
        truth, score = binary_truth(y_true), finite_vector(y_score, "y_score")
        if truth.size != score.size:
            raise PredictionsError(
                f"{truth.size} truths and {score.size} scores", expected="one each"
            )
        codes = patient_codes(patients, truth.size)
        # Without repeated patients the order of their names must not reach a sum or a draw.
        return cls(truth, score, codes if is_clustered(codes) else np.arange(truth.size))

    def __repr__(self) -> str:
        rows = f"{self.truth.size} rows, {self.positives} positive"
        return f"Scores({rows}, {self.num_patients} patients)"

    @cached_property
    def positives(self) -> int:
        """Number of positive rows."""
        return int(np.count_nonzero(self.truth))

    @cached_property
    def num_patients(self) -> int:
        """Number of patients."""
        return num_patients(self.patients)

    @property
    def clustered(self) -> bool:
        """Whether some patient has several rows."""
        return self.num_patients < self.truth.size

    @property
    def one_class(self) -> bool:
        """Whether positives or negatives are missing."""
        return self.positives in (0, self.truth.size)

    @property
    def are_probabilities(self) -> bool:
        """Whether there are scores and all lie in [0, 1]."""
        return bool(self.score.size) and bool(self.score.min() >= 0 and self.score.max() <= 1)

    def blank(self, name: str, ci: CI) -> Measure:
        """Return a measure without a value that already knows its rows, positives and patients."""
        return ci.blank(name, self.truth.size, self.positives, self.num_patients)

    def only(self, rows: BoolArray) -> Scores:
        """Return some of the rows."""
        return Scores.of(self.truth[rows], self.score[rows], self.patients[rows])

    def per_patient(self, how: Literal["max", "mean", "noisy_or"] = "max") -> Scores:
        """Return one row per patient, who is positive if one row is.

        Args:
            how: The highest score, the mean, or noisy-or: 1 - product of (1 - score).

        >>> rows = Scores.of([0, 1, 1], [0.2, 0.7, 0.9], patients=["a", "b", "a"])
        >>> rows.per_patient().score, rows.per_patient("noisy_or").score.round(2)
        (array([0.9, 0.7]), array([0.92, 0.7 ]))
        """
        total = self.num_patients
        truth = np.bincount(self.patients, self.truth, total) > 0
        if how == "mean":
            score = np.bincount(self.patients, self.score, total) / np.bincount(self.patients)
        elif how == "max":
            score = np.full(total, -np.inf)
            np.maximum.at(score, self.patients, self.score)
        else:
            left = np.ones(total)
            np.multiply.at(left, self.patients, 1 - self.score)
            score = 1 - left
        return Scores.of(truth, score)


@dataclass(frozen=True, eq=False)
class Readings:
    """Reference and prediction in one unit, of the same rows, and whose rows they are.

    Attributes:
        reference: `(n,)` float64, finite.
        prediction: `(n,)` float64, finite.
        patients: `(n,)` codes 0..P-1.
    """

    reference: FloatArray
    prediction: FloatArray
    patients: IntArray

    @classmethod
    def of(
        cls, y_true: ArrayLike | Readings, y_score: Values = None, patients: Ids = None
    ) -> Readings:
        """Return the checked rows; a `Readings` is returned as it is.

        Args:
            y_true: `(n,)` reference.
            y_score: `(n,)` prediction.
            patients: `(n,)` identifiers, or None for one row per patient.

        Raises:
            PredictionsError: If lengths differ or a value is not finite.
        """
        if isinstance(y_true, Readings):
            return y_true
        reference, prediction = finite_vector(y_true, "y_true"), finite_vector(y_score, "y_score")
        if reference.size != prediction.size:
            raise PredictionsError(
                f"{reference.size} references and {prediction.size} predictions",
                expected="one each",
            )
        return cls(reference, prediction, patient_codes(patients, reference.size))

    @cached_property
    def error(self) -> FloatArray:
        """Prediction minus reference."""
        return self.prediction - self.reference

    @cached_property
    def num_patients(self) -> int:
        """Number of patients."""
        return num_patients(self.patients)

    @property
    def clustered(self) -> bool:
        """Whether some patient has several rows."""
        return self.num_patients < self.reference.size

    def blank(self, ci: CI, name: str = "") -> Measure:
        """Return a measure without a value that already knows its rows and patients."""
        return ci.blank(name, self.reference.size, patients=self.num_patients)


Ids = ArrayLike | None
"""`(n,)` identifiers of patients, or None for one row per patient."""

Values = ArrayLike | None
"""`(n,)` scores; None only where the first argument holds them already."""

Truth = ArrayLike | Scores
"""`(n,)` truth, or truth and score and patients together."""


def usable_rows(y_true: ArrayLike, y_score: ArrayLike) -> BoolArray:
    """Return which rows have a finite truth and a finite score.

    Args:
        y_true: `(n,)` truth; missing or uncertain is NaN.
        y_score: `(n,)` score.

    >>> usable_rows([0, 1, float("nan")], [0.1, float("inf"), 0.3])
    array([ True, False, False])
    """
    truth, score = np.asarray(y_true, dtype=float), np.asarray(y_score, dtype=float)
    usable: BoolArray = np.isfinite(truth) & np.isfinite(score)
    return usable


def as_numbers(values: Values, name: str) -> FloatArray:
    """Return `values` as float64 in their shape.

    Args:
        values: Of any shape.
        name: What they are, for the message.

    Raises:
        PredictionsError: If one is no number.

    >>> as_numbers(["1", 2], "y_true")
    array([1., 2.])
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        first = np.asarray(values, dtype=object).ravel()[:1].tolist()
        raise PredictionsError(
            f"{name} cannot be read as numbers; its first value is {first[0] if first else ''!r}",
            expected="numbers of one shape; a truth is 0 or 1",
            fix="Turn words into numbers first: y_true = (labels == 'yes')",
        ) from error


def finite_vector(values: Values, name: str) -> FloatArray:
    """Return `values` as a float64 vector.

    Args:
        values: `(n,)` numbers.
        name: What they are, for the message.

    Raises:
        PredictionsError: If they are not one-dimensional and finite.

    >>> finite_vector([1, 2], "y_score")
    array([1., 2.])
    """
    vector = as_numbers(values, name)
    if vector.ndim != 1:
        raise PredictionsError(f"{name} has shape {vector.shape}", expected="one dimension")
    bad = int(np.count_nonzero(~np.isfinite(vector)))
    if bad:
        raise PredictionsError(
            f"{bad} of {vector.size} values of {name} are not finite",
            expected="numbers only",
            fix="Leave those rows out with metrics.usable_rows and report how many they are",
        )
    return vector


def binary_truth(y_true: ArrayLike) -> BoolArray:
    """Return the truth as booleans.

    Args:
        y_true: `(n,)`, 0 or 1.

    Raises:
        PredictionsError: If a value is neither 0 nor 1.

    >>> binary_truth([0, 1])
    array([False,  True])
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


def probabilities(y_score: FloatArray) -> FloatArray:
    """Return the scores unchanged after checking that they can be probabilities.

    Args:
        y_score: `(n,)` in [0, 1].

    Raises:
        PredictionsError: If a score lies outside [0, 1].

    >>> probabilities(np.array([0.5, 1.0]))
    array([0.5, 1. ])
    """
    outside = int(np.count_nonzero((y_score < 0) | (y_score > 1)))
    if outside:
        raise PredictionsError(
            f"{outside} of {y_score.size} scores lie outside [0, 1]",
            expected="probabilities",
            fix="Calibration and net benefit need probabilities, not logits or ratings",
        )
    return y_score


def certain_truth(
    raw: ArrayLike,
    *,
    uncertain: Literal["ignore", "u_zeros", "u_ones"] = "ignore",
    blank: Literal["ignore", "zero"] = "ignore",
) -> FloatArray:
    """Return the truth 0, 1 or NaN (leave out) of CheXpert-style labels.

    Args:
        raw: `(n,)`: 1 present, 0 absent, -1 uncertain, NaN not mentioned.
        uncertain: Leave out (the default of evaluation), or count as absent or as present.
        blank: Leave out what is not mentioned, or count it as absent.

    Reference:
        Irvin et al., CheXpert, AAAI 2019.

    >>> certain_truth([1, 0, -1, float("nan")], uncertain="u_ones")
    array([ 1.,  0.,  1., nan])
    """
    truth = np.array(raw, dtype=float)
    truth[np.isnan(truth)] = {"ignore": np.nan, "zero": 0.0}[blank]
    truth[truth == -1] = {"ignore": np.nan, "u_zeros": 0.0, "u_ones": 1.0}[uncertain]
    return truth


def patient_codes(patients: Ids, n: int) -> IntArray:
    """Return an integer per row that says whose it is; without patients each row is its own.

    Args:
        patients: `(n,)` identifiers, or None for one image per patient.
        n: Number of rows.

    Raises:
        PredictionsError: If there are not n identifiers.

    >>> patient_codes(["b", "a", "b"], 3)
    array([1, 0, 1])
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
    """Return how many different codes occur.

    >>> num_patients(np.array([0, 2, 2]))
    2
    """
    return int(np.count_nonzero(np.bincount(codes))) if codes.size else 0


def is_clustered(codes: IntArray) -> bool:
    """Return whether some patient has more than one row.

    >>> is_clustered(np.array([0, 2, 2]))
    True
    """
    return codes.size > 0 and int(np.bincount(codes).max()) > 1


HALF = 0.5
"""A soft label that says neither present nor absent."""


def soft_label(text: str) -> float | None:
    """Return the probability that a cell states, None when it states none.

    >>> soft_label("0.85"), soft_label("1e-3"), soft_label("85"), soft_label("nan")
    (0.85, 0.001, None, None)
    """
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None
