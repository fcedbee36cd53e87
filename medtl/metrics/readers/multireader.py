"""Several readers read the same cases in several ways: Obuchowski and Rockette's analysis.

Every figure of merit whose covariance over cases is known can be compared: the AUROC, and at a
threshold sensitivity and specificity. All readers read all cases in all modalities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.comparison import PairedTest, minimum_detectable_difference
from medtl.metrics.intervals import ratio_influence
from medtl.metrics.ranking import NO_VARIANCE, auc_covariance
from medtl.metrics.scores import CI, CI95, ONE_CLASS, Ids, Scores, num_patients
from medtl.types import FloatArray, Measure

Readers = Literal["random", "fixed"]
"""Whether the result is about readers like these, or about these readers alone."""

MERITS = ("auroc", "sensitivity", "specificity")
"""Figures of merit that can be compared."""


@dataclass(frozen=True)
class Contrast:
    """A difference of two modalities, or of a model and the readers, averaged over readers.

    Attributes:
        test: First minus second, with interval and t test.
        error: Standard error of the difference.
        freedom: Degrees of freedom; infinite where readers are fixed.
    """

    test: PairedTest
    error: float
    freedom: float


@dataclass(frozen=True)
class Components:
    """What varies in a multi-reader study.

    Attributes:
        error_variance: Of one reader's figure over cases. cov1: of a reader's two modalities.
        cov2: Of two readers in one modality. cov3: of two readers in two modalities.
        ms_modality: Mean square of the modalities.
        ms_interaction: Of modality and reader.
    """

    error_variance: float
    cov1: float
    cov2: float
    cov3: float
    ms_modality: float
    ms_interaction: float


@dataclass(frozen=True)
class ReaderStudy:
    """A multi-reader multi-case study, analysed for one figure of merit.

    Attributes:
        of: The figure of merit.
        values: Per modality, per reader.
        means: Of every modality, over the readers.
        contrasts: Of every pair of modalities, in the order of `itertools.combinations`.
        components: Variance components; None with one modality or one reader.
        f: F of no difference at all. freedom: its denominator's degrees of freedom. p: its p.
    """

    of: str
    values: tuple[tuple[float, ...], ...]
    means: tuple[Measure, ...]
    contrasts: tuple[Contrast, ...]
    components: Components | None = None
    f: float | None = None
    freedom: float | None = None
    p: float | None = None


def figures_of_merit(
    y_true: ArrayLike,
    marks: ArrayLike,
    of: str = "auroc",
    *,
    threshold: float = 1.0,
    patients: Ids = None,
) -> tuple[FloatArray, FloatArray]:
    """Return a figure of merit of k sets of marks of the same cases, and its covariance over cases.

    Args:
        y_true: `(n,)`, 0 or 1, both present.
        marks: `(k, n)`, higher means more diseased.
        of: One of `MERITS`.
        threshold: A mark counts as "yes" from here on; not used by the AUROC.
        patients: `(n,)` identifiers, or None for one case per patient.

    Returns:
        `(k,)` and `(k, k)`.

    Raises:
        PredictionsError: If the figure is unknown or one class is missing.

    >>> figures_of_merit([0, 0, 1, 1], [[0, 1, 1, 1]], "specificity")
    (array([0.5]), array([[0.25]]))
    """
    rows = np.atleast_2d(np.asarray(marks, dtype=float))
    truth = Scores.of(y_true, rows[0], patients)
    if of not in MERITS or truth.one_class:
        found = f"no figure of merit {of!r}" if of not in MERITS else ONE_CLASS
        raise PredictionsError(found, expected=f"both classes and one of {', '.join(MERITS)}")
    if of == "auroc":
        return auc_covariance(truth.truth, rows, truth.patients)
    mine = truth.truth if of == "sensitivity" else ~truth.truth
    right = (rows[:, mine] >= threshold) == (of == "sensitivity")
    codes = np.unique(truth.patients[mine], return_inverse=True)[1]
    moved = np.stack([ratio_influence(row, codes) for row in right])
    clusters = num_patients(codes)
    spread = clusters / (clusters - 1) if clusters > 1 else math.nan
    return right.mean(axis=1), spread * (moved @ moved.T)


def mean_of_readers(
    values: FloatArray, covariance: FloatArray, readers: Readers = "random"
) -> tuple[float, float, float]:
    """Return the mean over readers, its standard error and its degrees of freedom.

    Args:
        values: `(r,)` figures or differences of figures; random readers need two.
        covariance: `(r, r)` over cases.
        readers: Random: the error holds their spread, too. Fixed: that of the cases alone.

    Reference:
        Hillis, Statistics in Medicine 2014;33:330 (single modality); for a difference of two
        modalities it is Obuchowski and Rockette 1995 with Hillis 2007.

    >>> round(mean_of_readers(np.array([0.7, 0.8]), np.full((2, 2), 0.001), "fixed")[1], 4)
    0.0316
    """
    r = values.size
    alike = covariance[~np.eye(r, dtype=bool)]
    shared = max(float(alike.mean()), 0.0) if r > 1 else 0.0
    if readers == "fixed":
        error = math.sqrt((float(np.diag(covariance).mean()) + (r - 1) * shared) / r)
        return float(values.mean()), error, math.inf
    between = float(values.var(ddof=1))
    whole = between + r * shared
    freedom = whole**2 / (between**2 / (r - 1)) if between > NO_VARIANCE else math.inf
    return float(values.mean()), math.sqrt(whole / r), freedom


def reader_study(
    y_true: ArrayLike,
    marks: ArrayLike,
    *,
    of: str = "auroc",
    threshold: float = 1.0,
    readers: Readers = "random",
    patients: Ids = None,
    ci: CI = CI95,
) -> ReaderStudy:
    """Return the modalities of a multi-reader multi-case study compared.

    Args:
        y_true: `(n,)`, 0 or 1.
        marks: `(t, r, n)` of t modalities, r readers and n cases, none missing.
        of: "auroc", or at the threshold "sensitivity" or "specificity".
        threshold: A mark counts as "yes" from here on.
        readers: "random" (about readers like these; two at least) or "fixed" (these alone).
        patients: `(n,)` identifiers, or None for one case per patient.
        ci: Level of the intervals.

    Raises:
        PredictionsError: If a mark is missing, a class is, or one reader is to stand for others.

    Reference:
        Obuchowski and Rockette, Commun Stat Simul 1995;24:285; Hillis, Statistics in Medicine
        2007;26:596 (degrees of freedom) and 2014;33:330; DeLong 1988 for the covariances. A pair
        uses the readers' spread of its own two modalities.

    >>> truth = [0, 0, 0, 1, 1, 1]
    >>> old, new = [[1, 2, 4, 3, 5, 2], [2, 1, 3, 2, 4, 3]], [[1, 2, 3, 4, 5, 3]] * 2
    >>> study = reader_study(truth, [old, new])
    >>> round(study.contrasts[0].test.difference.value, 3), len(study.means)
    (-0.194, 2)
    """
    table = np.asarray(marks, dtype=float)
    if table.ndim != 3 or not np.isfinite(table).all():
        raise PredictionsError(
            "marks are missing, or are not of modalities, readers and cases",
            expected="(modalities, readers, cases): every reader reads every case every time",
        )
    t, r, n = table.shape
    _refuse_one_reader(r, readers)
    values, covariance = figures_of_merit(
        y_true, table.reshape(t * r, n), of, threshold=threshold, patients=patients
    )
    theta, sigma = values.reshape(t, r), covariance.reshape(t, r, t, r)
    blank = _blank(Scores.of(y_true, table[0, 0], patients), of, ci)
    means = tuple(
        _inside(_averaged(blank, theta[i], sigma[i, :, i, :], readers).test.difference)
        for i in range(t)
    )
    pairs = [
        _averaged(
            replace(blank, name=f"{of}_difference"),
            theta[i] - theta[j],
            sigma[i, :, i] + sigma[j, :, j] - sigma[i, :, j] - sigma[j, :, i],
            readers,
        )
        for i, j in combinations(range(t), 2)
    ]
    stored = tuple(tuple(map(float, row)) for row in theta)
    if t < 2 or r < 2:
        return ReaderStudy(of, stored, means, tuple(pairs))
    parts = variance_components(theta, sigma)
    return ReaderStudy(of, stored, means, tuple(pairs), parts, *_f_test(parts, t, r, readers))


def against_readers(
    y_true: ArrayLike,
    marks: ArrayLike,
    scores: ArrayLike,
    *,
    of: str = "auroc",
    readers: Readers = "random",
    patients: Ids = None,
    ci: CI = CI95,
) -> Contrast:
    """Return a model that reads alone minus the mean of the readers, on the same cases.

    Args:
        y_true: `(n,)`, 0 or 1.
        marks: `(r, n)` of the readers.
        scores: `(n,)` of the model.
        of: "auroc"; for "sensitivity" and "specificity" marks and scores are 1 (yes) and 0 (no).
        readers: "random" or "fixed".
        patients: `(n,)` identifiers, or None for one case per patient.
        ci: Level of the interval.

    Raises:
        PredictionsError: As `reader_study`.

    Reference:
        Hillis, Obuchowski and Berbaum, Academic Radiology 2011;18:129 (one modality against a
        fixed value), with the model's own covariance over cases.

    >>> marks = [[1, 2, 4, 3, 5, 2], [2, 1, 3, 2, 4, 3]]
    >>> against = against_readers([0, 0, 0, 1, 1, 1], marks, [0.1, 0.2, 0.5, 0.4, 0.8, 0.9])
    >>> round(against.test.difference.value, 3)
    0.139
    """
    table = np.asarray(marks, dtype=float)
    _refuse_one_reader(len(table), readers)
    values, covariance = figures_of_merit(y_true, np.vstack([table, scores]), of, patients=patients)
    cross = covariance[:-1, -1]
    moved = covariance[:-1, :-1] + covariance[-1, -1] - cross[:, None] - cross[None, :]
    blank = _blank(Scores.of(y_true, table[0], patients), of, ci)
    blank = replace(blank, name=f"{of}_difference")
    return _averaged(blank, values[-1] - values[:-1], moved, readers)


def variance_components(theta: FloatArray, sigma: FloatArray) -> Components:
    """Return the components of t modalities and r readers, both at least two.

    Args:
        theta: `(t, r)` figures of merit.
        sigma: `(t, r, t, r)` their covariance over cases.

    >>> theta = np.array([[0.7, 0.8], [0.8, 0.9]])
    >>> round(variance_components(theta, np.zeros((2, 2, 2, 2))).ms_modality, 3)
    0.01
    """
    t, r = theta.shape
    i, j, k, m = np.indices(sigma.shape)
    same, alike = i == k, j == m
    centred = theta - theta.mean(axis=0) - theta.mean(axis=1)[:, None] + theta.mean()
    return Components(
        error_variance=float(sigma[same & alike].mean()),
        cov1=float(sigma[~same & alike].mean()),
        cov2=float(sigma[same & ~alike].mean()),
        cov3=float(sigma[~same & ~alike].mean()),
        ms_modality=r * float(theta.mean(axis=1).var(ddof=1)),
        ms_interaction=float((centred**2).sum()) / ((t - 1) * (r - 1)),
    )


def _f_test(
    parts: Components, t: int, r: int, readers: Readers
) -> tuple[float | None, float | None, float | None]:
    """Return F, its denominator's degrees of freedom and p: no modality differs from another."""
    from scipy.special import chdtrc, fdtrc

    shared = max(parts.cov2 - parts.cov3, 0.0)
    below, freedom = parts.ms_interaction + r * shared, math.inf
    if readers == "fixed":
        below = parts.error_variance - parts.cov1 + (r - 1) * shared
    elif parts.ms_interaction > NO_VARIANCE:
        freedom = below**2 / (parts.ms_interaction**2 / ((t - 1) * (r - 1)))
    if not below > NO_VARIANCE:
        return None, None, None
    f = parts.ms_modality / below
    p = chdtrc(t - 1, (t - 1) * f) if math.isinf(freedom) else fdtrc(t - 1, freedom, f)
    return f, freedom, float(p)


def _averaged(
    blank: Measure, values: FloatArray, covariance: FloatArray, readers: Readers
) -> Contrast:
    """Return the mean over readers with its interval, and the test that it is 0."""
    from scipy.special import stdtr, stdtrit

    value, error, freedom = mean_of_readers(values, covariance, readers)
    whose = "readers and cases random" if readers == "random" else "readers fixed"
    method = f"Obuchowski-Rockette, {whose}"
    if not error > math.sqrt(NO_VARIANCE):
        weak = blank.weak(value, "it varies neither between readers nor between cases")
        return Contrast(PairedTest(weak, None, 1.0 if value == 0 else None, method), 0.0, freedom)
    # scipy's t knows no infinite degrees of freedom; 1e12 is the normal to all digits.
    df = min(freedom, 1e12)
    half = float(stdtrit(df, 0.5 + blank.confidence / 2)) * error
    p = 2 * float(stdtr(df, -abs(value / error)))
    found = blank.ok(value, (value - half, value + half), method)
    detectable = minimum_detectable_difference(error)
    return Contrast(PairedTest(found, value / error, p, method, detectable), error, freedom)


def _blank(rows: Scores, of: str, ci: CI) -> Measure:
    """Return a figure without a value that knows the cases it is of."""
    mine = {"sensitivity": rows.truth, "specificity": ~rows.truth}.get(of)
    return (rows if mine is None else rows.only(mine)).blank(of, ci)


def _inside(measure: Measure) -> Measure:
    """Return a figure whose interval ends where it can end, at 0 and 1."""
    if measure.low is None or measure.high is None:
        return measure
    return replace(measure, low=max(measure.low, 0.0), high=min(measure.high, 1.0))


def _refuse_one_reader(count: int, readers: Readers) -> None:
    """Refuse to speak of readers in general when one was seen."""
    if count < 2 and readers == "random":
        raise PredictionsError(
            f"{count} reader",
            expected="two readers or more: one says nothing about readers in general",
            fix="Take readers as fixed, and speak of this reader alone",
        )
