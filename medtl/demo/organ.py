"""A study of synthetic volumes: MR-like upper abdomens as NIfTI, with their masks, from a seed.

No volume shows a person. Two kidneys lie beside a spine; the liver is on the right. The RIGHT
kidney is to be found, and a cyst in it where there is one: a network that is shown mirrored bodies
cannot learn this. Devices differ in orientation, spacing, tilt and intensity scale, as real ones
do, and none of it depends on the anatomy.

Places are in mm, RAS: x grows to the patient's right, y to anterior, z to superior.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.demo.writing import write_study
from medtl.io.masks import write_mask
from medtl.storage.atomic import write_bytes
from medtl.types import Image

KIDNEY, CYST = 1, 2
"""Labels in the masks."""

SIDECAR = {
    "columns": {
        "image": "file of one synthetic MR-like volume (NIfTI)",
        "mask": "its labels: 1 right kidney, 2 cyst of the right kidney",
        "patient_id": "phantom",
        "sex": "sex that the phantom was drawn for; it changes nothing",
        "scanner": "imaginary device",
    },
    "source": "synthetic phantoms drawn by medtl demo",
    "licence": "CC0-1.0",
}
"""Content of `manifest.yaml` beside the manifest."""

_STREAM = 0x06A4
"""Keeps these draws apart from any other use of the same seed."""

EXTENT_MM = (104.0, 84.0, 68.0)
"""Field of view: right to left, back to front, bottom to top."""

_WITH_CYST = 0.7
"""Chance that the right kidney has a cyst."""

Places = NDArray[np.float64]
"""`(3, I, J, K)`: x, y and z of every voxel in mm."""
Inside = NDArray[np.bool_]


@dataclass(frozen=True)
class Scanner:
    """An imaginary device.

    Attributes:
        name: In the manifest.
        axes: RAS axis and direction of each stored axis: ((0, -1), ...) is stored right to left.
        spacing: Millimetres per stored axis.
        gain: Intensity of white.
        noise: Standard deviation, as a fraction of white.
    """

    name: str
    axes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    spacing: tuple[float, float, float]
    gain: float
    noise: float


SCANNERS = (
    Scanner("Alpha", ((0, 1), (1, 1), (2, 1)), (2.0, 2.0, 2.5), 240.0, 0.03),
    Scanner("Beta", ((0, -1), (1, -1), (2, 1)), (1.7, 1.7, 3.4), 3900.0, 0.04),
    Scanner("Gamma", ((2, 1), (0, -1), (1, 1)), (2.5, 2.0, 2.0), 2.2e5, 0.035),
)
"""Three devices: plain, left-handed with thick slices, and with sagittal storage."""


@dataclass(frozen=True)
class Ball:
    """An ellipsoid: centre and half axes in mm, and the angle in degrees by which it leans over."""

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    lean: float = 0.0

    def reach(self, places: Places) -> NDArray[np.float64]:
        """Return the distance from the centre in half axes: below 1 is inside."""
        x, y, z = (places[axis] - middle for axis, middle in enumerate(self.center))
        angle = np.deg2rad(self.lean)
        x, z = np.cos(angle) * x - np.sin(angle) * z, np.sin(angle) * x + np.cos(angle) * z
        scaled = np.stack([x, y, z]) / np.reshape(self.half, (3, 1, 1, 1))
        return np.asarray(np.sqrt(np.square(scaled).sum(axis=0)))


@dataclass(frozen=True)
class Phantom:
    """One body: kidneys, a cyst of the right one (or None), liver, radius of the spine in mm."""

    right: Ball
    left: Ball
    cyst: Ball | None
    liver: Ball
    spine: float


@dataclass(frozen=True)
class Drawn:
    """A volume as its device stored it, and its labels."""

    image: Image
    labels: NDArray[np.uint8]
    scanner: Scanner


def write_organ_study(
    out: Path,
    *,
    patients: int = 60,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a study of synthetic volumes and return the path of its manifest.

    `out/images/` and `out/masks/` get one NIfTI file per phantom. The manifest is written last:
    when it is there, the study is complete. Every byte depends on the seed and the phantom alone.

    Args:
        out: Folder to write to; made when it is missing.
        patients: Number of phantoms, one volume each.
        seed: Any number from 0.
        progress: Called after each phantom with the number done and the number of all.

    Raises:
        RunError: No patient is asked for, or the folder cannot be written.
    """
    studies = _write_patients(out, seed, patients)
    return write_study(
        out, patients, studies, SIDECAR, what="volumes", megabytes=20, progress=progress
    )


def _write_patients(out: Path, seed: int, patients: int) -> Iterator[list[dict[str, str]]]:
    """Write all phantoms in order and yield the row of each."""
    (out / "masks").mkdir(parents=True, exist_ok=True)
    for number in range(patients):
        yield [_write_patient(out, seed, number)]


def draw_phantom(seed: int, number: int) -> Phantom:
    """Return the body of a number from 0."""
    rng = np.random.default_rng([_STREAM, seed, number])

    def kidney(side: int) -> Ball:
        center = (side * rng.uniform(25, 31), rng.uniform(-14, -6), rng.uniform(-6, 4))
        half = (rng.uniform(9, 12), rng.uniform(8, 10.5), rng.uniform(17, 22))
        return Ball(center, half, lean=side * rng.uniform(5, 18))

    right, left = kidney(1), kidney(-1)
    cyst = None
    if rng.random() < _WITH_CYST:
        radius = rng.uniform(6.0, 9.0)
        place = (right.center[0] + right.half[0] * 0.7, right.center[1], right.center[2])
        cyst = Ball((place[0], place[1], place[2] + rng.uniform(-11, 11)), (radius,) * 3)
    top = (rng.uniform(20, 28), rng.uniform(8, 14), rng.uniform(26, 32))
    liver = Ball(top, (rng.uniform(26, 32), rng.uniform(22, 27), rng.uniform(16, 20)))
    return Phantom(right, left, cyst, liver, spine=rng.uniform(8, 10))


def draw_volume(seed: int, number: int) -> Drawn:
    """Return the volume and the labels of a phantom, as one of the devices stored them."""
    rng = np.random.default_rng([_STREAM, seed, number, 1])
    scanner = SCANNERS[rng.integers(len(SCANNERS))]
    affine, shape = stored_grid(scanner, rng)
    places = np.tensordot(affine[:3, :3], np.indices(shape), 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    phantom = draw_phantom(seed, number)
    kidney, cyst = _kidney(phantom.right, places), np.zeros(shape, bool)
    if phantom.cyst is not None:
        cyst = phantom.cyst.reach(places) < 1
    signal = _signal(phantom, places, kidney | _kidney(phantom.left, places), cyst)
    shading = np.exp(np.tensordot(rng.uniform(-0.004, 0.004, 3), places, 1))
    noisy = np.hypot(signal * shading + _normal(rng, scanner, shape), _normal(rng, scanner, shape))
    array = (noisy * scanner.gain).astype(np.float32)[None]
    image = Image(array, spacing=scanner.spacing, affine=affine, modality="mr")
    labels = np.where(cyst, CYST, np.where(kidney, KIDNEY, 0)).astype(np.uint8)
    return Drawn(image, labels, scanner)


def stored_grid(
    scanner: Scanner, rng: np.random.Generator
) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Return the affine `(4, 4)` and the shape of a volume: the device's axes, slightly tilted."""
    directions = np.zeros((3, 3))
    for stored, (axis, sign) in enumerate(scanner.axes):
        directions[axis, stored] = sign
    tilt = np.deg2rad(rng.uniform(-6, 6))
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ directions @ np.diag(scanner.spacing)
    first, second, third = (
        round(EXTENT_MM[axis] / step)
        for (axis, _), step in zip(scanner.axes, scanner.spacing, strict=True)
    )
    middle = affine[:3, :3] @ (np.array([first, second, third]) - 1) / 2
    affine[:3, 3] = rng.uniform(-3, 3, 3) - middle
    return affine, (first, second, third)


def _kidney(ball: Ball, places: Places) -> Inside:
    """A bean: an ellipsoid with a hollow on the side of the spine."""
    side = np.sign(ball.center[0])
    inner = (ball.center[0] - side * ball.half[0] * 1.05, *ball.center[1:])
    hollow = Ball(inner, (ball.half[0] * 0.5, ball.half[1] * 0.6, ball.half[2] * 0.3))
    return np.asarray((ball.reach(places) < 1) & (hollow.reach(places) > 1))


def _signal(phantom: Phantom, places: Places, kidneys: Inside, cyst: Inside) -> Places:
    """Intensity of every voxel, 0 to 1: air, fat, liver, spine, kidneys, cyst."""
    body = Ball((0.0, 0.0, 0.0), (50.0, 39.0, 400.0)).reach(places) < 1
    spine = np.hypot(places[0], places[1] + 24) < phantom.spine
    signal = np.where(body, 0.35, 0.02)
    for inside, value in ((phantom.liver.reach(places) < 1, 0.5), (spine, 0.25), (kidneys, 0.68)):
        signal = np.where(inside & body, value, signal)
    return np.where(cyst & body, 0.95, signal)


def _normal(rng: np.random.Generator, scanner: Scanner, shape: tuple[int, ...]) -> Places:
    """One channel of the receiver's noise."""
    return rng.standard_normal(shape) * scanner.noise


def _write_patient(out: Path, seed: int, number: int) -> dict[str, str]:
    """Write a phantom's volume and mask, and return its row of the manifest."""
    drawn = draw_volume(seed, number)
    name = f"synth-{number + 1:04d}.nii.gz"
    write_bytes(out / "images" / name, _nifti(drawn.image))
    write_mask(out / "masks" / name, drawn.labels, like=drawn.image)
    return {
        "image": f"images/{name}",
        "mask": f"masks/{name}",
        "patient_id": f"SYNTH-{number + 1:04d}",
        "sex": "FM"[number % 2],
        "scanner": drawn.scanner.name,
    }


def _nifti(image: Image) -> bytes:
    """The bytes of a compressed NIfTI file; nothing in it depends on the time."""
    import nibabel

    picture: Any = nibabel.Nifti1Image(image.array[0], image.affine)  # type: ignore[no-untyped-call]
    picture.header.set_xyzt_units("mm")
    return gzip.compress(bytes(picture.to_bytes()), mtime=0)
