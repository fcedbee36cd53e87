"""Batch normalisation while fine-tuning: who keeps the stored statistics, and who follows the data.

A network whose parameters are all frozen still changes in training mode, because batch norm updates
its running statistics on every forward pass. So a frozen module is held in evaluation mode, and the
hold survives `train()` on the model or on any module inside it.

    policy         mode    statistics      scale and shift
    frozen         eval    fixed           fixed            (the default)
    frozen_stats   eval    fixed           trained
    bn_only        eval    fixed           trained, and nothing else of the layers
    adapt          train   follow          trained          (batches of 32 and more only)
    recalibrate    eval    estimated anew  fixed            (after the stage, if validation gains)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medtl.errors import RunError

POLICIES = ("frozen", "frozen_stats", "bn_only", "adapt", "recalibrate")
"""Policies that a stage which trains the layers may ask for."""

log = logging.getLogger(__name__)


def tracks_statistics(module: nn.Module) -> bool:
    """Return whether a module is a norm layer that stores statistics of its inputs.

    All batch norms (synchronised, 3D, fused with an activation), instance norms with running
    statistics, and foreign classes that keep buffers named `running_...`.
    """
    if isinstance(module, _BatchNorm):
        return True
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))


def set_policy(norms: Iterable[nn.Module], policy: str) -> None:
    """Apply a policy to norm layers that track statistics: their mode and their affine parameters.

    Raises:
        RunError: When there is no such policy.
    """
    if policy not in POLICIES:
        raise RunError(
            f"'{policy}' is no batch-norm policy",
            expected=f"one of {', '.join(POLICIES)}",
            where="batch_norm",
        )
    for norm in norms:
        for parameter in norm.parameters(recurse=False):
            parameter.requires_grad_(policy not in {"frozen", "recalibrate"})
        if policy == "adapt":
            release(norm)
        else:
            hold_in_eval(norm)


def hold_in_eval(module: nn.Module) -> None:
    """Keep one module (not its children) in evaluation mode until `release`.

    The hook is a plain function: it is copied with the module, pickled with it, and is not in its
    `state_dict`.
    """
    if not is_held(module):
        module.register_forward_pre_hook(_to_eval)
    module.training = False


def release(module: nn.Module) -> None:
    """Let one module follow `train()` and `eval()` again; its mode changes with the next call."""
    hooks = module._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if hook is _to_eval]:
        del hooks[key]


def is_held(module: nn.Module) -> bool:
    """Return whether a module is kept in evaluation mode."""
    return any(hook is _to_eval for hook in module._forward_pre_hooks.values())


def reapply(model: nn.Module) -> None:
    """Put every held module back into evaluation mode at once, rather than at its next use."""
    for module in model.modules():
        if is_held(module):
            module.training = False


def _to_eval(module: nn.Module, _inputs: object) -> None:
    """Forward pre-hook: undo a `train()` that reached a held module."""
    module.training = False


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a network in evaluation mode for a while; afterwards every module has its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def recalibrate(
    model: nn.Module, norms: Sequence[nn.Module], batches: Iterable[tuple[Tensor, ...]]
) -> None:
    """Replace the running statistics of norm layers by those of the given images.

    For after weights were averaged or changed by hand. Not a harmless default: on a target whose
    activations differ strongly from the pretraining's, it can destroy the features. Every batch
    counts alike (cumulative mean), whatever its size. Nothing else moves.

    Args:
        model: The network; its modes, holds and momenta are as before afterwards.
        norms: Those of its layers that are estimated anew.
        batches: Inputs `(B, C, *S), ...`, as the model takes them.

    Raises:
        RunError: When there is no batch, or no norm layer that stores statistics.

    Reference:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima, section 3.
    """
    chosen: list[Any] = [m for m in norms if tracks_statistics(m) and hasattr(m, "momentum")]
    if not chosen:
        raise RunError("no batch-norm layer stores statistics", where="recalibrate")
    momenta = [norm.momentum for norm in chosen]
    held = [norm for norm in chosen if is_held(norm)]
    used = 0
    try:
        with evaluating(model), torch.no_grad():
            for norm in chosen:
                release(norm)
                norm.training = True
            for used, inputs in enumerate(batches, start=1):
                for norm in chosen:
                    norm.momentum = 1.0 / used
                model(*inputs)
    finally:
        for norm, momentum in zip(chosen, momenta, strict=True):
            norm.momentum = momentum
        for norm in held:
            hold_in_eval(norm)
    if used == 0:
        raise RunError("there is no image to estimate the statistics from", where="recalibrate")


def keep_if_better(
    model: nn.Module,
    norms: Sequence[nn.Module],
    estimate: Callable[[Sequence[nn.Module]], None],
    *,
    watch: Callable[[], float],
    before: float,
    beats: Callable[[float, float], bool],
) -> float | None:
    """Estimate statistics anew; keep them and return the new value if validation gains.

    Args:
        model: Changed in place, or as it was.
        norms: Layers whose statistics are in question; those without any are left out.
        estimate: What gives some norm layers new statistics.
        watch: Returns the watched validation value.
        before: That value with the old statistics.
        beats: Whether a value is better than another.
    """
    norms = [norm for norm in norms if tracks_statistics(norm)]
    if not norms:
        log.info("there are no statistics to estimate anew")
        return None
    old = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    estimate(norms)
    after = watch()
    if beats(after, before):
        log.info("statistics estimated anew: %.4f, before %.4f: kept", after, before)
        return after
    log.info("statistics estimated anew: %.4f, before %.4f: undone", after, before)
    model.load_state_dict(old)
    return None
