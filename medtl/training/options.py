"""What a training is given: the network, the cases, what it lowers, who is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor, nn

from medtl.data.batches import CaseSamples
from medtl.errors import RunError
from medtl.losses.penalty import Penalty
from medtl.networks.groups import LayerGroup, layer_groups
from medtl.networks.zero_gamma import GammaSurgery
from medtl.tasks.protocols import Task
from medtl.training.callbacks import Callback
from medtl.training.objective import Objective
from medtl.training.runtime import Runtime


@dataclass(frozen=True)
class Options:
    """Settings that all stages share.

    Attributes:
        batch_size: Images in one forward pass, over all processes.
        accumulate: Forward passes per optimiser step.
        lr_batch: Images per step that the stages' learning rates are stated for; they scale
            linearly with `batch_size * accumulate` (Goyal et al. 2017).
        optimizer: "adamw" or "sgd".
        weight_decay: On matrices and kernels.
        clip_norm: Largest gradient norm, or None.
        ema_decay: Of the moving average that is validated and kept instead of the weights, or None;
            see `MovingAverage`.
        ema_warmup: Whether the average follows quickly in the first steps of a stage.
        penalty: On the size of some weights, or None.
        monitor: "auto" watches the validation loss, or a metric of one's own where one is given.
        min_delta, baseline: See `Stopping`.
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
    ema_warmup: bool = True
    penalty: Penalty | None = None
    monitor: Literal["auto", "val_loss", "val_metric"] = "auto"
    min_delta: float = 0.0
    baseline: float | None = None
    seed: int = 0
    workers: int = 0


@dataclass(frozen=True)
class WatchedMetric:
    """A statistic of one's own, which early stopping watches in place of the task's.

    Attributes:
        function: Targets `(n, ...)`, NaN where not known, and scores `(n, ...)` in the unit of the
            report -> a number; arrays of one column come as `(n,)`.
        name: For the history.
        larger_is_better: Which way it improves.
    """

    function: Callable[[NDArray[Any], NDArray[Any]], float]
    name: str = "own metric"
    larger_is_better: bool = True


@dataclass(frozen=True)
class ActivationCache:
    """Where stored activations go, and how many there may be.

    Attributes:
        folder: Safe to delete at any time; another run of the same images finds its files again.
        views: Augmented views of each training image.
        limit_bytes: Of the folder; what was used longest ago makes room.
    """

    folder: Path
    views: int
    limit_bytes: int = 20 * 2**30


@dataclass(frozen=True)
class Training:
    """One network to train, and all it takes; `medtl.training.fit.fit` trains it.

    Attributes:
        model: The network; `fit` changes it in place.
        task: The meaning of the numbers, with the class weights of the training cases.
        train, val: The cases of the two splits.
        can_watch: Whether the validation cases are enough for the task's statistic.
        options: Settings that all stages share.
        runtime: Device, precision, processes.
        folder: Where `best.safetensors`, `last.safetensors` and the one before it
            (`previous.safetensors`) go.
        objective: What is lowered; None is the task's own loss, `Supervised`. The penalty of the
            options is added to either.
        callbacks: Told of steps and epochs, in their order.
        metric: Watched in place of the task's statistic, or None.
        surgery: Zero-gamma, planned on this network; `fit` applies it before its stage.
        cache: Where a stage stores what its frozen layers give; None runs them in every epoch.
        meta: What a checkpoint must say besides the weights (labels, preprocessing, recipe).
        extra: Tensors that a checkpoint must hold besides the weights (a fitted pixel mean).
    """

    model: nn.Module
    task: Task
    train: CaseSamples
    val: CaseSamples
    can_watch: bool
    options: Options
    runtime: Runtime
    folder: Path
    objective: Objective | None = None
    callbacks: Sequence[Callback] = ()
    metric: WatchedMetric | None = None
    surgery: GammaSurgery | None = None
    cache: ActivationCache | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def groups(self) -> tuple[LayerGroup, ...]:
        """The layer groups of the network, stem to head."""
        return layer_groups(self.model)

    @property
    def monitor(self) -> str:
        """What early stopping watches: "val_loss" or "val_metric".

        Raises:
            RunError: When it is to be the task's statistic, and there are too few cases for it.
        """
        can_watch = self.can_watch or self.metric is not None
        if self.options.monitor == "val_metric" and not can_watch:
            raise RunError(
                f"too few validation cases to watch the {self.task.watched}",
                fix="Use finetune.early_stopping.monitor: auto",
            )
        if self.options.monitor == "auto":
            return "val_loss" if self.metric is None else "val_metric"
        return self.options.monitor

    @property
    def watched(self) -> tuple[str, bool]:
        """Name of the statistic of the validation cases, and whether larger is better."""
        if self.metric is not None:
            return self.metric.name, self.metric.larger_is_better
        return self.task.watched, self.task.larger_is_better

    def cases(self, places: Tensor) -> list[str]:
        """The ids of the cases at some places of the training split."""
        rows = self.train.rows[places.cpu().numpy()]
        return [self.train.store.case_ids[int(row)] for row in rows]
