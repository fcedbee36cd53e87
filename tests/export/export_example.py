"""Source images and a finished run about them, all made up, for tests of the export."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from medtl.cases.leaks import content_hash
from medtl.demo.orthanc import find_orthanc
from medtl.errors import InstallationError
from medtl.export.identity import Algorithm
from medtl.io.read import read_image

ALGORITHM = Algorithm("test_resnet", "0.1.0", "a" * 64, "b" * 64, datetime(2026, 1, 2, 3, 4, 5))

NAMES = ("Kim^Chulsoo=金^哲洙=김^철수", "Müller^Jörg", "O'Hara^Ana")
"""Of the patients: three scripts, so that no object can lose one."""


def require(program: str) -> str:
    """The path of a Debian program, or a skip that says which package has it."""
    path = shutil.which(program)
    if path is None:
        packages = {"dciodvfy": "dicom3tools"}
        pytest.skip(f"needs {program}, of the Debian package {packages[program]}")
    return path


def require_orthanc() -> None:
    """Skip where there is no archive to start."""
    try:
        find_orthanc()
    except InstallationError as missing:
        pytest.skip(str(missing))


def faults(path: Path) -> list[str]:
    """What an independent validator calls an error in a DICOM file."""
    done = subprocess.run(
        [require("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    assert done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def patient(number: int) -> Dataset:
    """Patient, study and series of one made-up person."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName, header.PatientID = NAMES[number % 3], f"MRN-{number}"
    header.PatientBirthDate, header.PatientSex = "19700101", "F"
    header.StudyDate, header.StudyTime, header.StudyID = "20250102", "101112", "1"
    header.AccessionNumber, header.ReferringPhysicianName = f"ACC{number}", "House^Gregory"
    header.StudyDescription = "CHEST"
    for name in ("Study", "Series", "FrameOfReference"):
        setattr(header, f"{name}{'Instance' if name[0] == 'S' else ''}UID", uid(name, number))
    header.Manufacturer, header.SeriesNumber = "Maker", 1
    return header


def uid(*words: Any) -> str:
    """A UID that is always the same."""
    return str(generate_uid(entropy_srcs=["export example", *map(str, words)]))


def save(path: Path, header: Dataset, pixels: np.ndarray) -> Path:
    """Write 16-bit pixels with a header as a DICOM file."""
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    header.PixelData = pixels.tobytes()
    header["PixelData"].VR = "OW"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def write_radiograph(path: Path, number: int, **elements: Any) -> Path:
    """Write a chest radiograph of one of the patients; elements set to None are left out."""
    header = patient(number)
    header.SOPClassUID = DigitalXRayImageStorageForPresentation
    header.SOPInstanceUID = uid("image", number)
    header.Modality, header.InstanceNumber = "DX", 1
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.PatientOrientation = ["L", "F"]
    header.ImagerPixelSpacing = [0.4, 0.4]
    header.LossyImageCompression = "00"
    header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 1, 0, "US"
    for name, element in elements.items():
        if element is None:
            del header[name]
        else:
            setattr(header, name, element)
    rng = np.random.default_rng(number)
    return save(path, header, rng.integers(0, 4000, (40, 48)).astype(np.uint16))


def write_ct(folder: Path, *, slices: int = 4, number: int = 0) -> list[Path]:
    """Write a small CT series of one of the patients; its files are not in anatomical order."""
    paths = []
    for place in range(slices):
        header = patient(number)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, uid("ct", number, place)
        header.Modality, header.InstanceNumber = "CT", place + 1
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.ImagePositionPatient = [-10.0, -20.0, 5.0 * place]
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.PixelSpacing, header.SliceThickness = [0.5, 0.75], 5
        header.RescaleSlope, header.RescaleIntercept = 1, -1024
        pixels = np.random.default_rng([number, place]).integers(0, 2000, (12, 16))
        paths.append(save(folder / f"{9 - place}.dcm", header, pixels.astype(np.int16)))
    return paths


def write_run(folder: Path, images: Path, *, scores: tuple[float, ...] = (0.9, 0.2, 0.4)) -> Path:
    """Write three radiographs and a finished run that has tested on the first two; return it."""
    run = folder / "run"
    run.mkdir(parents=True)
    hashes = []
    for number in range(len(NAMES)):
        path = write_radiograph(images / f"{number}" / "IM.dcm", number)
        hashes.append(content_hash(read_image(path).array))
    cases = [f"c-{number:012d}" for number in range(len(NAMES))]
    splits = ("test", "test", "val")
    rows = zip(cases, splits, hashes, strict=True)
    lines = [f"{case},{case.replace('c', 'p')},{split},{sha}" for case, split, sha in rows]
    (run / "manifest.csv").write_text(
        "\n".join(["case_id,patient_id,split,content_sha256", *lines]) + "\n"
    )
    lines = [
        f"{case},{case.replace('c', 'p')},{split},pneumonia,1,{score}"
        for case, split, score in zip(cases, splits, scores, strict=True)
    ]
    (run / "predictions.csv").write_text(
        "\n".join(["case_id,patient_id,split,label,y_true,y_score", *lines]) + "\n"
    )
    (run / "recipe.yaml").write_text("image: {modality: cxr}\nmodel: {backbone: test_resnet}\n")
    write_json(run / "environment.json", {"medtl": "0.1.0", "recipe_sha256": "a" * 64})
    points = [{"label": "pneumonia", "threshold": 0.5}]
    write_json(run / "metrics.json", {"operating_points": points})
    (run / "gallery").mkdir()
    entry = {"case_id": cases[0], "label": "pneumonia", "image": "00.png", "overlay": "00_cam.png"}
    write_json(run / "gallery" / "gallery.json", [entry])
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(run / "gallery" / "00_cam.png")
    return run


def write_json(path: Path, found: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(found))
