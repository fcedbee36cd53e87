"""A picture of each transform: as it was, and at both ends of the range that a modality allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from manual.figures.pictures import film, lesion
from medtl.preprocess.augment import Augmenter
from medtl.preprocess.safety import kind_of, modality_names, parameter_of, safety, transform_names

SIDE, GAP = 150, 6
"""Pixels of one picture, and between two."""


def pictured(name: str) -> str:
    """Return the modality that a transform is shown for, "" for what is not done to one image."""
    if kind_of(name) == "batch":
        return ""
    allowed = [m for m in modality_names() if safety(name, m).level != "UNSAFE"]
    return "cxr" if "cxr" in allowed or not allowed else allowed[0]


def strip(name: str) -> np.ndarray:
    """Return a transform's pictures beside each other, `(rows, columns, 3)` uint8."""
    modality = pictured(name)
    unit = film(0, SIDE)[None] if modality in ("cxr", "mr", "us") else lesion(SIDE)
    limits = safety(name, modality).limits.get(parameter_of(name))
    ends = [(end, end) for end in limits] if limits else [None]
    shown = [unit]
    for end in ends:
        rng = np.random.default_rng(3)
        shown.append(Augmenter(modality, {name: end}, probability=1.0)(unit, rng).array)
    gap = np.ones((SIDE, GAP, 3))
    colours = [np.moveaxis(np.broadcast_to(one, (3, SIDE, SIDE)), 0, -1) for one in shown]
    parts = [part for one in colours for part in (one, gap)][:-1]
    return (np.concatenate(parts, axis=1) * 255).round().astype(np.uint8)


def draw_transforms(out: Path) -> None:
    """Write `augmentation/NAME.jpg` for every transform that is done to one image."""
    (out / "augmentation").mkdir(parents=True, exist_ok=True)
    for name in filter(pictured, transform_names()):
        Image.fromarray(strip(name)).save(out / "augmentation" / f"{name}.jpg", quality=80)
