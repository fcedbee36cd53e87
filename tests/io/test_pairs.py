"""An image and its mask agree, or are refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtl.errors import ImageError
from medtl.io.pairs import check_pair, grid_distance_mm, label_values
from medtl.types import Image

AFFINE = np.array([[0.0, 0, 3, -40], [1, 0, 0, 20], [0, -2, 0, 5], [0, 0, 0, 1]])
IMAGE = Image(np.zeros((1, 6, 5, 4), np.float32), (1.0, 2.0, 3.0), AFFINE)


def mask(labels: np.ndarray | None = None, **changes: object) -> Image:
    """The mask of `IMAGE` with labels 0, 1, 2, changed."""
    if labels is None:
        labels = np.arange(6 * 5 * 4).reshape(6, 5, 4) % 3
    return replace(IMAGE, array=labels[None].astype(np.float32), **changes)


def test_whole_numbers_are_labels_whatever_their_type():
    pair = check_pair(IMAGE, mask(), labels=[1, 2])
    assert pair.array.dtype == np.uint8
    assert pair.array.shape == (6, 5, 4)
    assert pair.labels == label_values(pair.array) == (1, 2)
    assert pair.flags == ()
    large = check_pair(IMAGE, mask(np.full((6, 5, 4), 40000)))
    assert large.array.dtype == np.uint16
    assert large.labels == (40000,)


def test_rounding_of_a_float32_affine_is_the_same_place():
    assert check_pair(IMAGE, mask(affine=AFFINE.astype(np.float32) + 1e-5)).flags == ()


def test_a_voxel_shift_is_seen_at_the_far_corner():
    turned = AFFINE.copy()
    turned[:3, 0] *= 1.001  # 5 voxels of 1 mm: 5 um at the last one
    assert grid_distance_mm(AFFINE, turned, (6, 5, 4)) == pytest.approx(0.005)
    assert check_pair(IMAGE, mask(affine=turned)).flags == ("mask_place_rounded",)
    turned[:3, 0] *= 1.011  # 60 um: more than 1/20 of a voxel
    with pytest.raises(ImageError, match=r"up to 0\.06\d+ mm from those of the image, and"):
        check_pair(IMAGE, mask(affine=turned))


def test_voxels_of_another_size_are_named():
    other = AFFINE.copy()
    other[:3, 0] *= 2
    with pytest.raises(ImageError, match=r"up to 5 mm .*, and they have other voxel sizes"):
        check_pair(IMAGE, mask(affine=other))


def test_a_mirrored_mask_is_called_mirrored():
    mirrored = AFFINE.copy()
    mirrored[0] *= -1
    message = r"m\.nii: affine mismatch: .* and the orientation is mirrored"
    with pytest.raises(ImageError, match=message):
        check_pair(IMAGE, mask(affine=mirrored), where="m.nii")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((6, 5, 4), 0.4999), r"120 voxels of the mask are no integer labels \(0\.4999"),
        (np.full((6, 5, 4), -1), "label values from -1 to -1; expected 0 to 65535"),
        (np.full((6, 5, 4), 70000), "label values from 70000 to 70000"),
        (np.full((6, 5, 4), 7), "unknown label 7 in the mask; expected one of 0, 1, 2"),
        (np.zeros((6, 5, 3)), "shape mismatch: the mask is 6 x 5 x 3; expected 6 x 5 x 4"),
        (np.zeros((5, 6, 4)), "shape mismatch"),
    ],
)
def test_masks_that_are_none_are_refused(labels, message):
    with pytest.raises(ImageError, match=message):
        check_pair(IMAGE, mask(labels), labels=range(3))


def test_a_mask_that_had_nan_is_refused():
    with pytest.raises(ImageError, match="voxels that are not finite"):
        check_pair(IMAGE, mask(flags=("nan_voxels",)))


def test_what_cannot_be_compared_and_an_empty_mask_are_flagged():
    assert check_pair(IMAGE, mask(affine=None)).flags == ("mask_place_not_comparable",)
    assert check_pair(replace(IMAGE, affine=None), mask(affine=None)).flags == ()
    assert check_pair(IMAGE, mask(np.zeros((6, 5, 4)))).flags == ("mask_empty",)


def test_planes_hold_zeros_and_ones_one_per_label():
    planes = replace(IMAGE, array=(np.arange(240).reshape(2, 6, 5, 4) % 2).astype(np.float32))
    assert check_pair(IMAGE, planes).labels == (1, 2)
    assert check_pair(IMAGE, planes, labels=[3, 8]).labels == (3, 8)
    with pytest.raises(ImageError, match="the mask has 2 planes; expected 3"):
        check_pair(IMAGE, planes, labels=[1, 2, 3])
    with pytest.raises(ImageError, match="unknown label 2 in the mask"):
        check_pair(IMAGE, replace(planes, array=planes.array * 2))
