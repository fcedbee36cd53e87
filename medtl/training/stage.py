"""A stage applied to a network: who trains, under which batch-norm policy, at which rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from medtl.networks.freeze import apply_stage
from medtl.networks.groups import LayerGroup
from medtl.networks.selectors import resolve
from medtl.training.optimizer import make_optimizer, parameter_groups
from medtl.training.options import Options
from medtl.types import Stage


def enter_stage(
    model: nn.Module,
    groups: Sequence[LayerGroup],
    stage: Stage,
    options: Options,
    *,
    gamma_rates: Mapping[str, float],
) -> torch.optim.Optimizer:
    """Freeze, thaw and set the batch-norm policy; return the optimiser of this stage.

    Args:
        model: Changed in place.
        groups: All its layer groups.
        stage: What to do.
        options: What all stages share.
        gamma_rates: Treated gamma -> factor on its learning rate.
    """
    apply_stage(
        model,
        groups,
        train=trained_groups(groups, stage),
        batch_norm=batch_norm_policies(groups, stage),
        gammas=gamma_rates,
    )
    parameters = parameter_groups(
        model,
        [(group.name, group.parameters) for group in groups],
        lr=stage.lr,
        layer_decay=stage.layer_decay,
        weight_decay=options.weight_decay,
        multipliers=gamma_rates,
    )
    return make_optimizer(options.optimizer, parameters)


def trained_groups(groups: Sequence[LayerGroup], stage: Stage) -> list[str]:
    """Return the names of the layer groups that train in a stage."""
    return list(resolve(stage.train, [group.name for group in groups]))


def batch_norm_policies(groups: Sequence[LayerGroup], stage: Stage) -> dict[str, str]:
    """Return the batch-norm policy that a stage states for layer groups."""
    names = [group.name for group in groups]
    return {
        name: policy
        for selector, policy in stage.batch_norm.items()
        for name in resolve(selector, names)
    }


def recalibrated_groups(groups: Sequence[LayerGroup], stage: Stage) -> list[str]:
    """Return the layer groups whose statistics are estimated anew after a stage."""
    policies = batch_norm_policies(groups, stage)
    return [name for name in trained_groups(groups, stage) if policies.get(name) == "recalibrate"]


def parameters_of(
    model: nn.Module, groups: Sequence[LayerGroup], selector: str
) -> list[nn.Parameter]:
    """Return the parameters of the layer groups that a selector names."""
    chosen = set(resolve(selector, [group.name for group in groups]))
    parameters = dict(model.named_parameters())
    return [parameters[n] for g in groups if g.name in chosen for n in g.parameters]
