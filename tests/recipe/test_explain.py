"""Every key of a recipe in words."""

from __future__ import annotations

import pytest

from medtl.errors import RecipeError
from medtl.recipe.explain import explain, recipe_keys


def test_every_key_says_what_it_does_and_takes():
    keys = recipe_keys()
    assert len(keys) > 150
    assert not [key.name for key in keys if not key.meaning.strip() or not key.takes]
    assert len({(key.name, key.of) for key in keys}) == len(keys)


def test_a_key_a_stage_and_a_section():
    assert "at least 32, at most 2048; default 224" in explain("image.size")
    assert explain("finetune.stages.2.epochs") == explain("finetune.stages.epochs")
    assert explain("finetune.stages.N.epochs").startswith("finetune.stages.N.epochs: ")
    section = explain("run")
    assert "run.device" in section
    assert "data.target" not in section
    assert "task.loss.gamma of focal" in explain("task.loss")
    assert explain("").startswith("study: ")


@pytest.mark.parametrize(
    ("key", "hint"),
    [("seed", "run.seed"), ("image.sise", "image.size"), ("finetune.epochs", "stages.epochs")],
)
def test_a_key_that_is_none(key, hint):
    with pytest.raises(RecipeError, match=rf"no key '{key}'.*{hint}"):
        explain(key)
