"""Stored activations: the numbers, who shares them, and what is never believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medtl.data.batches import EpochBatches, Samples
from medtl.data.patches import MaskedSamples
from medtl.data.store import ImageStore, RowWriter, levels
from medtl.errors import RunError
from medtl.networks.backbones import build_classifier
from medtl.networks.weights import WeightsSource
from medtl.storage.rowfile import RowFile
from medtl.tasks.findings import Findings
from medtl.training import activations
from medtl.training.activations import CachePlan, plan_cache
from medtl.training.options import ActivationCache, Options, Training
from medtl.training.runtime import Runtime
from medtl.training.stage import enter_stage
from medtl.types import Stage

N = 7
FIRST = 5
RATES = {"head": 1e-2, "base": 1e-3}


def brighten(unit, rng):
    return np.clip(unit * rng.uniform(0.5, 1.5), 0, 1).astype(np.float32)


def darken(unit, rng):
    return (unit * rng.uniform(0.2, 0.4)).astype(np.float32)


def standardise(unit):
    return np.repeat((unit - 0.5) / 0.25, 3, axis=0).astype(np.float32)


@pytest.fixture
def samples():
    writer = RowWriter(np.uint16)
    rng = np.random.default_rng(0)
    for _ in range(N):
        writer.append(levels(rng.random((1, 32, 32)).astype(np.float32)))
    return Samples(
        store=ImageStore(tuple("abcdefg"), writer.rows()),
        rows=np.arange(N),
        targets=np.arange(N, dtype=np.float32)[:, None],
        inputs=np.zeros((N, 0), dtype=np.float32),
        standardise=standardise,
        augment=brighten,
        seed=3,
    )


def network(seed=0, name="test_resnet"):
    torch.manual_seed(seed)
    model, _ = build_classifier(name, outputs=1, weights=WeightsSource("none"))
    return Runtime("cpu").place(model)


def planned(samples, folder: Path, *, train="head", views=2, epochs=4, model=None, **options):
    model = model or network()
    stage = Stage("it", train, epochs, RATES)
    run = Training(
        model=model,
        task=Findings(labels=("it",)),
        train=samples,
        val=samples if isinstance(samples, MaskedSamples) else replace(samples, augment=None),
        can_watch=False,
        options=Options(),
        runtime=Runtime("cpu"),
        folder=folder,
        cache=ActivationCache(folder, views, **options),
    )
    enter_stage(run, stage)
    return plan_cache(run, stage)


def opened(plan: CachePlan, *, batch=4, seed=0, workers=0):
    return plan.open(FIRST, batch_size=batch, seed=seed, workers=workers)


def prepared(plan: CachePlan, epoch: int = FIRST, **options):
    stage = opened(plan, **options)
    stage.prepare(epoch, lambda: None)
    return stage


def new_folder(path: Path) -> Path:
    path.mkdir()
    return path


def files(folder: Path) -> int:
    return len(list(folder.glob("*.rows")))


def test_views_are_those_of_the_first_epochs_of_the_stage_and_come_again(samples, tmp_path):
    plan = planned(samples, tmp_path)
    stage = opened(plan)
    for epoch, drawn in ((5, 5), (6, 6), (7, 5), (10, 6)):
        stage.prepare(epoch, lambda: None)
        activation, inputs, target, index, _ = stage.train[epoch, 4]
        expected = plan.run(torch.stack([samples[drawn, i][0] for i in range(N)]))[4]
        assert torch.equal(activation, expected)
        assert (target.item(), index.item(), inputs.shape) == (4.0, 4, (0,))
        plain = plan.run(torch.stack([plan.val[0, i][0] for i in range(N)]))[4]
        assert torch.equal(stage.val[0, 4][0], plain)
    assert not torch.equal(stage.train[5, 4][0], stage.train[6, 4][0])


@pytest.mark.slow
def test_loader_processes_compute_the_same(samples, tmp_path):
    stages = [
        prepared(planned(samples, new_folder(tmp_path / str(workers))), workers=workers)
        for workers in (0, 2)
    ]
    alone, helped = ([stage.train[FIRST, i][0] for i in range(N)] for stage in stages)
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_without_augmentation_one_view_is_enough(samples, tmp_path, counted):
    plan = planned(replace(samples, augment=None), tmp_path, views=3)
    stage = opened(plan)
    for epoch in range(FIRST, FIRST + 4):
        stage.prepare(epoch, lambda: None)
    assert plan.views == 1
    assert sum(counted) == N + 2, "training and validation are the same rows, and two probes"


def test_maps_are_stored_in_half_precision_within_its_rounding(samples, tmp_path):
    plan = planned(samples, tmp_path, train="head,last:1")
    stage = prepared(plan)
    assert (plan.dtype, stage.train.file.dtype, stage.val.file.dtype) == ("f2", "f2", "f4")
    expected = plan.run(torch.stack([samples[FIRST, i][0] for i in range(N)]))
    torch.testing.assert_close(stage.train[FIRST, 3][0], expected[3], rtol=1e-3, atol=1e-4)
    assert not torch.equal(stage.train[FIRST, 3][0], expected[3])


def test_what_is_too_large_for_half_precision_is_its_largest_number(samples, tmp_path, monkeypatch):
    plan = planned(samples, tmp_path, train="head,last:1")
    monkeypatch.setattr(CachePlan, "run", lambda _, x: torch.full((len(x), *plan.shape), -1e9))
    assert prepared(plan).train[FIRST, 0][0].unique().tolist() == [-65504.0]


def test_the_same_images_and_layers_are_computed_once(samples, tmp_path, counted):
    prepared(planned(samples, tmp_path))
    first = sum(counted)
    prepared(planned(samples, tmp_path))
    assert (first, sum(counted)) == (2 * N + 2, 2 * N + 4), "only the two probes are new"


def test_a_fold_with_other_cases_finds_those_it_shares(samples, tmp_path, counted):
    plain = replace(samples, augment=None)
    prepared(planned(plain, tmp_path, epochs=4), batch=4)
    counted.clear()
    fold = replace(plain, rows=np.array([6, 0, 3, 2, 5, 1]), targets=plain.targets[:6])
    found = prepared(planned(fold, tmp_path), batch=3)
    assert sum(counted) == 2 + 6, "batches of another size may differ in the last bit"
    counted.clear()
    other = replace(fold, rows=np.arange(1, N), seed=99)
    again = prepared(planned(other, tmp_path), batch=3)
    assert sum(counted) == 2 + 3, "row 4 alone is new: the batch that it is in"
    assert torch.equal(again.train[FIRST, 0][0], found.train[FIRST, 5][0])


@pytest.mark.parametrize(
    "changed",
    [
        lambda s: replace(s, rows=np.roll(s.rows, 1)),
        lambda s: replace(s, seed=4),
        lambda s: replace(s, augment=darken),
    ],
    ids=["places", "seed", "augmentation"],
)
def test_another_draw_is_another_row(samples, tmp_path, counted, changed):
    prepared(planned(samples, tmp_path))
    counted.clear()
    prepared(planned(changed(samples), tmp_path))
    assert sum(counted) == 2 + N, "the training cases; those of validation are found"


def test_another_standardisation_weight_or_statistic_is_another_file(samples, tmp_path):
    prepared(planned(samples, tmp_path))
    one = files(tmp_path)
    prepared(planned(replace(samples, standardise=lambda unit: -standardise(unit)), tmp_path))
    assert files(tmp_path) == 2 * one
    prepared(planned(samples, tmp_path, model=network(1)))
    assert files(tmp_path) == 3 * one
    model = network()
    next(t for n, t in model.named_buffers() if n.endswith("running_mean")).add_(1.0)
    prepared(planned(samples, tmp_path, model=model))
    assert files(tmp_path) == 4 * one
    prepared(planned(samples, tmp_path))
    assert files(tmp_path) == 4 * one


def test_the_networks_function_is_in_the_key_not_its_tensors_alone(samples, tmp_path, monkeypatch):
    plan = planned(samples, tmp_path)
    before = plan._key(samples, EpochBatches(N, 4, seed=0), plan.dtype)
    run = plan.run
    monkeypatch.setattr(CachePlan, "run", lambda _, images: run(images) * 2)
    assert plan._key(samples, EpochBatches(N, 4, seed=0), plan.dtype) != before


@pytest.mark.parametrize("damage", ["bit", "cut", "zeros"])
def test_a_damaged_row_is_computed_again(samples, tmp_path, caplog, damage):
    stage = prepared(planned(samples, tmp_path))
    whole = [stage.train[FIRST, i][0] for i in range(N)]
    for path in tmp_path.glob("*.rows"):
        content = bytearray(path.read_bytes())
        if damage == "cut":
            content = content[:-9]
        elif damage == "bit":
            content[-9] ^= 1
        else:
            content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        path.unlink()
        path.write_bytes(content)
    again = prepared(planned(samples, tmp_path))
    assert all(torch.equal(again.train[FIRST, i][0], whole[i]) for i in range(N))
    assert ("damaged" in caplog.text) == (damage == "bit")


def test_an_interrupted_computation_goes_on_where_it_was(samples, tmp_path, counted):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(planned(samples, tmp_path)).prepare(FIRST, stop)
    assert counted[-1] == 4, "one batch was computed"
    counted.clear()
    stage = prepared(planned(samples, tmp_path))
    assert sum(counted) == 2 + (N - 4) + N, "two probes, the rest of training, validation"
    expected = prepared(planned(samples, new_folder(tmp_path / "other")))
    assert all(torch.equal(stage.train[FIRST, i][0], expected.train[FIRST, i][0]) for i in range(N))


def test_a_disk_that_gives_other_bytes_back_is_not_trained_on(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(RowFile, "find", lambda _, keys: np.full(len(keys), -1))
    with pytest.raises(RunError, match="gives other bytes back than were written"):
        prepared(planned(samples, tmp_path))


def test_what_was_used_longest_ago_makes_room(samples, tmp_path):
    model = network(1)
    plan = planned(samples, tmp_path, model=model)
    prepared(plan)
    room = plan.n_bytes + 2000
    prepared(planned(samples, tmp_path, limit_bytes=room))
    assert files(tmp_path) == 1, "one file for training and validation"
    assert isinstance(planned(samples, tmp_path, limit_bytes=100), str)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"limit_bytes": 100}, "the cache may not hold"),
        ({"views": 4}, "4 epochs do not come back to 4 views"),
        ({"train": "all"}, "the first layer trains"),
        ({"train": "head,first:1"}, "the first layer trains"),
    ],
)
def test_why_a_stage_is_trained_in_full(samples, tmp_path, options, reason):
    assert reason in planned(samples, tmp_path, **options)


def test_patches_are_not_stored(samples, tmp_path):
    patches = MaskedSamples(samples.store, samples.rows, standardise)
    assert "other patches" in planned(patches, tmp_path)


def test_a_network_that_is_no_chain_is_trained_in_full(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "is_exact", lambda *_: False)
    assert "do not simply follow one another" in planned(samples, tmp_path)


def test_the_plan_says_what_it_saves(samples, tmp_path):
    plan = planned(samples, tmp_path, epochs=6)
    assert str(plan).startswith("stem to layer4 run once for each of 2 views, not in 6 epochs")
    assert "at most 3.0 times faster" in str(plan)
    assert plan.n_bytes == (2 * N + N) * plan.shape[0] * 4
