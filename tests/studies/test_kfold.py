"""Cross-validation on a tiny study, and the arithmetic of folds."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tiny_study import RECIPE, write_tiny_study

from medtl.errors import RunError
from medtl.recipe.schema import Data
from medtl.run.check import read_recipe
from medtl.studies import kfold
from medtl.studies.baseline import logistic_scores
from medtl.studies.compare import compare_studies
from medtl.studies.compare import to_markdown as comparison_page
from medtl.studies.kfold import (
    FINE_TUNED,
    FROZEN,
    MEDIAN,
    ensemble_kfold,
    run_kfold,
    to_markdown,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kfold")
    recipe = write_tiny_study(folder / "data", recipe=RECIPE.replace("epochs: 2", "epochs: 1"))
    results = run_kfold(read_recipe(recipe), folder / "out", folds=2)
    return recipe, folder / "out", results


def test_every_image_is_tested_once_by_each_model(study):
    _, out, _ = study
    table = pd.read_csv(out / "predictions.csv")
    for _, rows in table.groupby("model"):
        assert len(rows) == 60
        assert rows["case_id"].is_unique
    assert set(table["model"]) == {FINE_TUNED, FROZEN}
    assert table.groupby("patient_id")["fold"].nunique().max() == 1


@pytest.mark.slow
def test_folds_that_are_jobs_of_their_own_are_the_same_study(study, tmp_path):
    path, whole, results = study
    recipe = read_recipe(path)
    for number in (1, 0):
        kfold.run_one_fold(recipe, tmp_path / "out", number, folds=2, apart=False)
    assert run_kfold(recipe, tmp_path / "out", folds=2, resume=True) == results
    assert (tmp_path / "out/study.json").read_bytes() == (whole / "study.json").read_bytes()


def test_a_fold_that_is_not_there_is_refused(study, tmp_path):
    with pytest.raises(RunError, match="there is no fold 2; expected 0 to 1"):
        kfold.run_one_fold(read_recipe(study[0]), tmp_path / "out", 2, folds=2, apart=False)


def test_the_figures_are_means_of_folds(study):
    _, out, results = study
    table = pd.read_csv(out / "predictions.csv")
    overall = results[0]
    assert overall.subset == "all"
    for model, measure in zip((FINE_TUNED, FROZEN), overall.measures, strict=False):
        rows = table[table["model"] == model]
        by_fold = [roc_auc_score(r["y_true"], r["y_score"]) for _, r in rows.groupby("fold")]
        assert measure.value == pytest.approx(np.mean(by_fold))
    difference = overall.measures[2]
    assert difference.value == pytest.approx(
        overall.measures[0].value - overall.measures[1].value, abs=1e-12
    )
    listed = json.loads((out / "study.json").read_text())["results"]
    assert {entry["subset"] for entry in listed} == {"all", "site=north", "site=south"}
    assert to_markdown(results, 2) == (out / "study.md").read_text()


def test_two_cross_validations_are_compared_patient_by_patient(study, tmp_path):
    """The second one's scores are the first's turned round, so that its AUROC is one less them."""
    _, out, results = study
    shutil.copytree(out, tmp_path / "turned")
    table = pd.read_csv(out / "predictions.csv")
    table.assign(y_score=1 - table["y_score"]).to_csv(tmp_path / "turned/predictions.csv")
    found = compare_studies(str(out), str(tmp_path / "turned"))
    assert [r.subset for r in found.patients] == [r.subset for r in results]
    for before, now in zip(results, found.patients, strict=True):
        own, other, difference = now.measures
        assert (own.value, own.low, own.high) == (
            before.measures[0].value, before.measures[0].low, before.measures[0].high
        )  # fmt: skip
        assert other.value == pytest.approx(1 - own.value)
        assert difference.value == pytest.approx(2 * own.value - 1)
        assert difference.name == "auroc_difference"
    page = comparison_page(found)
    assert "| label | subset | images | patients | first | second | first - second |" in page
    assert "bootstrap of patients within folds" in page
    assert found.to_json()["patients"][0]["subset"] == "all"
    itself = compare_studies(str(out), str(out)).patients[0].measures[2]
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)


def test_a_finished_study_resumes_to_the_same_result(study):
    recipe, out, _ = study
    before = (out / "study.json").read_bytes()
    run_kfold(read_recipe(recipe), out, folds=2, resume=True)
    assert (out / "study.json").read_bytes() == before
    with pytest.raises(RunError, match="not empty"):
        run_kfold(read_recipe(recipe), out, folds=2)


def test_folds_of_another_split_are_not_mixed(study):
    recipe, out, _ = study
    with pytest.raises(RunError, match="split has changed"):
        run_kfold(read_recipe(recipe), out, folds=3, resume=True)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    recipe = write_tiny_study(folder / "data", recipe=RECIPE.replace("epochs: 2", "epochs: 1"))
    return recipe, folder / "out", ensemble_kfold(read_recipe(recipe), folder / "out", folds=3)


def test_folds_that_share_their_test_part_make_an_ensemble(averaged):
    _, out, found = averaged
    tables = [pd.read_csv(out / f"fold_{number}" / "predictions.csv") for number in range(3)]
    tested = pd.concat(table[table["split"] == "test"] for table in tables)
    validated = pd.concat(table[table["split"] == "val"] for table in tables)
    patients = {"test": set(tested["patient_id"]), "val": set(validated["patient_id"])}
    assert not patients["test"] & patients["val"]
    assert len(patients["test"] | patients["val"]) == 30
    assert validated["case_id"].is_unique
    mean = pd.read_csv(found.folder / "predictions.csv").set_index("case_id")
    expected = tested.groupby("case_id")["y_score"].mean()
    written = mean.loc[mean["split"] == "test", "y_score"].sort_index()
    pd.testing.assert_series_equal(written, expected, check_names=False)
    assert set(mean.index[mean["split"] == "val"]) == set(validated["case_id"])
    truth = tested.groupby("case_id")["y_true"].first()
    assert found.ensemble["auroc"] == pytest.approx(roc_auc_score(truth, expected))
    assert sorted(found.singles) == ["fold_0", "fold_1", "fold_2"]


def test_a_finished_ensemble_resumes_to_the_same_figures(averaged):
    recipe, out, found = averaged
    assert ensemble_kfold(read_recipe(recipe), out, folds=3, resume=True) == found


def test_the_baseline_learns_from_training_rows_only():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 5)).astype(np.float32)
    truth = (features[:, 0] > 0).astype(np.float32)
    groups = [f"p{i // 2}" for i in range(120)]
    train = np.arange(120) < 80
    scores = logistic_scores(features, truth, groups, train=train, seed=0)
    flipped = np.where(train, truth, 1 - truth)
    again = logistic_scores(features, flipped, groups, train=train, seed=0)
    assert np.array_equal(scores, again)
    assert roc_auc_score(truth[~train], scores[~train]) > 0.95


def test_the_baseline_needs_two_classes():
    with pytest.raises(RunError, match="one class only"):
        logistic_scores(
            np.zeros((8, 2), np.float32),
            np.zeros(8, np.float32),
            ["a"] * 8,
            train=np.ones(8, bool),
            seed=0,
        )


def write_ages(folder):
    """The tiny study with ages: 40 months more for bright squares, and 60 for boys."""
    recipe = write_tiny_study(
        folder,
        recipe=RECIPE.replace("target: bright", "target: months, sex: sex")
        .replace("modality: cxr", "modality: hand")
        .replace("sensitivity: 0.8", "youden: true")
        .replace(", prevalence: 0.1", "")
        .replace("epochs: 2", "epochs: 1")
        + "task: {kind: bone_age}\n",
    )
    table = pd.read_csv(folder / "manifest.csv")
    table["sex"] = np.where(table["patient_id"].str[-1].isin(list("01458")), "F", "M")
    table["months"] = 60 + 40 * table["bright"] + 60 * (table["sex"] == "M")
    table.to_csv(folder / "manifest.csv", index=False)
    return recipe


def test_bone_ages_are_compared_by_their_mean_error(tmp_path):
    recipe = read_recipe(write_ages(tmp_path / "data"))
    overall = run_kfold(recipe, tmp_path / "out", folds=2)[0]
    assert overall.models == (FINE_TUNED, FROZEN, MEDIAN)
    assert overall.measures[0].name == "mae_months_mean_of_folds"
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    errors = [
        (rows["y_score"] - rows["y_true"]).abs().groupby(rows["fold"]).mean().mean()
        for rows in (table[table["model"] == name] for name in overall.models)
    ]
    assert [m.value for m in overall.measures[:3]] == pytest.approx(errors)
    differences = [errors[0] - errors[1], errors[0] - errors[2]]
    assert [m.value for m in overall.measures[3:]] == pytest.approx(differences)
    median = table[table["model"] == MEDIAN]
    for fold, rows in median.groupby("fold"):
        others = median.loc[median["fold"] != fold, "y_true"]
        assert set(rows["y_score"]) == {others.median()}
    header = (tmp_path / "out" / "study.md").read_text().splitlines()[2]
    assert header.endswith("| fine tuned - frozen features | fine tuned - median |")
    assert errors[1] < 15  # without the sex, no model of the image can be nearer than 30
    found = ensemble_kfold(recipe, tmp_path / "ensemble", folds=2)
    singles = [row["mae_months"] for row in found.singles.values()]
    # The error of a mean is never above the mean of errors.
    assert 0 < found.ensemble["mae_months"] <= np.mean(singles) + 1e-9


def test_errors_are_named_in_the_unit_of_the_task():
    contest = kfold.contest_of(None, SimpleNamespace(watched="mae_percent"))
    cases = [(f"c{n}", f"p{n}", n % 2, name, 50.0 + n, 49.0) for n in range(8)
             for name in (FINE_TUNED, MEDIAN)]  # fmt: skip
    columns = ["case_id", "patient_id", "fold", "model", "y_true", "y_score"]
    table = pd.DataFrame(cases, columns=columns).assign(label="lvef")
    found = kfold._measure(table, contest, "lvef", "all")
    names = ["mae_percent_mean_of_folds"] * 2 + ["mae_percent_difference"]
    assert [measure.name for measure in found.measures] == names
    assert found.measures[0].value == pytest.approx(4.5)
    assert found.measures[2].value == pytest.approx(0)


def test_masks_are_refused_before_any_work(tmp_path):
    path = write_tiny_study(
        tmp_path / "data",
        recipe=RECIPE.replace("target: bright", "mask: image")
        .replace("sensitivity: 0.8", "youden: true")
        .replace(", prevalence: 0.1", "")
        .replace("backbone: test_resnet", "backbone: test_resnet, decoder: unet")
        + "task: {kind: segmentation, structures: {square: 1}}\n",
    )
    with pytest.raises(RunError, match="how to compare models of segmentation"):
        run_kfold(read_recipe(path), tmp_path / "out", folds=2)
    assert not (tmp_path / "out").exists()


def test_exams_are_judged_where_the_recipe_combines_their_images(tmp_path):
    draw = np.random.default_rng(0)
    exams = pd.DataFrame({"exam_id": [f"e{n}" for n in range(40)], "fold": np.arange(40) % 2})
    exams["patient_id"] = exams["exam_id"].str.replace("e", "p")
    exams["y_true"] = (np.arange(40) // 2 % 2).astype(float)
    images = pd.concat([exams.assign(case_id=exams["exam_id"] + view) for view in ("a", "b")])
    tables = [
        images.assign(
            model=model,
            label="effusion",
            split="test",
            site="north",
            y_score=draw.normal(images["y_true"], 1.0),
        )
        for model in (FINE_TUNED, FROZEN)
    ]
    data = {"manifest": "m.csv", "target": "effusion"}
    by_image = Data(**data)
    by_exam = Data(**data, exam="exam_id", exam_score="mean")
    (whole,) = kfold.summarise(tables, kfold.CONTESTS["auroc"], by_image, tmp_path)
    assert whole.measures[0].n == 80
    (judged,) = kfold.summarise(tables, kfold.CONTESTS["auroc"], by_exam, tmp_path)
    assert judged.measures[0].n == judged.measures[0].n_patients == 40
    means = tables[0].groupby(["exam_id", "fold", "y_true"])["y_score"].mean().reset_index()
    by_fold = [roc_auc_score(r["y_true"], r["y_score"]) for _, r in means.groupby("fold")]
    assert judged.measures[0].value == pytest.approx(np.mean(by_fold))
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 160  # the images are kept
    assert "| exams |" in (tmp_path / "study.md").read_text()
