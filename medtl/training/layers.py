"""What training did to each layer: how far its weights moved, which of its units never fire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medtl.data.batches import CaseSamples
from medtl.networks.groups import LayerGroup, layer_groups

IMAGES = 32
"""Validation images that units are watched on."""

CUT_OFF = (nn.ReLU, nn.ReLU6)
"""Activations whose units can die: exactly 0 for whatever comes in."""


@dataclass(frozen=True)
class Layers:
    """A network before its training.

    Attributes:
        weights: Name -> a copy of each parameter, on the CPU.
        silent: Layer -> for each of its channels, whether it was 0 on all images.
        images: How many.
    """

    weights: Mapping[str, Tensor]
    silent: Mapping[str, Tensor]
    images: int

    @classmethod
    def of(cls, model: nn.Module, samples: CaseSamples) -> Layers:
        """Return what a network is now.

        Args:
            model: Left in evaluation mode.
            samples: The first `IMAGES` of them are looked at.
        """
        weights = {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
        images = min(IMAGES, len(samples))
        return cls(weights, silent_units(model, samples, images), images)

    def changed(self, model: nn.Module, samples: CaseSamples) -> dict[str, Any]:
        """Return what the network is after its training, as JSON types.

        Args:
            model: The same network.
            samples: The same cases.
        """
        changes = weight_changes(layer_groups(model), self.weights, dict(model.named_parameters()))
        silent = silent_units(model, samples, self.images)
        units = [
            {
                "layer": name,
                "units": len(now),
                "dead": float(now.float().mean()),
                "dead_at_start": float(self.silent[name].float().mean()),
            }
            for name, now in silent.items()
            if name in self.silent
        ]
        return {
            "schema": "medtl-layers/1",
            "images": self.images,
            "groups": [asdict(change) for change in changes],
            "units": units,
        }


@dataclass(frozen=True)
class Change:
    """One layer group after training.

    Attributes:
        name: Of the group, stem to head.
        parameters: How many.
        trained: Whether any moved.
        change: Norm of the change over norm of the weights before; None where they were all 0.
    """

    name: str
    parameters: int
    trained: bool
    change: float | None


def weight_changes(
    groups: Sequence[LayerGroup], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> list[Change]:
    """Return how far the weights of each group moved; exactly 0 for a frozen one.

    Args:
        groups: Of the network.
        before: Name -> parameter.
        after: The same later; a name that is not in both is left out.
    """
    found = []
    for group in groups:
        names = [name for name in group.parameters if name in before and name in after]
        moved = sum(
            float((after[n].detach().cpu() - before[n]).double().square().sum()) for n in names
        )
        size = sum(float(before[n].double().square().sum()) for n in names)
        change = (moved / size) ** 0.5 if size else None
        number = sum(before[n].numel() for n in names)
        found.append(Change(group.name, number, moved > 0, change))
    return found


def silent_units(model: nn.Module, samples: CaseSamples, images: int) -> dict[str, Tensor]:
    """Return, for each layer that cuts off at 0, which channels are 0 on all images.

    Args:
        model: Left in evaluation mode.
        samples: Cases.
        images: How many of them, from the first.
    """
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            units = (output > 0).transpose(0, 1).flatten(1).any(dim=1).cpu()
            # A module that is used twice with other channels is a layer of its own each time.
            key = name if len(seen.get(name, units)) == len(units) else f"{name} ({len(units)})"
            seen[key] = units | seen.get(key, torch.zeros_like(units))

        return hook

    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, CUT_OFF)]
    hooks = [module.register_forward_hook(watch(name)) for name, module in layers]
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.inference_mode():
            for index in range(images if hooks else 0):
                one = samples[0, index]
                model(one.images[None].to(device), one.inputs[None].to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: ~fired for name, fired in seen.items()}
