"""Every recipe that is shipped validates, is short, and the editors' schema is the code's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from medtl.errors import RecipeError
from medtl.networks.names import check_backbone, check_volume_network
from medtl.networks.pretrained.cards import bundled_cards
from medtl.recipe.schema import Recipe, parse_recipe
from medtl.run.build import build_augmenter, build_options, build_stages
from medtl.run.check import read_recipe
from medtl.storage.yaml import load_yaml

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*(ROOT / "pipelines").glob("*.yaml"), *(ROOT / "medtl/demo").glob("*.yaml")])
SCHEMA = ROOT / "pipelines" / "schema.json"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipe_validates_and_builds(path):
    recipe = parse_recipe(load_yaml(path), where=path.name)
    is_of_volumes = recipe.image.spacing is not None
    (check_volume_network if is_of_volumes else check_backbone)(recipe.model.backbone)
    assert recipe.model.weights.source != "bundled" or recipe.model.backbone in bundled_cards()
    assert len(build_stages(recipe, ())) == len(recipe.finetune.stages)
    assert build_options(recipe).seed == recipe.run.seed
    build_augmenter(recipe)
    assert len(path.read_text().splitlines()) <= 40, "a recipe is short; defaults do the work"


def test_there_are_recipes():
    assert {path.name for path in RECIPES} >= {"chest_xray.yaml", "chest.yaml"}


def test_the_editors_schema_is_the_codes():
    schema = json.dumps(Recipe.model_json_schema(), indent=1) + "\n"
    if os.environ.get("MEDTL_WRITE_GOLDEN"):
        SCHEMA.write_text(schema)
    assert SCHEMA.read_text() == schema, "run MEDTL_WRITE_GOLDEN=1 make test to write it again"


def test_a_resolved_recipe_is_a_recipe():
    recipe = parse_recipe(load_yaml(ROOT / "pipelines" / "chest_xray.yaml"))
    again = parse_recipe(recipe.to_dict())
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint
    other = parse_recipe({**recipe.to_dict(), "run": {"seed": 1}})
    assert other.fingerprint != recipe.fingerprint


def test_a_table_in_place_of_a_recipe_is_named(tmp_path):
    (tmp_path / "films.csv").write_text("image,patient_id\na.png,1\n")
    with pytest.raises(RecipeError, match=r"a table, and no recipe\. Make one of it: medtl init f"):
        read_recipe(tmp_path / "films.csv")


def recipe_of(data, prevalence=None):
    return parse_recipe({
        "study": {"question": "Is it there?", "prevalence": prevalence},
        "data": {"manifest": "films.csv", **data}, "image": {"modality": "cxr"},
    })  # fmt: skip


NAMED = {"target": ["mass", "ptx"], "names": {"ptx": "pneumothorax"}}
GRADES = {"target": "grade", "classes": ["none", "mild"]}


@pytest.mark.parametrize(
    ("data", "prevalence", "said"),
    [
        (NAMED, {"ptx": 0.1}, "is stated for ptx; the findings are mass, pneumothorax"),
        (NAMED, {"mass": 0.1, "mas": 0.1}, "is stated for mas; the findings are mass"),
        ({"target": "x", "positive": "yes"}, {"y": 0.1}, "is stated for y; the findings are x"),
        (GRADES, {"sever": 0.1}, "is stated for sever; the findings are grade, none, mild"),
        ({"target": ["mass", "mass"]}, None, "target names mass twice"),
        ({"target": "grade", "classes": ["a", "b", "a"]}, None, "classes names a twice"),
    ],
)
def test_a_finding_that_there_is_not_is_a_fault_before_the_training(data, prevalence, said):
    with pytest.raises(RecipeError, match=said):
        recipe_of(data, prevalence)


@pytest.mark.parametrize(
    ("data", "prevalence"),
    [
        (NAMED, {"mass": 0.1, "pneumothorax": 0.2}), (NAMED, 0.1), (GRADES, {"mild": 0.2}),
        ({"target": "x"}, {"a cell of x": 0.1}), ({"target": "x", "positive": "yes"}, {"x": 0.1}),
    ],
)  # fmt: skip
def test_a_finding_that_there_may_be_has_a_prevalence(data, prevalence):
    assert recipe_of(data, prevalence).study.prevalence == prevalence
