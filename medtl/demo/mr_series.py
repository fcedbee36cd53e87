"""A phantom's volume as an MR series: one DICOM file a slice, placed in the patient.

Every file is a valid MR Image (PS3.3 A.4) and says that it is synthetic. DICOM counts x to the
patient's left and y to the back (PS3.3 C.7.6.2.1.1), the volumes here to the right and the front.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medtl.demo.dicom import COMMENT, BodyPart, Label, patient_and_study
from medtl.types import Image

ABDOMEN = BodyPart("ABDOMEN", "818983003", (), "U")

WHITE = 4000
"""Stored value of the brightest voxel: MR has no unit, and 12 bits are what scanners store."""

_TO_LPS = np.array([-1.0, -1.0, 1.0])


def write_mr_series(folder: Path, volume: Image, patient_id: str, *, entropy: str) -> list[Path]:
    """Write a volume as a series of its third stored axis; return the files.

    Args:
        folder: Made when missing.
        volume: `(1, I, J, K)` with an affine to RAS mm.
        patient_id: Patient ID (0010,0020).
        entropy: Text that the UIDs are made from.
    """
    assert volume.affine is not None
    assert volume.spacing is not None
    folder.mkdir(parents=True, exist_ok=True)
    first, second, third = (_TO_LPS * volume.affine[:3, axis] for axis in range(3))
    origin = _TO_LPS * volume.affine[:3, 3]
    steps = [float(np.linalg.norm(axis)) for axis in (first, second, third)]
    levels = np.rint(volume.array[0] / volume.array.max() * WHITE).astype("<u2")
    label = Label(patient_id, "", 0, "", 1, entropy, ABDOMEN)
    paths = []
    for number in range(levels.shape[2]):
        dataset = patient_and_study(label)
        del dataset.PatientAge  # nothing is drawn for an age
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[entropy, "slice", str(number)])
        dataset.InstanceNumber = number + 1
        dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[entropy, "frame"])
        dataset.PositionReferenceIndicator = ""
        dataset.ImagePositionPatient = _decimals(origin + number * third)
        directions = (first / steps[0], second / steps[1])
        dataset.ImageOrientationPatient = _decimals(np.concatenate(directions))
        dataset.PixelSpacing = _decimals([steps[1], steps[0]])  # between rows, then columns
        dataset.SliceThickness = _decimals([steps[2]])[0]
        dataset.update(_mr_image(levels[:, :, number].T))
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"{number + 1:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def _mr_image(pixels: NDArray[np.uint16]) -> Dataset:
    """Pixels `(rows, columns)`, and what an MR image has to say."""
    image = Dataset()
    image.SOPClassUID, image.Modality = MRImageStorage, "MR"
    image.ImageType = ["DERIVED", "PRIMARY", "OTHER"]
    image.Manufacturer, image.ManufacturerModelName = "medtl phantom", "phantom-M"
    image.BodyPartExamined, image.ImageComments = ABDOMEN.examined, COMMENT
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "RM", "NONE", ""
    image.MRAcquisitionType, image.PatientPosition = "3D", "HFS"
    image.RepetitionTime = image.EchoTime = image.EchoTrainLength = ""
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.PixelData = np.ascontiguousarray(pixels).tobytes()
    image["PixelData"].VR = "OW"
    return image


def _decimals(values: object) -> list[str]:
    """Numbers as Decimal Strings of at most 16 characters (PS3.5 6.2)."""
    return [f"{float(value):.8g}" for value in np.atleast_1d(np.asarray(values, float))]
