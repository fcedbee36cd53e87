"""Statistics of norm layers, estimated anew from the training images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from medtl.data.batches import EpochBatches, make_loader
from medtl.networks.batch_norm import recalibrate, tracks_statistics
from medtl.training.runtime import Runtime

log = logging.getLogger(__name__)


def keep_if_better(
    model: nn.Module,
    norms: Sequence[nn.Module],
    estimate: Callable[[list[nn.Module]], None],
    *,
    watch: Callable[[], float],
    before: float,
    beats: Callable[[float, float], bool],
) -> float | None:
    """Estimate statistics anew; keep them and return the new value if validation gains.

    Args:
        model: Changed in place, or as it was.
        norms: Layers whose statistics are in question; those without any are left out.
        estimate: What gives some norm layers new statistics.
        watch: Returns the watched validation value.
        before: That value with the old statistics.
        beats: Whether a value is better than another.
    """
    norms = [norm for norm in norms if tracks_statistics(norm)]
    if not norms:
        log.info("there are no statistics to estimate anew")
        return None
    old = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    estimate(norms)
    after = watch()
    if beats(after, before):
        log.info("statistics estimated anew: %.4f, before %.4f: kept", after, before)
        return after
    log.info("statistics estimated anew: %.4f, before %.4f: undone", after, before)
    model.load_state_dict(old)
    return None


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
