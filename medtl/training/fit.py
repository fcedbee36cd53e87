"""The staged training loop: apply the stage, rebuild the optimiser, run epochs, keep the best.

Every epoch ends in a checkpoint, and so does a signal to stop, between two steps. Every random draw
is a function of (seed, epoch, position). So a run that was stopped anywhere goes on from its last
checkpoint and ends in the same bits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from medtl.data.batches import EpochBatches, make_loader
from medtl.errors import RunError
from medtl.losses.penalty import penalised_weights
from medtl.networks.batch_norm import keep_if_better, recalibrate
from medtl.networks.residual import modules_after
from medtl.networks.zero_gamma import GammaSurgery
from medtl.storage.interrupt import held
from medtl.training.activations import CachePlan, Source, plan_cache
from medtl.training.adapters import merge
from medtl.training.callbacks import Listeners
from medtl.training.checkpoint import (
    load_best,
    load_last,
    load_optimizer,
    save_run,
    without_prefix,
)
from medtl.training.ema import MovingAverage
from medtl.training.epoch import (
    StageRun,
    forward,
    norms_merged,
    on_device,
    rate_at,
    step,
    steps_per_epoch,
    train_epoch,
    validate,
)
from medtl.training.objective import Objective, Penalised, Supervised, lowered
from medtl.training.options import Training
from medtl.training.runtime import freed_memory_kept
from medtl.training.stage import enter_stage, parameters_of, recalibrated_groups
from medtl.training.stopping import Position, Stopping
from medtl.types import Stage

FORWARD_SHARE = 1 / 3
"""Of the time of a training image that a validation image takes: forward without backward."""

log = logging.getLogger(__name__)


def fit(training: Training, stages: Sequence[Stage], *, resume: bool = False) -> Position:
    """Run the stages in order and leave the network at its best epoch of all stages.

    Args:
        training: What is trained; its network is changed in place.
        stages: What to do.
        resume: Go on from `last.safetensors`, or the one before it when that is damaged.

    Returns:
        The final position, with the history.

    Raises:
        RunError: When nothing trains in a stage, or the loss stops being finite.
        WeightsError: When the checkpoint to resume from is damaged.
        SelectorError: When a stage names a layer group that does not exist.
        KeyboardInterrupt: After a signal to stop, once the checkpoint is written. So is the
            exception of a callback raised.
    """
    training.runtime.place(training.model)
    with held() as is_signalled, freed_memory_kept():
        listeners = Listeners(training.callbacks, training.runtime, is_signalled)
        position, saved = _start(training, resume)
        while position.stage < len(stages):
            stage = stages[position.stage]
            position = _run_stage(training, stage, position, saved, listeners)
            saved = {}
            merge(training.model)
            load_best(training)
            position = _end_stage(training, stage, position, listeners).next_stage()
            if listeners.want_the_end():
                position = replace(position, stage=len(stages))
            save_run(training, "last", position)
        load_best(training)
        return position


def whole(training: Training) -> Source:
    """Return the images themselves as the source of a stage, for the whole network."""
    return Source(training.model, training.train, training.val, training.options.workers)


def objective_of(training: Training) -> Objective:
    """Return what the stage entered last lowers: the objective, and the penalty of the options."""
    objective = training.objective or Supervised(training.task.loss)
    penalty = training.options.penalty
    if penalty is None:
        return objective
    weights = penalised_weights(parameters_of(training.model, training.groups, penalty.layers))
    return Penalised(objective, weights, penalty) if weights else objective


def rehearse(
    training: Training,
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    plan: CachePlan | None,
) -> float:
    """Return the seconds that a stage will take, from its second batch.

    Args:
        training: The weights are changed by the two steps; build the network anew before `fit`.
        stage: The stage to try.
        optimizer: What `enter_stage` returned for it.
        plan: What it stores of its frozen layers.
    """
    runtime, options = training.runtime, training.options
    stepper, objective = runtime.prepare_optimizer(optimizer), objective_of(training)
    alone = training.model if plan is None else plan.cut.suffix
    network = runtime.parallel(alone) if plan is None else alone
    network.train()
    batches = EpochBatches(len(training.train), options.batch_size, seed=options.seed)
    loader = make_loader(training.train, batches, workers=0, pin=False)
    frozen = trained = 0.0
    for loaded, number in zip(loader, range(2), strict=False):
        batch = on_device(loaded, runtime)
        started = time.monotonic()
        if plan is not None:
            batch = batch._replace(images=plan.cut.prefix(batch.images))
        frozen = time.monotonic() - started
        with norms_merged(alone, batch, runtime):
            runtime.backward(lowered(objective(forward(network, runtime), batch)).loss)
        step(training, stage, number, 0, stepper)
        trained = time.monotonic() - started - frozen
    val = len(training.val) / options.batch_size
    once = 0.0 if plan is None else frozen * (plan.views * len(loader) + val)
    return once + stage.epochs * trained * (len(loader) + val * FORWARD_SHARE)


def _run_stage(
    training: Training,
    stage: Stage,
    position: Position,
    saved: Mapping[str, Tensor],
    listeners: Listeners,
) -> Position:
    """Run one stage from where `position` stands to its last epoch or the end of patience."""
    surgery = training.surgery
    if surgery and not position.in_stage and surgery.is_due(stage.name, position.stage):
        _operate(training, surgery, position, listeners)
    run = _open(training, stage, position, saved)
    state: Any = {"optimizer": run.stepper, "average": run.average}
    log.info("stage %s: %s, watching the %s", stage.name, stage.selector, training.monitor)
    while position.epoch < stage.epochs and position.stopping.waited < stage.patience:
        started = time.monotonic()
        run.batches.epoch, run.batches.first = position.total_epochs, position.batch
        run.source.prepare(position.total_epochs, listeners.check)
        first = default_collate([run.source.train[position.total_epochs, 0]])
        with norms_merged(run.source.network, on_device(first, training.runtime), training.runtime):
            position = train_epoch(training, run, position, listeners)
        try:
            position = _close_epoch(training, run, position, started, listeners)
        except BaseException as reason:
            if isinstance(reason, KeyboardInterrupt) or reason is listeners.error:
                save_run(training, "last", position, **state)
                log.warning("stopped after %d batches of an epoch", position.batch)
            raise
        save_run(training, "last", position, **state)
        if training.runtime.is_main:
            listeners.on_epoch(position.history)
        if listeners.want_the_end():
            break
    return position


def _open(
    training: Training, stage: Stage, position: Position, saved: Mapping[str, Tensor]
) -> StageRun:
    """Apply a stage to the network, and make ready what it trains with."""
    options, runtime = training.options, training.runtime
    optimizer = enter_stage(training, stage)
    if position.in_stage:
        training.model.load_state_dict(without_prefix("adapter", saved), strict=False)
    average = None
    if options.ema_decay is not None:
        average = MovingAverage(training.model, options.ema_decay, warmup=options.ema_warmup)
        log.info("stage %s: its average begins at the best weights so far", stage.name)
    if position.in_stage:
        load_optimizer(optimizer, without_prefix("optimizer", saved))
        runtime.load_scaling(without_prefix("scaler", saved))
        if average is not None:
            average.load(without_prefix("ema", saved))
    stepper = runtime.prepare_optimizer(optimizer)
    source = _source(training, stage, position)
    batches = EpochBatches(
        len(training.train),
        options.batch_size,
        seed=options.seed,
        rank=runtime.rank,
        processes=runtime.processes,
    )
    pin = runtime.device.type == "cuda"
    return StageRun(
        stage=stage,
        source=source,
        objective=objective_of(training),
        network=runtime.parallel(source.network),
        batches=batches,
        loader=make_loader(source.train, batches, workers=source.workers, pin=pin),
        stepper=stepper,
        average=average,
    )


def _source(training: Training, stage: Stage, position: Position) -> Source:
    """Where the batches of the stage entered last come from: images, or stored activations."""
    plan = plan_cache(training, stage)
    log.info("stage %s: frozen layers: %s", stage.name, plan)
    if isinstance(plan, str):
        return whole(training)
    options = training.options
    first_epoch = position.total_epochs - position.epoch
    return plan.open(
        first_epoch, batch_size=options.batch_size, seed=options.seed, workers=options.workers
    )


def _close_epoch(
    training: Training,
    run: StageRun,
    position: Position,
    started: float,
    listeners: Listeners,
) -> Position:
    """Validate, update early stopping, and save the network when it is the best so far."""
    listeners.check()
    stage, cases = run.stage, len(training.train)
    each = training.runtime.processes / cases
    train_loss = position.loss_sum * each
    if run.average is None:
        val_loss, metric = validate(training, run.source, listeners)
    else:
        with run.average.applied(training.model):
            val_loss, metric = validate(training, run.source, listeners)
    watched = _watched(training, val_loss, metric)
    if not math.isfinite(watched):
        raise RunError(
            f"the {training.monitor} of stage {stage.name!r} is not finite",
            where=f"epoch {position.total_epochs + 1}",
            fix="Lower the stage's learning rate",
        )
    steps = steps_per_epoch(cases, training.options)
    numbers = range(position.epoch * steps, (position.epoch + 1) * steps)
    factor = max(rate_at(stage, training.options, cases, n, position.drops) for n in numbers)
    base = stage.lr.get("base")
    surgery = training.surgery
    sizes = surgery.sizes(training.model) if surgery and surgery.originals else {}
    row = {
        "stage": stage.name,
        "epoch": position.total_epochs,
        "train_loss": train_loss,
        "val_loss": val_loss,
        "val_metric": metric,
        "watched": training.watched[0],
        "lr_head": stage.lr["head"] * factor,
        "lr_base": None if base is None else base * factor,
        "mean_gamma": sum(sizes.values()) / len(sizes) if sizes else None,
        "parts": {name: value * each for name, value in position.parts.items()},
        "seconds": round(time.monotonic() - started, 2),
    }
    position = position.after_epoch(stage, watched, row)
    log.info("epoch %d: train %.4f, val %.4f", position.total_epochs, train_loss, val_loss)
    if sizes:
        log.info("mean |gamma|: %s", ", ".join(f"{n} {v:.4g}" for n, v in sizes.items()))
    if position.improved:
        save_run(training, "best", position, average=run.average)
    return position


def _watched(training: Training, loss: float, metric: float | None) -> float:
    """The number that early stopping looks at, NaN when it is undefined."""
    value = loss if training.monitor == "val_loss" else metric
    return math.nan if value is None else value


def _start(training: Training, resume: bool) -> tuple[Position, Mapping[str, Tensor]]:
    """The position and tensors to go on from."""
    found = load_last(training) if resume else None
    if found is not None:
        return found
    larger_is_better = training.monitor == "val_metric" and training.watched[1]
    stopping = Stopping(
        mode="max" if larger_is_better else "min",
        min_delta=training.options.min_delta,
        baseline=training.options.baseline,
    )
    return Position(stopping=stopping), {}


def _operate(
    training: Training, surgery: GammaSurgery, position: Position, listeners: Listeners
) -> None:
    """Do what zero-gamma is asked to, and say it."""
    surgery.apply(training.model)
    names = ", ".join(block.name for block in surgery.blocks)
    log.info("zero-gamma: %s: %s", names, surgery.plan)
    if surgery.plan.recalibrate and surgery.blocks:
        image = training.runtime.to_device(training.train[0, 0].images[None])
        downstream = modules_after(training.model, surgery.blocks[0], image)
        before = _watched(training, *validate(training, whole(training), listeners))
        _recalibrate(training, downstream, position, before, listeners)


def _end_stage(
    training: Training, stage: Stage, position: Position, listeners: Listeners
) -> Position:
    """Estimate statistics anew where the stage asks for it; they count as its best epoch."""
    names = recalibrated_groups(training.groups, stage)
    if not names:
        return position
    modules = dict(training.model.named_modules())
    norms = [modules[name] for g in training.groups if g.name in names for name in g.modules]
    before = position.stopping.best
    if before is None:
        before = _watched(training, *validate(training, whole(training), listeners))
    after = _recalibrate(training, norms, position, before, listeners)
    if after is not None:
        position = replace(position, stopping=replace(position.stopping, best=after))
        save_run(training, "best", position)
    return position


def _recalibrate(
    training: Training,
    norms: Sequence[nn.Module],
    position: Position,
    before: float,
    listeners: Listeners,
) -> float | None:
    """Estimate statistics anew; keep them and return the new value if validation gains.

    The training images come without augmentation and mixed, because a file is often sorted by
    finding, and in the same order whenever this is done again.
    """
    options, runtime = training.options, training.runtime
    batches = EpochBatches(len(training.train), options.batch_size, seed=options.seed)
    plain: Any = training.train
    loader = make_loader(replace(plain, augment=None), batches, workers=0, pin=False)

    def estimate(chosen: Sequence[nn.Module]) -> None:
        each = (on_device(batch, runtime) for batch in loader)
        with runtime.autocast():
            recalibrate(training.model, chosen, ((b.images, b.inputs) for b in each))

    return keep_if_better(
        training.model,
        norms,
        estimate,
        watch=lambda: _watched(training, *validate(training, whole(training), listeners)),
        before=before,
        beats=position.stopping.beats,
    )
