"""Controls beside a recipe: what they know, what they reach, what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import RECIPE, write_tiny_study
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import RunError
from medtl.run.check import read_recipe
from medtl.studies.kfold import FINE_TUNED, Result
from medtl.studies.learned import shortcuts
from medtl.studies.learned.controls import (
    CONTROLS,
    control_images,
    frozen_features,
    intensity,
    metadata,
    metadata_names,
    random_features,
    thumbnail,
)
from medtl.studies.learned.shortcuts import judged, random_start, run_shortcuts
from medtl.types import Case, Measure


class Store:
    """Unit images in memory."""

    def __init__(self, units):
        self.units = units
        self.case_ids = tuple(str(n) for n in range(len(units)))

    def unit(self, row):
        return self.units[row]


def images(units, strata=(), facts=()):
    number = len(units)
    cases = [
        Case(str(n), str(n), Path(f"{n}.png"), strata=strata[n] if strata else {})
        for n in range(number)
    ]
    return SimpleNamespace(store=Store(units), cases=cases, facts=facts or [{}] * number)


def test_a_thumbnail_is_the_means_of_64_parts():
    unit = np.zeros((1, 16, 24), dtype=np.float32)
    unit[0, 2:4, 3:6] = 1  # the second part of the second row of parts
    numbers = thumbnail(images([unit]))[0]
    assert numbers.shape == (64,)
    assert np.flatnonzero(numbers).tolist() == [9]
    assert numbers[9] == 1


def test_a_thumbnail_of_a_volume_has_512_parts():
    assert thumbnail(images([np.zeros((1, 8, 16, 16), dtype=np.float32)])).shape == (1, 512)


def test_intensities_know_no_place():
    rng = np.random.default_rng(0)
    unit = rng.random((1, 12, 12), dtype=np.float32)
    mixed = rng.permutation(unit.ravel()).reshape(unit.shape)
    np.testing.assert_allclose(*intensity(images([unit, mixed])), atol=1e-6)
    # Negative control: a thumbnail does.
    assert not np.allclose(*thumbnail(images([unit, mixed])), atol=1e-3)


def test_metadata_are_numbers_and_marks_of_texts():
    units = [np.zeros((1, 8, 8), dtype=np.float32)] * 4
    known = images(
        units,
        strata=[{"view": v, "age": a} for v, a in zip("APAP", ("40", "", "60", "80"), strict=True)],
        facts=[{"spacing_mm": 0.1 * n, "modality": "DX", "uid": f"1.{n}.2"} for n in range(4)],
    )
    assert metadata_names(known) == ["age", "spacing_mm", "uid", "view"]
    assert metadata(known)[:, :2].tolist() == [[40, 0], [60, 1], [60, 0], [80, 0]]
    many = images([units[0]] * 30, facts=[{"uid": f"1.{n}.2"} for n in range(30)])
    assert metadata(many).shape == (30, 0)  # identifiers say nothing of new patients
    assert metadata(images(units)).shape == (4, 0)


def measure(value, low, high, name="auroc_mean_of_folds"):
    return Measure(name, value, low=low, high=high, n=10)


@pytest.mark.parametrize(
    ("name", "gain", "said"),
    [
        ("auroc", (0.05, 0.02, 0.08), "the recipe adds 0.050 [0.020, 0.080]"),
        ("auroc", (0.01, -0.02, 0.04), "not shown: 0.010 [-0.020, 0.040]"),
        ("auroc", (-0.05, -0.08, -0.02), "the recipe is worse, by -0.050"),
        ("mae_months", (-3.0, -4.0, -2.0), "the recipe adds 3.000 [2.000, 4.000]"),
        ("mae_months", (3.0, 2.0, 4.0), "the recipe is worse, by -3.000"),
    ],
)
def test_a_verdict_follows_the_interval_and_the_direction(name, gain, said):
    measures = (
        measure(0.9, 0.8, 1.0, f"{name}_mean_of_folds"),
        measure(0.8, 0.7, 0.9, f"{name}_mean_of_folds"),
        measure(*gain, name=f"{name}_difference"),
    )
    (control,) = judged([Result("x", "all", (FINE_TUNED, "thumbnail"), measures)])
    assert control.name == "thumbnail"
    assert control.reaches is measures[1]
    assert said in control.verdict


def test_a_network_from_random_weights_says_what_pretraining_adds():
    measures = (measure(0.9, 0.8, 1), measure(0.8, 0.7, 0.9), measure(0.1, 0.05, 0.15))
    (control,) = judged([Result("x", "all", (FINE_TUNED, "random_weights_x1"), measures)])
    assert control.verdict == "pretraining adds 0.100 [0.050, 0.150]"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shortcuts")
    return read_recipe(write_tiny_study(folder, recipe=RECIPE.replace("epochs: 2", "epochs: 1")))


def test_random_weights_train_whole_for_all_epochs_of_the_recipe(recipe):
    (stage,) = random_start(recipe, 2).finetune.stages
    # Batches of 32 for the recipe's 8: four epochs have its steps.
    assert (stage.epochs, stage.selector, stage.patience) == (16, "all", 16)
    assert stage.policies == {"all": "adapt"}
    gradual = recipe.finetune.model_copy(update={"preset": "lp_ft", "stages": (), "batch_size": 32})
    preset = recipe.model_copy(update={"finetune": gradual})
    assert random_start(preset).finetune.stages[0].epochs == 30


@pytest.mark.parametrize(
    ("batch", "accumulate", "of", "epochs"),
    [(32, 1, (32, 1), 2), (8, 1, (32, 1), 8), (8, 4, (32, 1), 2), (16, 6, (32, 3), 2)],
)
def test_random_weights_take_as_many_steps_in_larger_batches(recipe, batch, accumulate, of, epochs):
    tuning = recipe.finetune.model_copy(update={"batch_size": batch, "accumulate": accumulate})
    random = random_start(recipe.model_copy(update={"finetune": tuning})).finetune
    assert (random.batch_size, random.accumulate) == of
    assert random.stages[0].epochs == epochs


def test_a_control_that_is_not_known(recipe, tmp_path):
    with pytest.raises(RunError, match="no control hair; expected some of frozen_features"):
        run_shortcuts(recipe, tmp_path / "out", beside=["thumbnail", "hair"])
    assert not (tmp_path / "out").exists()


def test_frozen_and_random_features_differ_in_the_weights_only(recipe):
    from medtl.run.build import build_manifest

    shown = control_images(recipe, build_manifest(recipe))
    pretrained, random = frozen_features(shown), random_features(shown)
    # The tiny recipe itself starts from random weights, with the same seed.
    np.testing.assert_array_equal(pretrained, random)
    assert len(pretrained) == 60
    assert torch.isfinite(torch.from_numpy(random)).all()


@pytest.mark.slow
def test_every_control_stands_in_the_same_folds(recipe, tmp_path):
    beside = [*CONTROLS, "random_weights_x1"]
    found = run_shortcuts(recipe, tmp_path / "out", folds=2, beside=beside)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    names = {FINE_TUNED, "random_weights_x1", *CONTROLS}
    assert set(table["model"]) == names
    assert all(len(rows) == 60 for _, rows in table.groupby("model"))
    assert table.groupby("case_id")["fold"].nunique().max() == 1
    reached = {c.name: c.reaches.value for c in found if c.subset == "all"}
    assert set(reached) == names - {FINE_TUNED}
    assert reached["thumbnail"] > 0.95  # a bright square survives it
    assert reached["metadata"] < 0.9  # site and age do not know it
    stored = json.loads((tmp_path / "out" / "shortcuts.json").read_text())
    assert stored["metadata"] == ["age", "site"] or stored["metadata"] == ["site"]
    assert "8 x 8 thumbnail" in (tmp_path / "out" / "shortcuts.md").read_text()
    assert (tmp_path / "out" / "shortcuts.svg").read_text().startswith("<?xml")
    again = run_shortcuts(recipe, tmp_path / "out", folds=2, beside=beside, resume=True)
    assert again == found
    own = json.loads((tmp_path / "out" / "shortcuts.json").read_text())["recipe"][0]
    assert own["reaches"]["value"] > 0.5
    some = run_shortcuts(recipe, tmp_path / "out", folds=2, beside=["thumbnail"], resume=True)
    assert [c.name for c in some if c.subset == "all"] == ["thumbnail"]


@pytest.mark.parametrize("factors", ["a", "-1", "1.5"])
def test_the_command_refuses_epochs_that_are_no_whole_numbers(monkeypatch, tmp_path, factors):
    monkeypatch.setattr(shortcuts, "run_shortcuts", pytest.fail)
    path = write_tiny_study(tmp_path, patients=6)
    arguments = ["study", "shortcuts", str(path), "--out", "x"]
    result = CliRunner().invoke(app, [*arguments, f"--from-random={factors}"])
    assert result.exit_code == 2
    assert "numbers: --from-random 1,2" in result.output
