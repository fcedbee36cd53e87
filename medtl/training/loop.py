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
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medtl.errors import RunError
from medtl.io.interrupt import held
from medtl.losses.penalty import elastic_penalty, penalised_weights
from medtl.networks.batchnorm import tracks_statistics
from medtl.networks.freeze import apply_stage
from medtl.networks.groups import layer_groups
from medtl.networks.residual import modules_after
from medtl.networks.selectors import resolve
from medtl.networks.zero_gamma import GammaSurgery, ZeroGamma
from medtl.tasks.task import Task
from medtl.training.batches import Batch, CaseSamples, EpochBatches, make_loader
from medtl.training.checkpoint import (
    load_checkpoint,
    load_exactly,
    load_latest,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from medtl.training.ema import MovingAverage
from medtl.training.forward import network_outputs
from medtl.training.optimizer import make_optimizer, parameter_groups, set_rate
from medtl.training.position import Position
from medtl.training.recalibration import estimate_statistics
from medtl.training.runtime import Runtime
from medtl.training.schedule import rate_factor
from medtl.training.seeds import Stream, torch_seed
from medtl.types import Stage

log = logging.getLogger(__name__)


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

    def __post_init__(self) -> None:
        """Move the network and decide what early stopping watches."""
        self.runtime.place(self.model)
        self.surgery = self._plan_surgery()
        self.groups = layer_groups(self.model)
        self.monitor = self._choose_monitor()
        self._is_asked_to_stop: Callable[[], bool] = lambda: False

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

    def rehearse(self, stage: Stage, optimizer: torch.optim.Optimizer) -> float:
        """Return the seconds that one epoch of a stage will take, from its second batch.

        The weights are changed by the two steps; build the trainer anew before `fit`.

        Args:
            stage: The stage to try.
            optimizer: What `enter` returned for it.
        """
        stepper = self.runtime.prepare_optimizer(optimizer)
        network = self.runtime.parallel(self.model)
        network.train()
        batches = EpochBatches(len(self.train), self.options.batch_size, seed=self.options.seed)
        loader = make_loader(self.train, batches, workers=0, pin=False)
        seconds = 0.0
        for batch, step in zip(loader, range(2), strict=False):
            started = time.monotonic()
            self.runtime.backward(self._loss(network, batch))
            self._step(stage, Position(), step, len(loader), stepper)
            seconds = time.monotonic() - started
        # A validation image costs about a third of a training image: forward without backward.
        return seconds * (len(loader) + len(self.val) / self.options.batch_size / 3)

    def validate(self) -> tuple[float, float | None]:
        """Return the loss over all validation cases and the task's statistic (None if too few)."""
        options = self.options
        batches = network_outputs(
            self.model,
            self.val,
            self.runtime,
            batch_size=options.batch_size,
            workers=options.workers,
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
        network = self.runtime.parallel(self.model)
        batches = EpochBatches(
            len(self.train),
            self.options.batch_size,
            seed=self.options.seed,
            rank=self.runtime.rank,
            processes=self.runtime.processes,
        )
        pin = self.runtime.device.type == "cuda"
        loader = make_loader(self.train, batches, workers=self.options.workers, pin=pin)
        log.info("stage %s: %s, watching the %s", stage.name, stage.train, self.monitor)
        while position.epoch < stage.epochs and position.stopping.waited < stage.patience:
            started = time.monotonic()
            batches.epoch, batches.first = position.total_epochs, position.batch
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
        return position

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
        batches = len(loader)
        steps = -(-batches // options.accumulate)
        optimizer.zero_grad(set_to_none=True)
        for index, batch in enumerate(loader, position.batch):
            counters = (position.total_epochs, index, self.runtime.rank)
            torch.manual_seed(torch_seed(options.seed, Stream.DROPOUT, *counters))
            group_start = index - index % options.accumulate
            share = 1 / min(options.accumulate, batches - group_start)
            loss = self._loss(network, batch)
            self._must_be_finite(loss, stage, position, batch[-1])
            self.runtime.backward(loss * share)
            if (index + 1) % options.accumulate == 0 or index + 1 == batches:
                step = position.epoch * steps + index // options.accumulate
                self._step(stage, position, step, steps, optimizer)
                if average is not None:
                    average.update(self.model)
            loss_sum = position.loss_sum + float(loss.detach()) * len(batch[-1])
            position = replace(position, batch=index + 1, loss_sum=loss_sum)
            self.watcher.on_step(stage, position.epoch, index + 1, batches)
            is_between_steps = (index + 1) % options.accumulate == 0
            if is_between_steps and self.runtime.in_any_process(self._is_asked_to_stop()):
                break
        return position

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Loss of one batch, penalty included."""
        images, inputs, targets, _ = (self.runtime.to_device(part) for part in batch)
        with self.runtime.autocast():
            outputs = network(images, inputs)
        loss = self.task.loss(outputs.float(), targets)
        if self.options.penalty is not None:
            strength, l1_ratio, layers = self.options.penalty
            weights = penalised_weights(self._parameters_of(layers))
            if weights:
                loss = loss + elastic_penalty(weights, strength=strength, l1_ratio=l1_ratio)
        return loss

    def _step(
        self,
        stage: Stage,
        position: Position,
        step: int,
        steps: int,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """One optimiser step at the scheduled rate."""
        options = self.options
        factor = rate_factor(
            stage.schedule,
            step,
            steps=steps * stage.epochs,
            warmup_steps=round(steps * stage.warmup_epochs),
            plateau_drops=position.drops,
        )
        set_rate(optimizer, factor * options.batch_size * options.accumulate / options.lr_batch)
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
        train_loss = position.loss_sum / len(self.train)
        val_loss, metric = self._validate_average(average)
        watched = self._watched(val_loss, metric)
        if not math.isfinite(watched):
            raise RunError(
                f"the {self.monitor} of stage {stage.name!r} is not finite",
                where=f"epoch {position.total_epochs}",
                fix="Lower the stage's learning rate",
            )
        row = {
            "stage": stage.name,
            "epoch": position.total_epochs,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_metric": metric,
            "watched": self.task.watched,
            "lr_head": stage.lr["head"],
            "lr_base": stage.lr.get("base"),
            "seconds": round(time.monotonic() - started, 2),
        }
        position = position.after_epoch(stage, watched, row)
        log.info("epoch %d: train %.4f, val %.4f", row["epoch"], train_loss, val_loss)
        if self.surgery and self.surgery.originals:
            sizes = self.surgery.sizes(self.model)
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
        names = [group.name for group in self.groups]
        rates = {} if self.surgery is None else self.surgery.rates
        apply_stage(
            self.model,
            self.groups,
            train=resolve(stage.train, names),
            batch_norm=self.policies(stage),
            gammas=rates,
        )
        groups = parameter_groups(
            self.model,
            [(group.name, group.parameters) for group in self.groups],
            lr=stage.lr,
            layer_decay=stage.layer_decay,
            weight_decay=self.options.weight_decay,
            multipliers=rates,
        )
        return make_optimizer(self.options.optimizer, groups)

    def policies(self, stage: Stage) -> dict[str, str]:
        """Return the batch-norm policy that a stage states for layer groups."""
        names = [group.name for group in self.groups]
        return {
            name: policy
            for selector, policy in stage.batch_norm.items()
            for name in resolve(selector, names)
        }

    def recalibrated(self, stage: Stage) -> list[str]:
        """Return the layer groups whose statistics are estimated anew after a stage."""
        policies = self.policies(stage)
        trained = resolve(stage.train, [group.name for group in self.groups])
        return [name for name in trained if policies.get(name) == "recalibrate"]

    def _parameters_of(self, selector: str) -> list[nn.Parameter]:
        """The parameters of the selected layer groups."""
        chosen = set(resolve(selector, [group.name for group in self.groups]))
        parameters = dict(self.model.named_parameters())
        return [parameters[n] for g in self.groups if g.name in chosen for n in g.parameters]

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

    def _start(self, resume: bool) -> tuple[Position, dict[str, Tensor]]:
        """The position and tensors to go on from."""
        paths = [self.folder / f"{name}.safetensors" for name in ("last", "previous")]
        latest = load_latest(paths) if resume else None
        if latest is not None:
            tensors, meta = latest
            load_exactly(self.model, without_prefix("model", tensors), "last.safetensors")
            self._recall_surgery(tensors)
            return Position.from_dict(meta["position"]), tensors
        position = Position()
        larger_is_better = self.monitor == "val_metric" and self.task.larger_is_better
        stopping = replace(
            position.stopping,
            mode="max" if larger_is_better else "min",
            min_delta=self.options.min_delta,
            baseline=self.options.baseline,
        )
        return replace(position, stopping=stopping), {}

    def _save(
        self,
        name: Literal["best", "last"],
        position: Position,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        average: MovingAverage | None = None,
    ) -> None:
        """Write a checkpoint: 'best' holds the model to use, 'last' all that going on needs."""
        if not self.runtime.is_main:
            return
        model = self.model.state_dict()
        if name == "best" and average is not None:
            model = average.average
        tensors = {**with_prefix("model", model), **with_prefix("extra", self.extra)}
        meta = {**self.meta, "position": position.to_dict(), "monitor": self.monitor}
        if self.surgery is not None:
            tensors |= with_prefix("gamma", self.surgery.originals)
            meta["removed"] = [removal.to_dict() for removal in self.surgery.removed]
        if optimizer is not None:
            tensors |= with_prefix("optimizer", optimizer_tensors(optimizer))
        if name == "last" and average is not None:
            tensors |= with_prefix("ema", average.average)
        path = self.folder / f"{name}.safetensors"
        previous = path.with_stem("previous") if name == "last" else None
        save_checkpoint(path, tensors, meta, previous=previous)

    def _load_best(self) -> None:
        """Give the model its best weights of all stages; keep the last ones when none was best."""
        self.runtime.wait()
        path = self.folder / "best.safetensors"
        if not path.is_file():
            log.warning("no epoch reached the baseline; the weights of the last epoch are kept")
            return
        tensors, _ = load_checkpoint(path)
        load_exactly(self.model, without_prefix("model", tensors), path.name)
        self._recall_surgery(tensors)

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
        names = self.recalibrated(stage)
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
        norms = [norm for norm in norms if tracks_statistics(norm)]
        if not norms:
            log.info("there are no statistics to estimate anew")
            return None
        old = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        options = self.options
        estimate_statistics(
            self.model,
            norms,
            self.train,
            self.runtime,
            batch_size=options.batch_size,
            seed=options.seed,
        )
        after = self._watched(*self.validate())
        if position.stopping.beats(after, before):
            log.info("statistics estimated anew: %.4f, before %.4f: kept", after, before)
            return after
        log.info("statistics estimated anew: %.4f, before %.4f: undone", after, before)
        self.model.load_state_dict(old)
        return None

    def _recall_surgery(self, tensors: Mapping[str, Tensor]) -> None:
        """Know from a checkpoint whether its weights have been operated on, and how to undo it."""
        if self.surgery is not None:
            self.surgery.originals = without_prefix("gamma", tensors)

    def _must_be_finite(
        self, loss: Tensor, stage: Stage, position: Position, places: Tensor
    ) -> None:
        """Stop at the first loss that is not a number, and say on which cases."""
        if bool(torch.isfinite(loss)):
            return
        rows = self.train.rows[places.numpy()]
        cases = ", ".join(self.train.store.case_ids[int(row)] for row in rows[:8])
        raise RunError(
            f"the loss is not finite in stage {stage.name!r}, epoch {position.total_epochs}",
            where=f"cases {cases}",
            fix="Lower the learning rate, or look at these cases",
        )
