"""Statistics of norm layers, estimated anew from the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from medtl.networks.batchnorm import recalibrate
from medtl.training.batches import EpochBatches, make_loader
from medtl.training.runtime import Runtime


def estimate_statistics(
    model: nn.Module,
    norms: Sequence[nn.Module],
    samples: Any,
    runtime: Runtime,
    *,
    batch_size: int,
    seed: int,
) -> None:
    """Give norm layers the mean statistics of the training batches, without augmentation.

    The batches are mixed, because a file is often sorted by finding, and the same whenever this is
    done again.

    Args:
        model: The network; only the statistics of `norms` change.
        norms: Layers of the network.
        samples: Of the training split.
        runtime: Device and precision.
        batch_size: Images in one pass.
        seed: Of the order.
    """
    batches = EpochBatches(len(samples), batch_size, seed=seed)
    loader = make_loader(replace(samples, augment=None), batches, workers=0, pin=False)
    with runtime.autocast():
        recalibrate(
            model, norms, (tuple(runtime.to_device(part) for part in batch[:2]) for batch in loader)
        )
