"""Geometry: aspect in millimetres, no aliasing, masks that follow, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.errors import MedtlError
from medtl.preprocess.geometry import Fit, fit_mask, fit_to, plan_fit, unfit


def disc(rows: int, columns: int, spacing: tuple[float, float], radius_mm: float) -> np.ndarray:
    y = (np.arange(rows) + 0.5) * spacing[0] - rows * spacing[0] / 2
    x = (np.arange(columns) + 0.5) * spacing[1] - columns * spacing[1] / 2
    return ((y[:, None] ** 2 + x**2) <= radius_mm**2).astype(np.float32)[None]


def area_matrix(old: int, new: int) -> np.ndarray:
    """Share of each source pixel in each target pixel, written out: the oracle."""
    weights = np.zeros((new, old))
    for i in range(new):
        for j in range(old):
            weights[i, j] = max(0.0, min((i + 1) * old / new, j + 1) - max(i * old / new, j))
    return weights * new / old


def test_shrinking_averages_over_area() -> None:
    image = np.random.default_rng(0).random((2, 50, 37), dtype=np.float32)
    expected = area_matrix(50, 20) @ image @ area_matrix(37, 15).T
    np.testing.assert_allclose(fit_to(image, (20, 15)).array, expected, atol=1e-6)


def test_growing_interpolates_between_pixel_centres() -> None:
    image = np.random.default_rng(0).random((1, 10, 10), dtype=np.float32)
    at = (np.arange(25) + 0.5) * 10 / 25 - 0.5
    expected = np.stack([np.interp(at, np.arange(10), row) for row in image[0]])
    expected = np.stack([np.interp(at, np.arange(10), column) for column in expected.T], axis=1)
    np.testing.assert_allclose(fit_to(image, 25).array[0], expected, atol=1e-6)


def test_fine_stripes_do_not_alias() -> None:
    stripes = np.tile(np.array([0, 1], np.float32), 500)[None, None].repeat(1000, axis=1)
    assert np.abs(fit_to(stripes, 130).array - 0.5).max() < 0.07


def test_a_long_image_is_padded_evenly() -> None:
    fitted = fit_to(np.ones((1, 100, 50), np.float32), 64)
    assert fitted.fit == Fit(source=(100, 50), resized=(64, 32), target=(64, 64))
    assert fitted.fit.offset == (0, 16)
    assert fitted.fit.scale == (0.64, 0.64)
    np.testing.assert_allclose(fitted.array[0, :, 16:48], 1, rtol=1e-6)
    assert not fitted.array[0, :, :16].any()
    assert not fitted.array[0, :, 48:].any()


def test_a_disc_stays_round_when_the_spacing_differs() -> None:
    image = disc(60, 240, (2.0, 0.5), 40.0)
    rows, columns = np.nonzero(fit_to(image, 120, spacing=(2.0, 0.5)).array[0] > 0.5)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=2)
    rows, columns = np.nonzero(fit_to(image, 120).array[0] > 0.5)  # without it: an ellipse
    assert np.ptp(columns) > 3 * np.ptp(rows)


def test_mask_and_image_move_together() -> None:
    image = disc(300, 200, (1.0, 1.0), 60.0)
    fitted = fit_to(image, 96, mask=(image[0] * 3).astype(np.uint8))
    assert set(np.unique(fitted.mask)) == {0, 3}
    assert ((fitted.mask == 3) == (fitted.array[0] > 0.5)).mean() > 0.995


def test_a_result_comes_back_to_where_it_was() -> None:
    image = disc(301, 175, (0.4, 0.7), 30.0)
    fitted = fit_to(image, 128, spacing=(0.4, 0.7), mask=image[0].astype(bool))
    back = unfit(fitted.array, fitted.fit)
    assert back.shape == image.shape
    assert ((back > 0.5) == (image > 0.5)).mean() > 0.99
    mask = unfit(fitted.mask[None].astype(np.float32), fitted.fit)[0] > 0.5
    assert (mask == (image[0] > 0.5)).mean() > 0.99


def test_a_smooth_map_survives_there_and_back() -> None:
    ramp = np.linspace(0, 1, 90, dtype=np.float32)[None, :, None].repeat(70, axis=2)
    fitted = fit_to(ramp, 256)
    assert np.abs(unfit(fitted.array, fitted.fit) - ramp).max() < 0.01


def test_volumes_are_treated_alike() -> None:
    volume = np.random.default_rng(0).random((2, 12, 20, 16), dtype=np.float32)
    matrices = [area_matrix(12, 6), area_matrix(20, 10), area_matrix(16, 8)]
    expected = np.einsum("ai,bj,ck,nijk->nabc", *matrices, volume)
    fitted = fit_to(volume, (6, 10, 10), mask=volume > 0.5)
    np.testing.assert_allclose(fitted.array[..., 1:9], expected, atol=1e-6)
    assert fitted.mask.shape == (2, 6, 10, 10)
    assert unfit(fitted.array, fitted.fit).shape == volume.shape
    assert unfit(fitted.array[0], fitted.fit).shape == volume.shape[1:]


def test_an_image_that_fits_is_left_alone_and_the_fill_pads() -> None:
    image = np.random.default_rng(0).random((1, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(fit_to(image, 8).array, image)
    assert fit_to(image, (8, 10), fill=-1).array[0, 0, 0] == -1


def test_a_sliver_keeps_one_pixel() -> None:
    assert plan_fit((1000, 1), 32).resized == (32, 1)


@pytest.mark.parametrize(
    ("shape", "size", "spacing", "message"),
    [
        ((4, 4), (4, 4, 4), None, "an image of 2 axes, a size of 3"),
        ((4, 4), 4, (1.0,), "a spacing of 1"),
        ((4, 4), 0, None, "expected positive numbers"),
        ((4, 4), 4, (1.0, 0.0), "expected positive numbers"),
        ((4, 4), 4, (1.0, float("nan")), "expected positive numbers"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(shape, size, spacing, message: str) -> None:
    with pytest.raises(MedtlError, match=message):
        plan_fit(shape, size, spacing=spacing)


def test_masks_and_maps_of_another_shape_are_refused() -> None:
    fit = plan_fit((10, 20), 16)
    with pytest.raises(MedtlError, match=r"a mask of shape \(10, 10\); .* that of the image"):
        fit_mask(np.zeros((10, 10)), fit)
    with pytest.raises(MedtlError, match=r"a map of shape \(7, 7\); .* that of the grid"):
        unfit(np.zeros((1, 7, 7)), fit)
