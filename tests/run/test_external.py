"""A run's model on other patients: frozen thresholds, source beside target, mistakes of a user."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medtl.cases.columns import Columns
from medtl.cases.pseudonyms import load_salt, pseudonym
from medtl.errors import PredictionsError, RunError
from medtl.evaluation.result import Evaluation, plain
from medtl.evaluation.statements.recalibrated import Recalibrated
from medtl.metrics.ranking import auroc
from medtl.metrics.temperature import Recalibration
from medtl.run.clinical.external_tables import summarise_external
from medtl.run.evaluate import TableOptions, report_table
from medtl.run.folder import Run
from medtl.run.predict import _without_column
from medtl.run.use.cases_to_predict import find_cases
from medtl.tasks.findings import Findings
from medtl.types import Measure


def made_up(
    n: int, *, seed: int, slope: float = 1.0, shift: float = 0.0, label: str = "nodule"
) -> pd.DataFrame:
    """Predictions whose right recalibration is shift + slope logit p."""
    random = np.random.default_rng([seed, len(label)])
    linear = random.normal(0, 2, n)
    truth = random.random(n) < 1 / (1 + np.exp(-shift - slope * linear))
    return pd.DataFrame(
        {
            "case_id": [f"{seed}-{i:04d}" for i in range(n)],
            "patient_id": [f"{seed}-p{i:04d}" for i in range(n)],
            "label": label,
            "y_true": truth.astype(int),
            "y_score": 1 / (1 + np.exp(-linear)),
            "sex": random.choice(["F", "M"], n, p=[0.3, 0.7] if seed else [0.5, 0.5]),
            "age": random.integers(20, 80, n) + 10 * bool(seed),
            "site": random.choice(["north", "south", "west"], n),
        }
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluated model with two labels, and the list of its cases."""
    folder = tmp_path_factory.mktemp("source")
    parts = [
        made_up(300, seed=0, label=label).assign(split=["val"] * 100 + ["test"] * 200)
        for label in ("nodule", "effusion")
    ]
    table = pd.concat(parts)
    table.to_csv(folder / "scores.csv", index=False)
    run = folder / "run"
    report_table(folder / "scores.csv", run)
    table[table["label"] == "nodule"].drop(columns=["label", "y_true", "y_score"]).assign(
        content_sha256=""
    ).to_csv(run / "manifest.csv", index=False)
    (run / "recipe.yaml").write_text(
        "study: {question: is there one?, operating_point: {sensitivity: 0.9}, prevalence: 0.05}\n"
        "data: {strata: []}\n"
    )
    return run


def judged(
    table: pd.DataFrame,
    source: Path,
    folder: Path,
    options: TableOptions | None = None,
    *,
    without_known: bool = False,
) -> Evaluation:
    table.to_csv(folder / "there.csv", index=False)
    return Run(source).validate(
        folder / "there.csv", folder / "out", options, without_known=without_known
    )


@pytest.fixture(scope="module")
def found(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    folder = tmp_path_factory.mktemp("there")
    table = pd.concat([made_up(400, seed=1, slope=0.5, shift=-1.0, label=label)
                       for label in ("nodule", "effusion")])  # fmt: skip
    return judged(table, source, folder), folder / "out"


def test_thresholds_and_prevalence_are_those_of_the_run(
    found: tuple[Evaluation, Path], source: Path
) -> None:
    own = Evaluation.from_json(source / "metrics.json")
    evaluation, out = found
    assert evaluation.operating_points == own.operating_points
    table = pd.read_csv(out.parent / "there.csv").query("label == 'nodule' and y_true == 1")
    (cut,) = (point.threshold for point in own.operating_points if point.label == "nodule")
    share = (table["y_score"] >= cut).mean()
    assert evaluation.measure("sensitivity", label="nodule").value == pytest.approx(share)
    ppv = evaluation.measure("ppv_at_prevalence", label="nodule")
    assert "0.05" in ppv.method


def test_source_stands_beside_target_with_the_interval_of_the_difference(
    found: tuple[Evaluation, Path], source: Path
) -> None:
    own, (evaluation, _) = Evaluation.from_json(source / "metrics.json"), found
    assert evaluation.external is not None
    rows = {(row.label, row.target.name): row for row in evaluation.external.beside}
    for name in ("auroc", "calibration_slope", "calibration_in_the_large", "prevalence"):
        row = rows["nodule", name]
        assert row.source == own.measure(name, label="nodule")
        assert row.difference.value == pytest.approx(row.target.value - row.source.value)
        assert row.difference.low is not None
        assert row.difference.high is not None
        assert row.difference.low < row.difference.value < row.difference.high
    assert rows["nodule", "calibration_slope"].difference.high < 0


def test_what_must_be_updated_is_said(found: tuple[Evaluation, Path]) -> None:
    evaluation, _ = found
    assert evaluation.external is not None
    ladder = {ladder.label: ladder for ladder in evaluation.external.ladders}["nodule"]
    assert ladder.advice is not None
    assert ladder.advice.step == "platt"
    steps = {step.name: step for step in ladder.steps}
    assert list(steps) == ["none", "prior", "intercept", "platt", "platt_and_threshold"]
    assert steps["platt"].slope == pytest.approx(0.5, abs=0.15)


def test_patients_differ_in_age_and_sex_by_their_standardised_differences(
    found: tuple[Evaluation, Path],
) -> None:
    evaluation, _ = found
    assert evaluation.external is not None
    shifted = {(row.column, row.group): row for row in evaluation.external.characteristics}
    assert set(shifted) == {("age", ""), ("sex", "F"), ("sex", "M")}
    assert shifted["age", ""].difference.value == pytest.approx(10 / 17.3, abs=0.2)
    assert shifted["sex", "M"].difference.value == pytest.approx(0.42, abs=0.2)


def test_sites_are_pooled(found: tuple[Evaluation, Path]) -> None:
    evaluation, out = found
    of = {(one.label, one.pooled.name): one for one in evaluation.sites}["nodule", "auroc"]
    assert [site.subset for site in of.sites] == ["site=north", "site=south", "site=west"]
    table = pd.read_csv(out.parent / "there.csv").query("label == 'nodule' and site == 'west'")
    assert of.sites[2].value == auroc(table["y_true"], table["y_score"]).value
    assert of.predict_low is not None
    assert of.pooled.low is not None
    assert of.predict_low <= of.pooled.low


def test_everything_is_in_the_folder_and_opens_again(found: tuple[Evaluation, Path]) -> None:
    evaluation, out = found
    names = {path.name for path in out.iterdir()}
    tables = {f"{n}.csv" for n in ("source_target", "characteristics", "updating", "sites")}
    assert tables | {"external.json", "metrics.json", "report.html"} <= names
    assert Evaluation.from_json(out / "metrics.json") == evaluation
    json.loads((out / "external.json").read_text(), parse_constant=pytest.fail)
    updating = pd.read_csv(out / "updating.csv")
    assert len(updating) == 10
    assert updating["advised"].sum() == 2
    page = (out / "report.html").read_text("utf-8")
    assert "External validation" in page
    assert "Differences between sites" in page
    lines = list(summarise_external(evaluation))
    assert any("in run, here" in line for line in lines)


def test_labels_spelled_otherwise_or_unknown(source: Path, tmp_path: Path) -> None:
    table = made_up(100, seed=2)
    with pytest.raises(PredictionsError, match="knows no label 'Nodule'") as error:
        judged(table.assign(label="Nodule"), source, tmp_path)
    assert "Write nodule for Nodule" in str(error.value)
    with pytest.raises(PredictionsError, match="knows no label 'hernia'"):
        judged(table.assign(label="hernia"), source, tmp_path)
    with pytest.raises(PredictionsError, match="no column label, and the run has 2 labels"):
        judged(table.drop(columns="label"), source, tmp_path)
    both = pd.concat([table, table.assign(label="hernia")])
    evaluation = judged(both, source, tmp_path)
    assert evaluation.external is not None
    assert "the run knows no label 'hernia': left out" in evaluation.external.notes
    assert "the table has no rows of 'effusion'" in evaluation.external.notes
    assert evaluation.labels == ("nodule",)


def test_scores_of_another_scale_are_refused(source: Path, tmp_path: Path) -> None:
    table = made_up(100, seed=2)
    with pytest.raises(PredictionsError, match="scores from") as error:
        judged(table.assign(y_score=table["y_score"] * 100), source, tmp_path)
    assert "Divide percent by 100" in str(error.value)


def test_scores_the_other_way_round_are_the_first_thing_said(source: Path, tmp_path: Path) -> None:
    table = made_up(200, seed=2)
    evaluation = judged(table.assign(y_score=1 - table["y_score"]), source, tmp_path)
    assert "the other way round" in next(summarise_external(evaluation))


def test_patients_of_the_training_set_are_refused_or_left_out(source: Path, tmp_path: Path) -> None:
    table = made_up(120, seed=2)
    known = [f"0-p{i:04d}" for i in (0, 1, 250)]  # two of validation, one of test
    shared = table.assign(patient_id=[*known, *table["patient_id"][3:]])
    with pytest.raises(PredictionsError, match="2 of its val set") as error:
        judged(shared, source, tmp_path)
    assert "--without-known-patients" in str(error.value)
    evaluation = judged(shared, source, tmp_path, without_known=True)
    assert evaluation.external is not None
    notes = " ".join(evaluation.external.notes)
    assert "patients of 'run' were left out: 2 of its val set" in notes
    assert "1 patients are of the test set of 'run'" in notes
    assert evaluation.measure("auroc", label="nodule").n == 118
    mine = table.assign(patient_id=[f"0-p{i % 100:04d}" for i in range(120)])
    with pytest.raises(PredictionsError, match="all patients are of run"):
        judged(mine, source, tmp_path, without_known=True)


def test_patients_are_known_by_their_pseudonyms_and_images_by_their_pixels(
    source: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text((source / "metrics.json").read_text())
    kim = pseudonym("patient", "Kim", load_salt())
    rows = pd.DataFrame({"case_id": ["c-1", "c-2"], "patient_id": [kim, "p-2"]})
    rows = rows.assign(split="train", content_sha256=["aa", "bb"])
    rows.to_csv(run / "manifest.csv", index=False)
    table = made_up(100, seed=2)
    with pytest.raises(PredictionsError, match="1 of its train set"):
        judged(table.assign(patient_id=["Kim", *table["patient_id"][1:]]), run, tmp_path)
    with pytest.raises(PredictionsError, match="1 of its train set"):
        judged(table.assign(content_sha256=["bb"] + ["cc"] * 99), run, tmp_path)


def test_a_run_without_a_list_of_patients_says_that_nothing_was_compared(
    source: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text((source / "metrics.json").read_text())
    evaluation = judged(made_up(100, seed=2), run, tmp_path)
    assert "'run' has no list of its patients" in " ".join(evaluation.notes)


def test_a_run_without_thresholds_is_judged_without_decisions(source: Path, tmp_path: Path) -> None:
    content = json.loads((source / "metrics.json").read_text())
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps({**content, "operating_points": []}))
    evaluation = judged(made_up(100, seed=2), run, tmp_path)
    assert "the run froze no threshold of 'nodule'" in " ".join(evaluation.notes)
    assert not any(m.name == "sensitivity" and m.subset == "all" for m in evaluation.measures)
    (run / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"no metrics\.json"):
        judged(made_up(100, seed=2), run, tmp_path)
    with pytest.raises(RunError, match=r"no metrics\.json"):
        judged(made_up(100, seed=2), tmp_path / "nothing", tmp_path)


def test_one_site_is_said(source: Path, tmp_path: Path) -> None:
    evaluation = judged(made_up(100, seed=2).assign(site="north"), source, tmp_path)
    assert evaluation.sites == ()
    assert "one site" in " ".join(evaluation.notes)


def test_the_tables_own_split_and_several_models(source: Path, tmp_path: Path) -> None:
    table = made_up(200, seed=2)
    with_split = table.assign(split=["val"] * 80 + ["test"] * 120)
    evaluation = judged(with_split, source, tmp_path)
    assert evaluation.measure("auroc", label="nodule").n == 120
    assert "80 rows of the table's own train or val split left out" in evaluation.notes
    with pytest.raises(PredictionsError, match="no test rows"):
        judged(table.assign(split="val"), source, tmp_path)
    two = pd.concat([table.assign(model="ours"), table.assign(model="theirs", y_score=0.5)])
    with pytest.raises(PredictionsError, match="2 models"):
        judged(two, source, tmp_path)
    ours = judged(two, source, tmp_path, TableOptions(model="ours"))
    assert ours.measure("auroc", label="nodule").value > 0.6
    with pytest.raises(PredictionsError, match="no model 'x'"):
        judged(two, source, tmp_path, TableOptions(model="x"))


def test_a_run_that_judges_exams_judges_exams_elsewhere(source: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(source, tmp_path / "run"))
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("strata: []", "exam: exam, exam_score: max"))
    table = made_up(100, seed=2)
    with pytest.raises(PredictionsError, match="the run judges exams"):
        judged(table, run, tmp_path)
    exams = [f"e{i:03d}" for i in range(100)]
    table = table.assign(exam_id=exams)
    lower = table.assign(y_score=0.0, case_id="x" + table["case_id"])
    twice = pd.concat([table, lower])
    evaluation = judged(twice, run, tmp_path)
    alone = auroc(table["y_true"], table["y_score"])
    assert evaluation.measure("auroc", label="nodule").value == pytest.approx(alone.value)
    assert evaluation.measure("auroc", label="nodule").n == 100


def test_a_threshold_beside_a_run_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="stated beside a run"):
        judged(made_up(100, seed=2), source, tmp_path, TableOptions(threshold=0.5))


def test_the_command(source: Path, tmp_path: Path) -> None:
    made_up(150, seed=3).to_csv(tmp_path / "there.csv", index=False)
    medtl = str(Path(sys.executable).with_name("medtl"))
    out = tmp_path / "x" / "there.metrics.json"
    command = [
        medtl,
        "evaluate",
        str(tmp_path / "there.csv"),
        "--from",
        str(source),
        "--out",
        str(out),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "nodule auroc:" in done.stdout
    assert "over 3 sites" in done.stdout
    assert Evaluation.from_json(out) == Evaluation.from_json(out.with_name("metrics.json"))


def test_a_prevalence_stated_for_one_label_leaves_the_others_as_the_run_froze_them(
    source: Path, tmp_path: Path
) -> None:
    table = pd.concat([made_up(120, seed=1, label=label) for label in ("nodule", "effusion")])
    done = judged(table, source, tmp_path, TableOptions(prevalence={"nodule": 0.2}))
    shown = {row["label"]: row["prevalence"] for row in done.per_1000}
    assert shown == {"nodule": 0.2, "effusion": 0.05}
    with pytest.raises(PredictionsError, match="a prevalence is stated for 'nodul'"):
        judged(table, source, tmp_path, TableOptions(prevalence={"nodul": 0.2}))


def test_a_label_without_any_truth_is_left_out_and_named(source: Path, tmp_path: Path) -> None:
    known, silent = (made_up(120, seed=1, label=label) for label in ("nodule", "effusion"))
    done = judged(pd.concat([known, silent.assign(y_true=np.nan)]), source, tmp_path)
    assert done.labels == ("nodule",)
    assert done.external is not None
    assert "no row of 'effusion' has a truth: it is not judged" in done.external.notes
    with pytest.raises(PredictionsError, match="no row has a truth"):
        judged(known.assign(y_true=np.nan), source, tmp_path)


def test_what_mends_the_run_goes_with_it(source: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(source, tmp_path / "mended"))
    fit = Recalibration("platt", 0.5, -1.0, "val", 100, 0.1)
    metrics = json.loads((run / "metrics.json").read_text())
    done = Recalibrated("nodule", fit, Measure("calibration_slope", 0.5, low=0.4, high=0.6))
    metrics["recalibrations"] = [plain(done)]
    (run / "metrics.json").write_text(json.dumps(metrics))
    table = made_up(400, seed=1, slope=0.5, shift=-1.0)
    found = judged(table, run, tmp_path)
    slope = found.measure("calibration_slope_after_recalibration").value
    assert slope == pytest.approx(1, abs=0.2)
    assert found.external is not None
    (ladder,) = found.external.ladders
    assert ladder.advice is not None
    assert ladder.advice.step == "none"  # the scores as they are would ask for an update
    as_delivered = {m.name: m.value for m in ladder.steps[0].measures}
    assert as_delivered["calibration_slope"] == pytest.approx(slope)
    for name in ("sensitivity", "specificity"):
        assert as_delivered[name] == pytest.approx(found.measure(name).value)
    assert any("mends" in note for note in found.external.notes)


def test_a_manifest_that_lacks_the_column_of_one_finding_judges_the_others(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("image,patient_id,nodule\na.png,p,1\nb.png,q,0\n")
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    trained: Any = SimpleNamespace(
        columns=Columns(targets=("nodule", "effusion")),
        task=Findings(labels=("nodule", "effusion")),
        meta={"manifest_sha256": ""},
    )
    found = find_cases(tmp_path / "own.csv", tmp_path / "new.csv", trained)
    assert not found.is_own
    manifest = found.manifest
    assert [dict(case.targets) for case in manifest.cases] == [{"nodule": "1"}, {"nodule": "0"}]
    assert _without_column(trained, manifest.cases[0]) == ["effusion"]
    whole = replace(manifest.cases[0], targets={"nodule": "1", "effusion": "0"})
    assert _without_column(trained, whole) == []
