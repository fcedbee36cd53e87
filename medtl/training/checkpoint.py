"""Checkpoints: one safetensors file that holds tensors and what they mean. No pickle anywhere.

The header carries JSON (labels, preprocessing, recipe, state of the loop) and a SHA-256 over the
tensors, because safetensors itself does not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtl.errors import WeightsError
from medtl.io.atomic import atomic_path

FORMAT = "medtl-checkpoint/1"
"""Written into every checkpoint; a reader refuses what it does not know."""


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: the old file stays until the new one is complete.

    Args:
        path: Where to; its folder exists.
        tensors: Name -> tensor on any device.
        meta: JSON types only.
    """
    from safetensors.torch import save_file

    cpu = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header = {
        "format": FORMAT,
        "sha256": _digest(cpu),
        "meta": json.dumps(meta, allow_nan=False),
    }
    with atomic_path(path) as temporary:
        save_file(cpu, temporary, metadata=header)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the meta data of a checkpoint.

    Raises:
        WeightsError: When the file is missing, cut, altered, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError("there is no such checkpoint", where=path.name)
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"not a readable safetensors file ({type(error).__name__})",
            where=path.name,
            fix="It was cut or altered; use another checkpoint of the run",
        ) from error
    if header.get("format") != FORMAT:
        raise WeightsError(
            "not a checkpoint of this program", expected=f"format {FORMAT}", where=path.name
        )
    if header.get("sha256") != _digest(tensors):
        raise WeightsError(
            "the tensors do not match their hash",
            where=path.name,
            fix="The file was altered after it was written; use another checkpoint of the run",
        )
    return tensors, json.loads(header["meta"])


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this program, by its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return bool((file.metadata() or {}).get("format") == FORMAT)
    except (SafetensorError, OSError, ValueError):
        return False


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors below a name: {"a": t} -> {"prefix.a": t}."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below a name, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: "{index of parameter}.{quantity}"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{quantity}": value
        for index, quantities in state.items()
        for quantity, value in quantities.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a fresh optimiser the state of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, quantity = name.split(".", 1)
        state.setdefault(int(index), {})[quantity] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
