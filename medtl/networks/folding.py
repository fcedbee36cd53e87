"""Held batch norm as part of the convolution before it, while a network trains.

A batch norm that keeps its statistics is a scale and a shift of each channel, and so is the last
thing that the convolution before it could do: `norm(conv(x))` is one convolution with the weights
`W * s` and the bias `(b - mean) * s + beta`, where `s = gamma / sqrt(variance + eps)`. A pass over
the activations, and a copy of them kept for the backward pass, are saved. The merged weights are
made anew in each forward pass, so that gradients reach `W`, `b`, `gamma` and `beta`; what a network
holds and saves is what it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from medtl.networks.batch_norm import evaluating, is_held


class Pair(NamedTuple):
    """A convolution whose output goes into a held batch norm and nowhere else."""

    conv: Any
    norm: Any


@contextmanager
def folded(network: nn.Module, *inputs: Tensor) -> Iterator[list[Pair]]:
    """Merge held batch norms into the convolutions before them for a while.

    Outputs and gradients are those of the layers one by one, but for rounding.

    Args:
        network: Its parameters, buffers and modes stay as they are.
        inputs: Some that it takes, `(B, C, *S), ...`: what follows what is seen on them.

    Yields:
        What was merged.

    >>> from medtl.networks.batch_norm import hold_in_eval
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    >>> hold_in_eval(network[1])
    >>> images = torch.randn(2, 3, 16, 16)
    >>> with folded(network, images) as pairs:
    ...     merged = network(images)
    >>> len(pairs), torch.allclose(merged, network(images), atol=1e-5)
    (1, True)

    Reference:
        Jacob et al. 2018, Quantization and Training of Neural Networks, section 3.2, equation 14,
        with the statistics held.
    """
    pairs = foldable(network, *inputs)
    for conv, norm in pairs:
        conv.forward = partial(_merged, conv, norm)
        norm.forward = partial(_after, norm)
    try:
        yield pairs
    finally:
        for conv, norm in pairs:
            del conv.forward, norm.forward


def foldable(network: nn.Module, *inputs: Tensor) -> list[Pair]:
    """Return the convolutions and held batch norms that may be merged.

    Left out is a norm that follows the data, and a convolution whose output is used elsewhere too,
    or whose weights do not train: a frozen layer gives the bits that it gave when they were stored,
    and where the scale after it trains, merging would need the gradient that freezing saves.

    Args:
        network: As it trains: what is held is read from it.
        inputs: Some that it takes.

    >>> foldable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), torch.randn(2, 3, 16, 16))
    []
    """
    watch = _Watch(network)
    with evaluating(network), torch.no_grad(), watch:
        network(*inputs)
    return [*watch.pairs()]


class _Watch(TorchFunctionMode):
    """Sees which tensors leave convolutions, and who takes them, in one forward pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.made: dict[int, tuple[Any, Tensor]] = {}  # kept alive: an address is reused
        self.given: dict[int, nn.Module] = {}
        self.takers: Counter[int] = Counter()
        self.calls: Counter[nn.Module] = Counter()
        self.hooks: list[Any] = []

    def __enter__(self) -> _Watch:
        for module in self.network.modules():
            if _is_plain_conv(module):
                self.hooks.append(module.register_forward_hook(self._leaves))
            elif _is_plain_held_norm(module):
                self.hooks.append(module.register_forward_pre_hook(self._arrives))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *reason: object) -> None:
        super().__exit__(*reason)  # type: ignore[no-untyped-call]
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor | Sequence) and not isinstance(result, torch.Size):
            self.takers.update({*_addresses((args, kwargs))} & {*self.made})
        return result

    def _leaves(self, module: nn.Module, _given: object, made: Tensor) -> None:
        self.calls[module] += 1
        self.made[id(made)] = module, made

    def _arrives(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.calls[module] += 1
        if id(given[0]) in self.made:  # else a tensor that may be gone when its address is reused
            self.given[id(given[0])] = module

    def pairs(self) -> Iterator[Pair]:
        """Each convolution and norm that are used once, the one for the other alone."""
        for key, (conv, _) in self.made.items():
            norm = self.given.get(key)
            if norm is None or self.takers[key] != 1 or {self.calls[conv], self.calls[norm]} != {1}:
                continue
            if conv.weight.requires_grad:
                yield Pair(conv, norm)


def _addresses(given: object) -> Iterator[int]:
    """The addresses of what a function is given, lists and dictionaries opened."""
    if isinstance(given, list | tuple):
        for one in given:
            yield from _addresses(one)
    elif isinstance(given, dict):
        yield from _addresses([*given.values()])
    else:
        yield id(given)


def _is_plain_conv(module: nn.Module) -> bool:
    """Whether a module does with its own weights what a convolution does, and no more."""
    from timm.layers.conv2d_same import Conv2dSame

    plain = (nn.Conv2d.forward, nn.Conv3d.forward, Conv2dSame.forward)
    return (
        isinstance(module, nn.Conv2d | nn.Conv3d)
        and type(module).forward in plain
        and isinstance(module._parameters.get("weight"), Tensor)  # not behind an adapter
    )


def _is_plain_held_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm with fixed statistics, or one with an activation after."""
    from timm.layers.norm_act import BatchNormAct2d

    return (
        isinstance(module, _BatchNorm)
        and type(module).forward in (_BatchNorm.forward, BatchNormAct2d.forward)
        and is_held(module)
        and module.running_mean is not None
    )


def _merged(conv: Any, norm: Any, images: Tensor) -> Tensor:
    """What the convolution and the scale and shift of the norm make of its input."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    own = conv._parameters
    weight, bias = own["weight"], own["bias"]
    shift = (-norm.running_mean if bias is None else bias - norm.running_mean) * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    own["weight"] = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    own["bias"] = shift
    try:
        made: Tensor = type(conv).forward(conv, images)
        return made
    finally:
        own["weight"], own["bias"] = weight, bias


def _after(norm: Any, images: Tensor) -> Tensor:
    """What a norm layer does besides its norm: nothing, or its activation."""
    if type(norm).forward is _BatchNorm.forward:
        return images
    activated: Tensor = norm.act(norm.drop(images))
    return activated
