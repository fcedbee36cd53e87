"""Several classes of which exactly one is true. Matrices are (truth, prediction) counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medtl.metrics.discrimination import with_percentiles
from medtl.metrics.proportions import proportion_of_rows
from medtl.metrics.ranking import Ranking, area_under_roc, rank, ratio, weighted_counts
from medtl.metrics.resampling import affordable_resamples, bootstrap
from medtl.types import FloatArray, IntArray, Measure

if TYPE_CHECKING:
    import pandas as pd


def confusion_matrix(truth: IntArray, predicted: IntArray, classes: int) -> IntArray:
    """Return how often each truth (row) was called each class (column), `(c, c)`.

    Args:
        truth: `(n,)` class numbers 0..c-1.
        predicted: `(n,)` class numbers.
        classes: Number of classes c.
    """
    cells = np.asarray(truth) * classes + np.asarray(predicted)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def hand_till(truth: IntArray, scores: FloatArray) -> float | None:
    """Return the mean AUC over pairs of classes; None if fewer than two classes occur.

    Args:
        truth: `(n,)` class numbers 0..c-1.
        scores: `(n, c)` probabilities.

    Reference:
        Hand and Till, Machine Learning 2001;45:171, equation 7.
    """
    pairs = _pair_rankings(truth, scores)
    aucs = [area_under_roc(ranking.tp, ranking.fp) for _, ranking in pairs]
    return float(np.mean(aucs)) if aucs else None


def _pair_rankings(truth: IntArray, scores: FloatArray) -> list[tuple[IntArray, Ranking]]:
    """Return, for every ordered pair of classes that occur, its rows and their ranking."""
    present = np.unique(truth)
    found: list[tuple[IntArray, Ranking]] = []
    for one in present:
        for other in present[present != one]:
            rows = np.flatnonzero((truth == one) | (truth == other))
            ranking = rank(truth[rows] == one, scores[rows, one])
            found.append((rows[ranking.order], ranking))
    return found


def kappa(matrix: IntArray, *, weights: Literal["none", "quadratic"] = "none") -> float | None:
    """Return Cohen's kappa of a confusion matrix; None where chance agreement is complete.

    Args:
        matrix: `(c, c)` counts.
        weights: "quadratic" for ordered classes: a miss costs its squared distance.

    Reference:
        Cohen 1960; Cohen 1968.
    """
    counts = np.asarray(matrix, dtype=float)
    index = np.arange(len(counts))
    distance = np.abs(index[:, None] - index).astype(float)
    cost = distance**2 if weights == "quadratic" else (distance > 0).astype(float)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(counts.sum(), 1)
    chance = float((cost * expected).sum())
    return 1 - float((cost * counts).sum()) / chance if chance > 0 else None


def recalls(matrix: IntArray) -> FloatArray:
    """Return the share of each true class that was called right, `(c,)`; NaN for absent classes."""
    counts = np.asarray(matrix, dtype=float)
    return ratio(np.diag(counts), counts.sum(axis=1))


def balanced_accuracy(matrix: IntArray) -> float | None:
    """Return the mean recall over the classes that occur; None without rows."""
    values = recalls(matrix)
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def f1_scores(matrix: IntArray) -> FloatArray:
    """Return F1 of each class, `(c,)`; NaN for a class neither true nor called."""
    counts = np.asarray(matrix, dtype=float)
    return ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))


def f1_macro(matrix: IntArray) -> float | None:
    """Return the mean F1 over the classes where it is defined; None without rows."""
    values = f1_scores(matrix)
    mean = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
    return mean if math.isfinite(mean) else None


SUMMARIES: Mapping[str, Callable[[IntArray], float | None]] = {
    "balanced_accuracy": balanced_accuracy,
    "f1_macro": f1_macro,
    "kappa": kappa,
    "kappa_quadratic": lambda matrix: kappa(matrix, weights="quadratic"),
}
"""Summaries of a confusion matrix; the quadratic kappa means something for ordered classes only."""


def exclusive_classes(
    table: pd.DataFrame,
    classes: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[list[Measure], dict[str, Any] | None]:
    """Return the measures of a choice among classes and its matrix, if the labels exclude another.

    They do if every case has one row per class, one truth of 1, and scores that sum to 1. The
    predicted class is the one of the highest score (the first of equals).

    Args:
        table: Test rows with `case_id`, `patient_id`, `label`, `y_true`, `y_score`.
        classes: Labels in the order of the matrix.
        confidence: Level of the intervals.
        resamples: Bootstrap resamples of the patients.
        seed: Of the bootstrap.

    Returns:
        Measures (label "overall", and of each class the share that was called it) and {"classes",
        "matrix"}; nothing and None for labels that may occur together.
    """
    wide = table.pivot(index="case_id", columns="label", values=["y_true", "y_score"])
    truths = wide["y_true"][list(classes)].to_numpy(float)
    scores = wide["y_score"][list(classes)].to_numpy(float)
    complete = np.isfinite(truths).all(axis=1) & np.isfinite(scores).all(axis=1)
    truths, scores = truths[complete], scores[complete]
    one_truth = bool((truths.sum(axis=1) == 1).all())
    if not (complete.any() and one_truth and np.allclose(scores.sum(axis=1), 1, atol=1e-3)):
        return [], None
    truth, called = truths.argmax(axis=1), scores.argmax(axis=1)
    owners = table.drop_duplicates("case_id").set_index("case_id")["patient_id"]
    patients = np.unique(owners.loc[wide.index[complete]].to_numpy(), return_inverse=True)[1]
    matrix = confusion_matrix(truth, called, len(classes))
    accuracy = proportion_of_rows(
        "accuracy", truth == called, patients=patients, confidence=confidence
    )
    blank = replace(accuracy, value=None, low=None, high=None, method="", status="undefined")
    of_cells = _matrix_summaries(truth * len(classes) + called, len(classes))
    pairs = _pair_rankings(truth, scores)

    def statistics(weights: IntArray) -> FloatArray:
        aucs = [area_under_roc(*weighted_counts(r, weights[:, rows])) for rows, r in pairs]
        mean = np.mean(aucs, axis=0) if pairs else np.full(len(weights), np.nan)
        return np.column_stack([of_cells(weights), mean])

    values = statistics(np.ones((1, truth.size), dtype=int))[0]
    drawn = affordable_resamples(resamples, truth.size)
    draws = bootstrap(statistics, patients, resamples=drawn, seed=seed)
    measures = [accuracy]
    for name, value, column in zip((*SUMMARIES, "auroc_hand_till"), values, draws.T, strict=True):
        named = replace(blank, name=name)
        measures.append(
            with_percentiles(replace(named, value=float(value)), column)
            if math.isfinite(value)
            else replace(named, reason="fewer than two classes occur")
        )
    measures = [replace(measure, label="overall") for measure in measures]
    for number, name in enumerate(classes):
        mine = truth == number
        right = proportion_of_rows(
            "class_sensitivity", called[mine] == number, patients=patients[mine],
            confidence=confidence, of="cases of the class",
        )  # fmt: skip
        measures.append(replace(right, label=name))
    return measures, {"classes": list(classes), "matrix": matrix.tolist()}


def _matrix_summaries(cells: IntArray, classes: int) -> Callable[[IntArray], FloatArray]:
    """Return the function from row weights to `SUMMARIES` of the matrix, `(b, summaries)`."""
    one_hot = np.zeros((cells.size, classes**2))
    one_hot[np.arange(cells.size), cells] = 1

    def summaries(weights: IntArray) -> FloatArray:
        matrices = (weights @ one_hot).astype(int).reshape(-1, classes, classes)
        return np.array([[_or_nan(of(m)) for of in SUMMARIES.values()] for m in matrices])

    return summaries


def _or_nan(value: float | None) -> float:
    """Return NaN for None."""
    return math.nan if value is None else value
