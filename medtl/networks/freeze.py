"""Applying one stage of fine-tuning to a network: who trains, who is frozen, whose statistics move.

Frozen means a deterministic function of its input: no parameter moves, no batch-norm statistic, no
counter, and neither dropout nor stochastic depth draws anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from medtl.errors import SelectorError
from medtl.networks.batch_norm import (
    hold_in_eval,
    is_held,
    reapply,
    release,
    set_policy,
    tracks_statistics,
)
from medtl.networks.groups import NORMS, LayerGroup


@dataclass(frozen=True)
class PlanRow:
    """One layer group in a stage.

    Attributes:
        group: Its name.
        parameters: How many numbers it has.
        trained: How many of them train; 0 is a frozen group.
        rate: Peak learning rate, or None when it is frozen.
        batch_norm: Policy in force, or "" for a group without batch norm.
        gamma: What zero-gamma did to it, or "".
    """

    group: str
    parameters: int
    trained: int
    rate: float | None
    batch_norm: str
    gamma: str = ""


def apply_stage(
    model: nn.Module,
    groups: Sequence[LayerGroup],
    *,
    train: Sequence[str],
    batch_norm: Mapping[str, str],
    gammas: Collection[str] = (),
) -> None:
    """Freeze and thaw layer groups; whatever an earlier stage set is replaced.

    Args:
        model: The network; changed in place. Its optimiser must be made anew afterwards.
        groups: All its layer groups.
        train: Names of the groups that train.
        batch_norm: Group -> policy of `batchnorm.POLICIES`; "frozen" where not named. Groups that
            do not train are frozen whatever is said here; "bn_only" leaves the head trained whole.
        gammas: Names of parameters that zero-gamma has treated: they train with their group, also
            where the policy freezes scale and shift.

    Raises:
        SelectorError: When a name is no layer group.
        RunError: When a policy does not exist.
    """
    _require_known([*train, *batch_norm], [group.name for group in groups])
    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    for group in groups:
        trains = group.name in train
        inside = [modules[name] for name in group.modules]
        for name in group.parameters:
            parameters[name].requires_grad_(trains)
            parameters[name].grad = None
        for module in inside:
            if trains:
                release(module)
            else:
                hold_in_eval(module)
        if trains:
            policy = batch_norm.get(group.name, "frozen")
            set_policy([module for module in inside if tracks_statistics(module)], policy)
            if policy == "bn_only" and group.name != "head":
                kept = _affine_names(group, modules)
                for name in group.parameters:
                    parameters[name].requires_grad_(name in kept)
            for name in set(group.parameters).intersection(gammas):
                parameters[name].requires_grad_()
    model.train(model.training)
    reapply(model)


def _affine_names(group: LayerGroup, modules: Mapping[str, nn.Module]) -> set[str]:
    """Names of the scales and shifts of a group's norm layers of any kind."""
    norms = [name for name in group.modules if isinstance(modules[name], NORMS)]
    norms += [name for name in group.modules if tracks_statistics(modules[name])]
    return {
        f"{norm}.{name}"
        for norm in norms
        for name, _ in modules[norm].named_parameters(recurse=False)
    }


def plan_table(
    model: nn.Module,
    groups: Sequence[LayerGroup],
    *,
    rates: Mapping[str, float],
    gamma: Mapping[str, str] | None = None,
    recalibrated: Collection[str] = (),
) -> tuple[PlanRow, ...]:
    """Return what is in force after `apply_stage`, read from the network itself.

    Args:
        model: The network.
        groups: All its layer groups.
        rates: Group -> peak learning rate, as the optimiser has it.
        gamma: Group -> what zero-gamma did to it.
        recalibrated: Groups whose statistics are estimated anew after the stage.
    """
    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    rows = []
    for group in groups:
        own = [p for name, p in parameters.items() if _is_in(group, name)]
        trained = sum(p.numel() for p in own if p.requires_grad)
        policy = _policy_in_force(group, modules, parameters)
        if trained and policy and group.name in recalibrated:
            policy = "recalibrate"
        rows.append(
            PlanRow(
                group.name,
                sum(p.numel() for p in own),
                trained,
                rates[group.name] if trained else None,
                policy,
                (gamma or {}).get(group.name, ""),
            )
        )
    return tuple(rows)


def _policy_in_force(
    group: LayerGroup, modules: Mapping[str, nn.Module], parameters: Mapping[str, nn.Parameter]
) -> str:
    """The batch-norm policy that a group is under."""
    names = [name for name in group.modules if tracks_statistics(modules[name])]
    norms = [modules[name] for name in names]
    if not norms:
        return ""
    if not all(is_held(norm) for norm in norms):
        return "adapt"
    affine = [p for norm in norms for p in norm.parameters(recurse=False)]
    # A gamma that zero-gamma has treated trains under either policy; its beta tells them apart.
    if not all(p.requires_grad for p in affine):
        return "frozen"
    trained = {n for n, p in parameters.items() if p.requires_grad and _is_in(group, n)}
    return "bn_only" if trained <= _affine_names(group, modules) else "frozen_stats"


def _is_in(group: LayerGroup, name: str) -> bool:
    """Whether a parameter is of a group: one of its own, or beside the weight of its layers."""
    layer, adapter, _ = name.partition(".parametrizations.")
    return layer in group.modules if adapter else name in group.parameters


def _require_known(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are no layer group."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SelectorError(
            f"{', '.join(unknown)}: no such layer group", expected=f"one of {', '.join(known)}"
        )
