"""fp16 with scaled gradients, emulated on a CPU: every stage's gradients are the true ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from four_blocks import network, samples
from torch.utils.data import default_collate

from medtl.tasks.findings import Findings
from medtl.training.callbacks import Watcher
from medtl.training.fit import fit
from medtl.training.options import Options, Training
from medtl.training.runtime import Runtime
from medtl.types import Stage

STAGES = [Stage(f"s{n}", "all", 1, {"head": 1e-3, "base": 1e-3}) for n in range(3)]


def half(monkeypatch) -> Runtime:
    """A runtime whose accelerator scales as on a GPU without bf16; sums are of single precision."""
    runtime = Runtime("cpu")
    monkeypatch.setattr(runtime._accelerator, "scaler", torch.amp.GradScaler("cpu"))
    monkeypatch.setattr(runtime._accelerator, "native_amp", True)
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")
    return runtime


def training(folder, runtime, **options) -> Training:
    return Training(
        model=network(),
        task=Findings(labels=("bright",)),
        train=samples(16, 1),
        val=samples(8, 2),
        can_watch=False,
        options=Options(batch_size=8, lr_batch=8, clip_norm=1e9, **options),
        runtime=runtime,
        folder=folder,
    )


def gradients_of_stages(runtime, clipped=None) -> list[list[torch.Tensor]]:
    """The gradients that each of three stages would step by."""
    model, found = network().eval(), []
    batch = default_collate([samples(8, 1)[0, i] for i in range(8)])
    for _ in range(3):
        model.zero_grad()
        stepper = runtime.prepare_optimizer(torch.optim.AdamW(model.parameters()))
        loss = model(batch.images, batch.inputs).square().mean()
        runtime.backward(loss)
        runtime.clip(list(model.parameters()), 1e9)
        found.append([p.grad.clone() for p in model.parameters()])
        stepper.step()
        with torch.no_grad():  # the same weights in every stage
            model.load_state_dict(network().state_dict())
    return found


def largest_error(found, expected) -> float:
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
        for stage, true in zip(found, expected, strict=True)
        for a, b in zip(stage, true, strict=True)
    )


def test_gradients_of_every_stage_are_the_true_ones(monkeypatch):
    true = gradients_of_stages(Runtime("cpu"))
    assert largest_error(gradients_of_stages(half(monkeypatch)), true) < 1e-3


def test_with_all_optimisers_unscaled_gradients_vanish(monkeypatch):
    """The control: the way before, in which the accelerator kept the optimisers of all stages."""
    true = gradients_of_stages(Runtime("cpu"))
    monkeypatch.setattr(Accelerator, "free_memory", lambda _: None)
    found = gradients_of_stages(half(monkeypatch))
    shrunk = [
        float(stage[0].abs().sum() / t[0].abs().sum()) for stage, t in zip(found, true, strict=True)
    ]
    assert shrunk == pytest.approx([1, 2**-16, 2**-32], rel=1e-3)


def test_stages_train_as_in_single_precision(tmp_path, monkeypatch):
    losses = []
    for name in ("single", "half"):
        (tmp_path / name).mkdir()
        runtime = half(monkeypatch) if name == "half" else Runtime("cpu")
        history = fit(training(tmp_path / name, runtime), STAGES).history
        losses.append([row["train_loss"] for row in history])
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


def test_a_checkpoint_holds_the_state_of_the_scaling(tmp_path, monkeypatch):
    runtime = half(monkeypatch)
    runtime._accelerator.scaler.scale(torch.ones(1))
    runtime._accelerator.scaler.update(512.0)
    saved = runtime.scaling
    other = half(monkeypatch)
    other.load_scaling({})
    assert other._accelerator.scaler.get_scale() == 2**16
    other.load_scaling(saved)
    assert other._accelerator.scaler.get_scale() == 512
    single = Runtime("cpu")
    single.load_scaling(saved)
    assert single.scaling == {}


def test_a_resumed_run_scales_as_the_one_that_was_not_stopped(tmp_path, monkeypatch):
    def run(folder, stop=None, *, resume=False):
        folder.mkdir(exist_ok=True)
        runtime = half(monkeypatch)
        runtime._accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=2)
        steps = iter(range(99))

        def interrupted(*_):
            if next(steps) == stop:
                raise ValueError("stopped")

        told = replace(training(folder, runtime), callbacks=[Watcher(on_step=interrupted)])
        fit(told, STAGES, resume=resume)
        return runtime._accelerator.scaler.get_scale()

    whole = run(tmp_path / "whole")
    with pytest.raises(ValueError, match="stopped"):
        run(tmp_path / "cut", stop=3)
    assert run(tmp_path / "cut", resume=True) == whole > 2**16
