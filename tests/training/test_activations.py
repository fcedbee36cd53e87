from dataclasses import replace

import numpy as np
import pytest
import torch

from medtl.networks.backbones import build_classifier
from medtl.networks.freeze import apply_stage
from medtl.networks.groups import layer_groups
from medtl.networks.prefix import cut_before_trained
from medtl.networks.selectors import resolve
from medtl.networks.weights import WeightsSource
from medtl.training.activations import ActivationCache, store_activations
from medtl.training.batches import Samples
from medtl.training.runtime import Runtime
from medtl.training.store import ImageStore, RowWriter, levels

N = 7


def brighten(unit, rng):
    return np.clip(unit * rng.uniform(0.5, 1.5), 0, 1).astype(np.float32)


def standardise(unit):
    return np.repeat((unit - 0.5) / 0.25, 3, axis=0).astype(np.float32)


@pytest.fixture
def samples():
    writer = RowWriter(np.uint16)
    rng = np.random.default_rng(0)
    for _ in range(N):
        writer.append(levels(rng.random((1, 32, 32)).astype(np.float32)))
    return Samples(
        store=ImageStore(tuple("abcdefg"), writer.rows()),
        rows=np.arange(N),
        targets=np.arange(N, dtype=np.float32)[:, None],
        inputs=np.zeros((N, 0), dtype=np.float32),
        standardise=standardise,
        augment=brighten,
        seed=3,
    )


def cut_of(train, seed=0):
    torch.manual_seed(seed)
    model, _ = build_classifier("test_resnet", outputs=1, weights=WeightsSource("none"))
    groups = layer_groups(model)
    chosen = resolve(train, [group.name for group in groups])
    apply_stage(model, groups, train=chosen, batch_norm={})
    Runtime("cpu").place(model)
    return cut_before_trained(model, groups, chosen)


def stored(samples, cut, folder, **options):
    cache = ActivationCache(folder, views=2, **options)
    return store_activations(samples, cut, Runtime("cpu"), cache, views=2, first_epoch=5)


def test_views_are_those_of_the_first_epochs_of_the_stage_and_come_again(samples, tmp_path):
    cut = cut_of("head")
    found = stored(samples, cut, tmp_path)
    for epoch, drawn in ((5, 5), (6, 6), (7, 5), (10, 6)):
        activation, inputs, target, index = found[epoch, 4]
        image = Runtime("cpu").to_device(samples[drawn, 4][0][None])
        torch.testing.assert_close(activation, cut.prefix(image)[0], rtol=1e-5, atol=1e-6)
        assert (target.item(), index.item(), inputs.shape) == (4.0, 4, (0,))
    assert not torch.equal(found[5, 4][0], found[6, 4][0])


def test_without_augmentation_one_view_is_enough(samples, tmp_path):
    found = stored(replace(samples, augment=None), cut_of("head"), tmp_path)
    assert found.activations.shape[0] == 1
    assert found.activations.dtype == np.float32


def test_maps_are_stored_in_half_precision_within_its_rounding(samples, tmp_path):
    cut = cut_of("head,last:1")
    found = stored(samples, cut, tmp_path)
    assert found.activations.dtype == np.float16
    image = Runtime("cpu").to_device(samples[5, 0][0][None])
    torch.testing.assert_close(found[5, 0][0], cut.prefix(image)[0], rtol=1e-3, atol=1e-4)


def test_the_same_images_and_layers_are_computed_once(samples, tmp_path):
    cut = cut_of("head")
    stored(samples, cut, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = stored(samples, cut_of("head"), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert len(again) == N


@pytest.mark.parametrize(
    "changed",
    [
        lambda s: replace(s, rows=s.rows[::-1].copy()),
        lambda s: replace(s, seed=4),
        lambda s: replace(s, augment=None),
        lambda s: replace(s, standardise=lambda unit: -standardise(unit)),
    ],
    ids=["images", "seed", "augmentation", "standardisation"],
)
def test_anything_that_changes_the_numbers_changes_the_file(samples, tmp_path, changed):
    cut = cut_of("head")
    stored(samples, cut, tmp_path)
    stored(changed(samples), cut, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_other_weights_or_statistics_change_the_file(samples, tmp_path):
    cut = cut_of("head")
    stored(samples, cut, tmp_path)
    stored(samples, cut_of("head", seed=1), tmp_path)
    name = next(n for n in cut.tensors if n.endswith("running_mean"))
    cut.tensors[name].add_(1.0)
    stored(samples, cut, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 3


def test_a_damaged_file_is_computed_again(samples, tmp_path, caplog):
    cut = cut_of("head")
    whole = np.array(stored(samples, cut, tmp_path).activations)
    (path,) = tmp_path.glob("*.npy")
    content = bytearray(path.read_bytes())
    content[-3] ^= 255
    path.write_bytes(content)
    again = stored(samples, cut, tmp_path)
    np.testing.assert_array_equal(again.activations, whole)
    assert "damaged" in caplog.text


def test_a_file_without_its_seal_is_computed_again(samples, tmp_path):
    cut = cut_of("head")
    whole = np.array(stored(samples, cut, tmp_path).activations)
    next(tmp_path.glob("*.sha256")).unlink()
    np.testing.assert_array_equal(stored(samples, cut, tmp_path).activations, whole)


def test_more_than_the_limit_is_not_stored(samples, tmp_path):
    assert stored(samples, cut_of("head"), tmp_path, limit_bytes=100) is None
    assert not list(tmp_path.iterdir())
