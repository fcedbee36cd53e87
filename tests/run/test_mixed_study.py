"""`finetune.mix` in a recipe: refused where it lies, resumed to the same bits."""

from __future__ import annotations

import pytest
from resumed import stopped_and_resumed
from tiny_study import write_tiny_study

from medtl.errors import RecipeError
from medtl.recipe.schema import parse_recipe
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.plan import describe_plan

MIXED = "finetune.mix={mixup: 0.2}"


def recipe(**changes):
    given = {
        "study": {"question": "Is it?"},
        "data": {"manifest": "m.csv", "target": "t"},
        "image": {"modality": "cxr"},
        "finetune": {"mix": {"mixup": 0.2}},
    }
    return parse_recipe({**given, **changes}, where="r")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": {"modality": "mr"}}, "mixup on mr: overlaid anatomy does not exist"),
        (
            {"image": {"modality": "hand"}, "task": {"kind": "bone_age"}},
            "the quantity of a mixed image is not known",
        ),
        (
            {
                "data": {"manifest": "m.csv", "mask": "m"},
                "task": {"kind": "segmentation", "structures": {"lung": 1}},
            },
            "masks of mixed images overlap",
        ),
        ({"finetune": {"mix": {"mixup": 0}}}, "mixup"),
    ],
)
def test_what_has_no_meaning_is_refused(changes, reason):
    with pytest.raises(RecipeError, match=reason):
        recipe(**changes)


def test_who_knows_may():
    known = {"i_know": ("mixup",)}
    assert recipe(image={"modality": "mr"}, augment=known).finetune.mix.mixup == 0.2
    assert recipe().finetune.mix.asked == ("mixup",)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    path = write_tiny_study(tmp_path / "data", patients=16)
    parsed = read_recipe(path, [MIXED])
    whole = run_study(parsed, tmp_path / "whole")
    plain = run_study(read_recipe(path), tmp_path / "plain")
    again = stopped_and_resumed(parsed, tmp_path / "again", after=2)
    assert again.files.predictions.read_bytes() == whole.files.predictions.read_bytes()
    assert plain.files.predictions.read_bytes() != whole.files.predictions.read_bytes()
    lines = "\n".join(describe_plan(parsed))
    assert "Batches are mixed, mixup: CAUTION" in lines


def test_stored_activations_do_not_serve_mixtures(tmp_path):
    path = write_tiny_study(tmp_path / "data", patients=16)
    asked = [MIXED, "finetune.cached_views=1", "finetune.stages.0.epochs=3"]
    assert "what is learned changes the images" in "\n".join(
        describe_plan(read_recipe(path, asked))
    )
    assert "what is learned" not in "\n".join(describe_plan(read_recipe(path, asked[1:])))
