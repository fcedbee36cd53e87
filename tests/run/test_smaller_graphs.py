"""A graph in 8 bits says what the exact one says, on a processor that adds in 16 bits too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from medtl.run.edge.compress import quantise  # noqa: E402

CHANNELS = 16


def test_sums_of_large_values_do_not_saturate(tmp_path: Path) -> None:
    """16 products of the largest weight and the largest value: signed weights lose half of it."""
    tensor, path = helper.make_tensor_value_info, tmp_path / "model.onnx"
    ones = np.ones((CHANNELS, CHANNELS, 1, 1), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["scores"])],
        "sums",
        [tensor("image", TensorProto.FLOAT, [1, CHANNELS, 4, 4])],
        [tensor("scores", TensorProto.FLOAT, [1, CHANNELS, 4, 4])],
        [numpy_helper.from_array(ones, "weight")],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    feeds = [{"image": np.full((1, CHANNELS, 4, 4), value, np.float32)} for value in (0.0, 1.0)]
    quantise(path, feeds)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    none, all_of_it = (session.run(None, feed)[0] for feed in feeds)
    np.testing.assert_allclose(none, 0.0, atol=1e-6)
    np.testing.assert_allclose(all_of_it, CHANNELS, rtol=0.01)
    stored = {numpy_helper.to_array(one).dtype for one in onnx.load(path).graph.initializer}
    assert np.dtype(np.int8) not in stored  # the reason, on a machine that would not saturate
