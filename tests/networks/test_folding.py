import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from medtl.networks.backbones import build_classifier
from medtl.networks.batch_norm import hold_in_eval, set_policy
from medtl.networks.folding import Pair, foldable, folded
from medtl.networks.weights import WeightsSource

X = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
CLOSE = {"rtol": 1e-8, "atol": 1e-10}
"""In double precision, where a difference is no rounding."""


def used(norm):
    """A norm layer as a pretrained one: no statistic and no scale is what it was made with."""
    with torch.no_grad():
        norm.running_mean.normal_(0, 0.5)
        norm.running_var.uniform_(0.3, 3)
        norm.weight.uniform_(-1, 2)
        norm.bias.normal_()
    hold_in_eval(norm)
    return norm


def pair(conv=None):
    torch.manual_seed(1)
    return nn.Sequential(conv or nn.Conv2d(3, 8, 3), used(nn.BatchNorm2d(8)), nn.ReLU())


def pretrained(name):
    torch.manual_seed(0)
    network, _ = build_classifier(name, outputs=2, weights=WeightsSource("none"))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        used(norm)
        norm.running_var.mul_(4)  # so that 50 layers do not blow up
    set_policy(norms, "frozen_stats")
    return network.train().double(), len(norms)


def outputs_and_gradients(network, images):
    network.zero_grad()
    images = images.clone().requires_grad_()
    outputs = network(images)
    outputs.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    return outputs.detach(), {"images": images.grad, **gradients}


def test_by_hand():
    """W = 3, b = 1; gamma 2, beta 5, mean 4, variance 0.2, eps 0.05: 2 (3x + 1 - 4) / 0.5 + 5."""
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.05)
    with torch.no_grad():
        for tensor, value in (
            *((conv.weight, 3.0), (conv.bias, 1.0), (norm.weight, 2.0), (norm.bias, 5.0)),
            *((norm.running_mean, 4.0), (norm.running_var, 0.2)),
        ):
            tensor.fill_(value)
    hold_in_eval(norm)
    network = nn.Sequential(conv, norm)
    one = torch.ones(1, 1, 1, 1)
    with folded(network, one) as pairs:
        assert pairs == [Pair(conv, norm)]
        result = network(7 * one)
    assert result.item() == pytest.approx(2 * (3 * 7 + 1 - 4) / 0.5 + 5)
    result.backward()  # d/dW = 4 x, d/db = 4, d/dgamma = 18 / 0.5, d/dbeta = 1
    found = [conv.weight.grad, conv.bias.grad, norm.weight.grad, norm.bias.grad]
    assert [g.item() for g in found] == pytest.approx([28, 4, 36, 1])


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "test_resnet", "resnet18", "densenet121"]
)
def test_outputs_and_gradients_are_those_of_the_layers_one_by_one(name):
    """Strided, grouped and padded as TensorFlow does; before what takes the sum of two branches."""
    network, norms = pretrained(name)
    images = X.double()
    plain, gradients = outputs_and_gradients(network, images)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with folded(network, images[:1]) as pairs:
        merged, of_merged = outputs_and_gradients(network, images)
        assert list(network.state_dict()) == list(before)
    # A norm before its convolution, as densenet has them, stays what it is.
    assert len(pairs) == norms if name != "densenet121" else 50 < len(pairs) < norms
    torch.testing.assert_close(merged, plain, **CLOSE)
    torch.testing.assert_close(of_merged, gradients, **CLOSE)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(network(images), plain)  # afterwards to the bit


def test_a_scale_of_zero_has_its_gradient():
    """Zero-gamma: the merged weights are 0, and what gamma should do is still found."""
    network, images = pair().double(), X.double()
    nn.init.zeros_(network[1].weight)
    _, plain = outputs_and_gradients(network, images)
    with folded(network, images[:1]):
        _, merged = outputs_and_gradients(network, images)
    assert plain["1.weight"].abs().max() > 0
    torch.testing.assert_close(merged, plain, **CLOSE)


class Tapped(nn.Module):
    """What the convolution gives is used beside its norm; `share` of it is seen in the output."""

    def __init__(self, share):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), used(nn.BatchNorm2d(8))
        self.share = share

    def forward(self, images):
        found = self.conv(images)
        return self.norm(found) + self.share * found


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_convolution_that_others_use_is_left_alone(share):
    """Also where nothing of it can be seen yet: no comparison of outputs would notice."""
    network = Tapped(share)
    assert foldable(network, X[:1]) == []
    assert len(foldable(pair(), X[:1])) == 1


class Joined(Tapped):
    """The other use takes several tensors in a list."""

    def forward(self, images):
        found = self.conv(images)
        return torch.cat([self.norm(found), found], dim=1)


def test_a_use_within_a_list_is_a_use():
    assert foldable(Joined(1.0), X[:1]) == []


class Shared(nn.Module):
    """One convolution before two norms, as the heads of a pyramid have it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norms = nn.ModuleList([used(nn.BatchNorm2d(8)), used(nn.BatchNorm2d(8))])

    def forward(self, images):
        return sum(norm(self.conv(images)) for norm in self.norms)


def test_a_convolution_that_is_used_twice_is_left_alone():
    assert foldable(Shared(), X[:1]) == []


class Standardised(nn.Conv2d):
    """Undoes any scale of its weights."""

    def forward(self, images):
        weight = self.weight / self.weight.std()
        return nn.functional.conv2d(images, weight, self.bias)


class Own(nn.BatchNorm2d):
    """Does something after its norm that is not known here."""

    def forward(self, images):
        return super().forward(images).tanh()


def test_layers_that_do_more_are_left_alone():
    assert foldable(pair(Standardised(3, 8, 3)), X[:1]) == []
    assert foldable(nn.Sequential(nn.Conv2d(3, 8, 3), used(Own(8))), X[:1]) == []
    behind = pair()
    parametrize.register_parametrization(behind[0], "weight", nn.Identity())
    assert foldable(behind, X[:1]) == []


def test_a_norm_that_follows_the_data_is_left_alone():
    network = pair()
    set_policy([network[1]], "adapt")
    assert foldable(network.train(), X[:1]) == []


def test_weights_that_do_not_train_keep_their_bits_and_need_no_gradient():
    network = pair()
    network[0].requires_grad_(False)
    assert foldable(network, X[:1]) == []


def test_an_affine_norm_without_scale_and_a_volume():
    norm = nn.BatchNorm3d(4, affine=False)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    hold_in_eval(norm)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, bias=False), norm)
    volume = torch.randn(2, 1, 8, 8, 8)
    plain = network(volume)
    with folded(network, volume) as pairs:
        assert len(pairs) == 1
        torch.testing.assert_close(network(volume), plain, rtol=1e-4, atol=1e-5)


def test_an_error_leaves_the_layers_as_they_were():
    network = pair()
    names = set(vars(network[0]))
    with pytest.raises(ZeroDivisionError), folded(network, X[:1]):
        raise ZeroDivisionError
    assert set(vars(network[0])) == names
    with folded(network, X[:1]), pytest.raises(RuntimeError):
        network(torch.zeros(1, 2, 9, 9))
    assert isinstance(network[0].weight, nn.Parameter)
    assert torch.equal(copy.deepcopy(network)(X), network(X))
