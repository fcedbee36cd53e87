"""Adapters: a stage that trains few numbers in place of whole layers; merged where they are saved.

While a stage trains them, low-rank matrices stand beside the weights (torch's parametrisations), so
that every forward pass uses their sum. What leaves the training is the sum alone, under the names
that the network had before: checkpoints, exports and later stages know nothing of adapters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from medtl.data.seeds import Stream, torch_seed
from medtl.errors import SelectorError
from medtl.networks.groups import LayerGroup, short_name
from medtl.types import Stage

ADAPTED = (nn.Linear, _ConvNd)
"""Layers that may have low-rank matrices beside their weight."""

_FIRST, _ORIGINAL = ".parametrizations.weight.0", ".parametrizations.weight.original"
"""How torch names what stands beside a weight, and the weight itself."""

SHOWN = 8
"""Names of layers in a message."""


class LowRank(nn.Module):
    """A weight and a product of two thin matrices, `W + up @ down`; at first the weight alone.

    Args:
        weight: `(rows, ...)`, of a linear layer or a convolution of any kind.
        rank: Columns of `up` and rows of `down`, > 0.
        generator: Draws `down`, as torch draws a linear layer.

    Reference:
        Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, section 4.1,
        with alpha = rank: their alpha is a factor on the learning rate (section 4.1 too).

    Example:
        >>> low = LowRank(torch.ones(3, 4), 2, torch.Generator().manual_seed(0))
        >>> bool(torch.equal(low(torch.ones(3, 4)), torch.ones(3, 4)))
        True
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        columns = weight[0].numel()
        drawn = torch.rand(rank, columns, generator=generator) * 2 - 1
        self.down = nn.Parameter((drawn / columns**0.5).to(weight))
        self.up = nn.Parameter(weight.new_zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the sum, in the weight's precision also under autocast."""
        with torch.autocast(weight.device.type, enabled=False):
            return _sum(weight, self.up, self.down)


def adapt(
    model: nn.Module,
    groups: Sequence[LayerGroup],
    stage: Stage,
    trained: Sequence[str],
    *,
    seed: int,
    kept: Collection[str] = (),
) -> None:
    """Let only what a stage's `adapt` names train below the head, which trains whole.

    Args:
        model: After `apply_stage`; changed in place.
        groups: All its layer groups.
        stage: With its `adapt`; "norm" is the batch-norm policy bn_only, and nothing is left to do.
        trained: Names of the groups that train.
        seed: Of what is drawn.
        kept: Names of parameters that train all the same (gammas that zero-gamma has treated).

    Raises:
        SelectorError: When no layer in these groups has the name that is stated.
    """
    if stage.adapt is None or stage.adapt == "norm":
        return
    parameters = dict(model.named_parameters())
    below = [group for group in groups if group.name in trained and group.name != "head"]
    for group in below:
        for name in group.parameters:
            is_bias = name.rpartition(".")[2].endswith("bias")
            parameters[name].requires_grad_(name in kept or (stage.adapt == "bitfit" and is_bias))
    if isinstance(stage.adapt, str):
        return
    lora = stage.adapt["lora"]
    chosen = _chosen(model, below, lora["on"])
    generator = torch.Generator().manual_seed(torch_seed(seed, Stream.INIT, len(chosen)))
    for layer in chosen if lora["rank"] else ():
        low = LowRank(layer.weight, lora["rank"], generator)
        parametrize.register_parametrization(layer, "weight", low)


def merge(model: nn.Module) -> None:
    """Put the sums in the place of the weights; the network is as it was before `adapt`."""
    for layer in model.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a network as they are after `merge`.

    Args:
        state: Of a network with or without adapters, or their averages.
    """
    plain, low = parted(state)
    for name in [name for name in low if name.endswith(".up")]:
        start = name.removesuffix(f"{_FIRST}.up")
        weight = f"{start}.weight"
        plain[weight] = _sum(plain[weight], low[name], low[f"{start}{_FIRST}.down"])
    return plain


def parted(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors that the network had before `adapt`, by their names, and the adapters."""
    low = {name: tensor for name, tensor in state.items() if _FIRST in name}
    plain = {
        name.replace(_ORIGINAL, ".weight"): tensor
        for name, tensor in state.items()
        if name not in low
    }
    return plain, low


def adapters_of(model: nn.Module, group: LayerGroup) -> list[str]:
    """Return the names of the parameters of a layer group's adapters."""
    modules = set(group.modules)
    names = (name for name, _ in model.named_parameters() if _FIRST in name)
    return [name for name in names if name.partition(_FIRST)[0] in modules]


def _sum(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The weight with the product of the thin matrices."""
    return weight + (up @ down).reshape(weight.shape)


def _chosen(model: nn.Module, groups: Sequence[LayerGroup], on: str | Sequence[str]) -> list[Any]:
    """The layers of some groups that patterns name, or that lie in a module which they name."""
    patterns = [on] if isinstance(on, str) else on
    # Any letters where a * stands; a name of a module stands for all layers in it.
    one = "|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    known = dict(_layers(model, groups))
    found = [layer for name, layer in known.items() if re.match(rf"(?:{one})(?:\.|$)", name)]
    if not found:
        names = list(known)
        more = ", ..." if len(names) > SHOWN else ""
        raise SelectorError(
            f"no trained layer is called {', '.join(patterns)}",
            expected=f"one of {', '.join(names[:SHOWN])}{more}; * stands for any letters",
            where="adapt.lora.on",
        )
    return found


def _layers(model: nn.Module, groups: Sequence[LayerGroup]) -> Iterator[tuple[str, nn.Module]]:
    """The layers of some groups that can be adapted, by the names that users type."""
    modules = dict(model.named_modules())
    for group in groups:
        for name in group.modules:
            if isinstance(modules[name], ADAPTED):
                yield short_name(name), modules[name]
