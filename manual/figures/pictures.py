"""Synthetic pictures that the figures show."""

from __future__ import annotations

from functools import cache

import numpy as np

from medtl.demo.chest import draw_patient, draw_radiograph
from medtl.preprocess.geometry import resize


@cache
def film(number: int = 0, side: int = 224) -> np.ndarray:
    """Return a synthetic chest film, `(side, side)` in [0, 1]."""
    patient = draw_patient(7, number)
    drawn = draw_radiograph(7, patient, 1).film
    return np.clip(resize(np.asarray(drawn, np.float32)[None], (side, side))[0], 0, 1)


@cache
def lesion(side: int = 224) -> np.ndarray:
    """Return a drawn skin lesion, `(3, side, side)` in [0, 1]."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    angle = np.arctan2(rows, columns)
    rim = 0.24 + 0.03 * np.sin(3 * angle) + 0.02 * np.sin(7 * angle)
    inside = 1 / (1 + np.exp((np.hypot(rows, columns) - rim) * 60))
    grain = 0.03 * np.random.default_rng(0).normal(size=(side, side))
    skin, brown = np.array([0.88, 0.70, 0.60]), np.array([0.42, 0.25, 0.18])
    colours = skin[:, None, None] * (1 - inside) + brown[:, None, None] * inside
    return np.clip(colours + grain, 0, 1).astype(np.float32)
