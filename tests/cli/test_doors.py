"""What the command line says and takes, as a user without patience meets it."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date

import numpy as np
import pytest
from tiny_study import RECIPE, write_tiny_study
from typed import fails, medtl

SHORT = RECIPE.replace("epochs: 2", "epochs: 1")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run without --out, in a folder of its own; what it said and where it is."""
    folder = tmp_path_factory.mktemp("home")
    write_tiny_study(folder / "squares", recipe=SHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        said = medtl("run", "squares/recipe.yaml")
    return folder, said


def test_a_run_has_a_folder_of_the_day_and_the_recipe(done):
    folder, said = done
    name = f"runs/{date.today().isoformat()}-squares"
    assert f"Folder of this run: {name}" in said
    assert f"Report: {name}/report.html" in said
    assert (folder / name / "report.html").is_file()


def test_a_runs_end_says_what_it_found(done):
    _, said = done
    tail = said.split("Test set:")[1]
    assert "AUROC 1.000, n = 6, 2 with the finding" in tail
    assert "sensitivity 1.000 [0.207, 1.000], n = 2" in tail
    assert "specificity" in tail
    assert "(sensitivity >= 0.80, chosen on val)" in tail
    assert re.search(r"epoch [12] was kept, number 1 of stage \w+ \(validation loss 0\.", tail)
    assert "epochs run: head 1 of 1, full 1 of 1" in tail


def test_the_next_run_takes_another_folder(done, monkeypatch):
    folder, _ = done
    monkeypatch.chdir(folder)
    said = medtl("train", "squares/recipe.yaml", "--epochs", 1)
    assert f"{date.today().isoformat()}-squares-2" in said
    assert re.search(r"Training: epoch [12] was kept, number 1 of stage", said)


def test_to_go_on_takes_a_name(done, monkeypatch, capsys):
    folder, _ = done
    monkeypatch.chdir(folder)
    (folder / "runs" / "2020-01-01-squares").mkdir(exist_ok=True)
    status, text = fails(monkeypatch, capsys, "run", "squares/recipe.yaml", "--resume")
    assert status == 1
    assert "--out runs/2020-01-01-squares" in text


@pytest.mark.parametrize("change", ["--epochs=3", "finetune.stages.*.epochs=3"])
def test_epochs_of_every_stage(tmp_path, change):
    recipe = write_tiny_study(tmp_path)
    said = medtl("check", recipe, change) if "*" in change else ""
    said = said or medtl("train", recipe, change, "--out", tmp_path / "run")
    assert ("head 3 of 3, full 3 of 3" in said) or said.count(": 3 epochs") == 2


def test_one_stage_of_a_recipe_that_states_none(tmp_path):
    recipe = write_tiny_study(
        tmp_path, recipe=RECIPE[: RECIPE.index("  stages")] + "run: {device: cpu}\n"
    )
    said = medtl("check", recipe, "finetune.stages.0.epochs=7")
    assert "Stage head: 7 epochs" in said
    assert "Stage full: 20 epochs" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "finetune.stages.9.epochs=1",
            "leads to number 9 of 2, which has no keys; expected 0 to 1",
        ),
        ("finetune.stages.head.epochs=1", "leads below a value that has no keys"),
    ],
)
def test_a_stage_that_is_not_there(monkeypatch, capsys, tmp_path, change, message):
    status, text = fails(monkeypatch, capsys, "check", write_tiny_study(tmp_path), change)
    assert status == 1
    assert message in text


def test_stages_of_a_preset_cannot_be_changed(monkeypatch, capsys, tmp_path):
    preset = RECIPE[: RECIPE.index("  stages")] + "  preset: lp_ft\nrun: {device: cpu}\n"
    recipe = write_tiny_study(tmp_path, recipe=preset)
    status, text = fails(monkeypatch, capsys, "run", recipe, "--epochs", 2, "--out", tmp_path / "r")
    assert status == 1
    assert "stages of the preset 'lp_ft' cannot be changed" in text


def test_keys_are_explained(monkeypatch, capsys):
    assert "at least 32, at most 2048; default 224" in medtl("recipe", "--explain", "image.size")
    assert "finetune.stages.N.epochs" in medtl("recipe")
    status, text = fails(monkeypatch, capsys, "recipe", "--explain", "image.sise")
    assert status == 1
    assert "Did you mean image.size?" in text or "Did you mean 'image.size'?" in text


def test_an_existing_folder_is_noticed_before_torch_is_loaded(tmp_path):
    recipe = write_tiny_study(tmp_path / "data")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").touch()
    code = (
        "import sys\nfrom medtl.cli.main import app\ntry:\n"
        f"    app(['run', {str(recipe)!r}, '--out', {str(tmp_path / 'there')!r}])\n"
        "except Exception as error:\n    print(error, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the folder exists and is not empty" in done.stdout
    assert done.stdout.strip().endswith("False")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "nothing.yaml", "no override"],
        ["run", "nothing.yaml", "--out", "full"],
        ["study", "seeds", "nothing.yaml", "--vary", "nothing"],
        ["study", "search", "squares/recipe.yaml", "--space", "nothing.yaml"],
        ["study", "conditions", "squares/recipe.yaml", "--plan", "nothing.yaml", "a.b.c=1"],
        ["predict", "full", "nothing.yaml", "--out", "x.tiff"],
        ["report", "nothing.yaml", "--threshold", "nan"],
        ["evaluate", "nothing.yaml", "--prevalence", "7"],
        ["export", "full", "--images", "nothing.yaml", "--out", "full"],
    ],
)
def test_no_such_file_comes_first(monkeypatch, capsys, tmp_path, arguments):
    write_tiny_study(tmp_path / "squares")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    monkeypatch.chdir(tmp_path)
    status, text = fails(monkeypatch, capsys, *arguments)
    assert status == 1
    assert "nothing.yaml" in text
    assert "no such f" in text or "not found" in text
    assert "Traceback" not in text


def test_a_file_that_was_nearly_named(monkeypatch, capsys, tmp_path):
    write_tiny_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    _, text = fails(monkeypatch, capsys, "check", "recipes.yaml")
    assert "Did you mean recipe.yaml?" in text


def test_a_report_with_its_question(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"c{n},p{n},{n % 2},{(n % 2 + rng.random()) / 2:.3f}" for n in range(40)]
    table = tmp_path / "theirs.csv"
    table.write_text("\n".join(["case_id,patient_id,y_true,y_score", *rows]) + "\n")
    medtl("report", table, "--question", "Is the lung collapsed?")
    page = (tmp_path / "theirs-report" / "report.html").read_text(encoding="utf-8")
    assert "Is the lung collapsed?" in page


def test_options_of_tables_are_not_overlooked_for_a_run(done, monkeypatch, capsys):
    folder, _ = done
    run = next((folder / "runs").glob("*-squares"))
    for command in ("evaluate", "report"):
        status, text = fails(monkeypatch, capsys, command, run, "--threshold", "0.3")
        assert status == 1
        assert "--threshold is for tables" in text
    status, text = fails(monkeypatch, capsys, "evaluate", run, "--out", folder / "m.json")
    assert "Leave --out away" in text
    status, text = fails(monkeypatch, capsys, "report", folder / "no", "--out", folder / "new")
    assert "no such folder" in text
    assert not (folder / "new").exists()


def test_check_says_what_the_parts_can_show_and_counts_lateral_views(tmp_path):
    recipe = write_tiny_study(tmp_path)
    table = tmp_path / "manifest.csv"
    head, *rows = table.read_text().splitlines()
    views = ["LL", "PA", "AP", ""]
    rows = [f"{row},{views[n % 4]}" for n, row in enumerate(rows)]
    table.write_text("\n".join([f"{head},view", *rows]) + "\n")
    said = medtl("check", recipe)
    assert "a sensitivity of 80% would be known to 13%-99% (245 narrow it to +-5 points)" in said
    assert "to promise a sensitivity of 80% with 90 % certainty takes 11" in said
    assert "15 of 60 images are lateral views, 15 of no stated view" in said


def test_check_says_when_no_threshold_can_be_chosen(tmp_path):
    recipe = write_tiny_study(tmp_path)
    table = tmp_path / "manifest.csv"
    head, *rows = table.read_text().splitlines()
    part = {"0": ["train", "val", "test"], "1": ["train", "train", "test"]}
    cells = [row.split(",") for row in rows]
    numbers = [int(cell[1].removeprefix("Kim-")) // 2 % 3 for cell in cells]
    parts = [part[cell[2]][number] for cell, number in zip(cells, numbers, strict=True)]
    rows = [f"{row},{name}" for row, name in zip(rows, parts, strict=True)]
    table.write_text("\n".join([f"{head},split", *rows]) + "\n")
    said = medtl("check", recipe)
    line = "Validation part, bright: no patient with it, so no threshold can be chosen"
    assert line in said
    assert "to promise" not in said
    assert "by whom" not in said


def test_a_folder_in_place_of_its_recipe(monkeypatch, capsys, tmp_path):
    write_tiny_study(tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    status, text = fails(monkeypatch, capsys, "run", "study")
    assert status == 1
    assert "this is a folder" in text
    assert "Did you mean study/recipe.yaml?" in text
    status, text = fails(monkeypatch, capsys, "evaluate", "study")
    assert "Name the folder of a run" in text
    assert "--resume" not in text


def test_only_what_can_go_on_speaks_of_resume(monkeypatch, capsys, tmp_path):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medtl.run.evaluate.evaluate_table", stopped)
    (tmp_path / "t.csv").write_text("case_id,patient_id,y_true,y_score\na,a,1,0.5\n")
    status, text = fails(monkeypatch, capsys, "evaluate", tmp_path / "t.csv")
    assert status == 130
    assert text.strip() == "Stopped."


def test_a_plan_of_many_images_reads_a_sample(tmp_path, monkeypatch):
    from medtl.run import plan

    recipe = write_tiny_study(tmp_path)
    (tmp_path / "images/007_1.png").write_bytes(b"no image")
    whole = medtl("check", recipe, "data.max_unreadable=0.1")
    monkeypatch.setattr(plan, "SAMPLED", 20)
    said = medtl("check", recipe, "data.max_unreadable=0.1")
    assert "20 of 60 images were read" in said
    everything = medtl("check", recipe, "data.max_unreadable=0.1", "--all")
    assert "images were read" not in whole + everything
    counts = [line for line in everything.splitlines() if "images of" in line]
    assert [line.split()[0] for line in counts] == ["train:", "val:", "test:"]
    assert "1 images cannot be read" in whole
    assert "1 images cannot be read" in everything
