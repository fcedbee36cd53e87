"""Layer groups: the parts of a network, stem to head, that freezing and learning rates speak of.

timm's own `group_matcher` says which tensor belongs to which part, so ResNets, DenseNets,
EfficientNets, ConvNeXts and transformers are all divided without knowing their architecture.
Networks of MONAI and of segmentation_models_pytorch are divided along their children; a decoder is
part of the "head".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Normalisation layers of all kinds, with running statistics or without."""

WRAPPERS = ("backbone", "network", "encoder", "model")
"""Modules that only hold a network; users do not type their names."""

_LISTS = ("features", "blocks", "_blocks", "down_layers", "stages", "transformers")
"""Modules of other libraries that hold one layer after the other."""

_HEADS = (
    *("head", "fc", "_fc", "last_linear", "classifier", "class_layers"),
    *("decoder", "segmentation_head", "up_layers", "up_samples", "conv_final"),
)
"""Modules that stand on an encoder; together they are the group "head"."""

_STEM = re.compile(r"_?conv_?(1|_?stem|Init)|stem(_\d+)?|layer0|features[._]conv0|level0")
"""First layers that are called "stem"."""

_JOINS = re.compile(r"(^|[._])(transition\d*|_?conv_head)$")
"""Layers that belong to the one before them, as in timm's own description."""


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


def short_name(name: str) -> str:
    """Return the name of a module as a user types it: without the parts that wrap the layers."""
    first, dot, rest = name.partition(".")
    return short_name(rest) if dot and first in WRAPPERS else name


def layer_groups(model: nn.Module) -> tuple[LayerGroup, ...]:
    """Return the layer groups of a model in forward order.

    A child that describes its own parts (`group_matcher`, timm's contract) is divided into them,
    any other child is one group. What holds no layer (a norm, a scale), and what a backbone has of
    its head besides the classifier, joins the part before it: "last:1" is never a lone norm.

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
    parts: list[tuple[str, list[str]]] = []
    heads: list[str] = []
    is_known = False
    for label, name in _layers(model):
        own = [t for t in tensors if t == name or t.startswith(f"{name}.") or not name]
        layer: Any = model.get_submodule(name) if name not in tensors else None
        is_known |= label != name
        joins = name == "backbone.head" or _JOINS.search(label) or not _has_layer(model, own)
        if hasattr(layer, "group_matcher"):
            parts += _described_parts(layer, name, own)
        elif label == "head" and name != "backbone.head":
            heads += own
        elif parts and joins:
            parts[-1][1].extend(own)
        elif own:
            parts.append((label, own))
    if is_known and parts and _STEM.fullmatch(parts[0][0]):
        parts[0] = ("stem", parts[0][1])
    return [*parts, ("head", heads)] if heads else parts


def _layers(module: nn.Module, name: str = "", level: int = 0) -> Iterator[tuple[str, str]]:
    """(label, name) of the layers of a network in forward order: wrappers and lists are opened."""
    children = list(module.named_children())
    last = name.rpartition(".")[2]
    skips = [child for child, inner in children if type(inner).__name__ == "SkipConnection"]
    if hasattr(module, "group_matcher"):
        yield short_name(name), name
    elif last in _HEADS:
        yield "head", name
    elif skips:
        # MONAI's U-Nets nest: on the way down, the next level, on the way up.
        (down, _), (skip, inner), (up, _) = children
        below = inner.get_submodule("submodule")
        yield f"level{level}", f"{name}.{down}"
        yield from _layers(below, f"{name}.{skip}.submodule", level + 1)
        yield "head", f"{name}.{up}"
    elif level:
        yield f"level{level}", name
    elif not name or last in (*WRAPPERS, *_LISTS):
        start = f"{name}." if name else ""
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        yield from ((start + tensor, start + tensor) for tensor, _ in own)
        for child, inner in children:
            yield from _layers(inner, start + child)
    else:
        yield short_name(name), name


def _described_parts(layer: Any, name: str, tensors: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The parts of a layer that describes them itself, with the names of the model's tensors."""
    from timm.models._manipulate import group_with_matcher

    start = f"{name}." if name else ""
    try:
        matcher = layer.group_matcher(coarse=True)
    except AssertionError:  # RDNet knows the fine division alone
        matcher = layer.group_matcher(coarse=False)
    numbered = group_with_matcher(((t.removeprefix(start), None) for t in tensors), matcher)
    parts: list[tuple[str, list[str]]] = []
    for number in sorted(numbered):
        members = numbered[number]
        label = _part_name(members, matcher) if parts else "stem"
        if parts and (not _has_layer(layer, members) or (name and label == "head")):
            parts[-1][1].extend(start + t for t in members)
        else:
            parts.append((label, [start + t for t in members]))
    return parts


def _has_layer(module: nn.Module, tensors: Sequence[str]) -> bool:
    """Return whether a parameter is among these tensors that is more than scales and shifts."""
    parameters = dict(module.named_parameters())
    return any(t in parameters and parameters[t].ndim > 1 for t in tensors)


def _part_name(tensors: Sequence[str], matcher: Mapping[str, Any] | Callable[[str], Any]) -> str:
    """Return what the matcher found in a part's first tensor ("blocks.5"), else what all share."""
    first = tensors[0]
    if isinstance(matcher, Mapping):
        for pattern in _patterns(matcher):
            match = re.match(pattern, first)
            if match is not None:
                return match[0].rstrip(".")
    owners = [name.rpartition(".")[0].replace(".", "/") for name in tensors]
    own = [owner for owner in owners if owner.partition("/")[0] == first.partition(".")[0]]
    return posixpath.commonpath(own or owners).replace("/", ".") or first.partition(".")[0]


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
