"""Several findings of which exactly one is true: the choice among classes and its matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.metrics.confusion import CLASS_SUMMARIES, confusion_matrix, pair_rankings
from medtl.metrics.intervals import proportion_of_rows
from medtl.metrics.ranking import area_under_roc, weighted_counts
from medtl.metrics.resampling import resampled_measures
from medtl.metrics.scores import CI
from medtl.types import FloatArray, IntArray, Measure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Choices:
    """Cases of which exactly one class is true: its number `(n,)`, scores `(n, K)`, patients."""

    truth: IntArray
    scores: FloatArray
    patients: IntArray


def choices(table: pd.DataFrame, classes: Sequence[str]) -> Choices | None:
    """Return the cases as choices among the labels, None for labels that may occur together.

    They exclude each other if every case has one row per class, one truth of 1, and scores that
    sum to 1.

    Args:
        table: Rows of one split with `case_id`, `patient_id`, `label`, `y_true`, `y_score`.
        classes: Labels in the order of the scores.
    """
    if len(classes) < 2 or not {*classes} <= {*table["label"]}:
        return None
    wide = table.pivot(index="case_id", columns="label", values=["y_true", "y_score"])
    truths = wide["y_true"][list(classes)].to_numpy(float)
    scores = wide["y_score"][list(classes)].to_numpy(float)
    complete = np.isfinite(truths).all(axis=1) & np.isfinite(scores).all(axis=1)
    truths, scores = truths[complete], scores[complete]
    one_truth = bool((truths.sum(axis=1) == 1).all())
    if not (complete.any() and one_truth and np.allclose(scores.sum(axis=1), 1, atol=1e-3)):
        return None
    owners = table.drop_duplicates("case_id").set_index("case_id")["patient_id"]
    patients = np.unique(owners.loc[wide.index[complete]].to_numpy(), return_inverse=True)[1]
    return Choices(truths.argmax(axis=1), scores, patients)


def choice_measures(
    rows: Choices, classes: Sequence[str], ci: CI, *, ordered: bool = False
) -> tuple[list[Measure], dict[str, Any]]:
    """Return the measures of a choice among classes and its matrix.

    The predicted class is the one of the highest score (the first of equals).

    Args:
        rows: Test cases.
        classes: Labels in the order of the matrix.
        ci: Level and bootstrap of the intervals.
        ordered: Whether that order means something; the quadratic kappa needs it.

    Returns:
        Measures (label "overall", and of each class the share that was called it) and {"classes",
        "matrix"}.
    """
    truth, patients, called = rows.truth, rows.patients, rows.scores.argmax(axis=1)
    accuracy = proportion_of_rows("accuracy", truth == called, patients=patients, ci=ci)
    blank = ci.blank("", accuracy.n, patients=accuracy.n_patients)
    statistics = _statistics(truth, called, rows.scores)
    names = [*CLASS_SUMMARIES, "auroc_hand_till"]
    reason = "fewer than two classes occur"
    few = ci.affordable(truth.size)
    summaries = resampled_measures(
        statistics, names, blank, patients, few, reason=reason, units=int(np.bincount(truth).min())
    )
    measures = [
        replace(measure, label="overall")
        for measure in (accuracy, *summaries)
        if ordered or measure.name != "kappa_quadratic"
    ]
    for number, name in enumerate(classes):
        mine = truth == number
        right = proportion_of_rows(
            "class_sensitivity",
            called[mine] == number,
            patients=patients[mine],
            ci=ci,
            of="cases of the class",
        )
        measures.append(replace(right, label=name))
    matrix = confusion_matrix(truth, called, len(classes))
    return measures, {"classes": list(classes), "matrix": matrix.tolist()}


def _statistics(
    truth: IntArray, called: IntArray, scores: FloatArray
) -> Callable[[IntArray], FloatArray]:
    """Return row weights `(b, n)` -> summaries of the matrix, and the AUC of Hand and Till last."""
    classes = scores.shape[1]
    one_hot = np.zeros((truth.size, classes**2))
    one_hot[np.arange(truth.size), truth * classes + called] = 1
    pairs = pair_rankings(truth, scores)

    def statistics(weights: IntArray) -> FloatArray:
        matrices = (weights @ one_hot).astype(int).reshape(-1, classes, classes)
        of_matrix = [[of(matrix) for of in CLASS_SUMMARIES.values()] for matrix in matrices]
        aucs = [area_under_roc(*weighted_counts(r, weights[:, rows])) for rows, r in pairs]
        mean = np.mean(aucs, axis=0) if pairs else np.full(len(weights), math.nan)
        # None becomes NaN.
        return np.column_stack([np.array(of_matrix, dtype=float), mean])

    return statistics
