"""An exported folder made by hand: its score is the mean of the standardised image, squashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtl.prediction.portable import CONTRACT, FORMAT, GRAPH, IMAGE, SCORES
from medtl.preprocess.pipeline import Preprocessor
from medtl.storage.atomic import sha256_file, write_json

SIDE = 16
THRESHOLD = 0.5


LUNG = {"kind": "structures", "labels": ["lung"], "values": [[1]]}
"""A stored task of masks."""


def write_folder(folder: Path, grid: tuple[int, int] = (SIDE, SIDE), **changed: Any) -> Path:
    """Write the folder: a bright image scores high, and 0.5 is the frozen threshold.

    Where the task is one of masks, the bright pixels are the structure.
    """
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    folder.mkdir(parents=True)
    tensor = helper.make_tensor_value_info
    is_mask = changed.get("task", {}).get("kind") == "structures"
    background = [
        helper.make_node("Sub", ["one", "present"], ["absent"]),
        helper.make_node("Concat", ["absent", "present"], [SCORES], axis=1),
    ] * is_mask
    over, after = ([1], [1]) if is_mask else ([1, 2, 3], [1])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", [IMAGE, "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "four"], ["logit"]),
            helper.make_node("Unsqueeze", ["logit", "after"], ["column"]),
            helper.make_node("Sigmoid", ["column"], ["present" if is_mask else SCORES]),
            *background,
        ],
        "mean",
        [tensor(IMAGE, TensorProto.FLOAT, ["batch", 3, *grid])],
        [tensor(SCORES, TensorProto.FLOAT, ["batch", 2, *grid] if is_mask else ["batch", 1])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [len(over)], over),
            helper.make_tensor("after", TensorProto.INT64, [1], after),
            helper.make_tensor("four", TensorProto.FLOAT, [], [4.0]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / GRAPH)
    preprocessor = Preprocessor(size=grid, scale="window", window=(127.5, 255.0))
    contract = {
        "format": FORMAT,
        "onnxruntime": "1.20",
        "status": "Research use only. Not a medical device.",
        "task": {"kind": "findings", "labels": ["bright"], "columns": ["bright"]},
        "preprocessor": preprocessor.to_dict(),
        "reader": {
            "voi": False, "color": "grey", "dimensions": 2, "labels": {}, "overlapping": False,
            "at_least": None, "limits": {},
        },
        "columns": {"targets": ["bright"]},
        "windows": None,
        "decode": "graph",
        "profile": {"modality": ["DX"], "unit_p50": [0.2, 0.8]},
        "manifest_sha256": "",
        "checkpoint_sha256": "",
        "recipe": {"study": {"question": "Is it bright?"}, "data": {}},
        "files": {GRAPH: sha256_file(folder / GRAPH)},
        **changed,
    }  # fmt: skip
    write_json(folder / CONTRACT, contract)
    point = {"label": "bright", "threshold": THRESHOLD}
    write_json(
        folder / "metrics.json",
        {"measures": [], "operating_points": [] if is_mask else [point], "recalibrations": []},
    )
    return folder


def film(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A flat film."""
    return np.full((SIDE, SIDE), value, np.uint8)
