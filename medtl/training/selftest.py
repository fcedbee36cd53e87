"""What this device is fast at, tried once in a process, and why each way of computing is chosen.

Half precision and compilation are decided by what is known of the device, because they change more
than the speed. The memory layout changes little but the speed, so it is timed: the last bits of
sums differ, which is why only a device on which one layout is plainly wrong leaves the usual one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from medtl.errors import RunError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

CLEARLY_SLOWER = 2.0
"""Ratio of times above which channels-last is not used.

It must be the same in every process of one machine, however busy, or a repeated run would give
other bits: ratios from 0.9 to 1.43 were seen on one that was.
"""

ROUNDS = 8
"""Each layout is timed so often, in turns; the shortest time counts."""


@dataclass(frozen=True)
class Choice:
    """One way of computing.

    Attributes:
        name: "precision", "layout" or "compile".
        value: What is used.
        reason: Why.
    """

    name: str
    value: str
    reason: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.name} {self.value}: {self.reason}"


def choose_precision(precision: Precision, *, on_cpu: bool) -> Choice:
    """Return the precision to use.

    Raises:
        RunError: For half precision on a CPU without the instructions: it would run, 13 times
            slower than fp32 where we measured it.
    """
    if precision == "fp32":
        return Choice("precision", "fp32", "as the recipe says")
    if on_cpu and precision == "auto":
        return Choice("precision", "fp32", "the device is a CPU")
    if on_cpu and not (precision == "bf16" and cpu_has_bf16()):
        raise RunError(
            f"run.precision is {precision!r} but this CPU has no fast instructions for it",
            fix="Use run.precision=auto",
        )
    if precision != "auto":
        return Choice("precision", precision, "as the recipe says")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Choice("precision", "bf16", "the GPU multiplies bf16, whose range is that of fp32")
    return Choice("precision", "fp16", "the GPU has no bf16; losses are scaled")


@cache
def choose_layout(device: str, precision: str) -> Choice:
    """Return the memory layout of planes, timed on a few convolutions; volumes keep theirs.

    Args:
        device: Kind of device, "cpu" or "cuda".
        precision: Of the forward pass, from `choose_precision`.
    """
    times: dict[torch.memory_format, float] = {}
    with torch.random.fork_rng(devices=[]):  # a run draws the same numbers with it or without
        layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()) for _ in range(3))
        ).to(device)
        images = torch.randn(4, 64, 28, 28, device=device)
    for _ in range(ROUNDS):
        for layout in (torch.contiguous_format, torch.channels_last):
            seconds = _step_seconds(layers, images, layout, precision)
            times[layout] = min(times.get(layout, seconds), seconds)
    ratio = times[torch.channels_last] / times[torch.contiguous_format]
    value = "channels_last" if ratio <= CLEARLY_SLOWER else "contiguous"
    return Choice("layout", value, f"channels-last takes {ratio:.2f} of the time on this device")


def choose_compilation() -> Choice:
    """Return that nothing is compiled, and why."""
    reason = (
        "every stage trains other layers and would be compiled anew, longer than stages of such "
        "studies gain"
    )
    return Choice("compile", "no", reason)


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check, lambda: False)()) for check in checks)


def _step_seconds(
    layers: nn.Module, images: Tensor, layout: torch.memory_format, precision: str
) -> float:
    """Time of a forward and backward pass; of this process alone where it runs on the CPU."""
    layers.to(memory_format=layout)  # type: ignore[call-overload]
    given = images.to(memory_format=layout)
    on_gpu = images.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    half = torch.float16 if precision == "fp16" else torch.bfloat16
    with torch.autocast(images.device.type, half, enabled=precision != "fp32"):
        result = layers(given)
    result.square().mean().backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started
