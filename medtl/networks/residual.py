"""Residual blocks, found by watching a network run rather than by the names of its classes.

While a small input passes through, every addition is noted together with the module that performs
it. An addition is residual when both operands come from that module's own input, and one of them,
the branch, passes through more layers than the other, the shortcut. The branch's last layer is the
last one that no path around it avoids: squeeze-and-excitation and stochastic depth come after it
and change nothing about that. What was found is then checked with numbers: with that layer at zero
the branch must add nothing, and what is left must still depend on the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from medtl.networks.backbones import Classifier
from medtl.networks.batch_norm import evaluating
from medtl.networks.groups import NORMS, short_name

_LAYERS = (*NORMS, _ConvNd, nn.Linear)

CONSTANT = 1e-6
"""A shortcut whose values differ by less than this share of their size carries no signal."""

Node = Any
"""A node of torch's autograd graph."""


@dataclass(frozen=True)
class Scale:
    """The last layer of a branch: at zero the branch adds nothing.

    Attributes:
        weight: Name of the parameter that multiplies the branch.
        bias: Name of the one that is added to it, or None.
        kind: "gamma" of a norm, "layer scale", or "last layer" (pre-activation networks have no
            norm at the end of a branch).
    """

    weight: str
    bias: str | None
    kind: Literal["gamma", "layer scale", "last layer"]


@dataclass(frozen=True)
class ResidualBlock:
    """A module that adds a branch to a shortcut.

    Attributes:
        name: What a user types ("layer4.1", "blocks.5.3").
        module: Its name in the network.
        scales: The last layer of each of its branches, in forward order; transformers have two.
        shortcut: Name, inside the block, of the layer that its shortcut passes through; "" for an
            identity.
    """

    name: str
    module: str
    scales: tuple[Scale, ...]
    shortcut: str = ""


@dataclass(frozen=True)
class Survey:
    """The residual blocks of a network.

    Attributes:
        blocks: Those whose branch can be silenced, in forward order.
        refused: Name of a module that adds to a shortcut and yet cannot -> why.
        concatenates: Whether the network joins features by concatenation.
    """

    blocks: tuple[ResidualBlock, ...]
    refused: Mapping[str, str]
    concatenates: bool


def survey(model: nn.Module, images: Tensor) -> Survey:
    """Find the residual blocks of a network and check each with numbers.

    The network is left as it was: mode, gradients and weights.

    Args:
        model: Any network; a `Classifier` is watched up to its pooled features.
        images: `(B, C, *S)` input; one small image is enough.
    """
    with in_evaluation(model), torch.enable_grad():
        recorder = _Recorder(model)
        with recorder.watching():
            _run(model, _graphed(images))
        branches = _branches(recorder)
        refused = {**recorder.refused, **_check(model, images, branches)}
    return Survey(
        _blocks([branch for branch in branches if branch.module not in refused]),
        {short_name(module): reason for module, reason in refused.items()},
        recorder.concatenates,
    )


def _run(model: nn.Module, images: Tensor) -> Any:
    """The part of a network that sees the image and nothing else."""
    return model.features(images) if isinstance(model, Classifier) else model(images)


def _graphed(images: Tensor) -> Tensor:
    """Images at the root of a graph; not a leaf, because a layer may change its input in place."""
    return images.detach().clone().requires_grad_().clone()


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with every parameter in the graph, for a while."""
    thawed = [p for p in model.parameters() if not p.requires_grad]
    with evaluating(model):
        for parameter in thawed:
            parameter.requires_grad_()
        try:
            yield
        finally:
            for parameter in thawed:
                parameter.requires_grad_(False)


@dataclass(frozen=True)
class _Addition:
    """One addition of two tensors: who did it, from what inputs, as which of its call; operands."""

    module: str
    inputs: frozenset[Node]
    place: int
    nodes: tuple[Node, Node]
    values: tuple[Tensor, ...]


class _Recorder(TorchFunctionMode):
    """Notes who adds what while a network runs, and which layer made which node of the graph."""

    def __init__(self, model: nn.Module, *, keep_values: bool = False) -> None:
        super().__init__()
        self.model, self.keep_values = model, keep_values
        self.stack: list[tuple[str, frozenset[Node], Iterator[int]]] = []
        self.additions: list[_Addition] = []
        self.layers: dict[Node, str] = {}
        self.refused: dict[str, str] = {}
        self.concatenates = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook every module and every torch function."""
        with ExitStack() as hooks:
            for name, module in self.model.named_modules():
                hooks.callback(
                    module.register_forward_pre_hook(self._entering(name), with_kwargs=True).remove
                )
                hooks.callback(module.register_forward_hook(self._left(name)).remove)
            with self:
                yield

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note an addition before it is done (it may be in place), then do it."""
        name = getattr(func, "__name__", "")
        if name in {"add", "add_", "__iadd__"} and len(args) > 1 and self.stack:
            left, right = args[:2]
            if isinstance(right, Tensor) and left.grad_fn and right.grad_fn:
                values = (left.detach().clone(), right.detach().clone()) if self.keep_values else ()
                module, inputs, places = self.stack[-1]
                nodes = (left.grad_fn, right.grad_fn)
                self.additions.append(_Addition(module, inputs, next(places), nodes, values))
        self.concatenates |= name in {"cat", "concat", "concatenate"}
        return func(*args, **(kwargs or {}))

    def _entering(self, name: str) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            nodes = (t.grad_fn for t in _tensors((args, list(kwargs.values()))))
            known = frozenset(node for node in nodes if node is not None)
            self.stack.append((name, known, count()))

        return hook

    def _left(self, name: str) -> Any:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            self.stack.pop()
            if isinstance(module, _LAYERS) and isinstance(output, Tensor):
                self.layers[output.grad_fn] = name

        return hook


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors inside lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _reach(start: Node, stop: frozenset[Node]) -> set[Node]:
    """All nodes that `start` was computed from, as far as the nodes of `stop`."""
    seen: set[Node] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node not in stop:
            waiting.extend(before for before, _ in node.next_functions)
    return seen


@dataclass(frozen=True)
class _Branch:
    """A residual addition: who does it, as which of its own additions, and how it is silenced."""

    module: str
    place: int
    side: int
    scale: Scale
    shortcut: str


def _branches(recorder: _Recorder) -> list[_Branch]:
    """The residual additions of a network, in forward order."""
    names = {id(parameter): name for name, parameter in recorder.model.named_parameters()}
    found: dict[tuple[str, int], _Branch] = {}
    for addition in recorder.additions:
        module, place = addition.module, addition.place
        sides = [_Side(node, addition.inputs, names) for node in addition.nodes]
        sizes = [len(side.parameters) for side in sides]
        if not module or not sides[0].inputs & sides[1].inputs or sizes[0] == sizes[1]:
            continue
        if (module, place) in found:  # the same module once more, as CoaT shares some
            continue
        side = int(sizes[1] > sizes[0])
        last = _last_layer(sides[side], sides[1 - side], recorder, names)
        if isinstance(last, str):
            recorder.refused[module] = last
        elif last is not None:
            shortcut = _child(module, sides[1 - side].parameters)
            found[module, place] = _Branch(module, place, side, last, shortcut)
    return list(found.values())


def _blocks(branches: Sequence[_Branch]) -> tuple[ResidualBlock, ...]:
    """Branches by the module that adds them."""
    by_module: dict[str, list[_Branch]] = {}
    for branch in branches:
        by_module.setdefault(branch.module, []).append(branch)
    return tuple(
        # The second addition of a transformer block starts from the result of the first. Branches
        # may share their last layer.
        ResidualBlock(
            short_name(module), module, tuple({b.scale: None for b in own}), own[0].shortcut
        )
        for module, own in by_module.items()
    )


class _Side:
    """One operand of an addition, seen from the module that adds."""

    def __init__(self, node: Node, inputs: frozenset[Node], names: Mapping[int, str]) -> None:
        self.node = node
        self.nodes = _reach(node, inputs)
        self.inputs = self.nodes & inputs
        variables = (getattr(node, "variable", None) for node in self.nodes)
        self.parameters = {names[id(v)] for v in variables if v is not None and id(v) in names}


def _last_layer(
    branch: _Side, shortcut: _Side, recorder: _Recorder, names: Mapping[int, str]
) -> Scale | str | None:
    """The last layer of a branch, or why it cannot be silenced, or None when there is none."""
    own = branch.nodes - shortcut.nodes
    for node in sorted(own, key=lambda n: n._sequence_nr(), reverse=True):
        scale = _scale_at(node, recorder, names)
        if scale is not None and not _reach(branch.node, frozenset({node})) & branch.inputs:
            return scale
    return None


def _scale_at(node: Node, recorder: _Recorder, names: Mapping[int, str]) -> Scale | str | None:
    """Return the layer that multiplies the features at a node, if any does."""
    name = recorder.layers.get(node)
    if name is None:
        factor = _factor(node, names)
        return None if factor is None else Scale(factor, None, "layer scale")
    layer: Any = recorder.model.get_submodule(name)
    is_norm = isinstance(layer, NORMS)
    if getattr(layer, "weight", None) is None:
        return "the norm at the end of its branch has no gamma"
    bias = f"{name}.bias" if layer.bias is not None else None
    return Scale(f"{name}.weight", bias, "gamma" if is_norm else "last layer")


def _factor(node: Node, names: Mapping[int, str]) -> str | None:
    """The parameter that a multiplication applies to its other operand, as layer scale does."""
    if not node.name().startswith("MulBackward"):
        return None
    for before, _ in node.next_functions:
        inside = _reach(before, frozenset())
        variables = [v for n in inside if (v := getattr(n, "variable", None)) is not None]
        if len(variables) == 1 and len(inside) <= _VIEWS and id(variables[0]) in names:
            return names[id(variables[0])]
    return None


_VIEWS = 3
"""A factor is a parameter behind at most two reshapes."""


def _child(block: str, parameters: set[str]) -> str:
    """The child of a block that holds these parameters, "" for none."""
    children = {p.removeprefix(f"{block}.").partition(".")[0] for p in parameters}
    return min(children, default="")


def _check(model: nn.Module, images: Tensor, branches: Sequence[_Branch]) -> dict[str, str]:
    """Module -> why it fails, for blocks whose branch does not vanish at zero."""
    faults: dict[str, str] = {}
    waiting = {block.module: block for block in _blocks(branches)}

    def try_out(module: nn.Module, args: Any, kwargs: Any) -> None:
        name = names[module]
        block = waiting.pop(name, None)
        if block is not None:
            own = [branch for branch in branches if branch.module == name]
            with silenced(model, block):
                reason = _fault(module, own, (args, kwargs))
            faults.update({name: reason} if reason else {})

    with ExitStack() as hooks:
        names = {model.get_submodule(name): name for name in waiting}
        for module in names:
            hook = module.register_forward_pre_hook(try_out, with_kwargs=True)
            hooks.callback(hook.remove)
        _run(model, _graphed(images))
    return faults


def _fault(module: nn.Module, branches: Sequence[_Branch], call: tuple[Any, Any]) -> str:
    """Return why the silenced branches of a block still matter, or ""."""
    args, kwargs = call
    recorder = _Recorder(module, keep_values=True)
    with recorder.watching():
        module(*(a.clone() if isinstance(a, Tensor) else a for a in args), **kwargs)
    own = [addition.values for addition in recorder.additions if not addition.module]
    for branch in branches:
        added, left = (own[branch.place][side] for side in (branch.side, 1 - branch.side))
        if added.any():
            return "with its last layer at zero its branch still adds something"
        if left.std() <= CONSTANT * left.abs().max():
            return "its shortcut carries no signal: at gamma 0 its output would be a constant"
    return ""


@contextmanager
def silenced(model: nn.Module, block: ResidualBlock, *, factor: float = 0.0) -> Iterator[None]:
    """Run with the last layers of a block's branches multiplied by a factor.

    Args:
        model: The network the block belongs to.
        block: Which branches.
        factor: 0 for silence.
    """
    parameters = dict(model.named_parameters())
    names = [name for scale in block.scales for name in (scale.weight, scale.bias) if name]
    before = {name: parameters[name].detach().clone() for name in names}
    with torch.no_grad():
        for name in names:
            parameters[name].mul_(factor)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                parameters[name].copy_(tensor)


@torch.no_grad()
def call_of(
    model: nn.Module, block: ResidualBlock, images: Tensor
) -> tuple[tuple[Any, ...], Tensor]:
    """Return the input of a block and its output, in evaluation mode."""
    seen: list[tuple[Any, ...]] = []
    module = model.get_submodule(block.module)

    def copy_input(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(tuple(a.clone() if isinstance(a, Tensor) else a for a in args))

    hook = module.register_forward_pre_hook(copy_input)
    try:
        with in_evaluation(model):
            _run(model, images)
    finally:
        hook.remove()
    with in_evaluation(model):
        output: Tensor = module(*(a.clone() if isinstance(a, Tensor) else a for a in seen[0]))
    return seen[0], output


@torch.no_grad()
def modules_after(model: nn.Module, block: ResidualBlock, images: Tensor) -> list[nn.Module]:
    """Return the modules that run once a block has finished, in the order in which they run."""
    order: list[nn.Module] = []
    end = model.get_submodule(block.module)

    def note(module: nn.Module, _args: Any, _output: Any) -> None:
        order.append(module)

    with ExitStack() as hooks, in_evaluation(model):
        for module in model.modules():
            hooks.callback(module.register_forward_hook(note).remove)
        _run(model, images)
    return order[order.index(end) + 1 :]
