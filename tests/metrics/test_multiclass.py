"""Exclusive classes, uncertain labels, and patients."""

import numpy as np
import pandas as pd
import pytest

from medtl.metrics import confusion
from medtl.metrics.scores import Scores, certain_truth, usable_rows

MATRIX = np.array([[10, 2, 0], [3, 5, 2], [0, 1, 7]])


def test_matrix_counts_truths_in_rows() -> None:
    found = confusion.confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_summaries_equal_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score, roc_auc_score

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 120)
    scores = rng.dirichlet([1, 1, 1], 120)
    scores[np.arange(120), truth] += 0.4
    scores /= scores.sum(axis=1, keepdims=True)
    called = scores.argmax(axis=1)
    matrix = confusion.confusion_matrix(truth, called, 3)
    assert confusion.kappa(matrix) == pytest.approx(cohen_kappa_score(truth, called))
    assert confusion.kappa(matrix, weights="quadratic") == pytest.approx(
        cohen_kappa_score(truth, called, weights="quadratic")
    )
    assert confusion.mean_recall(matrix) == pytest.approx(balanced_accuracy_score(truth, called))
    assert confusion.f1_macro(matrix) == pytest.approx(f1_score(truth, called, average="macro"))
    assert confusion.hand_till(truth, scores) == pytest.approx(
        roc_auc_score(truth, scores, multi_class="ovo")
    )


def test_an_absent_class_is_left_out_of_the_means() -> None:
    matrix = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    assert confusion.mean_recall(matrix) == pytest.approx(0.85)
    assert confusion.f1_macro(matrix) == pytest.approx((16 / 19 + 18 / 21) / 2)


def test_nothing_to_measure_is_none() -> None:
    empty = np.zeros((2, 2), dtype=int)
    assert confusion.mean_recall(empty) is None
    assert confusion.f1_macro(empty) is None
    assert confusion.kappa(empty) is None
    assert confusion.kappa(np.array([[5, 0], [0, 0]])) is None
    assert confusion.hand_till(np.zeros(3, dtype=int), np.ones((3, 2)) / 2) is None


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [
        ("ignore", "ignore", [1, 0, np.nan, np.nan]),
        ("u_zeros", "ignore", [1, 0, 0, np.nan]),
        ("u_ones", "zero", [1, 0, 1, 0]),
    ],
)
def test_uncertain_and_blank_are_two_switches(uncertain: str, blank: str, expected: list) -> None:
    raw = [1, 0, -1, np.nan]
    found = certain_truth(raw, uncertain=uncertain, blank=blank)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, nan_ok=True)


IMAGES = pd.DataFrame({
    "case_id": list("abcde"), "patient_id": ["p", "p", "q", "q", "r"],
    "y_true": [0, 1, 0, 0, np.nan], "y_score": [0.2, 0.5, 0.4, np.nan, 0.9],
    "sex": ["M", "M", "F", "F", "F"],
})  # fmt: skip


@pytest.mark.parametrize(
    ("how", "scores"), [("max", [0.5, 0.4]), ("mean", [0.35, 0.4]), ("noisy_or", [0.6, 0.4])]
)
def test_patients_from_images(how: str, scores: list[float]) -> None:
    rows = IMAGES[usable_rows(IMAGES["y_true"], IMAGES["y_score"])]
    found = Scores.of(rows["y_true"], rows["y_score"], rows["patient_id"]).per_patient(how)  # type: ignore[arg-type]
    assert found.truth.tolist() == [True, False]
    assert found.score.tolist() == pytest.approx(scores)
    assert not found.clustered
