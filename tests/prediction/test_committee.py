"""Several networks as one: means, Grad-CAM of all, and nothing of one that is alone."""

from __future__ import annotations

import pytest
import torch

from medtl.networks.backbones import build_classifier
from medtl.networks.weights import WeightsSource
from medtl.prediction.committee import Committee
from medtl.prediction.gradcam import grad_cam


def network(seed):
    torch.manual_seed(seed)
    built = build_classifier("test_resnet", outputs=2, weights=WeightsSource("none"))[0]
    torch.nn.init.uniform_(built.head[-1].weight)  # all heat is above 0
    return built.eval()


IMAGES = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(5))


def test_the_outputs_are_the_mean():
    one, other = network(0), network(1)
    both = Committee([one, other])
    torch.testing.assert_close(both(IMAGES), (one(IMAGES) + other(IMAGES)) / 2)
    assert not torch.allclose(both(IMAGES), one(IMAGES))


def test_equal_members_are_the_member():
    one = network(0)
    assert torch.equal(Committee([one, one])(IMAGES), one(IMAGES))


def test_grad_cam_sees_every_member():
    """A member whose head is 0 adds no heat; equal members give the heat of one."""
    one, silent = network(0), network(1)
    torch.nn.init.zeros_(silent.head[-1].weight)
    image = IMAGES[:1]

    def of(model):
        return grad_cam(model, image, lambda out: out[0, 0])

    torch.testing.assert_close(of(Committee([one, silent])), of(one))
    torch.testing.assert_close(of(Committee([one, one])), of(one))
    assert of(Committee([network(2), one])).tolist() != of(one).tolist()


def test_a_committee_of_none_is_refused():
    with pytest.raises(ValueError, match="no networks"):
        Committee([])
