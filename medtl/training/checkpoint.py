"""Checkpoints: one safetensors file that holds tensors and what they mean. No pickle anywhere.

The header carries JSON (labels, preprocessing, recipe, state of the loop) and a SHA-256 over it and
over the tensors, because safetensors itself does not notice a flipped bit. What was written is read
again before it takes its place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medtl.errors import WeightsError
from medtl.networks.pretrained.weight_files import digest_of
from medtl.storage.atomic import TEMPORARY_MARK, atomic_path
from medtl.storage.interrupt import held
from medtl.training.adapters import merged, parted
from medtl.training.ema import MovingAverage
from medtl.training.options import Training
from medtl.training.stopping import Position

FORMAT = "medtl-checkpoint/1"
"""Written into every checkpoint; a reader refuses what it does not know."""

BEST, LAST, PREVIOUS = "best.safetensors", "last.safetensors", "previous.safetensors"
"""Files of a run's checkpoints: the model to use, what going on needs, and that of an epoch ago."""

log = logging.getLogger(__name__)


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    *,
    previous: Path | None = None,
) -> None:
    """Write a checkpoint atomically: the old file stays until the new one is complete and read.

    Args:
        path: Where to; its folder exists.
        tensors: Name -> tensor on any device.
        meta: JSON types only.
        previous: Where the file that is replaced stays, None to drop it.

    Raises:
        RunError: When it cannot be written. WeightsError: When the disk gives other bytes back.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    cpu = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(meta, allow_nan=False)
    header = {
        "format": FORMAT,
        "blake2b": digest_of(cpu),
        "meta": text,
        "meta_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    with atomic_path(path) as temporary:
        try:
            save_file(cpu, temporary, metadata=header)
        except SafetensorError as error:
            raise _system_error(error) from error
        written, stored = _read(temporary)
        if written != header or not _same_bits(stored, cpu):
            raise WeightsError(
                "the disk gives other bytes back than were written",
                where=path.name,
                fix="Examine the disk; the checkpoint before this one is still there",
            )
        if previous is not None and path.is_file():
            _give_second_name(path, previous)


def _system_error(error: Exception) -> OSError:
    """What the system said ("os error 28"), which safetensors wraps in an error of its own."""
    match = re.search(r"os error (\d+)", str(error))
    number = int(match[1]) if match else errno.EIO
    return OSError(number, os.strerror(number))


def load_latest(paths: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the first of some checkpoints that is there and whole, None when none is there.

    Args:
        paths: The newest first.

    Raises:
        WeightsError: When there are checkpoints and all are damaged.
    """
    damage: WeightsError | None = None
    for path in paths:
        if not path.is_file():
            continue
        try:
            return load_checkpoint(path)
        except WeightsError as error:
            damage = damage or error
            log.warning("%s Looking for the checkpoint before it.", error)
    if damage is not None:
        raise damage
    return None


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the meta data of a checkpoint.

    Raises:
        WeightsError: When the file is missing, cut, altered, or not one of ours.
    """
    header, tensors = _read(path)
    _check_header(header, path.name)
    if header.get("blake2b") != digest_of(tensors):
        raise _altered("tensors", path.name)
    return tensors, json.loads(header["meta"])


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a safetensors file, not yet checked."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError("there is no such checkpoint", where=path.name)
    try:
        with held(), safe_open(path, "pt") as file:
            header = file.metadata() or {}
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"not a readable safetensors file ({type(error).__name__})",
            where=path.name,
            fix="It was cut or altered; use another checkpoint of the run",
        ) from error


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this program, by its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with held(), safe_open(path, "pt") as file:
            return bool((file.metadata() or {}).get("format") == FORMAT)
    except (SafetensorError, OSError, ValueError):
        return False


def _check_header(header: Mapping[str, str], where: str) -> None:
    """Refuse a header of another program, and one whose text is not what was written."""
    if header.get("format") != FORMAT:
        raise WeightsError(
            "not a checkpoint of this program", expected=f"format {FORMAT}", where=where
        )
    digest = hashlib.sha256(header.get("meta", "").encode()).hexdigest()
    if header.get("meta_sha256", digest) != digest or "meta" not in header:
        raise _altered("meta data", where)


def _altered(part: str, where: str) -> WeightsError:
    """The error for bytes that are not those that were written."""
    return WeightsError(
        f"the {part} do not match their hash",
        where=where,
        fix="The file was altered after it was written; use another checkpoint of the run",
    )


def _give_second_name(path: Path, other: Path) -> None:
    """Make `other` the same file as `path`, or a copy where the file system has no links."""
    temporary = other.with_name(f".{other.stem}{TEMPORARY_MARK}{secrets.token_hex(6)}")
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copy2(path, temporary)
    temporary.replace(other)
    temporary.unlink(missing_ok=True)  # POSIX rename leaves it where both are the same file


def load_exactly(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill a network with the tensors that were saved from one of the same shape.

    Args:
        model: Filled in place.
        tensors: One for each of the network's, and no other.
        where: Name of the file, for messages.

    Raises:
        WeightsError: When a tensor is missing, unexpected, of another shape or not finite.
    """
    network = model.state_dict()
    shared = [name for name in network if name in tensors]
    differing = {
        "missing keys": [name for name in network if name not in tensors],
        "unexpected keys": [name for name in tensors if name not in network],
        "keys of another shape": [n for n in shared if network[n].shape != tensors[n].shape],
        "values that are not finite": [n for n in shared if not torch.isfinite(tensors[n]).all()],
    }
    found = [f"{what}: {', '.join(names[:3])}" for what, names in differing.items() if names]
    if found:
        raise WeightsError(
            f"the weights do not fit the network ({'; '.join(found)})",
            expected="the network and the classes that they were trained for",
            where=where,
        )
    model.load_state_dict(dict(tensors))


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


def _same_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors agree to the bit; NaN is like itself."""
    return first.keys() == second.keys() and all(
        tensor.dtype == second[name].dtype
        and tensor.shape == second[name].shape
        and torch.equal(_bytes_of(tensor), _bytes_of(second[name]))
        for name, tensor in first.items()
    )


def _bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a contiguous tensor, `(n,)`, without a copy."""
    return tensor.reshape(-1).view(torch.uint8)


def save_run(
    training: Training,
    name: Literal["best", "last"],
    position: Position,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    average: MovingAverage | None = None,
) -> None:
    """Write a checkpoint, in one of the processes.

    Args:
        training: What is trained.
        name: "best" holds the network to use, "last" all that going on needs.
        position: Where it stands.
        optimizer: Within a stage.
        average: Of the weights: it is the network to use.
    """
    if not training.runtime.is_main:
        return
    model, adapters = parted(training.model.state_dict())
    if name == "best":
        model = merged(training.model.state_dict() if average is None else average.average)
    tensors = {**with_prefix("model", model), **with_prefix("extra", training.extra)}
    meta = {**training.meta, "monitor": training.monitor, "position": position.to_dict()}
    if training.surgery is not None:
        tensors |= with_prefix("gamma", training.surgery.originals)
        meta["removed"] = [removal.to_dict() for removal in training.surgery.removed]
    if name == "best":
        save_checkpoint(training.folder / BEST, tensors, meta)
        return
    tensors |= with_prefix("adapter", adapters)
    if optimizer is not None:
        tensors |= with_prefix("optimizer", optimizer_tensors(optimizer))
        tensors |= with_prefix("scaler", training.runtime.scaling)
    if average is not None:
        tensors |= with_prefix("ema", average.average)
    save_checkpoint(training.folder / LAST, tensors, meta, previous=training.folder / PREVIOUS)


def join_checkpoints(paths: Sequence[Path], out: Path, recipe: Mapping[str, Any]) -> None:
    """Write one checkpoint of the networks of several, which `Committee` averages.

    Args:
        paths: Their best checkpoints.
        out: Where to; its folder exists.
        recipe: Of all of them, with their number.

    Raises:
        RunError: When it cannot be written. WeightsError: When one of them is not whole.
    """
    stored = [load_checkpoint(path) for path in paths]
    tensors = with_prefix("extra", without_prefix("extra", stored[0][0]))
    for number, (own, _) in enumerate(stored):
        tensors |= with_prefix(f"model.members.{number}", without_prefix("model", own))
    each = [{key: meta.get(key) for key in ("position", "removed")} for _, meta in stored]
    save_checkpoint(out, tensors, {**stored[0][1], "recipe": dict(recipe), "members": each})


def load_last(training: Training) -> tuple[Position, dict[str, Tensor]] | None:
    """Fill the network from the last whole checkpoint; None when there is none.

    Returns:
        The position, and all tensors of the checkpoint.

    Raises:
        WeightsError: When there are checkpoints and all are damaged, or do not fit.
    """
    latest = load_latest([training.folder / LAST, training.folder / PREVIOUS])
    if latest is None:
        return None
    tensors, meta = latest
    _fill(training, tensors, LAST)
    return Position.from_dict(meta["position"]), tensors


def load_best(training: Training) -> None:
    """Give the network its best weights of all stages; keep the last ones when none was best."""
    training.runtime.wait()
    path = training.folder / BEST
    if path.is_file():
        _fill(training, load_checkpoint(path)[0], path.name)
    else:
        log.warning("no epoch reached the baseline; the weights of the last epoch are kept")


def _fill(training: Training, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load the weights, and know whether they have been operated on."""
    load_exactly(training.model, without_prefix("model", tensors), where)
    if training.surgery is not None:
        training.surgery.originals = without_prefix("gamma", tensors)
