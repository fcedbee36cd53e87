"""Losses and backbones given as Python objects: trained with, named in the run, asked for again."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from tiny_study import write_tiny_study

from medtl.errors import RecipeError, RunError
from medtl.losses.cross_entropy import CrossEntropy, Focal
from medtl.losses.quantity import L1
from medtl.recipe.schema import with_objects
from medtl.run.build import build_network, build_task
from medtl.run.chain import predict, train_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.prepare import prepare
from medtl.run.trained import load_trained
from medtl.storage.yaml import load_yaml


def halved(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Half of the cross-entropy: rates apart, it trains as the cross-entropy does."""
    return CrossEntropy()(outputs, targets) / 2


def tiny_backbone() -> torch.nn.Module:
    import timm

    return timm.create_model("test_resnet", num_classes=0)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return read_recipe(write_tiny_study(tmp_path_factory.mktemp("study"), patients=16))


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train_study(with_objects(recipe, loss=halved, backbone=tiny_backbone), out)
    return out


def test_a_loss_of_the_library_is_stated_as_if_written(recipe):
    with_focal = with_objects(recipe, loss=Focal(gamma=3.0))
    assert with_focal.task.loss == Focal(gamma=3.0)
    assert with_focal.given == ()
    with pytest.raises(RecipeError, match="'l1' is not one of classification"):
        with_objects(recipe, loss=L1())


def test_the_run_says_what_was_given_in_python(run):
    written = load_yaml(run / "recipe.yaml")
    assert written["task"]["loss"] == {"name": "python", "what": "halved"}
    assert written["model"]["backbone"] == "python: tiny_backbone"
    said = json.loads((run / "environment.json").read_text())["given_in_python"]
    assert said == "loss: halved; backbone: tiny_backbone"


def test_the_object_is_what_trains(recipe, run, tmp_path):
    plain = tmp_path / "plain"
    train_study(with_objects(recipe, backbone=tiny_backbone), plain)
    losses = [(folder / "history.csv").read_text().splitlines()[1:] for folder in (plain, run)]
    assert losses[0] != losses[1]
    assert "given_in_python" in json.loads((plain / "environment.json").read_text())


def test_prediction_takes_the_backbone_and_no_loss(run):
    best = run / "checkpoints" / "best.safetensors"
    trained = load_trained(best, backbone=tiny_backbone)
    assert trained.model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1)
    with pytest.raises(RunError, match=r"backbone tiny_backbone was given in Python.*object again"):
        load_trained(best)
    with pytest.raises(RunError, match="the loss halved was given in Python"):
        trained.task.loss(torch.zeros(1, 1), torch.zeros(1, 1))


def test_resuming_takes_the_objects(recipe, run):
    given = with_objects(recipe, loss=halved, backbone=tiny_backbone)
    resumed = train_study(given, run, resume=True)
    predict(prepare(given, resumed), resumed)
    assert len(resumed.predictions)
    with pytest.raises(RunError, match="backbone tiny_backbone was given in Python"):
        Run(run).network.eval()
    assert Run(run, backbone=tiny_backbone).network
    with pytest.raises(RunError, match=r"loss: halved, backbone: tiny_backbone"):
        train_study(recipe, run, resume=True)


def test_a_written_recipe_without_its_object_is_refused_before_anything_is_read(recipe):
    named = with_objects(recipe, loss=halved)
    task = named.task.model_copy(update={"loss": type(named.task.loss)("halved")})
    with pytest.raises(RunError, match="the loss halved was given in Python"):
        build_task(named.model_copy(update={"task": task}), [])


def test_a_given_loss_takes_no_class_weights(recipe):
    weighted = recipe.task.model_copy(update={"class_weight": "balanced"})
    with pytest.raises(RecipeError, match="class_weight 'balanced' means nothing to loss 'python'"):
        with_objects(recipe.model_copy(update={"task": weighted}), loss=halved)


def test_a_partial_of_timm_is_a_backbone(recipe):
    import timm

    given = with_objects(recipe, backbone=partial(timm.create_model, "test_resnet", num_classes=0))
    model, loaded = build_network(given, 3)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert "given in Python" in str(loaded)
