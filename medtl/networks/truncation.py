"""Ending a backbone early: a target far from the pretraining profits from its lowest layers only.

Reference:
    Raghu et al. 2019, Transfusion: Understanding Transfer Learning for Medical Imaging.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medtl.errors import SelectorError
from medtl.networks.batch_norm import evaluating
from medtl.networks.groups import layer_groups
from medtl.networks.selectors import resolve


def truncate(backbone: nn.Module, until: str, shape: Sequence[int]) -> int:
    """Let the layer groups after a given one pass on what they get; return the number of features.

    Args:
        backbone: A network from `(B, C, *S)` to pooled features `(B, F)`; changed in place.
        until: Selector of layer groups; the last of them is the last that is used.
        shape: `(C, *S)` of an input of the network.

    Raises:
        SelectorError: When the selector names no group, or the network cannot end there.
    """
    groups = layer_groups(backbone)
    names = [group.name for group in groups]
    chosen = resolve(until, names)
    if not chosen:
        raise SelectorError(
            "no layer is left", expected=f"one of {', '.join(names)}", where="model.reuse_until"
        )
    last = names.index(chosen[-1])
    for group in groups[last + 1 :]:
        for name in _outermost([n for n in group.modules if _is_layer(backbone.get_submodule(n))]):
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, nn.Identity())
    left = {name for name, _ in (*backbone.named_parameters(), *backbone.named_buffers())}
    unused = {n for group in groups[last + 1 :] for n in (*group.parameters, *group.buffers)}
    try:
        with evaluating(backbone), torch.no_grad():
            features = backbone(torch.zeros(1, *shape))
    except RuntimeError:
        features = torch.zeros(())
    if features.ndim != 2 or left & unused:
        raise SelectorError(
            f"this network cannot end after {chosen[-1]}",
            expected="a later layer group, or another backbone",
            where="model.reuse_until",
        )
    return int(features.shape[1])


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module goes with its group; the pooling after the last layer stays."""
    return bool(module.state_dict()) and not hasattr(module, "global_pool")


def _outermost(modules: Sequence[str]) -> list[str]:
    """Those modules that no other of them contains."""
    inside = set(modules)
    return [
        name
        for name in modules
        if not any(name[:end] in inside for end, sign in enumerate(name) if sign == ".")
    ]
