"""From a trained network to an ONNX graph: the network, and what its outputs mean."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medtl.networks.segmenter import segmenters_in
from medtl.prediction.portable import IMAGE, INPUTS, SCORES
from medtl.prediction.sink import TrainedModel

OPSET = 18
"""Of the graph; onnxruntime has read it since 1.14."""


class Scored(nn.Module):
    """A network with the decoding of its task; of windows that are to be averaged, the logits.

    Args:
        trained: A run's best model, on the CPU.
    """

    def __init__(self, trained: TrainedModel[Any, Any]) -> None:
        super().__init__()
        self.network: Any = trained.model
        self.segmenters = segmenters_in(trained.model)
        self.windowed: Any = nn.ModuleList(one.network for one in self.segmenters)
        self.decode = trained.task.decode
        self._trained = trained

    def forward(self, image: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return scores `(B, K)`, or logits `(B, K, *S)`."""
        if len(self.windowed):
            return torch.stack([network(image) for network in self.windowed]).mean(dim=0)
        scores: Tensor = self.decode(self.network(image, inputs))
        return scores

    def example(self, images: int) -> tuple[Tensor, ...]:
        """Images `(B, C, *S)` as the network takes them, and the numbers besides, if any."""
        reader, width = self._trained.reader, self._trained.task.inputs.width
        shape: tuple[int, ...]
        if self.segmenters:
            shape = (1 if reader.dimensions == 3 else 3, *self.segmenters[0].patch)
        else:
            preprocessor: Any = reader.require_images()
            shape = (preprocessor.channels, *preprocessor.grid_shape)
        told = (torch.zeros(images, width),) if width else ()
        return torch.rand(images, *shape), *told

    @property
    def told(self) -> dict[str, Any]:
        """How images of any size meet a segmenter, and what makes probabilities of its logits."""
        if not self.segmenters:
            return {"windows": None, "decode": "graph"}
        one = self.segmenters[0]
        return {
            "windows": {"patch": list(one.patch), "stride": one.stride, "overlap": one.overlap},
            "decode": "softmax" if self._trained.task.exclusive else "sigmoid",
        }


def write_graph(trained: TrainedModel[Any, Any], path: Path) -> Mapping[str, Any]:
    """Write a trained network as a graph of single precision.

    Its batch is free, and the axes of a volume are. Batch norms become part of the convolutions.

    Args:
        trained: A run's best model, on the CPU.
        path: The file.

    Returns:
        `windows` and `decode` of the contract (`Scored.told`).
    """
    scored = Scored(trained).eval()
    image, *told = scored.example(2)
    free = torch.export.Dim.DYNAMIC
    axes = {0: free}
    if trained.reader.dimensions == 3:
        axes |= dict.fromkeys(range(2, image.ndim), free)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporter, about its own parts
        program = torch.onnx.export(
            scored,
            (image, *told),
            input_names=[IMAGE, INPUTS][: 1 + len(told)],
            output_names=[SCORES],
            dynamo=True,
            dynamic_shapes=(axes, *({0: free} for _ in told)),
            opset_version=OPSET,
            verbose=False,
            custom_translation_table=_translations(),
        )
    assert program is not None
    program.save(str(path))
    return scored.told


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operators of ordinal decoding that ONNX lacks: over all columns up to each column."""
    import onnx
    from onnxscript import opset18

    op: Any = opset18

    def running(reduce: Callable[..., Any], neutral: float) -> Callable[..., Any]:
        def translated(x: Any, dim: int, dtype: Any = None) -> Any:
            del dim, dtype  # the columns, in their own type: all that the tasks ask for
            seen = np.tril(np.ones((int(x.shape[1]),) * 2, dtype=np.bool_))
            mask = op.Constant(value=onnx.numpy_helper.from_array(seen))
            each = op.Unsqueeze(x, op.Constant(value_ints=[1]))
            kept = op.Where(mask, each, op.CastLike(op.Constant(value_float=neutral), x))
            return reduce(kept, op.Constant(value_ints=[2]), keepdims=0)

        return translated

    smallest = running(op.ReduceMin, math.inf)

    def cummin(x: Any, dim: int) -> tuple[Any, Any]:
        values = smallest(x, dim)
        return values, op.Cast(values, to=onnx.TensorProto.INT64)  # the places are not asked for

    return {
        torch.ops.aten.cumprod.default: running(op.ReduceProd, 1.0),
        torch.ops.aten.cummin.default: cummin,
    }
