"""A study of synthetic chest radiographs: DICOM files and their manifest, drawn from a seed.

No image shows a person: every one is a phantom. Three findings are drawn at random and
independently of one another, of view, exposure, device and site: a pleural effusion, a nodule, a
heart wider than half of the chest.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from medtl.demo.anatomy import (
    LEFT,
    RIGHT,
    Anatomy,
    Effusion,
    Nodule,
    Plane,
    Pose,
    sample_anatomy,
    sample_nodule,
    sample_pose,
)
from medtl.demo.dicom import SCANNERS, Encoding, Label, Scanner, write_film
from medtl.demo.film import attenuation, expose, sample_exposure, texture
from medtl.demo.lines import grid
from medtl.demo.writing import write_study

FINDINGS = ("effusion", "nodule", "cardiomegaly")
"""The label columns of the manifest."""

SIDECAR = {
    "columns": {
        "image": "file of one synthetic frontal chest radiograph (DICOM)",
        "patient_id": "phantom; its images share anatomy, nodule and heart size",
        "view": "PA, or AP for a bedside image",
        "age": "age that the phantom was drawn for",
        "sex": "sex that the phantom was drawn for",
        "scanner": "imaginary device",
        "site": "imaginary hospital",
        "effusion": "fluid in one pleural cavity (1 yes, 0 no, -1 uncertain, empty unknown)",
        "nodule": "one round shadow in a lung, 4 to 8 % of the image wide (1, 0, -1, empty)",
        "cardiomegaly": "heart wider than half of the chest (1, 0, -1, empty)",
    },
    "units": {"age": "years"},
    "source": "synthetic phantoms drawn by medtl demo",
    "licence": "CC0-1.0",
}
"""Content of `manifest.yaml` beside the manifest."""

_log = logging.getLogger(__name__)

_FEW = 24
"""Up to so many patients are drawn sooner than other processes start."""

_STREAM = 0x5EED
"""Keeps these draws apart from any other use of the same seed."""

_PREVALENCE = {"effusion": 0.40, "nodule": 0.45, "cardiomegaly": 0.40}
_IMAGES = (0.35, 0.37, 0.20, 0.08)
"""Chances that a phantom has 1, 2, 3 or 4 images."""

_RESOLVED = 0.15
"""Chance that an effusion is gone in one image of a phantom that has one."""

_UNKNOWN, _UNCERTAIN = 0.02, 0.4
"""Chance of an empty cell, and of "-1" where the finding is borderline."""


@dataclass(frozen=True)
class Patient:
    """One phantom: what all its images share."""

    number: int
    anatomy: Anatomy
    effusion: Effusion | None
    nodule: Nodule | None
    images: int

    @property
    def patient_id(self) -> str:
        """The id in the manifest and in the files, `SYNTH-0001` for the first phantom."""
        return f"SYNTH-{self.number + 1:04d}"


@dataclass(frozen=True)
class Radiograph:
    """One image of a phantom: the drawn film, 0 (black) to 1 (white), and how it is written."""

    film: Plane
    pose: Pose
    effusion: Effusion | None
    scanner: Scanner
    encoding: Encoding


def write_chest_study(
    out: Path,
    *,
    patients: int = 340,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a study of synthetic chest radiographs and return the path of its manifest.

    `out/images/` gets one DICOM file per image, `out/manifest.csv` one row each and
    `out/manifest.yaml` their meaning. The manifest is written last: when it is there, the study is
    complete. Every byte depends on the seed, the phantom and the image alone.

    Args:
        out: Folder to write to; made when it is missing.
        patients: Number of phantoms; they have two images on average.
        seed: Any number from 0.
        workers: Processes; by default one per core. Few patients are drawn in this one.
        progress: Called after each phantom with the number done and the number of all.

    Raises:
        RunError: No patient is asked for, or the folder cannot be written.
    """
    studies = _write_patients(out, seed, patients, workers or os.cpu_count() or 1)
    return write_study(out, patients, studies, SIDECAR, progress=progress)


def draw_patient(seed: int, number: int) -> Patient:
    """Return the phantom of a number from 0: its anatomy and findings."""
    rng = _generator(seed, number, 0)
    has = {name: rng.random() < chance for name, chance in _PREVALENCE.items()}
    beyond = 0.02 + abs(rng.normal(0, 0.055))
    ratio = 0.5 + beyond if has["cardiomegaly"] else 0.5 - beyond
    anatomy = sample_anatomy(rng, float(np.clip(ratio, 0.38, 0.64)))
    side = LEFT if rng.random() < 0.5 else RIGHT
    effusion = Effusion(side, rng.uniform(0.055, 0.19)) if has["effusion"] else None
    nodule = sample_nodule(rng, anatomy) if has["nodule"] else None
    images = 1 + int(rng.choice(len(_IMAGES), p=_IMAGES))
    return Patient(number, anatomy, effusion, nodule, images)


def draw_radiograph(seed: int, patient: Patient, image: int) -> Radiograph:
    """Return one image of a phantom, by its number from 1."""
    rng = _generator(seed, patient.number, image)
    pose = sample_pose(rng)
    scanner = SCANNERS[rng.integers(len(SCANNERS))]
    encoding = scanner.encodings[rng.integers(len(scanner.encodings))]
    effusion = None if rng.random() < _RESOLVED else patient.effusion
    if effusion:
        effusion = replace(effusion, height=effusion.height * rng.uniform(0.85, 1.15))
    exposure = sample_exposure(rng, pose.view)
    shape = (scanner.rows, scanner.columns)
    thickness = attenuation(
        patient.anatomy,
        pose,
        grid(pose, shape),
        effusion=effusion,
        nodule=patient.nodule,
        texture=texture(rng, shape),
    )
    return Radiograph(expose(rng, thickness, exposure), pose, effusion, scanner, encoding)


def labels(seed: int, patient: Patient, image: int, effusion: Effusion | None) -> dict[str, str]:
    """Return the cells of the findings, as an imperfect reader fills them in."""
    rng = _generator(seed, patient.number, image, 1)
    nodule, ratio = patient.nodule, patient.anatomy.cardiothoracic_ratio
    truths = {  # finding -> (is it there, is it borderline)
        "effusion": (effusion is not None, effusion is not None and effusion.height < 0.065),
        "nodule": (nodule is not None, nodule is not None and nodule.radius < 0.0285),
        "cardiomegaly": (ratio > 0.5, abs(ratio - 0.5) < 0.03),
    }
    cells = {}
    for finding, (is_present, is_borderline) in truths.items():
        cells[finding] = str(int(is_present))
        if is_borderline and rng.random() < _UNCERTAIN:
            cells[finding] = "-1"
        if rng.random() < _UNKNOWN:
            cells[finding] = ""
    return cells


def _write_patients(
    out: Path, seed: int, patients: int, workers: int
) -> Iterator[list[dict[str, str]]]:
    """Write all phantoms in order and yield the rows of each, in processes where they can start."""
    write, done = partial(_write_patient, out, seed), 0
    if workers > 1 and patients > _FEW:
        try:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                for rows in pool.map(write, range(patients), chunksize=4):
                    done += 1
                    yield rows
        except BrokenProcessPool:  # a sandbox without them, or a script without a main guard
            _log.info("no other processes: the rest is drawn in this one")
    for number in range(done, patients):
        yield write(number)


def _write_patient(out: Path, seed: int, number: int) -> list[dict[str, str]]:
    """Write all images of a phantom and return their rows of the manifest."""
    patient = draw_patient(seed, number)
    anatomy, rows = patient.anatomy, []
    for image in range(1, patient.images + 1):
        taken = draw_radiograph(seed, patient, image)
        name = f"images/{patient.patient_id.lower()}-{image}.dcm"
        entropy = f"medtl demo {seed} {number} {image}"
        label = Label(patient.patient_id, anatomy.sex, anatomy.age, taken.pose.view, image, entropy)
        write_film(out / name, taken.film, taken.scanner, taken.encoding, label)
        about = {
            "image": name,
            "patient_id": patient.patient_id,
            "view": taken.pose.view,
            "age": str(anatomy.age),
            "sex": anatomy.sex,
            "scanner": taken.scanner.name,
            "site": taken.scanner.site,
        }
        rows.append(about | labels(seed, patient, image, taken.effusion))
    return rows


def _generator(seed: int, *counters: int) -> np.random.Generator:
    """Return the generator of one place: `(patient, 0)`, or `(patient, image[, use])`."""
    return np.random.default_rng([_STREAM, seed, *counters])
