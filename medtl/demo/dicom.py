"""Phantom films as DICOM files, in the variety that archives hold.

Every combination in `SCANNERS` is valid: Digital X-Ray For Presentation (PS3.3 A.26) and Computed
Radiography (A.2), uncompressed and losslessly compressed (PS3.5 A.4, annex G). Each file says that
it is synthetic in the patient's name, in Image Comments (0020,4000) and by its manufacturer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from medtl.demo.anatomy import Plane

COMMENT = "SYNTHETIC: a phantom drawn by medtl demo, not the image of a person"
"""Image Comments (0020,4000) of every file."""


@dataclass(frozen=True)
class Encoding:
    """The way from a film to stored pixels.

    Attributes:
        transfer_syntax: How the pixels are written.
        bits: Bits Stored; 8 allocated up to 8, else 16.
        photometric: MONOCHROME1 stores the film inverted.
        is_signed: Two's complement; the rescale intercept then puts black back at 0.
        slope: Rescale Slope, None for a file without a modality transformation (CR may lack it).
        has_window: Whether Window Center and Width, over the whole range, are there (DX must).
    """

    transfer_syntax: UID
    bits: int
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2"
    is_signed: bool = False
    slope: float | None = None
    has_window: bool = True

    @property
    def intercept(self) -> float:
        """Rescale Intercept: what makes the smallest storable value 0."""
        return (1 << (self.bits - 1)) * (self.slope or 1.0) if self.is_signed else 0.0


@dataclass(frozen=True)
class Scanner:
    """An imaginary device: where it stands, its detector and the encodings of its archive.

    Attributes:
        name, site: As in the manifest.
        modality: "DX" or "CR".
        rows, columns: Size of its images.
        field_mm: Width of its detector.
        spacing: Keyword of the element that tells the pixel size.
        encodings: Each image has one of them, at random.
    """

    name: str
    site: str
    modality: Literal["DX", "CR"]
    rows: int
    columns: int
    field_mm: float
    spacing: Literal["PixelSpacing", "ImagerPixelSpacing"]
    encodings: tuple[Encoding, ...]

    @property
    def pixel_mm(self) -> float:
        """Rows and columns are this far apart."""
        return round(self.field_mm / self.columns, 4)


SCANNERS = (
    Scanner(
        "phantom-A", "north", "DX", 304, 256, 350.0, "ImagerPixelSpacing",
        (
            Encoding(ExplicitVRLittleEndian, 12, slope=1.0),
            Encoding(JPEG2000Lossless, 12, slope=1.0),
            Encoding(JPEGLosslessSV1, 14, "MONOCHROME1", slope=1.0),
        ),
    ),
    Scanner(
        "phantom-B", "north", "DX", 288, 288, 430.0, "ImagerPixelSpacing",
        (
            Encoding(JPEGLSLossless, 10, slope=1.0),
            Encoding(ImplicitVRLittleEndian, 14, "MONOCHROME1", slope=1.0),
            Encoding(JPEG2000Lossless, 16, slope=1.0),
        ),
    ),
    Scanner(
        "phantom-C", "south", "CR", 272, 256, 350.0, "ImagerPixelSpacing",
        (
            Encoding(ExplicitVRLittleEndian, 12, is_signed=True, slope=1.0),
            Encoding(RLELossless, 12, "MONOCHROME1", has_window=False),
            Encoding(DeflatedExplicitVRLittleEndian, 10, slope=0.5),
        ),
    ),
    Scanner(
        "phantom-D", "south", "CR", 256, 256, 400.0, "PixelSpacing",
        (
            Encoding(ExplicitVRLittleEndian, 8, has_window=False),
            Encoding(RLELossless, 8, "MONOCHROME1"),
            Encoding(JPEGLosslessSV1, 8, has_window=False),
            Encoding(JPEGLSLossless, 16, slope=0.25),
        ),
    ),
)  # fmt: skip
"""Detectors and archives: both polarities, 8 to 16 bits, eight transfer syntaxes."""


@dataclass(frozen=True)
class BodyPart:
    """The object that was imaged.

    Attributes:
        examined: Body Part Examined (0018,0015).
        snomed: Its code in the Anatomic Region Sequence.
        orientation: Patient Orientation (0020,0020) of rows and columns; none for a hand.
        laterality: Image Laterality (0020,0062).
    """

    examined: str
    snomed: str
    orientation: tuple[str, ...]
    laterality: Literal["L", "R", "U"]


CHEST = BodyPart("CHEST", "43799004", ("L", "F"), "U")
HAND = BodyPart("HAND", "85562004", (), "L")


@dataclass(frozen=True)
class Label:
    """The statements of a file about its phantom and its place in the study.

    Attributes:
        patient_id: Patient ID (0010,0020), "SYNTH-0001".
        sex: "F" or "M".
        age: Years.
        view: View Position (0018,5101), "PA" or "AP".
        number: Instance Number (0020,0013), from 1.
        entropy: Text that the UIDs are made from.
        part: What was imaged.
    """

    patient_id: str
    sex: str
    age: int
    view: str
    number: int
    entropy: str
    part: BodyPart = CHEST


def stored_pixels(film: Plane, encoding: Encoding) -> NDArray[np.integer]:
    """Return the `(rows, columns)` integers to store for a film of 0 (black) to 1 (white)."""
    top = (1 << encoding.bits) - 1
    values = np.rint(np.clip(film, 0, 1) * np.float32(top)).astype(np.int32)
    if encoding.photometric == "MONOCHROME1":
        values = top - values
    kind: type[np.integer] = np.uint8 if encoding.bits <= 8 else np.uint16
    if encoding.is_signed:
        values, kind = values - (1 << (encoding.bits - 1)), np.int16
    pixels: NDArray[np.integer] = values.astype(kind)
    return pixels


def write_film(path: Path, film: Plane, scanner: Scanner, encoding: Encoding, label: Label) -> None:
    """Write a film of 0 (black) to 1 (white) as a DICOM file."""
    pixels = stored_pixels(film, encoding)
    dataset = _image(pixels, encoding)
    dataset.update(patient_and_study(label))
    dataset.update(_equipment(scanner, label))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = encoding.transfer_syntax
    if encoding.transfer_syntax.is_encapsulated:
        dataset.PixelData = encapsulate([_compressed(pixels, encoding)])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        dataset["PixelData"].VR = "OB" if encoding.bits <= 8 else "OW"
    dataset.save_as(path, enforce_file_format=True)


def _compressed(pixels: NDArray[np.integer], encoding: Encoding) -> bytes:
    """Return pixels as one losslessly compressed frame."""
    if encoding.transfer_syntax == RLELossless:
        return _run_lengths(pixels)
    if encoding.transfer_syntax == JPEGLosslessSV1:  # selection value 1 is predictor 1
        frame = imagecodecs.jpeg8_encode(
            pixels, lossless=True, predictor=1, bitspersample=encoding.bits
        )
    elif encoding.transfer_syntax == JPEGLSLossless:
        frame = imagecodecs.jpegls_encode(pixels)
    else:
        frame = imagecodecs.jpeg2k_encode(
            pixels, level=0, reversible=True, codecformat="j2k", bitspersample=encoding.bits
        )
    return bytes(frame)


def _run_lengths(pixels: NDArray[np.integer]) -> bytes:
    """Return pixels as one RLE frame: PackBits per row, the high bytes first (PS3.5 annex G).

    pydicom's own encoder loops over bytes in Python and would take a third of the demo's drawing.
    """
    octets = pixels.astype(pixels.dtype.newbyteorder("<")).view(np.uint8)
    size = pixels.dtype.itemsize
    segments = []
    for plane in reversed(range(size)):
        rows = np.ascontiguousarray(octets[:, plane::size])
        segment = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[: size + 1] = [size, *starts]
    return header.tobytes() + b"".join(segments)


def _image(pixels: NDArray[np.integer], encoding: Encoding) -> Dataset:
    """Return the elements that describe the pixels and how to show them."""
    image = Dataset()
    image.ImageType = ["DERIVED", "PRIMARY"]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = encoding.photometric
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated = 8 * pixels.dtype.itemsize
    image.BitsStored = encoding.bits
    image.HighBit = encoding.bits - 1
    image.PixelRepresentation = int(encoding.is_signed)
    image.LossyImageCompression = "00"
    image.BurnedInAnnotation = "NO"
    image.ImageComments = COMMENT
    image.PixelIntensityRelationshipSign = 1 if encoding.photometric == "MONOCHROME1" else -1
    image.PresentationLUTShape = "INVERSE" if encoding.photometric == "MONOCHROME1" else "IDENTITY"
    if encoding.slope is not None:
        image.RescaleSlope, image.RescaleIntercept = encoding.slope, encoding.intercept
        image.RescaleType = "US"
    if encoding.has_window:  # the whole range, PS3.3 C.11.2.1.2.1
        levels = (1 << encoding.bits) * (encoding.slope or 1.0)
        image.WindowCenter, image.WindowWidth = levels / 2, levels
    return image


def patient_and_study(label: Label) -> Dataset:
    """Return patient, study and series. There is no person, date or place to hide."""
    module = Dataset()
    module.PatientName = "SYNTHETIC^PHANTOM"
    module.PatientID = label.patient_id
    module.PatientBirthDate = ""
    module.PatientSex = label.sex
    module.PatientAge = f"{label.age:03d}Y"
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
        setattr(module, keyword, "")
    module.StudyID = ""
    module.StudyDescription = f"SYNTHETIC {label.part.examined.lower()} phantom"
    module.StudyInstanceUID = generate_uid(entropy_srcs=[label.entropy, "study"])
    module.SeriesInstanceUID = generate_uid(entropy_srcs=[label.entropy, "series"])
    module.SOPInstanceUID = generate_uid(entropy_srcs=[label.entropy, "image"])
    module.SeriesNumber = module.InstanceNumber = label.number
    module.ContentDate = module.ContentTime = ""
    return module


def _equipment(scanner: Scanner, label: Label) -> Dataset:
    """Return the equipment, the geometry and what only DX or only CR requires."""
    module = Dataset()
    module.SOPClassUID = _SOP_CLASSES[scanner.modality]
    module.Modality = scanner.modality
    module.Manufacturer = "medtl phantom"
    module.ManufacturerModelName = scanner.name
    module.BodyPartExamined = label.part.examined
    module.ViewPosition = label.view
    module.PatientOrientation = list(label.part.orientation)
    spacing = [scanner.pixel_mm, scanner.pixel_mm]
    setattr(module, scanner.spacing, spacing)
    if scanner.modality == "DX":  # PS3.3 C.8.11.1 to C.8.11.3
        module.PresentationIntentType = "FOR PRESENTATION"
        module.PixelIntensityRelationship = "LOG"
        module.ImageLaterality = label.part.laterality
        module.DetectorType = "DIRECT"
        module.AnatomicRegionSequence = [
            _coded(label.part.snomed, "SCT", label.part.examined.capitalize())
        ]
        module.AcquisitionContextSequence = []
    return module


def _coded(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a code sequence item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


_SOP_CLASSES = {
    "DX": DigitalXRayImageStorageForPresentation,
    "CR": ComputedRadiographyImageStorage,
}
