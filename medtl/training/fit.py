"""The staged training loop: apply the stage, rebuild the optimiser, run epochs, keep the best.

Every epoch ends in a checkpoint, and so does a signal to stop, between two steps. Every random draw
is a function of (seed, epoch, position). So a run that was stopped anywhere goes on from its last
checkpoint and ends in the same bits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medtl.data.batches import Batch, CaseSamples, EpochBatches, make_loader
from medtl.data.seeds import Stream, torch_seed
from medtl.errors import RunError
from medtl.losses.penalty import elastic_penalty, penalised_weights
from medtl.networks.groups import layer_groups
from medtl.networks.residual import modules_after
from medtl.networks.zero_gamma import GammaSurgery
from medtl.storage.interrupt import held
from medtl.tasks.protocols import Task
from medtl.training.activations import ActivationCache, CachedStage, CachePlan, plan_cache
from medtl.training.bn_statistics import estimate_statistics, keep_if_better
from medtl.training.checkpoint import load_optimizer, without_prefix
from medtl.training.ema import MovingAverage
from medtl.training.finite import require_finite, require_finite_value
from medtl.training.forward import network_outputs
from medtl.training.optimizer import set_rate
from medtl.training.options import Options, Watcher
from medtl.training.position import Position
from medtl.training.runtime import Runtime
from medtl.training.saving import RunCheckpoints
from medtl.training.schedule import rate_factor
from medtl.training.stage import enter_stage, parameters_of, recalibrated_groups
from medtl.types import Stage

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """One network being trained.

    Attributes:
        model: The network; `fit` changes it in place.
        task: What the numbers mean, with the class weights of the training cases.
        train, val: Samples of the two splits.
        options: What all stages share.
        can_watch: Whether the validation cases are enough for the task's statistic.
        runtime: Device, precision, processes.
        folder: Where `best.safetensors`, `last.safetensors` and the one before it
            (`previous.safetensors`) go.
        meta: What a checkpoint must say besides the weights (labels, preprocessing, recipe).
        extra: Tensors that a checkpoint must hold besides the weights (a fitted pixel mean).
        watcher: Who is told of steps and epochs.
        cache: Where a stage stores what its frozen layers give; None runs them in every epoch.
    """

    model: nn.Module
    task: Task
    train: CaseSamples
    val: CaseSamples
    can_watch: bool
    options: Options
    runtime: Runtime
    folder: Path
    meta: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    watcher: Watcher = field(default_factory=Watcher)
    cache: ActivationCache | None = None

    def __post_init__(self) -> None:
        """Move the network and decide what early stopping watches."""
        self.runtime.place(self.model)
        self.surgery = self._plan_surgery()
        self.groups = layer_groups(self.model)
        self.monitor = self._choose_monitor()
        meta = {**self.meta, "monitor": self.monitor}
        self.checkpoints = RunCheckpoints(self.folder, self.model, self.surgery, meta, self.extra)
        self._is_asked_to_stop: Callable[[], bool] = lambda: False
        self._cached: CachedStage | None = None

    def fit(self, stages: Sequence[Stage], *, resume: bool = False) -> Position:
        """Run the stages in order and leave the model at its best epoch of all stages.

        Args:
            stages: What to do.
            resume: Go on from `last.safetensors`, or the one before it when that is damaged.

        Returns:
            The final position, with the history.

        Raises:
            RunError: When nothing trains in a stage, or the loss stops being finite.
            WeightsError: When the checkpoint to resume from is damaged.
            SelectorError: When a stage names a layer group that does not exist.
            KeyboardInterrupt: After a signal to stop, once the checkpoint is written.
        """
        with held() as self._is_asked_to_stop:
            return self._fit(stages, resume)

    def _fit(self, stages: Sequence[Stage], resume: bool) -> Position:
        """Run the stages, signals being held back."""
        position, saved = self._start(resume)
        while position.stage < len(stages):
            position = self._run_stage(stages[position.stage], position, saved)
            saved = {}
            self._load_best()
            position = self._end_stage(stages[position.stage], position).next_stage()
            self._save("last", position)
        self._load_best()
        return position

    def validate(self) -> tuple[float, float | None]:
        """Return the loss over all validation cases and the task's statistic (None if too few)."""
        options, cached = self.options, self._cached
        batches = network_outputs(
            self.model if cached is None else cached.network,
            self.val if cached is None else cached.val,
            self.runtime,
            batch_size=options.batch_size,
            workers=options.workers if cached is None else 0,
            progress=lambda *_: self._stop_if_asked(),
        )
        return self.task.assess(batches)

    def _run_stage(self, stage: Stage, position: Position, saved: Mapping[str, Tensor]) -> Position:
        """Run one stage from where `position` stands to its last epoch or the end of patience."""
        if (
            self.surgery
            and not position.in_stage
            and self.surgery.is_due(stage.name, position.stage)
        ):
            self._operate(self.surgery, position)
        optimizer = self.enter(stage)
        decay = self.options.ema_decay
        average = None if decay is None else MovingAverage(self.model, decay)
        if position.in_stage:
            load_optimizer(optimizer, without_prefix("optimizer", saved))
            if average is not None:
                average.load(without_prefix("ema", saved))
        stepper = self.runtime.prepare_optimizer(optimizer)
        self._cached = self._open_cache(stage, position)
        batches = self._batches()
        if self._cached is None:
            network, samples = self.runtime.parallel(self.model), self.train
        else:
            network, samples = self.runtime.parallel(self._cached.network), self._cached.train
        pin = self.runtime.device.type == "cuda"
        workers = self.options.workers if self._cached is None else 0
        loader = make_loader(samples, batches, workers=workers, pin=pin)
        log.info("stage %s: %s, watching the %s", stage.name, stage.train, self.monitor)
        while position.epoch < stage.epochs and position.stopping.waited < stage.patience:
            started = time.monotonic()
            batches.epoch, batches.first = position.total_epochs, position.batch
            if self._cached is not None:
                self._cached.prepare(position.total_epochs, on_batch=self._stop_if_asked)
            position = self._train_epoch(stage, position, network, stepper, loader, average)
            try:
                position = self._close_epoch(stage, position, started, average)
            except KeyboardInterrupt:
                self._save("last", position, optimizer=optimizer, average=average)
                log.warning("stopped after %d batches of an epoch", position.batch)
                raise
            self._save("last", position, optimizer=optimizer, average=average)
            if self.runtime.is_main:
                self.watcher.on_epoch(position.history)
        self._cached = None
        return position

    def _batches(self) -> EpochBatches:
        """This process's batches of the training cases."""
        return EpochBatches(
            len(self.train),
            self.options.batch_size,
            seed=self.options.seed,
            rank=self.runtime.rank,
            processes=self.runtime.processes,
        )

    def cache_plan(self, stage: Stage) -> CachePlan | str:
        """Return what the stage entered last would store of its frozen layers, or why nothing."""
        if self.cache is None:
            return "run in every epoch"
        splits = (self.train, self.val)
        return plan_cache(self.model, self.groups, stage, splits, self.cache, self.runtime)

    def _open_cache(self, stage: Stage, position: Position) -> CachedStage | None:
        """The stage as it trains on stored activations, if it does."""
        plan = self.cache_plan(stage)
        log.info("stage %s: frozen layers: %s", stage.name, plan)
        if isinstance(plan, str):
            return None
        first_epoch = position.total_epochs - position.epoch
        options = self.options
        train = EpochBatches(len(self.train), options.batch_size, seed=options.seed)
        val = EpochBatches(len(self.val), options.batch_size, seed=None)
        return plan.open(train, val, first_epoch, workers=options.workers)

    def _train_epoch(
        self,
        stage: Stage,
        position: Position,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: DataLoader[Batch],
        average: MovingAverage | None,
    ) -> Position:
        """Train on the batches that the epoch still has, or until a signal asks to stop."""
        options = self.options
        network.train()
        sampler = cast(EpochBatches, loader.batch_sampler)
        batches = len(loader)
        steps = self._steps_per_epoch()
        optimizer.zero_grad(set_to_none=True)
        for index, batch in enumerate(loader, position.batch):
            counters = (position.total_epochs, index, self.runtime.rank)
            torch.manual_seed(torch_seed(options.seed, Stream.DROPOUT, *counters))
            group_start = index - index % options.accumulate
            share = 1 / min(options.accumulate, batches - group_start)
            loss = self.loss(network, batch)
            require_finite(loss, stage.name, position.total_epochs, self._cases(batch[-1]))
            self.runtime.backward(loss * (share * sampler.share(index, len(batch[-1]))))
            if (index + 1) % options.accumulate == 0 or index + 1 == batches:
                step = position.epoch * steps + index // options.accumulate
                self.step(stage, position, step, optimizer)
                if average is not None:
                    average.update(self.model)
            loss_sum = position.loss_sum + float(loss.detach()) * len(batch[-1])
            position = replace(position, batch=index + 1, loss_sum=loss_sum)
            self.watcher.on_step(stage, position.epoch, index + 1, batches)
            is_between_steps = (index + 1) % options.accumulate == 0
            if is_between_steps and self.runtime.in_any_process(self._is_asked_to_stop()):
                break
        return replace(position, loss_sum=self.runtime.mean(position.loss_sum))

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Loss of one batch, penalty included."""
        images, inputs, targets, _ = (self.runtime.to_device(part) for part in batch)
        with self.runtime.autocast():
            outputs = network(images, inputs)
        loss = self.task.loss(outputs.float(), targets)
        if self.options.penalty is not None:
            strength, l1_ratio, layers = self.options.penalty
            weights = penalised_weights(parameters_of(self.model, self.groups, layers))
            if weights:
                loss = loss + elastic_penalty(weights, strength=strength, l1_ratio=l1_ratio)
        return loss

    def _steps_per_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        return -(-len(self._batches()) // self.options.accumulate)

    def _rate_factor(self, stage: Stage, position: Position, step: int) -> float:
        """Factor on the stage's learning rates at one of its steps: schedule and batch size."""
        options, steps = self.options, self._steps_per_epoch()
        scheduled = rate_factor(
            stage.schedule,
            step,
            steps=steps * stage.epochs,
            warmup_steps=round(steps * stage.warmup_epochs),
            plateau_drops=position.drops,
        )
        return scheduled * options.batch_size * options.accumulate / options.lr_batch

    def step(
        self,
        stage: Stage,
        position: Position,
        step: int,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """One optimiser step at the scheduled rate."""
        options = self.options
        set_rate(optimizer, self._rate_factor(stage, position, step))
        if options.clip_norm is not None:
            self.runtime.clip(list(self.model.parameters()), options.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _close_epoch(
        self,
        stage: Stage,
        position: Position,
        started: float,
        average: MovingAverage | None,
    ) -> Position:
        """Validate, update early stopping, and save the model when it is the best so far."""
        self._stop_if_asked()
        train_loss = position.loss_sum * self.runtime.processes / len(self.train)
        val_loss, metric = self._validate_average(average)
        watched = self._watched(val_loss, metric)
        require_finite_value(watched, self.monitor, stage.name, position.total_epochs)
        steps = self._steps_per_epoch()
        of_epoch = range(position.epoch * steps, (position.epoch + 1) * steps)
        factor = max(self._rate_factor(stage, position, step) for step in of_epoch)
        base = stage.lr.get("base")
        surgery = self.surgery if self.surgery and self.surgery.originals else None
        sizes = surgery.sizes(self.model) if surgery else {}
        row = {
            "stage": stage.name,
            "epoch": position.total_epochs,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_metric": metric,
            "watched": self.task.watched,
            "lr_head": stage.lr["head"] * factor,
            "lr_base": None if base is None else base * factor,
            "mean_gamma": sum(sizes.values()) / len(sizes) if sizes else None,
            "seconds": round(time.monotonic() - started, 2),
        }
        position = position.after_epoch(stage, watched, row)
        log.info("epoch %d: train %.4f, val %.4f", row["epoch"], train_loss, val_loss)
        if sizes:
            log.info("mean |gamma|: %s", ", ".join(f"{n} {v:.4g}" for n, v in sizes.items()))
        if position.improved:
            self._save("best", position, average=average)
        return position

    def _watched(self, loss: float, metric: float | None) -> float:
        """What early stopping looks at, NaN when it is undefined."""
        value = loss if self.monitor == "val_loss" else metric
        return math.nan if value is None else value

    def _stop_if_asked(self) -> None:
        """Leave when a signal has asked any of the processes to stop."""
        if self.runtime.in_any_process(self._is_asked_to_stop()):
            raise KeyboardInterrupt

    def _validate_average(self, average: MovingAverage | None) -> tuple[float, float | None]:
        """Validate the averaged weights when there are any, else the trained ones."""
        if average is None:
            return self.validate()
        with average.applied(self.model):
            return self.validate()

    def enter(self, stage: Stage) -> torch.optim.Optimizer:
        """Freeze, thaw and set the batch-norm policy; return the optimiser of this stage."""
        rates = {} if self.surgery is None else self.surgery.rates
        return enter_stage(self.model, self.groups, stage, self.options, gamma_rates=rates)

    def _cases(self, places: Tensor) -> list[str]:
        """The cases at some positions of the training split."""
        return [self.train.store.case_ids[int(row)] for row in self.train.rows[places.numpy()]]

    def _choose_monitor(self) -> str:
        """What early stopping watches."""
        if self.options.monitor == "val_metric" and not self.can_watch:
            raise RunError(
                f"too few validation cases to watch the {self.task.watched}",
                fix="Use finetune.early_stopping.monitor: auto",
            )
        if self.options.monitor == "auto":
            return "val_metric" if self.can_watch else "val_loss"
        return self.options.monitor

    def _start(self, resume: bool) -> tuple[Position, Mapping[str, Tensor]]:
        """The position and tensors to go on from."""
        found = self.checkpoints.load_last() if resume else None
        if found is not None:
            return found
        position = Position()
        larger_is_better = self.monitor == "val_metric" and self.task.larger_is_better
        stopping = replace(
            position.stopping,
            mode="max" if larger_is_better else "min",
            min_delta=self.options.min_delta,
            baseline=self.options.baseline,
        )
        return replace(position, stopping=stopping), {}

    def _save(self, name: Literal["best", "last"], position: Position, **state: Any) -> None:
        """Write a checkpoint, in one of the processes."""
        if self.runtime.is_main:
            self.checkpoints.save(name, position, **state)

    def _load_best(self) -> None:
        """Go on from the best weights of all stages."""
        self.runtime.wait()
        self.checkpoints.load_best()

    def _plan_surgery(self) -> GammaSurgery | None:
        """Find the blocks that zero-gamma is about; blocks to be removed are gone afterwards."""
        plan = self.options.zero_gamma
        if plan is None or plan.select == "none":
            return None
        return GammaSurgery(self.model, plan, self._image())

    def _image(self) -> Tensor:
        """A training image, to see what runs in the network and in what order."""
        return self.runtime.to_device(self.train[(0, 0)][0][None])

    def _operate(self, surgery: GammaSurgery, position: Position) -> None:
        """Do what zero-gamma is asked to, and say it."""
        surgery.apply(self.model)
        names = ", ".join(block.name for block in surgery.blocks)
        log.info("zero-gamma: %s: %s", names, surgery.plan)
        if surgery.plan.recalibrate and surgery.blocks:
            downstream = modules_after(self.model, surgery.blocks[0], self._image())
            self._recalibrate(downstream, position, self._watched(*self.validate()))

    def _end_stage(self, stage: Stage, position: Position) -> Position:
        """Estimate statistics anew where the stage asks for it; they count as its best epoch."""
        names = recalibrated_groups(self.groups, stage)
        if not names:
            return position
        modules = dict(self.model.named_modules())
        norms = [modules[name] for g in self.groups if g.name in names for name in g.modules]
        best = position.stopping.best
        before = self._watched(*self.validate()) if best is None else best
        after = self._recalibrate(norms, position, before)
        if after is not None:
            position = replace(position, stopping=replace(position.stopping, best=after))
            self._save("best", position)
        return position

    def _recalibrate(
        self, norms: Sequence[nn.Module], position: Position, before: float
    ) -> float | None:
        """Estimate statistics anew; keep them and return the new value if validation gains."""
        estimate = partial(
            estimate_statistics,
            self.model,
            samples=self.train,
            runtime=self.runtime,
            batch_size=self.options.batch_size,
            seed=self.options.seed,
        )
        return keep_if_better(
            self.model,
            norms,
            estimate,
            watch=lambda: self._watched(*self.validate()),
            before=before,
            beats=position.stopping.beats,
        )
