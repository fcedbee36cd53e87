import subprocess
import sys

import pytest
import torch

from medtl.errors import WeightsError
from medtl.networks.backbones import HEAD_STD, build_classifier
from medtl.networks.groups import layer_groups
from medtl.networks.names import backbone_names, check_backbone
from medtl.networks.weights import WeightsSource

SMALL = "mobilenetv3_small_050"


def build(**kwargs):
    torch.manual_seed(0)
    return build_classifier(SMALL, weights=WeightsSource("none"), **kwargs)[0]


def test_logits_come_from_pooled_features():
    model = build(outputs=3).eval()
    x = torch.randn(2, 3, 64, 64)
    features = model.features(x)
    assert model(x).shape == (2, 3)
    assert features.shape == (2, model.head.linear.in_features)
    torch.testing.assert_close(model(x), model.classify(features))


def test_a_new_head_has_zero_bias_and_small_normal_weights():
    head = build(outputs=200).head
    assert torch.equal(head.linear.bias, torch.zeros(200))
    assert head.linear.weight.std().item() == pytest.approx(HEAD_STD, rel=0.02)
    assert abs(head.linear.weight.mean().item()) < 1e-4


def test_extra_features_join_the_pooled_ones():
    model = build(outputs=1, extra_features=2).eval()
    x, extra = torch.randn(2, 3, 64, 64), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    with torch.no_grad():
        model.head.linear.weight.zero_()
        model.head.linear.weight[0, -1] = 5.0
    torch.testing.assert_close(model(x, extra), torch.full((2, 1), 5.0))


def test_dropout_is_in_the_head():
    model = build(outputs=1, dropout=0.5)
    assert model.head.dropout.p == 0.5
    assert [g.name for g in layer_groups(model)][-1] == "head"


def test_grey_images_need_one_channel():
    model = build(outputs=1, image=(1,)).eval()
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 1)


def test_the_bias_is_what_an_untrained_network_says():
    model = build(outputs=3).eval()
    with torch.no_grad():
        model.head.linear.weight.zero_()
    model.set_bias([-3.0, 0.0, 2.0])
    torch.testing.assert_close(model(torch.randn(1, 3, 64, 64)), torch.tensor([[-3.0, 0.0, 2.0]]))
    with pytest.raises(ValueError, match="1 values for 3 outputs"):
        model.set_bias([0.5])


def test_an_unknown_backbone_is_refused_with_the_nearest():
    with pytest.raises(
        WeightsError, match=r"'resnet_50' is no known backbone.*Did you mean.*resnet50"
    ):
        build_classifier("resnet_50", outputs=1, weights=WeightsSource("none"))
    with pytest.raises(WeightsError, match="'§§§' is no known backbone"):
        check_backbone("§§§")


def test_a_weights_tag_belongs_to_the_architecture():
    check_backbone("resnet50.a1_in1k")


def test_the_shipped_names_are_sorted_and_timm_knows_them():
    import timm

    names = backbone_names()
    assert list(names) == sorted(set(names))
    assert set(names) <= set(timm.list_models())
    expected = {"resnet50", "densenet121", "tf_efficientnet_lite0", "convnext_atto", "vgg16_bn"}
    assert expected <= set(names)


def test_names_are_checked_without_torch():
    code = (
        "import sys; from medtl.networks.names import check_backbone; check_backbone('resnet18');"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
