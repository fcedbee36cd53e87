"""Zero-gamma: what it changes, what it must not, and that it can be undone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from medtl.errors import SelectorError
from medtl.networks.backbones import Classifier, build_classifier
from medtl.networks.residual import call_of
from medtl.networks.segmenter import build_segmenter
from medtl.networks.weights import WeightsSource
from medtl.networks.zero_gamma import (
    GammaSurgery,
    Removal,
    removal_of,
    remove,
    select_blocks,
)
from medtl.types import ZeroGamma

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def classifier(name: str) -> Classifier:
    """A network whose gammas and betas are random (timm starts some gammas at 0)."""
    torch.manual_seed(0)
    model, _ = build_classifier(name, outputs=2, weights=WeightsSource("none"))
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    return model.eval()


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}


NAMES = ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"]
NAMES += ["layer4.0", "layer4.1"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("last:3", NAMES[-3:]),
        ("first:1", NAMES[:1]),
        ("middle:2", NAMES[3:5]),
        ("stage:4", NAMES[-2:]),
        ("frac:0.75-1", NAMES[-2:]),
        ("layer3.*,!layer3.1", ["layer3.0"]),
        ("/layer[12]\\.1/", ["layer1.1", "layer2.1"]),
        (["layer1.0", "name:layer4.1"], ["layer1.0", "layer4.1"]),
        ("all", NAMES),
        ("none", []),
    ],
)
def test_the_grammar_speaks_of_eligible_blocks(selector, expected):
    blocks = select_blocks(classifier("resnet18"), IMAGES, selector)
    assert [block.name for block in blocks] == expected


def test_a_random_choice_is_a_function_of_its_seed():
    model = classifier("resnet18")
    chosen = [
        [block.name for block in select_blocks(model, IMAGES, f"random:3@{seed}")]
        for seed in (1, 1, 2)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] == sorted(chosen[0], key=NAMES.index)


@pytest.mark.parametrize(
    ("selector", "match"),
    [
        ("blocks.1.0", r"blocks.1.0 has no shortcut: at gamma 0 .*expected one of blocks.1.1, "),
        ("blocks.6.0", "blocks.6.0 has no shortcut"),
        ("blocks.9.0", r"'blocks.9.0' selects no layer; expected one of blocks.1.1, blocks.2.1"),
        ("last:10", r"'last:10' selects no layer; expected one of blocks.1.1"),
    ],
)
def test_what_is_not_eligible_is_refused_with_what_is(selector, match):
    """science.md 2.8 test 6: EfficientNet's blocks without a skip."""
    with pytest.raises(SelectorError, match=match):
        select_blocks(classifier("tf_efficientnet_lite0"), IMAGES, selector)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("densenet121", "does not apply to this network: it joins features by concatenation"),
        ("vgg11_bn", "does not apply to this network: it has no shortcuts"),
    ],
)
def test_networks_without_shortcuts_are_refused(name, match):
    """science.md 2.8 test 6: DenseNet and VGG."""
    model = classifier(name)
    with pytest.raises(SelectorError, match=match):
        select_blocks(model, IMAGES[:, :, :32, :32], "last:1")
    assert select_blocks(model, IMAGES[:, :, :32, :32], "none") == ()


def test_a_decoder_is_not_eligible_and_norms_without_gamma_say_so():
    net, _ = build_segmenter(
        "segresnet_3d", outputs=2, patch=(16,) * 3, weights=WeightsSource("none")
    )
    blocks = select_blocks(net, torch.randn(1, 1, 16, 16, 16), "all")
    assert {block.name.split(".")[0] for block in blocks} == {"down_layers"}
    net, _ = build_segmenter("unet_3d", outputs=2, patch=(16,) * 3, weights=WeightsSource("none"))
    with pytest.raises(SelectorError, match="the norm at the end of its branch has no gamma"):
        select_blocks(net, torch.randn(1, 1, 16, 16, 16), "all")


@pytest.mark.parametrize(
    ("plan", "gamma", "beta"),
    [
        (ZeroGamma("last:2"), lambda g: g * 0, lambda b: b),
        (ZeroGamma("last:2", beta="zero"), lambda g: g * 0, lambda b: b * 0),
        (ZeroGamma("last:2", value=1.0), torch.ones_like, lambda b: b),
        (ZeroGamma("last:2", "scale:0.1"), lambda g: g * 0.1, lambda b: b),
        (ZeroGamma("last:2", "scale:0.5", "zero"), lambda g: g * 0.5, lambda b: b * 0),
    ],
    ids=["zero", "zero-both", "one", "scale-0.1", "scale-0.5-beta-zero"],
)
def test_exactly_gamma_and_beta_of_the_chosen_change_and_come_back(plan, gamma, beta):
    model = classifier("resnet18")
    before = bits(model)
    surgery = GammaSurgery(model, plan, IMAGES)
    assert changed(model, before) == set(), "looking changes nothing"
    for _ in range(2):
        surgery.apply(model)
        after = model.state_dict()
        for block in ("layer4.0", "layer4.1"):
            weight, bias = f"backbone.{block}.bn2.weight", f"backbone.{block}.bn2.bias"
            assert torch.equal(after[weight], gamma(before[weight])), "twice is once"
            assert torch.equal(after[bias], beta(before[bias]))
        expected = {f"backbone.{b}.bn2.weight" for b in ("layer4.0", "layer4.1")}
        if plan.beta == "zero":
            expected |= {name.replace("weight", "bias") for name in expected}
        assert changed(model, before) == expected
    surgery.undo(model)
    assert changed(model, before) == set()
    assert surgery.originals == {}


def test_the_originals_of_a_checkpoint_undo_a_trained_network():
    """What a checkpoint keeps is enough, also after gamma has moved on."""
    model = classifier("resnet18")
    before = bits(model)
    first = GammaSurgery(model, ZeroGamma("last:1"), IMAGES)
    first.apply(model)
    with torch.no_grad():
        model.backbone.layer4[1].bn2.weight.add_(0.01)
    later = GammaSurgery(model, ZeroGamma("last:1"), IMAGES)
    later.originals = first.originals
    later.undo(model)
    assert changed(model, before) == set()


def test_beta_is_what_a_silent_branch_adds():
    """Mean ablation: y = x + beta with beta kept, y = x without (science.md 2.5)."""
    model = classifier("tf_efficientnet_lite0")
    (block,) = select_blocks(model, IMAGES, "blocks.5.3")
    beta = model.backbone.blocks[5][3].bn3.bias.detach().clone()
    for keep, expected in (("keep", beta), ("zero", torch.zeros_like(beta))):
        surgery = GammaSurgery(model, ZeroGamma("blocks.5.3", beta=keep), IMAGES)
        surgery.apply(model)
        (x,), y = call_of(model, block, IMAGES)
        torch.testing.assert_close(y, x + expected[:, None, None], rtol=1e-6, atol=1e-6)
        surgery.undo(model)
    (x,), y = call_of(model, block, IMAGES)
    assert (y - x - beta[:, None, None]).abs().max() > 1e-2, "the branch did matter"


def test_after_one_step_of_gamma_the_branch_learns_again():
    """science.md 2.8 test 5: the branch's gradient is 0, and after a step of gamma it is not."""
    model = classifier("resnet18")
    GammaSurgery(model, ZeroGamma("layer4.1"), IMAGES).apply(model)
    last = model.backbone.layer4[1]
    sizes = []
    for _ in range(2):
        model.zero_grad()
        model(IMAGES).square().sum().backward()
        sizes.append(float(last.conv2.weight.grad.abs().max()))
        assert last.bn2.weight.grad.abs().max() > 0
        with torch.no_grad():
            last.bn2.weight.sub_(last.bn2.weight.grad)
    assert sizes[0] == 0 < sizes[1]


def test_a_pre_activation_branch_is_treated_at_its_last_layer():
    model = classifier("resnetv2_50")
    nn.init.normal_(model.backbone.stages[3].blocks[2].conv3.weight)
    before = bits(model)
    surgery = GammaSurgery(model, ZeroGamma("last:1"), IMAGES)
    surgery.apply(model)
    assert changed(model, before) == {"backbone.stages.3.blocks.2.conv3.weight"}
    assert not model.backbone.stages[3].blocks[2].conv3.weight.any()
    with pytest.raises(SelectorError, match=r"ends in .*conv3.weight, which is no gamma"):
        GammaSurgery(model, ZeroGamma("last:1", value=1.0), IMAGES)
    GammaSurgery(model, ZeroGamma("last:1", "scale:0.1"), IMAGES)


def test_the_last_layer_takes_its_bias_along():
    model = classifier("convnextv2_atto")
    surgery = GammaSurgery(model, ZeroGamma("last:1", "scale:0.5"), IMAGES)
    layer = model.backbone.stages[3].blocks[1].mlp.fc2
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    surgery.apply(model)
    assert torch.equal(layer.weight, weight * 0.5)
    assert torch.equal(layer.bias, bias * 0.5)
    assert surgery.rates == {"backbone.stages.3.blocks.1.mlp.fc2.weight": 1.0}
    surgery.undo(model)
    assert surgery.rates == {}, "what is not operated on is trained like everything else"


def test_a_scale_that_standardised_weights_undo_is_refused():
    model = classifier("resnetv2_50x1_bit")
    nn.init.normal_(model.backbone.stages[3].blocks[2].conv3.weight)
    with pytest.raises(SelectorError, match="standardises its weights, which undoes any scale"):
        GammaSurgery(model, ZeroGamma("last:1", "scale:0.1"), IMAGES)
    GammaSurgery(model, ZeroGamma("last:1"), IMAGES)


def test_when_it_is_due():
    surgery = GammaSurgery(classifier("resnet18"), ZeroGamma("last:1"), IMAGES)
    assert [surgery.is_due(name, n) for n, name in enumerate(("head", "full"))] == [True, False]
    surgery.plan = replace(surgery.plan, when="full")
    assert [surgery.is_due(name, n) for n, name in enumerate(("head", "full"))] == [False, True]


def test_what_it_says_of_itself():
    model = classifier("resnet18")
    surgery = GammaSurgery(model, ZeroGamma("layer3.1,last:1", "scale:0.1", "zero"), IMAGES)
    assert surgery.actions == {
        "layer3": "gamma x 0.1, beta = 0: layer3.1",
        "layer4": "gamma x 0.1, beta = 0: layer4.1",
    }
    before = surgery.sizes(model)
    gamma = model.backbone.layer4[1].bn2.weight
    assert before["layer4.1"] == pytest.approx(gamma.mean().item())
    surgery.apply(model)
    assert surgery.sizes(model)["layer4.1"] == pytest.approx(0.1 * before["layer4.1"])


@pytest.mark.parametrize(
    ("name", "selector"),
    [("resnet18", "all"), ("tf_efficientnet_lite0", "all"), ("convnext_atto", "last:2")],
)
def test_removal_leaves_what_gamma_and_beta_zero_leave(name, selector):
    silent, removed = classifier(name), classifier(name)
    GammaSurgery(silent, ZeroGamma(selector, beta="zero"), IMAGES).apply(silent)
    surgery = GammaSurgery(removed, ZeroGamma(selector, "remove"), IMAGES)
    surgery.remove_blocks(removed)
    assert (silent(IMAGES) - removed(IMAGES)).abs().max() <= 1e-5
    counts = [sum(p.numel() for p in model.parameters()) for model in (silent, removed)]
    assert counts[1] < counts[0]
    assert surgery.treated == ()
    again = classifier(name)
    for removal in surgery.removed:
        remove(again, Removal(**removal.to_dict()))
    again.load_state_dict(removed.state_dict())
    assert torch.equal(again(IMAGES), removed(IMAGES))


def test_a_shortcut_that_is_no_layer_of_its_own_cannot_be_left_alone():
    """A pre-activation block's projection reads what the block's own first norm makes."""
    model = classifier("resnetv2_50")
    (block,) = select_blocks(model, IMAGES, "stages.3.blocks.0")
    with pytest.raises(SelectorError, match=r"stages.3.blocks.0 cannot be removed"):
        removal_of(model, block, IMAGES)
    (block,) = select_blocks(model, IMAGES, "stages.3.blocks.1")
    assert removal_of(model, block, IMAGES) == Removal("backbone.stages.3.blocks.1")
