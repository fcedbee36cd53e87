"""Bone age from the recipe on: its keys, its faults, its network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medtl.errors import RecipeError
from medtl.losses.quantity import L1
from medtl.networks.heads import SharedLinear
from medtl.preprocess.warp import linear_part
from medtl.recipe.schema import parse_recipe
from medtl.run.build import build_augmenter, build_network, build_task
from medtl.storage.yaml import load_yaml
from medtl.types import Case

RECIPE = Path(__file__).parents[2] / "pipelines" / "bone_age.yaml"
CASES = [
    Case(str(n), str(n), Path("x"), {"boneage_months": str(12 * n)}, {"sex": "FM"[n % 2]})
    for n in range(3, 18)
]


def recipe(**task):
    data = load_yaml(RECIPE)
    data["task"] = {"kind": "bone_age", **task}
    data["model"] = {"backbone": "resnet18", "weights": "none"}
    return data


def test_the_shipped_recipe_makes_the_task():
    task = build_task(parse_recipe(load_yaml(RECIPE)), CASES)
    assert task.labels == ("bone_age_months",)
    assert (task.outputs, task.inputs.width) == (1, 1)
    assert task.inputs(CASES[:2]).tolist() == [[8.0], [-8.0]]


def test_the_loss_of_the_kind_is_the_default():
    assert parse_recipe(recipe()).task.loss == L1()


def test_a_resolved_recipe_is_the_same_recipe():
    resolved = parse_recipe(recipe(loss="coral", class_months=24))
    assert parse_recipe(resolved.to_dict()) == resolved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": {"kind": "bone_age", "loss": "focal"}}, "'focal' is not one of bone_age: l1"),
        ({"task": {"kind": "classification", "loss": "l1"}}, "'l1' is not one of classification"),
        (
            {"task": {"kind": "bone_age", "class_weight": "balanced"}},
            "class_weight means nothing to kind bone_age",
        ),
        ({"task": {"kind": "classification"}}, "data.sex is an input of kind bone_age"),
        (
            {"data": {"manifest": "m.csv", "target": ["a", "b"]}},
            "bone age has one target column; data.target names 2",
        ),
    ],
)
def test_faults(change, message):
    with pytest.raises(RecipeError) as error:
        parse_recipe({**load_yaml(RECIPE), **change})
    assert message in str(error.value)


@pytest.mark.parametrize("loss", ["l1", "label_distribution", "coral", "corn"])
def test_the_network_learns_from_image_and_sex(loss):
    spec = parse_recipe(recipe(loss=loss, class_months=24))
    task = build_task(spec, CASES)
    model, _ = build_network(spec, task.outputs, extra=task.inputs.width)
    model.set_bias(task.head_bias(CASES).tolist())
    assert isinstance(model.head.linear, SharedLinear) == (loss == "coral")
    model.eval()
    images, sex = torch.zeros(len(CASES), 3, 32, 32), torch.from_numpy(task.inputs(CASES))
    outputs = model(images, sex)
    task.loss(outputs, torch.from_numpy(task.targets(CASES))).backward()
    assert model.head.linear.weight.grad[:, -1].abs().max() > 0  # the column of the sex
    months = task.decode(outputs.detach())
    assert months.shape == (len(CASES), 1)
    assert months.numpy() == pytest.approx(120, abs=20)  # untrained: what the ages say alone


def test_augmentation_of_hands_never_fakes_maturity():
    """Bone size and bone shape carry the age: the default warps keep every distance."""
    augmenter = build_augmenter(parse_recipe(load_yaml(RECIPE)))
    rng = np.random.default_rng(0)
    for _ in range(500):
        steps = augmenter.draw(rng, (128, 128))
        assert {"horizontal_flip", "vertical_flip", "quarter_turn"}.isdisjoint(
            step.name for step in steps
        )
        moved = linear_part({step.name: step.parameters for step in steps})
        np.testing.assert_allclose(moved @ moved.T, np.eye(2), atol=1e-9)
        assert np.linalg.det(moved) > 0
