"""One pass of a network over a split, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from medtl.data.batches import CaseSamples, EpochBatches, make_loader
from medtl.training.runtime import Runtime


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
    for images, inputs, targets, _ in make_loader(samples, batches, workers=workers, pin=pin):
        # The context must not be open while the caller works with what is yielded.
        with torch.inference_mode(), runtime.autocast():
            outputs = model(runtime.to_device(images), runtime.to_device(inputs)).float().cpu()
        done += len(images)
        if progress is not None:
            progress(done, len(samples))
        yield outputs, targets
