"""The loss in a recipe: a name, a name with options, or with its options beside it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from medtl.errors import RecipeError, RunError
from medtl.losses.auc import PairwiseLogistic
from medtl.losses.cross_entropy import CrossEntropy, Focal
from medtl.losses.given import GivenInPython
from medtl.losses.ordinal import DistancePenalisedCrossEntropy, LabelDistribution
from medtl.losses.quantity import Huber
from medtl.losses.segmentation import Dice, DiceFocal, FocalTversky, GeneralisedDice, Tversky
from medtl.recipe.schema import Recipe, parse_recipe
from medtl.recipe.task import LOSSES, NAMED, SHORT

LUNG = {"kind": "segmentation", "structures": {"lung": 1}}
HAND = {"kind": "bone_age"}


def parsed(**task: object) -> Recipe:
    """A recipe with this section `task`."""
    return parse_recipe(
        {
            "study": {"question": "?"},
            "data": {"manifest": "m.csv", "target": "y", "mask": "m"},
            "image": {"modality": "cxr"},
            "task": task,
        }
    )


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        ({}, CrossEntropy()),
        ({"loss": "focal"}, Focal()),
        ({"loss": "focal", "focal_gamma": 3, "focal_alpha": 0.25}, Focal(3.0, 0.25)),
        ({"loss": {"name": "focal", "gamma": 3, "alpha": 0.25}}, Focal(3.0, 0.25)),
        ({"loss": {"name": "focal", "gamma": 3}, "focal_alpha": 0.25}, Focal(3.0, 0.25)),
        ({"loss": {"name": "focal", "alpha": [0.2, 0.9]}}, Focal(alpha=(0.2, 0.9))),
        ({"loss": "focal", "label_smoothing": 0.1}, Focal(label_smoothing=0.1)),
        ({"label_smoothing": 0.1}, CrossEntropy(0.1)),
        ({"loss": "pairwise_logistic"}, PairwiseLogistic()),
        # A key of another loss of the same kind says nothing, as before.
        ({"loss": "cross_entropy", "focal_gamma": 3}, CrossEntropy()),
        ({**HAND, "loss": "huber", "huber_sd": 0.3}, Huber(0.3)),
        ({**HAND, "loss": {"name": "huber", "delta": 0.3}}, Huber(0.3)),
        ({**HAND, "loss": "dpce", "distance_strength": 10}, DistancePenalisedCrossEntropy(10.0)),
        ({**HAND, "loss": "label_distribution", "label_sd_months": 9}, LabelDistribution(0.75)),
        ({**LUNG, "loss": "dice", "dice_per": "batch"}, Dice("batch")),
        ({**LUNG, "loss": {"name": "dice", "per": "batch"}}, Dice("batch")),
        (
            {**LUNG, "loss": {"name": "generalised_dice", "weight": "simple"}},
            GeneralisedDice(weight="simple"),
        ),
        (
            {**LUNG, "loss": "dice_focal", "dice_per": "batch", "focal_gamma": 1},
            DiceFocal("batch", gamma=1.0),
        ),
        ({**LUNG, "loss": "tversky", "fp_weight": 0.1, "exponent": 2}, Tversky(fp_weight=0.1)),
        ({**LUNG, "loss": "focal_tversky", "fn_weight": 0.5}, FocalTversky(fn_weight=0.5)),
        ({**LUNG, "loss": {"name": "focal_tversky", "exponent": 0.9}}, FocalTversky(0.9)),
        ({"loss": {"name": "python", "what": "mine"}}, GivenInPython("mine")),
    ],
)
def test_a_loss_is_stated_in_any_of_three_ways(task, loss):
    recipe = parsed(**task)
    assert recipe.task.loss == loss
    assert parse_recipe(recipe.to_dict()) == recipe
    assert not {*SHORT} & {*recipe.to_dict()["task"]}


def test_two_ways_of_saying_one_loss_are_one_recipe():
    beside, inside = parsed(loss="focal", focal_gamma=3), parsed(loss={"name": "focal", "gamma": 3})
    assert beside == inside
    assert beside.fingerprint == inside.fingerprint != parsed(loss="focal").fingerprint


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"loss": {"name": "focal", "gama": 3}},
            "task.loss.gama: unknown option of focal. Did you mean 'gamma'?",
        ),
        ({"loss": {"name": "focal", "gamma": -1}}, "task.loss.gamma: got -1; expected greater"),
        ({"loss": "focl"}, "Did you mean 'focal'?"),
        ({"loss": {"name": "focl"}}, "task.loss: got 'focl'; expected one of cross_entropy"),
        ({"loss": {"gamma": 1}}, "task.loss.name: this key is missing. State {name: ...}"),
        ({"loss": 5}, "task.loss: got 5; expected a name, or a mapping with a name"),
        (
            {"loss": {"name": "focal", "gamma": 3}, "focal_gamma": 2},
            "task: focal_gamma is stated inside of loss, too; state it there alone",
        ),
        ({"loss": "focal", "focal_gamma": -1}, "task.focal_gamma: got -1; expected greater"),
        ({"huber_sd": 0.3}, "huber_sd means nothing to kind classification"),
        ({"loss": {"name": "huber", "delta": 1.0}}, "loss 'huber' is not one of classification"),
        (
            {"loss": "focal", "focal_alpha": 0.25, "class_weight": "balanced"},
            "task: class_weight 'balanced' sets the alpha of focal: state one of the two",
        ),
        (
            {"loss": {"name": "focal", "alpha": 0.25}, "class_weight": "balanced"},
            "task: class_weight 'balanced' sets the alpha of focal: state one of the two",
        ),
        (
            {"loss": "pairwise_logistic", "class_weight": "balanced"},
            "class_weight 'balanced' means nothing to loss 'pairwise_logistic'",
        ),
        ({"loss": {"name": "python"}}, "task.loss.what: this key is missing"),
    ],
)
def test_faults_name_the_loss_and_what_is_near(task, message):
    with pytest.raises(RecipeError) as error:
        parsed(**task)
    assert message in str(error.value)


def test_all_faults_are_reported_at_once():
    with pytest.raises(RecipeError) as error:
        parsed(loss={"name": "focal", "gama": 1}, kind="clas", label_smoothing=0.7)
    assert len(error.value.faults) == 3


def test_a_resolved_recipe_of_an_older_version_still_says_the_same():
    """Every default stood beside the loss then, those of other kinds as well."""
    written = {
        **{"kind": "segmentation", "loss": "focal_tversky", "structures": {"lung": 1}},
        **{"focal_gamma": 2.0, "class_weight": "none", "label_smoothing": 0.0, "huber_sd": 0.2},
        **{"class_months": 12.0, "decoding": "mean", "distance_strength": 100.0, "ignored": []},
        **{"label_sd_months": 12.0, "overlapping": False, "dice_per": "case", "fp_weight": 0.3},
        **{"fn_weight": 0.7, "exponent": 0.8},
    }
    assert parsed(**written).task.loss == FocalTversky(0.8)


def test_every_loss_has_its_word_and_its_defaults():
    for name, loss in NAMED.items():
        assert loss().name == name
        assert loss() == loss()
        assert "name=" not in repr(loss())
    options = {field.name: field.default for loss in NAMED.values() for field in fields(loss)}
    assert {option for option, _ in SHORT.values()} <= {*options}
    unscaled = {key: value for key, value in SHORT.items() if key != "label_sd_months"}
    assert all(options[option] == default for option, default in unscaled.values())
    assert all(losses for losses in LOSSES.values())


def test_a_loss_given_in_python_cannot_be_computed_from_its_name():
    with pytest.raises(RunError, match=r"the loss mine was given in Python. Give the object again"):
        GivenInPython("mine")(torch.zeros(1), torch.zeros(1))


def test_a_recipe_knows_its_losses_without_torch():
    code = "import sys, medtl.recipe.schema; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
