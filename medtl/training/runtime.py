"""Where and how the numbers run: device, precision, memory layout, processes.

Only this file knows Accelerate. Half precision and compilation are decided by what is known of the
device, because they change more than the speed. The memory layout changes little but the speed, so
it is timed, once in a process: the last bits of sums differ, which is why only a device on which
one layout is plainly wrong leaves the usual one.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from medtl.errors import RunError
from medtl.networks.batch_norm import is_held, tracks_statistics

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
"""What `choose_layout` says -> torch's word."""

Precision = Literal["auto", "fp32", "bf16", "fp16"]

SCALING = ("scale", "_growth_tracker")
"""What changes in a gradient scaler: the factor, and the steps since it was last changed."""

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


GLIBC = {"trim": -1, "top_pad": -2, "mmap_threshold": -3, "mmap_max": -4}
"""Settings of the C library's allocator, by its header malloc.h."""

NOT_COMPILED = Choice(
    "compile",
    "no",
    "every stage trains other layers and would be compiled anew, longer than stages of such "
    "studies gain",
)
"""Of every device: nothing is compiled."""


class Runtime:
    """Device, mixed precision and processes behind six small questions.

    Args:
        device: "auto" takes CUDA when there is one.
        precision: "auto" is bf16 (or fp16) on CUDA and fp32 on a CPU.

    Attributes:
        choices: How this device computes, and why.

    Raises:
        RunError: When CUDA is asked for and missing, or half precision on a CPU that is slow at it.
    """

    def __init__(
        self,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Precision = "auto",
    ) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise RunError("run.device is 'cuda' but torch sees no GPU", fix="Use run.device=auto")
        on_cpu = device == "cpu" or not has_cuda
        chosen = choose_precision(precision, on_cpu=on_cpu)
        layout = choose_layout("cpu" if on_cpu else "cuda", chosen.value)
        self.choices = (chosen, layout, NOT_COMPILED)
        self._layout = LAYOUTS[layout.value]
        self.precision = chosen.value
        mode = {"fp32": "no"}.get(self.precision, self.precision)
        # Accelerate keeps one precision a process; a study may compare several. Its processes stay.
        AcceleratorState._reset_state()
        self._accelerator = Accelerator(cpu=on_cpu, mixed_precision=mode)

    @property
    def device(self) -> torch.device:
        """Where tensors live."""
        return cast(torch.device, self._accelerator.device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return bool(self._accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """Index of this process."""
        return int(self._accelerator.process_index)

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return int(self._accelerator.num_processes)

    def to_device(self, tensor: Tensor) -> Tensor:
        """Move a tensor; images go into the layout that convolutions are fast in here."""
        if tensor.ndim == 4:
            return tensor.to(self.device, memory_format=self._layout, non_blocking=True)
        return tensor.to(self.device, non_blocking=True)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, in the layout of `to_device`; 3D networks keep theirs."""
        if any(parameter.ndim > 4 for parameter in model.parameters()):
            return model.to(self.device)
        return model.to(self.device, memory_format=self._layout)  # type: ignore[call-overload,no-any-return]

    def parallel(self, model: nn.Module) -> nn.Module:
        """The network to call in training: averages gradients when there are several processes.

        Made anew for each stage, because it must know which parameters train.

        Raises:
            RunError: When batch-norm statistics would follow one process's part of each batch.
        """
        if self.processes == 1:
            return model
        if any(tracks_statistics(m) and not is_held(m) for m in model.modules()):
            raise RunError(
                "batch norm cannot adapt to batches that several processes share",
                fix="Use another batch-norm policy in this stage, or one process",
            )
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer) -> Any:
        """The optimiser with gradient scaling where fp16 needs it; the one before is let go.

        Accelerate unscales the gradients of every optimiser that it knows, each time: a second one
        of the same parameters would divide them by the scale once more.
        """
        self._accelerator.free_memory()
        return self._accelerator.prepare_optimizer(optimizer)

    @property
    def scaling(self) -> dict[str, Tensor]:
        """State of the gradient scaling, for a checkpoint; empty where nothing is scaled."""
        scaler = self._accelerator.scaler
        state = {} if scaler is None else scaler.state_dict()
        return {name: torch.tensor(state[name]) for name in SCALING if name in state}

    def load_scaling(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the scaling that a checkpoint holds, where there is any on both sides."""
        scaler = self._accelerator.scaler
        if scaler is not None and tensors:
            known = {name: tensors[name].item() for name in SCALING}
            scaler.load_state_dict({**scaler.state_dict(), **known})

    def autocast(self) -> AbstractContextManager[None]:
        """Context of the forward pass."""
        return cast(AbstractContextManager[None], self._accelerator.autocast())

    def backward(self, loss: Tensor) -> None:
        """Add this loss's gradients."""
        self._accelerator.backward(loss)

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> None:
        """Clip the gradient norm, after unscaling."""
        self._accelerator.clip_grad_norm_(parameters, max_norm)

    def mean(self, value: float) -> float:
        """Mean of a number over the processes."""
        if self.processes == 1:
            return value
        total = self._accelerator.reduce(torch.tensor(value, device=self.device))
        return float(total) / self.processes

    def agreed(self, *values: float | None) -> tuple[float | None, ...]:
        """The first process's numbers, in all of them: the last bits of their own may differ.

        What they decide by must be the same to the bit, or one would wait for another for ever.
        """
        if self.processes == 1:
            return values
        from accelerate.utils import broadcast

        sent = torch.tensor([math.nan if value is None else value for value in values])
        known: list[float] = broadcast(sent.double().to(self.device)).tolist()
        return tuple(None if math.isnan(value) else value for value in known)

    def in_any_process(self, flag: bool) -> bool:
        """Whether a flag is set in one of the processes: all of them get the same answer."""
        if self.processes == 1:
            return flag
        count = self._accelerator.reduce(torch.tensor(float(flag), device=self.device))
        return bool(count > 0)

    def wait(self) -> None:
        """Wait for all processes."""
        self._accelerator.wait_for_everyone()


def refuse_lost_processes(runtime: Runtime) -> None:
    """Stop when a launcher was asked for more processes than train together.

    `accelerate launch --cpu --num_processes 2` starts one process and says nothing; processes that
    MPI or SLURM starts do not find each other without torchrun's variables.

    Raises:
        RunError: Naming both numbers, and the line that starts as many.
    """
    asked = max([1, *_stated_processes()])
    if asked > runtime.processes:
        raise RunError(
            f"{asked} processes were asked for and {runtime.processes} trains",
            expected="processes that find each other",
            fix=f"Start them by: torchrun --nproc_per_node {asked} $(which medtl) run ...",
        )


def _stated_processes() -> Iterator[int]:
    """The numbers of processes that launchers around this one were asked for."""
    for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        if os.environ.get(name, "").isdigit():
            yield int(os.environ[name])
    if "ACCELERATE_MIXED_PRECISION" in os.environ:  # its launcher was here
        import psutil

        for parent in psutil.Process().parents()[:2]:
            with suppress(psutil.Error):
                line = " ".join(parent.cmdline())
                found = re.search(r"accelerate\S* launch\b.*? --num[_-]processes[ =](\d+)", line)
                if found:
                    yield int(found[1])


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


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Have the C library keep what is freed for what is asked for next, while the block runs.

    Each step of a training asks for the same large pieces. glibc takes those above 32 MB from the
    kernel and gives them back, and the kernel clears each page anew: a tenth to a quarter of the
    processor time of a training on images of 128 to 160 pixels. It costs memory, an eighth there.
    Another C library is left alone. No number changes.
    """
    try:
        glibc = ctypes.CDLL(None)
        chosen, give_back = glibc.mallopt, glibc.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    chosen(GLIBC["mmap_max"], 0)
    chosen(GLIBC["trim"], -1)  # give nothing back
    chosen(GLIBC["top_pad"], 64 * 2**20)
    try:
        yield
    finally:  # what glibc comes to by itself in a process that frees large pieces
        chosen(GLIBC["mmap_max"], 65536)
        chosen(GLIBC["mmap_threshold"], 32 * 2**20)
        chosen(GLIBC["trim"], 64 * 2**20)
        chosen(GLIBC["top_pad"], 128 * 2**10)
        give_back(0)


@contextmanager
def explained_failures(demands: str) -> Iterator[None]:
    """Turn the ways in which a machine fails into errors that say what to change.

    Args:
        demands: What was asked of the machine, for the message.

    Raises:
        RunError: When memory runs out, or a loader process or one that trains with this one dies.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        text = str(error)
        if "gloo" in text or type(error).__name__.startswith("Dist"):  # torch's DistError
            raise RunError(
                "another process of this training has stopped",
                fix="Its own message says why; mend that, then --resume",
            ) from error
        if "DataLoader worker" in text:
            raise RunError(
                f"a loader process was killed, perhaps for want of memory ({demands})",
                fix="Lower run.workers or finetune.batch_size, then --resume",
            ) from error
        if "deterministic" in text:
            raise RunError(
                "this network needs an operation that has no deterministic algorithm here",
                fix="Leave --deterministic out: on a CPU the bits are the same without it",
            ) from error
        kinds = (MemoryError, torch.OutOfMemoryError)
        if isinstance(error, kinds) or "allocate memory" in text:
            raise RunError(
                f"there is not enough memory ({demands})",
                fix="Lower finetune.batch_size and raise finetune.accumulate, or lower image.size",
            ) from error
        raise


def make_deterministic() -> str:
    """Choose the algorithms that give the same bits again; return what that promises."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    return (
        "Deterministic: the same bits again on this machine with these versions and "
        f"{torch.get_num_threads()} threads, with any number of workers, resumed or not. On "
        "another processor, with other versions or another number of threads only nearly the "
        "same: metrics to about 1e-5. environment.json records all of them."
    )
