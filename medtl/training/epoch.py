"""One epoch of a stage: steps of the optimiser over the training cases, a pass over the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from medtl.data.batches import Batch, CaseSamples, EpochBatches, make_loader
from medtl.data.seeds import Stream, torch_seed
from medtl.errors import RunError
from medtl.networks.folding import folded
from medtl.training.activations import Source
from medtl.training.callbacks import Listeners
from medtl.training.ema import MovingAverage
from medtl.training.objective import Forward, Objective, lowered, require_finite
from medtl.training.optimizer import set_rate
from medtl.training.options import Options, Training
from medtl.training.runtime import Runtime
from medtl.training.schedule import rate_factor
from medtl.training.stopping import Position
from medtl.types import Stage


@dataclass(frozen=True)
class StageRun:
    """A stage as it trains.

    Attributes:
        stage: What to do.
        source: Where its batches come from.
        objective: What is lowered, penalty included.
        network: The network of the source; averages gradients over several processes.
        batches: The batches of this process.
        loader: The same, loaded.
        stepper: The optimiser, with gradient scaling where half precision needs it.
        average: Of the weights, or None.
    """

    stage: Stage
    source: Source
    objective: Objective
    network: nn.Module
    batches: EpochBatches
    loader: DataLoader[Batch]
    stepper: torch.optim.Optimizer
    average: MovingAverage | None


def train_epoch(
    training: Training, run: StageRun, position: Position, listeners: Listeners
) -> Position:
    """Train on the batches that the epoch still has, or until somebody wants a break.

    Args:
        training: What is trained.
        run: The stage.
        position: Where it stands.
        listeners: Told of each batch.

    Raises:
        RunError: When the loss stops being finite.
    """
    options, runtime, stage = training.options, training.runtime, run.stage
    batches, steps = len(run.loader), steps_per_epoch(len(training.train), options)
    network = forward(run.network.train(), runtime)
    run.stepper.zero_grad(set_to_none=True)
    for index, loaded in enumerate(run.loader, position.batch):
        counters = (position.total_epochs, index, runtime.rank)
        torch.manual_seed(torch_seed(options.seed, Stream.DROPOUT, *counters))
        batch = on_device(loaded, runtime)
        loss, found = lowered(run.objective(network, batch))
        cases = training.cases(loaded.places)
        require_finite(loss, stage.name, position.total_epochs, cases)
        # The last group of an epoch may be short: the mean is over the batches that it has.
        in_group = min(options.accumulate, batches - (index - index % options.accumulate))
        runtime.backward(loss * (1 / in_group * run.batches.share(index, len(cases))))
        is_group_done = (index + 1) % options.accumulate == 0
        if is_group_done or index + 1 == batches:
            number = position.epoch * steps + index // options.accumulate
            step(training, stage, number, position.drops, run.stepper)
            if run.average is not None:
                run.average.update(training.model, number)
        loss_sum = position.loss_sum + float(loss.detach()) * len(cases)
        parts = {name: float(value) * len(cases) for name, value in found.items()}
        parts = {name: position.parts.get(name, 0.0) + value for name, value in parts.items()}
        position = replace(position, batch=index + 1, loss_sum=loss_sum, parts=parts)
        listeners.on_step(stage, position.epoch, index + 1, batches)
        # Inside a group the gradients of its first batches would be lost: no checkpoint has them.
        if is_group_done and listeners.want_a_break():
            break
    parts = {name: runtime.mean(value) for name, value in position.parts.items()}
    return replace(position, loss_sum=runtime.mean(position.loss_sum), parts=parts)


def norms_merged(
    network: nn.Module, batch: Batch, runtime: Runtime
) -> AbstractContextManager[object]:
    """Return the context in which a network trains: held norms are part of their convolutions.

    In half precision, whose rounding the merged weights would add to, layers stay apart.

    Args:
        network: What trains, not yet wrapped for several processes.
        batch: Cases that it takes; the first is looked at.
        runtime: Device and precision.
    """
    if runtime.precision != "fp32":
        return nullcontext()
    return folded(network, batch.images[:1], batch.inputs[:1])


def forward(network: nn.Module, runtime: Runtime) -> Forward:
    """Return a network as an objective calls it: in the run's precision, with float32 outputs.

    Images that ask for a gradient are being attacked: processes do not average what they find.
    """
    alone = network.module if isinstance(network, DistributedDataParallel) else network

    def call(images: Tensor, inputs: Tensor) -> Tensor:
        with runtime.autocast():
            outputs: Tensor = (alone if images.requires_grad else network)(images, inputs)
        return outputs.float()

    return call


def on_device(batch: Batch, runtime: Runtime) -> Batch:
    """Return a batch where the network is."""
    return Batch(*(runtime.to_device(part) for part in batch))


def step(
    training: Training, stage: Stage, number: int, drops: int, stepper: torch.optim.Optimizer
) -> None:
    """Take one step of the optimiser at the scheduled rate.

    Args:
        training: What is trained.
        stage: The stage.
        number: Of the step in the stage, from 0.
        drops: How often the plateau rule has fired in it.
        stepper: Of the parameters that train; their gradients are gone afterwards.
    """
    options = training.options
    set_rate(stepper, rate_at(stage, options, len(training.train), number, drops))
    if options.clip_norm is not None:
        training.runtime.clip(list(training.model.parameters()), options.clip_norm)
    stepper.step()
    stepper.zero_grad(set_to_none=True)


def steps_per_epoch(cases: int, options: Options) -> int:
    """Return the optimiser steps of one epoch; the last may be of fewer batches."""
    batches = -(-cases // options.batch_size)
    return -(-batches // options.accumulate)


def rate_at(stage: Stage, options: Options, cases: int, number: int, drops: int) -> float:
    """Return the factor on a stage's learning rates at one of its steps: schedule and batch size.

    Args:
        stage: The stage.
        options: Batch sizes.
        cases: In the training split.
        number: Of the step in the stage, from 0.
        drops: How often the plateau rule has fired in the stage.
    """
    steps = steps_per_epoch(cases, options)
    scheduled = rate_factor(
        stage.schedule,
        number,
        steps=steps * stage.epochs,
        warmup_steps=round(steps * stage.warmup_epochs),
        plateau_drops=drops,
    )
    return scheduled * options.batch_size * options.accumulate / options.lr_batch


def validate(
    training: Training, source: Source, listeners: Listeners
) -> tuple[float, float | None]:
    """Return the loss over all validation cases and the watched statistic.

    Args:
        training: What is trained.
        source: The validation cases, and the network that takes them.
        listeners: Who may want a break.

    Returns:
        Loss and statistic; the statistic is None when it is undefined.

    Raises:
        RunError: When an own metric is asked about images of different shapes.
    """
    batches = network_outputs(
        source.network,
        source.val,
        training.runtime,
        batch_size=training.options.batch_size,
        workers=source.workers,
        progress=lambda *_: listeners.check(),
    )
    if training.metric is None:
        return _agreed(training, *training.task.assess(batches))
    kept = list(batches)
    outputs, targets = zip(*kept, strict=True)
    if len({part.shape[1:] for part in targets}) > 1:
        raise RunError(
            "an own metric is given one array, and the validation images differ in shape",
            fix="Leave it out, or use finetune.early_stopping.monitor: val_loss",
        )
    scores = training.task.decode(torch.cat(outputs)).numpy()
    truth = torch.cat(targets).numpy()
    if truth.shape[1:] == scores.shape[1:] == (1,):
        truth, scores = truth[:, 0], scores[:, 0]
    loss, _ = training.task.assess(kept)
    return _agreed(training, loss, float(training.metric.function(truth, scores)))


def _agreed(training: Training, loss: float, metric: float | None) -> tuple[float, float | None]:
    """What all processes take for loss and statistic: the first one's, None where undefined."""
    value, statistic = training.runtime.agreed(loss, metric)
    return math.nan if value is None else value, statistic


def network_outputs(
    model: nn.Module,
    samples: CaseSamples,
    runtime: Runtime,
    *,
    batch_size: int,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the raw outputs and the targets of all cases, in the order of the split.

    Args:
        model: Left in evaluation mode.
        samples: `n` cases.
        runtime: Device and precision.
        batch_size: Largest batch; 1 where shapes differ. The order and the batches depend on `n`
            and on it alone, so the same cases give the same bits again.
        workers: Loader processes.
        progress: Called with (done cases, cases).

    Yields:
        Outputs `(B, K, ...)` and targets `(B, ...)`, float32 on the CPU.
    """
    shapes = {samples.store.units.shapes[int(row)] for row in samples.rows}
    if len(shapes) > 1:  # images of different shapes cannot be stacked
        batch_size = 1
    batches = EpochBatches(len(samples), batch_size, seed=None)
    pin = runtime.device.type == "cuda"
    done = 0
    model.eval()
    for batch in make_loader(samples, batches, workers=workers, pin=pin):
        # The context must not be open while the caller works with what is yielded.
        with torch.inference_mode():
            inputs = runtime.to_device(batch.inputs)
            outputs = forward(model, runtime)(runtime.to_device(batch.images), inputs).cpu()
        done += len(batch.images)
        if progress is not None:
            progress(done, len(samples))
        yield outputs, batch.targets
