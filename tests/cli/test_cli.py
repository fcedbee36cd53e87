"""The command line as a newcomer meets it, mistakes included."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_study import RECIPE, write_tiny_study
from typed import fails, medtl

MEDTL = Path(sys.executable).with_name("medtl")


def test_help_is_quick_and_light():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(MEDTL), "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "predict" in done.stdout
    assert after.ru_utime - before.ru_utime < 2.0  # processor time; loose, the figure is 0.25


def test_importing_the_command_line_loads_nothing_heavy():
    code = "import sys, medtl.cli.main; print(len(sys.modules), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules, torch = done.stdout.split()
    assert torch == "False"
    assert int(modules) < 500


def test_version():
    from medtl import __version__

    assert __version__ in medtl("--version")


@pytest.mark.parametrize("arguments", [("-h",), ("run", "-h"), ("study", "kfold", "-h")])
def test_the_short_word_for_help(arguments):
    assert "Usage:" in medtl(*arguments)


def test_version_is_a_command_too():
    from medtl import __version__

    assert medtl("version").strip() == f"medtl {__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "Did you mean 'run'"),
        (["run", "nothing.yaml", "--out", "x"], "nothing.yaml"),
        (["run", "nothing.yaml"], "no such file"),
        (["predict", "nowhere", "x.png", "--out", "y.csv"], "no best.safetensors"),
        (["evaluate", "nothing.csv"], "nothing.csv"),
        (["report", "nowhere"], "metrics.json"),
        (["init", "nowhere", "--out", "x"], "nowhere"),
        (["manifest", "scan", "nowhere"], "no such folder"),
        (["manifest", "check", "nothing.csv"], "nothing.csv"),
        (["manifest", "whois", "p-000000000000"], "has not made"),
        (["study", "kfold", "nothing.yaml", "--out", "x"], "nothing.yaml"),
    ],
)
def test_mistakes_end_in_one_message(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, text = fails(monkeypatch, capsys, *arguments)
    assert status in (1, 2)
    assert message in text
    assert "Traceback" not in text


def test_check_prints_every_fault(monkeypatch, capsys, tmp_path):
    path = write_tiny_study(tmp_path, recipe=RECIPE.replace("size: 32", "sise: 32"))
    status, text = fails(monkeypatch, capsys, "check", path)
    assert status == 1
    assert "image.sise: unknown key. Did you mean 'size'?" in text


def test_check_shows_the_plan_and_the_contact_sheet(tmp_path):
    recipe = write_tiny_study(tmp_path / "data")
    sheet = tmp_path / "sheet.png"
    text = medtl("check", recipe, "--contact-sheet", sheet)
    assert "train:" in text
    assert "30 patients" not in text  # split into three parts
    assert "Stage head" in text
    assert "frozen" in text
    assert "trains at 0.01" in text
    assert "batch norm frozen" in text
    assert "horizontal_flip" in text
    assert "UNSAFE" in text
    assert "Peak memory" in text
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_init_from_class_folders_to_a_checked_recipe(tmp_path):
    write_tiny_study(tmp_path / "flat", patients=8)
    for number, path in enumerate(sorted((tmp_path / "flat/images").iterdir())):
        folder = tmp_path / "tree" / ("effusion" if number // 2 % 2 else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    text = medtl("init", tmp_path / "tree", "--out", tmp_path / "study")
    recipe = (tmp_path / "study" / "recipe.yaml").read_text()
    assert "positive: effusion" in recipe
    assert "one_image_per_patient: false" in recipe
    assert "no column 'patient_id'" in text
    (tmp_path / "study" / "recipe.yaml").write_text(recipe.replace("false", "true", 1))
    from medtl.run.check import read_recipe

    assert read_recipe(tmp_path / "study" / "recipe.yaml").data.positive == "effusion"


def test_init_from_a_table_keeps_the_table(tmp_path):
    write_tiny_study(tmp_path / "data")
    text = medtl("init", tmp_path / "data/manifest.csv", "--target", "bright", "--out", tmp_path)
    assert "Next: medtl check" in text


def test_init_says_when_there_is_no_target(monkeypatch, capsys, tmp_path):
    write_tiny_study(tmp_path / "data")
    status, text = fails(
        monkeypatch, capsys, "init", tmp_path / "data/manifest.csv", "--out", tmp_path / "s"
    )
    assert status == 1
    assert "--target" in text


def test_init_overwrites_nothing(monkeypatch, capsys, tmp_path):
    recipe = write_tiny_study(tmp_path)
    before = recipe.read_bytes()
    status, text = fails(monkeypatch, capsys, "init", tmp_path / "manifest.csv", "--out", tmp_path)
    assert status == 1
    assert "there is a recipe already" in text
    assert recipe.read_bytes() == before


def test_scan_and_check_a_dicom_folder(monkeypatch, capsys, tmp_path):
    from medtl.demo.chest import write_chest_study

    write_chest_study(tmp_path / "dicom", patients=4, workers=1)
    (tmp_path / "dicom" / "manifest.csv").unlink()
    (tmp_path / "dicom" / "manifest.yaml").unlink()
    text = medtl("manifest", "scan", tmp_path / "dicom")
    assert "rows" in text
    assert "no faults" in medtl("manifest", "check", tmp_path / "dicom/manifest.csv")
    assert "SYNTH-0001" not in (tmp_path / "dicom/manifest.csv").read_text()
    elsewhere = tmp_path / "other" / "m.csv"
    status, message = fails(
        monkeypatch, capsys, "manifest", "scan", tmp_path / "dicom", "--out", elsewhere
    )
    assert status == 1
    assert "lies at or above its images" in message
    medtl("manifest", "scan", tmp_path / "dicom", "--out", tmp_path / "above.csv")
    assert "no faults" in medtl("manifest", "check", tmp_path / "above.csv")
    status, message = fails(monkeypatch, capsys, "manifest", "scan", tmp_path / "dicom")
    assert status == 1
    assert "exists" in message


def test_a_foreign_table_becomes_statistics(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 80)
    score = np.clip(0.3 * truth + 0.7 * rng.random(80), 0, 1)
    rows = [f"c{i},{truth[i]},{score[i]:.4f}" for i in range(80)]
    table = tmp_path / "theirs.csv"
    table.write_text("case_id,y_true,y_score\n" + "\n".join(rows) + "\n")
    said = medtl("evaluate", table, "--one-image-per-patient", "--threshold", "0.5")
    measures = json.loads((tmp_path / "theirs.metrics.json").read_text())["measures"]
    by_name = {m["name"]: m for m in measures}
    assert f"auroc: {by_name['auroc']['value']:.3f} [" in said
    called = score.round(4) >= 0.5
    assert by_name["sensitivity"]["value"] == pytest.approx(called[truth == 1].mean())
    assert by_name["auroc"]["low"] < by_name["auroc"]["value"] < by_name["auroc"]["high"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--threshold=nan", "threshold is not a number"),
        ("--threshold=50", "a threshold of 50, and all scores lie between 0 and 1"),
        ("--prevalence=5", "a prevalence of 5"),
        ("--acting=0.3", "two probabilities"),
        ("--acting=0.3,0.1", "from 0.3 to 0.1"),
    ],
)
def test_numbers_that_cannot_be(monkeypatch, capsys, tmp_path, option, message):
    table = tmp_path / "t.csv"
    table.write_text("case_id,patient_id,y_true,y_score\na,a,1,0.5\nb,b,0,0.1\n")
    status, text = fails(monkeypatch, capsys, "evaluate", table, option)
    assert status == 1
    assert message in text


def test_a_threshold_of_shares_for_scores_in_percent(monkeypatch, capsys, tmp_path):
    def table(scale: float, shift: float = 0.0) -> Path:
        rows = [f"c{i},p{i},{int(i > 10)},{scale * (i + 1) / 21 + shift}" for i in range(20)]
        path = tmp_path / f"{scale}{shift}.csv"
        path.write_text("\n".join(["case_id,patient_id,y_true,y_score", *rows]) + "\n")
        return path

    status, text = fails(monkeypatch, capsys, "evaluate", table(100), "--threshold=0.5")
    assert status == 1
    assert "a threshold of 0.5, and the scores go from 4.7619 to 95.2381" in text
    assert "State 50, not 0.5" in text
    for scores, threshold in ((table(100), "50"), (table(1), "0.5"), (table(20, -10.0), "0.5")):
        assert "Statistics" in medtl("evaluate", scores, "--threshold", threshold)


def test_scores_that_run_the_other_way_are_said_where_they_are_computed(tmp_path):
    table = tmp_path / "t.csv"
    rows = [f"c{i},p{i},{int(i < 20)},{i / 40}" for i in range(40)]
    table.write_text("\n".join(["case_id,patient_id,y_true,y_score", *rows]) + "\n")
    assert "seem to run the other way round" in medtl("evaluate", table)


def test_a_label_without_test_rows_needs_no_threshold(tmp_path):
    table = tmp_path / "t.csv"
    rows = ["a,p,test,x,1,0.5", "b,q,test,x,0,0.1", "c,r,val,y,0,0.1"]
    header = "case_id,patient_id,split,label,y_true,y_score"
    table.write_text("\n".join([header, *rows]) + "\n")
    assert "Statistics" in medtl("evaluate", table, "--threshold", "0.5")


def test_ctrl_c_is_not_success(tmp_path):
    """A shell goes on after `&&` only when the status is 0."""
    recipe = write_tiny_study(tmp_path, recipe=RECIPE.replace("epochs: 2", "epochs: 900"))
    # A test run in the background of a shell ignores SIGINT, and so would its children.
    listening = ["env", "--default-signal=INT", str(MEDTL)]
    command = [*listening, "run", str(recipe), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.safetensors").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    message = process.communicate()[1]
    assert process.returncode == 130
    assert "--resume" in message
    assert "Traceback" not in message


def test_a_table_of_one_class_says_what_cannot_be_estimated(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("case_id,patient_id,y_true,y_score\na,a,0,0.5\nb,b,0,0.1\nc,c,,0.2\n")
    said = medtl("evaluate", table, "--threshold", "0.3")
    assert "auroc: not estimable, the set holds one class only" in said
    assert "1 of 3 test rows have no certain truth" in said


def test_doctor():
    assert "torch" in medtl("doctor")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_behind_the_output_is_said_in_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [str(MEDTL), "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "medtl: the disk is full. Make room; what takes --resume goes on with it.\n"
    )
