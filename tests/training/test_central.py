"""The central piece, from stage to stage: freezing, zero-gamma, resuming, and what they are for.

The numbers in the names are those of reference science.md 2.8. Each has its negative control: the
same check fails once the guard is taken away.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from four_blocks import bits, moved, network, noisy, samples, stored
from torch import Tensor, nn

from medtl.networks import freeze
from medtl.networks.backbones import Classifier
from medtl.networks.batch_norm import tracks_statistics
from medtl.networks.freeze import apply_stage
from medtl.networks.groups import layer_groups
from medtl.networks.prefix import cut_before_trained
from medtl.networks.zero_gamma import GammaSurgery, Removal, remove
from medtl.tasks.findings import Findings
from medtl.training import checkpoint
from medtl.training import fit as loop
from medtl.training.callbacks import Listeners, Watcher
from medtl.training.checkpoint import load_checkpoint, without_prefix
from medtl.training.epoch import validate
from medtl.training.fit import fit
from medtl.training.options import Options, Training
from medtl.training.runtime import Runtime
from medtl.training.stage import enter_stage, preset_stages
from medtl.types import Stage, ZeroGamma

torch.set_num_threads(1)

HEAD = Stage("head", "head", 2, {"head": 1e-2})
TOP = Stage("top", "head,last:1", 2, {"head": 1e-2, "base": 1e-3}, warmup_epochs=1)
FULL = Stage("full", "all", 2, {"head": 1e-2, "base": 1e-3}, layer_decay=0.5)
STAGES = (HEAD, TOP, FULL)
STATS = replace(FULL, batch_norm={"all": "frozen_stats"})


def training(folder: Path, *, watcher: Watcher | None = None, **options) -> Training:
    folder.mkdir(exist_ok=True)
    model, plan = network(), options.pop("zero_gamma", None)
    train = samples(22, 1, augment=noisy)
    surgery = None if plan is None else GammaSurgery(model, plan, train[0, 0].images[None])
    if surgery is not None:
        surgery.remove_blocks(model)
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
        surgery=surgery,
    )


def loss_now(run: Training) -> float:
    return validate(run, loop.whole(run), Listeners((), run.runtime, lambda: False))[0]


def groups_of(model: nn.Module, names: set[str]) -> set[str]:
    return {g.name for g in layer_groups(model) if names & {*g.parameters, *g.buffers}}


def wake(run: Training) -> Watcher:
    """What user code may do after every step: train() on everything, by hand too."""

    def on_step(*_args: object) -> None:
        run.model.train()
        for module in run.model.modules():
            module.training = True

    return Watcher(on_step=on_step)


def after_head_stage(folder: Path) -> tuple[set[str], set[str]]:
    """Groups and statistics that moved in a head stage whose user code calls train()."""
    run = training(folder)
    run = replace(run, callbacks=(wake(run),))
    before = bits(run.model)
    fit(run, [HEAD])
    changed = moved(before, bits(run.model))
    return groups_of(run.model, changed), {n for n in changed if "running" in n or "num_" in n}


def test_1_and_2_frozen_means_statistics_too_whatever_user_code_calls(tmp_path):
    assert after_head_stage(tmp_path / "run") == ({"head"}, set())


def take_the_hold_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what most tools do: `requires_grad` and nothing else."""
    monkeypatch.setattr(freeze, "hold_in_eval", lambda *_: None)
    monkeypatch.setattr(freeze, "set_policy", lambda *_: None)


def test_1_and_2_fail_without_the_hold(tmp_path, monkeypatch):
    """Negative control: requires_grad alone leaks every batch-norm statistic."""
    take_the_hold_away(monkeypatch)
    groups, statistics = after_head_stage(tmp_path / "run")
    assert groups == {"stem", *(f"layers.{i}" for i in range(4)), "head"}
    assert any(name.endswith("num_batches_tracked") for name in statistics)


@pytest.mark.parametrize("policy", ["frozen", "frozen_stats", "bn_only", "adapt"])
def test_1_exactly_what_a_policy_names_changes_in_the_last_stage(tmp_path, policy):
    run = training(tmp_path / "run")
    fit(run, [HEAD])
    before = bits(run.model)
    again = training(tmp_path / "again")
    again.model.load_state_dict(before)
    fit(again, [replace(FULL, epochs=1, batch_norm={"layers.*": policy})])
    changed = moved(before, bits(again.model))
    norms = {n for n, m in again.model.named_modules() if tracks_statistics(m) and "layers" in n}
    owner = {name: name.rpartition(".")[0] for name in before}
    affine = {n for n in before if owner[n] in norms and n.endswith(("weight", "bias"))}
    statistics = {n for n in before if owner[n] in norms} - affine
    kernels = {n for n in before if "layers" in n} - affine - statistics
    expected = {
        "frozen": kernels,
        "frozen_stats": kernels | affine,
        "bn_only": affine,
        "adapt": kernels | affine | statistics,
    }[policy]
    rest = {n for n in before if n.startswith(("head", "backbone.conv1"))}
    assert changed == expected | rest


def test_4_the_head_is_carried_over(tmp_path):
    run = training(tmp_path / "run")
    position = fit(run, [HEAD])
    enter_stage(run, FULL)
    run.model.train()
    assert loss_now(run) == pytest.approx(position.stopping.best, abs=1e-6)
    # Negative control: a new head at the boundary is caught by the same comparison.
    nn.init.normal_(run.model.head[1].weight)
    assert loss_now(run) != pytest.approx(position.stopping.best, abs=1e-6)


def head_weights(model: Classifier, images: Tensor, targets: Tensor, *, cached: bool) -> Tensor:
    """The head's weight after six steps, on images or on stored features."""
    model = copy.deepcopy(model)
    groups = layer_groups(model)
    apply_stage(model, groups, train=("head",), batch_norm={})
    cut = cut_before_trained(model, groups, ("head",))
    assert cut is not None
    features = cut.prefix(images)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=0.05)
    torch.manual_seed(0)
    model.train()
    cut.suffix.train()
    for _ in range(6):
        optimizer.zero_grad()
        logits = cut.suffix(features) if cached else model(images)
        nn.functional.binary_cross_entropy_with_logits(logits[:, 0], targets).backward()
        optimizer.step()
    return model.head[1].weight.detach()


def test_7_the_head_learns_the_same_from_stored_features(monkeypatch):
    images, targets = torch.randn(8, 1, 8, 8), torch.arange(8) % 2.0
    model = network()
    stored_first = head_weights(model, images, targets, cached=True)
    torch.testing.assert_close(
        stored_first, head_weights(model, images, targets, cached=False), atol=1e-5, rtol=0
    )
    # Negative control: statistics that move make the stored features wrong.
    take_the_hold_away(monkeypatch)
    leaky = head_weights(model, images, targets, cached=False)
    assert (stored_first - leaky).abs().max() > 1e-3


class KilledError(BaseException):
    """The process ends here and writes nothing more, as in a power cut."""


def stop_after(steps: int) -> Watcher:
    """Break off after so many batches."""
    counted = iter(range(1, 10**6))

    def on_step(*_args: object) -> None:
        if next(counted) == steps:
            raise KilledError

    return Watcher(on_step=on_step)


def stop_between(stage: int) -> Watcher:
    """Break off after the last epoch of a stage."""

    def on_epoch(history) -> None:
        if len(history) == 2 * stage:
            raise KilledError

    return Watcher(on_epoch=on_epoch)


VARIANTS = {
    "plain": ({}, STAGES),
    "average": ({"ema_decay": 0.9}, STAGES),
    "gamma at the start": ({"zero_gamma": ZeroGamma("last:2", lr_mult=5.0)}, (HEAD, TOP, STATS)),
    "gamma before full": (
        {"zero_gamma": ZeroGamma("last:2", "scale:0.1", when="full"), "ema_decay": 0.8},
        STAGES,
    ),
    "gamma recalibrated": ({"zero_gamma": ZeroGamma("layers.1", recalibrate=True)}, STAGES),
    "removed": ({"zero_gamma": ZeroGamma("last:1", "remove")}, STAGES),
    "statistics anew": ({}, (HEAD, replace(TOP, batch_norm={"all": "recalibrate"}), FULL)),
}


QUICK = ("plain", "gamma before full", "statistics anew")


def outcome(run: Training, **kwargs) -> tuple[dict[str, Tensor], list[float], float | None]:
    position = fit(run, kwargs.pop("stages"), **kwargs)
    losses = [row["train_loss"] for row in position.history]
    return bits(run.model), losses, position.stopping.best


def same(first, second) -> bool:
    return not moved(first[0], second[0]) and first[1:] == second[1:]


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow, id=name)
        for name in VARIANTS
    ],
)
def test_8_a_run_stopped_anywhere_and_resumed_ends_in_the_same_bits(tmp_path, variant):
    options, stages = VARIANTS[variant]
    whole = outcome(training(tmp_path / "whole", **options), stages=stages)
    stops = [*(stop_after(n) for n in (2, 13, 17)), stop_between(1), stop_between(2)]
    for number, watcher in enumerate(stops):
        folder = tmp_path / str(number)
        with pytest.raises(KilledError):
            fit(training(folder, watcher=watcher, **options), stages)
        assert same(outcome(training(folder, **options), stages=stages, resume=True), whole)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "gamma at the start"])
def test_8_with_workers_too(tmp_path, variant):
    options, stages = VARIANTS[variant]
    whole = outcome(training(tmp_path / "whole", **options), stages=stages)
    folder = tmp_path / "cut"
    with pytest.raises(KilledError):
        fit(training(folder, watcher=stop_after(8), workers=2, **options), stages)
    resumed = outcome(training(folder, workers=2, **options), stages=stages, resume=True)
    assert same(resumed, whole)


def test_8_fails_when_the_optimiser_is_forgotten(tmp_path, monkeypatch):
    """Negative control: the comparison sees a resume that loses the moments."""
    whole = outcome(training(tmp_path / "whole"), stages=STAGES)
    with pytest.raises(KilledError):
        fit(training(tmp_path / "cut", watcher=stop_after(4)), STAGES)
    monkeypatch.setattr(loop, "load_optimizer", lambda *_: None)
    assert not same(outcome(training(tmp_path / "cut"), stages=STAGES, resume=True), whole)


def test_8_fails_when_gamma_is_treated_twice(tmp_path, monkeypatch):
    """Negative control: operating again inside the stage is another run."""
    options, stages = VARIANTS["gamma at the start"]
    whole = outcome(training(tmp_path / "whole", **options), stages=stages)
    with pytest.raises(KilledError):
        fit(training(tmp_path / "cut", watcher=stop_after(16), **options), stages)
    again = training(tmp_path / "cut", **options)
    fill = checkpoint._fill
    monkeypatch.setattr(
        checkpoint, "_fill", lambda *given: (fill(*given), again.surgery.apply(again.model))
    )
    assert not same(outcome(again, stages=stages, resume=True), whole)


GAMMA = "backbone.layers.3.bn2.weight"


def test_gamma_starts_at_zero_and_comes_back_at_its_own_rate(tmp_path):
    sizes = []
    for factor in (0.0, 1.0, 10.0):
        plan = ZeroGamma("last:1", lr_mult=factor)
        run = training(tmp_path / str(factor), zero_gamma=plan, weight_decay=0.5)
        run.surgery.apply(run.model)
        optimizer = enter_stage(run, FULL)
        own = [g for g in optimizer.param_groups if g["name"].endswith("/gamma")]
        assert [(g["name"], g["weight_decay"]) for g in own] == [("layers.3/gamma", 0.0)]
        assert own[0]["peak_lr"] == pytest.approx(1e-3 * factor)
        fit(run, [replace(FULL, warmup_epochs=1)])
        sizes.append(float(run.model.state_dict()[GAMMA].abs().mean()))
    assert sizes[0] == 0 < sizes[1] < sizes[2]


def test_before_the_operation_gamma_is_as_frozen_as_any_other(tmp_path):
    run = training(tmp_path / "run", zero_gamma=ZeroGamma("last:1", when="full", lr_mult=100.0))
    before = bits(run.model)
    fit(run, [TOP])
    assert GAMMA not in moved(before, bits(run.model))


def test_gamma_is_frozen_while_its_group_is(tmp_path):
    run = training(tmp_path / "run", zero_gamma=ZeroGamma("last:1"))
    fit(run, [HEAD])
    assert not run.model.state_dict()[GAMMA].any()


def test_the_log_follows_gamma(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="medtl"):
        fit(training(tmp_path / "run", zero_gamma=ZeroGamma("last:2", when="top")), [HEAD, TOP])
    lines = [r.getMessage() for r in caplog.records if "gamma" in r.getMessage()]
    assert lines[0] == "zero-gamma: layers.2, layers.3: gamma = 0"
    assert len(lines) == 3, "one line per epoch after it, none before"
    assert lines[1].startswith("mean |gamma|: layers.2 0, layers.3 ")


def test_a_checkpoint_holds_what_undoes_the_operation(tmp_path):
    run = training(tmp_path / "run", zero_gamma=ZeroGamma("last:2", beta="zero"))
    with torch.no_grad():
        run.model.backbone.layers[3].bn2.bias.uniform_()
    before = bits(run.model)
    fit(run, [STATS])
    tensors, _ = load_checkpoint(tmp_path / "run" / "best.safetensors")
    originals = without_prefix("gamma", tensors)
    assert set(originals) == {
        f"backbone.layers.{i}.bn2.{name}" for i in (2, 3) for name in ("weight", "bias")
    }
    run.surgery.undo(run.model)
    after = bits(run.model)
    assert all(torch.equal(after[name], before[name]) for name in originals)
    # Negative control: the trained gammas were others.
    assert all(moved({n: before[n]}, without_prefix("model", tensors)) for n in originals)


def test_a_best_epoch_from_before_the_operation_is_not_operated_on(tmp_path):
    """The originals always belong to the weights beside them."""
    wild = replace(FULL, lr={"head": 3.0, "base": 3.0})
    run = training(tmp_path / "run", zero_gamma=ZeroGamma("last:1", when="full"))
    position = fit(run, [HEAD, wild])
    assert position.stopping.best_epoch < 2
    assert run.surgery.originals == {}
    assert bool(run.model.state_dict()[GAMMA].all())


def test_a_removed_block_can_be_removed_again_from_the_checkpoint(tmp_path):
    run = training(tmp_path / "run", zero_gamma=ZeroGamma("layers.1,layers.3", "remove"))
    fit(run, [HEAD, FULL])
    tensors, meta = load_checkpoint(tmp_path / "run" / "best.safetensors")
    model = network()
    for removal in meta["removed"]:
        remove(model, Removal(**removal))
    model.load_state_dict(without_prefix("model", tensors))
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(model.eval()(images), run.model.eval()(images))
    assert [g.name for g in run.groups] == ["stem", "layers.0", "layers.2", "head"]


def scripted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let validation say these losses, one after the other."""
    remaining = iter(losses)
    monkeypatch.setattr(loop, "validate", lambda *_: (next(remaining), None))


@pytest.mark.parametrize(("after", "kept"), [(0.1, True), (0.9, False)])
def test_statistics_estimated_anew_are_kept_only_if_validation_gains(
    tmp_path, monkeypatch, caplog, after, kept
):
    stage = replace(TOP, batch_norm={"layers.3": "recalibrate", "layers.0": "recalibrate"})
    run = training(tmp_path / "run")
    before = bits(run.model)
    scripted(monkeypatch, [0.6, 0.5, after])
    with caplog.at_level(logging.INFO, logger="medtl"):
        position = fit(run, [stage])
    statistics = {n for n in moved(before, bits(run.model)) if "running" in n}
    owners = {name.rpartition(".")[0] for name in statistics}
    expected = {"backbone.layers.3.bn1", "backbone.layers.3.bn2"}
    assert owners == (expected if kept else set()), "layers.0 did not train"
    assert position.stopping.best == (after if kept else 0.5)
    best, _ = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert not moved(without_prefix("model", best), bits(run.model))
    word = "kept" if kept else "undone"
    assert f"statistics estimated anew: {after:.4f}, before 0.5000: {word}" in caplog.text


@pytest.mark.parametrize("action", [0.0, "remove"])
@pytest.mark.parametrize(("after", "kept"), [(0.1, True), (0.9, False)])
def test_recalibration_after_zero_gamma_is_downstream_only(
    tmp_path, monkeypatch, action, after, kept
):
    run = training(tmp_path / "run", zero_gamma=ZeroGamma("layers.2", action, recalibrate=True))
    before = bits(run.model)
    scripted(monkeypatch, [0.5, after, 0.4, 0.3])
    fit(run, [HEAD])
    after_all = bits(run.model)
    statistics = {n for n in set(before) & set(after_all) if "running" in n}
    owners = {n.rpartition(".")[0] for n in statistics if moved({n: before[n]}, after_all)}
    expected = {"backbone.layers.3.bn1", "backbone.layers.3.bn2"}
    assert owners == (expected if kept else set())


def test_without_statistics_downstream_there_is_nothing_to_estimate(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="medtl"):
        plan = ZeroGamma("last:1", recalibrate=True)
        fit(training(tmp_path / "run", zero_gamma=plan), [replace(HEAD, epochs=1)])
    assert "no statistics to estimate anew" in caplog.text


def test_an_average_starts_from_the_operated_weights(tmp_path):
    run = training(tmp_path / "run", zero_gamma=ZeroGamma("last:1", lr_mult=0.0), ema_decay=0.9)
    fit(run, [FULL])
    assert not run.model.state_dict()[GAMMA].any()


def test_looking_for_blocks_draws_nothing_and_changes_nothing():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = copy.deepcopy(network_once := network())
    torch.manual_seed(5)
    GammaSurgery(model, ZeroGamma("all"), torch.zeros(1, 1, 8, 8) + 0.5)
    assert torch.equal(torch.rand(3), expected)
    assert not moved(bits(network_once), bits(model))


class TwoLayers(nn.Module):
    """Kumar's setting: features B x and a head v, both linear."""

    def __init__(self, features: Tensor, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer1 = nn.Linear(features.shape[1], features.shape[0], bias=False)
        self.head = nn.Linear(features.shape[0], 1, bias=False)
        with torch.no_grad():
            self.layer1.weight.copy_(features)

    def forward(self, x: Tensor, _extra: Tensor | None = None) -> Tensor:
        return self.head(self.layer1(x.flatten(1)))


class Values:
    """A regression task, as small as a task can be."""

    labels, outputs, extra = ("value",), 1, 0
    watched, larger_is_better = "mse", False

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs, targets)

    def assess(self, batches) -> tuple[float, None]:
        pairs = [self.loss(outputs, targets) for outputs, targets in batches]
        return float(torch.stack(pairs).mean()), None


WIDE, DEEP, SEEN = 20, 3, 8
"""Inputs, features, and directions of the input that the target data show."""


def wide_range(unit: np.ndarray) -> np.ndarray:
    """Unit images to values about -6 to 6."""
    return (unit.astype(np.float32) - 0.5) * 12


def shifted_error(folder: Path, preset: str, seed: int, *, pretrained: bool = True) -> float:
    """Mean squared error on the shifted test set after a preset.

    Pretraining on A has found features close to the true ones. B shows only some directions of the
    input; the shifted test set shows all.
    """
    rng = np.random.default_rng(seed)
    true = np.linalg.qr(rng.normal(size=(WIDE, DEEP)))[0].T
    head = rng.normal(size=DEEP)
    found = true + 0.02 * rng.normal(size=true.shape)
    basis = np.linalg.qr(rng.normal(size=(WIDE, SEEN)))[0]
    start = found if pretrained else rng.normal(size=true.shape) / np.sqrt(WIDE)
    inputs = rng.normal(size=(60, SEEN)) @ basis.T
    truth = inputs @ true.T @ head
    units = np.clip(inputs / 12 + 0.5, 0, 1)[:, None, None, :]
    folder.mkdir(parents=True)
    parts = [
        stored(units[part], truth[part], standardise=wide_range)
        for part in (slice(0, 40), slice(40, 60))
    ]
    run = Training(
        model=TwoLayers(torch.tensor(start, dtype=torch.float32), seed),
        task=Values(),
        train=parts[0],
        val=parts[1],
        can_watch=False,
        options=Options(batch_size=10, lr_batch=10, optimizer="sgd", weight_decay=0.0, seed=seed),
        runtime=Runtime("cpu"),
        folder=folder,
    )
    stages = preset_stages(preset, [group.name for group in run.groups])
    rates = {"head": 0.02, "base": 0.02}
    fit(run, [replace(s, epochs=15, lr=rates, patience=15, schedule="constant") for s in stages])
    shifted = torch.tensor(rng.normal(size=(500, WIDE)), dtype=torch.float32)
    expected = shifted.numpy() @ true.T @ head
    with torch.no_grad():
        predicted = run.model.eval()(shifted)[:, 0].numpy()
    return float(np.mean((predicted - expected) ** 2))


@pytest.mark.slow
def test_9_a_trained_head_protects_pretrained_features(tmp_path):
    """Kumar et al. 2022, theorem 3.2: a random head distorts the features while it learns.

    Negative control: where there are no pretrained features to protect, it gains nothing like it.
    """
    means = {}
    for pretrained in (True, False):
        for preset in ("lp_ft", "full"):
            errors = [
                shifted_error(
                    tmp_path / f"{preset}{seed}{pretrained}", preset, seed, pretrained=pretrained
                )
                for seed in range(10)
            ]
            means[preset, pretrained] = np.mean(errors)
    assert means["lp_ft", True] <= 0.5 * means["full", True]
    assert means["lp_ft", False] > 0.5 * means["full", False]
