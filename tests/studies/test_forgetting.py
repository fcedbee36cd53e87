"""Start network and tuned network on the same cases: whose are left out, what is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from tiny_study import RECIPE, write_tiny_study
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import RunError
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.record import adopt_study
from medtl.studies.learned.forgetting import _kept, forgetting_guard, forgetting_markdown
from medtl.types import Measure


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An earlier run, one that went on from it with labels turned round, and their manifests."""
    folder = tmp_path_factory.mktemp("forgetting")
    first = write_tiny_study(folder / "first")
    start = run_study(read_recipe(first), folder / "start")
    second = write_tiny_study(folder / "second")
    table = folder / "second" / "manifest.csv"
    head, *lines = table.read_text().splitlines()
    cells = [line.replace("Kim-", "Lee-").split(",") for line in lines]
    turned = [[*c[:2], str(1 - int(c[2])), *c[3:]] for c in cells]
    table.write_text("\n".join([head, *map(",".join, turned)]) + "\n")
    for number, file in enumerate(sorted((folder / "second" / "images").glob("*.png"))):
        _mark(file, number)
    weights = f"model.weights={{source: file, path: {start.checkpoint}}}"
    changes = [weights, "finetune.stages.1.epochs=6"]
    tuned = run_study(read_recipe(second, changes), folder / "tuned")
    return start, tuned, first.parent / "manifest.csv", table


def _mark(file, number):
    """Make an image that is no copy of one of the first study."""
    import numpy as np
    from PIL import Image

    pixels = np.array(Image.open(file))
    pixels[0, 0] = 200 + number % 50
    Image.fromarray(pixels).save(file)


@pytest.mark.slow
def test_tuning_on_labels_turned_round_forgets_the_old_ones(runs, tmp_path):
    start, tuned, old, new = runs
    arguments = ["study", "forgetting", str(start.path), str(tuned.path), str(old)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "old")])
    assert "tuning cost some of it" in result.output, result.output
    found = json.loads((tmp_path / "old" / "forgetting.json").read_text())
    (row,) = found["labels"]
    assert row["verdict"] == "forgotten"
    assert row["start"]["value"] > 0.9
    assert row["tuned"]["value"] < 0.1
    assert row["change"]["value"] == pytest.approx(row["tuned"]["value"] - row["start"]["value"])
    assert found["is_start"]
    assert found["left_out"] == 0
    # On the cases that tuning was for, the other way round: the negative control.
    there = forgetting_guard(start, tuned, new, tmp_path / "new")
    assert there.labels[0].verdict == "better"
    assert there.images == len(tuned.predictions.query("split == 'test'"))
    # The report of the tuned run takes it, that of the other one does not.
    assert adopt_study(tuned.files, tmp_path / "old") == ["forgetting.json"]
    page = tuned.report().read_text("utf-8")
    assert 'data-table="forgetting"' in page
    tuned.files.forgetting.unlink()
    with pytest.raises(RunError, match="one of another network, that of tuned"):
        adopt_study(start.files, tmp_path / "old")


@pytest.mark.slow
def test_patients_that_one_learned_from_are_left_out(runs, tmp_path):
    start, tuned, old, _ = runs
    # Another table of the same images: all cases are wanted, and whose they are is known.
    table = old.with_name("again.csv")
    table.write_text(old.read_text().replace("site", "place", 1))
    found = forgetting_guard(start, tuned, table, tmp_path / "out")
    tested = start.manifest.query("split == 'test'")
    assert found.images == len(tested)
    assert found.patients == tested["patient_id"].nunique()
    assert found.left_out == len(start.manifest) - len(tested)
    assert found.labels[0].verdict == "forgotten"
    # A run compared with itself: nothing changes, and it did not start from itself.
    same = forgetting_guard(start, start, old, tmp_path / "same")
    assert (same.labels[0].change.value, same.labels[0].verdict) == (0, "open")
    assert "did not start from the best checkpoint" in forgetting_markdown(same)
    # Without a patient that neither learned from there is nothing to compare.
    copy = Run(shutil.copytree(start.path, tmp_path / "copy"))
    copy.manifest.assign(split="train").to_csv(copy.files.manifest, index=False)
    with pytest.raises(RunError, match="patient that neither run learned from"):
        forgetting_guard(copy, tuned, table, tmp_path / "none")


@pytest.mark.slow
def test_a_start_network_with_another_task_has_nothing_to_forget(runs, tmp_path):
    start, _, old, _ = runs
    text = RECIPE.replace("target: bright", "target: age").replace("strata: [site]", "strata: []")
    text = text.replace("operating_point: {sensitivity: 0.8}, prevalence: 0.1", "title: a")
    text += "task: {kind: regression, unit: years}\n"
    recipe = old.parent / "age.yaml"
    recipe.write_text(text)
    other = run_study(read_recipe(recipe), tmp_path / "other")
    with pytest.raises(RunError, match="does another task: mae_years of age"):
        forgetting_guard(other, start, old, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def change(value, low, high, name="auroc_difference"):
    return Measure(name, value, low=low, high=high, n=10)


@pytest.mark.parametrize(
    ("name", "interval", "verdict"),
    [
        ("auroc", (0.02, 0.08), "better"),
        ("auroc", (-0.08, -0.02), "forgotten"),
        ("auroc", (-0.02, 0.08), "open"),
        ("mae_months", (0.5, 2.0), "forgotten"),
        ("mae_months", (-2.0, -0.5), "better"),
        ("auroc", (None, None), "undefined"),
    ],
)
def test_the_verdict_follows_interval_and_direction(name, interval, verdict):
    own = change(0.8, 0.7, 0.9, f"{name}_mean_of_folds")
    kept = _kept("x", own, replace(own, value=0.7), change(0.0, *interval))
    assert kept.verdict == verdict
    assert (kept.start.value, kept.tuned.value) == (0.7, 0.8)
    assert kept.tuned.name == name
