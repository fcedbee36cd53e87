"""A tiny study on disk: squares that are bright or not. For tests of the chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RECIPE = """
study: {question: "Is the square bright?", operating_point: {sensitivity: 0.8}, prevalence: 0.1}
data: {manifest: manifest.csv, target: bright, strata: [site]}
image: {modality: cxr, size: 32}
model: {backbone: test_resnet, weights: {source: none, random_features: true}}
finetune:
  batch_size: 8
  stages:
    - {name: head, train: head, epochs: 1, lr: 1e-2}
    - {name: full, train: all, epochs: 2, lr: {head: 1e-2, base: 1e-2}, warmup_epochs: 1}
run: {tensorboard: false, device: cpu}
"""


def write_tiny_study(folder: Path, *, patients: int = 30, recipe: str = RECIPE) -> Path:
    """Write images, manifest and recipe; return the recipe's path. Two images per patient."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,patient_id,bright,site,age,sex"]
    for patient in range(patients):
        for number in range(2):
            rng = np.random.default_rng([patient, number])
            pixels = rng.integers(0, 60, (40, 40))
            bright = patient % 2
            pixels[10:30, 10:30] += 90 if bright else 30
            name = f"images/{patient:03d}_{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            site = "north" if patient % 3 else "south"
            lines.append(f"{name},Kim-{patient},{bright},{site},{40 + patient % 30},F")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    return path
