"""`medtl saliency`: do heat maps follow the weights, and do they lie inside an organ."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_study import RECIPE, write_tiny_study
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import RunError
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.studies.stress import saliency
from medtl.studies.stress.saliency import _inside, check_saliency, randomised, rank_correlation

SQUARES = """
study: {question: "Where is the square?"}
data: {manifest: masks.csv, mask: mask}
image: {modality: cxr, size: 32}
model: {backbone: resnet10t, weights: none}
task: {kind: segmentation, structures: {square: 1}}
finetune:
  batch_size: 8
  stages: [{name: full, train: all, epochs: 2, lr: {head: 1e-2, base: 1e-2}}]
run: {tensorboard: false, device: cpu}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saliency")
    recipe = write_tiny_study(folder / "data", recipe=RECIPE.replace("epochs: 2", "epochs: 4"))
    asked = read_recipe(recipe, ["image.size=128"])
    return run_study(asked, folder / "run"), folder / "data" / "manifest.csv"


def test_ranks_are_compared_as_scipy_does():
    from scipy.stats import spearmanr

    one, other = np.random.default_rng(0).normal(size=(2, 4, 4)).round(1)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other, axis=None)[0])


def test_likeness_falls_as_layers_are_drawn_anew(study, tmp_path):
    run, manifest = study
    before = {name: t.clone() for name, t in run.trained.model.state_dict().items()}
    (found,) = check_saliency(run, manifest, tmp_path / "out")
    assert found.images > 5
    # From the head down to the stem, each group once; of the last nothing learned is left.
    assert (found.likeness[0].of, found.likeness[-1].of) == ("head", "stem")
    assert abs(found.likeness[-1].value) < 0.5
    assert all(torch.equal(t, before[n]) for n, t in run.trained.model.state_dict().items())
    stored = json.loads((tmp_path / "out" / "saliency.json").read_text())
    assert stored["labels"][0]["label"] == found.label
    assert "Rank correlation" in (tmp_path / "out" / "saliency.md").read_text()


def test_a_network_that_was_not_drawn_anew_keeps_its_maps(study, tmp_path, monkeypatch):
    """The control: where nothing changes, the likeness is 1."""
    run, manifest = study
    monkeypatch.setattr(saliency, "randomised", lambda model: [("nothing", model)])
    (found,) = check_saliency(run, manifest, tmp_path / "out")
    assert found.empty < found.images
    assert found.likeness[0].value == pytest.approx(1)
    assert found.likeness[0].images == found.images - found.empty


def test_layers_above_a_group_alone_are_drawn_anew(study):
    model = study[0].trained.model
    (name, first), *_ = randomised(model)
    assert name == "head"
    changed = {n for n, p in first.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert changed
    assert all(not n.startswith("backbone") for n in changed)


def test_the_share_inside_an_organ_by_hand():
    heat = np.zeros((2, 2), np.float32)
    heat[0, 0] = 1
    left = np.zeros((2, 2), bool)
    left[:, 0] = True
    empty = np.zeros((2, 2), np.float32)
    share, area = _inside([heat, heat, empty], [left, ~left, left], np.array([0, 1, 2]))
    assert (share.value, area.value, share.images) == (0.5, 0.5, 2)


def test_maps_of_a_few_places_are_not_put_in_order(study, tmp_path, monkeypatch):
    run, manifest = study
    small = np.ones((1, 1), np.float32)
    monkeypatch.setattr(saliency, "_maps", lambda *_: [small])
    with pytest.raises(RunError, match="have 1 places; expected at least 9"):
        check_saliency(run, manifest, tmp_path / "out")
    monkeypatch.setattr(saliency, "_maps", lambda *_: None)
    with pytest.raises(RunError, match="has no heat maps; expected a classifier"):
        check_saliency(run, manifest, tmp_path / "out")


def test_what_draws_no_masks_is_no_organ(study, tmp_path):
    run, manifest = study
    with pytest.raises(RunError, match="draws no masks; expected a run of masks"):
        check_saliency(run, manifest, tmp_path / "out", organ=run)
    done = CliRunner().invoke(
        app, ["saliency", str(run.path), str(manifest), "--out", str(tmp_path / "said")]
    )
    assert done.exit_code == 0, done.output
    assert "maps show nothing" in done.output


def test_an_organ_is_what_the_other_run_draws(study, tmp_path):
    run, manifest = study
    data = tmp_path / "squares"
    shutil.copytree(manifest.parent / "images", data / "images")
    rows = pd.read_csv(manifest)
    square = np.zeros((40, 40), np.uint8)
    square[10:30, 10:30] = 1
    Image.fromarray(square).save(data / "square.png")
    rows[["image", "patient_id"]].assign(mask="square.png").to_csv(data / "masks.csv", index=False)
    (data / "recipe.yaml").write_text(SQUARES)
    organ = run_study(read_recipe(data / "recipe.yaml"), tmp_path / "organ")
    (found,) = check_saliency(run, manifest, tmp_path / "out", organ=organ)
    organ.predict(manifest, tmp_path / "drawn" / "drawn.csv")
    table = pd.read_csv(tmp_path / "drawn" / "drawn.csv").set_index("file")["prediction"]
    shares = [(np.asarray(Image.open(tmp_path / "drawn" / path)) > 0).mean() for path in table]
    share, area = found.inside
    assert (share.of, area.of) == ("of the map", "of the picture")
    assert area.value == pytest.approx(np.mean(shares), abs=0.1)
    assert 0 <= share.value <= 1
    assert "Inside the organ" in (tmp_path / "out" / "saliency.md").read_text()
