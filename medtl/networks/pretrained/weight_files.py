"""Reading tensors from files that others wrote. Only tensors come in; code never runs."""

from __future__ import annotations

import hashlib
import math
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from medtl.errors import WeightsError, located
from medtl.networks.pretrained.keras_file import HDF_MAGIC, is_keras_archive, read_keras
from medtl.storage.content import HEAD_BYTES, content_of, is_pickle

CONTAINERS = ("state_dict", "model_state_dict", "model", "network_weights", "net")
"""Keys under which training programs keep the weights among other things."""

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of torch's archives; its older format has others."""

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher")
"""Keys of moving averages of the weights: such a model is the one that was evaluated."""

_LARGEST = 1e10
_LARGEST_ALONE = 1e3
"""A value above the first is no weight; nor is one above the second that is as many times larger
than every other of its tensor."""

_MOST_PICKLE_BYTES = 8 << 20
_HARMLESS = ("collections.OrderedDict", "torch._utils._rebuild", "torch.FloatStorage")
_NAME = re.compile(r"[\w.]{1,120}")

_CORRUPT = "truncated or corrupt: not a readable torch archive"
_GET_IT_AGAIN = "The file was cut or altered: get it again from its source"


def read_tensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the named tensors of a weights file, on the CPU. Its content counts, not its name.

    A safetensors file, one that `torch.save` wrote (.pt, .pth, .ckpt, .bin, .pth.tar), or one of
    Keras (.keras, .h5). Of one of our own checkpoints only the model is returned, after its digest
    was compared; of others the moving average (EMA) where there is one, as `read_weights` says.

    Raises:
        WeightsError: When the file is empty, a Git LFS pointer, cut, of another format, holds
            anything but plain data, no tensors, or numbers that no training leaves behind.
    """
    return read_weights(path)[0]


def read_weights(path: str | PathLike[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return what `read_tensors` does, and what was taken out of the file, in words."""
    path = Path(path)
    notes: list[str] = []
    with located(path.name):
        if not path.is_file():  # a pipe would be waited for
            raise WeightsError("there is no such file", fix="Check the path")
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
        if not start:
            raise WeightsError("the weights file is empty", fix=_GET_IT_AGAIN)
        if start.startswith(b"version https://git-lfs"):
            found = "a Git LFS pointer, not the weights themselves"
            raise WeightsError(found, fix="Run 'git lfs pull' where the file came from")
        if _is_safetensors(start, path):
            tensors = _read_safetensors(path)
        elif start.startswith(HDF_MAGIC) or is_keras_archive(path):
            tensors = read_keras(path)
            notes.append("kernels of Keras turned to torch's layout")
        elif start.startswith(ZIP_MAGIC) or is_pickle(start):
            tensors = _read_torch(path, notes)
        else:
            kind = content_of(start)
            raise WeightsError(
                f"not a readable torch archive: by its content it is {kind}" if kind else _CORRUPT,
                expected="a safetensors file, one that torch.save wrote, or one of Keras",
                fix=_GET_IT_AGAIN,
            )
        if not tensors:
            raise WeightsError("the file holds no named tensors")
        _refuse_absurd(tensors)
        return tensors, tuple(notes)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return BLAKE2b (RFC 7693) over names, shapes, types and bytes, in the order of the names.

    It takes half the time of SHA-256, which is most of what a checkpoint of a small stage costs.

    >>> digest_of({"a": torch.zeros(2)}) == digest_of({"a": torch.zeros(3)})
    False
    """
    digest = hashlib.blake2b()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_safetensors(start: bytes, path: Path) -> bool:
    """Whether a file begins like safetensors: the length of a JSON header, then the header."""
    fits = int.from_bytes(start[:8], "little") <= path.stat().st_size
    return start[8:9] == b"{" and (fits or path.suffix.lower() == ".safetensors")


def _refuse_absurd(tensors: Mapping[str, Tensor]) -> None:
    """Refuse numbers that no training leaves behind: a flipped bit of an exponent makes such ones.

    A batch norm's variance may be large; one value that stands alone far above all others of its
    tensor may not.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.numel() < 2:
            continue
        two = torch.topk(tensor.detach().abs().float().flatten(), 2).values.tolist()
        is_lone = two[0] > _LARGEST_ALONE and two[0] > _LARGEST_ALONE * two[1]
        if (two[0] > _LARGEST and math.isfinite(two[0])) or (math.isfinite(two[0]) and is_lone):
            raise WeightsError(
                f"the tensor {name} holds the value {two[0]:.3g} (the next largest is "
                f"{two[1]:.3g}): the file is corrupt, as by a flipped bit",
                expected="weights as a training leaves them",
                fix=_GET_IT_AGAIN,
            )


def _refuse_compressed(path: Path) -> None:
    """Refuse a torch archive with compressed members: torch writes none, a bomb needs them.

    What torch would take for an archive and Python cannot list is refused too: two readers that
    disagree about a file are how a bomb gets past a check.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            return
    altered = None
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked <= path.stat().st_size and all(member.CRC for member in members):
                altered = archive.testzip()  # torch itself compares no checksum
    # Python's reader raises RuntimeError for parts that are marked as encrypted.
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, zlib.error) as error:
        raise WeightsError(_CORRUPT, fix=_GET_IT_AGAIN) from error
    if unpacked > path.stat().st_size:
        found = f"the archive unpacks to {unpacked} bytes, more than it has: a decompression bomb"
        raise WeightsError(found, fix=_GET_IT_AGAIN)
    if altered is not None:
        found = "corrupt, as by a flipped bit: the checksum of a part of the archive is wrong"
        raise WeightsError(found, fix=_GET_IT_AGAIN)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; of one of ours its model, its digest compared."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        found = "truncated, corrupt, or not a safetensors file"
        raise WeightsError(found, fix=_GET_IT_AGAIN) from error
    if not header.get("format", "").startswith("medtl-checkpoint"):
        return tensors
    if header.get("blake2b", "") not in ("", digest_of(tensors)):
        raise WeightsError(
            "the tensors do not match their hash: the file is corrupt, as by a flipped bit",
            fix="Use another checkpoint of the run",
        )
    if any(name.startswith("model.members.") for name in tensors):
        raise WeightsError(
            "the checkpoint holds several networks (run.members), and a training starts from one",
            fix="Use the checkpoint of a run with run.members: 1",
        )
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def _read_torch(path: Path, notes: list[str]) -> dict[str, Tensor]:
    """The tensors of a torch file. A file that needs more than tensors is refused, never tried."""
    _refuse_compressed(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on foreign bytes torch's reader fails in any way (KeyError, ...)
        named = _classes_named(path)
        if not named and not isinstance(error, pickle.UnpicklingError):
            raise WeightsError(_CORRUPT, fix=_GET_IT_AGAIN) from error
        raise WeightsError(
            "refused: the file is a pickle that is not a plain checkpoint, and loading it could "
            "run code (unsafe)" + (f"; it names {named}" if named else ""),
            expected="tensors by name, nothing else",
            fix="Of a pickled network, medtl weights convert FILE OUT.safetensors reads the "
            "tensors without running it; else save its state_dict where the file is trusted",
        ) from error
    if isinstance(content, Mapping):
        for key in (*AVERAGES, *CONTAINERS):
            if isinstance(content.get(key), Mapping) and _tensors_of(content[key]):
                if key in AVERAGES:
                    notes.append(f"the moving average of the weights ({key}) was taken")
                return _tensors_of(content[key])
    return _tensors_of(content)


def _tensors_of(content: object) -> dict[str, Tensor]:
    """The tensors among what a file holds."""
    if not isinstance(content, Mapping):
        return {}
    return {str(name): t for name, t in content.items() if isinstance(t, Tensor)}


def _classes_named(path: Path) -> str:
    """The classes and functions that a pickle names, for a message; none of them is looked up."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inside = next(n for n in archive.namelist() if n.endswith(".pkl"))
                with archive.open(inside) as file:
                    data = file.read(_MOST_PICKLE_BYTES)
        else:
            with path.open("rb") as raw:
                data = raw.read(_MOST_PICKLE_BYTES)
        strings: list[str] = []
        named: dict[str, None] = {}
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                named[str(argument).replace(" ", ".")] = None
            elif opcode.name == "STACK_GLOBAL":
                named[".".join(strings[-2:])] = None
            elif isinstance(argument, str):
                strings.append(argument)
    except Exception:  # a pickle that cannot be taken apart has been refused already
        return ""
    odd = [name for name in named if not name.startswith(_HARMLESS) and _NAME.fullmatch(name)]
    return ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
