"""From a phantom to a film: attenuation, scatter, quantum noise, display curve, side marker.

The film is what a radiologist sees as MONOCHROME2: 0 is black (all rays arrive), 1 is white.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from medtl.demo.anatomy import (
    LEFT,
    RIGHT,
    Anatomy,
    Effusion,
    Nodule,
    Plane,
    Pose,
    air_depth,
    breasts,
    chord,
    fluid,
    heart_depth,
    mediastinum,
    stomach_gas,
    trunk,
)
from medtl.demo.lines import Grid, bones, side_marker, soften, vessels

LUNG_AIR = 2.3
"""Attenuation that air takes away where the lung is deepest."""


@dataclass(frozen=True)
class Exposure:
    """The conditions under which one image was taken.

    Attributes:
        photons: Quanta per pixel in air; fewer are noisier.
        scatter: Scattered over direct rays.
        blur: Sigma of focus and detector, in image widths.
        brightness: Shift of the display curve, in attenuation; larger is darker.
        latitude: Width of the display curve, in attenuation; larger has less contrast.
        shutters: Black borders left, right, top and bottom, in image widths.
        marker: "L" or "R", the lead letter beside the patient's left or right.
    """

    photons: float
    scatter: float
    blur: float
    brightness: float
    latitude: float
    shutters: tuple[float, float, float, float]
    marker: str


def sample_exposure(rng: np.random.Generator, view: str) -> Exposure:
    """Return random technique; bedside images have less dose, more scatter and more blur."""
    at_bedside = view == "AP"
    has_shutters = rng.random() < 0.4
    return Exposure(
        photons=rng.uniform(3e4, 8e4) if at_bedside else rng.uniform(6e4, 2e5),
        scatter=rng.uniform(0.08, 0.14) if at_bedside else rng.uniform(0.04, 0.09),
        blur=rng.uniform(0.0025, 0.004) if at_bedside else rng.uniform(0.0015, 0.003),
        brightness=rng.normal(-0.2, 0.25),
        latitude=rng.uniform(0.55, 0.8),
        shutters=(*rng.uniform(0, 0.05, 4),) if has_shutters else (0.0, 0.0, 0.0, 0.0),
        marker="L" if rng.random() < 0.5 else "R",
    )


def attenuation(
    anatomy: Anatomy,
    pose: Pose,
    place: Grid,
    *,
    effusion: Effusion | None = None,
    nodule: Nodule | None = None,
    texture: Plane,
) -> Plane:
    """Return the attenuation of a chest on a grid, 0 where there is only air."""
    x, y = place.x, place.y
    air = np.zeros_like(x)
    for side in (RIGHT, LEFT):
        depth = air_depth(anatomy, pose, side, x, y)
        if effusion and effusion.side == side:
            depth = depth * (1 - 0.95 * fluid(anatomy, pose, effusion, x, y))
        air += depth
    heart = heart_depth(anatomy, pose, x, y)
    air *= 1 - 0.65 * heart
    flesh = trunk(anatomy, x, y)
    total = flesh + np.minimum(flesh, 1) * bones(anatomy, pose, place)
    total += mediastinum(anatomy, x, y) + 0.25 * heart
    total -= air * (LUNG_AIR - 0.42 * vessels(anatomy, place) - 0.10 * texture)
    total += 0.06 * texture
    if anatomy.sex == "F":
        total += breasts(anatomy, x, y)
    if anatomy.stomach:
        total -= stomach_gas(anatomy, pose, x, y)
    if nodule:
        total += nodule.density * chord(np.hypot(x - nodule.x, y - nodule.y) / nodule.radius)
    return np.maximum(total, 0)


def texture(rng: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Return smooth noise of several grain sizes together, with mean 0 and a variance near 1."""
    rows, columns = shape
    total = np.zeros(shape, np.float32)
    grains = (4, 10, 24, 56)
    for cells in grains:
        coarse = rng.standard_normal((max(2, cells * rows // columns), cells), np.float32)
        total += cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return total / np.float32(np.sqrt(len(grains)))


def expose(rng: np.random.Generator, thickness: Plane, exposure: Exposure) -> Plane:
    """Return the film of an attenuation, 0 (black) to 1 (white)."""
    rays = np.exp(-thickness)
    rays = (rays + exposure.scatter * _veil(rays)) / np.float32(1 + exposure.scatter)
    rays = soften(rays, exposure.blur)
    noise = rng.standard_normal(rays.shape, np.float32)
    rays += noise * np.sqrt(rays / np.float32(exposure.photons))
    seen = -np.log(np.maximum(rays, 1e-4))
    rows, columns = seen.shape
    middle = np.median(seen[rows // 4 : 3 * rows // 4 : 3, columns // 5 : 4 * columns // 5 : 3])
    film = 1 / (1 + np.exp((middle + exposure.brightness - seen) / exposure.latitude))
    _shut(film, exposure.shutters)
    marked: Plane = np.maximum(film, side_marker(exposure.marker, (rows, columns)))
    return marked


def _shut(film: Plane, borders: tuple[float, float, float, float]) -> None:
    """Blacken the left, right, top and bottom borders, as the device does outside the beam."""
    rows, columns = film.shape
    left, right, top, bottom = (round(border * columns) for border in borders)
    film[:top] = film[rows - bottom :] = 0
    film[:, :left] = film[:, columns - right :] = 0


def _veil(rays: Plane) -> Plane:
    """Return the rays spread over a tenth of the image, as scatter does."""
    rows, columns = rays.shape
    small = cv2.resize(rays, (columns // 8, rows // 8), interpolation=cv2.INTER_AREA)
    spread = soften(np.asarray(small, np.float32), 0.1)
    return np.asarray(cv2.resize(spread, (columns, rows)), np.float32)
