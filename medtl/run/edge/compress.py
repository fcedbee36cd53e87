"""A graph made smaller: inner channels removed, weights and activations in 8 bits.

Both look at training images, never at those that judge the result.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import RunError

Feed = Mapping[str, NDArray[np.float32]]
"""Name of an input -> its values: one call of a graph."""

POINTWISE = {"Relu", "Clip", "LeakyRelu", "HardSwish", "Sigmoid"}
"""Operators that keep the channels of a block apart."""

FEWEST = 8
"""Channels that a block keeps at least, and in multiples of which it keeps them."""


@dataclass(frozen=True)
class Smaller:
    """What makes a graph smaller, at a price that is measured.

    Attributes:
        int8: Weights and activations in 8 bits.
        prune: Share of the inner channels of blocks that are removed.
        images: Manifest of the run: its training images set the ranges, its test images judge.
        margin: Loss of AUROC, of the SD of a quantity or of Dice that would be acceptable.
    """

    int8: bool = False
    prune: float = 0.0
    images: Path | None = None
    margin: float = 0.02


@dataclass(frozen=True)
class Block:
    """Convolutions whose inner channels nothing else sees.

    Attributes:
        first: Makes the inner channels.
        middle: Depthwise convolutions on them.
        last: Takes them.
    """

    first: Any
    middle: tuple[Any, ...]
    last: Any


def prune(path: Path, share: float, feeds: Sequence[Feed]) -> int:
    """Remove inner channels of every block of a graph; return how many blocks there are.

    A channel goes whose output varies least, times the weights that it meets; the mean of its
    output goes into the bias of what took it.

    Args:
        path: The graph; it is written anew.
        share: Of the inner channels, in (0, 1).
        feeds: Training images, to see what the channels do.

    Raises:
        RunError: When no block has channels that nothing else sees.

    Reference:
        Molchanov et al. 2017 (removing by what the output loses); He et al. 2017, section 3.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    blocks = list(_blocks(model.graph))
    if not blocks:
        raise RunError("no block of the graph has channels of its own", where="--prune")
    seen = _statistics(model, [block.last.input[0] for block in blocks], feeds)
    stored = {one.name: one for one in model.graph.initializer}

    def change(name: str, array: NDArray[Any]) -> None:
        stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))

    for block in blocks:
        mean, deviation = seen[block.last.input[0]]
        taken = numpy_helper.to_array(stored[block.last.input[1]])
        strength = np.sqrt((taken**2).sum(axis=(0, *range(2, taken.ndim)))) * deviation
        wanted = round(len(mean) * (1 - share) / FEWEST) * FEWEST
        keep = np.sort(np.argsort(-strength, kind="stable")[: max(wanted, FEWEST)])
        gone = np.setdiff1d(np.arange(len(mean)), keep)
        if not len(gone) or len(block.last.input) < 3:
            continue
        lost = np.tensordot(taken.sum(axis=tuple(range(2, taken.ndim)))[:, gone], mean[gone], 1)
        bias = numpy_helper.to_array(stored[block.last.input[2]])
        change(block.last.input[2], (bias + lost).astype(np.float32))
        change(block.last.input[1], taken[:, keep])
        for node in (block.first, *block.middle):
            for name in node.input[1:]:
                change(name, numpy_helper.to_array(stored[name])[keep])
        for node in block.middle:
            next(a for a in node.attribute if a.name == "group").i = len(keep)
    del model.graph.value_info[:]
    onnx.save(model, path)
    return len(blocks)


def quantise(path: Path, feeds: Sequence[Feed]) -> None:
    """Put weights (per channel) and activations of a graph into 8 bits.

    Weights keep to 7 of the 8 bits: processors of the x86 family without VNNI add products in 16
    bits, which saturate, so that the same graph would say something else on another machine. The
    last layer and what follows stay in 32 bits: scores in 256 steps would be ties.

    Args:
        path: The graph; it is written anew.
        feeds: Training images, that set the ranges of the activations.

    Reference:
        Jacob et al. 2018, section 3; onnxruntime's static quantisation, QDQ, and what its manual
        says of saturation ("When to use reduce_range and per-channel quantization").
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantised

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> Any:
            return next(self.left, None)

    with TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        logging.disable(logging.WARNING)  # advice about graphs that are not folded, which this is
        quantised(
            str(path),
            str(made),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            nodes_to_exclude=_from_the_last_layer(path),
        )
        logging.disable(logging.NOTSET)
        made.replace(path)


def _from_the_last_layer(path: Path) -> list[str]:
    """Names of the last layer with weights, and of the nodes behind it."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    last = max(i for i, node in enumerate(nodes) if node.op_type in {"Conv", "Gemm", "MatMul"})
    return [node.name for node in nodes[last:]]


def _blocks(graph: Any) -> Iterator[Block]:
    """The blocks of a graph: from a convolution over what keeps channels apart to the next."""
    users: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    stored = {one.name: tuple(one.dims) for one in graph.initializer}
    shared = {name for name, of in users.items() if name in stored and len(of) > 1}
    for first in graph.node:
        if first.op_type != "Conv" or _groups(first) > 1:
            continue
        middle, name, channels = [], first.output[0], stored.get(first.input[1], (0,))[0]
        while len(users[name]) == 1:
            (node,) = users[name]
            if node.op_type == "Conv" and _groups(node) == channels > 1:
                middle.append(node)
            elif node.op_type == "Conv" and _groups(node) == 1:
                own = [n for one in (first, *middle, node) for n in one.input[1:]]
                if all(n in stored and n not in shared for n in own):
                    yield Block(first, tuple(middle), node)
                break
            elif node.op_type not in POINTWISE or node.input[0] != name:
                break
            name = node.output[0]


def _groups(node: Any) -> int:
    """Groups of a convolution."""
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def _statistics(
    model: Any, names: Sequence[str], feeds: Sequence[Feed]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Name of a tensor -> mean and standard deviation of each of its channels."""
    import onnx
    import onnxruntime

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(
        opened.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    squares, counts = dict(sums), dict(sums)
    for feed in feeds:
        for name, array in zip(names, session.run(list(names), dict(feed)), strict=True):
            axes = (0, *range(2, array.ndim))
            sums[name] = sums[name] + array.sum(axis=axes, dtype=float)
            squares[name] = squares[name] + np.square(array, dtype=float).sum(axis=axes)
            counts[name] += array.size / array.shape[1]
    means = {name: sums[name] / counts[name] for name in names}
    return {
        name: (means[name], np.sqrt(np.maximum(squares[name] / counts[name] - means[name] ** 2, 0)))
        for name in names
    }
