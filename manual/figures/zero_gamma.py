"""Zero-gamma: what silencing each pretrained block does to the features, and what tuning showed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from manual.figures.canvas import BLUE, GREY, ORANGE, canvas
from manual.figures.frozen import pretrained
from manual.figures.pictures import film

ABLATION = Path(__file__).parents[2] / "reports" / "data" / "zero_gamma_ablation" / "summary.json"
"""Made by the study of reports/zero_gamma_chest_xray.md."""

SHOWN = ("last1", "last3", "first3", "middle3", "random3", "last3-removed", "no-warmup")
"""Conditions of the ablation that the figure shows."""


def measure_zero_gamma() -> dict[str, Any]:
    """Return by residual block how far the pooled features turn where its last gamma is 0."""
    import torch

    from medtl.networks.residual import silenced, survey

    torch.set_num_threads(1)
    network = pretrained()
    films = torch.tensor(np.stack([film(n, 128) for n in range(8)]), dtype=torch.float32)
    images = ((films - films.mean()) / films.std())[:, None].expand(-1, 3, -1, -1)
    turned = {}
    network.eval()
    with torch.no_grad():
        whole = network.features(images)
    for block in survey(network, images[:1]).blocks:
        with silenced(network, block), torch.no_grad():
            cosine = torch.cosine_similarity(whole, network.features(images)).mean()
        turned[block.name] = round(1 - float(cosine), 3)
    return {"turned": turned}


def draw_zero_gamma(out: Path, found: dict[str, Any]) -> None:
    """Write `zero_gamma.png`."""
    figure, (left, right) = canvas(9, 3.4, 2)
    turned = found["turned"]
    left.bar(list(turned), list(turned.values()), color=BLUE)
    left.tick_params(axis="x", rotation=60, labelsize=7)
    left.set(ylabel="1 - cosine of the features", title="one block silenced, before any training")
    effects = json.loads(ABLATION.read_text(encoding="utf-8"))["effects"]
    by_name = {one["name"]: one["runs"]["difference"] for one in effects}
    for row, name in enumerate(reversed(SHOWN)):
        of = by_name[name]
        right.plot([of["low"], of["high"]], [row, row], color=ORANGE)
        right.plot(of["value"], row, "o", color=ORANGE, markersize=4)
    right.set_yticks(range(len(SHOWN)), list(reversed(SHOWN)), fontsize=8)
    right.axvline(0, color=GREY, linestyle=":")
    right.set(xlabel="difference in AUROC, 5 paired seeds", title="after tuning, 753 chest films")
    for axes in (left, right):
        axes.title.set_fontsize(9)
    figure.tight_layout()
    figure.savefig(out / "zero_gamma.png")
