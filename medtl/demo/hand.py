"""A study of synthetic hand radiographs: DICOM files and their manifest, drawn from a seed.

No image shows a person: every one is a phantom. Its bone age is the months it was drawn for. Bones
ossify and growth plates close in the order of a real hand, girls ahead of boys of the same bone
age; size tells the age only roughly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtl.demo.anatomy import Plane
from medtl.demo.dicom import HAND, SCANNERS, Encoding, Label, Scanner, write_film
from medtl.demo.film import Exposure, expose, sample_exposure, texture
from medtl.demo.hand_anatomy import Hand, bone_outlines, flesh_courses, sample_hand
from medtl.demo.lines import Canvas
from medtl.demo.writing import write_study

TARGET = "bone_age_months"
"""The target column of the manifest."""

SIDECAR = {
    "columns": {
        "image": "file of one synthetic radiograph of a left hand (DICOM)",
        "patient_id": "phantom; one image each",
        "age": "age that the phantom was drawn for, in completed years",
        "sex": "sex that the phantom was drawn for",
        "scanner": "imaginary device",
        "site": "imaginary hospital",
        TARGET: "bone age that the phantom was drawn for",
    },
    "units": {"age": "years", TARGET: "months"},
    "source": "synthetic phantoms drawn by medtl demo",
    "licence": "CC0-1.0",
}
"""Content of `manifest.yaml` beside the manifest."""

YOUNGEST, OLDEST = 12, 204
"""Months; every bone age between them is as likely as any other."""

HAND_SCANNERS = tuple(
    replace(scanner, rows=288, columns=232, field_mm=field_mm)
    for scanner, field_mm in zip(SCANNERS, (188.0, 200.0, 212.0, 200.0), strict=True)
)
"""The chest study's devices with plates for hands."""

_STREAM = 0x4A2D
"""Keeps these draws apart from any other use of the same seed."""

GREY = 2.8
"""Attenuation between that of flesh and that of bone, which the films show in a middle grey."""

_MIDDLE = 0.44
"""The point in the middle of the image, in hand lengths above the wrist."""


@dataclass(frozen=True)
class HandFilm:
    """One phantom with its film, 0 (black) to 1 (white), and how it is written."""

    hand: Hand
    age_years: int
    film: Plane
    scanner: Scanner
    encoding: Encoding


def write_hand_study(
    out: Path,
    *,
    patients: int = 480,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a study of synthetic hand radiographs and return the path of its manifest.

    `out/images/` gets one DICOM file per phantom, `out/manifest.csv` one row each and
    `out/manifest.yaml` their meaning. The manifest is written last: when it is there, the study is
    complete. Every byte depends on the seed and the phantom alone.

    Args:
        out: Folder to write to; made when it is missing.
        patients: Number of phantoms, one image each.
        seed: Any number from 0.
        progress: Called after each phantom with the number done and the number of all.

    Raises:
        RunError: No patient is asked for, or the folder cannot be written.
    """
    studies = ([_write_patient(out, seed, number)] for number in range(patients))
    return write_study(out, patients, studies, SIDECAR, progress=progress)


def draw_hand(seed: int, number: int) -> HandFilm:
    """Return the phantom of a number from 0 and its film."""
    rng = np.random.default_rng([_STREAM, seed, number])
    months = int(rng.integers(YOUNGEST, OLDEST + 1))
    hand = sample_hand(rng, "F" if rng.random() < 0.5 else "M", months)
    age_years = max(0, math.floor(months / 12 + rng.normal(0, 0.7)))
    scanner = HAND_SCANNERS[rng.integers(len(HAND_SCANNERS))]
    encoding = scanner.encodings[rng.integers(len(scanner.encodings))]
    shape = (scanner.rows, scanner.columns)
    thickness = attenuation(hand, _to_pixels(rng, hand, scanner), shape)
    thickness += 0.05 * np.minimum(thickness, 1) * texture(rng, shape)
    film = expose(rng, np.maximum(thickness, 0), _exposure(rng, thickness))
    return HandFilm(hand, age_years, film, scanner, encoding)


def attenuation(hand: Hand, to_pixels: NDArray[np.float64], shape: tuple[int, int]) -> Plane:
    """Return the attenuation of a hand, 0 where there is only air.

    Args:
        hand: What to draw.
        to_pixels: `(2, 3)` from hand lengths to pixels.
        shape: Rows and columns.
    """
    flesh, bone = (Canvas(np.zeros(shape, np.uint8), to_pixels) for _ in range(2))
    width = float(np.linalg.norm(to_pixels[:, 0])) / shape[1]  # hand lengths to image widths
    for course, across in flesh_courses(hand):
        flesh.stroke([course], across * hand.slenderness * width, 255)
    for outline in bone_outlines(hand):
        bone.fill([outline], 120)
        bone.stroke([np.concatenate([outline, outline[:1]])], 0.005 * width, 190)
    total: Plane = 2.4 * np.sqrt(flesh.blurred(0.012)) + 2.0 * bone.blurred(0.0025)
    return total


def _exposure(rng: np.random.Generator, thickness: Plane) -> Exposure:
    """Random technique, for which flesh and bone are grey however small the hand is."""
    exposure = sample_exposure(rng, "PA")
    rows, columns = thickness.shape
    middle = np.median(
        thickness[rows // 4 : 3 * rows // 4 : 3, columns // 5 : 4 * columns // 5 : 3]
    )
    return replace(
        exposure,
        brightness=exposure.brightness + GREY - float(middle),
        shutters=(0.0, 0.0, 0.0, 0.0),
        marker="L",
    )


def _to_pixels(rng: np.random.Generator, hand: Hand, scanner: Scanner) -> NDArray[np.float64]:
    """Placement of a hand of a size on the plate, turned and shifted a little."""
    scale, angle = hand.length_mm / scanner.pixel_mm, rng.normal(0, 0.06)
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    turn = np.array([[cos, -sin], [-sin, -cos]])  # rows grow downwards, y upwards
    middle = np.array([scanner.columns / 2, scanner.rows / 2]) + rng.normal(0, 4, 2)
    return np.hstack([turn, (middle - turn @ (0.02, _MIDDLE))[:, None]])


def _write_patient(out: Path, seed: int, number: int) -> dict[str, str]:
    """Write the image of a phantom and return its row of the manifest."""
    drawn = draw_hand(seed, number)
    patient_id = f"SYNTH-{number + 1:04d}"
    name = f"images/{patient_id.lower()}.dcm"
    entropy = f"medtl demo hand {seed} {number}"
    label = Label(patient_id, drawn.hand.sex, drawn.age_years, "PA", 1, entropy, HAND)
    write_film(out / name, drawn.film, drawn.scanner, drawn.encoding, label)
    return {
        "image": name,
        "patient_id": patient_id,
        "age": str(drawn.age_years),
        "sex": drawn.hand.sex,
        "scanner": drawn.scanner.name,
        "site": drawn.scanner.site,
        TARGET: f"{drawn.hand.bone_age_months:g}",
    }
