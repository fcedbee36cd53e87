"""A study of exams with several images and several raters, from the recipe to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from medtl.cases.exams import by_exam
from medtl.cases.predictions import read_predictions
from medtl.cli.main import app
from medtl.metrics.operating_point import choose_operating_point
from medtl.metrics.scores import Scores
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from tests.tiny_study import RECIPE, write_tiny_study

EXAMS = RECIPE.replace(
    "target: bright, strata: [site]}",
    "target: bright, raters: [r1, r2, r3], consensus: mean, exam: study, exam_score: noisy_or, "
    "duplicates: drop, strata: [site]}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run: an exam a patient, three raters of whom one errs at every fifth patient."""
    folder = tmp_path_factory.mktemp("exams")
    path = write_tiny_study(folder / "data", recipe=EXAMS)
    table = pd.read_csv(folder / "data" / "manifest.csv", dtype=str)
    number = table["patient_id"].str.removeprefix("Kim-").astype(int)
    wrong = np.where(number % 5 == 0, 1 - table["bright"].astype(int), table["bright"].astype(int))
    table = table.assign(
        r1=table["bright"], r2=table["bright"], r3=wrong, study="1.2." + number.astype(str)
    )
    copy = table.iloc[[0]].assign(image="images/copy.png")
    (folder / "data" / "images" / "copy.png").write_bytes(
        (folder / "data" / table["image"][0]).read_bytes()
    )
    pd.concat([table.drop(columns="bright"), copy.drop(columns="bright")]).to_csv(
        folder / "data" / "manifest.csv", index=False
    )
    return run_study(read_recipe(path), folder / "run")


def test_predictions_say_image_and_exam(run: Run) -> None:
    table = read_predictions(run.files.predictions)
    assert {"case_id", "exam_id", "y_true_raw"} <= {*table.columns}
    assert (table.groupby("exam_id")["case_id"].nunique() == 2).all()
    assert {"0.0", "1.0", "0.3333333333333333", "0.6666666666666666"} == {*table["y_true_raw"]}
    assert (table["y_true"] == (table["y_true_raw"].astype(float) > 0.5)).all()


def test_threshold_and_measures_are_of_exams(run: Run) -> None:
    exams, _ = by_exam(read_predictions(run.files.predictions), "noisy_or")
    val, test = (exams[exams["split"] == split] for split in ("val", "test"))
    scores = Scores.of(val["y_true"].to_numpy(), val["y_score"].to_numpy())
    chosen = choose_operating_point(scores, rule={"sensitivity": 0.8}, label="bright")
    (point,) = run.evaluation.operating_points
    assert (point.threshold, point.n) == (chosen.threshold, len(val))
    assert run.evaluation.auroc.n == len(test) == test["patient_id"].nunique()
    assert "images of" in run.evaluation.notes[0]


def test_the_report_says_exams_raters_and_copies(run: Run) -> None:
    html = run.files.report.read_text(encoding="utf-8")
    for words in (
        "evaluated by exam",
        "agreement of 3 raters",
        "soft label",
        "1 images are copies",
    ):
        assert words in html.replace("&#39;", "'"), words
    manifest = pd.read_csv(run.files.manifest)
    assert {"exam_id", "bright, r1", "bright, r2", "bright, r3"} <= {*manifest.columns}
    assert len(manifest) == 60
    shown = json.loads((run.files.gallery / "gallery.json").read_text())
    assert {one["case_id"] for one in shown} <= {*manifest["case_id"]}


def test_a_foreign_table_by_exam(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    read_predictions(run.files.predictions).rename(columns={"exam_id": "study"}).to_csv(
        table, index=False
    )
    stated = [
        "report",
        str(table),
        "--exam",
        "study",
        "--combine",
        "max",
        "--out",
        str(tmp_path / "r"),
    ]
    done = CliRunner().invoke(app, stated)
    assert done.exit_code == 0, done.output
    assert "evaluated by exam (study)" in (tmp_path / "r" / "report.html").read_text("utf-8")
    half = CliRunner().invoke(app, ["evaluate", str(table), "--exam", "study"])
    assert half.exit_code == 1
    assert "--combine max, mean or noisy_or" in str(half.exception)
