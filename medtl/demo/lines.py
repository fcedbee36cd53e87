"""What is drawn as lines on a phantom: ribs, collar bones, shoulder blades, vessels.

Places are in the chest's coordinates of `demo.anatomy`; a `Grid` carries them to pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from medtl.demo.anatomy import LEFT, RIGHT, Anatomy, Plane, Pose, chest_wall

_SUBPIXEL_BITS = 4
"""Fixed-point bits of the coordinates that OpenCV draws at."""

Course = NDArray[np.float64]


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
    down = ((np.arange(rows) + 0.5) / columns - rows / columns / 2 - pose.shift[1])[:, None]
    x = (cos * across + sin * down) / pose.scale
    y = (cos * down - sin * across) / pose.scale
    turn = np.array([[cos, -sin], [sin, cos]]) * pose.scale * columns
    origin = [[(pose.shift[0] + 0.5) * columns - 0.5], [pose.shift[1] * columns + rows / 2 - 0.5]]
    return Grid(x.astype(np.float32), y.astype(np.float32), np.hstack([turn, origin]))


@dataclass
class Canvas:
    """Lines under way on one image: `(rows, columns)` of 0 to 255."""

    plane: NDArray[np.uint8]
    place: Grid

    @classmethod
    def like(cls, place: Grid) -> Canvas:
        """Return an empty canvas for a grid."""
        return cls(np.zeros(place.x.shape, np.uint8), place)

    def stroke(self, course: Course, width: float, level: int) -> None:
        """Draw through `(n, 2)` places with a width in image widths; it covers what was there."""
        pixels = max(1, round(width * self.plane.shape[1]))
        cv2.polylines(
            self.plane,
            [self._fixed_point(course)],
            False,
            level,
            pixels,
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )

    def fill(self, outline: Course, level: int) -> None:
        """Fill the polygon of `(n, 2)` places."""
        cv2.fillPoly(self.plane, [self._fixed_point(outline)], level, cv2.LINE_AA, _SUBPIXEL_BITS)

    def blurred(self, sigma: float) -> Plane:
        """Return the drawing as 0 to 1, softened by `sigma` image widths."""
        plane = self.plane.astype(np.float32) / np.float32(255)
        return cv2.GaussianBlur(plane, (0, 0), sigma * self.plane.shape[1])

    def _fixed_point(self, course: Course) -> NDArray[np.int32]:
        """Return places as OpenCV's fixed-point pixels."""
        pixels = course @ self.place.to_pixels[:, :2].T + self.place.to_pixels[:, 2]
        return np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def bones(anatomy: Anatomy, pose: Pose, place: Grid) -> Plane:
    """Return the ribs, collar bones and shoulder blades; old bones are fainter."""
    back, front, others = (Canvas.like(place) for _ in range(3))
    for side in (RIGHT, LEFT):
        for number in range(10):
            posterior, anterior = _rib(anatomy, side, number)
            _bone(back, posterior, 0.024)
            if number in range(1, 7):
                _bone(front, anterior, 0.026)
        _bone(others, _collar_bone(side, pose), 0.030)
    blades = Canvas.like(place)
    for side in (RIGHT, LEFT):
        blades.fill(_shoulder_blade(anatomy, side, pose), 150)
        _bone(blades, np.array([[side * 0.47, -0.27], [side * 0.49, -0.05]]), 0.07)
    strength = 1.1 - 0.004 * anatomy.age
    total = 0.75 * back.blurred(0.0025) + 0.5 * front.blurred(0.004)
    return strength * (total + 0.8 * others.blurred(0.003) + 0.5 * blades.blurred(0.006))


def _bone(canvas: Canvas, course: Course, width: float) -> None:
    """Draw a bone: its dense rim, then its lighter inside."""
    canvas.stroke(course, width, 170)
    canvas.stroke(course, 0.6 * width, 110)


def _rib(anatomy: Anatomy, side: int, number: int) -> tuple[Course, Course]:
    """Return the posterior and the anterior course of a rib."""
    start = anatomy.first_rib + number * anatomy.rib_spacing
    along = np.linspace(0, 1, 16)
    drop = 0.05 + 0.010 * number
    wall_y = start + drop
    wall = float(chest_wall(anatomy, np.float32(wall_y))) + 0.012
    out = 0.035 + (wall - 0.035) * np.sin(along * math.pi / 2)
    down = start - 0.035 * np.sin(along * math.pi) + drop * along**2.5
    posterior = np.stack([side * out, down], axis=1)
    in_front = wall - (wall - 0.10) * along**1.3
    sinking = wall_y + (0.10 + 0.005 * number) * np.sin(along * math.pi / 2)
    return posterior, np.stack([side * in_front, sinking], axis=1)


def _collar_bone(side: int, pose: Pose) -> Course:
    """Return the course of a collar bone; it projects higher at the bedside."""
    along = np.linspace(0, 1, 16)
    rise = 0.02 if pose.view == "AP" else 0.0
    y = -0.275 - rise - 0.055 * along - 0.018 * np.sin(2 * math.pi * along)
    return np.stack([side * (0.035 + 0.33 * along), y], axis=1)


def _shoulder_blade(anatomy: Anatomy, side: int, pose: Pose) -> Course:
    """Return the outline of a shoulder blade: rolled off the lung unless at the bedside."""
    inner = anatomy.thorax - (0.10 if pose.view == "AP" else 0.015)
    corners = [(inner, -0.29), (inner + 0.13, -0.33), (inner + 0.12, -0.22), (inner + 0.06, 0.02)]
    return np.array([(side * x, y) for x, y in corners])


def vessels(anatomy: Anatomy, place: Grid) -> Plane:
    """Return the vessels of both lungs: they leave the hila, branch twice and taper."""
    rng = np.random.default_rng([anatomy.branching])
    canvas = Canvas.like(place)
    for side in (RIGHT, LEFT):
        hilum = np.array([side * (anatomy.mediastinum + 0.012), -0.03 if side == LEFT else -0.01])
        for angle in np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.08, 9):
            _branch(canvas, rng, hilum, angle, side, generation=0)
    return canvas.blurred(0.0022)


def _branch(
    canvas: Canvas,
    rng: np.random.Generator,
    start: NDArray[np.float64],
    angle: float,
    side: int,
    *,
    generation: int,
) -> None:
    """Draw one vessel, then its two daughters; `angle` is below the horizontal, outwards."""
    length = rng.uniform(0.07, 0.12) * 0.9**generation
    along = np.linspace(0, 1, 7)[:, None]
    heading = angle + rng.normal(0, 0.25) * along
    steps = np.hstack([side * np.cos(heading), np.sin(heading)]) * length / 6
    course = start + np.cumsum(steps, axis=0)
    canvas.stroke(course, 0.013 * 0.62**generation, 215 - 40 * generation)
    if generation < 3:
        for turn in (-0.35, 0.35):
            _branch(
                canvas,
                rng,
                course[-1],
                angle + turn + rng.normal(0, 0.15),
                side,
                generation=generation + 1,
            )
