"""Frozen parameters in training mode: the features drift, because batch statistics follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from manual.figures.canvas import BLUE, ORANGE, canvas
from manual.figures.pictures import film

PASSES = 10
"""Forward passes of `IMAGES` films."""

IMAGES, SIDE = 16, 128


def measure_frozen() -> dict[str, Any]:
    """Return the cosine to the features before any pass, with and without the hold.

    No weight changes: every parameter has `requires_grad = False` in both.
    """
    import torch

    from medtl.networks.batch_norm import hold_in_eval, tracks_statistics

    torch.set_num_threads(1)
    films = torch.tensor(np.stack([film(n, SIDE) for n in range(IMAGES)]), dtype=torch.float32)
    images = ((films - films.mean()) / films.std())[:, None].expand(-1, 3, -1, -1)
    found: dict[str, Any] = {"images": IMAGES, "passes": PASSES}
    for name in ("parameters_only", "statistics_too"):
        network = pretrained().backbone
        network.requires_grad_(False)
        before = network.eval()(images)
        if name == "statistics_too":
            for norm in filter(tracks_statistics, network.modules()):
                hold_in_eval(norm)
        cosines = [1.0]
        for _ in range(PASSES):
            network.train()(images)
            with torch.no_grad():
                after = network.eval()(images)
            cosines.append(float(torch.cosine_similarity(before, after).mean()))
            network.train()
        found[name] = [round(cosine, 3) for cosine in cosines]
    return found


def pretrained() -> Any:
    """Return EfficientNet-Lite0 with the weights that come with medtl."""
    from medtl.networks.backbones import build_classifier
    from medtl.networks.weights import WeightsSource

    network, _ = build_classifier(
        "tf_efficientnet_lite0", outputs=1, weights=WeightsSource("bundled")
    )
    return network


def draw_frozen(out: Path, found: dict[str, Any]) -> None:
    """Write `frozen.png`."""
    figure, (axes,) = canvas(6, 2.8)
    for name, colour, told in (
        ("statistics_too", BLUE, "medtl: statistics frozen too"),
        ("parameters_only", ORANGE, "requires_grad = False alone"),
    ):
        axes.plot(found[name], color=colour, marker="o", markersize=3, label=told)
    axes.set(xlabel="forward passes in training mode", ylabel="cosine to the features before",
             ylim=(0, 1.05))  # fmt: skip
    axes.legend(frameon=False, loc="lower left")
    figure.tight_layout()
    figure.savefig(out / "frozen.png")
