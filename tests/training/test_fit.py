"""The staged loop on a toy network: what trains, what stays, and that a resumed run is the same."""

from __future__ import annotations

import signal
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate
from toy_training import FULL, HEAD, STAGES, TOP, digests, loss_now, training

from medtl.errors import RunError, WeightsError
from medtl.losses.penalty import Penalty
from medtl.networks.folding import folded
from medtl.training import epoch
from medtl.training import fit as loop
from medtl.training.callbacks import Watcher
from medtl.training.checkpoint import load_checkpoint, without_prefix
from medtl.training.epoch import step, validate
from medtl.training.fit import fit
from medtl.training.runtime import Runtime
from medtl.training.schedule import rate_factor
from medtl.training.stage import enter_stage


def not_a_number(_unit):
    return np.full((3, 8, 8), np.nan, np.float32)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name.split(".")[0] for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("stage", "moved"),
    [(HEAD, {"head"}), (TOP, {"head", "layer1"}), (FULL, {"head", "layer1", "stem"})],
)
def test_exactly_the_selected_groups_change(tmp_path, stage, moved):
    run = training(tmp_path / "run")
    before = digests(run.model)
    fit(run, [stage])
    assert changed(before, digests(run.model)) == moved


def test_statistics_are_frozen_even_where_weights_train(tmp_path):
    run = training(tmp_path / "run")
    before = digests(run.model)
    fit(run, [FULL])
    after = digests(run.model)
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert statistics
    assert {name for name in statistics if before[name] != after[name]} == set()


def test_the_leaky_policy_moves_statistics(tmp_path):
    """The negative control of the test above: 'adapt' is caught by the same check."""
    run = training(tmp_path / "run")
    before = digests(run.model)
    fit(run, [replace(FULL, batch_norm={"all": "adapt"})])
    after = digests(run.model)
    assert before["stem.1.running_mean"] != after["stem.1.running_mean"]


def test_the_next_stage_starts_where_the_best_epoch_was(tmp_path):
    """LP-FT: the head is carried over, so the loss before the first step is the best so far."""
    run = training(tmp_path / "run")
    position = fit(run, [HEAD])
    assert loss_now(run) == pytest.approx(position.stopping.best, abs=1e-6)
    still = replace(FULL, epochs=1, lr={"head": 1e-12, "base": 1e-12})
    later = fit(training(tmp_path / "two"), [HEAD, still])
    assert later.history[-1]["val_loss"] == pytest.approx(position.stopping.best, abs=1e-6)


def test_the_model_ends_at_its_best_epoch_of_all_stages(tmp_path):
    wild = replace(FULL, name="wild", lr={"head": 3.0, "base": 3.0}, epochs=2)
    run = training(tmp_path / "run")
    position = fit(run, [HEAD, wild])
    losses = [row["val_loss"] for row in position.history]
    assert loss_now(run) == pytest.approx(min(losses), abs=1e-6)
    assert sum(row["best"] for row in position.history) >= 1


class KilledError(BaseException):
    """The process ends here and writes nothing more, as in a power cut."""


@pytest.mark.parametrize(
    ("options", "stop_at"),
    [
        *(({"ema_decay": 0.9}, at) for at in range(1, 18, 3)),
        *(({}, at) for at in (4, 13)),
        *(({"optimizer": "sgd"}, at) for at in (7, 16)),
    ],
    ids=str,
)
def test_a_run_stopped_anywhere_and_resumed_is_bit_identical(tmp_path, stop_at, options):
    whole = training(tmp_path / "whole", **options)
    expected = fit(whole, STAGES)
    steps = 0

    def stop(*_args):
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise KilledError

    cut = training(tmp_path / "cut", watcher=Watcher(on_step=stop), **options)
    with pytest.raises(KilledError):
        fit(cut, STAGES)
    resumed = training(tmp_path / "cut", **options)
    position = fit(resumed, STAGES, resume=True)
    assert digests(resumed.model) == digests(whole.model)
    assert [r["train_loss"] for r in position.history] == [
        r["train_loss"] for r in expected.history
    ]


@pytest.mark.parametrize(
    ("options", "stop_at"),
    [
        *(({"ema_decay": 0.9}, at) for at in (1, 5, 6, 17)),
        *(({"accumulate": 2}, at) for at in (5, 6)),
        ({}, 6),
        ({"optimizer": "sgd"}, 17),
    ],
    ids=str,
)
def test_a_signal_stops_between_two_steps_and_loses_none(tmp_path, stop_at, options):
    """Batch norm that adapts has a state that every batch moves: it must be in the checkpoint."""
    stages = [HEAD, TOP, replace(FULL, batch_norm={"all": "adapt"})]
    whole = training(tmp_path / "whole", **options)
    expected = fit(whole, stages)
    seen = []

    def interrupt(stage, epoch, done, _batches):
        seen.append((stage.name, epoch, done))
        if len(seen) == stop_at:
            signal.raise_signal(signal.SIGINT)

    cut = training(tmp_path / "cut", watcher=Watcher(on_step=interrupt), **options)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, stages)
    again = training(tmp_path / "cut", watcher=Watcher(on_step=interrupt), **options)
    position = fit(again, stages, resume=True)
    assert digests(again.model) == digests(whole.model)
    assert [r["train_loss"] for r in position.history] == [
        r["train_loss"] for r in expected.history
    ]
    assert len(seen) == len(set(seen)) == 18  # no step was lost, none was repeated


def test_a_signal_during_validation_is_not_lost_and_costs_no_training(tmp_path, monkeypatch):
    expected = fit(training(tmp_path / "whole"), STAGES)
    cut = training(tmp_path / "cut")

    def interrupted(*given):
        signal.raise_signal(signal.SIGTERM)
        return validate(*given)

    monkeypatch.setattr(loop, "validate", interrupted)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(cut, STAGES)
    finally:
        signal.signal(signal.SIGTERM, before)
    monkeypatch.undo()
    _, meta = load_checkpoint(tmp_path / "cut" / "last.safetensors")
    assert (meta["position"]["epoch"], meta["position"]["batch"]) == (0, 3)
    position = fit(training(tmp_path / "cut"), STAGES, resume=True)
    for row, other in zip(position.history, expected.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    run = training(tmp_path / "run")
    fit(run, STAGES)
    again = training(tmp_path / "run")
    position = fit(again, STAGES, resume=True)
    assert digests(again.model) == digests(run.model)
    assert len(position.history) == 6


def test_another_seed_is_another_run(tmp_path):
    """The negative control of bit identity: the comparison can fail."""
    first, second = training(tmp_path / "a"), training(tmp_path / "b", seed=1)
    fit(first, [HEAD])
    fit(second, [HEAD])
    assert digests(first.model) != digests(second.model)


@pytest.mark.slow
def test_workers_do_not_change_the_bits(tmp_path):
    results = []
    for workers in (0, 2):
        run = training(tmp_path / str(workers), workers=workers)
        train = replace(run.train, augment=None, standardise=triple)
        run = replace(run, train=train, val=replace(run.val, standardise=triple))
        fit(run, [HEAD])
        results.append(digests(run.model))
    assert results[0] == results[1]


def triple(unit):
    """Picklable, for loader processes."""
    return np.repeat(unit, 3, axis=0)


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    """Without dropout and batch statistics, k batches of b are one batch of k times b."""
    weights = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        torch.manual_seed(0)
        run = training(tmp_path / f"{batch_size}", accumulate=accumulate)
        run.model.head[2].p = 0.0
        rows, targets = run.train.rows[:16], run.train.targets[:16]
        run = replace(
            run,
            options=replace(run.options, batch_size=batch_size),
            train=replace(run.train, rows=rows, targets=targets, augment=None),
        )
        fit(run, [replace(FULL, epochs=1)])
        weights.append(run.model.state_dict())
    for name in weights[0]:
        assert torch.allclose(weights[0][name], weights[1][name], atol=1e-6), name


def test_rates_scale_with_the_batch(tmp_path):
    run = training(tmp_path / "run")
    run = replace(run, options=replace(run.options, lr_batch=4))
    stage = replace(HEAD, schedule="constant")
    optimizer = enter_stage(run, stage)
    seen = []
    own = optimizer.step
    optimizer.step = lambda: (seen.append(optimizer.param_groups[0]["lr"]), own())
    step(run, stage, 0, 0, optimizer)
    assert seen == [pytest.approx(2e-2)]


def test_the_penalty_shrinks_what_it_names(tmp_path):
    plain, shrunk = training(tmp_path / "a"), training(tmp_path / "b", penalty=Penalty(1.0))
    for run in (plain, shrunk):
        fit(run, [replace(HEAD, epochs=6)])
    norms = [run.model.head[3].weight.detach().norm() for run in (plain, shrunk)]
    assert norms[1] < norms[0]


def test_a_loss_that_is_not_finite_names_the_cases(tmp_path):
    run = training(tmp_path / "run")
    run = replace(run, train=replace(run.train, standardise=not_a_number))
    with pytest.raises(RunError, match=r"cases c.*not finite in stage 'head', epoch 1\. "):
        fit(run, [HEAD])


def test_a_stage_that_explodes_in_validation_stops(tmp_path):
    run = training(tmp_path / "run")
    run = replace(run, val=replace(run.val, standardise=not_a_number))
    with pytest.raises(RunError, match="val_loss of stage 'head' is not finite"):
        fit(run, [HEAD])


def test_a_baseline_that_no_epoch_reaches_keeps_the_last_weights(tmp_path, caplog):
    run = training(tmp_path / "run", baseline=1e-9)
    position = fit(run, [HEAD])
    assert position.stopping.best is None
    assert "no epoch reached the baseline" in caplog.text


def test_the_metric_cannot_be_watched_on_ten_cases(tmp_path):
    with pytest.raises(RunError, match="too few validation cases"):
        fit(training(tmp_path / "run", monitor="val_metric"), [HEAD])
    run = training(tmp_path / "run")
    assert run.monitor == "val_loss"
    assert all(0 <= row["val_metric"] <= 1 for row in fit(run, [HEAD]).history)  # known


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path, caplog, damage):
    whole = training(tmp_path / "whole")
    fit(whole, STAGES)
    fit(training(tmp_path / "run"), STAGES[:2])
    path = tmp_path / "run" / "last.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
    again = training(tmp_path / "run")
    fit(again, STAGES, resume=True)
    assert ("Looking for the checkpoint before it" in caplog.text) == (damage == "cut")
    assert digests(again.model) == digests(whole.model)


def test_when_both_are_damaged_nothing_is_trained(tmp_path):
    fit(training(tmp_path / "run"), [HEAD])
    for name in ("last", "previous"):
        path = tmp_path / "run" / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match=r"last.*not a readable safetensors"):
        fit(training(tmp_path / "run"), [HEAD], resume=True)


def test_the_average_is_what_is_kept(tmp_path):
    run = training(tmp_path / "run", ema_decay=0.5)
    fit(run, [FULL])
    best, _ = load_checkpoint(tmp_path / "run" / "best.safetensors")
    last, _ = load_checkpoint(tmp_path / "run" / "last.safetensors")
    kept = without_prefix("model", best)
    assert torch.equal(kept["head.3.weight"], run.model.head[3].weight)
    assert set(without_prefix("model", last)) == set(kept)


def test_a_missing_gpu_is_said_at_the_start():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RunError, match="torch sees no GPU"):
        Runtime("cuda")


def test_the_history_holds_the_highest_rate_of_every_epoch(tmp_path):
    rows = []
    watcher = Watcher(on_epoch=lambda history: rows.append(history[-1]))
    run = training(tmp_path / "run", watcher=watcher)
    fit(run, [replace(TOP, epochs=4, warmup_epochs=2)])
    factors = [rate_factor("cosine", step, steps=12, warmup_steps=6) for step in range(12)]
    highest = [max(factors[first : first + 3]) for first in range(0, 12, 3)]
    assert highest[1:3] == [1, 1]
    assert [row["lr_head"] for row in rows] == pytest.approx([1e-2 * f for f in highest])
    assert [row["lr_base"] for row in rows] == pytest.approx([1e-3 * f for f in highest])
    assert rows[0]["mean_gamma"] is None


def test_merged_norms_change_a_training_by_no_more_than_rounding(tmp_path, monkeypatch):
    """The stages of a run with held norms inside their convolutions, and beside them."""
    stages, merged, weights = [FULL, replace(TOP, batch_norm={"all": "frozen_stats"})], [], []
    for apart in (False, True):
        torch.manual_seed(0)
        run = training(tmp_path / str(apart))
        for norm in (m for m in run.model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            torch.nn.init.uniform_(norm.running_mean, -1, 1)
            torch.nn.init.uniform_(norm.running_var, 0.2, 4)

        @contextmanager
        def context(network, *inputs, apart=apart):
            with nullcontext([]) if apart else folded(network, *inputs) as pairs:
                merged.append(len(pairs))
                yield

        monkeypatch.setattr(epoch, "folded", context)
        fit(run, stages)
        weights.append(run.model.state_dict())
    assert set(merged) == {0, 1, 2}  # none beside them; those of the last stage, and all
    torch.testing.assert_close(*weights, rtol=0, atol=1e-5)
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_in_half_precision_norms_stay_beside_their_convolutions(tmp_path):
    run = training(tmp_path / "run")
    batch = default_collate([run.train[0, 0]])
    enter_stage(run, FULL)
    conv = next(m for m in run.model.modules() if isinstance(m, torch.nn.Conv2d))
    with epoch.norms_merged(run.model, batch, run.runtime):
        assert "forward" in vars(conv)
    run.runtime.precision = "bf16"
    with epoch.norms_merged(run.model, batch, run.runtime):
        assert "forward" not in vars(conv)


def test_the_log_counts_epochs_from_one(tmp_path, caplog):
    with caplog.at_level("INFO", logger="medtl"):
        position = fit(training(tmp_path / "run"), STAGES)
    said = [record.args[0] for record in caplog.records if record.msg.startswith("epoch %d")]
    assert said == [*range(1, len(position.history) + 1)]
    assert [row["epoch"] for row in position.history] == [*range(len(said))]
