"""A table of masks is compared in space: by the affine of each file, never by its indices alone."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

from medtl.errors import PredictionsError
from medtl.run.evaluate import evaluate_table, overlap_table

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
TRUTH = np.zeros((12, 10, 8), np.uint8)
TRUTH[1:7, 2:7, 1:5] = 1
PREDICTION = np.roll(TRUTH, 1, axis=0)
"""One voxel to the side: overlap 5/6, 1 mm away."""


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def row_of(tmp_path: Path, array: np.ndarray, affine: np.ndarray) -> pd.Series:
    """The overlap of a prediction that is stored as this array and affine."""
    save(tmp_path / "t.nii.gz", TRUTH)
    save(tmp_path / "p.nii.gz", array, affine)
    rows = pd.DataFrame([{"case_id": "a", "truth": "t.nii.gz", "prediction": "p.nii.gz"}])
    return overlap_table(rows, tmp_path / "predictions.csv").loc[0]


def test_a_prediction_on_the_grid_of_the_truth_has_its_overlap(tmp_path: Path) -> None:
    row = row_of(tmp_path, PREDICTION, AFFINE)
    assert row["dice"] == pytest.approx(5 / 6)
    assert (row["hd_mm"], row["volume_truth_ml"]) == (1.0, pytest.approx(120 * 6 / 1000))
    assert "flags" not in row


def test_a_prediction_100_mm_away_with_the_same_indices_is_refused(tmp_path: Path) -> None:
    away = AFFINE.copy()
    away[0, 3] = 100
    with pytest.raises(
        PredictionsError, match=r"prediction of a: affine mismatch: .* up to 100 mm"
    ):
        row_of(tmp_path, TRUTH, away)
    assert row_of(tmp_path, TRUTH, AFFINE)["dice"] == 1  # negative control: it was the place


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_prediction_stored_from_the_other_end_is_the_same_prediction(
    tmp_path: Path, axis: int
) -> None:
    affine = AFFINE.copy()
    affine[:, 3] += affine[:, axis] * (TRUTH.shape[axis] - 1)
    affine[:, axis] *= -1
    row = row_of(tmp_path, np.flip(PREDICTION, axis), affine)
    assert (row["dice"], row["hd_mm"]) == (pytest.approx(5 / 6), 1.0)
    # negative control: flipped voxels under a header that says they are not
    assert row_of(tmp_path, np.flip(PREDICTION, axis), AFFINE)["dice"] < 5 / 6


def test_a_prediction_with_its_axes_in_another_order_is_the_same_prediction(
    tmp_path: Path,
) -> None:
    row = row_of(tmp_path, PREDICTION.transpose(2, 0, 1), AFFINE[:, [2, 0, 1, 3]])
    assert (row["dice"], row["hd_mm"]) == (pytest.approx(5 / 6), 1.0)


def test_distances_are_by_the_affine_not_by_the_voxel_sizes_of_the_header(tmp_path: Path) -> None:
    picture = nibabel.Nifti1Image(TRUTH, None)
    picture.set_sform(AFFINE, code=1)
    picture.header.set_zooms((7.0, 7.0, 7.0))
    nibabel.save(picture, tmp_path / "t.nii")
    save(tmp_path / "p.nii", PREDICTION)
    rows = pd.DataFrame([{"case_id": "a", "truth": "t.nii", "prediction": "p.nii"}])
    row = overlap_table(rows, tmp_path / "predictions.csv").loc[0]
    assert row["hd_mm"] == 1.0


def test_a_rounded_header_is_accepted_and_said(tmp_path: Path) -> None:
    rounded = AFFINE.copy()
    rounded[0, 3] = 0.02
    row = row_of(tmp_path, PREDICTION, rounded)
    assert (row["dice"], row["flags"]) == (pytest.approx(5 / 6), "mask_place_rounded")


def test_without_a_place_the_voxel_sizes_must_agree(tmp_path: Path) -> None:
    for name, step in (("t", 1.0), ("p", 2.0)):
        picture = nibabel.Nifti1Image(TRUTH, None)
        picture.header.set_zooms((step, 1.0, 1.0))
        nibabel.save(picture, tmp_path / f"{name}.nii")
    rows = pd.DataFrame([{"case_id": "a", "truth": "t.nii", "prediction": "p.nii"}])
    with pytest.raises(PredictionsError, match="truth and prediction have other voxel sizes"):
        overlap_table(rows, tmp_path / "predictions.csv")
    rows["prediction"] = "t.nii"
    assert overlap_table(rows, tmp_path / "predictions.csv").loc[0, "dice"] == 1


def test_an_interpolated_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="it was interpolated, or is no mask"):
        row_of(tmp_path, PREDICTION * np.float32(0.7), AFFINE)


def test_pictures_have_no_place_and_are_compared_by_their_pixels(tmp_path: Path) -> None:
    for name, plane in (("t", TRUTH[:, :, 2]), ("p", PREDICTION[:, :, 2])):
        Picture.fromarray(plane * 255).save(tmp_path / f"{name}.png")
    table = tmp_path / "masks.csv"
    rows = pd.DataFrame(
        [
            {"case_id": f"c{number}", "patient_id": f"p{number}", "split": "test",
             "truth": "t.png", "prediction": "p.png", "spacing_mm": "0.5 0.5"}
            for number in range(3)
        ]
    )  # fmt: skip
    rows.to_csv(table, index=False)
    evaluate_table(table, tmp_path / "metrics.json")
    overlap = pd.read_csv(tmp_path / "overlap.csv")
    assert overlap["dice"].tolist() == pytest.approx([5 / 6] * 3)
    assert overlap["hd_mm"].tolist() == [0.5] * 3
