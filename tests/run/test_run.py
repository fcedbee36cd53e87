"""The whole chain on a tiny study: files, privacy, resumption, golden numbers, prediction."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import write_tiny_study
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import LeakError, PredictionsError, RunError, WeightsError
from medtl.evaluation.result import plain as plain_json
from medtl.evaluation.statements.recalibrated import Recalibrated
from medtl.metrics.temperature import Recalibration
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.use.mending import (
    add_probabilities,
    judged_score,
    keep_recalibrations,
    kept_recalibrations,
    own_probabilities,
)
from medtl.training.checkpoint import load_checkpoint, save_checkpoint
from medtl.types import Measure

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_run.json"
"""Losses and scores of the tiny run, to 4 digits; MEDTL_WRITE_GOLDEN=1 rewrites it."""

FILES = {
    "recipe.yaml",
    "environment.json",
    "manifest.csv",
    "history.csv",
    "layers.json",
    "predictions.csv",
    "metrics.json",
    "data_quality.json",
    "cohort.json",
    "report.html",
    "model_card.md",
    "model_card.json",
    "reporting_checklist.csv",
    "reporting_checklist.docx",
    "log.txt",
    ".lock",
    "checksums.json",
    "checkpoints/best.safetensors",
    "checkpoints/last.safetensors",
    "gallery/gallery.json",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(recipe path, finished run folder)."""
    folder = tmp_path_factory.mktemp("study")
    recipe = write_tiny_study(folder / "data")
    run_study(read_recipe(recipe), folder / "run")
    return recipe, folder / "run"


def test_a_run_folder_is_complete_and_sealed(study):
    _, run = study
    found = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert found >= FILES
    assert {Path(name).parts[0] for name in found} <= {Path(n).parts[0] for n in FILES}
    sums = json.loads((run / "checksums.json").read_text())
    assert set(sums) == found - {"checksums.json", "log.txt", ".lock"}


def test_the_doctor_reads_the_log_of_a_run(study):
    _, run = study
    layers = json.loads((run / "layers.json").read_text())
    moved = {row["name"]: row["change"] for row in layers["groups"] if row["trained"]}
    assert all(0 < change < 10 for change in moved.values())
    assert len(moved) == len(layers["groups"])
    said = CliRunner().invoke(app, ["doctor", str(run)])
    assert said.exit_code == 0
    assert said.output.startswith("short: Too few epochs")
    network = json.loads((run / "environment.json").read_text())["network"]
    assert network.endswith("GFLOP an image, each place sees 167 px")  # PNG: no millimetres
    assert "Change of the weights by layer" in (run / "report.html").read_text()
    assert [sign.key for sign in Run(run).diagnose()] == ["short"]


def test_golden_numbers(study):
    _, run = study
    history = pd.read_csv(run / "history.csv")
    predictions = pd.read_csv(run / "predictions.csv")
    measures = json.loads((run / "metrics.json").read_text())["measures"]
    auroc = [m["value"] for m in measures if m["name"] == "auroc" and m["subset"] == "all"]
    got = {
        "train_loss": [round(x, 4) for x in history["train_loss"]],
        "val_loss": [round(x, 4) for x in history["val_loss"]],
        "lowest_scores": [round(x, 4) for x in sorted(predictions["y_score"])[:4]],
        "auroc": [None if x is None else round(x, 4) for x in auroc],
    }
    if os.environ.get("MEDTL_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(got, indent=1) + "\n")
    expected = json.loads(GOLDEN.read_text())
    for name, values in expected.items():
        assert got[name] == pytest.approx(values, abs=2e-3), name


def test_nothing_in_a_run_folder_names_a_patient_or_a_place(study):
    recipe, run = study
    secrets = [b"Kim-", str(recipe.parent).encode()]
    for path in run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in secrets:
                assert secret not in content, path.name


def test_the_threshold_comes_from_validation(study):
    _, run = study
    point = json.loads((run / "metrics.json").read_text())["operating_points"][0]
    assert point["chosen_on"] == "val"
    predictions = pd.read_csv(run / "predictions.csv")
    val = predictions[predictions["split"] == "val"]
    assert point["threshold"] in val["y_score"].tolist()
    positives = val[val["y_true"] == 1]
    assert (positives["y_score"] >= point["threshold"]).mean() >= 0.8


def test_a_second_run_of_the_same_recipe_has_the_same_bits(study, tmp_path):
    recipe, run = study
    run_study(read_recipe(recipe), tmp_path / "again")
    for name in ("predictions.csv", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes(), name
    first, again = (
        load_checkpoint(folder / "checkpoints" / "best.safetensors")[0]
        for folder in (run, tmp_path / "again")
    )
    assert all(first[name].equal(again[name]) for name in first)


def test_a_copied_run_folder_predicts_the_same_file(study, tmp_path):
    recipe, run = study
    copy = Path(shutil.copytree(run, tmp_path / "elsewhere"))
    out = tmp_path / "predictions.csv"
    Run(copy).predict(recipe.parent / "manifest.csv", out)
    assert out.read_bytes() == (run / "predictions.csv").read_bytes()


def test_the_same_file_also_under_another_salt(study, tmp_path, monkeypatch):
    """Another machine has other pseudonyms; rows are matched by position."""
    recipe, run = study
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other-machine"))
    out = tmp_path / "predictions.csv"
    Run(run).predict(recipe.parent / "manifest.csv", out)
    assert out.read_bytes() == (run / "predictions.csv").read_bytes()


def test_new_images_are_predicted_flagged_and_quarantined(study, tmp_path):
    recipe, run = study
    folder = tmp_path / "new"
    shutil.copytree(recipe.parent / "images", folder / "a")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    out = tmp_path / "new.csv"
    done = Run(run).predict(folder, out)
    assert (done.images, len(done.quarantined)) == (60, 1)
    table = pd.read_csv(out)
    assert table["y_true"].isna().all()
    assert set(table["decision"]) == {0, 1}
    assert "a/000_0.png" in set(table["file"])
    quality = json.loads(done.quality.read_text())
    assert "PNG" in quality["quarantined"][0]["cause"] or quality["quarantined"][0]["cause"]


def test_an_image_unlike_training_is_said(study, tmp_path):
    import numpy as np
    from PIL import Image

    _, run = study
    stripe = np.zeros((40, 40), dtype=np.uint8)
    stripe[:, :2] = 255
    Image.fromarray(stripe).save(tmp_path / "odd.png")
    Run(run).predict(tmp_path / "odd.png", tmp_path / "odd.csv")
    said = pd.read_csv(tmp_path / "odd.csv")["unlike_training"].iloc[0]
    assert "intensity outside the training range" in said


def test_a_run_is_validated_on_images_of_another_place(study, tmp_path):
    recipe, run = study
    write_tiny_study(tmp_path / "there", patients=34)
    lines = (tmp_path / "there" / "manifest.csv").read_text().splitlines()
    other = [lines[0], *(line for line in lines[1:] if "Kim-3" in line or "Kim-2" in line)]
    manifest = tmp_path / "there" / "other.csv"
    manifest.write_text("\n".join(other).replace("Kim-", "Lee-") + "\n")
    with pytest.raises(PredictionsError, match="patients of run are among these") as error:
        Run(run).validate(manifest, tmp_path / "seen")  # new names, but the pixels are known
    kept = tmp_path / "seen" / "predictions.csv"
    assert f"medtl evaluate {kept} --from {run} --without-known-patients" in str(error.value)
    assert kept.is_file()
    found = Run(run).validate(manifest, tmp_path / "out", without_known=True)
    predicted = tmp_path / "out" / "predictions.csv"
    again = Run(run).validate(predicted, tmp_path / "again", without_known=True)
    assert again.external == found.external
    assert found.external is not None
    assert found.operating_points == Run(run).evaluation.operating_points
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert set(rows["split"]) == {"test"}
    assert (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(RunError, match="exists and is not empty"):
        Run(run).validate(manifest, tmp_path / "out")
    with pytest.raises(RunError, match="the manifest that the run was made of"):
        Run(run).validate(recipe.with_name("manifest.csv"), tmp_path / "own")
    bare = [line.split(",") for line in other]
    manifest.write_text("\n".join(",".join(cells[:2]) for cells in bare) + "\n")
    with pytest.raises(RunError, match="no image has a truth of bright"):
        Run(run).validate(manifest, tmp_path / "bare")


def test_predict_says_what_is_missing(study, tmp_path):
    _, run = study
    with pytest.raises(RunError, match=r"no best\.safetensors"):
        Run(tmp_path).predict(tmp_path, tmp_path / "x.csv")
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(RunError, match="no image could be read"):
        Run(run).predict(tmp_path / "x.png", tmp_path / "x.csv")


def test_an_existing_folder_is_refused(study, tmp_path):
    recipe, run = study
    with pytest.raises(RunError, match="exists and is not empty"):
        Run.start(read_recipe(recipe), run, resume=False)
    other = read_recipe(recipe, ["run.seed=9"])
    with pytest.raises(RunError, match="another recipe"):
        Run.start(other, run, resume=True)


def test_resuming_a_finished_run_changes_no_number(study, tmp_path):
    recipe, run = study
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    run_study(read_recipe(recipe), copy, resume=True)
    for name in ("predictions.csv", "metrics.json", "history.csv"):
        assert (copy / name).read_bytes() == (run / name).read_bytes(), name


def test_identical_pixels_in_two_splits_stop_the_run(tmp_path):
    recipe = write_tiny_study(tmp_path / "data", patients=12)
    images = tmp_path / "data" / "images"
    for patient in range(1, 12):
        shutil.copy(images / "000_0.png", images / f"{patient:03d}_0.png")
    with pytest.raises(LeakError, match="identical pixels") as error:
        run_study(read_recipe(recipe), tmp_path / "run")
    assert "Kim" not in str(error.value)


def test_too_many_unreadable_images_stop_the_run_and_are_listed(tmp_path):
    recipe = write_tiny_study(tmp_path / "data", patients=12)
    for path in sorted((tmp_path / "data" / "images").iterdir())[:4]:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="4 of 24 images could not be used"):
        run_study(read_recipe(recipe), tmp_path / "run")
    quality = json.loads((tmp_path / "run" / "data_quality.json").read_text())
    assert len(quality["quarantined"]) == 4


@pytest.mark.slow
def test_a_run_stopped_by_ctrl_c_resumes_to_the_same_predictions(study, tmp_path):
    """Other signals: tests/faults/test_processes.py."""
    recipe, run = study
    out = tmp_path / "run"
    medtl = Path(sys.executable).with_name("medtl")
    command = ["env", "--default-signal=INT", str(medtl), "run", str(recipe), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.safetensors").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    message = process.communicate()[1]
    assert process.returncode == 130, message
    assert "--resume" in message
    assert "Traceback" not in message
    resumed = subprocess.run([*command, "--resume"], check=False, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert (out / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


def test_weights_of_an_earlier_run_load_and_bring_their_input_along(study, tmp_path):
    recipe, run = study
    best = run / "checkpoints" / "best.safetensors"
    weights = [f"model.weights={{source: file, path: {best}}}", "finetune.stages.1.epochs=1"]
    run_study(read_recipe(recipe, weights), tmp_path / "second")
    assert "loaded" in (tmp_path / "second" / "log.txt").read_text()
    stored = (tmp_path / "second" / "recipe.yaml").read_text()
    assert "path: best.safetensors" in stored
    with pytest.raises(WeightsError, match="standardisation is z_score, the weights need weights"):
        run_study(read_recipe(recipe, [*weights, "image.standardise=z_score"]), tmp_path / "third")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["image.standardise=pixel_mean", "image.clahe={}"],
        ["image.standardise=local_contrast", "finetune.optimizer=sgd"],
        ["image.standardise=z_score", "task.loss=focal", "finetune.ema_decay=0.9"],
        ["task.class_weight=balanced", "task.label_smoothing=0.1", "augment.policy=none"],
        ["finetune.accumulate=2", "finetune.penalty={strength: 1e-4, l1_ratio: 0.5}"],
        [
            *("finetune.stages.1.batch_norm=adapt", "finetune.stages.1.schedule=plateau"),
            "finetune.batch_size=32",
        ],
        ["finetune.stages.1.batch_norm=frozen_stats", "finetune.stages.1.schedule=step"],
        ["run.workers=2", "model.backbone=test_efficientnet"],
    ],
    ids=" ".join,
)
def test_every_option_of_a_recipe_runs_and_predicts_again(study, tmp_path, overrides):
    recipe, _ = study
    run_study(read_recipe(recipe, overrides), tmp_path / "run")
    out = tmp_path / "again.csv"
    Run(tmp_path / "run").predict(recipe.parent / "manifest.csv", out)
    assert out.read_bytes() == (tmp_path / "run" / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    "change",
    [lambda lines: lines[:-4], lambda lines: [*lines[:-1], lines[-1].replace(",F", ",M")]],
    ids=["fewer rows", "another cell"],
)
def test_a_manifest_that_changed_since_is_not_resumed(study, tmp_path, change):
    """The split would be drawn again, and cases of training could become cases of the test."""
    recipe, run = study
    data = Path(shutil.copytree(recipe.parent, tmp_path / "data"))
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    lines = (data / "manifest.csv").read_text().splitlines()
    (data / "manifest.csv").write_text("\n".join(change(lines)) + "\n")
    before = (copy / "cohort.json").read_bytes()
    with pytest.raises(RunError, match="manifest or its split has changed"):
        run_study(read_recipe(data / "recipe.yaml"), copy, resume=True)
    assert (copy / "cohort.json").read_bytes() == before


def test_a_fault_before_the_images_are_read_leaves_no_folder_behind(study, tmp_path):
    recipe, _ = study
    data = Path(shutil.copytree(recipe.parent, tmp_path / "data"))
    images = data / "images"
    for patient in range(1, 30):
        shutil.copy(images / "000_0.png", images / f"{patient:03d}_0.png")
    with pytest.raises(LeakError):
        run_study(read_recipe(data / "recipe.yaml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_processes_never_work_in_one_folder(study, tmp_path):
    recipe, run = study
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    with Run(copy).locked(), pytest.raises(RunError, match="another process works"):
        run_study(read_recipe(recipe), copy, resume=True)
    run_study(read_recipe(recipe), copy, resume=True)  # the lock has gone with its owner


def test_a_file_is_no_run_folder(study, tmp_path):
    recipe, _ = study
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="this is a file"):
        Run.start(read_recipe(recipe), tmp_path / "file", resume=False)


def test_predict_looks_at_its_destination_first(study, tmp_path):
    recipe, run = study
    images = recipe.parent / "images" / "000_0.png"
    with pytest.raises(RunError, match=r"ending '\.txt' is unknown"):
        Run(run).predict(images, tmp_path / "x.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        Run(run).predict(images, tmp_path / "file" / "x.csv")
    Run(run).predict(images, tmp_path / "new" / "folder" / "x.csv")
    assert (tmp_path / "new" / "folder" / "x.csv").is_file()


def test_slices_are_told_apart(study, tmp_path):
    import nibabel
    import numpy as np

    _, run = study
    volume = np.random.default_rng(0).integers(0, 150, (40, 40, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii.gz")
    rows = [f"v.nii.gz,p,{k}" for k in range(3)]
    (tmp_path / "new.csv").write_text("\n".join(["image,patient_id,frame", *rows]) + "\n")
    Run(run).predict(tmp_path / "new.csv", tmp_path / "out.csv")
    assert sorted(pd.read_csv(tmp_path / "out.csv")["frame"]) == [0, 1, 2]


def test_an_earlier_run_keeps_its_threshold(study, tmp_path):
    """Its recipe states no assurance, which is the rule that it was frozen by."""
    _, run = study
    copy = Run(shutil.copytree(run, tmp_path / "earlier"))
    text = copy.files.recipe.read_text("utf-8")
    assert "assurance: 0.9" in text
    copy.files.recipe.write_text(text.replace("    assurance: 0.9\n", ""), "utf-8")
    (point,) = copy.evaluate().operating_points
    val = copy.predictions.query("split == 'val' and y_true == 1")["y_score"].to_numpy()
    highest = max(score for score in val if (val >= score).mean() >= 0.8)
    assert (point.threshold, point.assurance, point.reason) == (highest, None, "")
    assert point.source == "run"


@pytest.mark.parametrize("earlier", [False, True])
def test_new_images_get_the_mended_probability_beside_the_score(study, tmp_path, earlier):
    recipe, run = study
    images = recipe.parent / "images"
    plain = Run(run).predict(images).frame
    assert "probability" not in plain
    copy = Run(shutil.copytree(run, tmp_path / "mended"))
    fit = Recalibration("platt", 0.5, -0.2, "val", 6, 0.1)
    why = Measure("calibration_slope", 0.5, label="bright", split="val", low=0.4, high=0.6, n=6)
    if earlier:  # it said so in metrics.json alone
        tensors, meta = load_checkpoint(copy.checkpoint)
        assert meta.pop("recalibrations") == []  # of this run: nothing was called for
        save_checkpoint(copy.checkpoint, tensors, meta)
        done = [plain_json(Recalibrated("bright", fit, why))]
        copy.files.metrics.write_text(json.dumps({**copy.metrics, "recalibrations": done}), "utf-8")
    else:
        keep_recalibrations(copy.checkpoint, [Recalibrated("bright", fit, why)])
        assert copy.evaluate().recalibrations == (Recalibrated("bright", fit, why),)
    found = copy.predict(images, tmp_path / "new.csv").frame
    assert found["y_score"].tolist() == plain["y_score"].tolist()
    assert found["decision"].tolist() == plain["decision"].tolist()
    assert found["probability"].tolist() == fit(plain["y_score"]).tolist()
    assert (found["probability"] >= found["probability_threshold"]).tolist() == (
        found["decision"] == 1
    ).tolist()
    assert "probability" in pd.read_csv(tmp_path / "new.csv")
    out = tmp_path / "own.csv"
    copy.predict(recipe.parent / "manifest.csv", out)
    assert out.read_bytes() == copy.files.predictions.read_bytes()


def test_what_mends_is_in_the_checkpoint_and_nowhere_else_is_asked(study, tmp_path):
    _, run = study
    copy = Run(shutil.copytree(run, tmp_path / "kept"))
    before = copy.checkpoint.read_bytes()
    assert kept_recalibrations(copy.checkpoint) == copy.recalibrations == ()
    keep_recalibrations(copy.checkpoint, ())
    assert copy.checkpoint.read_bytes() == before  # written only where it says something else
    metrics = {**copy.metrics, "recalibrations": [{"label": "nonsense"}]}
    copy.files.metrics.write_text(json.dumps(metrics), "utf-8")
    assert copy.recalibrations == ()
    copy.checkpoint.write_bytes(before[:5])
    assert kept_recalibrations(copy.checkpoint) is None


def test_an_exam_has_one_decision_and_one_probability():
    rows = {"case_id": ["a", "b", "c"], "patient_id": ["p", "p", "q"], "split": "test",
            "label": "x", "exam_id": ["e", "e", ""], "y_score": [0.2, 0.8, 0.3]}  # fmt: skip
    table = pd.DataFrame(rows)
    assert judged_score(table, None) == "y_score"
    assert judged_score(table, "mean") == "exam_score"
    assert table["exam_score"].tolist() == [0.5, 0.5, 0.3]
    alone = table.drop(columns=["exam_id", "exam_score"])
    judged_score(alone, "max")
    assert alone["exam_score"].tolist() == [0.2, 0.8, 0.3]
    fit = Recalibration("temperature", 0.5, 0.0, "val", 9, 0.1)
    add_probabilities(table, [Recalibrated("x", fit, Measure("calibration_slope", 0.5))],
                      "exam_score")  # fmt: skip
    assert table["probability"].tolist() == fit(table["exam_score"]).tolist()
    done = [Recalibrated("x", fit, Measure("calibration_slope", 0.5))]
    assert own_probabilities(pd.DataFrame(rows), done, None)["b", "x"] == fit([0.8])[0]
    assert own_probabilities(pd.DataFrame(rows), (), None) == {}
