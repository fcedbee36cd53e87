"""Adapters: what trains, what is saved, and that nobody downstream sees them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from four_blocks import network as four_blocks
from torch import nn
from torch.nn.utils import parametrize
from toy_training import FULL, HEAD, digests, training

from medtl.errors import RecipeError, RunError, SelectorError
from medtl.networks.freeze import plan_table
from medtl.networks.groups import layer_groups
from medtl.recipe.schema import parse_recipe
from medtl.run.build import build_stages
from medtl.training.activations import ActivationCache, plan_cache
from medtl.training.adapters import LowRank, adapt, merge, merged, parted
from medtl.training.callbacks import Watcher
from medtl.training.checkpoint import load_checkpoint, without_prefix
from medtl.training.fit import fit, rehearse
from medtl.training.stage import enter_stage

torch.set_num_threads(1)

IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def adapted(adapt, **changes):
    """The toy's last stage with adapters in place of its layers."""
    return replace(FULL, layer_decay=1.0, adapt=adapt, **changes)


def lora(rank, on="*"):
    return {"lora": {"rank": rank, "on": on}}


def outputs(model):
    with torch.no_grad():
        return model.eval()(IMAGES)


def trained_names(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "layer", [nn.Linear(5, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(4, 4, 3, groups=4)]
)
def test_the_sum_is_a_weight_and_two_thin_matrices(layer):
    weight = layer.weight.detach()
    low = LowRank(weight, 2, torch.Generator().manual_seed(0))
    assert torch.equal(low(weight), weight), "at first nothing is added"
    nn.init.normal_(low.up)
    added = (low(weight) - weight).flatten(1)
    assert int(torch.linalg.matrix_rank(added.detach())) == 2
    torch.testing.assert_close(added, low.up @ low.down)


def test_merged_is_unmerged(tmp_path):
    run = training(tmp_path / "run")
    enter_stage(run, adapted(lora(2)))
    for name, parameter in run.model.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(parameter)
    before, state = outputs(run.model), merged(run.model.state_dict())
    assert set(state) == set(training(tmp_path / "plain").model.state_dict())
    merge(run.model)
    torch.testing.assert_close(outputs(run.model), before, rtol=0, atol=1e-6)
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=1e-6)
    plain = training(tmp_path / "plain").model
    assert not torch.allclose(outputs(plain), before, atol=1e-3), "the matrices did something"


def test_rank_0_is_a_frozen_network(tmp_path):
    runs = [training(tmp_path / name) for name in ("low", "head")]
    fit(runs[0], [adapted(lora(0))])
    fit(runs[1], [replace(FULL, train="head")])
    assert digests(runs[0].model) == digests(runs[1].model)


@pytest.mark.parametrize(
    ("adapt", "expected"),
    [
        ("bitfit", {"stem.0.bias", "stem.1.bias", "layer1.0.bias", "layer1.1.bias"}),
        ("norm", {"stem.1.weight", "stem.1.bias", "layer1.1.weight", "layer1.1.bias"}),
        (
            lora(2, "layer1"),
            {f"layer1.0.parametrizations.weight.0.{part}" for part in ("up", "down")},
        ),
        (
            lora(1, ("st*0", "nothing")),
            {f"stem.0.parametrizations.weight.0.{part}" for part in ("up", "down")},
        ),
    ],
)
def test_what_is_named_trains_and_the_head_whole(tmp_path, adapt, expected):
    run = training(tmp_path / "run")
    optimizer = enter_stage(run, adapted(adapt))
    assert trained_names(run.model) == expected | {"head.3.weight", "head.3.bias"}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in run.model.parameters() if p.requires_grad}
    rows = plan_table(run.model, run.groups, rates=dict.fromkeys(("stem", "layer1", "head"), 1e-3))
    assert sum(row.trained for row in rows) == sum(p.numel() for p in held)
    rehearse(run, FULL, optimizer, None)
    enter_stage(run, HEAD)  # the next stage finds the network as it was
    assert trained_names(run.model) == {"head.3.weight", "head.3.bias"}


def test_only_what_is_named_moves_and_the_best_network_is_plain(tmp_path):
    run = training(tmp_path / "run")
    before = copy.deepcopy(run.model.state_dict())
    fit(run, [adapted(lora(2, "layer1"), epochs=3)])
    after = run.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"layer1.0.weight", "head.3.weight", "head.3.bias"}
    change = (after["layer1.0.weight"] - before["layer1.0.weight"]).flatten(1)
    assert int(torch.linalg.matrix_rank(change, rtol=1e-3)) <= 2
    assert not any(parametrize.is_parametrized(module) for module in run.model.modules())
    saved = without_prefix("model", load_checkpoint(run.folder / "best.safetensors")[0])
    assert saved.keys() == before.keys()
    assert all(torch.equal(saved[name], after[name]) for name in saved)


def test_treated_gammas_train_all_the_same():
    model = four_blocks()
    groups = layer_groups(model)
    every = [group.name for group in groups]
    adapt(model, groups, adapted(lora(0)), every, seed=0, kept=["backbone.layers.0.bn2.weight"])
    assert trained_names(model) == {"backbone.layers.0.bn2.weight", "head.1.weight", "head.1.bias"}


@pytest.mark.parametrize("ema", [None, 0.7])
def test_a_stopped_stage_goes_on_to_the_same_bits(tmp_path, ema):
    stages = [HEAD, adapted(lora(2), epochs=3), FULL]

    def run(name, watcher=None, *, resume=False):
        made = training(tmp_path / name, watcher, ema_decay=ema)
        return made, fit(made, stages, resume=resume)

    whole, position = run("whole")

    def stop(history):
        if len(history) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("again", Watcher(on_epoch=stop))
    kept = load_checkpoint(tmp_path / "again" / "last.safetensors")[0]
    assert without_prefix("adapter", kept)
    again, other = run("again", resume=True)
    assert digests(again.model) == digests(whole.model)
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in position.history]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in other.history] == timeless


def test_stored_activations_serve_adapters(tmp_path):
    stage = adapted(lora(2, "layer1"), train="head,layer1", epochs=4)
    runs = [training(tmp_path / name) for name in ("cached", "plain")]
    runs = [replace(run, train=replace(run.train, augment=None)) for run in runs]
    (tmp_path / "cache").mkdir()
    runs[0] = replace(runs[0], cache=ActivationCache(tmp_path / "cache", 1))
    enter_stage(runs[0], stage)
    assert "run once" in str(plan_cache(runs[0], stage))
    for run in runs:
        fit(run, [stage])
    for (name, one), other in zip(
        runs[0].model.state_dict().items(), runs[1].model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3, msg=name)


def test_the_names_are_those_that_users_type():
    model = four_blocks()
    groups = layer_groups(model)
    stage = adapted(lora(1, "layers.*conv1"))
    adapt(model, groups, stage, [group.name for group in groups], seed=0)
    names = {name.partition(".parametrizations")[0] for name in parted(model.state_dict())[1]}
    assert names == {f"backbone.layers.{number}.conv1" for number in range(4)}


def test_a_layer_that_is_not_there_is_a_fault(tmp_path):
    run = training(tmp_path / "run")
    with pytest.raises(
        SelectorError, match=r"no trained layer is called attn.*one of stem.0, layer1.0"
    ):
        enter_stage(run, adapted(lora(2, "attn")))
    with pytest.raises(RunError, match="no parameter trains"):
        enter_stage(training(tmp_path / "b"), adapted(lora(0), train="layer1"))


def recipe(stage, **changes):
    plain = {
        "study": {"question": "Is it?"},
        "data": {"manifest": "m.csv", "target": "t"},
        "image": {"modality": "cxr"},
        "finetune": {"stages": [{"name": "s", "train": "all", "epochs": 1, "lr": 1e-3, **stage}]},
    }
    return parse_recipe({**plain, **changes}, where="r")


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        ({"adapt": "bitfit", "batch_norm": "adapt"}, "adapt says which parameters train"),
        ({"adapt": "bit"}, "finetune.stages.0.adapt"),
        ({"adapt": {"lora": {"rank": -1, "on": "x"}}}, r"finetune.stages.0.adapt.lora.rank"),
        ({"adapt": {"lora": {"rank": 4}}}, r"finetune.stages.0.adapt.lora.on: this key is missing"),
    ],
)
def test_faults_are_said_where_they_are(stage, fault):
    with pytest.raises(RecipeError, match=fault):
        recipe(stage)


def test_adapters_do_not_stand_on_random_layers():
    random = {"backbone": "test_resnet", "weights": {"source": "none"}}
    parsed = recipe({"adapt": "bitfit"}, model=random)
    with pytest.raises(RunError, match="freezes layers of random weights"):
        build_stages(parsed, ["stem", "layer1", "head"])
    assert build_stages(recipe({}, model=random), ["stem", "head"])
    control = {**random, "weights": {"source": "none", "random_features": True}}
    assert build_stages(recipe({"adapt": "bitfit"}, model=control), ["stem", "head"])


def test_a_recipe_says_what_adapts():
    parsed = recipe({"adapt": {"lora": {"rank": 8, "on": ["blocks.*attn"]}}})
    assert parsed.finetune.stages[0].adapt == {"lora": {"rank": 8, "on": ("blocks.*attn",)}}
    assert parse_recipe(parsed.to_dict()) == parsed
    assert "adapt" not in recipe({}).to_dict()["finetune"]["stages"][0]
