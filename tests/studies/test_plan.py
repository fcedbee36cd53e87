"""Plans: what a file may say, what is fixed before the first run, what a seed decides."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_study import RECIPE, write_tiny_study

from medtl.errors import MedtlError, RunError
from medtl.recipe.overrides import read_data
from medtl.recipe.schema import parse_recipe
from medtl.run.check import read_recipe
from medtl.storage.yaml import loads
from medtl.studies.ablation import zero_gamma_plan
from medtl.studies.conditions import (
    Plan,
    fix_plan,
    load_plan,
    read_plan,
    seeded,
    seeds_plan,
)

PIPELINES = Path(__file__).parents[2] / "pipelines"
TINY = loads(RECIPE, "tiny")


def write(folder, text):
    path = folder / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_conditions_of_a_file_keep_their_order(tmp_path):
    text = "reference: b\nmeasure: brier\nconditions: {c: [], b: ['run.seed=1'], a: []}\n"
    plan = read_plan(write(tmp_path, text), seeds=2)
    assert list(plan.conditions) == ["c", "b", "a"]
    assert (plan.reference, plan.measure, plan.seeds) == ("b", "brier", (0, 1))
    assert plan.pairs == (("c", 0), ("b", 0), ("a", 0), ("c", 1), ("b", 1), ("a", 1))


def test_factors_become_all_combinations(tmp_path):
    text = "factors: {x: {x0: [], x1: ['a=1']}, y: {y0: [], y1: ['b=1', 'c=2']}}\n"
    plan = read_plan(write(tmp_path, text), seeds=1)
    assert plan.conditions == {
        "x0+y0": (),
        "x0+y1": ("b=1", "c=2"),
        "x1+y0": ("a=1",),
        "x1+y1": ("a=1", "b=1", "c=2"),
    }
    assert plan.reference == "x0+y0"
    assert plan.factors["y"] == {"y0": ("x0+y0", "x1+y0"), "y1": ("x0+y1", "x1+y1")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("condition: {a: []}", "unknown key 'condition'"),
        ("question: why", "either conditions or factors"),
        ("conditions: {a: []}\nfactors: {x: {p: [], q: []}}", "either conditions or factors"),
        ("conditions: {a: run.seed=1}", "not a list of texts"),
        ("conditions: {}", "no conditions"),
        ("factors: 3", "factors is not a mapping"),
        ("factors: {x: {p: [], q: []}, y: {p: [], q: []}}", "cannot be told apart"),
        ("factors: {x: {p: []}}", "cannot be told apart"),
        ("conditions: {a/b: []}", "cannot be the name of a condition"),
        ("conditions: {a: []}\nreference: b", "the reference 'b' is no condition"),
        ("conditions: {a: []}\nvary: [luck]", "cannot vary luck"),
    ],
)
def test_faults_of_a_plan_are_said(tmp_path, text, message):
    with pytest.raises(MedtlError, match=message):
        read_plan(write(tmp_path, text), seeds=1)


def test_a_plan_is_fixed_before_the_first_run(tmp_path):
    recipe = parse_recipe(TINY)
    plan = seeds_plan(3)
    fix_plan(plan.to_dict(), recipe, tmp_path)
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert len(stored["plan_sha256"]) == 64
    assert load_plan(tmp_path) == plan
    fix_plan(plan.to_dict(), recipe, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json"]
    with pytest.raises(RunError, match=r"plan has changed since the first run \(seeds\)"):
        fix_plan(seeds_plan(4).to_dict(), recipe, tmp_path)
    other = parse_recipe({**TINY, "finetune": {"batch_size": 4}})
    with pytest.raises(RunError, match=r"plan has changed since the first run \(recipe\)"):
        fix_plan(plan.to_dict(), other, tmp_path)


def test_a_key_that_a_newer_medtl_adds_does_not_change_the_plan(tmp_path):
    recipe = parse_recipe(TINY)
    fix_plan(seeds_plan(1).to_dict(), recipe, tmp_path)
    stored = json.loads((tmp_path / "plan.json").read_text())
    del stored["recipe"]["finetune"]["clip_norm"]
    (tmp_path / "plan.json").write_text(json.dumps(stored))
    fix_plan(seeds_plan(1).to_dict(), recipe, tmp_path)


def test_a_folder_without_a_plan_is_no_study(tmp_path):
    with pytest.raises(RunError, match="holds no plan"):
        load_plan(tmp_path)


def test_separate_seeds_default_to_the_seed_of_the_run():
    recipe = parse_recipe({**TINY, "run": {"seed": 4}})
    assert [recipe.seed_of(s) for s in ("split", "init", "order", "augment")] == [0, 4, 4, 4]
    assert "seeds" not in recipe.to_dict()["run"]
    recipe = parse_recipe({**TINY, "run": {"seed": 4, "seeds": {"init": 9, "split": 2}}})
    assert [recipe.seed_of(s) for s in ("split", "init", "order", "augment")] == [2, 9, 4, 4]


def test_a_seed_decides_what_varies_and_nothing_else():
    recipe = parse_recipe({**TINY, "run": {"seed": 4}})
    everything = seeded(recipe, 7, ("split", "init", "order", "augment"))
    assert {everything.seed_of(s) for s in ("split", "init", "order", "augment")} == {7}
    some = seeded(recipe, 7, ("init", "order"))
    assert [some.seed_of(s) for s in ("split", "init", "order", "augment")] == [0, 7, 7, 4]


def test_seeds_reach_what_they_are_for(tmp_path):
    """A changed seed changes its own thing, and only that."""
    import torch

    from medtl.run.chain import build_training
    from medtl.run.prepare import read_study

    path = write_tiny_study(tmp_path / "data")

    def things(*overrides):
        recipe = read_recipe(path, ["augment.policy=safe", *overrides])
        prepared = read_study(recipe)
        training, _ = build_training(prepared, tmp_path)
        sample, index = training.train, 3
        return {
            "split": tuple(case.split for case in prepared.cases),
            "init": [p.detach().clone() for p in training.model.head.parameters()],
            "order": training.options.seed,
            "augment": [sample[(epoch, index)][0] for epoch in range(4)],
        }

    def same(first, second):
        if isinstance(first, list):
            return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        return first == second

    base = things()
    for name in ("split", "init", "order", "augment"):
        other = things(f"run.seeds.{name}=5")
        changed = {key for key in base if not same(base[key], other[key])}
        assert changed in ({name}, {name, "augment"} if name == "split" else {name})


def test_the_ablation_has_sixteen_conditions_that_are_recipes(tmp_path):
    text = RECIPE.replace("test_resnet", "resnet18")
    path = write_tiny_study(tmp_path, recipe=text)
    plan = zero_gamma_plan(read_recipe(path), range(5))
    assert len(plan.conditions) == 16
    assert plan.reference == "none"
    recipes = {name: read_recipe(path, listed) for name, listed in plan.conditions.items()}
    assert len({recipe.fingerprint for recipe in recipes.values()}) == 16
    assert recipes["last3-scale0.1"].finetune.zero_gamma.value == "scale:0.1"
    assert recipes["more-head-epochs"].finetune.stages[0].epochs == 3
    only = recipes["no-head-stage"].finetune.stages
    assert [(stage.train, stage.epochs) for stage in only] == [("all", 3)]
    assert recipes["batch-statistics"].finetune.stages[1].batch_norm == "adapt"
    assert recipes["no-warmup"].finetune.stages[1].warmup_epochs == 0


def test_the_ablation_needs_a_head_stage():
    one = [{"name": "full", "train": "all", "epochs": 1, "lr": 1e-3}]
    with pytest.raises(RunError, match="trains the head first"):
        zero_gamma_plan(parse_recipe({**TINY, "finetune": {"stages": one}}), range(2))


def test_a_plan_needs_something_that_varies():
    with pytest.raises(RunError, match="cannot vary nothing"):
        Plan({"a": ()}, "a", (0,), vary=())


def shipped(overrides):
    """The recipe of the shipped studies under some overrides, without looking for its images."""
    return parse_recipe(read_data(PIPELINES / "zero_gamma_chest_xray.yaml", overrides))


def test_the_shipped_ablation_is_the_derived_one():
    plan = read_plan(PIPELINES / "plans" / "zero_gamma.yaml", seeds=5)
    derived = zero_gamma_plan(shipped(()), range(5))
    assert set(plan.conditions) == set(derived.conditions)
    for name, overrides in plan.conditions.items():
        one, other = shipped(overrides).finetune, shipped(derived.conditions[name]).finetune
        assert one == other, name


def test_the_shipped_factorial_has_eight_different_cells():
    plan = read_plan(PIPELINES / "plans" / "staged_tuning_factorial.yaml", seeds=5)
    recipes = {name: shipped(overrides) for name, overrides in plan.conditions.items()}
    assert len({recipe.fingerprint for recipe in recipes.values()}) == len(recipes) == 8
    assert shipped(()) == recipes[plan.reference]
    epochs = {tuple(s.epochs for s in recipe.finetune.stages) for recipe in recipes.values()}
    assert epochs == {(4, 8, 4)}


def test_the_plan_of_backbones_fits_the_chest_recipe():
    plan = read_plan(PIPELINES / "plans" / "backbones.yaml", seeds=2)
    assert plan.reference == "resnet50"
    chest = PIPELINES / "chest_xray.yaml"
    found = [
        parse_recipe(read_data(chest, own), where=name).model
        for name, own in plan.conditions.items()
    ]
    assert [(m.backbone, m.weights.source) for m in found] == [
        ("resnet50", "timm"),
        ("densenet121", "timm"),
        ("convnext_tiny", "timm"),
        ("tf_efficientnet_lite0", "bundled"),
    ]


@pytest.mark.parametrize("path", sorted((PIPELINES / "plans").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_conditions_of_a_shipped_plan_are_recipes(path):
    """Of the pipeline that it names, and none is another's twin."""
    named = re.search(r"pipelines/(\w+\.yaml)", path.read_text("utf-8"))
    pipeline = PIPELINES / (named[1] if named else "chest_xray.yaml")
    plan = read_plan(path, seeds=2)
    recipes = [parse_recipe(read_data(pipeline, own), where=path.name)
               for own in plan.conditions.values()]  # fmt: skip
    assert len({recipe.fingerprint for recipe in recipes}) == len(recipes)
