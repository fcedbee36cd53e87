"""Networks that are made for one size of image, at another: built, resampled, or refused."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from medtl.errors import WeightsError
from medtl.networks.backbones import build_classifier
from medtl.networks.weights import WeightsSource

NONE = WeightsSource("none")
VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"


def built(name: str, size: tuple[int, int], source: WeightsSource = NONE):
    torch.manual_seed(0)
    return build_classifier(name, outputs=2, weights=source, image=(3, *size))


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
    """A ViT of 224 x 224 and its file."""
    torch.manual_seed(1)
    model = timm.create_model(VIT, num_classes=0)
    path = tmp_path_factory.mktemp("weights") / "vit.pt"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("name", [VIT, "deit_tiny_patch16_224", SWIN, "gcvit_xxtiny", "levit_128"])
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_a_network_of_one_size_is_made_for_another(name, size):
    """Each ended in a traceback from `check` at any size but its own."""
    model, report = built(name, size)
    assert model.eval()(torch.zeros(1, 3, *size)).shape == (1, 2)
    assert f"made for images of {size[0]} x {size[1]} in place of 224 x 224" in report.notes


def test_position_embeddings_are_resampled_and_all_else_is_as_in_the_file(vit_file):
    native, path = vit_file
    model, report = built(VIT, (96, 64), WeightsSource("file", path))
    ours = model.backbone.state_dict()
    expected = resample_abs_pos_embed(native.pos_embed.detach(), [6, 4])
    torch.testing.assert_close(ours["pos_embed"], expected, rtol=0, atol=0)
    same = {n for n, t in native.state_dict().items() if torch.equal(t, ours.get(n, t[:0]))}
    assert same == set(ours) - {"pos_embed"}
    assert not report.skipped
    assert "renamed and resampled as timm does for this network" in report.notes


def test_at_its_own_size_the_file_is_taken_as_it_is(vit_file):
    native, path = vit_file
    model, report = built(VIT, (224, 224), WeightsSource("file", path))
    assert report.notes == ()
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.eval().features(x), native.eval()(x))


def test_a_swin_of_an_older_timm_keeps_its_downsampling_layers(tmp_path):
    """Its names are older (`layers.0.downsample` stood at the end of the stage before)."""
    torch.manual_seed(2)
    native = timm.create_model(SWIN, num_classes=0)
    old = {}
    for name, tensor in native.state_dict().items():
        _, _, rest = name.partition("layers.")
        if rest[1:].startswith(".downsample"):
            old[f"layers.{int(rest[0]) - 1}{rest[1:]}"] = tensor
        else:
            old[name] = tensor
    old["head.weight"] = torch.zeros(1000, 768)
    torch.save({"model": old}, tmp_path / "swin.pt")
    model, report = built(SWIN, (224, 224), WeightsSource("file", tmp_path / "swin.pt"))
    assert not report.missing
    ours = model.backbone.state_dict()
    assert all(torch.equal(ours[n], t) for n, t in native.state_dict().items())


def test_a_size_that_patches_do_not_fill_is_said():
    _, report = built(VIT, (100, 64))
    assert "its patches leave out the last 4 rows and 0 columns" in report.notes


@pytest.mark.parametrize("name", ["inception_v3", "efficientformer_l1"])
def test_a_size_that_is_too_small_for_a_network_is_refused_with_its_own(name):
    with pytest.raises(WeightsError, match=r"cannot take images of 64 x 64.*image\.size: \d{3}"):
        built(name, (64, 64))


def test_a_convolutional_network_is_made_as_before_at_any_size():
    plain = build_classifier("test_resnet", outputs=2, weights=NONE)[1]
    assert built("test_resnet", (48, 80))[1] == plain
