"""The hand of a phantom: which bones have ossified at a stage, and the outlines of all.

Places are `(x, y)` in hand lengths, from the wrist to the tip of the middle finger: y grows towards
the fingers, x towards the thumb, and (0, 0) is the middle of the wrist. Stages are in months of a
boy's bone age; a girl reaches each of them earlier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
"""`(n, 2)` places of a closed line."""

GIRLS_AHEAD = 1.14
"""A girl's stage over her bone age: by so much her bones look older than a boy's of that age."""

FUSING_MONTHS = 45.0
"""Time that a growth plate takes to close."""

JOINT, PLATE = 0.016, 0.018
"""Widths of a joint space and of an open growth plate, in hand lengths."""


class Finger(NamedTuple):
    """A ray of the hand: its base, its angle to the thumb's side, the lengths of its bones."""

    base: tuple[float, float]
    degrees: float
    lengths: tuple[float, ...]


FINGERS = (
    Finger((0.115, 0.10), 46, (0.23, 0.165, 0.11)),
    Finger((0.065, 0.165), 9, (0.34, 0.22, 0.125, 0.085)),
    Finger((0.015, 0.175), 1, (0.33, 0.24, 0.15, 0.09)),
    Finger((-0.035, 0.165), -6, (0.30, 0.225, 0.145, 0.09)),
    Finger((-0.078, 0.15), -14, (0.27, 0.175, 0.10, 0.08)),
)
"""Thumb to little finger."""

HALF_WIDTHS = (0.0215, 0.0195, 0.0165, 0.0135)
"""Half of a shaft's least width: metacarpal, proximal, middle and distal phalanx."""

APPEARS = (22.0, 16.0, 22.0, 28.0)
CLOSES = (192.0, 186.0, 183.0, 174.0)
"""Stage at which an epiphysis appears, and is one with its shaft, in the same order."""


class Carpal(NamedTuple):
    """A carpal bone: its place, its final radius, and the stage at which it appears."""

    place: tuple[float, float]
    radius: float
    appears: float


CARPALS = (
    Carpal((0.017, 0.118), 0.035, 3),  # capitate
    Carpal((-0.036, 0.110), 0.031, 5),  # hamate
    Carpal((-0.066, 0.070), 0.024, 30),  # triquetrum
    Carpal((-0.006, 0.055), 0.027, 46),  # lunate
    Carpal((0.046, 0.064), 0.030, 64),  # scaphoid
    Carpal((0.090, 0.098), 0.025, 70),  # trapezium
    Carpal((0.064, 0.132), 0.020, 74),  # trapezoid
    Carpal((-0.072, 0.052), 0.014, 112),  # pisiform
)

CARPAL_MONTHS = 75.0
"""Time of a carpal bone from its appearance to its full size."""


class Forearm(NamedTuple):
    """A bone of the forearm: its middle, half of its width, and its epiphysis's stages."""

    x: float
    half_width: float
    appears: float
    closes: float


FOREARM = (Forearm(0.042, 0.052, 14, 214), Forearm(-0.064, 0.034, 78, 208))
"""Radius and ulna."""


@dataclass(frozen=True)
class Hand:
    """The hand of one phantom.

    Attributes:
        sex: "F" or "M".
        bone_age_months: What the phantom was drawn for.
        length_mm: From the wrist to the tip of the middle finger.
        slenderness: Factor on the widths of all bones.
        spread: Degrees added to every finger's angle, thumb to little finger.
        earliness: Months by which each centre is early: carpals, then epiphyses by bone, forearm.
    """

    sex: Literal["F", "M"]
    bone_age_months: float
    length_mm: float
    slenderness: float
    spread: tuple[float, ...]
    earliness: tuple[float, ...]

    @property
    def stage(self) -> float:
        """The age that the hand looks, in months of a boy's bone age."""
        return self.bone_age_months * (GIRLS_AHEAD if self.sex == "F" else 1.0)


def sample_hand(rng: np.random.Generator, sex: Literal["F", "M"], bone_age_months: float) -> Hand:
    """Return a random hand of a sex and a bone age; size tells the age only roughly."""
    stage = bone_age_months * (GIRLS_AHEAD if sex == "F" else 1.0)
    grown = min(stage / 210, 1.0)
    adult = 178.0 if sex == "F" else 190.0
    return Hand(
        sex=sex,
        bone_age_months=bone_age_months,
        length_mm=adult * (0.46 + 0.54 * grown**0.9) * float(rng.normal(1, 0.06)),
        slenderness=float(rng.normal(1, 0.07)),
        spread=tuple(float(turn) for turn in rng.normal(0, 3, len(FINGERS))),
        earliness=tuple(float(months) for months in rng.normal(0, 6, len(CARPALS) + 6)),
    )


def bone_outlines(hand: Hand) -> Iterator[Outline]:
    """Yield the outlines of all bones that have ossified."""
    yield from _carpals(hand)
    yield from _forearm(hand)
    for number, finger in enumerate(FINGERS):
        yield from _ray(hand, finger, hand.spread[number], is_thumb=number == 0)


def flesh_courses(hand: Hand) -> Iterator[tuple[Outline, float]]:
    """Yield lines and the widths of the soft tissue along them: fingers, palm and forearm."""
    for number, finger in enumerate(FINGERS):
        way = _direction(finger.degrees + hand.spread[number])
        base = np.array(finger.base)
        yield np.stack([base, base + way * (sum(finger.lengths) - 0.01)]), 0.088
    palm = [(-0.05, 0.10), (0.05, 0.10), (0.06, 0.36), (-0.08, 0.33), (-0.05, 0.10)]
    yield np.array(palm), 0.16
    yield np.array([(-0.01, 0.12), (-0.01, -1.4)]), 0.27


def openness(stage: float, closes: float) -> float:
    """Return the width of a growth plate, 1 in a child and 0 once it has closed.

    Args:
        stage: Months.
        closes: Stage at which the epiphysis is one with its shaft.
    """
    return float(np.clip((closes - stage) / FUSING_MONTHS, 0, 1))


def ossified(stage: float, appears: float, months: float) -> float:
    """Return the size of an ossification centre, 0 before it appears and 1 when it is full.

    Args:
        stage: Months.
        appears: Stage at which it is first seen.
        months: How long it grows.
    """
    age = stage - appears
    return 0.0 if age <= 0 else min(1.0, 0.3 + 0.7 * age / months)


def _carpals(hand: Hand) -> Iterator[Outline]:
    """Outlines of the carpal bones, round at first."""
    for carpal, early in zip(CARPALS, hand.earliness, strict=False):
        size = ossified(hand.stage + early, carpal.appears, CARPAL_MONTHS) * carpal.radius
        if size > 0:
            # A square with round corners when it is full, so that bones meet in straight lines.
            yield _rounded(np.array(carpal.place), size * 1.05, size, square=size / carpal.radius)


def _forearm(hand: Hand) -> Iterator[Outline]:
    """Outlines of radius and ulna with their epiphyses."""
    for bone, early in zip(FOREARM, hand.earliness[-2:], strict=True):
        stage, half = hand.stage + early, bone.half_width * hand.slenderness
        gap, size = _plate(stage, bone.appears, bone.closes)
        end = -0.054 - PLATE * gap if gap > 0 else -0.012
        yield _shaft(np.array([bone.x, -1.4]), np.array([bone.x, end]), half * 0.72, half)
        if size > 0 and gap > 0:
            yield _rounded(np.array([bone.x, -0.033]), half * 1.04 * size, 0.021, square=0.6)


def _ray(hand: Hand, finger: Finger, turn: float, *, is_thumb: bool) -> Iterator[Outline]:
    """Outlines of a metacarpal and its phalanges, each with its epiphysis."""
    way = _direction(finger.degrees + turn)
    place = np.array(finger.base)
    kinds = (0, 1, 3) if is_thumb else (0, 1, 2, 3)
    for kind, length in zip(kinds, finger.lengths, strict=True):
        # The growth plate is at the near end, but in the metacarpals of the four fingers.
        is_far = kind == 0 and not is_thumb
        yield from _long_bone(hand, (place, place + way * (length - JOINT)), kind, is_far=is_far)
        place = place + way * length


def _long_bone(
    hand: Hand, ends: tuple[Outline, Outline], kind: int, *, is_far: bool
) -> Iterator[Outline]:
    """Outlines of a shaft and of its epiphysis, from its near to its far end."""
    half = HALF_WIDTHS[kind] * hand.slenderness
    stage = hand.stage + hand.earliness[len(CARPALS) + kind]
    gap, size = _plate(stage, APPEARS[kind], CLOSES[kind])
    ends = ends[::-1] if is_far else ends
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    depth = 0.55 * half
    start = ends[0] + along * (2 * depth + PLATE * gap) if gap > 0 else ends[0]
    yield _shaft(start, ends[1], half, half * 1.42)
    if size > 0 and gap > 0:
        middle = ends[0] + along * depth
        across = np.array([-along[1], along[0]])
        disc = _rounded(np.zeros(2), half * 1.42 * size, depth * max(size, 0.5), square=0.4)
        yield middle + disc[:, :1] * across + disc[:, 1:] * along


def _plate(stage: float, appears: float, closes: float) -> tuple[float, float]:
    """The width of a growth plate, and the size of its epiphysis against the shaft's end."""
    return openness(stage, closes), ossified(stage, appears, 0.6 * (closes - appears))


def _shaft(start: Outline, end: Outline, least: float, ends: float) -> Outline:
    """The outline of a tube that is narrowest in its middle, with round corners."""
    t = np.linspace(0, 1, 25)
    half = least + (ends - least) * np.abs(2 * t - 1) ** 2.5
    half = half * np.sqrt(np.clip(1 - np.abs(2 * t - 1) ** 30, 0.3, 1))
    course = start + t[:, None] * (end - start)
    way = (end - start) / np.linalg.norm(end - start)
    side = half[:, None] * np.array([-way[1], way[0]])
    return np.concatenate([course + side, (course - side)[::-1]])


def _rounded(place: Outline, half_x: float, half_y: float, *, square: float) -> Outline:
    """An ellipse that becomes a rectangle with round corners as `square` goes from 0 to 1."""
    angle = np.linspace(0, 2 * math.pi, 28, endpoint=False)
    power = 1 / (1 + square)
    cos, sin = np.cos(angle), np.sin(angle)
    shape = [np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power]
    return place + np.stack(shape, axis=1) * (half_x, half_y)


def _direction(degrees: float) -> Outline:
    """The unit vector that is turned from the middle finger towards the thumb."""
    angle = math.radians(degrees)
    return np.array([math.sin(angle), math.cos(angle)])
