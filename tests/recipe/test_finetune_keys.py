"""Presets, zero-gamma and reuse_until from the recipe to a run and back from its checkpoint."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from tiny_study import RECIPE, write_tiny_study

from medtl.data.reader import decode_cases
from medtl.errors import RecipeError, RunError, SelectorError
from medtl.io.cost import Limits
from medtl.networks.groups import layer_groups
from medtl.recipe.schema import parse_recipe
from medtl.run.build import build_augmenter, build_cache, build_decoder, build_stages
from medtl.run.chain import train_study
from medtl.run.check import read_recipe
from medtl.run.kinds import UnitAugment
from medtl.run.plan import describe_plan
from medtl.run.trained import load_trained
from medtl.storage.cache import cache_folder
from medtl.storage.yaml import dump_yaml
from medtl.types import ZeroGamma

GROUPS = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    return write_tiny_study(tmp_path_factory.mktemp("study"), patients=16)


@pytest.fixture(scope="module")
def preset_file(tmp_path_factory):
    before, _, after = RECIPE.partition("  stages:")
    text = f"{before}  preset: lp_ft\nrun:{after.partition('run:')[2]}"
    return write_tiny_study(tmp_path_factory.mktemp("preset"), patients=16, recipe=text)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ZeroGamma("none")),
        (["select=last:3"], ZeroGamma("last:3")),
        (["select=last:3", "value=1"], ZeroGamma("last:3", value=1.0)),
        (["select=last:3", "value=scale:0.1"], ZeroGamma("last:3", "scale:0.1")),
        (
            ["select=[a, b]", "value=scale:.5", "beta=zero"],
            ZeroGamma(("a", "b"), "scale:.5", "zero"),
        ),
        (["select=random:3@7", "value=remove"], ZeroGamma("random:3@7", "remove")),
        (
            ["select=all", "when=full", "lr_mult=10", "recalibrate=true"],
            ZeroGamma("all", lr_mult=10.0, when="full", recalibrate=True),
        ),
    ],
)
def test_overrides_of_zero_gamma(recipe_file, overrides, expected):
    recipe = read_recipe(recipe_file, [f"finetune.zero_gamma.{text}" for text in overrides])
    assert recipe.finetune.zero_gamma == expected
    assert parse_recipe(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("value=2", "state 0, 1, scale:0.1"),
        ("value=scale:x", "state 0, 1, scale:0.1"),
        ("value=removed", "state 0, 1, scale:0.1"),
        ("when=top", "zero_gamma.when 'top' is no stage: head, full"),
        ("lr_mult=-1", "greater than or equal to 0"),
    ],
)
def test_faults_of_zero_gamma(recipe_file, override, match):
    with pytest.raises(RecipeError, match=match):
        read_recipe(recipe_file, [f"finetune.zero_gamma.{override}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("1.lr.hed=1", "finetune.stages.1.lr.hed: unknown key. Did you mean 'head'?"),
        ("0.epoch=1", "finetune.stages.0.epoch: unknown key. Did you mean 'epochs'?"),
        ("0.epochs=0", "finetune.stages.0.epochs: got 0; expected greater than or equal to 1"),
        ("0.lr={base: 1}", "finetune.stages.0.lr.head: this key is missing"),
        ("0.batch_norm=frozn", "finetune.stages.0.batch_norm: got 'frozn'; expected one of frozen"),
        ("0.layer_decay=2", "finetune.stages.0.layer_decay: got 2; expected less than"),
        ("0.train=5", "finetune.stages.0.train: got 5; expected a text or a list"),
    ],
)
def test_faults_of_stages(recipe_file, override, message):
    with pytest.raises(RecipeError) as error:
        read_recipe(recipe_file, [f"finetune.stages.{override}"])
    assert message in str(error.value)


def test_a_stage_of_the_recipe_is_the_one_that_trains(recipe_file):
    adapting = ["finetune.stages.1.batch_norm=adapt", "finetune.batch_size=32"]
    recipe = read_recipe(recipe_file, adapting)
    assert build_stages(recipe, GROUPS) is recipe.finetune.stages
    head, full = recipe.finetune.stages
    assert head.lr == {"head": 1e-2, "base": 1e-2}  # stated as one number
    assert (head.policies, full.policies) == ({}, {"all": "adapt"})
    union = replace(full, train=("head", "last:1"), batch_norm={"last:1": "frozen_stats"})
    assert (union.selector, union.policies) == ("head,last:1", {"last:1": "frozen_stats"})


@pytest.mark.parametrize("size", [2, 31])
def test_batch_norm_that_adapts_needs_the_batches_that_are_documented(recipe_file, size):
    """It was accepted at 2, where the last image of an odd split ended in a ValueError of torch."""
    stated = ["finetune.stages.1.batch_norm={last:1: adapt}", f"finetune.batch_size={size}"]
    with pytest.raises(
        RunError, match=rf"batches of {size} in stage 'full'.*at least 32.*frozen_st"
    ):
        build_stages(read_recipe(recipe_file, stated), GROUPS)
    assert build_stages(read_recipe(recipe_file, stated[1:]), GROUPS)


def test_a_first_stage_that_freezes_the_new_head_is_refused_with_the_right_one(recipe_file):
    recipe = read_recipe(recipe_file, ["finetune.stages.0.train=last:1"])
    with pytest.raises(RunError, match=r"first stage, 'head', trains last:1.*\[head, last:1\]"):
        build_stages(recipe, GROUPS)
    later = read_recipe(recipe_file, ["finetune.stages.1.train=last:1"])
    assert build_stages(later, GROUPS)[1].train == "last:1"


def test_random_layers_are_not_frozen_unless_the_recipe_says_that_it_means_to(recipe_file):
    means_to = read_recipe(recipe_file, [])
    assert means_to.model.weights.random_features
    assert build_stages(means_to, GROUPS)
    weights = means_to.model.weights.model_copy(update={"random_features": None})
    model = means_to.model.model_copy(update={"weights": weights})
    silent = means_to.model_copy(update={"model": model})
    with pytest.raises(RunError, match="trains head, and freezes layers of random weights"):
        build_stages(silent, GROUPS)
    whole = replace(means_to.finetune.stages[1], name="whole")
    trained = silent.finetune.model_copy(update={"stages": (whole, *silent.finetune.stages)})
    assert len(build_stages(silent.model_copy(update={"finetune": trained}), GROUPS)) == 3


def test_limits_of_the_recipe_are_those_of_the_reader(recipe_file):
    recipe = read_recipe(recipe_file, ["data.limits.pixels_per_frame=5"])
    assert recipe.data.limits == Limits(pixels_per_frame=5)
    with pytest.raises(RecipeError, match=r"data\.limits\.inflate_ratio: got 0; expected greater"):
        read_recipe(recipe_file, ["data.limits.inflate_ratio=0"])


def test_a_block_is_removed_at_the_start_or_not_at_all(recipe_file):
    keys = ["finetune.zero_gamma.value=remove", "finetune.zero_gamma.when=full"]
    with pytest.raises(RecipeError, match="can only be removed at the start"):
        read_recipe(recipe_file, keys)


def test_a_preset_stands_instead_of_stages(recipe_file, preset_file):
    recipe = read_recipe(preset_file)
    assert [stage.name for stage in build_stages(recipe, GROUPS)] == ["head", "full"]
    assert parse_recipe(recipe.to_dict()) == recipe
    gradual = read_recipe(preset_file, ["finetune.preset=gradual"])
    assert len(build_stages(gradual, GROUPS)) == len(GROUPS)
    with pytest.raises(RecipeError, match="state either stages or a preset"):
        read_recipe(recipe_file, ["finetune.preset=lp_ft"])
    with pytest.raises(RecipeError, match="state either stages or a preset"):
        read_recipe(recipe_file, ["finetune.stages=[]"])
    with pytest.raises(RecipeError, match="expected one of linear_probe, lp_ft"):
        read_recipe(preset_file, ["finetune.preset=lpft"])


def test_zero_gamma_waits_for_a_stage_of_the_preset(preset_file):
    recipe = read_recipe(preset_file, ["finetune.zero_gamma.when=full"])
    assert len(build_stages(recipe, GROUPS)) == 2
    recipe = read_recipe(preset_file, ["finetune.zero_gamma.when=top"])
    with pytest.raises(RunError, match="'top' is no stage of the preset lp_ft; expected start or"):
        build_stages(recipe, GROUPS)


def test_the_plan_shows_the_preset_and_what_happens_to_which_block(preset_file, tmp_path):
    keys = ["finetune.zero_gamma.select=last:1", "finetune.zero_gamma.value=scale:0.1"]
    text = "\n".join(describe_plan(read_recipe(preset_file, [*keys, "finetune.preset=bn_only"])))
    assert "Zero-gamma, before the first stage:" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("  layer4")]
    assert [" ".join(row[-4:]) for row in rows[1:]] == ["gamma x 0.1: layer4.0"] * 2
    assert "Stage affine: 20 epochs, cosine" in text
    assert "batch norm bn_only" in text


def test_an_ineligible_block_stops_the_check(recipe_file):
    recipe = read_recipe(recipe_file, ["finetune.zero_gamma.select=layer4.9"])
    with pytest.raises(SelectorError, match=r"selects no layer; expected one of layer1.0, layer2"):
        list(describe_plan(recipe))


@pytest.mark.parametrize(
    ("overrides", "groups"),
    [
        (["finetune.zero_gamma.select=layer4.0", "finetune.zero_gamma.value=remove"], GROUPS),
        (["model.reuse_until=layer2"], ["stem", "layer1", "layer2", "head"]),
        (
            [
                "model.reuse_until=layer3",
                "finetune.zero_gamma.select=last:1",
                "finetune.ema_decay=0.5",
            ],
            ["stem", "layer1", "layer2", "layer3", "head"],
        ),
    ],
    ids=["removed", "truncated", "both"],
)
def test_a_changed_network_comes_back_from_its_checkpoint(recipe_file, tmp_path, overrides, groups):
    recipe = read_recipe(recipe_file, overrides)
    best = train_study(recipe, tmp_path / "run").checkpoint
    trained = load_trained(best)
    assert [group.name for group in layer_groups(trained.model)] == groups
    whole = train_study(read_recipe(recipe_file), tmp_path / "whole").trained
    sizes = [sum(p.numel() for p in t.model.parameters()) for t in (trained, whole)]
    assert sizes[0] < sizes[1]
    assert trained.model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1)


def test_the_plan_says_what_a_cache_would_save_and_where_it_lies(recipe_file):
    keys = ["finetune.cached_views=2", "finetune.stages.0.epochs=5", "run.cache_gb=1.5"]
    text = "\n".join(describe_plan(read_recipe(recipe_file, keys)))
    assert "stem to layer4 run once for each of 2 views, not in 5 epochs: at most 2.5" in text
    assert "frozen layers: run in every epoch: 2 epochs do not come back to 2 views" in text
    assert f"Cache: at most 1.5 GB in {cache_folder('activations')}; safe to delete" in text
    assert "Computing: precision fp32: the device is a CPU" in text


@pytest.mark.parametrize("key", ["finetune.cached_views=0", "run.cache_gb=0"])
def test_without_a_cache_all_layers_run_in_every_epoch(recipe_file, key):
    recipe = read_recipe(recipe_file, ["finetune.cached_views=2", key])
    assert build_cache(recipe) is None
    assert (build_decoder(recipe) is decode_cases) == ("cache_gb" in key)


def test_a_cached_run_leaves_what_another_run_finds(recipe_file, tmp_path):
    keys = ["finetune.cached_views=1", "finetune.stages.0.epochs=3", "augment.policy=none"]
    losses = []
    for name, views in (("full", 0), ("cached", 1), ("again", 1)):
        recipe = read_recipe(recipe_file, [*keys, f"finetune.cached_views={views}"])
        train_study(recipe, tmp_path / name)
        with (tmp_path / name / "history.csv").open() as file:
            losses.append([row["val_loss"] for row in csv.DictReader(file)])
    assert losses[0] == losses[1] == losses[2]
    said = [(tmp_path / name / "log.txt").read_text() for name in ("full", "cached", "again")]
    assert ["run once for each of 1 views" in text for text in said] == [False, True, True]
    assert "decoded images are there from an earlier run" in said[2]


def test_the_augmentation_says_all_that_it_depends_on(recipe_file):
    """Its repr is part of the key of stored activations: no address, every parameter."""
    said = [repr(UnitAugment(build_augmenter(read_recipe(recipe_file, keys)))) for keys in (
        [], [], ["augment.probability=0.25"], ["image.modality=hand"],
    )]  # fmt: skip
    assert said[0] == said[1]
    assert len(set(said)) == 3
    assert " at 0x" not in said[0]


def test_a_decoder_needs_the_whole_encoder(recipe_file):
    from medtl.run.build import build_network

    recipe = read_recipe(recipe_file, ["model.reuse_until=layer2"])
    task = recipe.task.model_copy(update={"kind": "segmentation"})
    with pytest.raises(RunError, match="a decoder needs the whole encoder"):
        build_network(recipe.model_copy(update={"task": task}), 1)


def test_the_resolved_recipe_is_yaml_that_reads_back(preset_file, tmp_path):
    recipe = read_recipe(preset_file)
    path = tmp_path / "again.yaml"
    path.write_text(dump_yaml(recipe.to_dict()), encoding="utf-8")
    assert read_recipe(path).finetune == recipe.finetune
