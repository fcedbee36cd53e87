"""Any quantity with a unit works from the recipe to the report: here an ejection fraction in %."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import ManifestError, RecipeError
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run

RECIPE = """
study: {question: "How much blood does the heart eject?"}
data: {manifest: manifest.csv, target: ef, names: {ef: ejection_fraction}, strata: [site]}
image: {modality: us, size: 32}
model: {backbone: test_resnet, weights: none}
task: {kind: regression, unit: "%", range: [0, 100]}
finetune:
  batch_size: 8
  stages: [{name: full, train: all, epochs: 2, lr: {head: 1e-1, base: 1e-2}}]
run: {tensorboard: false, device: cpu}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """(data folder, finished run)."""
    data = tmp_path_factory.mktemp("hearts") / "data"
    data.mkdir()
    lines = ["image,patient_id,ef,site"]
    for patient in range(60):
        rng = np.random.default_rng(patient)
        fraction = 15 + patient
        pixels = (rng.integers(0, 60, (40, 40)) + 2 * fraction).astype(np.uint8)
        Image.fromarray(pixels).save(data / f"{patient}.png")
        lines.append(f"{patient}.png,P{patient},{fraction},{'AB'[patient % 2]}")
    (data / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (data / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return data, run_study(read_recipe(data / "recipe.yaml"), data.parent / "run")


def test_the_table_is_named_by_the_target(study):
    _, run = study
    table = pd.read_csv(run.files.predictions)
    assert set(table["label"]) == {"ejection_fraction"}
    assert table["y_true"].between(15, 75).all()
    assert set(table["outside_training_range"]) <= {"yes", "no"}


def test_the_measures_are_named_with_the_unit(study):
    _, run = study
    found = json.loads(run.files.metrics.read_text("utf-8"))
    assert (found["kind"], found["unit"]) == ("regression", "%")
    names = {measure["name"] for measure in found["measures"]}
    assert {"mae_percent", "bias_percent", "loa_low_percent", "loa_high_percent"} <= names
    assert not any("months" in name for name in names)
    rows = pd.read_csv(run.files.predictions)
    test = rows[rows["split"] == "test"]
    mae = next(m for m in found["measures"] if (m["name"], m["subset"]) == ("mae_percent", "all"))
    assert mae["value"] == pytest.approx((test["y_score"] - test["y_true"]).abs().mean())
    assert {m["subset"] for m in found["measures"]} == {"all", "site=A", "site=B"}
    assert run.trained.task.watched == "mae_percent"


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_report_speaks_of_the_quantity_in_its_unit(study, tmp_path, language):
    _, run = study
    page = run.report(tmp_path / "report.html", language=language).read_text("utf-8")
    page = re.sub("<(pre|script|style).*?</\\1>", "", page, flags=re.DOTALL)  # the recipe is shown
    assert "ejection fraction" in page
    mae = next(m for m in run.metrics["measures"] if m["name"] == "mae_percent")
    assert f"{mae['value']:.1f}" in page
    assert "%" in page
    for word in ("months", "bone age", "too old", "too young", "개월", "골연령", "나이"):
        assert word not in page, word


def test_a_table_from_elsewhere_is_evaluated_by_kind_and_unit(study, tmp_path):
    _, run = study
    table = tmp_path / "hearts.csv"
    table.write_bytes(run.files.predictions.read_bytes())
    for command in ("evaluate", "report"):
        shown = CliRunner().invoke(
            app, [command, str(table), "--kind", "regression", "--unit", "%"]
        )
        assert shown.exit_code == 0, shown.output
    own = run.metrics["measures"]
    strata = {m["subset"] for m in own}
    for file in (tmp_path / "hearts.metrics.json", tmp_path / "hearts-report" / "metrics.json"):
        found = json.loads(file.read_text("utf-8"))
        assert [m for m in found["measures"] if m["subset"] in strata] == own
    shown = CliRunner().invoke(app, ["evaluate", str(table), "--unit", "%"])
    assert "ejection_fraction mae_percent: " in shown.output


def test_new_images_and_cross_validation_know_the_unit(study, tmp_path):
    from medtl.studies.kfold import CONTESTS, contest_of

    data, run = study
    done = run.predict(data / "7.png")
    assert done.frame["label"].tolist() == ["ejection_fraction"]
    assert 0 < done.frame["y_score"].item() < 100
    contest = contest_of(run.recipe, run.trained.task)
    expected = CONTESTS["mae"]
    assert (contest.linear, contest.blind) == (expected.linear, expected.blind)
    measures = contest.measure([1.0, 2.0, 4.0], [[1.0, 2.0, 3.0]], [0, 0, 1])
    assert measures[0].name == "mae_percent_mean_of_folds"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("task.unit=null", "state the unit of the target"),
        ("task.range=[100, 0]", "smallest, largest"),
        ("task.class_months=6", "class_months means nothing to kind regression"),
        ("data.target=[ef, site]", "regression has one target column; data.target names 2"),
    ],
)
def test_what_a_recipe_must_say(study, change, message):
    data, _ = study
    with pytest.raises(RecipeError, match=message):
        read_recipe(data / "recipe.yaml", [change])


def test_a_value_outside_of_the_range_is_named(study, tmp_path):
    data, _ = study
    recipe = read_recipe(data / "recipe.yaml", ["task.range=[0, 50]"])
    with pytest.raises(ManifestError, match="not a number in %; expected a number from 0 to 50"):
        run_study(recipe, tmp_path / "run")
