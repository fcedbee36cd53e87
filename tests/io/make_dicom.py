"""Synthetic DICOM files, written through pydicom, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder

CT = "1.2.840.10008.5.1.4.1.1.2"
SHARED = Path(__file__).resolve().parents[3] / "shared"


def header(pixels: np.ndarray, **elements: Any) -> Dataset:
    """Return a data set that describes `(R, C)`, `(F, R, C)` or `(R, C, 3)` integers."""
    color = pixels.ndim == 3 and pixels.shape[-1] == 3
    rows, columns = pixels.shape[:2] if color else pixels.shape[-2:]
    bits = pixels.dtype.itemsize * 8
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Modality = "CT"
    dataset.PatientName = "CANARY^NAME"
    dataset.PatientID = "CANARYID"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 3 if color else 1
    dataset.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3 and not color:
        dataset.NumberOfFrames = len(pixels)
    for keyword, element in elements.items():
        if element is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, element)
    return dataset


def compressed(pixels: np.ndarray, syntax: str, bits: int) -> bytes:
    """Return one frame `(R, C)` or `(R, C, 3)` in a lossless compressed syntax."""
    if syntax == uid.JPEGLosslessSV1:
        return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits))
    if syntax == uid.JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(pixels))
    if syntax == uid.JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0))
    if syntax == uid.JPEGBaseline8Bit:
        return bytes(imagecodecs.jpeg8_encode(pixels, level=95))
    assert syntax == uid.RLELossless
    dataset = header(pixels)
    return bytes(
        get_encoder(uid.RLELossless).encode(
            pixels.tobytes(),
            rows=dataset.Rows,
            columns=dataset.Columns,
            samples_per_pixel=dataset.SamplesPerPixel,
            photometric_interpretation=dataset.PhotometricInterpretation,
            number_of_frames=1,
            bits_allocated=dataset.BitsAllocated,
            bits_stored=dataset.BitsStored,
            pixel_representation=dataset.PixelRepresentation,
            planar_configuration=0,
            transfer_syntax_uid=uid.ExplicitVRLittleEndian,
        )
    )


def write(
    path: Path,
    pixels: np.ndarray,
    syntax: str = uid.ExplicitVRLittleEndian,
    *,
    data: bytes | None = None,
    **elements: Any,
) -> Path:
    """Write a DICOM file of the pixels (or of the raw `data` in their place); return its path.

    Compressed syntaxes encapsulate `data`, or each frame; elements set to None are left out.
    """
    dataset = header(pixels, **elements)
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    if syntax in (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ):
        raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes() if data is None else data
        dataset.add_new(0x7FE00010, "OW" if dataset.BitsAllocated > 8 else "OB", raw)
    else:
        frames = pixels if "NumberOfFrames" in dataset else pixels[None]
        bits = int(dataset.BitsStored)
        parts = [compressed(one, syntax, bits) for one in frames] if data is None else [data]
        dataset.add_new(0x7FE00010, "OB", encapsulate(parts))
        dataset["PixelData"].is_undefined_length = True
    return save(path, dataset, syntax)


def save(path: Path, dataset: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> Path:
    """Write a data set as it is with its file meta information; return its path."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = CT
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.save_as(path, enforce_file_format=True)
    return path


def with_padding(
    path: Path, pixels: np.ndarray, stated: int, limit: int | None = None, **elements: Any
) -> Path:
    """Write signed pixels whose padding value, and its range limit, are stated as unsigned."""
    dataset = header(pixels, **elements)
    dataset.add_new(0x00280120, "US", stated)
    if limit is not None:
        dataset.add_new(0x00280121, "US", limit)
    dataset.add_new(0x7FE00010, "OW", pixels.tobytes())
    return save(path, dataset)


def lut(entries: list[int], first: int, bits: int) -> Dataset:
    """Return an item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, bits])
    item.add_new(0x00283006, "US", entries)
    return item
