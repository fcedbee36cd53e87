"""Volumes onto RAS axes at one spacing and back, voxel for voxel."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from make_dicom import write

from medtl.errors import ImageError, MedtlError, WeightsError
from medtl.io.masks import read_mask, write_mask
from medtl.io.read import read_image
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.volume import (
    VolumePreprocessor,
    from_grid,
    labels_to_grid,
    plan_grid,
    to_grid,
)
from medtl.types import Image

RNG = np.random.default_rng(2)


def affine_of(grid):
    """Voxels of the grid to RAS+ mm, worked out from its fields alone."""
    if grid.affine is None or len(grid.shape) != 3:
        return None
    to_stored = np.zeros((4, 4))
    to_stored[3, 3] = 1.0
    for axis, (stored, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
        step = grid.shape[stored] / grid.target[axis]
        first = 0.5 * step - 0.5  # centre of the first voxel, edges aligned
        to_stored[stored, axis] = -step if flip else step
        to_stored[stored, 3] = grid.shape[stored] - 1 - first if flip else first
    return np.asarray(grid.affine) @ to_stored


def placed(shape, axes, signs, mm, degrees=0.0) -> Image:
    """An image whose stored axes run along `axes` of RAS, with signs and mm, then turned."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for stored, (axis, sign, step) in enumerate(zip(axes, signs, mm, strict=True)):
        affine[axis, stored] = sign * step
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (7, -8, 9)
    return Image(RNG.normal(size=(1, *shape)).astype(np.float32), tuple(mm), affine)


def ball(image: Image, center_mm=(0.0, 0.0, 0.0), radius_mm=9.0) -> np.ndarray:
    """The voxels of a ball in the middle of the image, by world coordinates."""
    shape = image.array.shape[1:]
    middle = image.affine @ np.append((np.array(shape) - 1) / 2, 1)
    index = np.stack([*np.indices(shape), np.ones(shape)])
    world = np.tensordot(image.affine, index, 1)[:3]
    offset = world - (middle[:3] + center_mm)[:, None, None, None]
    return (np.linalg.norm(offset, axis=0) <= radius_mm).astype(np.uint8)


ORIENTATIONS = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
)


def test_all_48_orientations_agree_with_nibabel_and_come_back_exactly():
    for axes, signs in ORIENTATIONS:
        image = placed((4, 5, 6), axes, signs, (1.0, 2.0, 3.0), degrees=20)
        grid = plan_grid(image, None)
        ours = to_grid(image.array, grid)
        oracle = nibabel.as_closest_canonical(nibabel.Nifti1Image(image.array[0], image.affine))
        np.testing.assert_array_equal(ours[0], oracle.get_fdata(dtype=np.float32))
        np.testing.assert_allclose(affine_of(grid), oracle.affine, atol=1e-9)
        np.testing.assert_allclose(grid.spacing, oracle.header.get_zooms(), rtol=1e-6)
        np.testing.assert_array_equal(from_grid(ours, grid), image.array)


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::5])
def test_a_mask_on_another_grid_comes_back_onto_its_image(axes, signs):
    mm = tuple(np.array([1.1, 0.8, 3.0])[list(axes)])
    image = placed((30, 36, 24), axes, signs, mm, degrees=15)
    truth = ball(image, center_mm=(3.0, -2.0, 1.0))
    grid = plan_grid(image, (1.0, 1.0, 1.5))
    there = labels_to_grid(truth, grid)
    assert there.shape == grid.target
    # On the grid it is the same ball in the world, by the grid's own affine
    unit = Image(there[None].astype(np.float32), grid.spacing, affine_of(grid))
    centre = np.append(np.argwhere(there).mean(axis=0), 1)
    expected = image.affine @ np.append(np.argwhere(truth).mean(axis=0), 1)
    assert np.linalg.norm((unit.affine @ centre - expected)[:3]) < 0.15  # mm
    back = from_grid(np.stack([1.0 - there, there]), grid).argmax(axis=0)
    dice = 2 * (back * truth).sum() / (back.sum() + truth.sum())
    assert dice > 0.97
    # negative control: the same mask brought back without its flips is elsewhere
    if any(grid.flips):
        wrong = from_grid(np.flip(there, 0)[None].astype(np.float32), grid)[0] > 0.5
        assert 2 * (wrong * truth).sum() / (wrong.sum() + truth.sum()) < 0.9


def test_nothing_shifts_by_half_a_voxel():
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32) + 0.5, (1, 4, 4, 12))  # mm of the centre
    image = Image(np.ascontiguousarray(ramp), (1.0, 1.0, 1.0), np.eye(4))
    for step in (2.0, 3.0, 0.5):
        grid = plan_grid(image, (1.0, 1.0, step))
        centres = (np.arange(grid.target[2]) + 0.5) * step
        inner = slice(1, -1)
        there = to_grid(image.array, grid)[0, 0, 0]
        np.testing.assert_allclose(there[inner], centres[inner], atol=1e-5)
        assert affine_of(grid)[2, 3] == pytest.approx(step / 2 - 0.5)
        back = from_grid(there[None, None, None] * np.ones((1, 4, 4, 1), np.float32), grid)
        np.testing.assert_allclose(back[0, 0, 0, 2:-2], ramp[0, 0, 0, 2:-2], atol=1e-5)


def test_a_pattern_finer_than_the_grid_is_averaged_and_not_aliased():
    stripes = np.indices((1, 8, 8, 64))[3] % 2.0
    image = Image(stripes.astype(np.float32), (1.0, 1.0, 1.0), np.eye(4))
    grid = plan_grid(image, (1.0, 1.0, 4.0))
    np.testing.assert_allclose(to_grid(image.array, grid), 0.5, atol=1e-6)


def test_probabilities_stay_probabilities():
    image = placed((9, 10, 11), (2, 0, 1), (1, -1, -1), (0.9, 1.7, 2.5))
    grid = plan_grid(image, (1.3, 1.3, 1.3))
    scores = RNG.dirichlet(np.ones(3), grid.target).transpose(3, 0, 1, 2)
    back = from_grid(scores, grid)
    assert back.shape == (3, 9, 10, 11)
    np.testing.assert_allclose(back.sum(axis=0), 1, atol=1e-5)
    assert back.min() >= 0


def test_labels_go_by_share_and_keep_their_values():
    mask = np.zeros((1, 1, 9), np.uint8)
    mask[..., 0:2], mask[..., 3:6], mask[..., 8] = 7, 200, 7
    image = Image(np.zeros((1, 1, 1, 9), np.float32), (1.0, 1.0, 1.0), np.eye(4))
    grid = plan_grid(image, (1.0, 1.0, 3.0))
    assert labels_to_grid(mask, grid).ravel().tolist() == [7, 200, 0]
    planes = np.stack([mask == 7, mask == 200]).astype(np.uint8)
    assert labels_to_grid(planes, grid).reshape(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    half = np.array([1, 1, 2, 2], np.uint8).reshape(1, 1, 4)
    image = Image(np.zeros((1, 1, 1, 4), np.float32), (1.0, 1.0, 1.0), np.eye(4))
    assert labels_to_grid(half, plan_grid(image, (1.0, 1.0, 4.0))).ravel().tolist() == [1]


def test_large_volumes_pass_the_limits_of_the_resampler():
    image = Image(np.ones((1, 200, 200, 40), np.float32), (1.0, 1.0, 1.0), np.eye(4))
    grid = plan_grid(image, (1.0, 1.0, 0.8))  # 40,000 lines, more than 32,767
    np.testing.assert_allclose(to_grid(image.array, grid), 1.0, atol=1e-6)
    assert grid.target == (200, 200, 50)


def test_two_dimensions_keep_their_axes():
    image = Image(
        RNG.random((1, 20, 30)).astype(np.float32), (0.5, 0.25), np.diag([-1.0, -1, 1, 1])
    )
    grid = plan_grid(image, (1.0, 0.5))
    assert (grid.axes, grid.flips, grid.target) == ((0, 1), (False, False), (10, 15))
    assert affine_of(grid) is None
    expected = image.array[0].reshape(10, 2, 15, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(to_grid(image.array, grid)[0], expected, atol=1e-6)
    assert from_grid(image.array[:, :10, :15], grid).shape == (1, 20, 30)


CUBE = placed((4, 4, 4), (0, 1, 2), (1, 1, 1), (1, 1, 1))


@pytest.mark.parametrize(
    ("image", "spacing", "message"),
    [
        (Image(np.zeros((1, 4, 4, 4), np.float32)), (1.0, 1.0, 1.0), "does not say its spacing"),
        (
            placed((4, 4, 4), (0, 1, 2), (1, 1, 1), (1, 1, 1)),
            (1.0, 1.0),
            "an image of 3 dimensions",
        ),
        (
            placed((4, 4, 4), (0, 1, 2), (1, 1, 1), (1, 1, 1)),
            (1e-3,) * 3,
            "Choose a larger spacing",
        ),
        (Image(np.zeros((1, 4), np.float32)), None, "an image of 1 dimensions; expected 2 or 3"),
        (
            Image(np.zeros((1, 4, 4, 4), np.float32), (1.0,) * 3, np.diag([0.0, 1, 1, 1])),
            None,
            "the affine has an axis without direction",
        ),
    ],
)
def test_images_that_cannot_lie_on_the_grid_are_refused(image, spacing, message):
    with pytest.raises(ImageError, match=message):
        plan_grid(image, spacing)


def test_arrays_of_another_shape_are_refused():
    grid = plan_grid(placed((4, 5, 6), (2, 1, 0), (1, 1, 1), (1, 1, 1)), None)
    for call, what in ((to_grid, "array"), (labels_to_grid, "mask"), (from_grid, "map")):
        with pytest.raises(MedtlError, match=f"a {what} of shape"):
            call(np.zeros((1, 9, 9, 9), np.float32), grid)


# ------------------------------------------------------------------ preprocessor


def test_units_do_not_depend_on_the_scale_of_the_file():
    image = placed((12, 14, 10), (0, 2, 1), (-1, 1, -1), (1.0, 1.0, 2.0))
    image = Image(np.abs(image.array) * 100, image.spacing, image.affine)
    louder = Image(image.array * 17000, image.spacing, image.affine)
    how = VolumePreprocessor(spacing=(1.0, 1.0, 1.0), nonzero=True)
    unit = how.to_unit(image)
    assert unit.shape == (1, *how.grid(image).target) == (1, 12, 20, 14)
    assert (unit.min(), unit.max()) == (0.0, 1.0)
    np.testing.assert_allclose(how.to_unit(louder), unit, atol=1e-5)


def test_a_window_maps_hounsfield_units():
    image = Image(np.array([-160.0, 40.0, 240.0, 900.0], np.float32).reshape(1, 1, 1, 4))
    how = VolumePreprocessor(scale="window", window=(40.0, 400.0))
    np.testing.assert_allclose(how.to_unit(image).ravel(), [0, 0.5, 1, 1], atol=1e-6)


def test_channels_are_scaled_each_by_itself():
    image = Image(np.stack([np.arange(64.0), np.arange(64.0) * 1e4]).reshape(2, 4, 4, 4))
    unit = VolumePreprocessor(channels=2, scale="min_max").to_unit(image)
    np.testing.assert_allclose(unit[0], unit[1], atol=1e-6)
    with pytest.raises(ImageError, match="an image of 2 channels; expected 1"):
        VolumePreprocessor().to_unit(image)


def test_padding_takes_no_part_in_the_percentiles():
    array = np.linspace(100, 200, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    array[0, 0] = 99.0
    image = Image(array, header={"padding_value": "99.0"})
    unit = VolumePreprocessor(scale="min_max").to_unit(image)
    assert unit[0, 0].max() == 0
    assert unit[0, 1].min() == 0  # the smallest real value


def test_standardisation_of_patches():
    unit = RNG.random((1, 6, 6, 6)).astype(np.float32)
    unit[0, 0] = 0
    centred = VolumePreprocessor().standardise(unit)
    np.testing.assert_allclose(centred, unit * 2 - 1)
    np.testing.assert_array_equal(centred[:, 2:4], VolumePreprocessor().standardise(unit[:, 2:4]))
    scored = VolumePreprocessor(standardisation="z_score", nonzero=True).standardise(unit)
    assert scored[0, 1:].mean() == pytest.approx(0, abs=1e-5)
    assert scored[0, 1:].std() == pytest.approx(1, abs=1e-5)
    assert not scored[0, 0].any()
    plain = VolumePreprocessor(standardisation="none").standardise(unit)
    np.testing.assert_array_equal(plain, unit)
    assert plain is not unit


def test_masks_go_there_and_probabilities_come_back():
    image = placed((10, 12, 8), (1, 2, 0), (-1, -1, 1), (1.0, 1.5, 2.0))
    how = VolumePreprocessor(spacing=(1.0, 1.0, 1.0))
    mask = how.mask_to_unit(ball(image, radius_mm=4).astype(np.int64), image)
    assert mask.dtype == np.uint8
    assert mask.shape == how.to_unit(image).shape[1:]
    back = how.from_unit(np.stack([1 - mask, mask]).astype(np.float32), how.grid(image))
    assert back.shape == (2, 10, 12, 8)
    with pytest.raises(MedtlError, match="a label 256; expected labels from 0 to 255"):
        how.mask_to_unit(np.full((10, 12, 8), 256), image)


def test_the_contract_makes_the_round_trip_through_json():
    how = VolumePreprocessor((1.0, 1.0, 2.0), 2, "window", window=(40.0, 400.0))
    values = json.loads(json.dumps(how.to_dict()))
    assert VolumePreprocessor.from_dict(values, None) == how
    assert how.fit([]) is how
    assert how.pixel_mean is None
    with pytest.raises(WeightsError, match="keys missing or unknown: sizes"):
        VolumePreprocessor.from_dict({**values, "sizes": 1})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": "window"}, "scale 'window' with window None"),
        ({"window": (1.0, 2.0)}, "scale 'percentile' with window"),
        ({"spacing": (1.0, 0.0, 1.0)}, "expected positive millimetres"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(MedtlError, match=message):
        VolumePreprocessor(**fields)


def test_two_dimensional_masks_come_back_by_the_same_methods():
    image = Image(RNG.random((1, 40, 30)).astype(np.float32))
    how = Preprocessor(size=64, channels=1, mean=(0.5,), std=(0.5,))
    mask = np.zeros((40, 30), np.uint8)
    mask[10:25, 5:20] = 1
    there = how.mask_to_unit(mask, image)
    back = how.from_unit(np.stack([1.0 - there, there]), how.grid(image)).argmax(axis=0)
    assert 2 * (back * mask).sum() / (back.sum() + mask.sum()) > 0.97


# ------------------------------------------------- from the file to its mask file


def dicom_series(folder: Path, image: Image) -> Path:
    """Write the image, whose stored axes are (slice, row, column), as a DICOM series."""
    folder.mkdir()
    lps = np.diag([-1.0, -1, 1, 1]) @ image.affine
    across, down = lps[:3, 2] / image.spacing[2], lps[:3, 1] / image.spacing[1]
    for number, plane in enumerate(image.array[0]):
        write(
            folder / f"{(number * 7) % len(image.array[0]):02d}.dcm",
            plane.astype(np.uint16),
            ImagePositionPatient=[float(mm) for mm in lps[:3, 3] + number * lps[:3, 0]],
            ImageOrientationPatient=[round(float(x), 12) for x in (*across, *down)],
            PixelSpacing=list(image.spacing[1:]),
            SliceThickness=image.spacing[0],
        )
    return folder


@pytest.mark.parametrize("source", ["NIfTI", "DICOM"])
def test_the_mask_of_a_file_overlays_it_voxel_for_voxel(tmp_path, source):
    # rotated by 25 degrees, anisotropic, left-handed; slices first, as DICOM has them
    plan = placed((16, 40, 50), (2, 1, 0), (1, -1, -1), (3.0, 0.9, 0.7), degrees=25)
    if source == "NIfTI":
        plan = placed((40, 16, 50), (1, 2, 0), (-1, -1, -1), (0.9, 3.0, 0.7), degrees=25)
    assert np.linalg.det(plan.affine) < 0
    truth = ball(plan, center_mm=(4.0, -3.0, 5.0), radius_mm=9)
    bright = replace(plan, array=(truth * 1000.0)[None].astype(np.float32))
    path = tmp_path / "image.nii.gz"
    if source == "NIfTI":
        nibabel.save(nibabel.Nifti1Image(bright.array[0], bright.affine), path)
    else:
        path = dicom_series(tmp_path / "series", bright)
    image = read_image(path)
    np.testing.assert_allclose(image.affine, plan.affine, atol=1e-4)
    np.testing.assert_array_equal(image.array, bright.array)

    for spacing, least in ((None, 1.0), ((1.0, 1.0, 1.5), 0.97)):
        how = VolumePreprocessor(spacing=spacing, scale="min_max")
        found = how.to_unit(image)[0]  # a network that is right
        back = how.from_unit(np.stack([1 - found, found]), how.grid(image)).argmax(axis=0)
        write_mask(tmp_path / "mask.nii.gz", back, like=image)
        written = nibabel.load(tmp_path / "mask.nii.gz")
        np.testing.assert_allclose(written.affine, plan.affine, atol=1e-4)
        data = np.asarray(written.dataobj)
        assert 2 * (data * truth).sum() / (data.sum() + truth.sum()) >= least
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", like=image).array, back)
    # negative control: probabilities left on RAS axes fall beside the ball
    wrong = np.flip(back, 0)
    assert 2 * (wrong * truth).sum() / (wrong.sum() + truth.sum()) < 0.8
