"""Residual blocks are found by what a network does, and only those whose branch can fall silent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medtl.networks.residual import ResidualBlock, call_of, modules_after, silenced, survey


def timm_network(name: str) -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0)


def monai_resnet() -> nn.Module:
    from monai.networks.nets import resnet10

    return resnet10(spatial_dims=3, n_input_channels=1, num_classes=2)


def monai_segresnet() -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(3, 8)


def monai_seresnet() -> nn.Module:
    from monai.networks.nets import SEResNet50

    return SEResNet50(spatial_dims=2, in_channels=1, num_classes=2)


def smp_unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None)


PLANE, VOLUME, GREY = (3, 64, 64), (1, 16, 16, 16), (1, 64, 64)

FAMILIES = {
    # name: (factory, input, number of blocks, last layer of the last one, its kind)
    "resnet18": (timm_network, PLANE, 8, "layer4.1.bn2", "gamma"),
    "resnet26d": (timm_network, PLANE, 8, "layer4.1.bn3", "gamma"),
    "seresnet18": (timm_network, PLANE, 8, "layer4.1.bn2", "gamma"),
    "tf_efficientnet_lite0": (timm_network, PLANE, 9, "blocks.5.3.bn3", "gamma"),
    "convnext_atto": (timm_network, PLANE, 12, "stages.3.blocks.1.gamma", "layer scale"),
    "convnextv2_atto": (timm_network, PLANE, 12, "stages.3.blocks.1.mlp.fc2", "last layer"),
    "resnetv2_50": (timm_network, PLANE, 16, "stages.3.blocks.2.conv3", "last layer"),
    "vit_tiny_patch16_224": (timm_network, (3, 224, 224), 12, "blocks.11.mlp.fc2", "last layer"),
    "3D ResNet": (monai_resnet, VOLUME, 4, "layer4.0.bn2", "gamma"),
    "SegResNet": (monai_segresnet, VOLUME, 12, "up_layers.2.0.conv2.conv", "last layer"),
    "SEResNet": (monai_seresnet, GREY, 16, "layer4.2.conv3.adn.N", "gamma"),
    "smp U-Net": (smp_unet, PLANE, 8, "layer4.1.bn2", "gamma"),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A network with random gammas (timm starts some at 0) and an input."""
    factory, shape, *_ = FAMILIES[name]
    model = factory(name) if factory is timm_network else factory()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return model, torch.randn(1, *shape, generator=generator)


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_are_found_in_every_family(name):
    model, images = made(name)
    before = {n: (t.clone(), t.requires_grad) for n, t in model.state_dict(keep_vars=True).items()}
    found = survey(model, images)
    _, _, count, last, kind = FAMILIES[name]
    assert len(found.blocks) == count
    scale = found.blocks[-1].scales[-1]
    assert scale.weight.removesuffix(".weight").endswith(last)
    assert scale.kind == kind
    assert model.training, "it is left as it was"
    for tensor_name, tensor in model.state_dict(keep_vars=True).items():
        assert torch.equal(tensor, before[tensor_name][0])
        assert tensor.requires_grad == before[tensor_name][1]


@pytest.mark.parametrize("name", FAMILIES)
def test_at_gamma_zero_and_beta_zero_a_block_is_its_shortcut(name):
    """science.md 2.8 test 5: output == shortcut, by a path that owes nothing to the search."""
    model, images = made(name)
    blocks = [b for b in survey(model, images).blocks if not b.shortcut]
    for block in (blocks[0], blocks[-1]) if blocks else ():
        with silenced(model, block):
            (inputs, *_), output = call_of(model, block, images)
        positive = (output - inputs.clamp(min=0)).abs().max()
        assert min((output - inputs).abs().max(), positive) <= 1e-6, block.name
        assert (call_of(model, block, images)[1] - output).abs().max() > 1e-3, "it did matter"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_silent_branch_has_no_gradient_but_gamma_has(name):
    """science.md 2.8 test 5: exactly 0 for the layers of the branch, not for gamma and beta."""
    model, images = made(name)
    block = survey(model, images).blocks[-1]
    parameters = dict(model.named_parameters())
    inside = {n for n in parameters if n.startswith(f"{block.module}.")}
    scales = {n for s in block.scales for n in (s.weight, s.bias) if n is not None}
    for name_in_block in scales:
        with torch.no_grad():
            parameters[name_in_block].zero_()
    model.eval()
    out = model(images)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    gradients = {n: float(parameters[n].grad.abs().max()) for n in inside}
    assert all(gradients[n] > 0 for n in scales)
    shortcut = {n for n in inside if block.shortcut and f".{block.shortcut}." in n}
    assert {n for n in inside - scales - shortcut if gradients[n] != 0} == set()


def test_the_search_names_the_projection():
    model, images = made("resnet18")
    blocks = {block.name: block for block in survey(model, images).blocks}
    assert blocks["layer2.0"].shortcut == "downsample"
    assert blocks["layer2.1"].shortcut == ""


@pytest.mark.parametrize(("name", "concatenates"), [("densenet121", True), ("vgg11_bn", False)])
def test_networks_without_shortcuts_have_no_blocks(name, concatenates):
    found = survey(timm_network(name), torch.randn(1, 3, 32, 32))
    assert found.blocks == ()
    assert found.concatenates is concatenates


class Block(nn.Module):
    """A branch, and how it is joined to its input."""

    def __init__(self, branch: nn.Module, join, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.join = branch, join
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.branch(x), self.shortcut(x))


def conv_norm(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm)


def found_in(block: nn.Module) -> tuple[tuple[ResidualBlock, ...], dict[str, str]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), block, nn.Conv2d(4, 2, 1))
    found = survey(model, torch.randn(1, 3, 12, 12))
    return found.blocks, dict(found.refused)


def add(branch: Tensor, shortcut: Tensor) -> Tensor:
    return branch + shortcut


def test_the_last_norm_of_a_plain_block():
    blocks, refused = found_in(Block(conv_norm(nn.BatchNorm2d(4)), add))
    assert [b.scales[0].weight for b in blocks] == ["1.branch.1.weight"]
    assert refused == {}


@pytest.mark.parametrize(
    "join",
    [
        lambda branch, shortcut: shortcut.add(branch),
        lambda branch, shortcut: torch.add(shortcut, branch),
        lambda branch, shortcut: branch.add_(shortcut),
        lambda branch, shortcut: nn.functional.relu(branch + shortcut, inplace=True),
        lambda branch, shortcut: branch * torch.sigmoid(branch.mean((2, 3), True)) + shortcut,
    ],
)
def test_every_way_to_add_is_seen(join):
    assert len(found_in(Block(conv_norm(nn.BatchNorm2d(4)), join))[0]) == 1


@pytest.mark.parametrize(
    "join",
    [
        lambda branch, _: branch,
        lambda branch, shortcut: branch * shortcut,
        lambda branch, shortcut: torch.cat((branch, shortcut), 1)[:, :4],
        lambda branch, shortcut: branch - shortcut,
        lambda branch, _: branch + 1,
        lambda branch, shortcut: branch + torch.ones_like(shortcut),
    ],
)
def test_what_is_no_residual_addition_is_not_taken_for_one(join):
    assert found_in(Block(conv_norm(nn.BatchNorm2d(4)), join)) == ((), {})


def test_equal_branches_have_no_shortcut():
    block = Block(conv_norm(nn.BatchNorm2d(4)), add, conv_norm(nn.BatchNorm2d(4)))
    assert found_in(block) == ((), {})


def test_a_path_around_the_last_layer_disqualifies_it():
    """The norm is the last layer of one of two paths inside the branch."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep, self.wide = conv_norm(nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.maximum(self.deep(x), self.wide(x))

    assert found_in(Block(Two(), add)) == ((), {})


def test_an_activation_that_is_not_zero_at_zero_is_caught_by_the_numbers():
    branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Sigmoid())
    blocks, refused = found_in(Block(branch, add))
    assert blocks == ()
    assert refused == {"1": "with its last layer at zero its branch still adds something"}


def test_a_shortcut_without_signal_is_caught_by_the_numbers():
    block = Block(conv_norm(nn.BatchNorm2d(4)), lambda branch, x: branch + (x * 0 + 3))
    blocks, refused = found_in(block)
    assert blocks == ()
    assert "carries no signal" in refused["1"]


def test_a_norm_without_gamma_is_refused():
    blocks, refused = found_in(Block(conv_norm(nn.InstanceNorm2d(4)), add))
    assert blocks == ()
    assert refused == {"1": "the norm at the end of its branch has no gamma"}


def test_what_runs_after_a_block():
    model, images = made("resnet18")
    block = survey(model, images).blocks[-2]
    after = modules_after(model, block, images)
    assert model.layer4[1].bn2 in after
    assert model.layer4[0].bn2 not in after
    assert model.conv1 not in after


@pytest.mark.slow
def test_a_module_that_a_network_calls_twice_is_surveyed_once():
    """CoaT shares its position encodings; their second sum was looked for in vain."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("coat_tiny", num_classes=0, img_size=64)
    found = survey(model, torch.rand(1, 3, 64, 64))
    names = [block.name for block in found.blocks]
    assert len(set(names)) == len(names)
    assert {"serial_blocks1.0", "serial_blocks4.1", "parallel_blocks.5"} <= set(names)
    for block in found.blocks:
        assert len({scale.weight for scale in block.scales}) == len(block.scales)
