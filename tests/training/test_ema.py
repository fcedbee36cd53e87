"""The moving average: by hand, against timm's, and that it is what a run keeps."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from four_blocks import moved
from timm.utils import ModelEmaV3
from torch import nn
from toy_training import FULL, Toy, training

from medtl.training.callbacks import Watcher
from medtl.training.checkpoint import load_checkpoint, without_prefix
from medtl.training.ema import MovingAverage
from medtl.training.fit import fit

WARM = 10**6
"""A step at which every decay of these tests is in force."""


def test_the_average_follows_quickly_at_first():
    """Without a warm-up the weights of a short stage were judged where they began."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = MovingAverage(model, 0.25)
    nn.init.constant_(model.weight, 1.0)
    seen = []
    for number in range(4):  # decays 1/10, 2/11, 3/12, then the stated 0.25 in place of 4/13
        average.update(model, number)
        seen.append(1 - average.average["weight"].item())
    assert seen == pytest.approx([1 / 10, 2 / 110, 2 / 440, 2 / 1760], rel=1e-4)


def test_without_a_warm_up_the_decay_is_the_stated_one_from_the_first_step():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = MovingAverage(model, 0.9, warmup=False)
    nn.init.constant_(model.weight, 1.0)
    average.update(model, 0)
    assert average.average["weight"].item() == pytest.approx(0.1)


def test_a_short_training_is_kept_near_its_weights(tmp_path, monkeypatch):
    """Few steps an epoch and a decay of .99: the kept model was at chance, the weights not."""
    stage = replace(FULL, lr={"head": 3e-2, "base": 3e-2}, warmup_epochs=0)
    run = training(tmp_path / "run", ema_decay=0.99)
    warmed = fit(run, [stage]).history[-1]["val_loss"]
    update = MovingAverage.update
    monkeypatch.setattr(MovingAverage, "update", lambda own, model, _: update(own, model, WARM))
    run = training(tmp_path / "cold", ema_decay=0.99)
    cold = fit(run, [stage]).history[-1]["val_loss"]  # the negative control
    weights = fit(training(tmp_path / "weights"), [stage]).history[-1]["val_loss"]
    assert weights < warmed < weights + 0.1 < cold


def test_a_stage_goes_on_from_the_average_of_the_stage_before(tmp_path):
    seen = {}

    def on_step(stage, _epoch, done, _batches):
        seen.setdefault(stage.name, copy.deepcopy(run.model.state_dict()) if done == 1 else None)

    run = training(tmp_path / "run", watcher=Watcher(on_step=on_step), ema_decay=0.8)
    fit(run, [replace(FULL, name="first")])
    kept = without_prefix("model", load_checkpoint(tmp_path / "run" / "best.safetensors")[0])
    still = {"head": 1e-9, "base": 1e-9}
    run = training(tmp_path / "again", watcher=Watcher(on_step=on_step), ema_decay=0.8)
    fit(run, [replace(FULL, name="first"), replace(FULL, name="second", lr=still)])
    for name, tensor in kept.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(seen["second"][name], tensor, rtol=0, atol=1e-6)


def test_most_of_the_old_average_stays_in_each_step():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = MovingAverage(model, 0.9)
    for trained, expected in ((3.0, 1.2), (3.0, 1.38)):
        nn.init.constant_(model.weight, trained)
        average.update(model, WARM)
        assert average.average["weight"].item() == pytest.approx(expected)


@pytest.mark.parametrize("decay", [0.25, 0.9, 0.999])
def test_it_is_timms_average_to_the_bit_and_statistics_are_copied(decay):
    model = Toy()
    model.head.requires_grad_(False)
    ours = MovingAverage(model, decay)
    theirs = ModelEmaV3(model, decay=decay, exclude_buffers=True)
    for _ in range(3):  # steps, long after the warm-up, of which timm has another form
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter))
            model.stem[1].running_mean.add_(1.0)
        ours.update(model, WARM)
        theirs.update(model)
    assert not moved(theirs.module.state_dict(), ours.average)
    assert torch.equal(ours.average["stem.1.running_mean"], model.stem[1].running_mean)
    assert moved(model.state_dict(), ours.average)  # the negative control


def test_the_model_has_its_own_weights_again_after_a_validation_fails():
    model = Toy()
    average = MovingAverage(model, 0.5)
    nn.init.constant_(model.head[3].weight, 7.0)
    before = copy.deepcopy(model.state_dict())

    def fail():
        with average.applied(model):
            assert moved(before, model.state_dict()) == {"head.3.weight"}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not moved(before, model.state_dict())


def test_the_best_checkpoint_holds_the_average_and_the_last_one_the_weights(tmp_path):
    """An average kept by timm beside the run is what the run keeps."""
    seen = {}

    def on_step(*_):
        if "average" not in seen:
            start = Toy()
            seen["average"] = ModelEmaV3(start, decay=0.8, exclude_buffers=True)
        number = seen["number"] = seen.get("number", -1) + 1
        seen["average"].decay = min(0.8, (1 + number) / (10 + number))
        seen["average"].update(run.model)
        seen["weights"] = copy.deepcopy(run.model.state_dict())

    run = training(tmp_path / "run", watcher=Watcher(on_step=on_step), ema_decay=0.8)
    fit(run, [FULL])
    expected = seen["average"].module.state_dict()
    best, meta = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert meta["position"]["stopping"]["best_epoch"] == 1, "both epochs are in the average"
    assert not moved(expected, without_prefix("model", best))
    assert not moved(expected, run.model.state_dict())
    assert moved(expected, seen["weights"])
