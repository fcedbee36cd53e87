"""A film of 2500 x 2048 pixels to a 224 px tensor: five transfer syntaxes of DICOM, and JPEG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.table import Row, compare, missing

ROWS, COLUMNS, SIDE = 2500, 2048, 224

TARGETS = {
    "uncompressed": (10, 6),
    "RLE": (10, 6),
    "JPEG Lossless": (6, 5),
    "JPEG-LS": (3, 2.5),
    "JPEG 2000": (10, 10),
}
"""Transfer syntax -> ratio asked for over torchxrayvision and over MONAI."""


Peer = Callable[[Path], tuple[str, Callable[[], Any]]]
"""A file to the peer's name and its work."""


def rows() -> Iterator[Row]:
    """Yield every transfer syntax against every peer."""
    with TemporaryDirectory() as folder:
        for syntax, path in films(Path(folder)).items():
            for peer, target in zip((torchxrayvision, monai), TARGETS[syntax], strict=True):
                is_reduced = syntax == "JPEG 2000"
                yield row(f"{syntax} DICOM", path, peer, is_reduced=is_reduced, target=target)
        path = jpeg(Path(folder) / "film.jpg")
        for is_reduced in (False, True):
            yield row("JPEG file", path, monai, is_reduced=is_reduced)


def row(what: str, path: Path, peer: Peer, *, is_reduced: bool, target: float = 0.0) -> Row:
    """One file against one peer, decoded by medtl whole or at the size needed."""
    what += f" to {SIDE} px{', decoded at the size needed' if is_reduced else ''}"
    try:
        name, theirs = peer(path)
    except ImportError as fault:
        return missing(what, peer.__name__, fault, target)
    ours = medtl(path, at_least=2 * SIDE if is_reduced else None)
    return compare(what, name, ours, theirs, likeness, target=target)


def medtl(path: Path, *, at_least: int | None = None) -> Callable[[], Any]:
    """Every check on, clipped at the percentiles 0.5 and 99.5, aspect kept, in [0, 1]."""
    from medtl.io.read import read_image
    from medtl.preprocess.pipeline import Preprocessor

    preprocessor = Preprocessor(size=SIDE)
    options = {} if at_least is None else {"at_least": at_least}
    return lambda: preprocessor.to_unit(read_image(path, **options))


def torchxrayvision(path: Path) -> tuple[str, Callable[[], Any]]:
    """As documented: `read_xray_dcm`, then `XRayResizer` with its default engine, skimage."""
    import torchxrayvision as xrv

    resizer = xrv.datasets.XRayResizer(SIDE)
    return "torchxrayvision", lambda: resizer(xrv.utils.read_xray_dcm(str(path))[None])


def monai(path: Path) -> tuple[str, Callable[[], Any]]:
    """Reader and resizing alone: its values stay in stored units."""
    from monai.data import PILReader, PydicomReader
    from monai.transforms import Compose, LoadImage, Resize

    reader = PydicomReader() if path.suffix == ".dcm" else PILReader()
    chain = Compose(
        [
            LoadImage(reader=reader, image_only=True, ensure_channel_first=True),
            Resize((SIDE, SIDE)),
        ]
    )
    return f"MONAI {type(reader).__name__} + Resize", lambda: np.asarray(chain(str(path)))


def likeness(ours: object, theirs: object) -> str:
    """Correlation of the two pictures; MONAI's is transposed, and ours keeps the aspect."""
    import cv2

    ours, theirs = np.asarray(ours)[0], np.asarray(theirs)[0]
    used = np.flatnonzero(ours.any(axis=0))
    whole = cv2.resize(ours[:, used[0] : used[-1] + 1], (SIDE, SIDE))
    best = max(np.corrcoef(whole.ravel(), t.ravel())[0, 1] for t in (theirs, theirs.T))
    return f"correlation {best:.4f}"


def films(folder: Path) -> dict[str, Path]:
    """One picture in every transfer syntax."""
    import imagecodecs
    from pydicom import uid
    from pydicom.encaps import encapsulate

    pixels = radiograph()
    found = {
        "uncompressed": _write(folder / "raw.dcm", uid.ExplicitVRLittleEndian, pixels.tobytes())
    }
    encoded = {
        "JPEG Lossless": (uid.JPEGLosslessSV1, lambda: imagecodecs.jpeg8_encode(
            pixels, lossless=True, bitspersample=12)),
        "JPEG-LS": (uid.JPEGLSLossless, lambda: imagecodecs.jpegls_encode(pixels)),
        "JPEG 2000": (uid.JPEG2000Lossless, lambda: imagecodecs.jpeg2k_encode(
            pixels, codecformat="j2k", reversible=True, level=0, bitspersample=12)),
    }  # fmt: skip
    found["RLE"] = _rle(folder / "rle.dcm", found["uncompressed"])
    for name, (syntax, encode) in encoded.items():
        path = folder / f"{name.replace(' ', '')}.dcm"
        found[name] = _write(path, syntax, encapsulate([encode()]))
    return found


def jpeg(path: Path) -> Path:
    """The same picture in 8 bits."""
    from PIL import Image

    Image.fromarray((radiograph() >> 4).astype(np.uint8)).save(path, quality=90)
    return path


def radiograph() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Smooth anatomy with noise of the size that a detector has."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    smooth = 2000 + 1500 * np.sin(y / 400) * np.cos(x / 300)
    return np.clip(smooth + rng.normal(0, 20, (ROWS, COLUMNS)), 0, 4095).astype(np.uint16)


def _rle(path: Path, source: Path) -> Path:
    """Compress with pydicom's own encoder."""
    import pydicom
    from pydicom.uid import RLELossless

    dataset = pydicom.dcmread(source)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    return path


def _write(path: Path, syntax: str, data: bytes) -> Path:
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import generate_uid

    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.Modality, ds.Rows, ds.Columns = "DX", ROWS, COLUMNS
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.PixelSpacing = [0.14, 0.14]
    ds.PixelData = data
    ds["PixelData"].VR = "OW" if syntax == pydicom.uid.ExplicitVRLittleEndian else "OB"
    ds["PixelData"].is_undefined_length = syntax != pydicom.uid.ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    return path
