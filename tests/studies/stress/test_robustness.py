"""`medtl stress` on a tiny study: the run's own numbers, losses, attacks, what cannot be tried."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tiny_study import RECIPE, write_tiny_study
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import RunError
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.record import adopt_study
from medtl.studies.stress.robustness import Asked, _conditions, stress_run

BETTER = RECIPE.replace("epochs: 2", "epochs: 8")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(manifest, run, result, folder of the result)."""
    folder = tmp_path_factory.mktemp("stress")
    recipe = write_tiny_study(folder / "data", recipe=BETTER)
    run = run_study(read_recipe(recipe), folder / "run")
    said = []
    found = stress_run(run, folder / "data" / "manifest.csv", folder / "out", announce=said.append)
    assert "conditions: about" in said[0]
    return folder / "data" / "manifest.csv", run, found, folder / "out"


def rows_of(found, name):
    return [row for row in found.rows if row.name == name]


def test_the_clean_row_is_the_run_itself(study):
    _, run, found, _ = study
    (clean,) = rows_of(found, "clean")
    own = next(m for m in run.evaluation.measures if m.name == "auroc" and m.subset == "all")
    assert clean.reaches.value == pytest.approx(own.value, abs=1e-6)
    assert clean.reaches.n == own.n
    assert clean.shares["flipped"].value == 0
    sensitivity = next(
        m for m in run.evaluation.measures if m.name == "sensitivity" and m.subset == "all"
    )
    assert clean.shares["sensitivity"].value == pytest.approx(sensitivity.value)
    assert found.least_sensitivity == 0.8


@pytest.mark.parametrize("is_of_masks", [True, False])
def test_what_moves_a_structure_is_no_corruption_of_masks(is_of_masks):
    """The truth would lie where the structure was: 4 degrees looked like a bad network."""
    recipe = SimpleNamespace(image=SimpleNamespace(modality="mr"))
    store = SimpleNamespace(case_ids=(), units=None, masks=None)
    subject = SimpleNamespace(
        trained=SimpleNamespace(recipe=recipe), store=store, is_of_masks=is_of_masks
    )
    found, left_out = _conditions(subject, Asked(("corruptions", "probes")))
    names = {one.name for one in found}
    assert ({"tilt", "patch_shuffle"} <= names) != is_of_masks
    assert "blur" in names
    assert ["the masks would have to move too" in reason for reason in left_out] == (
        [True] * 2 * is_of_masks
    )


def test_every_family_is_there(study):
    _, _, found, _ = study
    assert {row.family for row in found.rows} == {"clean", "corruptions", "probes", "attacks"}
    assert [row.level for row in rows_of(found, "noise")] == [1, 2, 3, 4, 5]
    assert [row.strength for row in rows_of(found, "pgd")] == [0.002, 0.005, 0.01, 0.02, 0.05]
    assert "transfer from the start weights: model.weights is none" in found.left_out[0]


def test_an_attack_costs_more_than_noise_of_its_size(study):
    """White box at .05 against noise of .07: what is aimed does more than what is drawn."""
    _, _, found, _ = study
    attack, noise = rows_of(found, "pgd")[-1], rows_of(found, "noise")[2]
    assert attack.reaches.value < noise.reaches.value
    assert attack.drop.value > 0.3
    falls = [row.reaches.value for row in rows_of(found, "pgd")]
    assert falls == sorted(falls, reverse=True)


def test_a_corruption_that_removes_the_finding_removes_the_result(study):
    """The finding is brightness: an overexposed film has lost it; a tilt has not."""
    _, _, found, _ = study
    assert rows_of(found, "low_contrast")[-1].shares["flipped"].value > 0.2
    assert rows_of(found, "tilt")[0].drop.value < 0.2


def test_the_files_say_the_same(study):
    _, _, found, out = study
    stored = json.loads((out / "robustness.json").read_text())
    assert stored["schema"] == "medtl-robustness/1"
    assert len(stored["rows"]) == len(found.rows)
    table = pd.read_csv(out / "robustness.csv")
    assert len(table) == len(found.rows)
    np.testing.assert_allclose(
        table["reaches"],
        [np.nan if r.reaches.value is None else r.reaches.value for r in found.rows],
    )
    text = (out / "robustness.md").read_text()
    assert "a loss from level" in text
    assert "Left out: transfer" in text
    assert (out / "robustness.svg").read_text().count("<svg") == 1
    assert (out / "corruptions.png").read_bytes()[:4] == b"\x89PNG"


def test_one_image_is_shown_as_it_was_scored(study):
    """The first positive that is found; its numbers are those of the run's own table."""
    _, run, found, out = study
    own = run.predictions.set_index("case_id").loc[found.example]
    (clean,) = rows_of(found, "clean")
    assert own["y_true"] == 1
    assert clean.example == pytest.approx(own["y_score"], abs=1e-6)
    assert clean.example >= found.thresholds[clean.label]
    pictures = {file.stem for file in (out / "pictures").iterdir()}
    assert pictures == {f"{row.name}_{row.level}" for row in found.rows}
    dark, bright = (found.pictures[f"{n}exposure_5"].mean() for n in ("under", "over"))
    assert dark < found.pictures["clean_0"].mean() < bright
    attacked = np.abs(found.pictures["pgd_3"] - found.pictures["clean_0"])
    assert 0 < attacked.max() <= 0.01 + 1e-6
    assert {row.example for row in rows_of(found, "pgd")} != {clean.example}


def test_verdicts_are_the_first_levels_that_cost(study):
    _, _, found, out = study
    stored = {
        one["name"]: one for one in json.loads((out / "robustness.json").read_text())["verdicts"]
    }
    for name, verdict in stored.items():
        rows = rows_of(found, name)
        worse = [row.level for row in rows if row.drop.low is not None and row.drop.low > 0]
        below = [row.level for row in rows if row.shares["sensitivity"].value < 0.8]
        assert verdict["loss_from"] == next(iter(worse), None), name
        assert verdict["below_from"] == next(iter(below), None), name
    assert stored["pgd"]["loss_from"] is not None
    assert any(one["loss_from"] is None for one in stored.values())


def test_the_report_of_the_run_takes_its_stress_test_and_no_other(study, tmp_path):
    _, run, found, out = study
    assert "What breaks it" not in run.report().read_text()
    assert adopt_study(run.files, out) == ["stress"]
    text = run.report().read_text()
    for said in ("What breaks it", found.example, "Noise of a low dose", "paints a square of 15%"):
        assert said in text
    assert text.count('<figure><img src="data:image/jpeg') == len(found.pictures)
    other = json.loads((out / "robustness.json").read_text()) | {"tuned_sha256": "0" * 64}
    (tmp_path / "robustness.json").write_text(json.dumps(other))
    with pytest.raises(RunError, match="of another network"):
        adopt_study(run.files, tmp_path)


def test_the_demo_has_the_chapter_when_asked(study, tmp_path, monkeypatch):
    """A stress test that is there is taken as it is; the report is written again with it."""
    _, run, _, out = study
    monkeypatch.setattr("medtl.demo.demonstration.run_demo", lambda *_, **__: run)
    shutil.copytree(out, tmp_path / "stress")
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--stress"])
    assert done.exit_code == 0, done.output
    assert "What breaks it" in run.report_path.read_text()
    done = CliRunner().invoke(app, ["demo", "--pacs", "--stress"])
    assert done.exit_code == 1


def test_a_quick_look_from_the_command_line(study, tmp_path):
    manifest, run, _, _ = study
    call = ["stress", str(run.path), str(manifest), "--out", str(tmp_path / "o"), "--quick"]
    done = CliRunner().invoke(app, [*call, "--only", "corruptions,attacks"])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "o" / "robustness.csv")
    assert set(table["family"]) == {"clean", "corruptions", "attacks"}
    assert set(table.loc[table["family"] == "corruptions", "level"]) == {1, 3, 5}
    assert set(table.loc[table["family"] == "attacks", "name"]) == {"fgsm"}


def test_mistakes_are_named(study, tmp_path):
    manifest, run, _, out = study
    with pytest.raises(RunError, match="exists and is not empty"):
        stress_run(run, manifest, out)
    nobody = manifest.with_name("new.csv")
    nobody.write_text(manifest.read_text().replace(",bright,", ",other,"))
    with pytest.raises(RunError, match="no test case could be read and has a truth"):
        stress_run(run, nobody, tmp_path / "o")
    done = CliRunner().invoke(
        app, ["stress", str(run.path), str(manifest), "--out", "x", "--only", "rain"]
    )
    assert done.exit_code == 2
    assert "not rain" in done.output


def test_an_unfinished_run_is_named(tmp_path):
    with pytest.raises(RunError, match="did not reach"):
        stress_run(Run(tmp_path), tmp_path / "m.csv", tmp_path / "o")
