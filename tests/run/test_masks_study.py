"""A tiny study of masks through the whole chain: table, files, pictures, and prediction anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.errors import ManifestError, RunError
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.prepare import read_study

RECIPE = """
study: {question: "Where is the square?"}
data: {manifest: manifest.csv, mask: mask}
image: {modality: us, size: 32}
model: {backbone: resnet10t, weights: none}
task: {kind: segmentation, structures: {square: 1}}
finetune:
  batch_size: 8
  stages: [{name: full, train: all, epochs: 1, lr: {head: 1e-2, base: 1e-2}}]
run: {tensorboard: false, device: cpu}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """(data folder, finished run)."""
    data = tmp_path_factory.mktemp("squares") / "data"
    data.mkdir()
    lines = ["image,mask,patient_id"]
    for patient in range(24):
        rng = np.random.default_rng(patient)
        mask = np.zeros((40, 40), np.uint8)
        mask[8 + patient % 8 : 28, 10:30] = 255
        pixels = rng.integers(0, 80, (40, 40)) + (mask > 0) * 120
        Image.fromarray(pixels.astype(np.uint8)).save(data / f"{patient}.png")
        Image.fromarray(mask).save(data / f"{patient}_mask.png")
        lines.append(f"{patient}.png,{patient}_mask.png,P{patient}")
    (data / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (data / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return data, run_study(read_recipe(data / "recipe.yaml"), data.parent / "run")


def test_every_case_has_a_mask_beside_its_truth(study):
    _, run = study
    rows = pd.read_csv(run.files.predictions)
    assert (run.path / rows["prediction"]).map(Path.is_file).all()
    assert (run.path / rows["truth"]).map(Path.is_file).all()
    overlaps = pd.read_csv(run.files.overlaps)
    assert overlaps["dice"].between(0, 1).all()
    drawn = json.loads((run.files.gallery / "gallery.json").read_text("utf-8"))
    assert drawn
    assert "Dice" in run.files.report.read_text("utf-8")


def test_the_runs_own_manifest_gives_the_same_table_with_its_truth(study, tmp_path):
    data, run = study
    run.predict(data / "manifest.csv", tmp_path / "predictions.csv")
    assert (tmp_path / "predictions.csv").read_bytes() == run.files.predictions.read_bytes()
    own, new = (sorted((folder / "masks").rglob("*.png")) for folder in (run.path, tmp_path))
    assert [p.read_bytes() for p in own] == [p.read_bytes() for p in new]


def test_new_images_have_no_truth_and_masks_need_a_place(study, tmp_path):
    data, run = study
    done = run.predict(data / "3.png", tmp_path / "one.csv")
    assert done.frame["truth"].tolist() == [""]
    with pytest.raises(RunError, match="masks are files and have no place"):
        run.predict(data / "3.png")


def test_two_tables_in_one_folder_keep_their_own_masks(study, tmp_path):
    data, run = study
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name, number in (("a", 3), ("b", 5)):  # two images of one name
        (tmp_path / name / "film.png").write_bytes((data / f"{number}.png").read_bytes())
    run.predict(tmp_path / "a", tmp_path / "a.csv")
    path = tmp_path / pd.read_csv(tmp_path / "a.csv").loc[0, "prediction"]
    before = path.read_bytes()
    run.predict(tmp_path / "b", tmp_path / "b.csv")
    other = tmp_path / pd.read_csv(tmp_path / "b.csv").loc[0, "prediction"]
    assert path.parent == tmp_path / "a_masks" / "predicted"
    assert path.read_bytes() == before != other.read_bytes()


def test_empty_masks_are_counted_and_none_but_empty_ones_are_a_fault(study, tmp_path):
    source, _ = study
    data = tmp_path / "data"
    shutil.copytree(source, data)
    recipe = read_recipe(data / "recipe.yaml")
    masks = sorted(data.glob("*_mask.png"))
    for mask in masks[:5]:
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(mask)
    (note,) = [n for n in read_study(recipe).manifest.notes if "no structure" in n]
    assert note.startswith("5 masks show no structure (train ")
    assert "taken as images without one" in note
    train = [case.mask for case in read_study(recipe).split("train")]
    for mask in train:
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(mask)
    with pytest.raises(ManifestError, match="training masks shows one of"):
        read_study(recipe)
    for mask in masks:
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(mask)
    with pytest.raises(ManifestError, match=r"task.structures: none of \d+ masks shows square"):
        read_study(recipe)


def test_a_value_that_no_mask_holds_is_the_fault_of_the_recipe(study):
    """The images are sound: what the recipe calls the structure is another value."""
    recipe = read_recipe(study[0] / "recipe.yaml", ["task.structures={square: 1, ghost: 7}"])
    with pytest.raises(ManifestError) as error:
        read_study(recipe)
    assert error.value.where == "task.structures"
    assert error.value.found.endswith("masks shows ghost")


def test_what_the_left_out_masks_hold_is_said_beside_it(study, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(study[0], data)
    for mask in sorted(data.glob("*_mask.png"))[:5]:
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(mask)
    with pytest.raises(ManifestError, match=r"^task\.structures") as error:
        read_study(read_recipe(data / "recipe.yaml", ["task.structures={square: 7}"]))
    assert error.value.found.startswith("none of 5 masks shows square; ")
    assert "images are left out: unknown label 1 in the mask" in error.value.found
