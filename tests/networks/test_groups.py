import pytest
import torch
from torch import nn

from medtl.networks.backbones import Classifier
from medtl.networks.groups import layer_groups

EXPECTED = {
    "resnet18": ["stem", "layer1", "layer2", "layer3", "layer4", "head"],
    "densenet121": ["stem", *(f"features.denseblock{i}" for i in (1, 2, 3, 4)), "head"],
    "tf_efficientnet_lite0": ["stem", *(f"blocks.{i}" for i in range(7)), "head"],
    "convnext_atto": ["stem", *(f"stages.{i}" for i in range(4)), "head"],
    "vit_tiny_patch16_224": ["stem", *(f"blocks.{i}" for i in range(12)), "head"],
    "resnetv2_50": ["stem", *(f"stages.{i}" for i in range(4)), "head"],
    "inception_resnet_v2": None,  # its matcher is a function
    "vgg11_bn": None,
}


def skeleton(name: str) -> Classifier:
    """A network without storage: only names and shapes matter here."""
    import timm

    with torch.device("meta"):
        backbone = timm.create_model(name, num_classes=0)
        return Classifier(backbone, nn.Linear(backbone.head_hidden_size, 2))


@pytest.mark.parametrize("name", EXPECTED)
def test_groups_hold_every_tensor_exactly_once_in_forward_order(name):
    model = skeleton(name)
    groups = layer_groups(model)
    parameters = [p for group in groups for p in group.parameters]
    buffers = [b for group in groups for b in group.buffers]
    assert sorted(parameters) == sorted(n for n, _ in model.named_parameters())
    assert sorted(buffers) == sorted(n for n, _ in model.named_buffers())
    assert [group.stage for group in groups] == list(range(len(groups)))
    names = [group.name for group in groups]
    assert len(set(names)) == len(names)
    assert names[0] == "stem"
    assert names[-1] == "head"
    assert EXPECTED[name] in (None, names)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_module_is_in_one_group_or_spans_several(name):
    model = skeleton(name)
    groups = layer_groups(model)
    inside = [m for group in groups for m in group.modules]
    assert len(set(inside)) == len(inside)
    spanning = {n for n, _ in model.named_modules()} - set(inside)
    for module_name in spanning:
        module = model.get_submodule(module_name)
        owners = {
            group.name
            for group in groups
            for tensor in group.parameters
            if not module_name or tensor.startswith(f"{module_name}.")
        }
        assert len(owners) > 1, (module_name, type(module))


def test_buffers_stay_with_their_layer():
    groups = {group.name: group for group in layer_groups(skeleton("tf_efficientnet_lite0"))}
    assert "backbone.blocks.5.3.bn3.running_mean" in groups["blocks.5"].buffers
    assert "backbone.conv_head.weight" in groups["blocks.6"].parameters
    assert "backbone.bn2.num_batches_tracked" in groups["blocks.6"].buffers


def test_a_last_norm_joins_the_layers_it_normalises():
    assert "backbone.features.norm5.weight" in layer_groups(skeleton("densenet121"))[-2].parameters
    assert "backbone.head.norm.weight" in layer_groups(skeleton("convnext_atto"))[-2].parameters


def test_modules_without_tensors_follow_their_parent_or_the_module_before(toy):
    groups = {group.name: group for group in layer_groups(toy)}
    assert "backbone.pos_drop" in groups["stem"].modules
    assert "backbone.blocks.2.drop" in groups["blocks.2"].modules
    assert "head.0" in groups["head"].modules
    assert "backbone.norm" in groups["blocks.3"].modules


def test_a_group_name_inside_the_backbone_never_shadows_the_head():
    names = [group.name for group in layer_groups(skeleton("selecsls42"))]
    assert names[-2:] == ["backbone.head", "head"]


def test_a_network_that_describes_nothing_has_its_children_as_groups():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    groups = layer_groups(model)
    assert [group.name for group in groups] == ["0", "2", "3"]
    assert groups[0].modules == ("0", "1")


def test_a_bare_timm_network_is_divided_too():
    import timm

    with torch.device("meta"):
        model = timm.create_model("resnet18", num_classes=0)
    assert [g.name for g in layer_groups(model)] == EXPECTED["resnet18"][:-1]
