"""The exported graph: its windows against MONAI, its contract, predictions without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from make_dicom import write
from portable_folder import SIDE, film, write_folder
from torch import nn

from medtl.errors import EXTRAS, WeightsError
from medtl.networks.segmenter import Segmenter
from medtl.prediction.portable import CONTRACT, GRAPH, read_portable
from medtl.prediction.windows import Windows
from medtl.preprocess.geometry import _resize_axis, resample_axis
from medtl.run.edge.choice import model_of
from medtl.run.files import RunFiles
from medtl.run.folder import Run

ROOT = Path(__file__).parents[2]

WITHOUT_TORCH = f"""
import sys
for library in {[name for extra, names in EXTRAS.items() if extra != "onnx" for name in names]}:
    sys.modules[library] = None
from medtl.cli.main import main
main()
"""
"""The command line where the core and onnxruntime are installed, and nothing more."""


@pytest.mark.parametrize(
    ("patch", "shape"),
    [
        ((8, 8), (8, 8)),
        ((8, 8), (5, 13)),  # padded, in one pass
        ((8, 8), (19, 30)),  # windows
        ((8, 12), (6, 60)),  # windows of a padded image
        ((4, 8, 4), (9, 17, 11)),
    ],
)
def test_windows_are_those_of_the_segmenter(patch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = (nn.Conv2d if len(patch) == 2 else nn.Conv3d)(1, 2, 3, padding=1).eval()
    image = torch.rand(1, 1, *shape) - 0.3
    with torch.inference_mode():
        theirs = Segmenter(conv, patch=patch, stride=4, overlap=0.5).eval()(image).numpy()
        ours = Windows(patch, 4)(image.numpy(), lambda part: conv(torch.from_numpy(part)).numpy())
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    if np.prod(shape) > 2 * np.prod(patch):  # negative control: equal weights are another result
        with torch.inference_mode():
            whole = conv(image).numpy()
        assert np.abs(whole - theirs).max() > 1e-4


@pytest.mark.parametrize(("axis", "length"), [(1, 11), (1, 80), (2, 20), (2, 52), (2, 99)])
def test_resampling_without_opencv_is_that_with_it(axis: int, length: int) -> None:
    array = np.random.default_rng(0).random((2, 37, 53)).astype(np.float32)
    ours = resample_axis(array, axis, length)
    np.testing.assert_allclose(ours, _resize_axis(array, axis, length), atol=1e-6)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "edge")
    assert read_portable(folder).task.labels == ("bright",)
    (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes() + b"x")
    with pytest.raises(WeightsError, match=r"model\.onnx: the file is missing, or not what"):
        read_portable(folder)


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"format is 'medtl-onnx/9'; expected medtl-onnx/1"):
        read_portable(write_folder(tmp_path / "edge", format="medtl-onnx/9"))
    (tmp_path / "edge" / CONTRACT).write_text("[]")
    with pytest.raises(WeightsError, match="'no contract'"):
        read_portable(tmp_path / "edge")


def test_what_is_no_graph_is_said(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "edge")
    (folder / GRAPH).write_bytes(b"no graph")
    contract = json.loads((folder / CONTRACT).read_text())
    (folder / CONTRACT).write_text(json.dumps(contract | {"files": {}}))
    with pytest.raises(WeightsError, match="onnxruntime cannot read the graph"):
        _ = read_portable(folder).session


def test_a_run_predicts_by_the_graph_of_its_own_checkpoint(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.checkpoints.mkdir()
    files.best.write_bytes(b"weights")
    network: Any = object()
    assert model_of(files, lambda: network) is network
    write_folder(files.portable)
    with pytest.raises(WeightsError, match="graph is of another checkpoint"):
        model_of(files, lambda: network)
    files.best.unlink()
    assert model_of(files, lambda: network).folder == files.portable


def test_it_predicts_dicom_where_torch_is_not_installed(tmp_path: Path) -> None:
    folder, films = write_folder(tmp_path / "edge"), tmp_path / "films"
    films.mkdir()
    for number, value in enumerate((20, 90, 240)):
        write(films / f"{number}.dcm", film(value), Modality="DX")
    write(films / "odd.dcm", film(90), Modality="MR")
    (films / "broken.dcm").write_bytes(b"DICM" * 40)
    out = tmp_path / "out.csv"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "predict", folder, films, "--out", out],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 images predicted" in done.stdout
    table = pd.read_csv(out).set_index("file")
    assert table["decision"].to_dict() == {"0.dcm": 0, "1.dcm": 0, "2.dcm": 1, "odd.dcm": 0}
    model, unit = read_portable(folder), np.full((1, SIDE, SIDE), 240 / 255, np.float32)
    logit = 4 * model.reader.preprocessor.standardise(unit).mean()
    assert table.loc["2.dcm", "y_score"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)
    assert "modality not seen in training" in table.loc["odd.dcm", "unlike_training"]
    quality = json.loads(out.with_suffix(".quality.json").read_text())
    assert len(quality["quarantined"]) == 1
    # The same by Python, where torch could be had.
    again = Run(folder).predict(films).frame
    np.testing.assert_allclose(sorted(again["y_score"]), sorted(table["y_score"]), atol=1e-7)
