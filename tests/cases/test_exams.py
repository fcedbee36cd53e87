"""Exams of several images: one label, one score, and what cannot be combined."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medtl.cases.columns import Columns
from medtl.cases.exams import by_exam
from medtl.cases.manifest import read_manifest
from medtl.errors import ManifestError, PredictionsError


def table(**columns: object) -> pd.DataFrame:
    """Two exams of one patient and one of another: of two, one and three images."""
    cells: dict[str, object] = {
        "case_id": list("abcdef"),
        "patient_id": ["p", "p", "p", "q", "q", "q"],
        "exam_id": ["e1", "e1", "e2", "e3", "e3", "e3"],
        "split": ["test"] * 6,
        "label": ["effusion"] * 6,
        "y_true": [1.0, 1.0, 0.0, 1.0, float("nan"), 1.0],
        "y_score": [0.5, 0.4, 0.1, 0.2, 0.3, 0.4],
        "view": ["PA", "LL", "PA", "PA", "PA", "PA"],
    }
    return pd.DataFrame({**cells, **columns})


@pytest.mark.parametrize(
    ("combine", "scores"),
    [
        ("max", [0.5, 0.1, 0.4]),
        ("mean", [0.45, 0.1, 0.3]),
        ("noisy_or", [1 - 0.5 * 0.6, 0.1, 1 - 0.8 * 0.7 * 0.6]),
    ],
)
def test_scores_of_an_exam_by_hand(combine: str, scores: list[float]) -> None:
    exams, notes = by_exam(table(), combine)
    assert exams["case_id"].tolist() == ["e1", "e2", "e3"]
    assert exams["y_score"].tolist() == pytest.approx(scores)
    assert exams["y_true"].tolist() == [1, 0, 1]
    assert exams["patient_id"].tolist() == ["p", "p", "q"]
    assert exams["shown"].tolist() == ["a", "c", "f"]
    assert exams["view"].tolist() == ["LL + PA", "PA", "PA"]
    assert "6 images of 3 exams, 1 to 3 an exam (median 2)" in notes[0]


def test_a_label_and_a_split_each_have_their_own_rows() -> None:
    both = pd.concat([table(), table(label="mass", y_score=[0.9] * 6)], ignore_index=True)
    exams, _ = by_exam(both, "max")
    assert exams.groupby("label")["y_score"].max().to_dict() == {"effusion": 0.5, "mass": 0.9}


@pytest.mark.parametrize(
    ("columns", "combine", "found"),
    [
        ({"y_true": [1, 0, 0, 1, 1, 1]}, "max", r"1 of 3 exams .* different truths"),
        ({"patient_id": list("pqpqqq")}, "max", r"1 of 3 exams .* different patients"),
        ({"exam_id": ["e1", "", "e2", None, "e3", "e3"]}, "max", "2 rows have no exam_id"),
        ({"y_score": [3.0, 0.4, 0.1, 0.2, 0.3, 0.4]}, "noisy_or", "beyond 0 and 1"),
        ({}, "median", "exams combined by 'median'"),
    ],
)
def test_what_cannot_be_combined(columns: dict[str, object], combine: str, found: str) -> None:
    with pytest.raises(PredictionsError, match=found):
        by_exam(table(**columns), combine)
    with pytest.raises(PredictionsError, match="no column 'study'"):
        by_exam(table(), "max", "study")


def test_exclusive_classes_have_a_mean_alone() -> None:
    parts = [
        table(label=name, y_true=[t] * 6, y_score=[s] * 6)
        for name, t, s in (("a", 1.0, 0.5), ("b", 0.0, 0.3), ("c", 0.0, 0.2))
    ]
    classes = pd.concat(parts, ignore_index=True)
    with pytest.raises(PredictionsError, match="no longer sum to 1"):
        by_exam(classes, "max")
    assert (
        by_exam(classes, "mean")[0]["y_score"].round(9).tolist()
        == [0.5] * 3 + [0.3] * 3 + [0.2] * 3
    )


def manifest(folder: Path, *rows: str) -> Path:
    """A manifest whose images are there."""
    for row in rows:
        (folder / row.split(",")[0]).touch()
    file = folder / "cases.csv"
    file.write_text("\n".join(["image,patient_id,study,f", *rows]) + "\n", encoding="utf-8")
    return file


EXAM = Columns.of({"target": "f", "exam": "study", "exam_score": "max"})


def test_exams_of_a_manifest_are_pseudonyms(tmp_path: Path) -> None:
    file = manifest(tmp_path, "a.png,p,1.2.3,1", "b.png,p,1.2.3,1", "c.png,q,1.2.4,0")
    exams = [case.exam for case in read_manifest(file, EXAM, salt=b"s" * 32).cases]
    assert exams[0] == exams[1] != exams[2]
    assert "1.2.3" not in exams[0]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("b.png,p,1.2.3,0", r"1 of 1 exams have two labels in 'f' \(rows 2, 3\)"),
        ("b.png,q,1.2.3,1", "1 exams are of more than one patient"),
        ("b.png,p,,1", "no study"),
    ],
)
def test_an_exam_has_one_label_and_one_patient(tmp_path: Path, row: str, found: str) -> None:
    file = manifest(tmp_path, "a.png,p,1.2.3,1", row)
    with pytest.raises(ManifestError, match=found):
        read_manifest(file, EXAM, salt=b"s" * 32)
