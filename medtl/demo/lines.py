"""Lines that are drawn on a phantom: ribs, collar bones, shoulder blades, vessels.

Places are in the chest's coordinates of `demo.anatomy`; a `Grid` carries them to pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from medtl.demo.anatomy import LEFT, RIGHT, Anatomy, Plane, Pose, chest_wall

_SUBPIXEL_BITS = 4
"""Fixed-point bits of the coordinates that OpenCV draws at."""

_ALONG = np.linspace(0, 1, 14)
"""Points at which a bone's course is known: parts of its length."""

_JOINTS = 7
"""Places that a vessel runs through from one branching to the next."""

Courses = Sequence[NDArray[np.float64]]
"""`(n, 2)` places each, in the order in which a line runs."""


_LETTERS: Mapping[str, list[list[tuple[float, float]]]] = {
    "L": [[(0, 0), (0, 1), (0.6, 1)]],
    "R": [[(0, 1), (0, 0), (0.45, 0), (0.6, 0.12), (0.6, 0.38), (0.45, 0.5), (0, 0.5)],
          [(0.3, 0.5), (0.6, 1)]],
}  # fmt: skip
"""Strokes of the side markers, in letter heights from the upper left corner."""


class Grid(NamedTuple):
    """The pixels' places in the chest, `(rows, columns)` each, and the `(2, 3)` way back."""

    x: Plane
    y: Plane
    to_pixels: NDArray[np.float64]


def grid(pose: Pose, shape: tuple[int, int]) -> Grid:
    """Return where in the chest the pixels of an image of `(rows, columns)` lie."""
    rows, columns = shape
    cos, sin = math.cos(pose.rotation), math.sin(pose.rotation)
    across = (np.arange(columns) + 0.5) / columns - 0.5 - pose.shift[0]
    down = ((np.arange(rows) + 0.5 - rows / 2) / columns - pose.shift[1])[:, None]
    x = (cos * across + sin * down) / pose.scale
    y = (cos * down - sin * across) / pose.scale
    turn = np.array([[cos, -sin], [sin, cos]]) * pose.scale * columns
    origin = [[(pose.shift[0] + 0.5) * columns - 0.5], [pose.shift[1] * columns + rows / 2 - 0.5]]
    return Grid(x.astype(np.float32), y.astype(np.float32), np.hstack([turn, origin]))


@dataclass(frozen=True)
class Canvas:
    """Lines under way on one image: `(rows, columns)` of 0 to 255, and places to its pixels."""

    plane: NDArray[np.uint8]
    to_pixels: NDArray[np.float64]

    def stroke(self, courses: Courses, width: float, level: int) -> None:
        """Draw lines of a width in image widths; they cover what was there."""
        pixels = max(1, round(width * self.plane.shape[1]))
        lines = self._fixed_point(courses)
        cv2.polylines(self.plane, lines, False, level, pixels, cv2.LINE_AA, _SUBPIXEL_BITS)

    def bone(self, courses: Courses, width: float) -> None:
        """Draw bones: their dense rim, then their lighter inside."""
        self.stroke(courses, width, 170)
        self.stroke(courses, 0.6 * width, 110)

    def fill(self, outlines: Courses, level: int) -> None:
        """Fill polygons."""
        lines = self._fixed_point(outlines)
        cv2.fillPoly(self.plane, lines, level, cv2.LINE_AA, _SUBPIXEL_BITS)

    def blurred(self, sigma: float) -> Plane:
        """Return the drawing as 0 to 1, softened by `sigma` image widths."""
        return soften(self.plane.astype(np.float32) / np.float32(255), sigma)

    def _fixed_point(self, courses: Courses) -> list[NDArray[np.int32]]:
        """Return places as OpenCV's fixed-point pixels."""
        turn = self.to_pixels * (1 << _SUBPIXEL_BITS)
        return [np.rint(course @ turn[:, :2].T + turn[:, 2]).astype(np.int32) for course in courses]


def soften(plane: Plane, sigma: float) -> Plane:
    """Return a plane blurred by a Gaussian of `sigma` image widths."""
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma * plane.shape[1]), np.float32)


def blank(place: Grid) -> Canvas:
    """Return an empty canvas for a grid."""
    return Canvas(np.zeros(place.x.shape, np.uint8), place.to_pixels)


# ----------------------------------------------------------------------- bones


def bones(anatomy: Anatomy, pose: Pose, place: Grid) -> Plane:
    """Return the attenuation of ribs, collar bones, shoulder blades and upper arms.

    Bones fade with age.
    """
    back, front, collar, blade = (blank(place) for _ in range(4))
    sides = (RIGHT, LEFT)
    back.bone([_posterior_rib(anatomy, side, n) for side in sides for n in range(10)], 0.024)
    front.bone([_anterior_rib(anatomy, side, n) for side in sides for n in range(1, 7)], 0.026)
    collar.bone([_collar_bone(pose, side) for side in sides], 0.030)
    blade.fill([_shoulder_blade(anatomy, pose, side) for side in sides], 120)
    blade.bone([np.array([(side * 0.455, -0.275), (side * 0.51, 0.0)]) for side in sides], 0.065)
    ribs = 0.65 * back.blurred(0.0025) + 0.4 * front.blurred(0.004)
    others = 0.9 * collar.blurred(0.003) + 0.7 * blade.blurred(0.005)
    return (1.1 - 0.004 * anatomy.age) * (ribs + others)


def _rib_at_wall(anatomy: Anatomy, number: int) -> tuple[float, float]:
    """Return the distance from the midline, and y, at which a rib turns from back to front."""
    y = anatomy.first_rib + number * anatomy.rib_spacing + 0.05 + 0.010 * number
    return float(chest_wall(anatomy, np.array(y))) + 0.010, y


def _posterior_rib(anatomy: Anatomy, side: int, number: int) -> NDArray[np.float64]:
    """Return a rib's course from the spine to the wall: it rises a little, then drops."""
    wall, wall_y = _rib_at_wall(anatomy, number)
    start = anatomy.first_rib + number * anatomy.rib_spacing
    out = 0.035 + (wall - 0.035) * np.sin(_ALONG * math.pi / 2)
    y = start - 0.035 * np.sin(_ALONG * math.pi) + (wall_y - start) * _ALONG**2.5
    return np.stack([side * out, y], axis=1)


def _anterior_rib(anatomy: Anatomy, side: int, number: int) -> NDArray[np.float64]:
    """Return a rib's course from the wall forwards, down and inwards to its cartilage."""
    wall, wall_y = _rib_at_wall(anatomy, number)
    out = wall - (wall - 0.12) * _ALONG**1.3
    y = wall_y + (0.09 + 0.005 * number) * np.sin(_ALONG * math.pi / 2)
    return np.stack([side * out, y], axis=1)


def _collar_bone(pose: Pose, side: int) -> NDArray[np.float64]:
    """Return a collar bone's course; it projects higher at the bedside."""
    rise = 0.025 if pose.view == "AP" else 0.0
    y = -0.27 - rise - 0.055 * _ALONG - 0.015 * np.sin(2 * math.pi * _ALONG)
    return np.stack([side * (0.035 + 0.37 * _ALONG), y], axis=1)


def _shoulder_blade(anatomy: Anatomy, pose: Pose, side: int) -> NDArray[np.float64]:
    """Return a shoulder blade's outline: rolled off the lung unless at the bedside."""
    inner = anatomy.thorax - (0.09 if pose.view == "AP" else 0.0)
    corners = [(inner, -0.27), (inner + 0.11, -0.30), (inner + 0.10, -0.20), (inner + 0.045, 0.0)]
    return np.array([(side * out, y) for out, y in corners])


# --------------------------------------------------------------------- vessels


def vessels(anatomy: Anatomy, place: Grid) -> Plane:
    """Return the vessels of both lungs, 0 to 1: they leave the hila, branch and taper."""
    rng = np.random.default_rng([anatomy.branching])
    canvas = blank(place)
    for side in (RIGHT, LEFT):
        angles = np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.08, 9)
        hilum = (side * (anatomy.mediastinum + 0.012), -0.03 if side == LEFT else -0.01)
        starts = np.tile(hilum, (9, 1))
        for generation in range(4):
            courses = _grow(rng, starts, angles, side, 0.095 * 0.9**generation)
            canvas.stroke(list(courses), 0.013 * 0.62**generation, 215 - 40 * generation)
            starts = np.repeat(courses[:, -1], 2, axis=0)
            turns = np.tile([-0.35, 0.35], len(angles))
            angles = np.repeat(angles, 2) + turns + rng.normal(0, 0.15, len(turns))
    return canvas.blurred(0.0022)


def _grow(
    rng: np.random.Generator,
    starts: NDArray[np.float64],
    angles: NDArray[np.float64],
    side: int,
    length: float,
) -> NDArray[np.float64]:
    """Return the `(n, joints, 2)` courses of vessels; angles are below the horizontal, outwards."""
    bend = rng.normal(0, 0.25, (len(angles), 1)) * np.linspace(0, 1, _JOINTS)
    lengths = length * rng.uniform(0.75, 1.25, (len(angles), 1, 1)) / _JOINTS
    heading = angles[:, None] + bend
    steps = np.stack([side * np.cos(heading), np.sin(heading)], axis=2) * lengths
    return np.concatenate([starts[:, None], starts[:, None] + np.cumsum(steps, axis=1)], axis=1)


# --------------------------------------------------------------------- markers


def side_marker(letter: str, shape: tuple[int, int]) -> Plane:
    """Return the lead letter "L" or "R", 0 to 1, in the upper corner of the patient's side.

    It lies on the detector, so it does not move with the chest.
    """
    rows, columns = shape
    corner = np.array([0.88 if letter == "L" else 0.075, 0.07])
    to_pixels = np.hstack([np.eye(2) * columns, np.full((2, 1), -0.5)])
    canvas = Canvas(np.zeros((rows, columns), np.uint8), to_pixels)
    strokes = [corner + 0.055 * np.array(stroke) for stroke in _LETTERS[letter]]
    canvas.stroke(strokes, 0.007, 255)
    return canvas.plane.astype(np.float32) / np.float32(255)
