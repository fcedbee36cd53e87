"""Training on stored activations against training in full: the same bits where it must be."""

from __future__ import annotations

import logging
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from four_blocks import FourBlocks, bits, moved, noisy, samples, standardised
from torch import nn

from medtl.errors import RunError
from medtl.losses.penalty import Penalty
from medtl.networks.backbones import Classifier
from medtl.networks.zero_gamma import GammaSurgery
from medtl.storage.interrupt import STOP_SIGNALS
from medtl.tasks.findings import Findings
from medtl.training import activations
from medtl.training import fit as loop
from medtl.training.activations import plan_cache
from medtl.training.callbacks import Listeners, Watcher
from medtl.training.checkpoint import load_checkpoint, without_prefix
from medtl.training.fit import fit, rehearse
from medtl.training.options import ActivationCache, Options, Training
from medtl.training.runtime import Runtime
from medtl.training.stage import enter_stage
from medtl.types import Stage, ZeroGamma

torch.set_num_threads(1)

HEAD = Stage("head", "head", 5, {"head": 1e-2}, schedule="cosine", patience=9)
TOP = Stage("top", "head,last:1", 5, {"head": 1e-2, "base": 1e-3}, patience=9)
VIEWS = 2


def training(
    folder: Path, views: int | None, *, augment=noisy, watcher=None, **options
) -> Training:
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "cache").mkdir(exist_ok=True)
    torch.manual_seed(0)
    head = nn.Sequential(nn.Dropout(0.3), nn.Linear(4 + options.pop("extra", 0), 1))
    model, plan = Classifier(FourBlocks(), head), options.pop("zero_gamma", None)
    train = samples(22, 1, augment=augment)
    return Training(
        model=model,
        task=Findings(labels=("bright",)),
        train=train,
        val=samples(10, 2),
        can_watch=False,
        options=Options(batch_size=8, lr_batch=8, **options),
        runtime=Runtime("cpu"),
        folder=folder,
        callbacks=() if watcher is None else (watcher,),
        surgery=None if plan is None else GammaSurgery(model, plan, train[0, 0].images[None]),
        cache=None if views is None else ActivationCache(folder.parent / "cache", views),
    )


def losses(history):
    return [(row["train_loss"], row["val_loss"]) for row in history]


OPTIONS = (
    {},
    {"ema_decay": 0.8},
    {"accumulate": 2},
    {"penalty": Penalty(0.1, 0.5)},
    {"zero_gamma": ZeroGamma("last:2", "scale:0.5")},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_with_as_many_views_as_epochs_nothing_differs(tmp_path, monkeypatch, options):
    """Weights, losses and moments: what was drawn, dropped and averaged is the same to the bit."""
    monkeypatch.setattr(activations, "pays", lambda *_: True)
    full, cached = (training(tmp_path / str(views), views, **options) for views in (None, 5))
    expected, found = fit(full, [HEAD]), fit(cached, [HEAD])
    assert losses(found.history) == losses(expected.history)
    assert not moved(bits(full.model), bits(cached.model))
    last = [load_checkpoint(tmp_path / name / "last.safetensors")[0] for name in ("None", "5")]
    assert not moved(*last)


def test_the_first_epochs_of_a_cached_stage_are_those_of_an_uncached_one(tmp_path):
    full, cached = training(tmp_path / "full", None), training(tmp_path / "cached", VIEWS)
    expected, found = losses(fit(full, [HEAD]).history), losses(fit(cached, [HEAD]).history)
    assert found[:VIEWS] == expected[:VIEWS]
    assert found[VIEWS:] != expected[VIEWS:]  # the negative control: now views come again


def test_without_augmentation_the_whole_cached_stage_is_the_uncached_one(tmp_path, counted):
    full = training(tmp_path / "full", None, augment=None)
    cached = training(tmp_path / "cached", 1, augment=None)
    expected, found = fit(full, [HEAD]), fit(cached, [HEAD])
    assert losses(found.history) == losses(expected.history)
    assert not moved(bits(full.model), bits(cached.model))
    assert sum(counted) == 22 + 10 + 2


def test_maps_in_half_precision_train_nearly_the_same(tmp_path):
    full = training(tmp_path / "full", None, augment=None)
    cached = training(tmp_path / "cached", 1, augment=None)
    expected, found = fit(full, [TOP]), fit(cached, [TOP])
    assert losses(found.history) != losses(expected.history)
    np.testing.assert_allclose(losses(found.history), losses(expected.history), atol=2e-3)


def test_frozen_layers_run_once_for_each_view(tmp_path, counted):
    fit(training(tmp_path / "run", VIEWS), [HEAD])
    assert sum(counted) == VIEWS * 22 + 10 + 2


def test_a_stage_that_stops_early_computes_no_view_in_vain(tmp_path, monkeypatch, counted):
    run = training(tmp_path / "run", 3)
    values = iter([0.5, 0.6, 0.7, 0.8])
    monkeypatch.setattr(loop, "validate", lambda *_: (next(values), None))
    fit(run, [replace(HEAD, patience=1)])
    assert sum(counted) == 2 * 22 + 10 + 2


def test_numbers_that_join_the_features_join_the_stored_ones(tmp_path):
    results = []
    for views in (None, 1):
        run = training(tmp_path / str(views), views, augment=None, extra=1)
        train, val = (
            replace(s, inputs=np.linspace(-1, 1, len(s), dtype=np.float32)[:, None])
            for s in (run.train, run.val)
        )
        run = replace(run, train=train, val=val)
        results.append((losses(fit(run, [HEAD]).history), bits(run.model)))
    assert results[0][0] == results[1][0]
    assert not moved(results[0][1], results[1][1])


STAGES = (
    replace(HEAD, epochs=3),
    replace(TOP, epochs=3),
    replace(TOP, name="all", train="all", epochs=1),
)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    ("options", "stop_at", "cache"),
    [
        ({}, 5, "deleted"),
        ({}, 12, "kept"),
        *(({"ema_decay": 0.8}, at, "deleted") for at in (2, 8, 17)),
        ({"ema_decay": 0.8}, 5, "kept"),
    ],
    ids=str,
)
def test_a_cached_run_stopped_anywhere_ends_in_the_same_bits(tmp_path, stop_at, options, cache):
    whole = training(tmp_path / "a" / "whole", VIEWS, **options)
    expected = fit(whole, STAGES)
    steps = iter(range(1, 10**6))

    def stop(*_args):
        if next(steps) == stop_at:
            signal.raise_signal(signal.SIGTERM)

    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        fit(
            training(tmp_path / "b" / "cut", VIEWS, watcher=Watcher(on_step=stop), **options),
            STAGES,
        )
    if cache == "deleted":
        for path in (tmp_path / "b" / "cache").iterdir():
            path.unlink()
    again = training(tmp_path / "b" / "cut", VIEWS, **options)
    found = fit(again, STAGES, resume=True)
    assert losses(found.history) == losses(expected.history)
    assert not moved(bits(whole.model), bits(again.model))


def test_a_signal_while_activations_are_computed_loses_none_of_them(tmp_path, monkeypatch, counted):
    run = training(tmp_path / "run", VIEWS)
    with monkeypatch.context() as patched:
        patched.setattr(Listeners, "want_a_break", lambda _: True)
        with pytest.raises(KeyboardInterrupt):
            fit(run, [HEAD])
    before = sum(counted)
    fit(training(tmp_path / "run", VIEWS), [HEAD], resume=True)
    assert sum(counted) - before == VIEWS * 22 - 8 + 10 + 2


def test_zero_gamma_before_a_stage_changes_what_is_stored(tmp_path, caplog):
    """The second head stage meets other frozen layers, so it must not find the first one's."""
    plan = ZeroGamma("last:1", when="again")
    stages = [replace(HEAD, epochs=3), replace(HEAD, name="again", epochs=3)]
    results = []
    for views in (None, 1):
        run = training(tmp_path / str(views), views, augment=None, zero_gamma=plan)
        history = fit(run, stages).history
        results.append((losses(history), bits(run.model)))
        assert [row["mean_gamma"] for row in history] == 3 * [None] + 3 * [0.0]
    assert results[0][0] == results[1][0]
    assert not moved(results[0][1], results[1][1])


def test_statistics_estimated_anew_after_a_cached_stage_are_those_of_an_uncached_one(tmp_path):
    stage = replace(HEAD, batch_norm={"all": "recalibrate"})
    results = []
    for views in (None, 1):
        run = training(tmp_path / str(views), views, augment=None)
        results.append((losses(fit(run, [stage, replace(TOP, epochs=1)]).history), bits(run.model)))
    assert results[0][0] == results[1][0]


def test_the_log_says_what_is_stored_and_what_is_not(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="medtl"):
        fit(training(tmp_path / "run", VIEWS), [HEAD, replace(TOP, name="short", epochs=2)])
    assert "stage head: frozen layers: stem to layers.3 run once for each of 2 views" in caplog.text
    assert "stage short: frozen layers: run in every epoch: 2 epochs do not" in caplog.text


def test_a_loss_that_is_no_number_names_its_cases_also_from_the_cache(tmp_path):
    run = training(tmp_path / "run", 1, augment=None)
    train = replace(run.train, standardise=lambda unit: standardised(unit) * np.nan)
    run = replace(run, train=train)
    with pytest.raises(RunError, match=r"cases c.*not finite in stage 'head', epoch 1\. "):
        fit(run, [HEAD])


@pytest.mark.parametrize("views", [None, 1])
def test_a_rehearsal_trains_two_batches_and_stores_nothing(tmp_path, views):
    run = training(tmp_path / "run", views)
    optimizer = enter_stage(run, HEAD)
    plan = plan_cache(run, HEAD)
    before = bits(run.model)
    assert rehearse(run, HEAD, optimizer, None if isinstance(plan, str) else plan) > 0
    assert {name.split(".")[0] for name in moved(before, bits(run.model))} == {"head"}
    assert not list((tmp_path / "cache").iterdir())


def test_the_best_model_of_a_cached_run_is_a_whole_network(tmp_path):
    run = training(tmp_path / "run", 1)
    fit(run, [HEAD])
    tensors, _ = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert set(without_prefix("model", tensors)) == set(run.model.state_dict())
