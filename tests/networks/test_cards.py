"""Published layouts load whole by their cards, and give what the networks of their authors give.

The files are made here in the published names and shapes; `test_real_weights.py` has real ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from medtl.errors import WeightsError
from medtl.networks.names import VOLUME_NETWORKS, backbone_names
from medtl.networks.pretrained.cards import TRIED, Card, all_cards, cards_of, find_card
from medtl.networks.pretrained.key_rules import apply_rules
from medtl.networks.segmenter import build_segmenter
from medtl.networks.weights import WeightsSource, create_backbone, input_contract
from tests.networks.originals import (
    HandSwin,
    HandViT,
    InflatedResNet,
    MedicalResNet18,
    clip_names,
    hugging_face_names,
    randomised,
    xception_forward,
    xception_of_keras,
)

Original = Callable[[Tensor], Tensor]


def xrv_densenet() -> tuple[dict[str, Tensor], Original]:
    net = torchvision.models.densenet121(weights=None, num_classes=18)
    net.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    randomised(net)
    extra = {"op_threshs": torch.full((18,), 0.5)}
    return {**net.state_dict(), **extra}, lambda x: net.features(x[:, :1]).relu().mean((2, 3))


def radimagenet_resnet() -> tuple[dict[str, Tensor], Original]:
    children = [*torchvision.models.resnet50(weights=None).children()][:9]
    net = randomised(nn.Sequential(*children))
    return {f"backbone.{n}": t for n, t in net.state_dict().items()}, lambda x: net(x).flatten(1)


def legacy_densenet() -> tuple[dict[str, Tensor], Original]:
    net = randomised(torchvision.models.densenet121(weights=None))
    old = {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", n): t for n, t in net.state_dict().items()}
    assert any(".norm.1." in name for name in old)
    return old, lambda x: net.features(x).relu().mean((2, 3))


def hugging_face_dino() -> tuple[dict[str, Tensor], Original]:
    torch.manual_seed(0)
    net = HandViT(384, 12, 14, 4, scaled=True).eval()
    return hugging_face_names(net), net


def old_swin() -> tuple[dict[str, Tensor], Original]:
    net = randomised(HandSwin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7))
    heads = {
        "omni_heads.0.weight": torch.zeros(14, 1376),
        "projector.weight": torch.zeros(1376, 768),
    }
    tensors = {**net.state_dict(), **heads, "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    return {f"module.{n}": t for n, t in tensors.items()}, net


def eva_x() -> tuple[dict[str, Tensor], Original]:
    """The arguments of eva_x_tiny_patch16, and the names of its file."""
    from timm.models.eva import Eva

    net = Eva(
        img_size=224,
        patch_size=16,
        embed_dim=192,
        depth=12,
        num_heads=3,
        mlp_ratio=4 * 2 / 3,
        swiglu_mlp=True,
        use_rot_pos_emb=True,
        ref_feat_shape=(14, 14),
        num_classes=0,
    )
    randomised(net)
    old = {}
    for name, tensor in net.state_dict().items():
        old_name = name.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3.")
        old[old_name.replace("fc_norm", "norm")] = tensor
    old |= {"mask_token": torch.zeros(1, 1, 192), "lm_head.weight": torch.zeros(768, 192)}
    return {**old, "rope.freqs_cos": torch.zeros(196, 64)}, net


def clip_trunk() -> tuple[dict[str, Tensor], Original]:
    torch.manual_seed(0)
    net = HandViT(768, 12, 16, 14, scaled=False).eval()
    return clip_names(net), net


PLANES: dict[str, tuple[Callable[[], tuple[dict[str, Tensor], Original]], int]] = {
    "xrv-densenet121": (xrv_densenet, 96),
    "radimagenet-resnet50": (radimagenet_resnet, 96),
    "torchvision-densenet121": (legacy_densenet, 96),
    "dinov2-hf-vits14": (hugging_face_dino, 56),
    "ark-plus-swinl": (old_swin, 224),
    "eva-x-ti": (eva_x, 224),
    "biomedclip": (clip_trunk, 224),
}
"""Card -> (the original and its file, size of the images)."""

REFUSED = [pytest.param(n, marks=pytest.mark.slow) if n == "biomedclip" else n for n in PLANES]
"""As `PLANES`; the large one, which takes many seconds to make, in the slow suite."""


def card_for_test(name: str) -> Card:
    """The card; that of Swin-L with the smallest network of its kind, whose names are the same."""
    card = find_card(name)
    return replace(card, backbone="swin_tiny_patch4_window7_224") if "swinl" in name else card


def written(tensors: dict[str, Tensor], path: Path) -> Path:
    torch.save({"state_dict": tensors}, path)
    return path


@pytest.mark.parametrize("name", PLANES)
def test_a_published_layout_loads_whole_and_gives_what_its_original_gives(tmp_path, name):
    make, side = PLANES[name]
    tensors, original = make()
    path = written(tensors, tmp_path / "weights.pth.tar")
    card = card_for_test(name)
    source = WeightsSource("file", path, card=card)
    model, report = create_backbone(card.backbone, source, image_size=(side, side))
    assert (report.missing, report.skipped) == ((), ())
    floats = {n for n, t in model.state_dict().items() if t.is_floating_point()}
    assert floats <= set(report.loaded)
    assert f"card {name}" in report.source
    torch.manual_seed(1)
    x = torch.randn(2, 1, side, side).expand(-1, 3, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), original(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_without_its_card_the_file_is_refused_with_the_line_to_write(tmp_path, name):
    tensors, _ = PLANES[name][0]()
    path = written(tensors, tmp_path / "w.bin")
    card = card_for_test(name)
    with pytest.raises(WeightsError, match=r"expects .*card: [\w-]+, path: w\.bin") as caught:
        create_backbone(card.backbone, WeightsSource("file", path))
    assert name in str(caught.value)
    assert card.input_said in str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_no_first_layer_stays_random(tmp_path, name):
    """Negative control: a file without its stem, or with another, is refused with the card too."""
    tensors, _ = PLANES[name][0]()
    stem = next(n for n, t in tensors.items() if t.ndim == 4)
    card = card_for_test(name)
    source = WeightsSource("file", tmp_path / "w.pt", card=card)
    side = PLANES[name][1]
    for changed in (None, tensors[stem][:-1]):
        other = {**tensors, stem: changed}
        written({n: t for n, t in other.items() if t is not None}, tmp_path / "w.pt")
        with pytest.raises(WeightsError, match=r"would stay random|tensors fit"):
            create_backbone(card.backbone, source, image_size=(side, side))


def test_an_own_file_in_the_names_of_a_card_can_say_so(tmp_path):
    tensors, _ = xrv_densenet()
    source = WeightsSource("file", written(tensors, tmp_path / "own.pt"), card="none")
    _, report = create_backbone("densenet121", source)
    assert report.contract == input_contract("densenet121")


def test_the_input_is_that_of_the_card(tmp_path):
    tensors, _ = xrv_densenet()
    card = find_card("xrv-densenet121")
    source = WeightsSource("file", written(tensors, tmp_path / "w.pt"), card=card)
    _, report = create_backbone("densenet121", source)
    assert report.contract.value_range == (-1024, 1024)
    assert (report.contract.mean, report.contract.std) == ((0.0,) * 3, (1.0,) * 3)
    assert report.licence.startswith("Apache-2.0")


def test_medicalnet_keeps_its_batch_norms_and_their_statistics(tmp_path):
    original = randomised(MedicalResNet18(dilated=False))
    tensors = {f"module.{n}": t for n, t in original.state_dict().items()}
    path = written(tensors, tmp_path / "resnet_18_23dataset.pth")
    card = find_card("medicalnet-resnet18")
    model, report = build_segmenter(
        "resnet18_3d", outputs=1, patch=(32, 32, 32), weights=WeightsSource("file", path, card=card)
    )
    assert (report.missing, report.skipped) == ((), ())
    assert {n.split(".")[0] for n in report.unused} <= {"conv_seg"}
    encoder = model.eval().network.encoder
    assert not any(isinstance(m, nn.GroupNorm) for m in encoder.modules())
    torch.manual_seed(0)
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(encoder(x), original(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        dilated = MedicalResNet18(dilated=True).eval()
        dilated.load_state_dict(original.state_dict())
        for ours, theirs in zip(encoder(x)[:3], dilated(x)[:3], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    with pytest.raises(WeightsError, match="card: medicalnet-resnet18, path"):
        build_segmenter(
            "resnet18_3d", outputs=1, patch=(32, 32, 32), weights=WeightsSource("file", path)
        )


@pytest.mark.slow
def test_an_inflated_resnet_gives_what_merlin_gives(tmp_path):
    """The names and shapes of Merlin's ResNet-152 with the depth of a ResNet-50."""
    from medtl.networks import segmenter

    original = randomised(InflatedResNet((3, 4, 6, 3)))
    tensors = {f"encode_image.i3_resnet.{n}": t for n, t in original.state_dict().items()}
    tensors["encode_image.i3_resnet.classifier.weight"] = torch.zeros(1692, 2048, 1, 1, 1)
    path = written(tensors, tmp_path / "epoch_99.pt")
    source = WeightsSource("file", path, card=find_card("merlin-i3resnet152"))
    network = segmenter._inflated("i3resnet50_3d", 1, 4, "batch")
    report = segmenter._load_volume(network, source)
    assert (report.missing, report.skipped, report.unused) == ((), (), ())
    x = torch.rand(1, 1, 64, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(network.eval().encoder(x), original(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert network(x).shape == x.shape


def test_the_inflated_resnet_of_merlin_has_a_place_for_each_of_its_tensors():
    """By names and shapes alone; Astra's file has the same, so neither is guessed."""
    with torch.device("meta"):
        original = InflatedResNet((3, 8, 36, 3)).state_dict()
        model, _ = build_segmenter(
            "i3resnet152_3d",
            outputs=1,
            patch=(32, 32, 32),
            weights=WeightsSource("none", card=find_card("merlin-i3resnet152")),
        )
    assert len(original) == 930
    network = model.network.encoder.state_dict()
    found = apply_rules(original, find_card("merlin-i3resnet152").keys, network)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in network.items()}
    cards = cards_of({name: tuple(tensor.shape) for name, tensor in original.items()})
    assert {card.name for card in cards} == {"merlin-i3resnet152", "astra-i3resnet152"}


def test_suprem_fills_all_but_the_last_convolution(tmp_path):
    """Layout of supervised_suprem_segresnet_2100.pth: 83 tensors, `net`, one prefix."""
    from monai.networks.nets.segresnet import SegResNet

    original = randomised(SegResNet(3, 16, 1, 25, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1)))
    tensors = {f"module.{n}": t for n, t in original.state_dict().items()}
    assert len(tensors) == 83
    torch.save({"net": tensors}, tmp_path / "w.pth")
    source = WeightsSource("file", tmp_path / "w.pth", card=find_card("suprem-segresnet"))
    model, report = build_segmenter("segresnet_3d", outputs=2, patch=(32, 32, 32), weights=source)
    assert len(report.loaded) == 81
    assert set(report.missing) == {"conv_final.2.conv.weight", "conv_final.2.conv.bias"}
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        for ours, theirs in zip(
            model.eval().network.encode(x)[1], original.encode(x)[1], strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def write_keras_h5(layers: dict[str, dict[str, Tensor]], path: Path) -> Path:
    """As Keras 2 writes a whole model: groups by layer, names in attributes."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, variables in layers.items():
            here = group.create_group(layer)
            here.attrs["weight_names"] = [f"{layer}/{word}:0".encode() for word in variables]
            for word, values in variables.items():
                here[f"{layer}/{word}:0"] = values.numpy()
    return path


@pytest.mark.parametrize("side", [71, 128])
def test_a_keras_xception_gives_what_keras_gives(tmp_path, side):
    layers = xception_of_keras(torch.Generator().manual_seed(0))
    head = {"predictions": {"kernel": torch.zeros(2048, 1000), "bias": torch.zeros(1000)}}
    path = write_keras_h5({**layers, **head}, tmp_path / "xception.h5")
    card = find_card("keras-xception")
    model, report = create_backbone(card.backbone, WeightsSource("file", path, card=card))
    assert (report.missing, report.skipped, report.unused) == ((), (), ())
    assert "eps of the batch norms is 0.001" in report.notes
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = model.eval()(x), xception_forward(layers, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max().clip(1)))
    with pytest.raises(WeightsError, match=r"card: keras-xception, path: xception\.h5"):
        create_backbone(card.backbone, WeightsSource("file", path))


def test_siglip_names_of_hugging_face_become_those_of_timm():
    """The rules of MedSigLIP on a smaller SigLIP: the tensors come back as they were."""
    ours = timm.create_model("vit_base_patch16_siglip_224", num_classes=0)
    network = ours.state_dict()
    theirs: dict[str, Tensor] = {}
    for name, tensor in network.items():
        for part, word in (("weight", "weight"), ("bias", "bias")):
            if name.endswith(f"attn.qkv.{part}"):
                block = name.split(".")[1]
                for letter, piece in zip("qkv", tensor.chunk(3), strict=True):
                    theirs[f"encoder.layers.{block}.self_attn.{letter}_proj.{word}"] = piece
    both = {
        f"head.attention.in_proj_{part}": torch.cat(
            [network[f"attn_pool.q.{part}"], network[f"attn_pool.kv.{part}"]]
        )
        for part in ("weight", "bias")
    }
    renames = {
        "pos_embed": "embeddings.position_embedding.weight",
        "attn_pool.latent": "head.probe",
        "patch_embed.proj": "embeddings.patch_embedding",
        "attn_pool.proj": "head.attention.out_proj",
        "attn_pool.norm": "head.layernorm",
        "attn_pool.mlp": "head.mlp",
    }
    for name, tensor in network.items():
        if "qkv" in name or re.match(r"attn_pool\.(q|kv)\.", name):
            continue
        new = re.sub(r"^blocks\.(\d+)\.", r"encoder.layers.\1.", name)
        new = new.replace("attn.proj.", "self_attn.out_proj.") if "blocks" in name else new
        new = re.sub(r"\.norm([12])\.", r".layer_norm\1.", new)
        new = re.sub(r"^norm\.", "post_layernorm.", new)
        for ours_word, theirs_word in renames.items():
            new = new.replace(ours_word, theirs_word) if name.startswith(ours_word) else new
        theirs[new] = tensor[0] if name == "pos_embed" else tensor
    tower = {f"vision_model.{n}": t for n, t in {**theirs, **both}.items()}
    found = apply_rules(
        {**tower, "text_model.head.weight": torch.zeros(1)}, find_card("medsiglip").keys, network
    )
    assert found.keys() == network.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in network.items())


def test_rad_dino_is_told_from_dinov2_by_name_alone(tmp_path):
    """Both have the same names: the message names both, and neither is guessed."""
    names = hugging_face_names(HandViT(768, 1, 14, 4, scaled=True))
    with pytest.raises(WeightsError, match="dinov2-hf-vitb14 or rad-dino") as caught:
        create_backbone(
            "vit_base_patch14_dinov2", WeightsSource("file", written(names, tmp_path / "w.pt"))
        )
    assert "mean 0.5307" in str(caught.value)


@pytest.mark.parametrize("card", all_cards().values(), ids=lambda card: card.name)
def test_every_card_is_whole(card):
    known = VOLUME_NETWORKS if card.is_of_volumes else backbone_names()
    assert card.backbone in known
    assert all((card.title, card.source, card.licence, card.citation))
    assert len(card.mean) == len(card.std) == card.channels
    assert card.tried in TRIED
    assert card.window is None or card.window[1] > 0


def test_there_are_cards_of_the_families_that_were_asked_for():
    families = {name.split("-")[0] for name in all_cards()}
    assert len(all_cards()) >= 30
    assert families >= {
        *("xrv", "radimagenet", "medmae", "moco", "biovil", "rad", "dinov2", "eva", "ark"),
        *("biomedclip", "medsiglip", "retfound", "keras", "medicalnet", "suprem", "sin"),
        *("efficientnet", "torchvision"),
    }


def test_the_large_swin_of_ark_has_a_place_for_each_of_its_tensors():
    """Swin-L itself, by names and shapes alone (no memory is taken)."""
    with torch.device("meta"):
        model = timm.create_model("swin_large_patch4_window12_384", num_classes=0, img_size=768)
    network = model.state_dict()
    old = {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", n): t
        for n, t in network.items()
    }
    from timm.models.swin_transformer import checkpoint_filter_fn

    named = {f"module.{n}": t for n, t in old.items()}
    found = checkpoint_filter_fn(
        apply_rules(named, find_card("ark-plus-swinl").keys, network), model
    )
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in network.items()}


@pytest.mark.slow
def test_the_large_swin_of_ark_gives_what_its_original_gives(tmp_path):
    """Swin-L itself, 195 M parameters, at 384 px: all windows have 12 tokens a side, as at 768."""
    original = randomised(HandSwin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12))
    teacher = {f"module.{n}": t for n, t in original.state_dict().items()}
    teacher["module.omni_heads.0.weight"] = torch.zeros(14, 1376)
    torch.save({"state_dict": {}, "teacher": teacher}, tmp_path / "ep50.pth.tar")
    card = find_card("ark-plus-swinl")
    source = WeightsSource("file", tmp_path / "ep50.pth.tar", card=card)
    model, report = create_backbone(card.backbone, source, image_size=(384, 384))
    assert (report.missing, report.skipped) == ((), ())
    x = torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), original(x), rtol=0, atol=1e-5)


def test_an_unknown_card_names_the_nearest():
    with pytest.raises(WeightsError, match=r"no weights card 'xrv-densnet121'.*mean xrv-de"):
        find_card("xrv-densnet121")


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ([("shuffle", "x")], "no rule 'shuffle'"),
        ([("order", {"^a": "^b"})], "do not stand in the order of timm's network"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_an_error(keys, found):
    tensors = {"a.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=found):
        apply_rules(tensors, keys, {"b.bias": torch.zeros(1)})


def test_a_safetensors_file_of_the_names_is_read_too(tmp_path):
    tensors, original = radimagenet_resnet()
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "w.safetensors")
    card = find_card("radimagenet-resnet50")
    source = WeightsSource("file", tmp_path / "w.safetensors", card=card)
    model, _ = create_backbone("resnet50", source)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), original(x), rtol=0, atol=1e-5)
