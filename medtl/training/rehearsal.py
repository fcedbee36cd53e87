"""How long a stage will take, from two of its batches."""

from __future__ import annotations

import time

import torch

from medtl.data.batches import EpochBatches, make_loader
from medtl.training.activations import CachePlan
from medtl.training.fit import Trainer
from medtl.training.position import Position
from medtl.types import Stage

FORWARD_SHARE = 1 / 3
"""Of the time of a training image that a validation image takes: forward without backward."""


def rehearse(
    trainer: Trainer, stage: Stage, optimizer: torch.optim.Optimizer, plan: CachePlan | None
) -> float:
    """Return the seconds that a stage will take, from its second batch.

    Args:
        trainer: Its weights are changed by the two steps; build it anew before `fit`.
        stage: The stage to try.
        optimizer: What `trainer.enter` returned for it.
        plan: What it stores of its frozen layers.
    """
    runtime, options = trainer.runtime, trainer.options
    stepper = runtime.prepare_optimizer(optimizer)
    network = runtime.parallel(trainer.model) if plan is None else plan.cut.suffix
    network.train()
    batches = EpochBatches(len(trainer.train), options.batch_size, seed=options.seed)
    loader = make_loader(trainer.train, batches, workers=0, pin=False)
    frozen = trained = 0.0
    for (images, *others), step in zip(loader, range(2), strict=False):
        started = time.monotonic()
        given = images if plan is None else plan.cut.prefix(runtime.to_device(images))
        frozen = time.monotonic() - started
        inputs, targets, places = others
        runtime.backward(trainer.loss(network, (given, inputs, targets, places)))
        trainer.step(stage, Position(), step, stepper)
        trained = time.monotonic() - started - frozen
    val = len(trainer.val) / options.batch_size
    once = 0.0 if plan is None else frozen * (plan.views * len(loader) + val)
    return once + stage.epochs * trained * (len(loader) + val * FORWARD_SHARE)
