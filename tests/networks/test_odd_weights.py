"""Weights under any name, pickles under any name, moving averages, flipped bits, other channels."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medtl.errors import WeightsError
from medtl.networks.pretrained.weight_files import digest_of, read_tensors, read_weights
from medtl.networks.weights import WeightsSource, create_backbone
from medtl.training.checkpoint import load_checkpoint, save_checkpoint

torch.manual_seed(0)
TENSORS = {"conv.weight": torch.randn(4, 1, 3, 3), "fc.weight": torch.randn(2, 4)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


class Runs:
    """Would make a folder if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, ("CANARY",)


# -- by content, not by ending


@pytest.mark.parametrize(
    "name", ["a.pt", "a.pth", "a.ckpt", "pytorch_model.bin", "a.pth.tar", "a.tar", "a", "a.PT"]
)
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_under_any_name(name: str, legacy: bool, tmp_path: Path) -> None:
    content = {"state_dict": TENSORS, "epoch": 3, "pytorch-lightning_version": "2.4"}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    assert same(read_tensors(tmp_path / name), TENSORS)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.pt"])
def test_safetensors_under_any_name(name: str, tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / name)
    assert same(read_tensors(tmp_path / name), TENSORS)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.ckpt", "a.npy", "a"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_under_any_name_are_refused_and_named(
    name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps({"weights": Runs()}, protocol))
    with pytest.raises(WeightsError, match=r"refused: the file is a pickle.*unsafe.*mkdir"):
        read_tensors(tmp_path / name)
    assert not (tmp_path / "CANARY").exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"state_dict": TENSORS, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        ({"state_dict": TENSORS, "best": np.float64(3)}, "numpy._core.multiarray.scalar"),
        ({"fc.weight": np.zeros(3)}, "numpy._core.multiarray._reconstruct"),
    ],
)
def test_the_class_that_a_checkpoint_names_is_said(
    content: Any, named: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=f"it names {named}"):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"<html>404</html>", "an HTML page"),
        (b'{"error": "gated"}', "a JSON text"),
        (b"\x93NUMPY\x01\0" + bytes(100), "a NumPy array"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip stream"),
    ],
)
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.h5"])
def test_what_is_no_weights_is_named(content: bytes, named: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        WeightsError, match=f"{name}: not a readable torch archive: by its content it is {named}"
    ):
        read_tensors(tmp_path / name)


def test_bytes_without_meaning_are_corrupt(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\x12\x07" + bytes(range(200)))
    with pytest.raises(WeightsError, match="truncated or corrupt"):
        read_tensors(tmp_path / "a.onnx")


# -- moving averages


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "teacher"])
def test_the_moving_average_is_taken_and_said(key: str, tmp_path: Path) -> None:
    average = {name: tensor + 1 for name, tensor in TENSORS.items()}
    torch.save({"state_dict": TENSORS, key: average}, tmp_path / "a.pth")
    tensors, notes = read_weights(tmp_path / "a.pth")
    assert same(tensors, average)
    assert notes == (f"the moving average of the weights ({key}) was taken",)
    torch.save({"state_dict": TENSORS, key: {}}, tmp_path / "b.pth")  # an empty one is none
    assert same(read_weights(tmp_path / "b.pth")[0], TENSORS)
    assert read_weights(tmp_path / "b.pth")[1] == ()


def test_lightning_and_timm_checkpoints_fill_a_backbone(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("test_resnet", pretrained=False, num_classes=5)
    state = network.state_dict()
    lightning = {f"model.net.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": lightning, "epoch": 1}, tmp_path / "last.ckpt")
    average = {n: t * 2 if t.is_floating_point() else t for n, t in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": average}, tmp_path / "best.pth.tar")
    for name, wanted in (("last.ckpt", state), ("best.pth.tar", average)):
        model, report = create_backbone("test_resnet", WeightsSource("file", tmp_path / name))
        assert not report.missing
        assert same(dict(model.state_dict()), {n: wanted[n] for n in model.state_dict()})
        assert ("moving average" in str(report)) is (wanted is average)


# -- flipped bits


def flipped(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_a_torch_archive_is_found(bit: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(TENSORS, path)
    at = path.read_bytes().index(TENSORS["conv.weight"].numpy().tobytes())
    flipped(path, at + 5, bit)
    with pytest.raises(WeightsError, match=r"flipped bit: the checksum"):
        read_tensors(path)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_our_own_checkpoint_is_found(bit: int, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, {f"model.{name}": t for name, t in TENSORS.items()}, {"labels": []})
    assert set(read_tensors(path)) == {f"model.{name}" for name in TENSORS}
    flipped(path, path.stat().st_size - 9, bit)
    for read in (read_tensors, load_checkpoint):
        with pytest.raises(WeightsError, match="do not match their hash"):
            read(path)


def test_a_flipped_exponent_in_foreign_safetensors_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"fc.weight": torch.full((4, 4), 0.5)}, path)
    flipped(path, path.stat().st_size - 1, 6)  # 0.5 becomes 1.7e38
    with pytest.raises(WeightsError, match=r"fc\.weight holds the value 1\.7e\+38.*flipped bit"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([3e12, 1e11, 0.0], True),
        ([5e5, 0.1, 0.1], True),  # alone, far above the others
        ([5e5, 4e5, 0.1], False),  # a variance of Hounsfield units
        ([900.0, 1e-8, 0.0], False),
        ([1.0, 0.0, 0.0], False),
    ],
)
def test_numbers_that_no_training_leaves_behind(
    values: list[float], refused: bool, tmp_path: Path
) -> None:
    save_file({"bn.running_var": torch.tensor(values)}, tmp_path / "a.safetensors")
    if not refused:
        assert len(read_tensors(tmp_path / "a.safetensors")) == 1
        return
    with pytest.raises(WeightsError, match="holds the value"):
        read_tensors(tmp_path / "a.safetensors")


def test_the_digest_sees_names_shapes_types_and_bits() -> None:
    first = {"a": torch.zeros(4)}
    others = ({"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4).int()})
    assert all(digest_of(first) != digest_of(other) for other in others)
    assert digest_of(first) == digest_of({"a": torch.zeros(4)})


# -- other numbers of channels


@pytest.mark.parametrize(("given", "wanted"), [(1, 3), (1, 2), (3, 1), (2, 4), (4, 1)])
def test_the_first_layer_gives_a_grey_image_the_same_numbers(
    given: int, wanted: int, tmp_path: Path
) -> None:
    import timm

    source = timm.create_model("resnet18", pretrained=False, in_chans=given, num_classes=0).eval()
    torch.save(source.state_dict(), tmp_path / "a.pt")
    model, report = create_backbone(
        "resnet18", WeightsSource("file", tmp_path / "a.pt"), in_channels=wanted
    )
    assert f"first convolution adapted from {given} to {wanted} channels" in str(report)
    assert not report.missing
    assert not report.skipped
    grey = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        before = source(grey.expand(-1, given, -1, -1))
        after = model.eval()(grey.expand(-1, wanted, -1, -1))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
