"""What all stages of a run share, and who is told of its progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medtl.networks.zero_gamma import ZeroGamma
from medtl.types import Stage


@dataclass(frozen=True)
class Options:
    """What all stages share.

    Attributes:
        batch_size: Images in one forward pass, over all processes.
        accumulate: Forward passes per optimiser step.
        lr_batch: Images per step that the stages' learning rates are stated for; they scale
            linearly with `batch_size * accumulate` (Goyal et al. 2017).
        optimizer: "adamw" or "sgd".
        weight_decay: On matrices and kernels.
        clip_norm: Largest gradient norm, or None.
        ema_decay: Of the moving average that is validated and kept instead of the weights, or None.
        penalty: (strength, L1 ratio, selector of layer groups), or None.
        monitor: "auto" watches the task's statistic where there are enough validation cases, else
            the validation loss.
        min_delta, baseline: See `Stopping`.
        zero_gamma: What is done to which residual blocks, or None.
        seed: Of order, augmentation and dropout.
        workers: Loader processes; the results do not depend on it.
    """

    batch_size: int = 32
    accumulate: int = 1
    lr_batch: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    ema_decay: float | None = None
    penalty: tuple[float, float, str] | None = None
    monitor: Literal["auto", "val_loss", "val_metric"] = "auto"
    min_delta: float = 0.0
    baseline: float | None = None
    zero_gamma: ZeroGamma | None = None
    seed: int = 0
    workers: int = 0


@dataclass(frozen=True)
class Watcher:
    """What the outside wants to hear: progress bars, history files, trackers.

    Attributes:
        on_step: Called with (stage, epoch of the stage, done batches, batches).
        on_epoch: Called with the history so far.
    """

    on_step: Callable[[Stage, int, int, int], None] = lambda *_: None
    on_epoch: Callable[[Sequence[Mapping[str, Any]]], None] = lambda *_: None
