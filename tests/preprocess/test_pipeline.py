"""The intensity contract: what the network sees, and that a checkpoint cannot be misread."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medtl.errors import ImageError, MedtlError, WeightsError
from medtl.preprocess.pipeline import Preprocessor
from medtl.types import Image


def film(*shape: int, seed: int = 0) -> Image:
    array = np.random.default_rng(seed).random(shape, dtype=np.float32) * 4095
    return Image(array=array)


def units(preprocessor: Preprocessor, count: int = 6) -> list[np.ndarray]:
    return [preprocessor.to_unit(film(1, 60, 50, seed=seed)) for seed in range(count)]


def test_a_film_becomes_what_imagenet_weights_expect() -> None:
    preprocessor = Preprocessor(size=32)
    unit = preprocessor.to_unit(film(1, 60, 60))
    assert unit.shape == preprocessor.unit_shape == (1, 32, 32)
    assert unit.dtype == np.float32
    assert 0 <= unit.min() < unit.max() <= 1
    ready = preprocessor.standardise(unit)
    assert ready.shape == (3, 32, 32)
    assert ready.dtype == np.float32
    for channel, (mean, std) in enumerate(zip(preprocessor.mean, preprocessor.std, strict=True)):
        np.testing.assert_allclose(ready[channel], (unit[0] - mean) / std, rtol=1e-5, atol=1e-6)


def test_torchxrayvision_weights_get_their_range() -> None:
    preprocessor = Preprocessor(
        size=8, channels=1, mean=(0.0,), std=(1.0,), input_range=(-1024, 1024)
    )
    unit = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    ready = preprocessor.standardise(unit)
    assert (ready.min(), ready.max()) == (-1024, 1024)


def test_scaling_comes_before_averaging_so_metal_does_not_bleed() -> None:
    array = np.zeros((1, 64, 64), np.float32)
    array[0, 0, 0] = 30000.0  # metal
    preprocessor = Preprocessor(size=32, scale="window", window=(50.0, 100.0))
    assert preprocessor.to_unit(Image(array=array))[0, 0, 0] == pytest.approx(0.25)


def test_padding_is_black_and_spacing_counts() -> None:
    image = Image(array=film(1, 40, 80).array + 100, spacing=(2.0, 0.5))
    unit = Preprocessor(size=40).to_unit(image)
    assert not unit[:, :, :10].any()
    assert unit[:, :, 10:30].mean() > 0.3
    assert not unit[:, :, 30:].any()


def test_percentiles_can_leave_out_the_zeros_around_a_head() -> None:
    array = np.zeros((1, 64, 64), np.float32)
    array[0, 24:40, 24:40] = np.linspace(100, 200, 256).reshape(16, 16)
    outside = Preprocessor(size=64, nonzero=True).to_unit(Image(array=array))
    assert 0.4 < outside[0, 24:40, 24:40].mean() < 0.6
    assert Preprocessor(size=64).to_unit(Image(array=array))[0, 24:40, 24:40].mean() > 0.7
    assert not Preprocessor(size=8, nonzero=True).to_unit(Image(array=0 * array)).any()


@pytest.mark.parametrize(("nonzero", "low"), [(True, 100.0), (False, 0.0)])
def test_neither_padding_nor_zeros_count_where_zeros_are_left_out(
    nonzero: bool, low: float
) -> None:
    """The range is that of pixels that are both real and, if asked for, not 0."""
    array = np.array([[[-3000, -3000, 0, 0], [100, 120, 180, 200]]], np.float32)
    image = Image(array=array, header={"padding_value": "-3000.0"})
    scaled = Preprocessor(size=(2, 4), scale="min_max", nonzero=nonzero).to_unit(image)
    expected = np.clip((array - low) / (200 - low), 0, 1)
    np.testing.assert_allclose(scaled, expected, atol=1e-6)


def test_colour_and_grey_are_made_to_order() -> None:
    rgb = film(3, 16, 16)
    assert Preprocessor(size=16, color="rgb").to_unit(rgb).shape == (3, 16, 16)
    grey = Preprocessor(size=16).to_unit(rgb)
    luminance = np.tensordot([0.299, 0.587, 0.114], rgb.array, 1)
    assert np.corrcoef(grey[0].ravel(), luminance.ravel())[0, 1] > 0.999
    three = Preprocessor(size=16, color="rgb").to_unit(film(1, 16, 16))
    np.testing.assert_array_equal(three[0], three[2])


def test_clahe_is_applied_on_the_grid() -> None:
    image = film(1, 64, 64)
    plain = Preprocessor(size=64).to_unit(image)
    equalised = Preprocessor(size=64, clahe=(2.0, 4)).to_unit(image)
    assert np.abs(plain - equalised).max() > 0.01
    assert len(np.unique(equalised)) > 3000


@pytest.mark.parametrize("standardisation", ["weights", "z_score", "local_contrast", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_standardisation_gives_the_stem_its_channels(standardisation, channels) -> None:
    preprocessor = Preprocessor(
        size=24, channels=channels, standardisation=standardisation, mean=(0.5,), std=(0.5,)
    )
    unit = preprocessor.to_unit(film(1, 24, 24))
    before = unit.copy()
    ready = preprocessor.standardise(unit)
    assert ready.shape == (channels, 24, 24)
    assert ready.dtype == np.float32
    assert not np.shares_memory(ready, unit)
    np.testing.assert_array_equal(unit, before)
    if standardisation == "z_score":
        assert ready.mean() == pytest.approx(0, abs=1e-5)
        assert ready.std() == pytest.approx(1, abs=1e-5)


def test_the_mean_of_the_transformed_training_split_is_zero() -> None:
    preprocessor = Preprocessor(size=32, channels=1, mean=(0,), std=(1,))
    preprocessor = Preprocessor.from_dict(
        {**preprocessor.to_dict(), "standardisation": "pixel_mean"}
    )
    train = units(preprocessor)
    fitted = preprocessor.fit(iter(train))
    transformed = np.stack([fitted.standardise(unit) for unit in train])
    np.testing.assert_allclose(transformed.mean(axis=0), 0, atol=1e-6)
    other = preprocessor.to_unit(film(1, 60, 50, seed=99))
    np.testing.assert_allclose(fitted.standardise(other), other - np.mean(train, axis=0), atol=1e-6)


def test_a_mean_image_needs_fitting_images_and_the_same_shape() -> None:
    preprocessor = Preprocessor(size=32, standardisation="pixel_mean")
    train = units(preprocessor)
    with pytest.raises(MedtlError, match="has not been fitted"):
        preprocessor.standardise(train[0])
    with pytest.raises(MedtlError, match="no training image"):
        preprocessor.fit([])
    with pytest.raises(MedtlError, match=r"shape \(1, 16, 16\); expected \(1, 32, 32\)"):
        preprocessor.fit([train[0][:, :16, :16]])
    with pytest.raises(MedtlError, match=r"expected \(1, 32, 32\), that of the mean image"):
        preprocessor.fit(train).standardise(np.zeros((1, 16, 16), np.float32))


def test_other_standardisations_have_nothing_to_fit() -> None:
    preprocessor = Preprocessor()
    assert preprocessor.fit([]) is preprocessor


def test_masks_follow_their_image_and_come_back() -> None:
    image = film(1, 50, 80)
    mask = np.zeros((50, 80), np.uint8)
    mask[10:30, 20:60] = 2
    preprocessor = Preprocessor(size=40)
    there = preprocessor.mask_to_unit(mask, image)
    assert there.shape == (40, 40)
    assert set(np.unique(there)) == {0, 2}
    is_two = (there == 2)[None].astype(np.float32)
    back = preprocessor.from_unit(is_two, preprocessor.grid(image))[0] > 0.5
    assert (back == (mask == 2)).mean() > 0.95


def test_volumes_go_the_same_way() -> None:
    preprocessor = Preprocessor(size=(16, 16, 8), channels=1, mean=(0.5,), std=(0.5,))
    unit = preprocessor.to_unit(film(1, 20, 20, 10))
    assert unit.shape == preprocessor.unit_shape == (1, 16, 16, 8)
    assert preprocessor.standardise(unit).shape == (1, 16, 16, 8)


def test_a_contract_survives_json() -> None:
    preprocessor = Preprocessor(
        size=(48, 32), scale="window", window=(-300, 1400), clahe=(2.0, 8), interpolation="bicubic"
    )
    again = Preprocessor.from_dict(json.loads(json.dumps(preprocessor.to_dict())))
    assert again.to_dict() == preprocessor.to_dict()
    image = film(1, 48, 32)
    np.testing.assert_array_equal(again.to_unit(image), preprocessor.to_unit(image))


def test_a_mean_image_is_checked_by_its_hash() -> None:
    fitted = Preprocessor(size=32, standardisation="pixel_mean")
    fitted = fitted.fit(units(fitted))
    values = json.loads(json.dumps(fitted.to_dict()))
    again = Preprocessor.from_dict(values, fitted.pixel_mean)
    np.testing.assert_array_equal(again.pixel_mean, fitted.pixel_mean)
    for wrong in (None, fitted.pixel_mean + 1e-3, fitted.pixel_mean.reshape(1, 16, 64)):
        with pytest.raises(WeightsError, match="mean image is not the one"):
            Preprocessor.from_dict(values, wrong)


def test_a_checkpoint_of_another_version_is_refused() -> None:
    values = Preprocessor().to_dict()
    with pytest.raises(WeightsError, match="missing or unknown: contrast"):
        Preprocessor.from_dict({**values, "contrast": 1})
    del values["std"]
    with pytest.raises(WeightsError, match="missing or unknown: std"):
        Preprocessor.from_dict(values)


def test_equal_contracts_do_not_mismatch() -> None:
    preprocessor = Preprocessor(mean=(0.5,), std=(0.5,))
    preprocessor.require_contract(preprocessor.to_dict())
    preprocessor.require_contract(Preprocessor(size=(224, 224), mean=(0.5,), std=(0.5,)).to_dict())
    preprocessor.require_contract({"mean": (0.5, 0.5, 0.5), "std": [0.5 + 1e-9] * 3})


def test_every_difference_is_named() -> None:
    preprocessor = Preprocessor()
    with pytest.raises(WeightsError, match=r"^best\.safetensors: mean is .*; size is \[224, 224\]"):
        preprocessor.require_contract(
            {"mean": [0.5, 0.5, 0.5], "size": [320, 320]}, where="best.safetensors"
        )
    assert len(preprocessor.contract_mismatch({"input_range": (-1, 1), "channels": 1})) == 2
    assert preprocessor.contract_mismatch({"gamma": 2}) == ["unknown key 'gamma'"]
    assert preprocessor.contract_mismatch({"clahe": [2.0, 8]})
    fitted = Preprocessor(size=32, standardisation="pixel_mean")
    assert fitted.contract_mismatch(fitted.fit(units(fitted)).to_dict())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": "window"}, "scale 'window' with window None"),
        ({"window": (40, 80)}, "scale 'percentile' with window"),
        ({"color": "rgb", "channels": 1, "mean": (0,), "std": (1,)}, "colour images into a stem"),
        ({"mean": (0.5, 0.5)}, "expected one value for all channels or one each"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"input_range": (1, 0)}, "low below high"),
    ],
)
def test_contradictions_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(MedtlError, match=message):
        Preprocessor(**fields)


def test_images_of_other_axes_or_channels_are_refused() -> None:
    with pytest.raises(ImageError, match="an image of 3 dimensions; expected 2"):
        Preprocessor().to_unit(film(1, 8, 8, 8))
    with pytest.raises(ImageError, match="an image of 2 channels; expected 1 or 3"):
        Preprocessor().to_unit(film(2, 8, 8))


def test_padding_does_not_count_in_percentiles() -> None:
    """Half of the film is padding, one step below the darkest real pixel."""
    array = np.full((1, 20, 20), 99.0, dtype=np.float32)
    array[:, :, 10:] = np.linspace(100, 200, 10, dtype=np.float32)
    padded = Image(array, header={"padding_value": "99.0"})
    alone = Image(array[:, :, 10:].repeat(2, axis=2))
    preprocessor = Preprocessor(size=20, percentiles=(5.0, 95.0))
    unit, reference = preprocessor.to_unit(padded), preprocessor.to_unit(alone)
    assert unit[0, :, 10:] == pytest.approx(reference[0, :, ::2], abs=1e-6)
    assert unit[0, :, :10].max() == 0
    counted = preprocessor.to_unit(Image(array))
    assert counted[0, :, 10:] != pytest.approx(reference[0, :, ::2], abs=1e-3)
