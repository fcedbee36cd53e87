"""Layer groups: the parts of a network, stem to head, that freezing and learning rates speak of.

timm's own `group_matcher` says which tensor belongs to which part, so ResNets, DenseNets,
EfficientNets, ConvNeXts and transformers are all divided without knowing their architecture.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class LayerGroup:
    """One part of a network. All names are relative to the model the groups were made from.

    Attributes:
        name: What a user types: "stem", "layer4", "blocks.5", "head".
        stage: Position in forward order; the stem is 0.
        parameters: Names of its parameters, in module order.
        buffers: Names of its buffers (batch-norm statistics), in module order.
        modules: Names of all modules that run inside it, dropout and containers included.
    """

    name: str
    stage: int
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    modules: tuple[str, ...]


def layer_groups(model: nn.Module) -> tuple[LayerGroup, ...]:
    """Return the layer groups of a model in forward order.

    A child that describes its own parts (`group_matcher`, timm's contract) is divided into them,
    any other child is one group. A part that holds only normalisation joins the part before it,
    whose output it normalises: "last:1" is never a lone norm.

    Args:
        model: A `Classifier`, a timm model, or any module whose children stand in forward order.

    Returns:
        Groups that hold every parameter and every buffer exactly once.
    """
    tensors = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    parts = _parts(model, tensors)
    index_of = {tensor: i for i, (_, members) in enumerate(parts) for tensor in members}
    modules = _modules_by_part(model, index_of)
    parameters = {name for name, _ in model.named_parameters()}
    return tuple(
        LayerGroup(
            name,
            stage,
            tuple(t for t in members if t in parameters),
            tuple(t for t in members if t not in parameters),
            tuple(modules[stage]),
        )
        for stage, (name, members) in enumerate(parts)
    )


def _parts(model: nn.Module, tensors: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(name, tensors) of every part, in forward order."""
    if hasattr(model, "group_matcher"):
        return _described_parts(model, tensors)
    by_child: dict[str, list[str]] = {name: [] for name, _ in model.named_children()}
    for tensor in tensors:
        by_child.setdefault(tensor.partition(".")[0], []).append(tensor)
    parts = []
    for name, members in by_child.items():
        child = getattr(model, name)
        start = f"{name}."
        if hasattr(child, "group_matcher"):
            inner = _described_parts(child, [t.removeprefix(start) for t in members])
            parts += [
                (start + part if part in by_child else part, [start + t for t in own])
                for part, own in inner
            ]
        elif members:
            parts.append((name, members))
    return parts


def _described_parts(module: Any, tensors: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The parts of a module that describes them itself."""
    from timm.models._manipulate import group_with_matcher

    matcher = module.group_matcher(coarse=True)
    numbered = group_with_matcher(((t, None) for t in tensors), matcher)
    parts: list[tuple[str, list[str]]] = []
    for number in sorted(numbered):
        members = numbered[number]
        if parts and all(_belongs_to_norm(module, tensor) for tensor in members):
            parts[-1][1].extend(members)
        else:
            parts.append((_part_name(members, matcher) if parts else "stem", members))
    return parts


def _belongs_to_norm(module: nn.Module, tensor: str) -> bool:
    """Whether the module that owns this tensor is a normalisation layer."""
    return isinstance(module.get_submodule(tensor.rpartition(".")[0]), _NORMS)


def _part_name(tensors: Sequence[str], matcher: Mapping[str, Any] | Callable[[str], Any]) -> str:
    """What the matcher recognised in a part's first tensor ("blocks.5"), else what all share."""
    first = tensors[0]
    if isinstance(matcher, Mapping):
        for pattern in _patterns(matcher):
            match = re.match(pattern, first)
            if match is not None:
                return match[0].rstrip(".")
    owners = [name.rpartition(".")[0].replace(".", "/") for name in tensors]
    return posixpath.commonpath(owners).replace("/", ".") or first.partition(".")[0]


def _patterns(matcher: Mapping[str, Any]) -> Iterator[str]:
    """The regular expressions of a matcher: plain, or in (pattern, rank) pairs."""
    for spec in matcher.values():
        if isinstance(spec, str):
            yield spec
        elif spec is not None:
            yield from (pattern for pattern, _ in spec)


def _modules_by_part(model: nn.Module, index_of: Mapping[str, int]) -> list[list[str]]:
    """For each part, the modules that run inside it.

    A module belongs to the part that holds all its tensors; one without tensors (dropout) to its
    parent's part, or else to the part of the module before it.
    """
    parts_below: dict[str, set[int]] = {}
    for tensor, index in index_of.items():
        owner = tensor.rpartition(".")[0]
        while owner:
            parts_below.setdefault(owner, set()).add(index)
            owner = owner.rpartition(".")[0]
    modules: list[list[str]] = [[] for _ in range(max(index_of.values(), default=-1) + 1)]
    part_of: dict[str, int] = {}
    previous = 0
    for name, _ in model.named_modules():
        below = parts_below.get(name, set())
        if not name or len(below) > 1:
            continue
        part = next(iter(below), part_of.get(name.rpartition(".")[0], previous))
        part_of[name] = previous = part
        modules[part].append(name)
    return modules
