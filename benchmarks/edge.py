"""An exported graph as `medtl predict` runs it, beside onnxruntime alone on the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.table import Row, compare, missing

IMAGES = 8
SLOWEST = 1.2
"""Times as long as onnxruntime alone that it may take."""

RECIPE = """
study: {question: "?"}
data: {manifest: m.csv, target: finding}
image: {modality: cxr, size: 224}
model: {backbone: tf_efficientnet_lite0, weights: none}
task: {kind: classification}
"""


def rows() -> Iterator[Row]:
    """Yield batches of one image and of eight."""
    what = "exported EfficientNet-Lite0, 224 x 224: unit images to scores"
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - asked for by the export
    except ImportError as fault:
        yield missing(what, "onnxruntime alone", fault, 1 / SLOWEST)
        return
    from medtl.data.store import ImageStore, RowWriter, levels
    from medtl.prediction.portable import GRAPH, IMAGE, SCORES
    from medtl.types import Case

    with TemporaryDirectory() as temporary:
        model = _exported(Path(temporary))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        alone = onnxruntime.InferenceSession(
            str(model.folder / GRAPH), options, providers=["CPUExecutionProvider"]
        )
        for number in (1, IMAGES):
            writer, cases = RowWriter(np.uint16), []
            for index in range(number):
                unit = np.random.default_rng(index).random((1, 224, 224), dtype=np.float32)
                writer.append(levels(unit))
                cases.append(Case(str(index), str(index), Path("film"), targets={"finding": 0.0}))
            store = ImageStore(tuple(case.case_id for case in cases), writer.rows())
            units = [store.unit(index) for index in range(number)]
            batch = np.stack([model.reader.preprocessor.standardise(unit) for unit in units])

            def ours(store: Any = store, cases: Any = cases) -> object:
                return np.concatenate([*model.scores(store, cases)])

            def theirs(batch: Any = batch) -> object:
                return alone.run([SCORES], {IMAGE: batch})[0]

            yield compare(
                f"{what}, {number} together", "onnxruntime alone", ours, theirs,
                lambda a, b: f"largest difference {np.abs(np.subtract(a, b)).max():.1g}",
                target=1 / SLOWEST,
            )  # fmt: skip


def _exported(folder: Path) -> Any:
    """A network of random weights, exported and read back."""
    from medtl.cases.columns import Columns
    from medtl.prediction.portable import GRAPH, read_portable
    from medtl.prediction.sink import TrainedModel
    from medtl.recipe.schema import parse_recipe
    from medtl.run.build import build_contract, build_network, build_reader
    from medtl.run.edge.graph import write_graph
    from medtl.run.edge.papers import write_contract
    from medtl.storage.yaml import loads
    from medtl.tasks.findings import Findings

    recipe = parse_recipe(loads(RECIPE, "recipe.yaml"))
    task = Findings(("finding",))
    network, _ = build_network(recipe, task.outputs)
    reader = build_reader(recipe, build_contract(recipe), None)
    meta = {"profile": {}, "manifest_sha256": "", "recipe": {}}
    columns = Columns.of(dict(recipe.data))
    trained = TrainedModel(network, task, reader, columns, "cpu", "fp32", recipe, meta)
    (folder / "weights").write_bytes(b"random")
    run: Any = SimpleNamespace(files=SimpleNamespace(best=folder / "weights"))
    told = {"onnxruntime": "this one", **write_graph(trained, folder / GRAPH)}
    write_contract(trained, run, folder, told, [GRAPH])
    return read_portable(folder, threads=1)
