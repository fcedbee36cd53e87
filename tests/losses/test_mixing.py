"""Mixtures of two images: shares, moments of Beta, areas, and the loss of both targets."""

from __future__ import annotations

import pytest
import torch

from medtl.data.batches import Batch
from medtl.losses.mixing import Mix
from medtl.training.objective import Mixed, Supervised

IMAGES = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 1, 20, 20).clone()


def drawn(mix, times, images=IMAGES):
    torch.manual_seed(0)
    return [mix(images) for _ in range(times)]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_shares_have_the_moments_of_beta(alpha):
    """Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1))."""
    shares = torch.tensor([share for *_, share in drawn(Mix(mixup=alpha), 4000, IMAGES[:2])])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_mixup_adds_intensities_in_the_share():
    for mixed, order, share in drawn(Mix(mixup=0.5), 20):
        expected = share * IMAGES + (1 - share) * IMAGES[order]
        torch.testing.assert_close(mixed, expected)
        assert sorted(order.tolist()) == list(range(8))


def test_cutmix_takes_an_area_in_the_share():
    shares = []
    for mixed, order, share in drawn(Mix(cutmix=1.0), 50):
        other = order != torch.arange(8)
        taken = (mixed != IMAGES).flatten(1).float().mean(1)
        torch.testing.assert_close(taken[other], torch.full_like(taken[other], 1 - share))
        assert ((mixed == IMAGES) | (mixed == IMAGES[order])).all()
        shares.append(share)
    assert min(shares) < 0.4
    assert max(shares) > 0.9


def test_cutmix_takes_a_box_of_a_volume():
    volumes = torch.rand(3, 1, 6, 6, 6)
    mixed, order, share = Mix(cutmix=1.0)(volumes)
    assert mixed.shape == volumes.shape
    assert 0 <= share <= 1
    assert ((mixed == volumes) | (mixed == volumes[order])).all()


def test_of_two_a_batch_takes_one():
    found = {
        bool(((mixed == IMAGES) | (mixed == IMAGES[order])).all())
        for mixed, order, _ in drawn(Mix(mixup=1.0, cutmix=1.0), 30)
    }
    assert found == {True, False}


def test_the_loss_is_that_of_both_targets():
    """Of a loss that is linear in the target it is the loss of the mixed target."""
    targets = torch.rand(8, 1)
    batch = Batch(IMAGES, torch.zeros(8, 0), targets, torch.arange(8))

    def network(images, _):
        return images.mean(dim=(2, 3))

    def loss(outputs, wanted):
        return (outputs * wanted).mean()

    torch.manual_seed(4)
    found = Mixed(loss, Mix(mixup=1.0))(network, batch)
    torch.manual_seed(4)
    mixed, order, share = Mix(mixup=1.0)(IMAGES)
    expected = loss(network(mixed, None), share * targets + (1 - share) * targets[order])
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, Supervised(loss)(network, batch))


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="state mixup, cutmix or both"):
        Mix()
