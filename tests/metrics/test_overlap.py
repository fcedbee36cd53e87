"""Masks: overlap, distances in mm, empty masks."""

import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics import overlap
from medtl.metrics.scores import CI


def cube(shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[(slice(low, high),) * len(shape)] = True
    return mask


def test_overlap_by_hand() -> None:
    truth = np.array([[1, 1, 0, 0]], dtype=bool)
    prediction = np.array([[0, 1, 1, 0]], dtype=bool)
    found = overlap.compare_masks(truth, prediction, (1, 1))
    assert (found.dice, found.iou) == (0.5, 1 / 3)


def test_a_shift_of_one_slice_is_its_thickness() -> None:
    truth, prediction = cube((12, 12, 12), 3, 8), np.roll(cube((12, 12, 12), 3, 8), 1, axis=2)
    found = overlap.compare_masks(truth, prediction, (0.8, 0.8, 5.0), tolerances_mm=(1.0, 5.0))
    assert found.hd_mm == pytest.approx(5.0)
    assert found.nsd[5.0] == 1.0
    assert found.nsd[1.0] < 1  # type: ignore[operator]
    ignored = overlap.compare_masks(truth, prediction, (1, 1, 1))
    assert ignored.hd_mm == pytest.approx(1.0)  # the control: spacing matters


def test_single_voxels_have_a_known_distance() -> None:
    truth, prediction = np.zeros((5, 5, 5), dtype=bool), np.zeros((5, 5, 5), dtype=bool)
    truth[0, 0, 0] = prediction[3, 4, 0] = True
    found = overlap.compare_masks(truth, prediction, (1, 1, 1))
    assert (found.hd_mm, found.hd95_mm, found.assd_mm, found.masd_mm) == (5, 5, 5, 5)
    assert found.dice == 0


def test_distances_equal_those_of_a_full_distance_transform() -> None:
    from scipy.ndimage import binary_erosion, distance_transform_edt

    rng = np.random.default_rng(0)
    truth, prediction = (cube((14, 13, 12), 2, 9) & (rng.random((14, 13, 12)) > 0.1) for _ in "ab")
    spacing = (0.7, 1.0, 2.5)

    def edge(mask: np.ndarray) -> np.ndarray:
        return mask & ~binary_erosion(mask)

    def directed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return distance_transform_edt(~edge(second), sampling=spacing)[edge(first)]

    there, back = directed(truth, prediction), directed(prediction, truth)
    found = overlap.compare_masks(truth, prediction, spacing)
    expected = max(np.percentile(there, 95), np.percentile(back, 95))
    assert found.hd95_mm == pytest.approx(expected)
    assert found.assd_mm == pytest.approx(np.concatenate([there, back]).mean())
    assert found.masd_mm == pytest.approx((there.mean() + back.mean()) / 2)


def test_voxels_at_the_border_of_the_image_are_surface() -> None:
    assert overlap.surface(np.ones((4, 4), dtype=bool)).sum() == 12
    assert overlap.surface(cube((6, 6), 1, 5)).sum() == 12


def test_order_and_padding_change_nothing() -> None:
    truth, prediction = cube((10, 10), 2, 7), cube((10, 10), 3, 9)
    first = overlap.compare_masks(truth, prediction, (1, 2), tolerances_mm=(1.0,))
    padded = [np.pad(mask, 5) for mask in (truth, prediction)]
    assert overlap.compare_masks(*padded, (1, 2), tolerances_mm=(1.0,)) == first
    swapped = overlap.compare_masks(prediction, truth, (1, 2), tolerances_mm=(1.0,))
    assert (swapped.dice, swapped.hd95_mm, swapped.nsd) == (first.dice, first.hd95_mm, first.nsd)


def test_volumes_are_in_ml() -> None:
    found = overlap.compare_masks(cube((20, 20, 20), 0, 10), cube((20, 20, 20), 0, 5), (1, 1, 2))
    assert (found.volume_truth_ml, found.volume_prediction_ml) == (2.0, 0.25)
    assert found.relative_volume_difference == pytest.approx(-0.875)


def test_two_empty_masks_are_undefined_and_not_1() -> None:
    empty = np.zeros((4, 4), dtype=bool)
    found = overlap.compare_masks(empty, empty, (1, 1), tolerances_mm=(1.0,))
    assert (found.dice, found.iou, found.hd95_mm, found.nsd) == (None, None, None, {1.0: None})
    assert found.relative_volume_difference is None
    assert found.reason == "both masks are empty"


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_has_overlap_0_and_no_distance(swap: bool) -> None:
    masks = [np.zeros((4, 4), dtype=bool), cube((4, 4), 1, 3)]
    found = overlap.compare_masks(*(masks[::-1] if swap else masks), (1, 1), tolerances_mm=(1.0,))
    assert (found.dice, found.iou, found.nsd) == (0.0, 0.0, {1.0: 0.0})
    assert (found.hd95_mm, found.assd_mm, found.reason) == (None, None, "one mask is empty")


def test_masks_on_other_grids_are_refused() -> None:
    with pytest.raises(PredictionsError, match="the prediction has shape"):
        overlap.compare_masks(cube((4, 4), 1, 2), cube((5, 5), 1, 2), (1, 1))


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, np.nan)])
def test_a_spacing_that_does_not_fit_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(PredictionsError, match="the spacing"):
        overlap.compare_masks(cube((4, 4), 1, 2), cube((4, 4), 1, 2), spacing)


def test_case_values_leave_out_undefined_cases() -> None:
    values = [0.9, np.nan, 0.7, 0.8, 0.6]
    found = {m.name: m for m in overlap.casewise_measures("dice", values, ci=CI(resamples=200))}
    assert found["dice_mean"].value == pytest.approx(0.75)
    assert found["dice_median"].value == pytest.approx(0.75)
    assert found["dice_p05"].value == pytest.approx(np.quantile([0.6, 0.7, 0.8, 0.9], 0.05))
    assert found["dice_mean"].n == 4


def test_no_defined_case_is_undefined() -> None:
    found = overlap.casewise_measures("dice", [np.nan, np.nan])
    assert {m.status for m in found} == {"undefined"}


def test_scans_of_a_patient_are_drawn_together() -> None:
    rng = np.random.default_rng(3)
    values = np.repeat(rng.uniform(0.5, 1, 30), 4)
    alone, together = (
        overlap.casewise_measures("dice", values, patients=patients, ci=CI(resamples=1000))[0]
        for patients in (None, np.repeat(np.arange(30), 4))
    )
    ratio = (together.high - together.low) / (alone.high - alone.low)  # type: ignore[operator]
    assert ratio == pytest.approx(2, rel=0.15)
