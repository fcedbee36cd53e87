"""The tensors of a whole network that was pickled (`torch.save(model)`), without running its code.

A pickle is a program. This reader looks no name up and calls nothing that the file names: classes
of networks become empty shells, a few functions that put tensors together are replaced by our own,
and all other names are refused. Format: PEP 307; `torch.serialization` for its two containers.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from medtl.errors import WeightsError

SHELLS = ("torch.nn.", "torchvision.", "torchxrayvision.", "timm.", "monai.", "__main__.")
"""First parts of the names of classes that become empty shells."""

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""First pickle of a file in torch's older format."""

_KINDS = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Shell:
    """What stands for an object of a class that is not looked up."""

    def __init__(self, *_: object) -> None: ...


def read_pickled_module(path: Path) -> dict[str, Tensor]:
    """Return name -> tensor of a pickled network, as its `state_dict` would name them.

    Args:
        path: What `torch.save(model, path)` wrote, in either of torch's formats.

    Raises:
        WeightsError: When the pickle names anything but networks and tensors, is damaged, or holds
            no network.
    """
    try:
        content = _of_archive(path) if zipfile.is_zipfile(path) else _of_stream(path)
    except WeightsError:
        raise
    except Exception as error:  # a damaged or hostile pickle fails in any way
        raise WeightsError(
            f"the pickle cannot be taken apart ({type(error).__name__})",
            expected="a network that torch.save wrote",
            fix="Load it where its library is installed, and save its state_dict",
        ) from error
    tensors = dict(_tensors_of(content))
    if not tensors:
        raise WeightsError("the pickle holds no network")
    return tensors


class _Storages:
    """The numbers of a file, which may come after the objects that are made of them."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.flat: dict[str, Tensor] = {}

    def find(self, identity: Any) -> Any:
        """Answer a persistent id: a storage, or the class of a network (older format)."""
        kind, *parts = identity
        if kind == "module":
            return parts[0]
        dtype, key, _, length = parts[:4]
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise WeightsError("the pickle names something that is no tensor")
        if key not in self.flat:
            if length * dtype.itemsize > self.most_bytes:
                raise WeightsError("the pickle names more numbers than the file has: a bomb")
            self.flat[key] = torch.zeros(length, dtype=dtype)
        return self.flat[key]


class _Unpickler(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def __init__(self, file: BinaryIO, storages: _Storages) -> None:
        super().__init__(file, encoding="latin1")
        self.storages = storages

    def persistent_load(self, pid: Any) -> Any:
        """A storage by its key."""
        return self.storages.find(pid)

    def find_class(self, module: str, name: str) -> Any:
        """Our own in place of what is named; nothing is imported."""
        full = f"{module}.{name}"
        if full in _OWN:
            return _OWN[full]
        if module == "torch" and name in _KINDS:
            return _KINDS[name]
        if full.startswith(SHELLS) and "." not in name:
            return type(name, (_Shell,), {})
        raise WeightsError(
            f"refused: the pickle names {full}, which is no part of a network (unsafe)",
            expected="classes of networks and tensors, nothing else",
            fix="Where the file is trusted, load it in its library and save its state_dict",
        )


def _rebuilt(flat: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`; torch itself refuses what lies outside of the storage."""
    return torch.as_strided(flat, tuple(size), tuple(stride), offset)


def _parameter(data: Tensor, *_: object) -> Tensor:
    """`torch._utils._rebuild_parameter`."""
    return data


def _reconstructed(kind: Any, *_: object) -> Any:
    """`copyreg._reconstructor`, of shells alone."""
    if not (isinstance(kind, type) and issubclass(kind, _Shell)):
        raise WeightsError("refused: the pickle makes an object that is no network (unsafe)")
    return kind()


_OWN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
    **dict.fromkeys(("builtins.object", "__builtin__.object"), object),
    **dict.fromkeys(("builtins.set", "__builtin__.set"), set),
}


def _of_archive(path: Path) -> Any:
    """What a file in torch's zip format holds."""
    with zipfile.ZipFile(path) as archive:
        inside = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        storages = _Storages(path.stat().st_size)
        with archive.open(inside) as file:
            content = _Unpickler(file, storages).load()  # type: ignore[arg-type]
        folder = inside.removesuffix("data.pkl")
        for key, flat in storages.flat.items():
            _fill(flat, archive.read(f"{folder}data/{key}"))
    return content


def _of_stream(path: Path) -> Any:
    """What a file in torch's older format holds: five pickles, then the numbers."""
    storages = _Storages(path.stat().st_size)
    with path.open("rb") as file:

        def read() -> Any:
            return _Unpickler(file, storages).load()

        if read() != MAGIC_NUMBER:
            raise WeightsError("the file is not one that torch.save wrote")
        read(), read()  # the protocol and the machine
        content, keys = read(), read()
        for key in keys:
            flat = storages.flat[key]
            length = int.from_bytes(file.read(8), "little")
            if length != flat.numel():
                raise WeightsError("truncated or corrupt: a storage has another length")
            _fill(flat, file.read(length * flat.element_size()))
    return content


def _fill(flat: Tensor, data: bytes) -> None:
    """Put the bytes of a storage into the tensor that stands for it."""
    flat.copy_(torch.frombuffer(bytearray(data), dtype=flat.dtype))


def _tensors_of(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a shell and of the shells in it."""
    if isinstance(content, dict):  # a checkpoint around a network
        for value in content.values():
            yield from _tensors_of(value, prefix)
        return
    state = vars(content) if isinstance(content, _Shell) else {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield prefix + name, value
    for name, part in (state.get("_modules") or {}).items():
        yield from _tensors_of(part, f"{prefix}{name}.")
