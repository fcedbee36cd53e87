"""Clip, average, scale against its slow twin: scale at full size, then average."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.preprocess import intensity
from medtl.preprocess.geometry import fit_to, resize, resize_clipped
from medtl.preprocess.pipeline import Preprocessor
from medtl.types import Image

SHAPES = [(200, 160), (75, 190), (64, 50), (33, 500), (1000, 3), (64, 64)]


def film(rows: int, columns: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(rows)
    return rng.gamma(2.0, 400.0, (channels, rows, columns)).astype(np.float32) - 300


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_clipping_by_bands_is_clipping_then_averaging(shape, channels):
    image = film(*shape, channels)
    expected = resize(np.clip(image, 0, 900), (64, 50))
    np.testing.assert_allclose(resize_clipped(image, (64, 50), 0, 900), expected, atol=2e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scaling_after_averaging_is_scaling_before_it(shape):
    image = Image(film(*shape))
    ends = intensity.percentile_limits(image.array, 0.5, 99.5)
    slow = fit_to(intensity.ramp(image.array, *ends), (64, 64)).array
    np.testing.assert_allclose(Preprocessor(size=64).to_unit(image), slow, atol=2e-6)


def test_averaging_before_clipping_would_be_another_picture():
    """The negative control: why the clip stays at full size."""
    image = film(200, 160)
    shrunk = np.clip(resize(image, (64, 50)), 0, 900)
    assert np.abs(shrunk - resize_clipped(image, (64, 50), 0, 900)).max() > 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 77, 199])
def test_a_pixel_that_is_no_number_counts_as_the_smallest(bad, row):
    image = film(200, 160)
    repaired = image.copy()
    image[0, row, 5], repaired[0, row, 5] = bad, 0
    expected = resize(np.clip(repaired, 0, 900), (64, 50))
    np.testing.assert_allclose(resize_clipped(image, (64, 50), 0, 900), expected, atol=2e-3)


def test_finite_pixels_whose_sum_is_not_are_averaged_all_the_same():
    image = np.full((1, 200, 160), 3e38, dtype=np.float32)
    np.testing.assert_allclose(resize_clipped(image, (64, 50), 0, 7), 7, rtol=1e-6)


@pytest.mark.parametrize("ends", [(0.5, 99.5), (0, 100), (0, 99), (2, 100)], ids=str)
def test_percentiles_are_those_of_numpy(ends):
    image = film(90, 80)
    expected = np.percentile(image, ends)
    np.testing.assert_allclose(intensity.percentile_limits(image, *ends), expected, rtol=1e-5)
