"""`make gpu-check`: does a GPU compute what the CPU computes, how fast, and in how much memory?

Ten minutes at most. Each check prints a line; one that fails ends the program with status 1.
`--device cpu` rehearses all of it where there is no GPU: the CPU is then compared with itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.staged import samples
from medtl.networks.backbones import build_classifier
from medtl.networks.weights import WeightsSource
from medtl.tasks.findings import Findings
from medtl.training.fit import fit
from medtl.training.options import Options, Training
from medtl.training.runtime import Runtime
from medtl.types import Stage

LOGITS = 1e-3
"""Largest difference of logits from the CPU's, in fp32 without TF32."""

LOSSES = {"fp32": 0.01, "bf16": 0.1, "fp16": 0.05}
"""Largest relative difference of the last training loss from the CPU's, by precision."""

GROWTH = 1.1
"""A third stage of the same layers may take so much of the memory of the first."""


@dataclass(frozen=True)
class Size:
    """How much is computed: all of it on a GPU, little in a rehearsal."""

    backbone: str
    images: int
    batch: int
    steps: int


WHOLE = Size("tf_efficientnet_lite0", 256, 32, 50)
REHEARSAL = Size("test_resnet", 16, 8, 2)


def checks(device: str, size: Size) -> Iterator[tuple[str, bool, str]]:
    """Yield name, whether it holds, and what was seen."""
    yield _logits(device, size)
    expected, _ = _trained("cpu", "fp32", size)
    for precision in ("fp32",) if device == "cpu" else ("fp32", "bf16", "fp16"):
        losses, peaks = _trained(device, precision, size)
        apart = abs(losses[-1] - expected[-1]) / expected[-1]
        seen = f"last loss {losses[-1]:.4f}, {expected[-1]:.4f} on the CPU"
        yield f"training in {precision}", apart <= LOSSES[precision], seen
        held = peaks[-1] <= GROWTH * max(peaks[0], 1)
        seen = " ".join(f"{peak / 2**20:.0f}" for peak in peaks)
        yield f"memory in {precision}", held, f"MiB at the end of each stage: {seen}"
        yield (
            f"speed in {precision}",
            True,
            f"{_speed(device, precision, size):.0f} images a second",
        )


def _network(size: Size) -> Any:
    """The same random network each time."""
    torch.manual_seed(0)
    return build_classifier(size.backbone, outputs=1, weights=WeightsSource("none"))[0]


def _logits(device: str, size: Size) -> tuple[str, bool, str]:
    """A forward pass there and on the CPU."""
    torch.backends.cudnn.allow_tf32 = False
    model, given = _network(size).eval(), samples(size.batch, None)
    images = torch.stack([given[0, i].images for i in range(size.batch)])
    with torch.inference_mode():
        expected = model(images)
        found = model.to(device)(images.to(device)).cpu()
    torch.backends.cudnn.allow_tf32 = True
    apart = float((found - expected).abs().max())
    return "forward pass", apart <= LOGITS, f"logits differ by {apart:.1e}"


def _trained(device: str, precision: Any, size: Size) -> tuple[list[float], list[int]]:
    """The training losses of three stages, and the memory that each of them left allocated."""
    losses, peaks = list[float](), list[int]()

    def on_epoch(history: Any) -> None:
        losses.append(history[-1]["train_loss"])
        if device == "cuda":
            peaks.append(torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
        else:
            peaks.append(0)

    from medtl.training.callbacks import Watcher

    rates = {"head": 1e-3, "base": 1e-3}
    stages = [Stage(f"s{n}", "all", 1, rates, batch_norm={"all": "frozen"}) for n in range(3)]
    with TemporaryDirectory() as folder:
        training = Training(
            model=_network(size),
            task=Findings(labels=("it",)),
            train=samples(size.images, None),
            val=samples(size.batch, None),
            can_watch=False,
            options=Options(batch_size=size.batch),
            runtime=Runtime("cuda" if device == "cuda" else "cpu", precision),
            folder=Path(folder),
            callbacks=[Watcher(on_epoch=on_epoch)],
        )
        fit(training, stages)
    return losses, peaks


def _speed(device: str, precision: Any, size: Size) -> float:
    """Training images a second, decoded and augmented ones in memory."""
    runtime = Runtime("cuda" if device == "cuda" else "cpu", precision)
    model = runtime.place(_network(size)).train()
    stepper = runtime.prepare_optimizer(torch.optim.AdamW(model.parameters()))
    images = runtime.to_device(torch.randn(size.batch, 3, 224, 224))
    began = 0.0
    for step in range(size.steps + 3):
        if step == 3:
            if device == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
        with runtime.autocast():
            loss = model(images).float().square().mean()
        runtime.backward(loss)
        stepper.step()
        stepper.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return size.steps * size.batch / (time.perf_counter() - began)


def main(arguments: list[str]) -> int:
    """Run the checks; return 1 when one fails, 2 when there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    device = parser.parse_args(arguments).device
    if device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here; --device cpu rehearses the check")
        return 2
    print(torch.cuda.get_device_name() if device == "cuda" else "rehearsal on the CPU")
    failed = 0
    for name, holds, seen in checks(device, WHOLE if device == "cuda" else REHEARSAL):
        print(f"{'ok  ' if holds else 'FAIL'} {name}: {seen}", flush=True)
        failed += not holds
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
