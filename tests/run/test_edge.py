"""Real exports: networks of every kind against their graphs, and a run that predicts by its own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_study import RECIPE, write_tiny_study

pytest.importorskip("onnxscript")

from medtl.cases.columns import Columns
from medtl.errors import ManifestError, RunError
from medtl.prediction.portable import Preparation
from medtl.prediction.sink import TrainedModel
from medtl.recipe.schema import parse_recipe
from medtl.run.build import build_contract, build_network, build_reader
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.edge.compress import Smaller
from medtl.run.edge.foreign import _write_bundle, _write_hub, export_layout
from medtl.run.edge.graph import Scored
from medtl.run.edge.write import ALLOWED, _write_exact, compare_with, export_graph
from medtl.run.files import RunFiles
from medtl.run.folder import Run
from medtl.storage.yaml import loads
from medtl.tasks.regression import BONE_AGE, Regression
from medtl.tasks.structures import Structures

HAND = """
study: {question: "How old?"}
data: {manifest: m.csv, target: age, sex: male}
image: {modality: hand, size: 64}
model: {backbone: test_resnet, weights: none}
task: {kind: bone_age, loss: corn}
"""
PLANE = """
study: {question: "Where?"}
data: {manifest: m.csv, mask: mask}
image: {modality: cxr, size: 64}
model: {backbone: test_resnet, weights: none}
task: {kind: segmentation, structures: {lung: 1}}
"""
VOLUME = """
study: {question: "Where?"}
data: {manifest: m.csv, mask: mask}
image: {modality: ct, window: [40, 400], spacing: [2, 2, 2], patch: [16, 16, 16]}
model: {backbone: unet_3d, weights: none, width: 4}
task: {kind: segmentation, structures: {liver: 1, spleen: 2}}
"""
TASKS = {
    HAND: lambda loss: Regression(
        "age", BONE_AGE, "male", loss, 12.0, mean=120.0, sd=40.0, lowest=12.0, highest=216.0
    ),
    PLANE: lambda _: Structures(("lung",), ((1,),)),
    VOLUME: lambda _: Structures(("liver", "spleen"), ((1,), (2,)), exclusive=False),
}


def untrained(text: str) -> TrainedModel[Any, Any]:
    """A network of random weights, as a run would hold it."""
    recipe = parse_recipe(loads(text, "recipe.yaml"))
    task = TASKS[text](recipe.task.loss)
    model, _ = build_network(recipe, task.outputs, extra=task.inputs.width)
    reader = build_reader(recipe, build_contract(recipe), None)
    columns, meta = (
        Columns.of(dict(recipe.data)),
        {"profile": {}, "manifest_sha256": "", "recipe": {}},
    )
    return TrainedModel(model, task, reader, columns, "cpu", "fp32", recipe, meta)


@pytest.mark.slow
@pytest.mark.parametrize("text", TASKS, ids=["bone age", "plane", "volume"])
def test_the_graph_says_what_the_network_says(text: str, tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "run")
    files.checkpoints.mkdir(parents=True)
    files.best.write_bytes(b"weights")
    (tmp_path / "edge").mkdir()
    trained = untrained(text)
    exact = _write_exact(trained, SimpleNamespace(files=files, path=files.folder), tmp_path / "edge", {})  # type: ignore[arg-type]  # fmt: skip  # noqa: E501
    agreement = compare_with(trained, exact)
    assert agreement["largest_difference"] <= ALLOWED


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("edge")
    recipe = write_tiny_study(folder / "data", recipe=RECIPE)
    return run_study(read_recipe(recipe), folder / "run")


@pytest.mark.slow
def test_a_run_predicts_by_its_graph_as_by_its_network(run: Run, tmp_path: Path) -> None:
    images = run.path.parent / "data" / "images"
    before = run.predict(images).frame
    assert export_graph(run) == run.files.portable
    after = run.predict(images).frame
    np.testing.assert_allclose(after["y_score"], before["y_score"], atol=ALLOWED)
    assert (after["y_score"] != before["y_score"]).any()  # it is another program
    assert after.drop(columns="y_score").equals(before.drop(columns="y_score"))
    with pytest.raises(RunError, match="a smaller graph gives other scores"):
        export_graph(run, smaller=Smaller(int8=True))
    manifest = run.path.parent / "data" / "manifest.csv"
    folder = export_graph(run, tmp_path / "small", Smaller(int8=True, prune=0.3, images=manifest))
    page = (folder / "edge.md").read_text()
    assert "| bright | auroc_difference |" in page
    assert "| bright | auroc | exact |" in page
    levels = json.loads((folder / "edge.json").read_text())["levels"]
    value = {(one["graph"], one["measure"]): one["value"] for one in levels}
    wanted = {"name": "auroc", "split": "test", "subset": "all"}
    own = next(one for one in run.metrics["measures"] if wanted.items() <= one.items())
    assert value["exact", "auroc"] == pytest.approx(own["value"], abs=1e-6)
    assert {graph for graph, _ in value} == {"exact", "smaller"}
    exact, small = (path / "model.onnx" for path in (run.files.portable, folder))
    assert small.stat().st_size < 0.5 * exact.stat().st_size
    assert Run(folder).predict(images).images == len(after)
    with pytest.raises(ManifestError, match="these images are not the run's own"):
        export_graph(run, tmp_path / "other", Smaller(int8=True, images=images))


@pytest.mark.slow
@pytest.mark.parametrize("text", [PLANE, VOLUME], ids=["plane", "volume"])
def test_monai_reads_the_bundle_of_masks(text: str, tmp_path: Path) -> None:
    trained = untrained(text)
    folder = bundle(trained, tmp_path)
    parser = parsed(folder)
    images = torch.rand(1, *Scored(trained).example(1)[0].shape[1:])
    ours = trained.model.eval()(images)
    theirs = parser.get_parsed_content("inferer")(images, parser.get_parsed_content("network_def"))
    np.testing.assert_allclose(theirs.detach(), ours.detach(), atol=1e-5)
    after = parser.get_parsed_content("postprocessing")(theirs[0].detach())
    np.testing.assert_allclose(after, trained.task.decode(ours)[0].detach(), atol=1e-5)
    assert_described(folder)


def bundle(trained: TrainedModel[Any, Any], place: Path) -> Path:
    """The bundle of an untrained network, without a run about it."""
    files = RunFiles(place / "run")
    files.checkpoints.mkdir(parents=True)
    files.best.write_bytes(b"weights")
    stored = {"study": {"title": "A study"}, "image": {"modality": "cxr"}}
    run: Any = SimpleNamespace(files=files, path=files.folder, stored_recipe=stored)
    folder = place / "bundle"
    folder.mkdir()
    _write_bundle(trained, run, folder)
    return folder


def parsed(folder: Path) -> Any:
    """The configuration as MONAI understands it."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser["bundle_root"] = str(folder)
    return parser


def assert_described(folder: Path) -> None:
    """MONAI runs the network on what the metadata say; other metadata are refused."""
    from monai.bundle import verify_net_in_out

    meta, config = (str(folder / "configs" / f"{n}.json") for n in ("metadata", "inference"))
    asked = {"config_file": config, "device": "cpu", "bundle_root": str(folder)}
    verify_net_in_out("network_def", meta_file=meta, **asked)
    told = json.loads(Path(meta).read_text())
    told["network_data_format"]["outputs"]["pred"]["num_channels"] += 1
    Path(meta).write_text(json.dumps(told))
    with pytest.raises(ValueError, match="doesn't match"):
        verify_net_in_out("network_def", meta_file=meta, **asked)


@pytest.mark.slow
def test_monai_and_the_hub_read_what_is_exported(run: Run, tmp_path: Path) -> None:
    images = sorted((run.path.parent / "data" / "images").iterdir())[:3]
    expected = run.predict(run.path.parent / "data" / "images").frame.set_index("file")["y_score"]

    folder = export_layout(run, tmp_path / "bundle", "monai")
    score = parsed(folder).get_parsed_content("score")
    for image in images:
        with torch.no_grad():
            found = float(score(str(image)))
        assert found == pytest.approx(expected[image.name], abs=ALLOWED)
    assert_described(folder)

    folder = export_layout(run, tmp_path / "hub", "hugging-face")
    import timm
    from huggingface_hub.repocard import metadata_load

    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    prepared = Preparation(folder)
    for image in images:
        with torch.no_grad():
            logit = float(network(torch.from_numpy(prepared(image))[None]))
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(expected[image.name], abs=ALLOWED)
    assert metadata_load(folder / "README.md")["library_name"] == "timm"
    assert (folder / "LICENSE.md").is_file()
    with pytest.raises(RunError, match="not empty"):
        export_layout(run, folder, "hugging-face")


@pytest.mark.slow
@pytest.mark.parametrize("text", TASKS, ids=["bone age", "plane", "volume"])
def test_the_hub_holds_the_checkpoint_of_what_timm_does_not_know(text: str, tmp_path: Path) -> None:
    trained = untrained(text)
    files = RunFiles(tmp_path / "run")
    files.checkpoints.mkdir(parents=True)
    files.best.write_bytes(b"weights")
    stored = {"image": {"modality": "cxr"}}
    run: Any = SimpleNamespace(files=files, path=files.folder, stored_recipe=stored)
    _write_hub(trained, run, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((tmp_path / "config.json").read_text())["library"] == "medtl"
    assert "library_name: medtl" in (tmp_path / "README.md").read_text()
