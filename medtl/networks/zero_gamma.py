"""Selective zero-gamma: silencing, damping or removing chosen residual blocks of a trained network.

At gamma = 0 a branch `gamma * u + beta` adds only its mean (`beta: keep`) or nothing (`zero`), and
every layer inside it has a gradient of exactly zero; gamma itself has one, so that the block can
come back. At fine-tuning rates it hardly does: AdamW moves gamma by at most its rate per step. The
honest control is therefore the removal of the same blocks, which is here too.

Reference:
    Goyal et al. 2017, Accurate, Large Minibatch SGD, section 5.1 (zero gamma from scratch).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from medtl.errors import SelectorError
from medtl.networks.groups import layer_groups, short_name
from medtl.networks.residual import (
    ResidualBlock,
    Scale,
    Survey,
    call_of,
    in_evaluation,
    silenced,
    survey,
)
from medtl.networks.selectors import resolve
from medtl.types import START, ZeroGamma

SAME = 1e-6
"""Largest difference between a silent block and what is left of it after its removal."""


@dataclass(frozen=True)
class Removal:
    """A block that gave way to its shortcut: all it takes to build the network again.

    Attributes:
        module: The block's name in the network.
        shortcut: Its child that the shortcut passes through, "" for an identity.
        activation: Its child that is applied to the sum, "" for none.
    """

    module: str
    shortcut: str = ""
    activation: str = ""

    def to_dict(self) -> dict[str, str]:
        """JSON types only; `Removal(**data)` is the way back."""
        return asdict(self)


class GammaSurgery:
    """Zero-gamma on one network: what it treats, what it removed, and what was there before.

    Args:
        model: The network; left as it is until `remove_blocks` or `apply`.
        plan: What to do.
        images: `(B, C, *S)` input of the network; one image is enough.

    Attributes:
        blocks: The selected blocks.
        removed: What is to be removed, or was.
        originals: Name -> tensor before the operation; empty while it has not happened.
        actions: Layer group -> what is done to which of its blocks.

    Raises:
        SelectorError: When the selector names what is not eligible, or the block does not allow
            what is asked for.
    """

    def __init__(self, model: nn.Module, plan: ZeroGamma, images: Tensor) -> None:
        self.plan = plan
        self.blocks = select_blocks(model, images, plan.select)
        self.originals: dict[str, Tensor] = {}
        self.actions = _actions(model, self.blocks, plan)
        self.removed: tuple[Removal, ...] = ()
        if plan.value == "remove":
            self.removed = tuple(removal_of(model, block, images) for block in self.blocks)
        else:
            _require_effect(model, self.blocks, plan, images)

    def remove_blocks(self, model: nn.Module) -> None:
        """Put the shortcuts in the place of the blocks to be removed, before training begins."""
        for removal in self.removed:
            remove(model, removal)

    @property
    def treated(self) -> tuple[ResidualBlock, ...]:
        """The blocks whose gammas are changed: none when they are removed."""
        return () if self.removed else self.blocks

    @property
    def rates(self) -> dict[str, float]:
        """Treated parameter -> factor on its learning rate; none before the operation."""
        scales = [scale for block in self.treated for scale in block.scales]
        return {s.weight: self.plan.lr_mult for s in scales if s.weight in self.originals}

    def is_due(self, stage: str, number: int) -> bool:
        """Return whether it happens before this stage, the first having number 0."""
        return stage == self.plan.when or (number == 0 and self.plan.when == START)

    def apply(self, model: nn.Module) -> None:
        """Change the gammas. Once more changes nothing: the originals are scaled, not the result.

        At the end of a pre-activation branch there is no norm: there the last layer is treated
        whole, weight and bias alike.
        """
        parameters = dict(model.named_parameters())
        scales = [scale for block in self.treated for scale in block.scales]
        with torch.no_grad():
            for scale, name in ((s, n) for s in scales for n in (s.weight, s.bias) if n):
                before = self.originals.setdefault(name, parameters[name].detach().clone())
                parameters[name].copy_(self._after(before, scale, is_bias=name == scale.bias))

    def _after(self, before: Tensor, scale: Scale, *, is_bias: bool) -> Tensor:
        """The value of a parameter after the operation."""
        if is_bias and scale.kind != "last layer":
            return torch.zeros_like(before) if self.plan.beta == "zero" else before
        if self.plan.factor is not None:
            return before * self.plan.factor
        return torch.full_like(before, float(self.plan.value))

    def undo(self, model: nn.Module) -> None:
        """Give gamma and beta the bits they had before the operation."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in self.originals.items():
                parameters[name].copy_(tensor)
        self.originals = {}

    def sizes(self, model: nn.Module) -> dict[str, float]:
        """Return the mean absolute gamma of each treated block."""
        parameters = dict(model.named_parameters())
        means = {
            block.name: [parameters[s.weight].detach().abs().mean().item() for s in block.scales]
            for block in self.treated
        }
        return {name: sum(values) / len(values) for name, values in means.items()}


def _actions(model: nn.Module, blocks: Sequence[ResidualBlock], plan: ZeroGamma) -> dict[str, str]:
    """Layer group -> what is done to which of its blocks."""
    group_of = {name: g.name for g in layer_groups(model) for name in g.parameters}
    names: dict[str, list[str]] = {}
    for block in blocks:
        names.setdefault(group_of[block.scales[0].weight], []).append(block.name)
    return {group: f"{plan}: {', '.join(own)}" for group, own in names.items()}


def select_blocks(
    model: nn.Module, images: Tensor, selector: str | Sequence[str]
) -> tuple[ResidualBlock, ...]:
    """Return the eligible blocks that a selector chooses, in forward order.

    Blocks of a decoder are not eligible: they are new, and belong to the group "head".

    Args:
        model: The network.
        images: `(B, C, *S)` input of the network.
        selector: See `selectors`; `stage:k` counts layer groups, the stem being 0.

    Raises:
        SelectorError: When nothing is eligible, or a name is not; it lists those that are.
    """
    found = survey(model, images)
    group_of = {name: group for group in layer_groups(model) for name in group.parameters}
    blocks = [b for b in found.blocks if group_of[b.scales[0].weight].name != "head"]
    names = [block.name for block in blocks]
    stages = [group_of[block.scales[0].weight].stage for block in blocks]
    text = selector if isinstance(selector, str) else ",".join(selector)
    if not blocks and text != "none":
        raise SelectorError(_nothing_eligible(found), where="zero_gamma.select")
    try:
        chosen = resolve(text, names, head=None, stages=stages)
    except SelectorError as error:
        reason = _not_eligible(model, text, found, names)
        raise SelectorError(
            reason or error.found,
            expected=error.expected,
            where="zero_gamma.select",
            fix="" if reason else error.fix,
        ) from error
    return tuple(block for block in blocks if block.name in chosen)


def _nothing_eligible(found: Survey) -> str:
    """Return why no block of a network can be treated."""
    reasons = list(dict.fromkeys(found.refused.values()))
    if not reasons and found.blocks:
        reasons = ["only blocks of its decoder have shortcuts, and those are new"]
    if not reasons:
        joins = "joins features by concatenation" if found.concatenates else "has no shortcuts"
        reasons = [f"it {joins}, so at gamma 0 the only path of the signal would be cut"]
    return f"zero-gamma does not apply to this network: {'; '.join(reasons)}"


def _not_eligible(model: nn.Module, text: str, found: Survey, eligible: Sequence[str]) -> str:
    """Return why a name in a selector is no eligible block, "" for no part of the network."""
    parts = {short_name(name) for name, _ in model.named_modules()}
    for term in text.split(","):
        name = term.strip().removeprefix("!").removeprefix("name:")
        if name in found.refused:
            return f"{name} cannot be silenced: {found.refused[name]}"
        if name in parts and name not in eligible:
            return f"{name} has no shortcut: at gamma 0 its output would be a constant"
    return ""


def _require_effect(
    model: nn.Module, blocks: Sequence[ResidualBlock], plan: ZeroGamma, images: Tensor
) -> None:
    """Refuse gamma = 1 where there is no gamma, and a scale that standardised weights undo."""
    for block in blocks:
        last = [scale.weight for scale in block.scales if scale.kind == "last layer"]
        found = ""
        if last and plan.factor is None and plan.value != 0:
            found = f"the branch of {block.name} ends in {last[0]}, which is no gamma"
            expected = "value 0, scale:... or remove"
        elif last and plan.factor is not None and _ignores_scale(model, block, images):
            found = f"{block.name} standardises its weights, which undoes any scale"
            expected = "value 0 or remove"
        if found:
            raise SelectorError(found, expected=expected, where="zero_gamma.value")


@torch.no_grad()
def _ignores_scale(model: nn.Module, block: ResidualBlock, images: Tensor) -> bool:
    """Return whether the branch adds the same with half of its last layer's weight."""
    _, whole = call_of(model, block, images)
    with silenced(model, block):
        _, nothing = call_of(model, block, images)
    with silenced(model, block, factor=0.5):
        _, half = call_of(model, block, images)
    added = (whole - nothing).norm()
    return bool(added > 0 and (half - nothing).norm() > 0.9 * added)


def removal_of(model: nn.Module, block: ResidualBlock, images: Tensor) -> Removal:
    """Return how a block can be removed so that its shortcut alone remains, checked with numbers.

    Args:
        model: The network; left as it is.
        block: From `select_blocks`.
        images: `(B, C, *S)` input of the network.

    Raises:
        SelectorError: When no child of the block computes its shortcut alone.
    """
    module = model.get_submodule(block.module)
    stateless = [n for n, child in module.named_children() if not child.state_dict()]
    with torch.no_grad(), in_evaluation(model):
        with silenced(model, block):
            inputs, silent = call_of(model, block, images)
        for activation in ("", *stateless):
            removal = Removal(block.module, block.shortcut, activation)
            output = _remainder(module, removal)(inputs[0].clone())
            if output.shape == silent.shape and (output - silent).abs().max() <= SAME:
                return removal
    raise SelectorError(
        f"{block.name} cannot be removed: its shortcut is not a layer of its own",
        expected="a block whose shortcut is an identity or one layer",
        where="zero_gamma.select",
    )


def remove(model: nn.Module, removal: Removal) -> None:
    """Put what is left of a block in its place."""
    parent, _, child = removal.module.rpartition(".")
    remainder = _remainder(model.get_submodule(removal.module), removal)
    setattr(model.get_submodule(parent), child, remainder)


def _remainder(module: nn.Module, removal: Removal) -> nn.Sequential:
    """Return what is left of a block: its shortcut, and what is applied to the sum."""
    kept = [name for name in (removal.shortcut, removal.activation) if name]
    return nn.Sequential(OrderedDict((name, module.get_submodule(name)) for name in kept))
