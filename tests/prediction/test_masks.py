"""Masks go back onto the source image, are scored from their files, and are drawn the right way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

from medtl.cases.predictions import read_predictions
from medtl.io.read import read_image
from medtl.losses.known import IGNORE
from medtl.prediction.mask_writer import MaskSink, MaskWriter
from medtl.prediction.overlays import Shown, WorstCase, choose_worst, draw_case, write_overlays
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.volume import VolumePreprocessor
from medtl.run.evaluate import overlap_table
from medtl.storage.yaml import load_yaml
from medtl.tasks.structures import Structures, segmentation_task
from medtl.types import Case, Image

TWO = segmentation_task({"anterior": 1, "posterior": 2})
REGIONS = segmentation_task({"whole": [1, 2], "core": 2}, overlapping=True)


def case(name: str = "c1") -> Case:
    return Case(name, f"p-{name}", Path("x"), strata={"site": "A"}, split="test")


def tilted_volume() -> Image:
    """A left-handed, anisotropic volume whose axes are stored as superior, left, anterior."""
    rng = np.random.default_rng(0)
    affine = np.array([[0, -1.5, 0.1, 40], [0, 0.1, 1.0, -20], [3.0, 0, 0, 5], [0, 0, 0, 1.0]])
    steps = tuple(float(np.linalg.norm(affine[:3, axis])) for axis in range(3))
    array = rng.random((1, 10, 24, 30), dtype=np.float32) * 100
    return Image(array, spacing=steps, affine=affine, modality="mr")


def pixels(path: Path) -> np.ndarray:
    with Picture.open(path) as picture:
        return np.asarray(picture)


def one_hot(mask: np.ndarray, task: Structures) -> np.ndarray:
    if task.exclusive:
        return np.stack([mask == k for k in range(task.outputs)]).astype(np.float32)
    return mask.astype(np.float32)


@pytest.mark.parametrize("task", [TWO, REGIONS])
def test_a_mask_on_the_working_grid_comes_back_onto_a_tilted_left_handed_volume(
    task: Structures, tmp_path: Path
) -> None:
    image = tilted_volume()
    stored = np.zeros(image.array.shape[1:], np.uint8)
    stored[2:8, 4:14, 5:25], stored[4:7, 8:14, 10:20] = 1, 2
    truth = task.encode(stored)
    geometry = VolumePreprocessor(spacing=(1.5, 1.0, 3.0), nonzero=True)
    writer = MaskWriter(tmp_path / "masks", task, geometry, strata=("site",))
    rows = writer.write(case(), image, one_hot(geometry.mask_to_unit(truth, image), task), truth)
    MaskSink().write(pd.DataFrame(rows), task, tmp_path / "predictions.csv")
    for row in rows:
        written = read_image(tmp_path / row["prediction"])
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
        assert written.array.shape == image.array.shape
    table = read_predictions(tmp_path / "predictions.csv")
    assert list(load_yaml(tmp_path / "predictions.yaml")["labels"].values()) == list(task.labels)
    overlaps = overlap_table(table, tmp_path / "predictions.csv")
    known = overlaps[overlaps["dice"].notna()]
    assert sorted(known["label"]) == sorted(task.labels)
    assert (known["dice"] == 1).all()
    assert set(table["site"]) == {"A"}


def test_a_plane_is_written_as_a_picture_of_its_own_size(tmp_path: Path) -> None:
    lung = segmentation_task({"lung": 1})
    image = Image(np.random.default_rng(0).random((1, 60, 90), dtype=np.float32))
    truth = np.zeros((60, 90), np.uint8)
    truth[10:40, 20:60] = 1
    geometry = Preprocessor(size=90)
    writer = MaskWriter(tmp_path / "masks", lung, geometry)
    rows = writer.write(case(), image, one_hot(geometry.mask_to_unit(truth, image), lung), truth)
    assert rows[0]["prediction"] == "masks/predicted/c1.png"
    assert rows[0]["spacing_mm"] == ""
    drawn = pixels(tmp_path / rows[0]["prediction"])
    assert np.array_equal(drawn, truth * 255)
    assert np.array_equal(pixels(tmp_path / rows[0]["truth"]), drawn)


def test_unknown_pixels_are_background_in_both_files(tmp_path: Path) -> None:
    image = Image(np.zeros((1, 8, 8), np.float32), spacing=(0.5, 0.25))
    truth = np.ones((8, 8), np.uint8)
    truth[:4] = IGNORE
    scores = np.stack([np.zeros((8, 8)), np.ones((8, 8)), np.zeros((8, 8))]).astype(np.float32)
    writer = MaskWriter(tmp_path / "masks", TWO, Preprocessor(size=8))
    row = writer.write(case(), image, _stretch(scores, writer, image), truth)[0]
    assert row["spacing_mm"] == "0.5 0.25"
    for part in ("truth", "prediction"):
        drawn = pixels(tmp_path / row[part]) > 0
        assert not drawn[:4].any()
        assert drawn[5:].all()


def _stretch(scores: np.ndarray, writer: MaskWriter, image: Image) -> np.ndarray:
    """Scores of the whole working grid: they do not vary here."""
    shape = writer.geometry.grid(image).target
    return np.broadcast_to(scores[:, :1, :1], (len(scores), *shape)).copy()


def test_a_case_without_a_mask_has_a_prediction_only(tmp_path: Path) -> None:
    image = tilted_volume()
    geometry = VolumePreprocessor(spacing=(3.0, 3.0, 3.0))
    shape = geometry.grid(image).target
    scores = np.zeros((3, *shape), np.float32)
    scores[0] = 1
    row = MaskWriter(tmp_path / "masks", TWO, geometry).write(case(), image, scores)[0]
    assert row["truth"] == ""
    assert (tmp_path / row["prediction"]).is_file()
    assert not (tmp_path / "masks" / "truth").exists()


def test_a_case_id_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    image = Image(np.zeros((1, 8, 8), np.float32), modality="cxr")
    scores = np.zeros((TWO.outputs, 8, 8), np.float32)
    run = tmp_path / "run"
    row = MaskWriter(run / "masks", TWO, Preprocessor(size=8)).write(
        case("../../x"), image, scores
    )[0]
    assert row["case_id"] == "../../x"
    assert (run / row["prediction"]).parent.resolve() == (run / "masks" / "predicted").resolve()
    assert list(tmp_path.rglob("*.png")) == [run / row["prediction"]]


def test_the_worst_cases_are_those_of_the_test_set_with_the_lowest_dice() -> None:
    table = pd.DataFrame(
        {
            "case_id": ["a", "b", "c", "d", "a", "b"],
            "label": ["x"] * 4 + ["y"] * 2,
            "split": ["test", "test", "val", "test", "test", "test"],
            "dice": [0.9, 0.2, 0.1, 0.5, None, 0.7],
        }
    )
    chosen = choose_worst(table, per_structure=2)
    assert [(one.case_id, one.label) for one in chosen] == [("b", "x"), ("d", "x"), ("b", "y")]


def corner() -> Shown:
    """A volume with a mark at the patient's right, anterior, superior corner, wrongly outlined."""
    unit = np.zeros((1, 20, 30, 10), np.float32)
    unit[:, 14:, 22:, 6:] = 1
    truth = unit[0] > 0.5
    return Shown(unit, truth, np.zeros_like(truth), (1.0, 1.0, 3.0))


def test_planes_are_shown_as_radiologists_look_at_them() -> None:
    plain, outlined = draw_case(corner())
    assert plain.shape == outlined.shape
    # Sagittal 30 x 30 mm, coronal 20 x 30 mm, axial 20 x 30 mm.
    widths = (640, 427, 427)
    assert plain.shape == (640, sum(widths), 3)
    start = 0
    for width in widths:
        plane = plain[:, start : start + width, 0]
        # Anterior or the patient's right on the left, superior or anterior up.
        assert plane[20:120, 20:80].mean() > 0.9
        assert plane[-120:, -120:].max() < 0.1
        start += width
    green = (outlined == np.array((0.2, 0.9, 0.3), np.float32)).all(axis=-1)
    assert green.any()
    assert not green.all()


def test_overlays_and_their_list_are_written(tmp_path: Path) -> None:
    flat = Shown(
        np.random.default_rng(0).random((3, 40, 50), dtype=np.float32),
        np.eye(40, 50, dtype=bool),
        np.zeros((40, 50), bool),
        None,
    )
    shown = {"a": corner(), "b": flat}
    cases = [WorstCase("a", "x", 0.1), WorstCase("b", "x", 0.25)]
    write_overlays(tmp_path / "gallery", cases, lambda name, _: shown[name])
    listed = json.loads((tmp_path / "gallery" / "gallery.json").read_text("utf-8"))
    assert [entry["kind"] for entry in listed] == ["worst", "worst"]
    assert listed[1]["value"].startswith("Dice 0.25")
    for entry in listed:
        for key in ("image", "overlay"):
            with Picture.open(tmp_path / "gallery" / entry[key]) as picture:
                assert picture.mode == "RGB"
