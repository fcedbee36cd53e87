"""Augmentation: safe by default, refused when not, reproducible, and true to its contract."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from medtl.errors import MedtlError
from medtl.preprocess.augment import Augmenter, Step, augmenter
from medtl.preprocess.photometric import PHOTOMETRIC, apply_photometric
from medtl.preprocess.policy import policy_faults
from medtl.preprocess.safety import (
    kind_of,
    modality_names,
    parameter_of,
    possible_of,
    safety,
    transform_names,
)
from medtl.preprocess.warp import linear_part, warp_coordinates

SIZE = 64


def picture(channels: int = 1, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((channels, size, size), dtype=np.float32)


def chest(size: int = SIZE) -> np.ndarray:
    """Two lungs and a heart that lies to the right of the picture, the patient's left."""
    y, x = np.mgrid[:size, :size] / size
    body = np.full((size, size), 0.6)
    for center in (0.3, 0.7):
        body[((x - center) / 0.15) ** 2 + ((y - 0.5) / 0.3) ** 2 < 1] = 0.15
    body[((x - 0.66) / 0.14) ** 2 + ((y - 0.6) / 0.16) ** 2 < 1] = 0.9
    return body[None].astype(np.float32)


def is_mirrored(image: np.ndarray) -> bool:
    """Whether the heart, the brightest part, lies in the left half of the picture."""
    columns = np.nonzero(image[0] >= np.percentile(image, 95))[1]
    return bool(columns.mean() < (SIZE - 1) / 2)


def test_a_chest_is_never_mirrored() -> None:
    phantom, rng = chest(), np.random.default_rng(0)
    augment = augmenter("cxr", probability=1.0)
    assert not any(is_mirrored(augment(phantom, rng).array) for _ in range(1000))


def test_the_phantom_would_show_a_mirrored_chest() -> None:
    phantom, rng = chest(), np.random.default_rng(0)
    augment = augmenter("cxr", transforms={"horizontal_flip": {}}, i_know=["horizontal_flip"])
    count = sum(is_mirrored(augment(phantom, rng).array) for _ in range(200))
    assert 70 < count < 130


def lesion_kept(augment: Augmenter, rng: np.random.Generator, row: float, column: float) -> bool:
    """Whether at least 90 % of a lesion of 5 % diameter is still in the picture."""
    size = 128
    y, x = np.mgrid[:size, :size] + 0.5
    lesion = (y - row * size) ** 2 + (x - column * size) ** 2 <= (0.025 * size) ** 2
    steps = [s for s in augment.draw(rng, (size, size)) if kind_of(s.name) == "geometric"]
    moved = augment.apply(lesion[None].astype(np.float32), steps).array
    factors = [s.parameters["factor"] for s in steps if s.name == "scale"]
    factors += [s.parameters["area"] ** -0.5 for s in steps if s.name == "crop"]
    return bool(moved.sum() >= 0.9 * np.prod(factors) ** 2 * lesion.sum())


def test_a_lesion_in_the_central_part_stays_in_a_chest() -> None:
    rng = np.random.default_rng(0)
    augment = augmenter("cxr", probability=1.0)
    places = rng.uniform(0.125, 0.875, (400, 2))
    places[:200] = rng.choice([0.125, 0.875], (200, 2))  # the corners are the hard places
    kept = [lesion_kept(augment, rng, *place) for place in places]
    assert np.mean(kept) >= 0.99


def test_a_lesion_is_lost_by_the_usual_random_crop() -> None:
    rng = np.random.default_rng(0)
    augment = augmenter(
        "cxr", transforms={"crop": {"area": [0.08, 1]}}, probability=1.0, i_know=["crop"]
    )
    kept = [lesion_kept(augment, rng, *place) for place in rng.uniform(0.125, 0.875, (100, 2))]
    assert np.mean(kept) < 0.9


@pytest.mark.parametrize("modality", modality_names())
def test_a_default_policy_holds_its_contract(modality: str) -> None:
    augment = augmenter(modality, probability=1.0)
    assert {safety(name, modality).level for name in augment.ranges} == {"SAFE"}
    rng, image = np.random.default_rng(0), picture(3)
    for _ in range(20):
        array, mask, history = augment(image, rng, image[0] > 0.5)
        assert array.dtype == np.float32
        assert array.shape == image.shape
        assert array.min() >= 0
        assert array.max() <= 1
        assert len(np.unique(array)) > 256
        assert mask.dtype == np.bool_
        assert history


@pytest.mark.parametrize("modality", modality_names())
def test_drawn_values_stay_within_the_table(modality: str) -> None:
    augment, rng = augmenter(modality, probability=1.0), np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        for step in augment.draw(rng, (SIZE, SIZE)):
            seen.add(step.name)
            limits = safety(step.name, modality).limits
            for name in {parameter_of(step.name), "rows", "columns"} & set(step.parameters):
                low, high = limits[parameter_of(step.name)]
                assert low - 1e-9 <= step.parameters[name] <= high + 1e-9
    assert seen == set(augment.ranges)


def test_one_geometric_and_one_photometric_each_with_its_probability() -> None:
    augment, rng = augmenter("cxr"), np.random.default_rng(0)
    draws = [augment.draw(rng, (SIZE, SIZE)) for _ in range(1000)]
    warped = [any(kind_of(step.name) == "geometric" for step in steps) for steps in draws]
    photometric = [sum(kind_of(step.name) == "photometric" for step in steps) for steps in draws]
    assert max(photometric) == 1
    assert np.mean(warped) == pytest.approx(0.5, abs=0.05)
    assert np.mean(photometric) == pytest.approx(0.5, abs=0.05)
    assert np.mean([not steps for steps in draws]) == pytest.approx(0.25, abs=0.05)


def test_ratios_are_as_often_above_one_as_below() -> None:
    augment = augmenter("cxr", transforms={"gamma": {}}, probability=1.0)
    rng = np.random.default_rng(0)
    drawn = [augment.draw(rng, (8, 8))[0].parameters["exponent"] for _ in range(2000)]
    assert np.mean(np.array(drawn) > 1) == pytest.approx(0.5, abs=0.04)


def test_the_same_generator_gives_the_same_result_and_history_replays_it() -> None:
    augment, image = augmenter("histology", probability=1.0), picture(3)
    first = augment(image, np.random.default_rng(7), image[0] > 0.5)
    second = augment(image, np.random.default_rng(7), image[0] > 0.5)
    replayed = augment.apply(image, first.history, image[0] > 0.5)
    for other in (second, replayed):
        np.testing.assert_array_equal(first.array, other.array)
        np.testing.assert_array_equal(first.mask, other.mask)
        assert first.history == other.history
    assert augment(image, np.random.default_rng(8)).history != first.history


def test_a_policy_can_be_sent_to_another_process() -> None:
    augment = pickle.loads(pickle.dumps(augmenter("cxr")))
    assert augment.ranges == augmenter("cxr").ranges


def test_the_input_is_left_alone_and_nothing_is_shared() -> None:
    image = picture()
    before = image.copy()
    for name in ("cxr", "derm"):
        augment = augmenter(name, probability=0.5)
        rng = np.random.default_rng(0)
        for _ in range(10):
            assert not np.shares_memory(augment(image, rng).array, image)
    np.testing.assert_array_equal(image, before)


def test_an_empty_policy_changes_nothing() -> None:
    augment = augmenter("cxr", transforms={}, probability=1.0)
    array, mask, history = augment(picture(), np.random.default_rng(0))
    np.testing.assert_array_equal(array, picture())
    assert mask is None
    assert history == ()


MOVES = [name for name in transform_names() if kind_of(name) in {"orientation", "geometric"}]


@pytest.mark.parametrize("name", MOVES)
def test_mask_and_image_move_together(name: str) -> None:
    phantom = chest(128)
    asked = {parameter_of(name): list(possible_of(name))} if parameter_of(name) else {}
    if name in {"scale", "stretch", "crop", "translate"}:
        asked = {parameter_of(name): [0.5, 0.9]}
    augment = augmenter("derm", transforms={name: asked}, probability=1.0, i_know=[name])
    rng = np.random.default_rng(3)
    for _ in range(10):
        array, mask, history = augment(phantom, rng, phantom[0] > 0.75)
        assert [step.name for step in history] == [name]
        assert ((array[0] > 0.75) == mask).mean() > 0.97
        assert 0 < mask.sum() < mask.size


def test_geometry_by_hand() -> None:
    """A quarter of a turn, a shift by a quarter of the picture and a doubling, of one pixel."""
    image = np.zeros((1, 8, 8), np.float32)
    image[0, 1, 4] = 1.0
    augment = augmenter("cxr")

    def where(**steps: dict[str, float]) -> tuple[int, int]:
        drawn = [Step(name, parameters) for name, parameters in steps.items()]
        array = augment.apply(image, drawn).array[0]
        return tuple(int(i) for i in np.unravel_index(array.argmax(), array.shape))

    assert where(translate={"rows": 0.25, "columns": -0.25}) == (3, 2)
    # row - 3.5 = -2.5, column - 3.5 = 0.5; anticlockwise: (row, column) -> (-column, row)
    assert where(rotate={"degrees": 90.0}) == (3, 1)
    # the quarter of the area around the upper right corner: rows 0 to 3, columns 4 to 7
    assert where(crop={"area": 0.25, "row": -1.0, "column": 1.0})[0] in {2, 3}
    assert augment.apply(image, [Step("horizontal_flip", {})]).array[0, 1, 3] == 1
    assert augment.apply(image, [Step("vertical_flip", {})]).array[0, 6, 4] == 1
    assert augment.apply(image, [Step("quarter_turn", {"turns": 1})]).array[0, 3, 1] == 1


def test_scale_enlarges_and_stretch_moves_one_axis() -> None:
    np.testing.assert_allclose(linear_part({"scale": {"factor": 2.0}}), np.diag([2, 2]))
    np.testing.assert_allclose(linear_part({"stretch": {"factor": 1.5}}), np.diag([1.5, 1]))
    assert np.linalg.det(linear_part({"shear": {"degrees": 30.0}})) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(96, 96), (64, 120)])
def test_the_strongest_elastic_transform_does_not_fold(shape: tuple[int, int]) -> None:
    for seed in range(50):
        bend = {"elastic": {"amplitude": possible_of("elastic")[1], "seed": seed}}
        rows, columns = warp_coordinates(bend, shape)
        (row_down, row_across), (column_down, column_across) = (
            np.gradient(rows),
            np.gradient(columns),
        )
        assert (row_down * column_across - row_across * column_down).min() > 0


def test_black_lies_beyond_a_film_and_the_mirror_image_beyond_a_section() -> None:
    ones = np.ones((1, 32, 32), np.float32)
    steps = [Step("translate", {"rows": 0.25, "columns": 0.0})]
    moved = augmenter("cxr").apply(ones, steps, ones[0])
    assert not moved.array[0, :8].any()
    assert not moved.mask[:8].any()
    assert moved.mask[8:].all()
    moved = augmenter("histology").apply(picture(size=32), steps, picture(size=32)[0])
    np.testing.assert_allclose(moved.array[0], moved.mask, atol=1e-5)
    np.testing.assert_allclose(moved.mask[:8], moved.mask[16:8:-1])


def test_a_picture_that_is_not_square_is_turned_by_half_only() -> None:
    augment = augmenter("derm", transforms={"quarter_turn": {}}, probability=1.0)
    rng = np.random.default_rng(0)
    assert {augment.draw(rng, (8, 16))[0].parameters["turns"] for _ in range(20)} == {2}
    assert {augment.draw(rng, (8, 8))[0].parameters["turns"] for _ in range(50)} == {1, 2, 3}


@pytest.mark.parametrize("name", sorted(PHOTOMETRIC))
def test_photometric_transforms_hold_the_contract(name: str) -> None:
    assert kind_of(name) == "photometric"
    image = picture(3, 40)
    before = image.copy()
    parameter = parameter_of(name)
    for value in possible_of(name) if parameter else (0.0,):
        result = apply_photometric(name, image, value, 5)
        assert result.dtype == np.float32
        assert result.shape == image.shape
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1
        np.testing.assert_array_equal(result, apply_photometric(name, image, value, 5))
    np.testing.assert_array_equal(image, before)


def test_every_photometric_transform_of_the_table_exists() -> None:
    assert set(PHOTOMETRIC) == {
        name for name in transform_names() if kind_of(name) == "photometric"
    }


@pytest.mark.parametrize("name", sorted(set(PHOTOMETRIC) - {"posterise"}))
def test_no_photometric_transform_reduces_the_grey_levels(name: str) -> None:
    image = 0.2 + 0.6 * picture(3, 64)
    ranges = [limits for m in modality_names() for limits in safety(name, m).limits.values()]
    low, high = ranges[0] if ranges else (0.5, 0.5)
    result = apply_photometric(name, image, (low + high) / 2, 5)
    assert len(np.unique(result)) > 0.8 * len(np.unique(image))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("brightness", 0.0),
        ("contrast", 1.0),
        ("gamma", 1.0),
        ("noise", 0.0),
        ("rician_noise", 0.0),
        ("speckle", 0.0),
        ("bias_field", 0.0),
        ("motion", 0.0),
        ("gibbs", 1.0),
        ("low_resolution", 1.0),
        ("pca_colour", 0.0),
        ("stain", 0.0),
        ("hue", 0.0),
        ("saturation", 1.0),
    ],
)
def test_no_strength_is_no_change(name: str, value: float) -> None:
    image = 0.01 + 0.98 * picture(3)
    np.testing.assert_allclose(apply_photometric(name, image, value, 5), image, atol=1e-5)


def test_photometric_values_by_hand() -> None:
    image = np.array([[[0.0, 0.25, 0.5, 1.0]]], np.float32)

    def values(name: str, value: float) -> list[float]:
        return apply_photometric(name, image, value, 0).ravel().tolist()

    assert values("brightness", 0.5) == pytest.approx([0.5, 0.75, 1, 1])
    assert values("contrast", 2.0) == pytest.approx([0, 0.0625, 0.5625, 1])
    assert values("gamma", 2.0) == pytest.approx([0, 0.0625, 0.25, 1])
    assert values("invert", 0.0) == pytest.approx([1, 0.75, 0.5, 0])
    assert values("solarise", 0.4) == pytest.approx([0, 0.25, 0.5, 0])
    assert values("posterise", 3) == pytest.approx([0, 0, 0.5, 1], abs=0.51)


def test_noise_has_its_stated_size() -> None:
    grey = np.full((1, 128, 128), 0.5, np.float32)
    assert apply_photometric("noise", grey, 0.03, 1).std() == pytest.approx(0.03, rel=0.03)
    assert apply_photometric("speckle", grey, 0.1, 1).std() == pytest.approx(0.05, rel=0.03)
    black = apply_photometric("rician_noise", 0 * grey, 0.03, 1)
    assert black.mean() == pytest.approx(0.03 * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh


def test_jpeg_loses_more_at_lower_quality_and_keeps_a_flat_block() -> None:
    image = picture(1, 61)
    loss = [
        np.abs(apply_photometric("compression", image, quality, 0) - image).mean()
        for quality in (95, 70, 20)
    ]
    assert loss == sorted(loss)
    assert 0 < loss[0] < 0.02
    flat = np.full((1, 16, 16), 0.5, np.float32)
    assert np.abs(apply_photometric("compression", flat, 95, 0) - flat).max() < 0.005


def test_a_dropped_patch_has_its_stated_area_and_leaves_the_mask() -> None:
    image = picture(3, 100)
    steps = [Step("coarse_dropout", {"area": 0.09, "seed": 3})]
    array, mask, _ = augmenter("derm").apply(image, steps, image[0] > 0.5)
    assert (array != image).any(axis=0).mean() == pytest.approx(0.09, abs=0.005)
    np.testing.assert_array_equal(mask, image[0] > 0.5)


def test_a_colour_transform_needs_colour() -> None:
    augment = augmenter("derm", transforms={"hue": {}}, probability=1.0)
    with pytest.raises(MedtlError, match=r"'hue' on an image of 1 channel\(s\)"):
        augment(picture(), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (2 * picture(), "values from 0 to 2|values from .* to 1.99"),
        (picture() - 0.5, "expected an image in"),
        (np.full((1, 8, 8), np.nan, np.float32), "values from nan to nan"),
        (np.zeros((1, 8, 8, 8), np.float32), r"expected one picture \(C, H, W\)"),
    ],
)
def test_images_outside_the_contract_are_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(MedtlError, match=message):
        augmenter("cxr")(image, np.random.default_rng(0))


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(MedtlError, match=r"a mask of shape \(4, 4\)"):
        augmenter("cxr")(picture(), np.random.default_rng(0), np.zeros((4, 4), bool))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"horizontal_flip": {}}, "'horizontal_flip' is UNSAFE for cxr: puts the heart on the"),
        ({"rotate": {"degrees": [-30, 30]}}, "within -10 to 10.*augment.i_know"),
        ({"rotate": {"angle": [-5, 5]}}, "unknown parameter 'angle'; expected degrees"),
        ({"rotate": {"degrees": 5}}, r"got 5; expected \[low, high\]"),
        ({"rotate": {"degrees": [5, -5]}}, "expected low <= high"),
        ({"rotate": {"degrees": [0, float("nan")]}}, "expected low <= high"),
        ({"rotat": {}}, "unknown transform 'rotat'.*Perhaps 'rotate'"),
        ({"mixup": {}}, "'mixup' mixes cases"),
    ],
)
def test_policies_that_are_not_safe_or_not_clear_are_refused(asked: dict, message: str) -> None:
    with pytest.raises(MedtlError, match=message):
        augmenter("cxr", transforms=asked)


def test_who_knows_may_go_beyond_but_not_beyond_sense() -> None:
    wide = augmenter("cxr", transforms={"rotate": {"degrees": [-30, 30]}}, i_know=["rotate"])
    assert wide.ranges == {"rotate": (-30, 30)}
    with pytest.raises(MedtlError, match="within -180 to 180"):
        augmenter("cxr", transforms={"rotate": {"degrees": [0, 999]}}, i_know=["rotate"])
    with pytest.raises(MedtlError, match=r"no factor for 'stretch' on cxr.*State factor"):
        augmenter("cxr", transforms={"stretch": {}}, i_know=["stretch"])
    assert augmenter("cxr", transforms={"invert": {}}, i_know=["invert"]).ranges["invert"] is None


def test_other_faults_of_a_policy() -> None:
    with pytest.raises(MedtlError, match="unknown modality 'pet'"):
        augmenter("pet")
    with pytest.raises(MedtlError, match=r"augment\.probability: probability 2"):
        augmenter("cxr", probability=2)
    with pytest.raises(MedtlError, match=r"augment\.i_know: unknown transform 'flip'"):
        augmenter("cxr", i_know=["flip"])


def test_all_faults_are_found_at_once() -> None:
    asked = {"vertical_flip": {}, "rotate": {"degrees": [-90, 90]}, "gamma": {}}
    faults = policy_faults("cxr", transforms=asked, probability=-1, i_know=["nothing"])
    assert len(faults) == 4
    assert policy_faults("cxr") == []


def test_a_cautious_transform_is_allowed_on_request_and_described() -> None:
    augment = augmenter("cxr", transforms={"blur": {}, "rotate": {"degrees": [-5, 5]}})
    rows = {row.transform: row for row in augment.describe()}
    assert set(rows) == set(transform_names())
    assert (rows["blur"].level, rows["blur"].used) == ("CAUTION", True)
    assert rows["rotate"].strength == "degrees -5 to 5"
    assert not rows["horizontal_flip"].used
    assert "heart" in rows["horizontal_flip"].reason


def test_a_step_says_what_was_done_without_its_seed() -> None:
    step = Step("coarse_dropout", {"area": 0.0512345, "seed": 12345})
    assert str(step) == "coarse dropout 0.0512"


def test_heavy_libraries_stay_out_until_needed() -> None:
    code = """
import sys
import numpy as np
import medtl.preprocess.pipeline, medtl.preprocess.sheet
from medtl.preprocess.augment import augmenter
heavy = {"torch", "albumentations", "cv2", "scipy", "PIL", "ruamel.yaml"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
augment, rng = augmenter("cxr", probability=1.0), np.random.default_rng(0)
for _ in range(20):
    augment(np.zeros((1, 16, 16), np.float32), rng)
assert not {"torch", "albumentations"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
