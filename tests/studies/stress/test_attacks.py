"""Attacks: within their bound, within black and white, one step of PGD is FGSM."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from medtl.errors import MedtlError
from medtl.losses.adversarial import Attack
from medtl.preprocess.affine import Affine
from medtl.studies.stress.attacks import feature_distance, frozen, patch_of


@pytest.fixture(scope="module")
def digits():
    """A small network that knows the digits, test images and labels."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    units = torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    labels = torch.tensor(labels)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(12):
        for part in torch.randperm(1347).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(units[part]), labels[part]).backward()
            optimizer.step()
    return frozen(network), units[1347:], labels[1347:]


def loss_of(network, labels):
    return lambda units: functional.cross_entropy(network(units), labels, reduction="sum")


def accuracy(network, units, labels):
    return float((network(units).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("eps", [0.01, 0.1])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_change_is_within_its_bound_and_in_range(digits, eps, steps):
    network, units, labels = digits
    attack = Attack(eps, steps=steps, random_start=steps > 1)
    changed = attack(units, loss_of(network, labels))
    assert (changed - units).abs().max() <= eps + 1e-6
    assert 0 <= changed.min() <= changed.max() <= 1
    assert loss_of(network, labels)(changed) > loss_of(network, labels)(units)


def test_no_change_at_eps_0(digits):
    network, units, labels = digits
    assert torch.equal(Attack(0.0, steps=3)(units, loss_of(network, labels)), units)


def test_fgsm_is_the_sign_of_the_gradient_by_hand(digits):
    network, units, labels = digits
    leaf = units.clone().requires_grad_()
    loss_of(network, labels)(leaf).backward()
    by_hand = (units + 0.1 * leaf.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(Attack(0.1)(units, loss_of(network, labels)), by_hand)


def test_accuracy_falls_with_eps_and_more_steps_are_worse(digits):
    network, units, labels = digits
    assert accuracy(network, units, labels) > 0.9
    loss = loss_of(network, labels)
    one = [accuracy(network, Attack(e)(units, loss), labels) for e in (0.05, 0.1, 0.2)]
    many = [
        accuracy(network, Attack(e, steps=10, random_start=True)(units, loss), labels)
        for e in (0.05, 0.1, 0.2)
    ]
    assert one == sorted(one, reverse=True)
    assert all(m <= o + 0.01 for m, o in zip(many, one, strict=True))
    assert many[-1] < 0.1


def test_down_the_gradient_helps(digits):
    """The negative control: the other sign makes the network surer."""
    network, units, labels = digits
    loss = loss_of(network, labels)
    helped = Attack(0.05)(units, lambda u: -loss(u))
    assert loss(helped) < loss(units)


def test_a_patch_changes_the_patch_alone(digits):
    network, units, labels = digits
    mask = patch_of((8, 8), 0.4)
    assert mask.sum() == 9
    changed = Attack(1.0, steps=5, random_start=True)(units, loss_of(network, labels), mask)
    moved = ((changed - units).abs() > 0).any(dim=0)[0]
    assert moved.any()
    assert not moved[mask == 0].any()


def test_the_start_network_moves_features_without_a_label(digits):
    network, units, _ = digits
    same = Affine(torch.ones(1, 8, 8), torch.zeros(1, 8, 8))
    loss = feature_distance(network[:6], same, units)
    assert float(loss(units)) == 0
    changed = Attack(0.1, steps=5, random_start=True)(units, loss)
    assert float(loss(changed)) > 1


def test_a_standardisation_becomes_affine():
    def standardise(unit):
        return np.repeat((unit * 255 - 127.5) / 50, 3, axis=0).astype(np.float32)

    units = torch.rand(2, 1, 6, 5)
    affine = Affine.of(standardise, (1, 6, 5))
    expected = torch.stack([torch.from_numpy(standardise(u.numpy())) for u in units])
    torch.testing.assert_close(affine(units), expected, atol=1e-4, rtol=0)


def test_statistics_of_the_picture_are_refused():
    def z_score(unit):
        return ((unit - unit.mean()) / (unit.std() + 1e-6)).astype(np.float32)

    with pytest.raises(MedtlError, match="depends on the picture"):
        Affine.of(z_score, (1, 6, 5))
