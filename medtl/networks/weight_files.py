"""Reading tensors from files that others wrote. Only tensors come in; code never runs."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from medtl.errors import WeightsError, located

CONTAINERS = ("state_dict", "model_state_dict", "model", "network_weights", "net")
"""Keys under which training programs keep the weights among other things."""

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of torch's archives; its older format has others."""

_CORRUPT = "truncated or corrupt: not a readable torch archive"
_GET_IT_AGAIN = "The file was cut or altered: get it again from its source"


def read_tensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the named tensors of a `.safetensors`, `.pt` or `.pth` file, on the CPU.

    Of one of our own checkpoints only the model is returned, not the optimiser's state or the
    moving average beside it.

    Raises:
        WeightsError: When the file is empty, a Git LFS pointer, cut, of another format, holds
            anything but plain data, or no tensors.
    """
    path = Path(path)
    with located(path.name):
        if not path.is_file():  # a pipe would be waited for
            raise WeightsError("there is no such file", fix="Check the path")
        with path.open("rb") as file:
            start = file.read(64)
        if not start:
            raise WeightsError("the weights file is empty", fix=_GET_IT_AGAIN)
        if start.startswith(b"version https://git-lfs"):
            found = "a Git LFS pointer, not the weights themselves"
            raise WeightsError(found, fix="Run 'git lfs pull' where the file came from")
        readers = {".safetensors": _read_safetensors, ".pt": _read_torch, ".pth": _read_torch}
        reader = readers.get(path.suffix.lower())
        if reader is None:
            found = f"weights of type '{path.suffix}' cannot be read"
            raise WeightsError(found, expected=f"one of {', '.join(readers)}")
        tensors = reader(path)
        if not tensors:
            raise WeightsError("the file holds no named tensors")
        return tensors


def _refuse_compressed(path: Path) -> None:
    """Refuse a torch archive with compressed members: torch writes none, a bomb needs them.

    What torch would take for an archive and Python cannot list is refused too: two readers that
    disagree about a file are how a bomb gets past a check.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(_CORRUPT, fix=_GET_IT_AGAIN) from error
    if unpacked > path.stat().st_size:
        found = f"the archive unpacks to {unpacked} bytes, more than it has: a decompression bomb"
        raise WeightsError(found, fix=_GET_IT_AGAIN)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            is_ours = (file.metadata() or {}).get("format", "").startswith("medtl-checkpoint")
            names = [n for n in file.keys() if not is_ours or n.startswith("model.")]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        found = "truncated, corrupt, or not a safetensors file"
        raise WeightsError(found, fix=_GET_IT_AGAIN) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file. A file that needs more than tensors is refused, never tried."""
    _refuse_compressed(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "refused: the file is not a plain checkpoint, and loading it could run code (pickle)",
            expected="tensors by name, nothing else",
            fix="Where the file is trusted, save its state_dict as .safetensors",
        ) from error
    except Exception as error:  # on foreign bytes torch's reader fails in any way (KeyError, ...)
        raise WeightsError(_CORRUPT, fix=_GET_IT_AGAIN) from error
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        return {}
    return {str(name): t for name, t in content.items() if isinstance(t, Tensor)}
