"""The contact sheet: a PNG of originals and copies, written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl.errors import MedtlError
from medtl.preprocess.augment import augmenter
from medtl.preprocess.sheet import GAP_PX, LINE_PX, contact_sheet


def picture(channels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((channels, 64, 48), dtype=np.float32)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_originals_stand_beside_their_copies(tmp_path: Path) -> None:
    units = [("case 1", picture(1, 1)), ("case 2", picture(3, 2))]
    augment = augmenter("cxr", transforms={"rotate": {}, "gamma": {}}, probability=1)
    contact_sheet(units, tmp_path / "sheet.png", augment=augment, copies=3)
    sheet = read(tmp_path / "sheet.png")
    cell = (64 + 2 * LINE_PX + GAP_PX, 48 + GAP_PX)  # two transforms, two lines
    assert sheet.shape == (2 * cell[0] + GAP_PX, 4 * cell[1] + GAP_PX, 3)
    for row, (_, unit) in enumerate(units):
        top = GAP_PX + row * cell[0]
        original = sheet[top : top + 64, GAP_PX : GAP_PX + 48].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(original, np.broadcast_to(unit, (3, 64, 48)), atol=1 / 255)
        copy = sheet[top : top + 64, GAP_PX + cell[1] : GAP_PX + cell[1] + 48]
        assert np.abs(copy / 255 - original.transpose(1, 2, 0)).max() > 0.05
        caption = sheet[top + 64 : top + 64 + GAP_PX, LINE_PX : GAP_PX + 48]
        assert caption.min() < 100
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_the_same_seed_draws_the_same_sheet(tmp_path: Path) -> None:
    units = [("case 1", picture(1, 1))]
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        contact_sheet(units, tmp_path / name, augment=augmenter("cxr", probability=1), seed=seed)
    first, second, third = (read(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()


def test_without_a_policy_there_are_only_originals(tmp_path: Path) -> None:
    contact_sheet([("case 1", picture(1, 1))], tmp_path / "sheet.png")
    assert read(tmp_path / "sheet.png").shape[1] == 48 + 2 * GAP_PX


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedtlError, match="no image for the contact sheet"):
        contact_sheet([], tmp_path / "sheet.png")
    with pytest.raises(MedtlError, match=r"expected \(1 or 3, H, W\) with values in"):
        contact_sheet([("case 1", 3 * picture(1, 1))], tmp_path / "sheet.png")
    with pytest.raises(MedtlError, match="an array of shape"):
        contact_sheet([("case 1", picture(2, 1))], tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_of_a_volume_the_middle_axial_plane_is_drawn(tmp_path):
    volume = np.zeros((1, 20, 30, 7), dtype=np.float32)
    volume[0, 0, -1, 3] = 1  # left, anterior: the lower picture corner would be right, posterior
    contact_sheet([("v", volume)], tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    picture = sheet[8 : 8 + 30, 8 : 8 + 20]
    assert picture.max() == 255
    assert np.argwhere(picture == 255).tolist() == [[0, 19]]
