"""Patches: where they lie, what they hold, and that draws depend on their place alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtl.data.patches import MaskedSamples, cut, draw_corner
from medtl.data.store import ImageStore, RowWriter, levels
from medtl.losses.known import IGNORE
from medtl.preprocess.augment import augmenter
from medtl.preprocess.volume import VolumePreprocessor


def store_of(units: list[np.ndarray], masks: list[np.ndarray]) -> ImageStore:
    writers = RowWriter(np.uint16), RowWriter(np.uint8)
    for unit, mask in zip(units, masks, strict=True):
        writers[0].append(levels(unit.astype(np.float32)))
        writers[1].append(mask)
    names = tuple(f"case{i}" for i in range(len(units)))
    return ImageStore(names, writers[0].rows(), writers[1].rows())


def marked(shape: tuple[int, ...], spot: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A volume that is bright where its mask is 1: at one voxel."""
    mask = np.zeros(shape, np.uint8)
    mask[spot] = 1
    return mask[None].astype(np.float32), mask


def corners(mask: np.ndarray, patch: tuple[int, ...], exclusive: bool = True) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([draw_corner(mask, patch, rng, exclusive=exclusive) for _ in range(400)])


def test_a_patch_of_the_image_s_size_is_the_image() -> None:
    assert set(map(tuple, corners(np.ones((6, 8), np.uint8), (6, 8)))) == {(0, 0)}


def test_a_larger_patch_holds_the_image_in_its_middle() -> None:
    mask = np.ones((3, 10), np.uint8)
    found = corners(mask, (8, 4))
    assert set(found[:, 0]) == {-3}
    assert (found[:, 1].min(), found[:, 1].max()) == (0, 6)
    patch = cut(mask, (-3, 2), (8, 4))
    assert patch.shape == (8, 4)
    assert patch[3:6].all()
    assert patch.sum() == 12


def test_half_of_the_patches_are_centred_on_a_structure() -> None:
    _, mask = marked((50, 50, 50), (30, 25, 11))
    found = corners(mask, (8, 8, 8))
    centred = (found == (26, 21, 7)).all(axis=1).mean()
    assert 0.42 < centred < 0.58
    assert found.min() >= 0
    assert found.max() <= 42


def test_a_structure_at_the_edge_is_in_the_patch() -> None:
    _, mask = marked((40, 40), (0, 39))
    assert ((corners(mask, (8, 8)) == (0, 32)).all(axis=1)).mean() > 0.4


def test_structures_are_equally_likely_however_small() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[:20], mask[59, 59], mask[30] = 1, 2, IGNORE
    found = corners(mask, (4, 4))
    assert 0.17 < (found == (56, 56)).all(axis=1).mean() < 0.33


def test_an_image_without_structures_gives_patches_anywhere() -> None:
    found = corners(np.full((30, 30), IGNORE, np.uint8), (6, 6))
    assert len(set(map(tuple, found))) > 200
    planes = np.zeros((2, 30, 30), np.uint8)
    assert len(set(map(tuple, corners(planes, (6, 6), exclusive=False)))) > 200


def test_overlapping_structures_are_found_in_their_planes() -> None:
    planes = np.zeros((2, 30, 30), np.uint8)
    planes[1, 10, 20] = 1
    found = corners(planes, (6, 6), exclusive=False)
    assert (found == (7, 17)).all(axis=1).mean() > 0.4


@pytest.fixture
def samples() -> MaskedSamples:
    pairs = [marked((20, 24, 16), (4, 20, 8)), marked((10, 30, 22), (9, 0, 21))]
    units, masks = zip(*pairs, strict=True)
    return MaskedSamples(
        store=store_of(list(units), list(masks)),
        rows=np.array([1, 0]),
        standardise=lambda unit, _whole=None: (unit - 0.5) / 0.25,
        patch=(8, 16, 16),
        seed=5,
    )


def test_a_sample_is_a_patch_and_its_mask(samples: MaskedSamples) -> None:
    for epoch in range(20):
        image, extra, target, index, _ = samples[(epoch, 1)]
        assert image.shape == (1, 8, 16, 16)
        assert image.dtype == torch.float32
        assert target.shape == (8, 16, 16)
        assert target.dtype == torch.uint8
        assert (extra.numel(), int(index)) == (0, 1)
        assert torch.equal(image[0] > 0, target == 1)


def test_a_patch_depends_on_its_place_alone(samples: MaskedSamples) -> None:
    first, again, other = samples[(3, 0)], samples[(3, 0)], samples[(4, 0)]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_evaluation_sees_whole_images(samples: MaskedSamples) -> None:
    whole = MaskedSamples(samples.store, samples.rows, samples.standardise)
    assert len(whole) == 2
    assert whole[(0, 0)][0].shape == (1, 10, 30, 22)
    assert whole[(0, 1)][2].shape == (20, 24, 16)


def test_a_plane_and_its_mask_are_moved_alike() -> None:
    unit = np.zeros((1, 64, 64), np.float32)
    unit[:, 20:40, 25:50] = 1
    policy = augmenter("cxr", transforms={"rotate": {}, "translate": {}}, probability=1)
    samples = MaskedSamples(
        store_of([unit], [unit[0].astype(np.uint8)]),
        np.array([0]),
        lambda image, _whole: image,
        patch=(64, 64),
        augment=lambda image, mask, rng: policy(image, rng, mask)[:2],
    )
    moved = 0
    for epoch in range(10):
        image, _, target, *_ = samples[(epoch, 0)]
        moved += not torch.equal(target, torch.from_numpy(unit[0]).to(torch.uint8))
        assert ((image[0] > 0.5) == (target == 1)).float().mean() > 0.98
    assert moved == 10


@pytest.mark.parametrize("nonzero", [False, True])
def test_a_voxel_is_worth_the_same_in_every_patch_and_in_evaluation(nonzero: bool) -> None:
    """Statistics were those of the patch in training, and one voxel .37 there and 1.41 later."""
    rng = np.random.default_rng(0)
    unit = (rng.random((1, 20, 24, 16)) * np.linspace(0.1, 1, 20)[:, None, None]).astype(np.float32)
    unit[:, :, :6] = 0  # air
    store = store_of([unit], [np.zeros(unit.shape[1:], np.uint8)])
    standardise = VolumePreprocessor(standardisation="z_score", nonzero=nonzero).standardise
    patches = MaskedSamples(store, np.array([0]), standardise, patch=(8, 8, 8))
    whole = MaskedSamples(store, np.array([0]), standardise)[(0, 0)].images
    windows = whole.unfold(1, 8, 1).unfold(2, 8, 1).unfold(3, 8, 1)[0].flatten(0, 2)
    for epoch in range(10):
        patch = patches[(epoch, 0)].images[0]
        assert (windows - patch).abs().amax(dim=(1, 2, 3)).min() < 1e-5
        alone = torch.from_numpy(standardise(patch[None].numpy()))  # the negative control
        assert (windows - alone[0]).abs().amax(dim=(1, 2, 3)).min() > 1e-2
