"""Files of other programs: pickled networks without running them, archives of Keras 3."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medtl.errors import WeightsError
from medtl.networks.pretrained.keras_file import read_keras
from medtl.networks.pretrained.pickled_module import read_pickled_module
from medtl.networks.pretrained.reference import convert_weights
from medtl.networks.pretrained.weight_files import read_tensors


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_pickled_network_gives_its_state(tmp_path, network, is_archive):
    """The older format is that of torchxrayvision's files."""
    path = tmp_path / "model.pt"
    torch.save(network, path, _use_new_zipfile_serialization=is_archive)
    with pytest.raises(WeightsError, match=r"could run code.*medtl weights convert"):
        read_tensors(path)
    found, state = read_pickled_module(path), network.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    said = convert_weights(path, tmp_path / "out.safetensors", None)
    assert "9 tensors" in said
    assert "not run" in said
    assert read_tensors(tmp_path / "out.safetensors").keys() == state.keys()
    with pytest.raises(WeightsError, match="there already"):
        convert_weights(path, tmp_path / "out.safetensors", None)


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_pickle_that_names_anything_else_is_refused_and_not_run(tmp_path, network, is_archive):
    canary = tmp_path / "canary"
    network.extra = Attack(canary)
    path = tmp_path / "model.pt"
    torch.save(network, path, _use_new_zipfile_serialization=is_archive)
    with pytest.raises(WeightsError, match=r"refused: the pickle names \S+, .*\(unsafe\)"):
        read_pickled_module(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists(), "negative control: the attack works where it is let in"


def test_a_pickle_without_a_network_and_a_cut_one_say_so(tmp_path, network):
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="holds no network"):
        read_pickled_module(tmp_path / "none.pt")
    torch.save(network, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "old.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[:-20])
    with pytest.raises(WeightsError, match="cannot be taken apart"):
        read_pickled_module(tmp_path / "cut.pt")
    (tmp_path / "text.pt").write_bytes(b"\x80\x02K\x01.")
    with pytest.raises(WeightsError, match=r"not one that torch\.save wrote"):
        read_pickled_module(tmp_path / "text.pt")


def write_keras_archive(path: Path, *, named: bool) -> dict[str, np.ndarray]:
    """A model of Keras 3 whose second convolution is called what the first is numbered."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    values = {
        "first": rng.normal(size=(3, 3, 1, 2)).astype(np.float32),
        "conv2d": rng.normal(size=(1, 1, 2, 4)).astype(np.float32),
    }
    layers = [
        {"class_name": "InputLayer", "config": {"name": "input"}},
        *({"class_name": "Conv2D", "config": {"name": name, "use_bias": False}} for name in values),
    ]
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        for number, (name, array) in enumerate(values.items()):
            group = name if named else f"conv2d{'_1' * number}"
            file[f"layers/{group}/vars/0"] = array
        file.create_group("layers/input" if named else "layers/input_layer")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
        archive.writestr("model.weights.h5", buffer.getvalue())
    return values


@pytest.mark.parametrize("named", [True, False])
def test_layers_of_keras_3_are_found_by_name_or_by_number(tmp_path, named):
    values = write_keras_archive(tmp_path / "m.keras", named=named)
    found = read_keras(tmp_path / "m.keras")
    assert found.keys() == {"first.weight", "conv2d.weight"}
    for name, array in values.items():
        assert np.array_equal(found[f"{name}.weight"].numpy(), array.transpose(3, 2, 0, 1))
    assert read_tensors(tmp_path / "m.keras").keys() == found.keys()
    with pytest.raises(WeightsError, match="State --card"):
        convert_weights(tmp_path / "m.keras", tmp_path / "o.safetensors", None)


def test_a_damaged_file_of_keras_is_named(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    with pytest.raises(WeightsError, match="or not a file of weights that Keras wrote"):
        read_tensors(tmp_path / "cut.h5")


def test_weights_without_their_model_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros((3, 3, 1, 2), np.float32)
    with pytest.raises(WeightsError, match="names no layers"):
        read_tensors(tmp_path / "w.h5")


def test_an_archive_of_keras_that_is_a_bomb_is_refused(tmp_path):
    pytest.importorskip("h5py")
    with zipfile.ZipFile(tmp_path / "b.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(1 << 20))
    with pytest.raises(WeightsError, match="a bomb"):
        read_keras(tmp_path / "b.keras")
