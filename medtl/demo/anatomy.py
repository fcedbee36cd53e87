"""The chest of a phantom: its measures, and the shapes of its organs as functions of the place.

Places are `(x, y)` in fractions of the image width: x grows to the image's right, which in a
frontal view is the patient's LEFT, y grows downwards, and (0, 0) is the middle of the chest. `side`
is -1 for the patient's right and +1 for the patient's left; `side * x` is the distance from the
midline.
Shapes return what they add to the optical thickness along one ray (natural logarithm, no unit).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating]
"""One number per pixel, `(rows, columns)` float32."""

RIGHT, LEFT = -1, 1
"""The patient's sides, as the sign of x."""

AP_MAGNIFICATION = 1.07
"""Factor by which the heart is wider with the source in front: it lies far from the detector."""


@dataclass(frozen=True)
class Anatomy:
    """Anatomy that all images of one phantom share. Lengths in fractions of the image width.

    Attributes:
        sex: "F" or "M".
        age: Years; the aortic knob grows and the bones fade with it.
        trunk: Half of the width of the body below the arms.
        thorax: Half of the inner width of the rib cage.
        apex: y of the lungs' tops.
        dome: y of the right diaphragm's dome; the left one is `dome_drop` lower.
        dome_drop: How much lower the left dome is than the right one.
        mediastinum: Half of the width of the shadow between the lungs.
        cardiothoracic_ratio: Width of the heart over the inner width of the rib cage, in a
            postero-anterior view.
        heart_tilt: Angle of the heart's long axis below the horizontal, in radians.
        first_rib: y of the first posterior rib at the spine.
        rib_spacing: From one posterior rib to the next.
        stomach: Radius of the gas bubble under the left dome; 0 when there is none.
        branching: Seed of the vessels' course.
    """

    sex: Literal["F", "M"]
    age: int
    trunk: float
    thorax: float
    apex: float
    dome: float
    dome_drop: float
    mediastinum: float
    cardiothoracic_ratio: float
    heart_tilt: float
    first_rib: float
    rib_spacing: float
    stomach: float
    branching: int


@dataclass(frozen=True)
class Effusion:
    """Fluid in one pleural cavity; `height` above the costophrenic angle, in image widths."""

    side: int
    height: float


@dataclass(frozen=True)
class Nodule:
    """A round shadow in a lung; lengths in image widths, `density` as attenuation at its centre."""

    x: float
    y: float
    radius: float
    density: float


@dataclass(frozen=True)
class Pose:
    """The pose of the phantom for one image.

    Attributes:
        view: "PA", or "AP" (at the bedside: a magnified heart, less air, blades over the lungs).
        rotation: Clockwise, in radians.
        scale: Size relative to the nominal one.
        shift: (x, y) of the chest's middle from the image's middle, in image widths.
        inspiration: How much the diaphragm is lower than nominal, in image widths.
    """

    view: Literal["PA", "AP"]
    rotation: float
    scale: float
    shift: tuple[float, float]
    inspiration: float


SHALLOW_BREATH = Pose("AP", 0.0, 1.0, (0.0, 0.0), -0.04)
"""The pose that shows the least lung."""


def sample_pose(rng: np.random.Generator) -> Pose:
    """Return how a phantom stood; three in ten images are taken at the bedside."""
    is_bedside = rng.random() < 0.3
    return Pose(
        view="AP" if is_bedside else "PA",
        rotation=float(rng.normal(0, 0.035 if is_bedside else 0.02)),
        scale=rng.uniform(0.93, 1.06),
        shift=(float(rng.normal(0, 0.015)), float(rng.normal(0, 0.012))),
        inspiration=rng.uniform(-0.04, 0.0) if is_bedside else rng.uniform(-0.02, 0.02),
    )


def sample_anatomy(rng: np.random.Generator, cardiothoracic_ratio: float) -> Anatomy:
    """Return a random phantom whose heart has the given width, in widths of its rib cage."""
    thorax = rng.uniform(0.345, 0.395)
    return Anatomy(
        sex="F" if rng.random() < 0.5 else "M",
        age=int(np.clip(rng.normal(58, 16), 18, 90)),
        trunk=thorax + rng.uniform(0.045, 0.10),
        thorax=thorax,
        apex=rng.uniform(-0.385, -0.345),
        dome=rng.uniform(0.17, 0.23),
        dome_drop=rng.uniform(0.012, 0.035),
        mediastinum=rng.uniform(0.058, 0.075),
        cardiothoracic_ratio=cardiothoracic_ratio,
        heart_tilt=rng.uniform(0.4, 0.7),
        first_rib=rng.uniform(-0.37, -0.34),
        rib_spacing=rng.uniform(0.058, 0.066),
        stomach=rng.uniform(0.025, 0.05) if rng.random() < 0.6 else 0.0,
        branching=int(rng.integers(2**31)),
    )


def sample_nodule(rng: np.random.Generator, anatomy: Anatomy) -> Nodule:
    """Return a nodule anywhere in the lungs, also behind ribs or the heart."""
    tries = 64  # four in ten fall into a lung
    x = rng.uniform(-anatomy.thorax, anatomy.thorax, tries)
    y = rng.uniform(anatomy.apex, anatomy.dome, tries)
    into = [distance_into_lung(anatomy, SHALLOW_BREATH, side, x, y) for side in (RIGHT, LEFT)]
    first = int(np.argmax(np.maximum(*into) > 0.03))
    return Nodule(
        float(x[first]),
        float(y[first]),
        radius=rng.uniform(0.027, 0.042),
        density=rng.uniform(1.2, 2.1),
    )


# ----------------------------------------------------------------------- lungs


def chest_wall(anatomy: Anatomy, y: Plane) -> Plane:
    """Return the distance of the rib cage's inner side from the midline at height y."""
    way = np.clip((y - anatomy.apex) / (anatomy.dome + 0.04 - anatomy.apex), 0, 1)
    left = (1 - way) * (1 - way)
    wall: Plane = 0.15 + (anatomy.thorax - 0.15) * np.sqrt(1 - left * (0.6 + 0.4 * left))
    return wall


def diaphragm(anatomy: Anatomy, pose: Pose, side: int, out: Plane) -> Plane:
    """Return y of the diaphragm at distance `out` from the midline: a dome, steep at the wall."""
    top = anatomy.dome + pose.inspiration + (anatomy.dome_drop if side == LEFT else 0.0)
    reach = (out - 0.15) / (anatomy.thorax - 0.15)
    square = reach * reach
    return top + np.where(reach > 0, square * (0.06 + 0.06 * reach), 0.03 * square)


def costophrenic_angle(anatomy: Anatomy, pose: Pose, side: int) -> float:
    """Return y of the lung's deepest point, where the diaphragm meets the chest wall."""
    return float(diaphragm(anatomy, pose, side, np.array(anatomy.thorax)))


def distance_into_lung(anatomy: Anatomy, pose: Pose, side: int, x: Plane, y: Plane) -> Plane:
    """Return how far inside a lung a place is, in image widths; negative outside."""
    out = side * x
    apex_rounding = np.clip(1 - (y - anatomy.apex) / 0.07, 0, None) ** 2
    medial = anatomy.mediastinum - 0.012 + 0.09 * apex_rounding
    inside: Plane = np.minimum(
        np.minimum(chest_wall(anatomy, y) - out, out - medial),
        diaphragm(anatomy, pose, side, out) - y,
    )
    return inside


def air_depth(anatomy: Anatomy, pose: Pose, side: int, x: Plane, y: Plane) -> Plane:
    """Return the thickness of air in a lung, 1 in its middle, without any fluid."""
    inside = distance_into_lung(anatomy, pose, side, x, y)
    return chord(1 - np.clip(inside / 0.13, 0, 1))


def fluid(anatomy: Anatomy, pose: Pose, effusion: Effusion, x: Plane, y: Plane) -> Plane:
    """Return the share of a lung's depth that an effusion fills: a level that climbs the wall."""
    reach = np.clip(effusion.side * x / anatomy.thorax, 0, 1)
    climb = effusion.height * (0.6 + 0.4 * reach**4)
    level = costophrenic_angle(anatomy, pose, effusion.side) - climb
    return ramp(y - level, 0.02 + 0.15 * effusion.height)


# ----------------------------------------------------------------- soft tissue


def trunk(anatomy: Anatomy, x: Plane, y: Plane) -> Plane:
    """Return the neck, the shoulders and the trunk, thicker towards the abdomen."""
    out = np.abs(x)
    # The arms' roots: the outline runs out to the shoulders above the armpit.
    waist = anatomy.trunk + 3.0 * np.square(np.clip(0.03 - y, 0, 0.4))
    top = -0.44 + 0.22 * np.clip(out - 0.06, 0, None)
    below = np.clip((y - top) / 0.12, 0, 1)
    thickness = (3.5 + 0.7 * ramp(y - 0.2, 0.35)) * np.sqrt(chord(out / waist)) * np.sqrt(below)
    neck_half = 0.10 + 2.5 * np.square(np.clip(y + 0.48, 0, 0.2))
    neck = 3.1 * np.sqrt(chord(out / neck_half)) * ramp(-0.2 - y, 0.2)
    flesh: Plane = np.maximum(thickness, neck)
    return flesh


def mediastinum(anatomy: Anatomy, x: Plane, y: Plane) -> Plane:
    """Return the great vessels, the aortic knob and the spine, less the air of the trachea."""
    half = anatomy.mediastinum + 0.3 * np.square(np.clip(y + 0.2, 0, 0.4))
    pedicle = 0.7 * np.sqrt(chord(x / half)) * ramp(y + 0.36, 0.16) * ramp(anatomy.dome - y, 0.1)
    radius = 0.036 + 0.0002 * anatomy.age
    knob = 0.8 * chord(np.hypot(x - anatomy.mediastinum + 0.014, (y + 0.15) * 0.8) / radius)
    bodies = 0.85 + 0.15 * np.tanh(4 * np.cos(2 * math.pi * y / 0.062))
    spine = (0.5 - 0.003 * anatomy.age) * ramp(0.040 - np.abs(x), 0.014) * bodies
    lean = x - 0.012 * np.clip(y + 0.3, 0, None)
    windpipe = chord(lean / 0.021) * ramp(-0.08 - y, 0.02)
    for side in (RIGHT, LEFT):
        along = np.clip(y + 0.09, 0, 0.06)
        bronchus = chord((side * x - 1.3 * along) / 0.017) * ramp(y + 0.09, 0.01)
        windpipe = np.maximum(windpipe, 0.8 * bronchus * ramp(-0.03 - y, 0.02))
    total: Plane = pedicle + knob + spine - 0.6 * windpipe
    return total


def heart_depth(anatomy: Anatomy, pose: Pose, x: Plane, y: Plane) -> Plane:
    """Return the heart's thickness, at most 1: two thirds of it lie on the patient's left.

    A tilted ellipse that stands on the diaphragm.
    """
    magnification = AP_MAGNIFICATION if pose.view == "AP" else 1.0
    half = anatomy.cardiothoracic_ratio * anatomy.thorax * magnification
    cos, sin, flatness = math.cos(anatomy.heart_tilt), math.sin(anatomy.heart_tilt), 0.64
    long = half / math.hypot(cos, flatness * sin)  # so that the tilted ellipse is 2 * half wide
    height = long * math.hypot(sin, flatness * cos)
    bottom = anatomy.dome + pose.inspiration + 0.05
    dx, dy = x - 0.30 * half, y - bottom + height
    reach = np.hypot(cos * dx + sin * dy, (cos * dy - sin * dx) / flatness) / long
    return np.sqrt(chord(reach))


def breasts(anatomy: Anatomy, x: Plane, y: Plane) -> Plane:
    """Return the two breast shadows, with their sharp lower rims."""
    radius = 0.13 + 0.0004 * anatomy.age
    total = np.zeros_like(x)
    for side in (RIGHT, LEFT):
        dx, dy = (side * x - 0.225) / 1.15, (y - 0.09 - 0.001 * anatomy.age) / 0.9
        total += 0.6 * chord(np.hypot(dx, dy) / radius) * ramp(dy + 0.04, 0.16)
    return total


def stomach_gas(anatomy: Anatomy, pose: Pose, x: Plane, y: Plane) -> Plane:
    """Return the gas bubble under the left dome; its attenuation is to be taken away."""
    top = anatomy.dome + pose.inspiration + anatomy.dome_drop + 0.025 + anatomy.stomach
    return 1.1 * chord(np.hypot((x - 0.17) / 1.6, y - top) / max(anatomy.stomach, 1e-3))


def chord(reach: Plane) -> Plane:
    """Return the path through a ball of radius 1 at distance `reach` from its centre, at most 1."""
    path: Plane = np.sqrt(np.clip(1 - reach * reach, 0, None))
    return path


def ramp(distance: Plane, width: float) -> Plane:
    """Return 0 below `-width / 2`, 1 above `width / 2`, and a straight line between."""
    rising: Plane = np.clip(distance / width + 0.5, 0, 1)
    return rising
