"""How large a network is: parameters, operations for one image, and how far one output sees.

The receptive field is the theoretical one, found without knowing the architecture: every
convolution and pooling becomes a mean over all channels, norms and activations pass their input on,
and a place in the middle of the last map is derived with respect to the input. It sees where its
gradient is not 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medtl.networks.groups import NORMS

PROBES = (512, 1024, 2048)
"""Pixels along which the receptive field is looked for."""

STRIP = 64
"""Pixels of the other axes meanwhile."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
POOLS = {nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
"""A maximum has a gradient at one of its places only; the mean at the same places has it at all."""


@dataclass(frozen=True)
class Capacity:
    """The size of a network.

    Attributes:
        parameters: How many.
        operations: Multiplications and additions for one image, each counted.
        field_px: Pixels along an axis that one place of the last map sees; infinite for the whole
            image, None where it cannot be found.
    """

    parameters: int
    operations: int
    field_px: float | None

    def field_mm(self, mm_per_px: float | None) -> float | None:
        """Return the receptive field in millimetres, None where it has none.

        Args:
            mm_per_px: Of the image as the network sees it.
        """
        if mm_per_px is None or self.field_px is None or math.isinf(self.field_px):
            return None
        return self.field_px * mm_per_px

    def words(self, mm_per_px: float | None = None) -> str:
        """Return it in one line.

        >>> Capacity(4_600_000, 780_000_000, 299).words(2.0)
        '4.6 M parameters, 0.78 GFLOP an image, each place sees 299 px (598 mm)'
        """
        size = (
            f"{self.parameters / 1e6:.2g} M parameters, {self.operations / 1e9:.2g} GFLOP an image"
        )
        if self.field_px is None:
            return size
        mm = self.field_mm(mm_per_px)
        sees = "the whole image" if math.isinf(self.field_px) else f"{self.field_px:g} px"
        return f"{size}, each place sees {sees}{'' if mm is None else f' ({mm:.0f} mm)'}"


def capacity(model: nn.Module, image: Sequence[int]) -> Capacity:
    """Return the size of a network.

    Args:
        model: A `Classifier`, `Segmenter` or timm backbone; left as it is.
        image: `(C, *S)` of one input.
    """
    return Capacity(
        sum(parameter.numel() for parameter in model.parameters()),
        operations(model, image),
        receptive_field(model, image),
    )


def operations(model: nn.Module, image: Sequence[int]) -> int:
    """Return multiplications and additions of the forward pass of one image.

    Args:
        model: Left in the mode it is in.
        image: `(C, *S)`.
    """
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(*_inputs(model, torch.zeros(1, *image, device=device)))
    model.train(was_training)
    return int(counter.get_total_flops())


def receptive_field(model: nn.Module, image: Sequence[int]) -> float | None:
    """Return how many pixels along an axis a place of the last feature map (or mask) sees.

    Args:
        model: Left as it is.
        image: `(C, *S)`; C is what it takes.

    Returns:
        Infinite when it sees the whole image (squeeze-and-excitation, transformers) or more than
        the largest of `PROBES`; None when the network takes no image of another size.

    Reference:
        Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural networks",
        Distill, doi 10.23915/distill.00021.
    """
    if len(image) < 3:  # features made elsewhere have no places
        return None
    means = _of_means(model)
    for size in PROBES:
        x = torch.ones(1, image[0], size, *[STRIP] * (len(image) - 2), dtype=torch.float64)
        x.requires_grad_()
        try:
            places = _last_map(means, x)
        except Exception:
            return None
        if places.ndim != x.ndim:  # tokens: each attends to all
            return math.inf
        for length in places.shape[2:]:
            places = places.select(2, length // 2)
        (gradient,) = torch.autograd.grad(places.sum(), x)
        seen = gradient[0].abs().sum(dim=[0, *range(2, len(image))]).nonzero()[:, 0]
        if len(seen) and int(seen[0]) > 0 and int(seen[-1]) < size - 1:
            return int(seen[-1] - seen[0]) + 1
    return math.inf


def _inputs(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """What a network takes of an image; a head with inputs of its own gets zeros."""
    linear = getattr(getattr(model, "head", None), "linear", None)
    features: Any = getattr(model, "features", None)
    if not isinstance(linear, nn.Linear) or features is None:
        return (x,)
    with torch.no_grad():
        extra = linear.in_features - features(x).shape[1]
    return (x, x.new_zeros(len(x), extra)) if extra > 0 else (x,)


def _last_map(model: nn.Module, x: Tensor) -> Tensor:
    """The last map that has a place in the image: features before pooling, or logits of pixels."""
    backbone: Any = getattr(model, "backbone", model)
    if hasattr(backbone, "forward_features"):
        return backbone.forward_features(x)  # type: ignore[no-any-return]
    return getattr(model, "network", model)(x)  # type: ignore[no-any-return]


class _Mean(nn.Module):
    """A convolution as a mean over its window and all channels, the same for each that it gives."""

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.channels = int(convolution.out_channels)
        window = tuple(convolution.kernel_size)
        weight = torch.full((1, 1, *window), 1 / math.prod(window), dtype=torch.float64)
        convolution.weight = nn.Parameter(weight)
        convolution.bias = None
        convolution.in_channels = convolution.out_channels = convolution.groups = 1
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = self.convolution(x.mean(dim=1, keepdim=True))
        # A copy: residual networks add in place.
        return mean.expand(-1, self.channels, *mean.shape[2:]).clone()


def _of_means(model: nn.Module) -> nn.Module:
    """A copy of a network that only takes means."""
    found = copy.deepcopy(model).cpu().double().eval()
    for parent in list(found.modules()):
        child: Any
        for name, child in list(parent.named_children()):
            if pool := next((POOLS[kind] for kind in POOLS if isinstance(child, kind)), None):
                new = pool(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                parent.add_module(name, new)
            elif isinstance(child, CONVOLUTIONS):
                parent.add_module(name, _Mean(child))
            elif isinstance(child, NORMS) or _is_activation(child):
                parent.add_module(name, nn.Identity())
    return found


def _is_activation(module: nn.Module) -> bool:
    """Whether a module changes values one by one."""
    where = type(module).__module__
    known = where.startswith(("torch.nn.modules.activation", "timm.layers.activations"))
    return known and not any(True for _ in module.parameters())
