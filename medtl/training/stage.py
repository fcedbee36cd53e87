"""Stages: well-known courses of them, and a stage applied to a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medtl.networks.freeze import apply_stage
from medtl.networks.groups import LayerGroup
from medtl.networks.selectors import resolve
from medtl.training.adapters import adapt, adapters_of, merge
from medtl.training.optimizer import make_optimizer, parameter_groups
from medtl.training.options import Training
from medtl.types import Stage

HEAD = Stage("head", "head", 10, {"head": 1e-3})
"""The new head alone: a linear probe, stopped early so that it does not over-fit."""

DECAY = 1 / 2.6
"""Factor of the rate from one layer group to the one below it, where each has its own rate."""

_THIRDS = {"first": "frac:0-0.34", "middle": "frac:0.34-0.67", "last": "frac:0.67-1"}
"""Part of the network that surgical fine-tuning tunes -> its layer groups."""


def enter_stage(training: Training, stage: Stage) -> torch.optim.Optimizer:
    """Freeze, thaw, set batch-norm policy and adapters; return the optimiser of this stage.

    Args:
        training: Its network is changed in place.
        stage: What to do.
    """
    rates = {} if training.surgery is None else training.surgery.rates
    trained = resolve(stage.train, [group.name for group in training.groups])
    merge(training.model)
    apply_stage(
        training.model,
        training.groups,
        train=trained,
        batch_norm=_policies(training.groups, stage),
        gammas=rates,
    )
    seed = training.options.seed
    adapt(training.model, training.groups, stage, trained, seed=seed, kept=rates)
    parameters = parameter_groups(
        training.model,
        [(g.name, [*g.parameters, *adapters_of(training.model, g)]) for g in training.groups],
        lr=stage.lr,
        layer_decay=stage.layer_decay,
        weight_decay=training.options.weight_decay,
        multipliers=rates,
    )
    return make_optimizer(training.options.optimizer, parameters)


def recalibrated_groups(groups: Sequence[LayerGroup], stage: Stage) -> list[str]:
    """Return the layer groups whose statistics are estimated anew after a stage."""
    policies = _policies(groups, stage)
    trained = resolve(stage.train, [group.name for group in groups])
    return [name for name in trained if policies.get(name) == "recalibrate"]


def _policies(groups: Sequence[LayerGroup], stage: Stage) -> dict[str, str]:
    """The batch-norm policy that a stage states for layer groups."""
    names = [group.name for group in groups]
    return {
        name: policy
        for selector, policy in stage.policies.items()
        for name in resolve(selector, names)
    }


def parameters_of(
    model: nn.Module, groups: Sequence[LayerGroup], selector: str
) -> list[nn.Parameter]:
    """Return the parameters of the layer groups that a selector names."""
    chosen = set(resolve(selector, [group.name for group in groups]))
    parameters = dict(model.named_parameters())
    named = (name for group in groups if group.name in chosen for name in group.parameters)
    return [parameters[name] for name in named if name in parameters]  # not beside an adapter


def preset_stages(preset: str, groups: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stages of a preset.

    Args:
        preset: "linear_probe"; "lp_ft", the head, then everything; "full", everything from the
            start; "gradual", one layer group more in each stage; "surgical:first", "middle" or
            "last", the head, then a third of the network; "bn_only", the head, then scale and shift
            of the norm layers with it.
        groups: Names of the network's layer groups, stem to head.

    Raises:
        ValueError: For an unknown preset.

    Reference:
        lp_ft: Kumar et al. 2022. gradual: Howard and Ruder 2018, section 3.3. surgical: Lee et al.
        2023. bn_only: Frankle et al. 2021.
    """
    gentle = {"head": 1e-4, "base": 3e-5}
    if preset == "linear_probe":
        return (HEAD,)
    if preset == "full":
        return (Stage("full", "all", 20, {"head": 1e-3, "base": 1e-4}, warmup_epochs=1),)
    if preset == "lp_ft":
        return (HEAD, Stage("full", "all", 20, gentle, warmup_epochs=1))
    if preset == "bn_only":
        rates = {"head": 1e-3, "base": 1e-3}
        policy = {"all": "bn_only"}
        return (HEAD, Stage("affine", "all", 20, rates, policy, warmup_epochs=1))
    if preset == "gradual":
        return (HEAD, *(_thaw(name, groups) for name in reversed(groups) if name != "head"))
    part = _THIRDS.get(preset.removeprefix("surgical:"))
    if part is None:
        msg = f"unknown preset {preset!r}"
        raise ValueError(msg)
    return (HEAD, Stage("surgical", f"head,{part}", 20, gentle, warmup_epochs=1))


def _thaw(name: str, groups: Sequence[str]) -> Stage:
    """The stage that trains a layer group and all above it, each slower than the next higher."""
    above = [group for group in groups[groups.index(name) :] if group != "head"]
    rates = {"head": 3e-4, "base": 1e-4}
    selector = ",".join((*above, "head"))
    return Stage(name, selector, 5, rates, warmup_epochs=1, layer_decay=DECAY)
