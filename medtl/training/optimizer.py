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
    multipliers: Mapping[str, float] | None = None,
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
        multipliers: Parameter -> factor on its group's rate; these get no weight decay (the gammas
            of `networks.zero_gamma`).

    Returns:
        Dictionaries with `params`, `lr`, `weight_decay` and `name` ("layer4", "layer4/no_decay",
        "layer4/gamma").

    Raises:
        RunError: When nothing trains, or layers below the head train without a base rate.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = [(name, [p for p in names if p in parameters]) for name, names in groups]
    trained = [(name, names) for name, names in trained if names]
    if not trained:
        raise RunError("no parameter trains in this stage", fix="Name a layer group in its 'train'")
    below = [name for name, _ in trained if name != "head"]
    if below and lr.get("base") is None:
        raise RunError(
            f"the layers {', '.join(below)} train without a learning rate",
            fix="State lr: {head: ..., base: ...} in this stage",
        )
    multipliers = multipliers or {}
    result: dict[tuple[str, float], dict[str, Any]] = {}
    for name, names in trained:
        depth = 0 if name == "head" else len(below) - 1 - below.index(name)
        rate = lr["head"] if name == "head" else lr["base"] * layer_decay**depth
        for parameter in names:
            factor = multipliers.get(parameter)
            tensor = parameters[parameter]
            kind = "/gamma" if factor is not None else "/no_decay" if tensor.ndim <= 1 else ""
            made: dict[str, Any] = {
                "params": [],
                "lr": rate * (1.0 if factor is None else factor),
                "weight_decay": 0.0 if kind else weight_decay,
                "name": name + kind,
            }
            result.setdefault((name + kind, made["lr"]), made)["params"].append(tensor)
    return list(result.values())


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
