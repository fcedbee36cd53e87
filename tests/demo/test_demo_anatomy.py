"""The phantom's shapes: sides, sizes and findings where they are said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtl.demo.anatomy import (
    AP_MAGNIFICATION,
    LEFT,
    RIGHT,
    SHALLOW_BREATH,
    Anatomy,
    Effusion,
    Nodule,
    Pose,
    air_depth,
    chest_wall,
    chord,
    costophrenic_angle,
    distance_into_lung,
    fluid,
    heart_depth,
    ramp,
    sample_anatomy,
    sample_nodule,
)
from medtl.demo.film import Exposure, attenuation, expose, sample_exposure, texture
from medtl.demo.lines import grid, side_marker

SHAPE = (300, 250)
UPRIGHT = Pose("PA", 0.0, 1.0, (0.0, 0.0), 0.0)
SHARP = Exposure(1e7, 0.0, 0.001, 0.0, 0.7, (0.0, 0.0, 0.0, 0.0), "L")


@pytest.fixture
def anatomy() -> Anatomy:
    return sample_anatomy(np.random.default_rng(1), cardiothoracic_ratio=0.45)


def chest(anatomy: Anatomy, pose: Pose = UPRIGHT, **findings: object) -> np.ndarray:
    flat = np.zeros(SHAPE, np.float32)
    return attenuation(anatomy, pose, grid(pose, SHAPE), texture=flat, **findings)


def extent(x: np.ndarray, inside: np.ndarray) -> float:
    return float(x[inside].max() - x[inside].min())


def test_chord_and_ramp_by_hand() -> None:
    np.testing.assert_allclose(chord(np.array([0.0, 0.6, 1.0, 2.0])), [1.0, 0.8, 0.0, 0.0])
    np.testing.assert_allclose(
        ramp(np.array([-2.0, -1.0, 0.0, 0.5, 1.0]), 2.0), [0, 0, 0.5, 0.75, 1]
    )


def test_grid_of_the_upright_pose_is_centred() -> None:
    x, y, to_pixels = grid(UPRIGHT, (4, 2))
    np.testing.assert_allclose(x[0], [-0.25, 0.25])
    np.testing.assert_allclose(y[:, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(to_pixels @ [0.25, -0.75, 1], [1, 0])


def test_grid_and_its_way_back_agree_in_any_pose() -> None:
    x, y, to_pixels = grid(Pose("PA", 0.3, 0.8, (0.1, -0.2), 0.0), SHAPE)
    row, column = 40, 70
    back = to_pixels @ [x[row, column], y[row, column], 1]
    np.testing.assert_allclose(back, [column, row], atol=1e-3)


def test_positive_rotation_turns_clockwise() -> None:
    _, _, to_pixels = grid(Pose("PA", 0.2, 1.0, (0.0, 0.0), 0.0), SHAPE)
    middle, right = to_pixels @ [0, 0, 1], to_pixels @ [0.3, 0, 1]
    assert right[1] > middle[1]  # the right end sinks


@pytest.mark.parametrize("ratio", [0.4, 0.5, 0.62])
def test_heart_has_the_stated_cardiothoracic_ratio(anatomy: Anatomy, ratio: float) -> None:
    anatomy = replace(anatomy, cardiothoracic_ratio=ratio)
    x, y, _ = grid(UPRIGHT, (1000, 1000))
    heart = extent(x, heart_depth(anatomy, UPRIGHT, x, y) > 0)
    lungs = np.maximum(
        *(distance_into_lung(anatomy, UPRIGHT, side, x, y) for side in (RIGHT, LEFT))
    )
    assert heart / (2 * anatomy.thorax) == pytest.approx(ratio, abs=0.005)
    assert extent(x, lungs > 0) == pytest.approx(2 * anatomy.thorax, abs=0.005)


def test_heart_is_magnified_at_the_bedside(anatomy: Anatomy) -> None:
    x, y, _ = grid(UPRIGHT, (1000, 1000))
    widths = [
        extent(x, heart_depth(anatomy, replace(UPRIGHT, view=view), x, y) > 0)
        for view in ("PA", "AP")
    ]
    assert widths[1] / widths[0] == pytest.approx(AP_MAGNIFICATION, abs=0.01)


def test_heart_lies_on_the_patients_left_which_is_the_images_right(anatomy: Anatomy) -> None:
    x, y, _ = grid(UPRIGHT, SHAPE)
    depth = heart_depth(anatomy, UPRIGHT, x, y)
    assert (depth * x).sum() / depth.sum() > 0.03
    seen = chest(anatomy)
    rows = slice(170, 190)  # just above the diaphragm
    assert seen[rows, 145:165].mean() > seen[rows, 85:105].mean() + 0.3


def test_right_lung_is_larger_in_spite_of_its_higher_dome(anatomy: Anatomy) -> None:
    x, y, _ = grid(UPRIGHT, SHAPE)
    heart = heart_depth(anatomy, UPRIGHT, x, y)
    right, left = (
        (air_depth(anatomy, UPRIGHT, side, x, y) * (1 - heart)).sum() for side in (RIGHT, LEFT)
    )
    assert right > left
    assert costophrenic_angle(anatomy, UPRIGHT, RIGHT) < costophrenic_angle(anatomy, UPRIGHT, LEFT)


def test_a_deeper_breath_shows_more_lung(anatomy: Anatomy) -> None:
    x, y, _ = grid(UPRIGHT, SHAPE)
    shallow, deep = (
        air_depth(anatomy, replace(UPRIGHT, inspiration=down), RIGHT, x, y).sum()
        for down in (-0.03, 0.02)
    )
    assert deep > shallow


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_effusion_whitens_its_own_costophrenic_angle_only(anatomy: Anatomy, side: int) -> None:
    x, y, _ = grid(UPRIGHT, SHAPE)
    change = chest(anatomy, effusion=Effusion(side, 0.12)) - chest(anatomy)
    assert change.min() >= 0
    assert change[side * x > 0.2].max() > 0.5
    assert change[side * x < 0].max() == 0
    angle = costophrenic_angle(anatomy, UPRIGHT, side)
    assert change[y < angle - 0.16].max() == 0


def test_effusion_climbs_the_chest_wall(anatomy: Anatomy) -> None:
    y = np.full(2, costophrenic_angle(anatomy, UPRIGHT, LEFT) - 0.08, np.float32)
    x = np.array([0.15, anatomy.thorax - 0.01], np.float32)
    in_the_middle, at_the_wall = fluid(anatomy, UPRIGHT, Effusion(LEFT, 0.1), x, y)
    assert at_the_wall > in_the_middle


def test_nodule_is_round_and_as_wide_as_it_says(anatomy: Anatomy) -> None:
    x, _, _ = grid(UPRIGHT, SHAPE)
    nodule = Nodule(-0.2, 0.0, radius=0.03, density=1.0)
    change = chest(anatomy, nodule=nodule) - chest(anatomy)
    assert extent(x, change > 0.01) == pytest.approx(0.06, abs=0.008)
    assert change.max() == pytest.approx(1.0, abs=0.02)


def test_nodules_lie_in_the_lungs_of_every_breath() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        anatomy = sample_anatomy(rng, 0.45)
        nodule = sample_nodule(rng, anatomy)
        side = LEFT if nodule.x > 0 else RIGHT
        place = np.array(nodule.x), np.array(nodule.y)
        assert distance_into_lung(anatomy, SHALLOW_BREATH, side, *place) > 0.03
        assert 0.04 <= 2 * nodule.radius <= 0.085


def test_lungs_end_at_the_chest_wall(anatomy: Anatomy) -> None:
    y = np.array([0.0])
    wall = chest_wall(anatomy, y)
    for side in (RIGHT, LEFT):
        assert distance_into_lung(anatomy, UPRIGHT, side, side * (wall + 0.01), y) < 0
        assert distance_into_lung(anatomy, UPRIGHT, side, side * (wall - 0.01), y) > 0


def test_film_is_black_outside_and_whiter_where_less_gets_through(anatomy: Anatomy) -> None:
    film = expose(np.random.default_rng(0), chest(anatomy), SHARP)
    assert film.dtype == np.float32
    assert film.min() >= 0
    assert film.max() <= 1
    abdomen, lung, air = film[280, 110:140].mean(), film[140, 55:75].mean(), film[2:8, 5:40].mean()
    assert air < lung < abdomen - 0.3
    assert air < 0.05


def test_fewer_photons_are_noisier(anatomy: Anatomy) -> None:
    thickness = chest(anatomy)
    clean, noisy = (
        expose(np.random.default_rng(0), thickness, replace(SHARP, photons=photons))
        for photons in (1e8, 1e4)
    )
    assert np.abs(noisy - clean).mean() > 0.003


def test_shutters_are_black_and_the_letter_is_on_its_side(anatomy: Anatomy) -> None:
    exposure = replace(SHARP, shutters=(0.04, 0.0, 0.02, 0.1), marker="R")
    film = expose(np.random.default_rng(0), chest(anatomy), exposure)
    assert film[:, :10].max() == 0
    assert film[:5].max() == 0
    assert film[-25:].max() == 0
    assert film[:, -1].max() > 0
    for letter, columns in (("R", slice(0, 125)), ("L", slice(125, 250))):
        marker = side_marker(letter, SHAPE)
        assert marker[:, columns].max() == 1
        assert np.count_nonzero(marker) == np.count_nonzero(marker[:60, columns])


def test_texture_has_unit_variance_and_its_own_seed() -> None:
    first = texture(np.random.default_rng(0), (320, 320))
    assert first.std() == pytest.approx(0.9, abs=0.25)  # interpolation smooths the noise a little
    assert not np.array_equal(first, texture(np.random.default_rng(1), (320, 320)))


def test_bedside_images_have_more_scatter() -> None:
    for seed in range(20):
        bedside = sample_exposure(np.random.default_rng(seed), "AP")
        upright = sample_exposure(np.random.default_rng(seed), "PA")
        assert bedside.scatter > upright.scatter
        assert bedside.photons < upright.photons
