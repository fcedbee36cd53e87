"""Weights that Keras wrote (.keras, .h5), by layer and in torch's layout; Keras is not needed.

Layout of .keras: `keras.src.saving.saving_lib`; of .h5: `keras.src.legacy.saving.legacy_h5_format`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtl.errors import WeightsError, extras_named

HDF_MAGIC = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""

MODEL, WEIGHTS = "config.json", "model.weights.h5"
"""Members of a .keras archive."""

MOST_UNPACKED = 20
"""Times its own size that an archive may unpack to: weights hardly compress at all."""

_TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "depthwise_kernel": "depthwise.weight",
    "pointwise_kernel": "pointwise.weight",
}

_VARIABLES = {
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "DepthwiseConv2D": ("depthwise_kernel", "bias"),
}
"""Kind of layer -> its variables as Keras 3 numbers them; of others, kernel and bias."""


def is_keras_archive(path: Path) -> bool:
    """Whether a file is a .keras archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {MODEL, WEIGHTS} <= {*archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # names, versions
        return False


def read_keras(path: Path) -> dict[str, Tensor]:
    """Return "layer.name" -> tensor of a file of Keras, layers in the model's order.

    Kernels are turned to torch's layout (out, in, rows, columns), and names are torch's ("weight",
    "running_mean"; "depthwise.weight" and "pointwise.weight" of separable convolutions).

    Args:
        path: A .keras archive, or an .h5 file of a whole model or of its weights by layer.

    Raises:
        WeightsError: When the file is damaged, a bomb, or names no layers.
    """
    with extras_named():
        import h5py

    try:
        if is_keras_archive(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
                if unpacked > MOST_UNPACKED * path.stat().st_size:
                    raise WeightsError(f"the archive unpacks to {unpacked} bytes: a bomb")
                model = json.loads(archive.read(MODEL))
                with h5py.File(io.BytesIO(archive.read(WEIGHTS)), "r") as file:
                    found = dict(_of_container(model["config"], file))
        else:
            with h5py.File(path, "r") as file:
                found = dict(_of_legacy(file))
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, zipfile.BadZipFile) as error:
        raise WeightsError(
            "not a readable torch archive: by its content it is an HDF5 file"
            " (or .keras), truncated, corrupt, or not a file of weights that Keras wrote",
            fix="Get it again from its source",
        ) from error
    if not found:
        raise WeightsError(
            "the HDF5 file names no layers",
            expected="a whole model (.keras or .h5), or weights by layer name",
            fix="Save it again in Keras with model.save('weights.keras')",
        )
    return found


def _of_container(config: Mapping[str, Any], group: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model of Keras 3, whose groups are numbered by kind, or named."""
    seen: dict[str, int] = {}
    kinds = {_snake(layer["class_name"]) for layer in config["layers"]}
    # Newer files have the layers' own names; "conv2d" may be either, so the others decide.
    is_named = any(re.sub(r"_\d+$", "", name) not in kinds for name in group["layers"])
    for layer in config["layers"]:
        kind, own = layer["class_name"], layer["config"]
        numbered = _snake(kind)
        count = seen[numbered] = seen.get(numbered, -1) + 1
        numbered += f"_{count}" if count else ""
        name = own.get("name", numbered)
        place = group["layers"].get(name if is_named else numbered)
        if place is None:
            continue
        if "layers" in own:
            yield from _of_container(own, place)
            continue
        variables = [place["vars"][key] for key in sorted(place.get("vars", {}), key=int)]
        words = _variables(kind, own) if variables else ()
        for word, variable in zip(words, variables, strict=True):
            yield f"{name}.{_TORCH_NAMES.get(word, word)}", _as_torch(word, variable[()])


def _variables(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a layer's variables."""
    words = _VARIABLES.get(kind, ("kernel", "bias"))
    absent = {
        *(["bias"] if not config.get("use_bias", True) else []),
        *(["gamma"] if not config.get("scale", True) else []),
        *(["beta"] if not config.get("center", True) else []),
    }
    return tuple(word for word in words if word not in absent)


def _of_legacy(file: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an .h5 file of Keras 1 or 2, which names layers and weights."""
    group = file.get("model_weights", file)
    for layer in _words(group.attrs.get("layer_names", [])):
        for name in _words(group[layer].attrs.get("weight_names", [])):
            word = name.rpartition("/")[2].partition(":")[0]
            yield f"{layer}.{_TORCH_NAMES.get(word, word)}", _as_torch(word, group[layer][name][()])


def _words(values: Any) -> list[str]:
    """Names that HDF5 holds as bytes."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _as_torch(word: str, array: Any) -> Tensor:
    """A variable in torch's layout."""
    tensor = torch.from_numpy(array)
    if word == "depthwise_kernel":  # rows, columns, in, multiplier
        rows, columns, given, times = tensor.shape
        return tensor.permute(2, 3, 0, 1).reshape(given * times, 1, rows, columns).contiguous()
    if "kernel" in word:
        return tensor.permute(-1, -2, *range(tensor.ndim - 2)).contiguous()
    return tensor


def _snake(kind: str) -> str:
    """The name of a kind of layer as Keras writes it: SeparableConv2D -> separable_conv2d."""
    name = re.sub(r"\W+", "", kind)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
