"""What training told the network, prediction tells it too: the sex, from a column or the header."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_dicom import write
from PIL import Image
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import RecipeError
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run

RECIPE = """
study: {question: "How old is the square?"}
data: {manifest: manifest.csv, target: months, sex: male}
image: {modality: hand, size: 32}
model: {backbone: test_resnet, weights: none}
task: {kind: bone_age}
finetune:
  batch_size: 8
  stages: [{name: full, train: all, epochs: 2, lr: {head: 1e-1, base: 1e-2}}]
run: {tensorboard: false, device: cpu}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data folder, finished run folder): the sex is an input and no stratum."""
    folder = tmp_path_factory.mktemp("sex")
    (folder / "data").mkdir()
    lines = ["image,patient_id,months,male,age"]
    for patient in range(40):
        rng = np.random.default_rng(patient)
        months = 24 + 4 * patient
        pixels = (rng.integers(0, 60, (40, 40)) + months / 2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "data" / f"{patient}.png")
        age = 3 if patient % 2 else 60  # sixty years lie outside of what was learned
        lines.append(f"{patient}.png,P{patient},{months},{'FM'[patient // 2 % 2]},{age}")
    (folder / "data" / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "data" / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    run_study(read_recipe(folder / "data" / "recipe.yaml"), folder / "run")
    return folder / "data", folder / "run"


def scores(table: Path) -> pd.DataFrame:
    """Score and range of each image, by the hash of its pixels."""
    found = pd.read_csv(table).set_index("content_sha256")
    return found[["y_score", "outside_training_range"]].sort_index()


def of_the_run(run: Path) -> pd.DataFrame:
    """The same of the images that the run itself predicted."""
    hashes = pd.read_csv(run / "manifest.csv")[["case_id", "content_sha256"]]
    found = pd.read_csv(run / "predictions.csv").merge(hashes, on="case_id")
    found = found.set_index("content_sha256")
    return found[["y_score", "outside_training_range"]].sort_index()


def rewritten(data: Path, folder: Path, **columns: str) -> Path:
    """The study's images in another manifest, with some columns changed."""
    shutil.copytree(data, folder)
    table = pd.read_csv(data / "manifest.csv").assign(**columns)
    table.to_csv(folder / "new.csv", index=False)
    return folder / "new.csv"


def test_a_new_manifest_is_read_as_the_training_one_was(study, tmp_path):
    data, run = study
    done = Run(run).predict(rewritten(data, tmp_path / "d", site="B"), tmp_path / "out.csv")
    own = of_the_run(run)
    assert len(own) > 5
    pd.testing.assert_frame_equal(scores(tmp_path / "out.csv").loc[own.index], own)
    assert set(own["outside_training_range"]) == {"yes", "no"}  # the age was read as well
    assert done.unknown == {}
    quality = json.loads(done.quality.read_text("utf-8"))
    assert not any("sex_unknown" in one["flags"] for one in quality["flagged"])


def test_a_sex_that_is_not_known_changes_the_age_and_is_said(study, tmp_path):
    """The negative control of the test above, and what a user is told."""
    data, run = study
    done = Run(run).predict(rewritten(data, tmp_path / "d", male=""), tmp_path / "out.csv")
    own = of_the_run(run)
    assert (scores(tmp_path / "out.csv").loc[own.index, "y_score"] != own["y_score"]).all()
    assert done.unknown == {"sex_unknown": 40}
    quality = json.loads(done.quality.read_text("utf-8"))
    assert all(one["flags"] == ["sex_unknown"] for one in quality["flagged"])
    assert len(quality["flagged"]) == 40


def test_a_folder_of_dicom_files_tells_the_sex_by_its_headers(study, tmp_path):
    data, run = study
    pixels = np.asarray(Image.open(data / "30.png"))
    ages = {}
    for sex in ("F", "M", "O", None):
        folder = tmp_path / f"dicom{sex}"
        folder.mkdir()
        tags = {"Modality": "DX"} | ({"PatientSex": sex} if sex else {})
        write(folder / "a.dcm", pixels, **tags)
        done = Run(run).predict(folder, tmp_path / f"{sex}.csv")
        assert done.unknown == ({} if sex in ("F", "M") else {"sex_unknown": 1})
        ages[sex] = pd.read_csv(tmp_path / f"{sex}.csv")["y_score"].item()
    assert ages["F"] != ages["O"] != ages["M"]
    assert ages["O"] == ages[None] == pytest.approx((ages["F"] + ages["M"]) / 2, abs=1e-3)


def test_the_command_line_says_it_in_one_line(study, tmp_path):
    data, run = study
    shown = CliRunner().invoke(
        app, ["predict", str(run), str(data / "3.png"), "--out", str(tmp_path / "one.csv")]
    )
    assert shown.exit_code == 0, shown.output
    assert "1 of them: sex unknown, so the network was told nothing of it" in shown.output


def test_a_misspelled_column_of_the_sex_is_a_fault_of_the_recipe(study):
    data, _ = study
    with pytest.raises(RecipeError, match=r"data\.sex: no column 'mal'.*Did you mean 'male'"):
        read_recipe(data / "recipe.yaml", ["data.sex=mal"])
