"""Segmenters: any size in, pretrained encoders, checkpoints, windows, frozen statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medtl.errors import WeightsError
from medtl.networks.backbones import build_classifier
from medtl.networks.batch_norm import hold_in_eval, tracks_statistics
from medtl.networks.names import VOLUME_NETWORKS, check_volume_network
from medtl.networks.pretrained.cards import NO_CARD
from medtl.networks.segmenter import DECODERS, Decoder, Segmenter, build_segmenter
from medtl.networks.weights import WeightsSource, create_backbone

torch.set_num_threads(1)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NONE = WeightsSource("none")
SMALL = "mobilenetv3_small_050"


def plane_segmenter(decoder: Decoder = "unet", weights: WeightsSource = NONE) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(SMALL, outputs=2, patch=(64, 64), weights=weights, decoder=decoder)[0]


class Stride(nn.Module):
    """Three outputs per pixel; refuses what cannot be halved twice, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 3, 3, padding=1)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        assert all(length % 4 == 0 for length in x.shape[2:])
        self.shapes.append(tuple(x.shape))
        result: Tensor = self.conv(x)
        return result


def test_bundled_weights_give_the_encoder_the_features_of_the_backbone() -> None:
    source = WeightsSource("bundled")
    model, report = build_segmenter(
        "tf_efficientnet_lite0", outputs=2, patch=(64, 64), weights=source
    )
    assert (report.missing, report.skipped) == ((), ())
    assert len(report.loaded) == 294 - 6
    assert "6 tensors after the last feature map" in report.notes[-1]
    body, _ = create_backbone("tf_efficientnet_lite0", source)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model.eval()
    body.eval()
    with torch.no_grad():
        pyramid = model.network.encoder(images)
        expected = body.forward_intermediates(images, intermediates_only=True)
    assert [f.shape[2] for f in pyramid] == [64, 32, 16, 8, 4, 2]
    for ours, theirs in zip(pyramid[1:], expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "convnext_atto"])
def test_encoders_whose_names_are_written_with_underscores_are_filled(
    name: str, tmp_path: Path
) -> None:
    body, _ = create_backbone(name, NONE)
    save_file(body.state_dict(), tmp_path / "body.safetensors")
    source = WeightsSource("file", tmp_path / "body.safetensors")
    model, report = build_segmenter(name, outputs=1, patch=(64, 64), weights=source)
    assert report.missing == ()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours = model.eval().network.encoder(images)[-1]
        theirs = body.eval().forward_intermediates(images, intermediates_only=True, norm=False)
    torch.testing.assert_close(ours, theirs[-1])


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_planes_of_any_size_keep_their_shape(decoder: Decoder) -> None:
    model = plane_segmenter(decoder)
    assert model.train()(torch.rand(2, 3, 64, 64)).shape == (2, 2, 64, 64)
    model.eval()
    with torch.no_grad():
        for shape in ((64, 64), (50, 70), (33, 33)):
            assert model(torch.rand(1, 3, *shape)).shape == (1, 2, *shape)


@pytest.mark.parametrize("name", ["unet_3d", "segresnet_3d", "resnet10_3d"])
def test_volumes_of_any_size_keep_their_shape(name: str) -> None:
    torch.manual_seed(0)
    model, report = build_segmenter(name, outputs=3, patch=(32, 32, 32), weights=NONE, width=4)
    assert "from scratch" in str(report)
    assert len(report.missing) == len(model.network.state_dict())
    assert model.train()(torch.rand(2, 1, 32, 32, 32)).shape == (2, 3, 32, 32, 32)
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 1, 35, 21, 30)).shape == (1, 3, 35, 21, 30)


@pytest.mark.parametrize("name", [*DECODERS, "unet_3d", "segresnet_3d", "resnet10_3d"])
def test_new_layers_have_no_statistics(name: str) -> None:
    """Frozen statistics of a layer that never saw an image would be 0 and 1 for ever."""
    if name in DECODERS:
        network = plane_segmenter(name).network
        assert any(tracks_statistics(m) for m in network.encoder.modules())
        new = [m for n, m in network.named_modules() if not n.startswith("encoder")]
    else:
        model, _ = build_segmenter(name, outputs=1, patch=(32, 32, 32), weights=NONE, width=4)
        new = list(model.network.modules())
    assert not any(tracks_statistics(module) for module in new)


def test_every_3d_network_has_a_maker() -> None:
    for name in VOLUME_NETWORKS:
        check_volume_network(name)
        # Shapes alone: the largest has 117 M parameters to draw.
        with pytest.raises(WeightsError, match="multiples of"), torch.device("meta"):
            build_segmenter(name, outputs=1, patch=(33, 33, 33), weights=NONE, width=4)


def test_an_image_is_padded_with_its_darkest_value_and_cut_back() -> None:
    model = Segmenter(nn.Identity(), patch=(8, 8), stride=8).eval()
    image = torch.rand(2, 3, 5, 11) - 3
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(model(image), image)
    padded = seen[0]
    assert padded.shape == (2, 3, 8, 16)
    assert torch.equal(padded.amin(dim=(2, 3)), image.amin(dim=(2, 3)))
    torch.testing.assert_close(padded[0, 0, 0, 0], image[0, 0].min())


def test_a_large_image_goes_through_in_windows_of_the_patch() -> None:
    network = Stride()
    model = Segmenter(network, patch=(16, 16, 16), stride=4).eval()
    volume = torch.rand(1, 1, 40, 16, 16)
    with torch.no_grad():
        windows = model(volume)
        whole = network.conv(volume)
    assert windows.shape == (1, 3, 40, 16, 16)
    assert {shape[2:] for shape in network.shapes} == {(16, 16, 16)}
    # Far from the borders of all windows the answer is that of the whole image.
    torch.testing.assert_close(windows[..., 12, 4:12, 4:12], whole[..., 12, 4:12, 4:12])


def test_an_image_smaller_than_two_patches_goes_through_at_once() -> None:
    network = Stride()
    model = Segmenter(network, patch=(16, 16, 16), stride=4).eval()
    with torch.no_grad():
        model(torch.rand(1, 1, 30, 14, 13))
    assert network.shapes == [(1, 1, 32, 16, 16)]


def test_a_long_thin_image_is_padded_to_the_patch_before_it_is_cut_into_windows() -> None:
    network = Stride()
    model = Segmenter(network, patch=(16, 16, 16), stride=4).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 1, 70, 20, 9)).shape == (1, 3, 70, 20, 9)
    assert {shape[2:] for shape in network.shapes} == {(16, 16, 16)}


def test_in_training_the_network_is_called_as_it_is() -> None:
    network = Stride()
    model = Segmenter(network, patch=(16, 16, 16), stride=4).train()
    model(torch.rand(1, 1, 40, 40, 40), torch.zeros(1, 0))
    assert network.shapes == [(1, 1, 40, 40, 40)]


def test_frozen_modules_stay_in_evaluation_mode() -> None:
    model = plane_segmenter()
    norm = next(m for m in model.network.modules() if isinstance(m, nn.BatchNorm2d))
    hold_in_eval(norm)
    model.train()
    assert not norm.training
    assert model.network.training


def test_a_classifier_goes_on_as_the_encoder(tmp_path: Path) -> None:
    """Our checkpoints hold the names `model.backbone...` and a head, which stays behind."""
    classifier, _ = build_classifier(SMALL, outputs=5, weights=NONE)
    tensors = {f"model.{name}": t for name, t in classifier.state_dict().items()}
    save_file(tensors, tmp_path / "best.safetensors", metadata={"format": "medtl-checkpoint/1"})
    source = WeightsSource("file", tmp_path / "best.safetensors")
    model, report = build_segmenter(SMALL, outputs=2, patch=(64, 64), weights=source)
    assert report.missing == ()
    encoder = model.network.encoder.model.state_dict()
    assert torch.equal(encoder["conv_stem.weight"], classifier.backbone.conv_stem.weight)


@pytest.mark.parametrize(("backbone", "patch"), [(SMALL, (64, 64)), ("unet_3d", (16, 16, 16))])
def test_a_segmenter_goes_on_with_other_structures(
    backbone: str, patch: tuple[int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    first, _ = build_segmenter(backbone, outputs=2, patch=patch, weights=NONE, width=4)
    tensors = {f"model.{name}": t for name, t in first.state_dict().items()}
    save_file(tensors, tmp_path / "best.safetensors", metadata={"format": "medtl-checkpoint/1"})
    source = WeightsSource("file", tmp_path / "best.safetensors")
    same, report = build_segmenter(backbone, outputs=2, patch=patch, weights=source, width=4)
    assert report.source == "segmenter of best.safetensors"
    assert len(report.loaded) == len(first.state_dict())
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    _, report = build_segmenter(backbone, outputs=4, patch=patch, weights=source, width=4)
    assert len(report.skipped) > 0
    assert len(report.loaded) > 0.9 * len(first.state_dict())


def test_a_file_fills_the_encoder_of_a_residual_3d_network(tmp_path: Path) -> None:
    options = {"outputs": 2, "patch": (32, 32, 32), "width": 4}
    first, _ = build_segmenter("resnet10_3d", weights=NONE, **options)
    save_file(first.network.encoder.state_dict(), tmp_path / "encoder.safetensors")
    source = WeightsSource("file", tmp_path / "encoder.safetensors", card=NO_CARD)
    second, report = build_segmenter("resnet10_3d", weights=source, **options)
    assert report.missing == ()
    ours, theirs = second.network.encoder.state_dict(), first.network.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_set_bias_starts_from_what_is_known() -> None:
    model = plane_segmenter().eval()
    model.set_bias([1.0, -2.0])
    last = model.network.segmentation_head[0]
    assert last.bias.tolist() == [1.0, -2.0]
    with pytest.raises(ValueError, match="3 values for 2 outputs"):
        model.set_bias([0.0, 0.0, 0.0])


def test_faults_are_named() -> None:
    with pytest.raises(WeightsError, match="cannot be the encoder of a unet decoder"):
        build_segmenter("vit_tiny_patch16_224", outputs=1, patch=(64, 64), weights=NONE)
    with pytest.raises(WeightsError, match="multiples of 32"):
        build_segmenter(SMALL, outputs=1, patch=(60, 64), weights=NONE)
    with pytest.raises(WeightsError, match=r"no known 3D network.*Did you mean unet_3d"):
        build_segmenter("unet3d", outputs=1, patch=(32, 32, 32), weights=NONE)
    with pytest.raises(WeightsError, match="no bundled weights for 3D"):
        build_segmenter("unet_3d", outputs=1, patch=(32, 32, 32), weights=WeightsSource("bundled"))
