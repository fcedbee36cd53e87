"""Volumes: the table holds, masks follow, the history replays, directions and units are right."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.errors import MedtlError
from medtl.preprocess.augment import Step
from medtl.preprocess.augment_volume import (
    VOLUME_ONLY,
    VolumeAugmenter,
    forward_matrix,
    volume_augmenter,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

MM = (1.0, 1.0, 1.0)
GEOMETRIC = ("rotate", "translate", "scale", "elastic")
INTENSITY = ("brightness", "contrast", "gamma", "noise", "rician_noise", *VOLUME_ONLY)


def policy(**options: object) -> VolumeAugmenter:
    return volume_augmenter("mr", **{"spacing": MM, "probability": 1.0, **options})


def blob(center: tuple[int, int, int], shape: tuple[int, int, int] = (24, 28, 20)) -> np.ndarray:
    """A soft ball, `(1, *shape)` in [0, 1]."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    distance = np.linalg.norm(grid - np.reshape(center, (3, 1, 1, 1)), axis=0)
    return np.clip(1.5 - distance / 4, 0, 1)[None].astype(np.float32)


def middle(array: np.ndarray) -> np.ndarray:
    """Centre of mass."""
    return np.array([np.average(axis, weights=array) for axis in np.indices(array.shape)])


def test_the_default_policy_holds_safe_transforms_only_and_never_mirrors() -> None:
    used = {row.transform: row.level for row in policy().describe() if row.used}
    assert set(used.values()) == {"SAFE"}
    assert {"rotate", "scale", "gamma"} <= set(used)
    rng = np.random.default_rng(0)
    drawn = {step.name for _ in range(300) for step in policy().draw(rng)}
    assert not drawn & {"horizontal_flip", "vertical_flip", "quarter_turn"}


@pytest.mark.parametrize("modality", ["mr", "ct"])
def test_a_flip_is_refused_unless_the_user_knows(modality: str) -> None:
    with pytest.raises(MedtlError, match="swaps"):
        volume_augmenter(modality, spacing=MM, transforms={"horizontal_flip": {}})
    known = volume_augmenter(
        modality,
        spacing=MM,
        transforms={"horizontal_flip": {}},
        i_know=["horizontal_flip"],
        probability=1,
    )
    volume = blob((5, 14, 10))
    result = known(volume, np.random.default_rng(0), volume[0] > 0.5)
    assert np.array_equal(result.array, volume[:, ::-1])
    assert np.array_equal(result.mask, volume[0, ::-1] > 0.5)


@pytest.mark.parametrize("name", ["crop", "motion", "clahe"])
def test_what_volumes_do_not_have_is_refused_by_name(name: str) -> None:
    with pytest.raises(MedtlError, match=f"'{name}' is not made for volumes"):
        policy(transforms={name: {"clip_limit": [1, 2]} if name == "clahe" else {}}, i_know=[name])


def test_drawn_numbers_stay_within_the_table() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        for step in policy().draw(rng):
            if step.name == "rotate":
                assert set(step.parameters) == {"i", "j", "k"}
                assert all(abs(angle) <= 15 for angle in step.parameters.values())
            if step.name == "translate":
                assert all(abs(shift) <= 0.05 for shift in step.parameters.values())
            if step.name == "scale":
                assert 0.85 <= step.parameters["factor"] <= 1.15


def test_nothing_drawn_changes_nothing() -> None:
    volume = blob((12, 14, 10))
    never = policy(probability=0.0)
    result = never(volume, np.random.default_rng(0), volume[0] > 0.5)
    assert result.history == ()
    assert np.array_equal(result.array, volume)


def test_an_identity_map_keeps_every_voxel() -> None:
    volume = blob((9, 17, 8))
    labels = np.random.default_rng(0).integers(0, 3, volume.shape[1:]).astype(np.uint8)
    result = policy().apply(volume, [Step("scale", {"factor": 1.0})], labels)
    np.testing.assert_allclose(result.array, volume, atol=1e-5)
    assert np.array_equal(result.mask, labels)
    assert result.mask.dtype == np.uint8


def test_a_shift_moves_by_its_fraction_of_the_volume() -> None:
    volume = blob((12, 14, 10))
    step = Step("translate", {"i": 2 / 24, "j": -3 / 28, "k": 0.1})
    result = policy().apply(volume, [step], (volume[0] > 0.5).astype(np.uint8))
    np.testing.assert_allclose(middle(result.array[0]) - middle(volume[0]), (2, -3, 2), atol=0.02)
    np.testing.assert_allclose(middle(result.mask), (14, 11, 12), atol=0.02)


def test_a_quarter_turn_about_the_third_axis_takes_the_first_to_the_second() -> None:
    volume = blob((16, 12, 10), (25, 25, 21))
    result = policy().apply(volume, [Step("rotate", {"k": 90.0})])
    np.testing.assert_allclose(middle(result.array[0]), (12, 16, 10), atol=0.05)


def test_thick_slices_are_rotated_in_millimetres() -> None:
    """8 mm along the first axis are 2 voxels of 4 mm along the third."""
    thick = volume_augmenter("mr", spacing=(1.0, 1.0, 4.0))
    matrix = forward_matrix({"rotate": {"j": 90.0}}, (20, 20, 20), thick.spacing)
    np.testing.assert_allclose(np.abs(matrix[:3, :3] @ (8, 0, 0)), (0, 0, 2), atol=1e-9)
    mm = np.diag(thick.spacing)
    turn = mm @ matrix[:3, :3] @ np.linalg.inv(mm)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)


def test_scale_enlarges() -> None:
    volume = blob((12, 14, 10))
    result = policy().apply(volume, [Step("scale", {"factor": 1.15})])
    assert result.array.sum() == pytest.approx(volume.sum() * 1.15**3, rel=0.02)


@pytest.mark.parametrize("name", [*GEOMETRIC, *INTENSITY])
def test_every_transform_keeps_the_contract_and_replays(name: str) -> None:
    asked = {"elastic": {"amplitude": [0.02, 0.02]}}.get(name, {})
    augment = policy(transforms={name: asked})
    volume = 0.1 + 0.8 * np.kron(blob((11, 15, 9)), np.ones((1, 2, 2, 2), np.float32))
    labels = np.random.default_rng(0).integers(0, 3, volume.shape[1:]).astype(np.uint8)
    result = augment(volume, np.random.default_rng(2), labels)
    assert [step.name for step in result.history] == [name]
    assert result.array.dtype == np.float32
    assert result.array.shape == volume.shape
    assert 0 <= result.array.min() <= result.array.max() <= 1
    assert not np.array_equal(result.array, volume)
    assert set(np.unique(result.mask)) <= {0, 1, 2}
    again = augment.apply(volume, result.history, labels)
    assert np.array_equal(again.array, result.array)
    assert np.array_equal(again.mask, result.mask)
    assert np.array_equal(result.mask, labels) == (name in INTENSITY)


def test_the_mask_follows_the_image() -> None:
    augment = policy(transforms={name: {} for name in GEOMETRIC})
    volume = np.kron(blob((12, 14, 10)), np.ones((1, 2, 2, 2), np.float32))
    for seed in range(5):
        result = augment(volume, np.random.default_rng(seed), (volume[0] > 0.5).astype(np.uint8))
        moved = result.array[0] > 0.5
        assert 2 * (moved & (result.mask == 1)).sum() / (moved.sum() + result.mask.sum()) > 0.93


def test_elastic_moves_by_about_the_amplitude_and_no_further() -> None:
    shape = (40, 40, 40)
    ramp = np.broadcast_to(np.linspace(0, 1, 40)[:, None, None], shape)[None].astype(np.float32)
    shifts = []
    for seed in range(4):
        step = Step("elastic", {"amplitude": 0.02, "seed": seed})
        moved = policy().apply(ramp, [step]).array
        shifts.append(np.abs(moved - ramp).max())
    assert 0.004 < min(shifts) < max(shifts) < 0.0201


def test_overlapping_masks_are_moved_plane_by_plane() -> None:
    volume = blob((12, 14, 10))
    planes = np.stack([volume[0] > 0.5, volume[0] > 0.9]).astype(np.uint8)
    step = Step("translate", {"i": 2 / 24, "j": 0.0, "k": 0.0})
    moved = policy().apply(volume, [step], planes).mask
    assert moved.shape == planes.shape
    assert np.array_equal(moved[:, 2:], planes[:, :-2])


def test_wrong_input_is_named() -> None:
    volume = blob((12, 14, 10))
    with pytest.raises(MedtlError, match="one volume"):
        policy()(volume[0], np.random.default_rng(0))
    with pytest.raises(MedtlError, match="from 0 to 2"):
        policy()(volume * 2, np.random.default_rng(0))
    with pytest.raises(MedtlError, match="a mask of shape"):
        policy()(volume, np.random.default_rng(0), volume[0, :-1])
