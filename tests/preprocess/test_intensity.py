"""Intensity: hand-computed values, independent oracles, invariants."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from medtl.errors import ImageError, MedtlError
from medtl.preprocess import intensity
from medtl.preprocess.intensity import (
    WINDOWS,
    clahe,
    local_contrast,
    min_max,
    percentile_scale,
    window,
    z_score,
)

RAMP = np.arange(1001, dtype=np.float32).reshape(1, 7, 143)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_percentiles_of_a_ramp_by_hand() -> None:
    scaled = percentile_scale(RAMP, 10, 90)  # 100 -> 0, 900 -> 1
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.ravel()[[0, 100, 500, 900, 1000]], [0, 0, 0.5, 1, 1])


def test_an_outlier_moves_min_max_but_not_percentiles() -> None:
    image = noise(1, 64, 64)
    spoiled = image.copy()
    spoiled[0, 3, 3] = 1000.0
    rest = np.ones(image.shape, bool)
    rest[0, 3, 3] = False
    assert np.abs(min_max(spoiled) - min_max(image))[rest].max() > 0.9
    assert np.abs(percentile_scale(spoiled) - percentile_scale(image))[rest].max() < 0.002


def test_percentiles_of_a_large_image_come_from_a_fair_sample() -> None:
    image = noise(1, 1500, 1400) ** 2
    low, high = np.percentile(image, (0.5, 99.5))
    expected = np.clip((image - low) / (high - low), 0, 1)
    assert np.abs(percentile_scale(image) - expected).max() < 2e-3


def test_extremes_of_a_large_image_are_exact() -> None:
    image = noise(1, 1500, 1400)
    image[0, 777, 333] = 5.0
    assert min_max(image)[0, 777, 333] == 1.0
    assert np.count_nonzero(min_max(image) == 1.0) == 1


@pytest.mark.parametrize("function", [percentile_scale, min_max, z_score, local_contrast])
@pytest.mark.parametrize("value", [0.0, 0.1, -1024.0, 65535.0])
def test_a_constant_image_becomes_zeros(function, value: float) -> None:
    assert not function(np.full((1, 20, 20), value, np.float32)).any()


def test_a_small_object_on_an_empty_background_is_not_erased() -> None:
    image = np.zeros((1, 100, 100), np.float32)
    image[0, 50, 50] = 7.0
    assert percentile_scale(image)[0, 50, 50] == 1.0


@pytest.mark.parametrize("function", [percentile_scale, min_max, z_score, local_contrast])
def test_pixels_that_are_not_numbers_become_zero_and_change_nothing_else(function) -> None:
    image = noise(1, 32, 32)
    image[0, 0, 0], image[0, 0, 1] = np.nan, np.inf
    result = function(image)
    assert np.isfinite(result).all()
    if function is not local_contrast:  # its neighbours see the mean in their place
        assert result[0, 0, 0] == result[0, 0, 1] == 0
        np.testing.assert_allclose(result[:, 1:], function(image[:, 1:]), atol=0.05)


@pytest.mark.parametrize("function", [percentile_scale, min_max, z_score, local_contrast])
def test_an_image_without_a_finite_pixel_is_refused(function) -> None:
    with pytest.raises(ImageError, match="no pixel to take statistics from"):
        function(np.full((1, 4, 4), np.nan, np.float32))


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ImageError, match="inside the mask"):
        min_max(noise(1, 4, 4), mask=np.zeros((4, 4), bool))


def test_statistics_come_from_the_mask() -> None:
    image = np.zeros((1, 4, 4), np.float32)
    image[0, :2] = [[2, 4, 6, 8], [2, 4, 6, 8]]
    inside = image[0] != 0
    np.testing.assert_allclose(min_max(image, mask=inside)[0, 0], [0, 1 / 3, 2 / 3, 1])
    scored = z_score(image, mask=inside)
    np.testing.assert_allclose(scored[0, 0], np.array([-3, -1, 1, 3]) / np.sqrt(5), rtol=1e-6)
    assert not scored[0, 2:].any()


@pytest.mark.parametrize("function", [percentile_scale, min_max, z_score])
def test_unrelated_channels_are_scaled_apart(function) -> None:
    image = np.concatenate([noise(1, 16, 16), 1000 * noise(1, 16, 16, seed=1)])
    apart = function(image, per_channel=True)
    np.testing.assert_array_equal(apart[1:], function(image[1:]))
    assert apart[0].std() > 0.2
    assert function(image)[0].std() < 0.02  # together, the channels keep their proportion


def test_z_score_has_mean_0_and_standard_deviation_1() -> None:
    result = z_score(40000 + 5 * noise(1, 64, 64))
    assert result.mean() == pytest.approx(0, abs=1e-5)
    assert result.std() == pytest.approx(1, abs=1e-5)


def test_window_by_hand() -> None:
    hounsfield = np.array([[[-2000, -1000, -300, 400, 3000]]], np.float32)
    np.testing.assert_allclose(window(hounsfield, *WINDOWS["lung"]), [[[0, 0, 0.5, 1, 1]]])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("lung", -1000, 400), ("soft", -160, 240), ("bone", -500, 1300), ("brain", 0, 80)],
)
def test_presets_cover_the_stated_range(name: str, low: float, high: float) -> None:
    center, width = WINDOWS[name]
    assert (center - width / 2, center + width / 2) == (low, high)


def test_a_window_needs_a_width() -> None:
    with pytest.raises(MedtlError, match="a window 0 wide"):
        window(RAMP, 40, 0)


def plain_local_contrast(plane: np.ndarray, sigma: float, side: int) -> np.ndarray:
    """Jarrett 2009 written with a full 2D kernel: the oracle."""
    offsets = np.arange(side) - side // 2
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    half = side // 2

    def blur(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, half, mode="reflect")
        patches = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
        return np.einsum("ijkl,kl->ij", patches, kernel)

    v = plane - blur(plane)
    s = np.sqrt(blur(v**2))
    return v / np.maximum(s.mean(), s)


def test_local_contrast_equals_the_formula() -> None:
    image = noise(1, 40, 50)
    expected = plain_local_contrast(image[0].astype(np.float64), 2.0, 9)
    np.testing.assert_allclose(local_contrast(image)[0], expected, atol=1e-4)
    wider = plain_local_contrast(image[0].astype(np.float64), 1.5, 5)
    np.testing.assert_allclose(local_contrast(image, sigma=1.5, kernel=5)[0], wider, atol=1e-4)


def test_local_contrast_ignores_gain_and_offset() -> None:
    image = noise(1, 48, 48)
    changed = local_contrast(3 * image + 1000)
    assert np.abs(changed - local_contrast(image)).max() < 2e-3


@pytest.mark.parametrize("shape", [(1, 96, 96), (1, 24, 24, 24)])
def test_local_contrast_has_local_mean_0_and_variance_1(shape: tuple[int, ...]) -> None:
    gain = np.linspace(1, 5, shape[1]).reshape(1, -1, *(1,) * (len(shape) - 2))
    result = local_contrast(gain * noise(*shape))
    inner = result[:, *(slice(6, -6),) * (len(shape) - 1)]
    assert abs(inner.mean()) < 0.05
    assert 0.7 < inner.var() <= 1.1


def test_local_contrast_of_colour_uses_the_mean_of_the_channels() -> None:
    grey = noise(1, 30, 30)
    np.testing.assert_allclose(
        local_contrast(np.repeat(grey, 3, axis=0)),
        np.repeat(local_contrast(grey), 3, axis=0),
        atol=1e-5,
    )


@pytest.mark.parametrize(("sigma", "kernel"), [(0.0, None), (1.0, 4), (1.0, -1)])
def test_local_contrast_refuses_odd_sizes(sigma: float, kernel: int | None) -> None:
    with pytest.raises(MedtlError, match="kernel odd"):
        local_contrast(RAMP, sigma=sigma, kernel=kernel)


def test_clahe_agrees_with_opencv_on_8_bits() -> None:
    # Large tiles: OpenCV counts in whole pixels and gives the remainder to the darkest bins.
    smooth = cv2.GaussianBlur(noise(512, 768), (0, 0), 12)
    grey = np.round(255 * min_max(smooth[None])[0]).astype(np.uint8)
    expected = cv2.createCLAHE(2.0, (3, 3)).apply(grey) / 255
    found = clahe((grey[None] + np.float32(0.5)) / 256, 2.0, 3)[0]
    # OpenCV takes the upper edge of a bin, this one its middle: half a bin of 3/256, and rounds.
    assert np.abs(found - expected).max() < 3 / 256 + 1 / 255
    assert np.abs(found - grey / 255).max() > 0.1


def test_clahe_keeps_every_grey_level() -> None:
    image = noise(1, 128, 128)
    assert len(np.unique(clahe(image))) > 0.95 * len(np.unique(image))


def test_clahe_is_monotone_within_a_tile_and_keeps_the_ends() -> None:
    image = noise(1, 64, 64) ** 3
    image[0, 0, :2] = [0, 1]
    order = np.argsort(image.ravel())
    result = clahe(image, 3.0, 1).ravel()[order]
    assert (np.diff(result) >= 0).all()
    assert result[0] == 0
    assert result[-1] == pytest.approx(1)


def test_clahe_raises_low_contrast_but_never_beyond_its_limit() -> None:
    image = 0.45 + 0.1 * noise(1, 64, 64)
    assert clahe(image, 2.0, 1).std() > 1.5 * image.std()
    assert np.ptp(clahe(image, 2.0, 1)) <= 3.0 * np.ptp(image) + 1e-5


@pytest.mark.parametrize("shape", [(1, 9, 9), (1, 17, 31), (1, 8, 200)])
def test_clahe_takes_sizes_that_tiles_do_not_divide(shape: tuple[int, ...]) -> None:
    result = clahe(noise(*shape))
    assert result.shape == shape
    assert result.min() >= 0
    assert result.max() <= 1


def test_clahe_of_a_grey_picture_in_three_channels_stays_grey() -> None:
    grey = noise(1, 40, 40)
    colour = clahe(np.repeat(grey, 3, axis=0))
    np.testing.assert_allclose(colour[0], colour[2], atol=1e-6)
    np.testing.assert_allclose(colour[0], clahe(grey)[0], atol=1e-3)


def test_clahe_takes_other_channels_one_by_one() -> None:
    image = noise(2, 24, 24)
    np.testing.assert_array_equal(clahe(image)[1:], clahe(image[1:]))


@pytest.mark.parametrize(
    "image",
    [2 * noise(1, 16, 16), np.full((1, 16, 16), np.nan, np.float32), noise(1, 16, 16, 16)],
)
def test_clahe_refuses_what_is_not_a_plane_in_0_1(image: np.ndarray) -> None:
    with pytest.raises(MedtlError, match="CLAHE was given"):
        clahe(image)


@pytest.mark.parametrize(("limit", "tiles"), [(0.0, 8), (2.0, 0), (2.0, 17)])
def test_clahe_refuses_odd_limits_and_tiles(limit: float, tiles: int) -> None:
    with pytest.raises(MedtlError, match="1 to 16 tiles"):
        clahe(noise(1, 16, 16), limit, tiles)


@pytest.mark.parametrize("function", [percentile_scale, min_max, z_score, local_contrast, clahe])
def test_the_input_is_left_alone(function) -> None:
    image = noise(1, 32, 32)
    before = image.copy()
    result = function(image)
    assert not np.shares_memory(result, image)
    np.testing.assert_array_equal(image, before)


def _brightening(shape: tuple[int, int, int], axis: int) -> np.ndarray:
    """A volume whose values rise along one axis, with noise: no slice is like another."""
    place = np.arange(shape[axis], dtype=np.float32).reshape(
        [-1 if a == axis else 1 for a in range(3)]
    )
    noise = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    return (10 * place + noise)[None]


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((512, 512, 40), 2),  # NIfTI: the slices are the last axis
        ((256, 256, 64), 2),
        ((128, 512, 512), 0),  # a DICOM series: the slices are the first
        ((128, 256, 256), 2),
        ((37, 512, 512), 1),
    ],
)
def test_percentiles_of_a_volume_see_every_slice(shape: tuple[int, int, int], axis: int) -> None:
    volume = _brightening(shape, axis)
    bottom, top = intensity._percentiles(volume.ravel(), 0.5, 99.5)
    exact = np.percentile(volume, (0.5, 99.5))
    span = np.ptp(volume)
    assert abs(bottom - exact[0]) < 1e-3 * span
    assert abs(top - exact[1]) < 1e-3 * span


def test_a_step_of_the_number_of_slices_sees_one_slice() -> None:
    """The control: so it was until a step had to have no divisor in common with the size."""
    volume = _brightening((512, 512, 40), 2).ravel()
    wrong = np.percentile(volume[:: volume.size // intensity.PERCENTILE_SAMPLE], 99.5)
    assert wrong < 0.1 * np.percentile(volume, 99.5)
