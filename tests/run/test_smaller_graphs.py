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
    """16 products of the largest weight and the largest value: weights of 8 bits lose half of it.

    They do so on a processor without VNNI; what is stored is looked at too, for the others.
    """
    tensor, path = helper.make_tensor_value_info, tmp_path / "model.onnx"
    ones = np.ones((CHANNELS, CHANNELS, 1, 1), np.float32)
    last = np.full((1, CHANNELS, 1, 1), 4 / CHANNELS**2, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "ones"], ["sums"], name="first"),
            helper.make_node("Conv", ["sums", "mean"], ["logit"], name="last"),
            helper.make_node("Sigmoid", ["logit"], ["scores"], name="score"),
        ],
        "sums",
        [tensor("image", TensorProto.FLOAT, [1, CHANNELS, 4, 4])],
        [tensor("scores", TensorProto.FLOAT, [1, 1, 4, 4])],
        [numpy_helper.from_array(ones, "ones"), numpy_helper.from_array(last, "mean")],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    feeds = [{"image": np.full((1, CHANNELS, 4, 4), value, np.float32)} for value in (0.0, 1.0)]
    quantise(path, feeds)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    none, all_of_it = (session.run(None, feed)[0] for feed in feeds)
    np.testing.assert_allclose(none, 0.5, atol=1e-6)
    np.testing.assert_allclose(np.log(all_of_it / (1 - all_of_it)), 4.0, rtol=0.02)
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    assert np.abs(stored["ones_quantized"].astype(int)).max() <= 64
    assert stored["mean"].dtype == np.float32  # scores of the last layer are no ties
