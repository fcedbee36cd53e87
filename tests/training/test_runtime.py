"""How a device is told to compute, and that asking changes nothing."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest
import torch

from medtl.errors import RunError
from medtl.training import runtime
from medtl.training.runtime import Choice, Runtime, choose_layout, choose_precision


def test_half_precision_on_a_cpu_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: False)
    assert choose_precision("auto", on_cpu=True).value == "fp32"
    with pytest.raises(RunError, match="no fast instructions"):
        choose_precision("bf16", on_cpu=True)
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    assert choose_precision("bf16", on_cpu=True).value == "bf16"
    assert choose_precision("auto", on_cpu=True).value == "fp32", "never without being asked"
    with pytest.raises(RunError, match="no fast instructions"):
        choose_precision("fp16", on_cpu=True)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_the_half_precision_it_has(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    assert choose_precision("auto", on_cpu=False).value == expected
    assert choose_precision("fp16", on_cpu=False).value == "fp16"
    assert choose_precision("fp32", on_cpu=False).value == "fp32"


@pytest.mark.parametrize(("ratio", "value"), [(1.5, "channels_last"), (2.4, "contiguous")])
def test_only_a_layout_that_is_plainly_slower_is_left(monkeypatch, ratio, value):
    def seconds(_layers, _images, layout, _precision):
        return ratio if layout == torch.channels_last else 1.0

    monkeypatch.setattr(runtime, "_step_seconds", seconds)
    choice = choose_layout.__wrapped__("cpu", "fp32")
    assert (choice.value, f"{ratio:.2f} of the time" in choice.reason) == (value, True)


def test_asking_draws_no_number_and_is_done_once():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = choose_layout.__wrapped__("cpu", "fp32")
    assert torch.equal(torch.rand(2), expected)
    assert choose_layout("cpu", "fp32") is choose_layout("cpu", "fp32")
    assert "channels-last takes" in str(first)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_images_and_networks_go_into_the_chosen_layout(monkeypatch, layout):
    monkeypatch.setattr(runtime, "choose_layout", lambda *_: Choice("layout", layout, "told"))
    chosen = Runtime("cpu")
    image = chosen.to_device(torch.rand(2, 3, 4, 4))
    network = chosen.place(torch.nn.Conv2d(3, 4, 3))
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert image.is_contiguous(memory_format=memory)
    assert network.weight.is_contiguous(memory_format=memory)
    assert [c.name for c in chosen.choices] == ["precision", "layout", "compile"]


def test_one_process_may_try_several_precisions(monkeypatch):
    """A study over run.precision ended in a ValueError of Accelerate."""
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    product = []
    for precision in ("fp32", "bf16", "fp32"):
        own = Runtime("cpu", precision)
        with own.autocast():
            product.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
    assert product == [torch.float32, torch.bfloat16, torch.float32]


FAULTS = """
import resource
from contextlib import nullcontext
from medtl.training.runtime import freed_memory_kept

def faults(context):
    with context:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):  # written to, as activations are
            b"x" * (64 * 2**20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

plain, kept, again = faults(nullcontext()), faults(freed_memory_kept()), faults(nullcontext())
print(plain, kept, again, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_pieces_are_kept_for_the_next_step_and_given_back_afterwards():
    said = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    ).stdout
    plain, kept, again, resident = map(int, said.split())
    assert kept < plain / 5
    assert again > plain / 2
    assert resident < 2**30


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with runtime.freed_memory_kept():
        pass
