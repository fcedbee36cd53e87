"""Optimiser groups: discriminative rates, layer decay, and no weight decay on biases and norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from medtl.errors import RunError


def parameter_groups(
    model: nn.Module,
    groups: Sequence[tuple[str, Sequence[str]]],
    *,
    lr: Mapping[str, float],
    layer_decay: float = 1.0,
    weight_decay: float = 0.01,
) -> list[dict[str, Any]]:
    """Return optimiser groups that hold every trainable parameter exactly once.

    The head learns at `lr["head"]`. The highest trained group below it learns at `lr["base"]`, each
    group further down at `layer_decay` times the rate of the one above it.

    Args:
        model: The network; parameters with `requires_grad=False` are in no group, because an
            optimiser moves whatever it holds (weight decay, old momentum).
        groups: (group name, parameter names) from stem to head; the head is named "head".
        lr: "head" and, when anything below it trains, "base".
        layer_decay: Factor per group, in (0, 1].
        weight_decay: For matrices and kernels; biases and norm parameters (ndim <= 1) get 0.

    Returns:
        Dictionaries with `params`, `lr`, `weight_decay` and `name` ("layer4", "layer4/no_decay").

    Raises:
        RunError: When nothing trains, or layers below the head train without a base rate.
    """
    parameters = dict(model.named_parameters())
    trained = [
        (name, [parameters[p] for p in names if parameters[p].requires_grad])
        for name, names in groups
    ]
    trained = [(name, tensors) for name, tensors in trained if tensors]
    if not trained:
        raise RunError("no parameter trains in this stage", fix="Name a layer group in its 'train'")
    below = [name for name, _ in trained if name != "head"]
    if below and lr.get("base") is None:
        raise RunError(
            f"the layers {', '.join(below)} train without a learning rate",
            fix="State lr: {head: ..., base: ...} in this stage",
        )
    result = []
    for name, tensors in trained:
        depth = 0 if name == "head" else len(below) - 1 - below.index(name)
        rate = lr["head"] if name == "head" else lr["base"] * layer_decay**depth
        decayed = [t for t in tensors if t.ndim > 1]
        plain = [t for t in tensors if t.ndim <= 1]
        for params, decay, suffix in ((decayed, weight_decay, ""), (plain, 0.0, "/no_decay")):
            if params:
                result.append(
                    {"params": params, "lr": rate, "weight_decay": decay, "name": name + suffix}
                )
    return result


def make_optimizer(
    kind: Literal["adamw", "sgd"], groups: list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Return a fresh optimiser; a stage never inherits the momentum of the one before.

    SGD uses Nesterov momentum 0.9 (Sutskever et al. 2013).
    """
    for group in groups:
        group["peak_lr"] = group["lr"]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=0.0)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
