import pytest
import torch

from medtl.errors import SelectorError
from medtl.networks.backbones import Classifier, build_classifier
from medtl.networks.groups import layer_groups
from medtl.networks.truncation import truncate
from medtl.networks.weights import WeightsSource


def build(name: str, until: str | None) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(name, outputs=2, weights=WeightsSource("none"), reuse_until=until)[0]


@pytest.mark.parametrize(
    ("name", "until", "width", "groups"),
    [
        ("resnet18", "layer2", 128, ["stem", "layer1", "layer2"]),
        ("tf_efficientnet_lite0", "frac:0-0.5", 40, ["stem", *(f"blocks.{i}" for i in range(3))]),
        ("convnext_atto", "stages.1", 80, ["stem", "stages.0", "stages.1"]),
        ("densenet121", "features.denseblock1", 128, ["stem", "features.denseblock1"]),
        ("vit_tiny_patch16_224", "blocks.1", 192, ["stem", "blocks.0", "blocks.1"]),
    ],
)
def test_a_backbone_ends_where_it_is_asked_to(name, until, width, groups):
    model = build(name, until).eval()
    assert [group.name for group in layer_groups(model)] == [*groups, "head"]
    assert model.head.linear.in_features == width
    images = torch.randn(1, 3, 224, 224)
    assert model(images).shape == (1, model.head.linear.out_features)


def test_what_is_left_computes_what_it_did():
    whole, cut = build("resnet18", None).eval(), build("resnet18", "layer3").eval()
    seen = []
    whole.backbone.layer3.register_forward_hook(lambda *args: seen.append(args[2]))
    images = torch.randn(1, 3, 64, 64)
    whole(images)
    assert torch.equal(cut.features(images), seen[0].mean((2, 3)))
    assert build("resnet18", "layer4").head.linear.in_features == 512


def test_a_group_that_is_not_there_is_refused():
    with pytest.raises(SelectorError, match="'layer7' selects no layer; expected one of stem"):
        build("resnet18", "layer7")
    with pytest.raises(SelectorError, match="no layer is left; expected one of stem"):
        build("resnet18", "none")


def test_a_network_that_cannot_end_early_is_refused():
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer1, self.layer2 = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 8, 1)
            self.last = torch.nn.Bilinear(8, 8, 2)

        def group_matcher(self, coarse: bool) -> dict[str, str]:
            assert coarse
            return {"stem": r"^layer1", "blocks": r"^layer(\d)", "top": r"^last"}

        def forward(self, x):
            return self.layer2(self.layer1(x)).mean((2, 3))[:, :8].reshape(-1, 8)

    with pytest.raises(SelectorError, match="this network cannot end after"):
        truncate(Fixed(), "first:1", (3, 4, 4))
