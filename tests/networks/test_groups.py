import pytest
import torch
from torch import nn

from medtl.networks.backbones import Classifier
from medtl.networks.groups import layer_groups, short_name
from medtl.networks.names import check_backbone
from medtl.networks.segmenter import build_segmenter
from medtl.networks.weights import WeightsSource

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


@pytest.mark.parametrize(
    ("name", "last", "joined"),
    [
        ("selecsls42", "features.5", "backbone.head.0.0.weight"),
        ("efficientvit_b0", "stages.3", "backbone.head.classifier.0.weight"),
        ("inception_next_atto", "stages.3", "backbone.head.fc1.weight"),
        ("test_mambaout", "stages.3", "backbone.head.norm.weight"),
        ("eva02_tiny_patch14_224", "blocks.11", "backbone.fc_norm.weight"),
        ("efficientvim_m1", "stages.2", "backbone.weights"),
    ],
)
def test_the_last_group_is_a_stage_and_no_lone_norm_or_inner_head(name, last, joined):
    """`last:1` was 384 of 5.5 million numbers (a norm), or a group named backbone.head."""
    *_, below, head = layer_groups(skeleton(name))
    assert (below.name, head.name) == (last, "head")
    assert joined in below.parameters
    assert all(parameter.startswith("head.") for parameter in head.parameters)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("cait_xxs24_224", "blocks.23"),
        ("pit_ti_224", "transformers.2"),
        ("poolformer_s12", "stages.3"),
        ("rdnet_tiny", "dense_stages.6"),
        ("csatv2", "stages.3"),
    ],
)
def test_networks_that_describe_their_parts_in_half_are_divided_too(name, last):
    check_backbone(name)
    names = [group.name for group in layer_groups(skeleton(name))]
    assert names[-2:] == [last, "head"]
    assert len(set(names)) == len(names) >= 5


def test_a_network_that_describes_nothing_has_its_children_as_groups():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    groups = layer_groups(model)
    assert [group.name for group in groups] == ["0", "3"], "a norm joins what it normalises"
    assert groups[0].modules == ("0", "1", "2")


def test_a_bare_timm_network_is_divided_too():
    import timm

    with torch.device("meta"):
        model = timm.create_model("resnet18", num_classes=0)
    assert [g.name for g in layer_groups(model)] == EXPECTED["resnet18"][:-1]


def monai(name: str) -> nn.Module:
    """A network of MONAI, small where its size is free."""
    from monai.networks import nets

    made = {
        "resnet10 3D": lambda: nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=2),
        "resnet18 2D": lambda: nets.resnet18(spatial_dims=2, n_input_channels=3, num_classes=2),
        "seresnet50": lambda: nets.SEResNet50(spatial_dims=2, in_channels=1, num_classes=2),
        "segresnet": lambda: nets.SegResNet(3, 8),
        "densenet121": lambda: nets.DenseNet121(2, 1, 2),
        "efficientnet": lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False),
        "unet": lambda: nets.UNet(3, 1, 2, (4, 8, 16, 32), (2, 2, 2), num_res_units=2),
    }
    return made[name]()


LAYERS = [f"layer{i}" for i in (1, 2, 3, 4)]
DENSE = [f"features.denseblock{i}" for i in (1, 2, 3, 4)]

MONAI = {
    "resnet10 3D": (LAYERS, (1, 32, 32, 32)),
    "resnet18 2D": (LAYERS, (3, 32, 32)),
    "seresnet50": (LAYERS, (1, 64, 64)),
    "segresnet": ([f"down_layers.{i}" for i in range(4)], (1, 16, 16, 16)),
    "densenet121": (DENSE, (1, 32, 32)),
    "efficientnet": ([f"_blocks.{i}" for i in range(7)], (3, 32, 32)),
    "unet": (["level1", "level2", "level3"], (1, 16, 16, 16)),
}


def check_forward_order(model: nn.Module, shape: tuple[int, ...]) -> None:
    """The first module of each group runs before the first of the next."""
    groups = layer_groups(model)
    group_of = {name: group.name for group in groups for name in group.modules}
    order = []
    for name, module in model.named_modules():
        if name in group_of and next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(lambda *_, g=group_of[name]: order.append(g))
    with torch.no_grad():
        model.eval()(torch.randn(1, *shape))
    assert list(dict.fromkeys(order)) == [group.name for group in groups]


def check_complete(model: nn.Module) -> None:
    """Every parameter and buffer stands in one group."""
    groups = layer_groups(model)
    inside = [name for group in groups for name in (*group.parameters, *group.buffers)]
    tensors = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    assert sorted(inside) == sorted(tensors)


@pytest.mark.parametrize("name", MONAI)
def test_networks_of_monai_are_divided_in_forward_order(name):
    model = monai(name)
    body, shape = MONAI[name]
    assert [group.name for group in layer_groups(model)] == ["stem", *body, "head"]
    check_complete(model)
    check_forward_order(model, shape)


SEGMENTERS = {
    "resnet18": LAYERS,
    "tf_efficientnet_lite0": [f"blocks.{i}" for i in range(7)],
    "convnext_atto": [f"stages_{i}" for i in range(4)],
    "densenet121": [f"features_denseblock{i}" for i in (1, 2, 3, 4)],
}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_the_decoder_of_a_segmenter_is_its_head(name):
    model, _ = build_segmenter(name, outputs=2, patch=(64, 64), weights=WeightsSource("none"))
    groups = layer_groups(model)
    assert [group.name for group in groups] == ["stem", *SEGMENTERS[name], "head"]
    parts = {parameter.split(".")[1] for parameter in groups[-1].parameters}
    assert parts == {"decoder", "segmentation_head"}
    check_complete(model)
    check_forward_order(model, (3, 64, 64))


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_encoders_of_smp_itself_are_divided_too(name):
    import segmentation_models_pytorch as smp

    model = smp.Unet(name, encoder_weights=None)
    body = {"resnet18": LAYERS, "densenet121": DENSE}[name]
    assert [group.name for group in layer_groups(model)] == ["stem", *body, "head"]
    check_complete(model)


@pytest.mark.parametrize("name", ["segresnet_3d", "resnet10_3d", "unet_3d"])
def test_volume_networks_behind_the_wrapper(name):
    model, _ = build_segmenter(name, outputs=2, patch=(32,) * 3, weights=WeightsSource("none"))
    names = [group.name for group in layer_groups(model)]
    assert names[0] == "stem"
    assert names[-1] == "head"
    assert len(names) in (5, 6)
    check_complete(model)


def test_a_parameter_of_a_wrapper_itself_is_a_group():
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.token = nn.Parameter(torch.zeros(3))
    model.backbone.layer1 = nn.Linear(3, 3)
    model.head = nn.Linear(3, 1)
    assert [group.name for group in layer_groups(model)] == ["backbone.token", "layer1", "head"]


def test_names_are_as_a_user_types_them():
    assert short_name("network.encoder.model.layer4.1") == "layer4.1"
    assert short_name("backbone.blocks.5.3") == "blocks.5.3"
    assert short_name("head") == "head"
