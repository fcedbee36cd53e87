"""One epoch: groups of accumulated batches, own objectives, own callbacks, own metrics."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss
from torch import nn
from toy_training import FULL, HEAD, STAGES, Toy, digests, loss_now, nobody, samples, training

from medtl.data.batches import Batch, EpochBatches, make_loader
from medtl.data.patches import MaskedSamples
from medtl.data.store import ImageStore, RowWriter, levels
from medtl.errors import RunError
from medtl.losses.penalty import Penalty
from medtl.tasks.findings import Findings
from medtl.training.callbacks import StopTraining, Watcher
from medtl.training.checkpoint import load_checkpoint
from medtl.training.epoch import rate_at, steps_per_epoch, validate
from medtl.training.fit import fit, whole
from medtl.training.objective import Supervised
from medtl.training.options import Options, WatchedMetric


@pytest.mark.parametrize(("accumulate", "groups"), [(2, [2, 1]), (3, [3]), (1, [1, 1, 1])])
def test_a_short_last_group_counts_as_a_whole_one(tmp_path, accumulate, groups):
    """Three batches against a loop written out: each step takes the mean of its own batches.

    Plain SGD without clipping: AdamW and a clipped norm would hide a wrong factor.
    """
    run = training(tmp_path / "run", accumulate=accumulate, optimizer="sgd", clip_norm=None)
    run.model.head[2].p = 0.0
    plain = replace(run.train, augment=None)
    options = replace(run.options, lr_batch=8 * accumulate, weight_decay=0.0)
    stage = replace(FULL, epochs=1, lr={"head": 0.1, "base": 0.1}, layer_decay=1.0)
    fit(replace(run, train=plain, options=options), [replace(stage, schedule="constant")])

    model = Toy().eval()
    moving = [p for n, p in model.named_parameters() if ".1." not in n]  # norms are frozen
    optimizer = torch.optim.SGD(moving, lr=0.1, momentum=0.9, nesterov=True)
    loader = iter(make_loader(plain, EpochBatches(22, 8, seed=0), workers=0, pin=False))
    for size in groups:
        optimizer.zero_grad()
        for batch in (next(loader) for _ in range(size)):
            logits = model(batch.images)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.targets)
            (loss / size).backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], tensor, msg=name)


def test_steps_of_an_epoch_and_their_rates_count_the_short_group():
    options = Options(batch_size=8, accumulate=2, lr_batch=16)
    assert [steps_per_epoch(cases, options) for cases in (8, 16, 17, 22, 32, 33)] == [
        *(1, 1, 2, 2, 2, 3)
    ]
    stage = replace(HEAD, epochs=2, schedule="step")
    rates = [rate_at(stage, options, 22, step, 0) for step in range(4)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.01])
    assert rate_at(replace(stage, schedule="plateau"), options, 22, 0, 2) == pytest.approx(0.01)


def test_the_objective_of_a_task_is_its_loss_on_the_outputs():
    task = Findings(labels=("bright",))
    batch = Batch(
        torch.ones(2, 1), torch.zeros(2, 0), torch.tensor([[1.0], [0.0]]), torch.arange(2)
    )
    loss = Supervised(task.loss)(lambda images, _inputs: images * 0, batch)
    assert loss.item() == pytest.approx(np.log(2))


def test_an_own_objective_is_lowered_in_place_of_the_tasks(tmp_path):
    seen = []

    def shrink(network, batch):
        seen.append(batch)
        return network(batch.images, batch.inputs).square().mean()

    run = replace(training(tmp_path / "run"), objective=shrink)
    position = fit(run, [replace(HEAD, epochs=8, lr={"head": 0.1})])
    losses = [row["train_loss"] for row in position.history]
    assert losses[-1] < losses[0] / 2
    assert [len(batch.images) for batch in seen[:3]] == [8, 7, 7]
    assert sorted(torch.cat([batch.places for batch in seen[:3]]).tolist()) == list(range(22))


def test_naming_the_tasks_own_objective_changes_no_bit(tmp_path):
    runs = [training(tmp_path / name) for name in "ab"]
    runs[1] = replace(runs[1], objective=Supervised(runs[1].task.loss))
    for run in runs:
        fit(run, [HEAD])
    assert digests(runs[0].model) == digests(runs[1].model)


def test_the_penalty_is_added_to_an_own_objective(tmp_path):
    def nothing(network, batch):
        return network(batch.images, batch.inputs).sum() * 0

    losses = []
    for name, penalty in (("a", None), ("b", Penalty(1.0))):
        run = replace(training(tmp_path / name, penalty=penalty), objective=nothing)
        losses.append(fit(run, [replace(HEAD, epochs=1)]).history[0]["train_loss"])
    assert losses[0] == 0 < losses[1]


class Fails:
    """A callback that fails in one of its steps, or after one of its epochs."""

    def __init__(self, *, step: int = 0, epoch: int = 0) -> None:
        self.step, self.epoch, self.steps = step, epoch, 0

    def on_step(self, _stage, _epoch, _done, _batches):
        self.steps += 1
        if self.steps == self.step:
            raise ZeroDivisionError

    def on_epoch(self, history):
        if len(history) == self.epoch:
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("failing", "options", "batch"),
    [
        ({"step": 2}, {}, 2),
        ({"step": 1}, {"accumulate": 2}, 2),
        ({"step": 3}, {"ema_decay": 0.9}, 3),
        ({"epoch": 1}, {}, 0),
        ({"epoch": 3}, {"accumulate": 2}, 0),
    ],
)
def test_a_callback_that_fails_leaves_a_checkpoint_to_go_on_from(tmp_path, failing, options, batch):
    expected = training(tmp_path / "whole", **options)
    fit(expected, STAGES)
    with pytest.raises(ZeroDivisionError):
        fit(training(tmp_path / "cut", watcher=Fails(**failing), **options), STAGES)
    _, meta = load_checkpoint(tmp_path / "cut" / "last.safetensors")
    assert meta["position"]["batch"] == batch, "between two steps"
    resumed = training(tmp_path / "cut", **options)
    fit(resumed, STAGES, resume=True)
    assert digests(resumed.model) == digests(expected.model)


def test_a_signal_is_not_forgotten_over_a_callback(tmp_path):
    def fail(*_):
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt) as caught:
        fit(training(tmp_path / "run", watcher=Watcher(on_step=fail)), STAGES)
    assert isinstance(caught.value.__context__, ZeroDivisionError)


@pytest.mark.parametrize("asked", ["step", "epoch"])
def test_a_callback_may_end_the_training(tmp_path, asked):
    def stop(*given):
        if asked == "step" or len(given[0]) == 3:
            raise StopTraining

    watcher = Watcher(on_step=stop) if asked == "step" else Watcher(on_epoch=stop)
    run = training(tmp_path / "run", watcher=watcher)
    position = fit(run, STAGES)
    epochs = 1 if asked == "step" else 3
    assert len(position.history) == epochs, "whole epochs, and no further stage"
    best = min(row["val_loss"] for row in position.history)
    assert loss_now(run) == pytest.approx(best, abs=1e-6)
    again = fit(training(tmp_path / "run"), STAGES, resume=True)
    assert len(again.history) == epochs, "a run that was ended is not gone on with"


def test_callbacks_are_told_in_their_order(tmp_path):
    told = []
    each = tuple(Watcher(on_epoch=lambda _, name=name: told.append(name)) for name in "abc")
    fit(replace(training(tmp_path / "run"), callbacks=each), [HEAD])
    assert "".join(told) == "abcabc"


def brier(truth, score):
    assert truth.shape == score.shape == (10,)
    return brier_score_loss(truth, score)


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_an_own_metric_is_watched(tmp_path, larger_is_better):
    metric = WatchedMetric(brier, "brier", larger_is_better)
    run = replace(training(tmp_path / "run"), metric=metric)
    position = fit(run, [replace(FULL, epochs=4, lr={"head": 0.3, "base": 0.3})])
    values = [row["val_metric"] for row in position.history]
    assert {row["watched"] for row in position.history} == {"brier"}
    choose = np.argmax if larger_is_better else np.argmin
    assert position.stopping.best_epoch == choose(values)
    assert len(set(values)) > 1
    assert np.argmax(values) != np.argmin(values)


def test_an_own_metric_can_be_left_unwatched(tmp_path):
    run = training(tmp_path / "run", monitor="val_loss")
    position = fit(replace(run, metric=WatchedMetric(brier, "brier")), [HEAD])
    assert position.stopping.best == min(row["val_loss"] for row in position.history)
    assert all(row["val_metric"] is not None for row in position.history)


def test_an_own_metric_of_images_of_many_shapes_is_refused(tmp_path):
    units, masks = RowWriter(np.uint16), RowWriter(np.uint8)
    for side in (8, 9):
        units.append(levels(np.zeros((1, side, side), np.float32)))
        masks.append(np.zeros((side, side), np.uint8))
    store = ImageStore(("a", "b"), units.rows(), masks.rows())
    run = replace(
        training(tmp_path / "run"),
        model=TwoArguments(),
        val=MaskedSamples(store, np.arange(2), standardise=lambda unit: unit),
        metric=WatchedMetric(brier),
    )
    with pytest.raises(RunError, match="validation images differ in shape"):
        validate(run, whole(run), nobody(run))


class TwoArguments(nn.Module):
    def forward(self, images, _inputs):
        return images


def test_a_batch_is_read_by_name_and_loaded_as_one():
    case = samples(4, 0)[0, 2]
    assert (case.images.shape, case.places.item()) == ((3, 8, 8), 2)
    loader = make_loader(samples(4, 0), EpochBatches(4, 2, seed=None), workers=0, pin=False)
    batches = list(loader)
    assert all(isinstance(batch, Batch) for batch in batches)
    assert [batch.places.tolist() for batch in batches] == [[0, 1], [2, 3]]
