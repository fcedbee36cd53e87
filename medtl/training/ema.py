"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """A second copy of the weights that follows the trained ones slowly.

    Every stage has its own, which begins where the stage begins: at the best weights so far, which
    are an average themselves. It follows quickly at first, with min(decay, (1 + n) / (10 + n))
    after n steps of the stage; without that a stage of few steps is judged, and kept, by weights
    that have hardly left where they began.

    Buffers (batch-norm statistics) are copied, not averaged: they are averages already. timm's
    `ModelEmaV3` gives the same bits, but keeps a second network: a stage on stored activations
    validates a part of the trained one, which the average has to be put into. torch's
    `AveragedModel` forgets the weights before the first step, which a stage goes on from.

    Args:
        model: The network to follow.
        decay: Share of the old average kept at each step, in (0, 1), once warmed up.
        warmup: Whether it follows quickly at first.

    Reference:
        TensorFlow's ExponentialMovingAverage with `num_updates`, for the first steps.
    """

    def __init__(self, model: nn.Module, decay: float, *, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        self.average = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, number: int) -> None:
        """Move the average one step towards the model's weights.

        Args:
            model: After the step.
            number: Of the step in the stage, from 0.
        """
        decay = min(self.decay, (1 + number) / (10 + number)) if self.warmup else self.decay
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        for name, tensor in model.state_dict().items():
            if name in trained:
                self.average[name].lerp_(tensor, 1 - decay)
            else:
                self.average[name].copy_(tensor)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Run the model with the averaged weights for a while."""
        own = {name: t.detach().clone() for name, t in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def load(self, average: dict[str, Tensor]) -> None:
        """Continue from a saved average."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
