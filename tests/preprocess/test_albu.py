"""The door to albumentations: no surprise about which library stands behind it."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from medtl.errors import MedtlError
from medtl.preprocess import albu


@pytest.fixture
def _fresh():
    albu._albumentations.cache_clear()
    yield
    albu._albumentations.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_the_agpl_successor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(albu, "_distributions", lambda _: ["AlbumentationsX", "albumentations"])
    with pytest.raises(MedtlError, match="albumentationsx is installed; it is AGPL"):
        albu.apply_albumentations("hue", np.zeros((3, 8, 8), np.float32), 0.0, 0)


@pytest.mark.usefixtures("_fresh")
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(MedtlError, match="albumentations cannot be imported"):
        albu.apply_albumentations("hue", np.zeros((3, 8, 8), np.float32), 0.0, 0)


@pytest.mark.usefixtures("_fresh")
def test_the_package_index_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    albu._albumentations()
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_hue_turns_red_to_green() -> None:
    red = np.zeros((3, 8, 8), np.float32)
    red[0] = 1
    green = albu.apply_albumentations("hue", red, 1 / 3, 0)
    np.testing.assert_allclose(green[:, 0, 0], [0, 1, 0], atol=0.01)


def test_no_saturation_is_grey() -> None:
    image = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    grey = albu.apply_albumentations("saturation", image, 0.0, 0)
    assert np.ptp(grey, axis=0).max() < 1e-5
