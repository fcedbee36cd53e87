"""Corruptions: nothing at severity 0, worse with every severity, always the same."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.errors import MedtlError
from medtl.preprocess.safety import modality_names
from medtl.studies.stress.corruptions import corruptions_of

COLOUR = {"fundus", "derm", "histology"}


def film(channels=1, side=96):
    """Smooth shades with an edge and fine texture, off black and white."""
    rows, columns = np.mgrid[:side, :side] / side
    plane = 0.35 + 0.25 * np.sin(4 * columns) * np.cos(3 * rows) + 0.15 * (rows > 0.5)
    plane += 0.03 * np.random.default_rng(3).standard_normal((side, side))
    shades = [plane * factor for factor in (1.0, 0.9, 0.8)[:channels]]
    return np.clip(np.stack(shades), 0.02, 0.98).astype(np.float32)


def psnr(one, other):
    return -10 * np.log10(np.mean((one - other) ** 2))


CASES = [(m, c) for m in sorted(modality_names()) for c in corruptions_of(m)]


@pytest.mark.parametrize(("modality", "corruption"), CASES, ids=[f"{m}-{c.name}" for m, c in CASES])
def test_every_severity_is_worse_than_the_one_before(modality, corruption):
    unit = film(3 if modality in COLOUR else 1)
    assert corruption(unit, 0) is unit
    changed = [corruption(unit, severity) for severity in range(1, 6)]
    quality = [psnr(unit, one) for one in changed]
    assert quality == sorted(quality, reverse=True)
    assert quality[0] < 60
    assert quality[0] > quality[-1] + 1
    assert quality[-1] < 31  # an image that a radiographer would repeat
    for one in changed:
        assert one.shape == unit.shape
        assert one.dtype == np.float32
        assert 0 <= one.min() <= one.max() <= 1


@pytest.mark.parametrize("modality", sorted(modality_names()))
def test_every_modality_has_its_own(modality):
    names = {one.name for one in corruptions_of(modality)}
    assert {"blur", "low_resolution", "tilt"} <= names
    assert ("bias_field" in names) == (modality == "mr")
    assert ("hounsfield_shift" in names) == (modality == "ct")
    assert len(names) >= 5


def test_what_is_drawn_depends_on_the_image_alone():
    noise = next(one for one in corruptions_of("cxr") if one.name == "noise")
    unit, other = film(), film()[:, ::-1].copy()
    assert np.array_equal(noise(unit, 2), noise(unit.copy(), 2))
    drawn = [noise(image, 2) - image for image in (unit, other)]
    assert not np.allclose(drawn[0], drawn[1])


def test_a_volume_is_corrupted_slice_by_slice():
    noise = next(one for one in corruptions_of("ct") if one.name == "noise")
    volume = np.stack([film()[0]] * 3)[None]
    changed = noise(volume, 3) - volume
    assert changed.shape == (1, 3, 96, 96)
    assert not np.allclose(changed[0, 0], changed[0, 1])


def test_an_unknown_severity_is_refused():
    with pytest.raises(MedtlError, match="severity 6 of blur; expected 0 to 5"):
        next(one for one in corruptions_of("cxr") if one.name == "blur")(film(), 6)


def test_probes_keep_what_they_say():
    probes = {one.name: one for one in corruptions_of("cxr", "probe")}
    unit = film()
    shuffled = probes["patch_shuffle"](unit, 2)
    assert sorted(shuffled.ravel()) == sorted(unit.ravel())  # 96 is a multiple of 4
    assert not np.array_equal(shuffled, unit)
    assert set(np.unique(probes["silhouette"](unit, 1))) == {0.0, 1.0}
    low, high = probes["low_pass"](unit, 2), probes["high_pass"](unit, 3)
    np.testing.assert_allclose(low + high - 0.5, unit, atol=1e-6)  # both with sigma 2
    assert probes["edges"](np.full_like(unit, 0.5), 1).max() == 0
