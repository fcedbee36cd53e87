"""The frozen beginning of a network, computed once, and the rest of it, trained from there.

What lies before the first layer group that trains is a fixed function of the image: its parameters
and batch-norm statistics do not move and nothing in it is drawn at random. Its result can be stored
and the rest trained on that. The rest is the network itself with the beginning replaced by
identities, so no architecture needs its own code; whether that is exact is tried on real images,
and a network for which it is not (a transformer adds its position embedding between layers) is
trained in full.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medtl.networks.groups import LayerGroup


@dataclass(frozen=True)
class Cut:
    """A network cut before the first layer group that trains.

    Attributes:
        prefix: Images `(B, C, *S)` -> what the first trained group takes, without gradients.
        suffix: From there to the outputs. It shares every parameter and buffer with the network.
        frozen: Names of the layer groups in the prefix.
        tensors: Their parameters and buffers, by name: all that the prefix depends on.
    """

    prefix: Callable[[Tensor], Tensor]
    suffix: nn.Module
    frozen: tuple[str, ...]
    tensors: Mapping[str, Tensor]


class _ReachedError(Exception):
    """Carries what the first trained module was given out of the forward pass."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given = given


def cut_before_trained(
    model: nn.Module, groups: Sequence[LayerGroup], train: Sequence[str]
) -> Cut | None:
    """Return the network cut where training begins, or None when it trains from its first layer.

    Args:
        model: After `apply_stage`, so that the prefix is held in evaluation mode.
        groups: All its layer groups, in forward order.
        train: Names of the groups that train.
    """
    first = min(group.stage for group in groups if group.name in train)
    before = [group for group in groups if group.stage < first]
    if not before:
        return None
    inside = {name for group in before for name in group.modules}
    start = next(group for group in groups if group.stage == first).modules[0]
    # Shared, not copied: what trains in the one has trained in the other.
    shared: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    suffix = copy.deepcopy(model, shared)
    for name in inside:
        parent, _, own = name.rpartition(".")
        if parent not in inside:
            setattr(suffix.get_submodule(parent), own, nn.Identity())
    names = tuple(group.name for group in before)
    held = {name for group in before for name in (*group.parameters, *group.buffers)}
    tensors = {n: t for n, t in model.state_dict(keep_vars=True).items() if n in held}
    return Cut(lambda images: _given_to(model, start, images), suffix, names, tensors)


def is_exact(model: nn.Module, cut: Cut, images: Tensor, extra: Tensor) -> bool:
    """Return whether the cut network gives the bits of the whole one.

    Args:
        model: The network; left in evaluation mode.
        cut: Of this network.
        images: Some real images `(B, C, *S)`.
        extra: `(B, E)` numbers that join the pooled features.
    """
    model.eval()
    cut.suffix.eval()
    with torch.no_grad():
        try:
            from_cut = cut.suffix(cut.prefix(images), extra)
        except Exception:  # whatever code of others raises when the beginning of it is missing
            return False
        return torch.equal(from_cut, model(images, extra))


def _given_to(model: nn.Module, module: str, images: Tensor) -> Tensor:
    """Return what a forward pass would hand to a module; the pass ends there."""

    def stop(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        raise _ReachedError(given[0])

    hook = model.get_submodule(module).register_forward_pre_hook(stop)
    try:
        with torch.no_grad():
            model(images)
    except _ReachedError as reached:
        return reached.given
    finally:
        hook.remove()
    msg = f"the forward pass does not come to {module}"
    raise RuntimeError(msg)
