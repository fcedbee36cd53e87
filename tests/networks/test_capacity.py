"""Parameters, operations and receptive fields, against published values and by hand."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn

from medtl.networks.backbones import build_classifier
from medtl.networks.capacity import Capacity, capacity, operations, receptive_field
from medtl.networks.weights import WeightsSource


def conv(kernel, stride=1, channels=4, first=None):
    return nn.Conv2d(first or channels, channels, kernel, stride, kernel // 2, bias=False)


class SlimBlock(nn.Module):
    """A bottleneck block as in TensorFlow's slim: the stride stands in its last convolution."""

    def __init__(self, stride):
        super().__init__()
        self.body = nn.Sequential(conv(1), nn.ReLU(), conv(3, stride), nn.ReLU(), conv(1))
        self.shortcut = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def slim_resnet(*blocks):
    layers = [conv(7, 2, first=3), nn.MaxPool2d(3, 2, 1)]
    for number, count in enumerate(blocks):
        layers += [SlimBlock(1) for _ in range(count - 1)]
        layers.append(SlimBlock(2 if number < len(blocks) - 1 else 1))
    return nn.Sequential(*layers)


def alexnet():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), conv(5), nn.MaxPool2d(3, 2)),
        *(conv(3), conv(3), conv(3), nn.MaxPool2d(3, 2)),
    )


def vgg16():
    layers, first = [], 3
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            layers += [conv(3, first=first), nn.ReLU()]
            first = None
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("network", "pixels"),
    [
        (alexnet(), 195),
        (vgg16(), 212),
        (slim_resnet(3, 4, 6, 3), 483),
        (slim_resnet(3, 4, 23, 3), 1027),
    ],
    ids=["AlexNet", "VGG-16", "ResNet-v1-50", "ResNet-v1-101"],
)
def test_published_receptive_fields(network, pixels):
    """Araujo, Norris and Sim 2019, table 1."""
    assert receptive_field(network, (3, 224, 224)) == pixels


def test_two_small_kernels_see_what_one_large_does_with_fewer_weights():
    two, one = nn.Sequential(conv(3), conv(3)), conv(5)
    assert (
        receptive_field(two, (4, 64, 64)) == receptive_field(nn.Sequential(one), (4, 64, 64)) == 5
    )
    sizes = [sum(p.numel() for p in net.parameters()) for net in (two, one)]
    assert sizes == [18 * 16, 25 * 16]


def test_a_stride_earlier_in_the_block_sees_less():
    """The negative control: torchvision's ResNet-50 is not that of the published table."""
    assert receptive_field(timm.create_model("resnet50", num_classes=0), (3, 224, 224)) == 427


def test_what_pools_or_attends_to_everything_sees_the_whole_image():
    network = timm.create_model("mobilenetv3_small_050", num_classes=0)
    assert receptive_field(network, (3, 64, 64)) == math.inf
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    assert receptive_field(vit, (3, 224, 224)) is None  # takes no image of another size
    assert "sees" not in Capacity(1, 1, None).words()


def test_a_volume_has_a_field_too():
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.MaxPool3d(2), nn.Conv3d(2, 2, 3))
    assert receptive_field(network, (1, 16, 16, 16)) == 8


def test_operations_count_each_multiplication_and_addition():
    assert operations(nn.Conv2d(3, 8, 3, padding=1, bias=False), (3, 10, 10)) == 2 * 27 * 8 * 100


def test_a_classifier_is_left_as_it_was():
    model = build_classifier("test_resnet", outputs=1, weights=WeightsSource("none"))[0].train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    found = capacity(model, (3, 64, 64))
    assert model.training
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.field_px == 167
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert found.field_mm(0.5) == 83.5
    assert found.words(0.5).endswith("each place sees 167 px (84 mm)")


def test_inputs_besides_the_image_are_counted():
    model = build_classifier(
        "test_resnet", outputs=1, weights=WeightsSource("none"), extra_features=2
    )[0]
    assert operations(model, (3, 64, 64)) > 0
