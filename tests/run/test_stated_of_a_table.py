"""What a user states of a table on the command line: rules, thresholds and prevalences by label."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import medtl as mt
from medtl.cli.main import app
from medtl.errors import MedtlError, PredictionsError
from medtl.evaluation.statements.recalibrated import Recalibrated
from medtl.metrics.temperature import Recalibration
from medtl.run.evaluate import TableOptions, evaluate_table
from medtl.run.use.mending import add_probabilities
from medtl.types import Measure


def write(folder: Path, *, val: int = 120, labels: tuple[str, ...] = ("x",)) -> Path:
    rng = np.random.default_rng(1)
    parts = []
    for label in labels:
        for split, n in (("val", val), ("test", 150)):
            truth = rng.random(n) < 0.4
            score = 1 / (1 + np.exp(-rng.normal(size=n) - 2 * truth + 1))
            cases = [f"{split}{i}" for i in range(n)]
            parts.append(pd.DataFrame({
                "case_id": cases, "patient_id": cases, "split": split, "label": label,
                "y_true": truth.astype(int), "y_score": score,
            }))  # fmt: skip
    file = folder / "table.csv"
    pd.concat(parts).to_csv(file, index=False)
    return file


def evaluated(file: Path, *options: str) -> dict[str, Any]:
    found = CliRunner().invoke(app, ["evaluate", str(file), *options])
    assert found.exit_code == 0, found.output
    content: dict[str, Any] = json.loads(file.with_suffix(".metrics.json").read_text("utf-8"))
    return content


def test_a_rule_on_the_command_line_promises(tmp_path: Path) -> None:
    file = write(tmp_path)
    (point,) = evaluated(file, "--rule", "sensitivity=0.90")["operating_points"]
    assert (point["target"], point["assurance"], point["source"]) == (0.9, 0.9, "table")
    (plain,) = evaluated(file, "--rule", "sensitivity=0.90", "--assurance", "0")["operating_points"]
    assert plain["assurance"] is None
    assert not plain["reason"]
    assert plain["threshold"] > point["threshold"]
    (surer,) = evaluated(file, "--rule", "sensitivity=0.9", "--assurance", "0.8")[
        "operating_points"
    ]
    assert point["threshold"] < surer["threshold"] < plain["threshold"]
    assert evaluated(file, "--rule", "f1")["operating_points"][0]["rule"] == "largest F1"
    assert evaluated(file)["operating_points"][0]["rule"] == "largest sensitivity + specificity"


def test_thresholds_and_prevalences_by_label(tmp_path: Path) -> None:
    file = write(tmp_path, labels=("x", "y", "z"))
    content = evaluated(
        file, "--threshold", "x=0.3", "--threshold", "y=0.6",
        "--prevalence", "x=0.01", "--prevalence", "z=0.2",
    )  # fmt: skip
    points = {point["label"]: point for point in content["operating_points"]}
    assert [points[label]["source"] for label in "xyz"] == ["user", "user", "table"]
    assert (points["x"]["threshold"], points["y"]["threshold"]) == (0.3, 0.6)
    shown = {row["label"]: (row["prevalence"], row["source"]) for row in content["per_1000"]}
    assert (shown["x"], shown["z"]) == ((0.01, "stated"), (0.2, "stated"))
    assert shown["y"][1] == "test set"
    every = evaluated(file, "--threshold", "0.5", "--prevalence", "0.1")
    assert {point["threshold"] for point in every["operating_points"]} == {0.5}
    assert {row["prevalence"] for row in every["per_1000"]} == {0.1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threshold", "0.5", "--threshold", "x=0.3"], "--threshold is given 2 times"),
        (["--prevalence", "x=0.1", "--prevalence", "x=0.2"], "--prevalence is given 2 times"),
        (["--threshold", "x=much"], "--threshold is 'much'"),
        (["--rule", "sensitivity=high"], "--rule is 'high'"),
        (["--assurance", "0.9"], "an assurance is stated without a rule"),
        (["--rule", "youden", "--assurance", "0.9"], "has the assurance 0.9"),
        (["--rule", "sensitivty=0.9"], "the rule is {'sensitivty': 0.9}"),
        (["--threshold", "w=0.3"], "an operating point is given for 'w'"),
        (["--prevalence", "x=1.5"], "a prevalence of 1.5"),
        (["--margin", "0.05"], "a margin is stated without its measure"),
        (["--margin", "auroc=0.05"], "a margin is stated"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, options: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["evaluate", str(write(tmp_path)), *options])
    assert isinstance(found.exception, MedtlError)
    assert said in str(found.exception)


def test_a_rule_needs_validation_rows(tmp_path: Path) -> None:
    file = write(tmp_path, val=0)
    with pytest.raises(PredictionsError, match="no row is of split val"):
        evaluate_table(file, tmp_path / "m.json", TableOptions(rule={"sensitivity": 0.9}))


@pytest.mark.parametrize("column", ["fold", "split", "model"])
def test_scores_that_chose_a_threshold_do_not_judge_it(tmp_path: Path, column: str) -> None:
    """The answer holds what the rule chooses, to be stated with the table of the test rows."""
    both = evaluated(write(tmp_path), "--rule", "sensitivity=0.90")["operating_points"][0]
    rows = pd.read_csv(tmp_path / "table.csv")
    val = rows[rows["split"] == "val"].drop(columns="split")
    cells: dict[str, dict[str, Any]] = {
        "fold": {"fold": np.arange(len(val)) % 5},
        "split": {"split": "val"},
        "model": {"fold": np.arange(len(val)) % 5, "model": "a"},
    }
    only = val.assign(**cells[column])
    if column == "model":
        only = pd.concat([only, only.assign(model="b", y_score=only["y_score"] / 2)])
    only.to_csv(tmp_path / "only.csv", index=False)
    whose = "validation scores" if column == "split" else "out-of-fold scores of 5 folds"
    said = f"{whose} only .120 rows.*--threshold x={both['threshold']} .1 of 1 with a certainty"
    with pytest.raises(PredictionsError, match=said):
        evaluate_table(
            tmp_path / "only.csv", tmp_path / "m.json", TableOptions(rule={"sensitivity": 0.9})
        )


def test_the_order_of_classes_stands_beside_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth, scores = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    names = ("severe", "none", "mild")
    cells = {"case_id": range(60), "patient_id": range(60)}
    pd.concat([
        pd.DataFrame({**cells, "label": name, "y_true": (truth == k) * 1, "y_score": scores[:, k]})
        for k, name in enumerate(names)
    ]).to_csv(tmp_path / "t.csv", index=False)  # fmt: skip
    kappas = []
    for order in ("", "classes: [none, mild, severe]", "classes: [mild, none, severe]"):
        (tmp_path / "t.yaml").write_text(f"{order}\n" if order else "{}\n", encoding="utf-8")
        found = evaluate_table(tmp_path / "t.csv", tmp_path / "m.json")
        kappas.append([m.value for m in found.measures if m.name == "kappa_quadratic"])
    assert kappas[0] == []
    assert kappas[1] != kappas[2]
    assert found.confusion is not None
    assert found.confusion["classes"] == ["mild", "none", "severe"]


def test_mended_probabilities_stand_beside_scores_and_keep_decisions() -> None:
    scores = [0.1, 0.5, 0.50001, 0.99]
    table = pd.DataFrame({"label": ["x"] * 4 + ["y"], "y_score": [*scores, 0.7]})
    table["threshold"] = [0.5] * 4 + [np.inf]
    table["case_id"] = list("abcda")
    fit = Recalibration("platt", 0.4, -0.3, "val", 90, 0.1)
    done = Recalibrated("x", fit, Measure("calibration_slope", 0.4))
    add_probabilities(table, [done], "y_score")
    assert table["y_score"].tolist() == [*scores, 0.7]
    assert table["probability"].iloc[-1] == 0.7
    mended = table[table["label"] == "x"]
    expected = 1 / (1 + np.exp(0.3 - 0.4 * np.log(mended["y_score"] / (1 - mended["y_score"]))))
    assert np.allclose(mended["probability"], expected)
    raw = table["y_score"] >= table["threshold"]
    assert (raw == (table["probability"] >= table["probability_threshold"])).all()


def test_an_order_of_classes_that_are_numbers_is_one_of_the_labels(tmp_path: Path) -> None:
    table = write(tmp_path, labels=("0", "1", "2"))
    table.with_suffix(".yaml").write_text("classes: [2, 0, 1]", encoding="utf-8")
    assert evaluate_table(table, tmp_path / "m.json").labels == ("2", "0", "1")
    table.with_suffix(".yaml").write_text("classes: [2, 0, 3]", encoding="utf-8")
    with pytest.raises(PredictionsError, match="'1' has no place in the order 2, 0, 3"):
        evaluate_table(table, tmp_path / "m.json")


def test_a_quantity_without_a_unit_is_not_called_months(tmp_path: Path) -> None:
    table = write(tmp_path)
    with pytest.raises(PredictionsError, match="a regression of 'x' without a unit"):
        evaluate_table(table, tmp_path / "m.json", TableOptions(kind="regression"))
    with pytest.raises(PredictionsError, match="a regression of '' without a unit"):
        mt.evaluate([1.0, 2.0], [1.5, 2.5], kind="regression")
    found = evaluate_table(table, tmp_path / "m.json", TableOptions(kind="regression", unit="ml"))
    assert found.measure("mae_ml", label="x").value is not None
    months = mt.evaluate([40.0, 90.0], [50.0, 80.0], kind="regression", labels=["bone_age_months"])
    assert months.measure("mae_months", label="bone_age_months").value == pytest.approx(10)


def test_a_threshold_for_every_label_and_a_rule_are_one_too_many(tmp_path: Path) -> None:
    table, rule = write(tmp_path, labels=("x", "y")), {"sensitivity": 0.9}
    with pytest.raises(PredictionsError, match=r"a threshold of 0\.5 for every label, and a rule"):
        evaluate_table(table, tmp_path / "m.json", TableOptions(threshold=0.5, rule=rule))
    some = TableOptions(threshold={"x": 0.5}, rule=rule)
    points = evaluate_table(table, tmp_path / "m.json", some).operating_points
    assert {point.label: point.chosen_on for point in points} == {"x": "given", "y": "val"}
