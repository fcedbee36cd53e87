"""Every encoding of the demo is valid and reads back to the drawn film."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

from medtl.demo.dicom import COMMENT, SCANNERS, Encoding, Label, Scanner, stored_pixels, write_film
from medtl.io.read import read_image

LABEL = Label("SYNTH-0007", "F", 61, "PA", 2, "test")
PAIRS = [(scanner, encoding) for scanner in SCANNERS for encoding in scanner.encodings]


def film_of(scanner: Scanner) -> np.ndarray:
    """Noise on a ramp from black to white, with both ends present."""
    shape = (scanner.rows, scanner.columns)
    noise = np.random.default_rng(0).normal(0, 0.02, shape)
    film = np.clip(np.linspace(-0.05, 1.05, shape[1]) + noise, 0, 1)
    return film.astype(np.float32)


def named(pair: tuple[Scanner, Encoding]) -> str:
    scanner, encoding = pair
    return f"{scanner.name}-{encoding.transfer_syntax}-{encoding.bits}"


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_film_reads_back_within_one_grey_level(
    pair: tuple[Scanner, Encoding], tmp_path: Path
) -> None:
    scanner, encoding = pair
    film = film_of(scanner)
    write_film(tmp_path / "film.dcm", film, scanner, encoding, LABEL)
    image = read_image(tmp_path / "film.dcm")
    top = ((1 << encoding.bits) - 1) * (encoding.slope or 1.0)
    assert image.array.shape == (1, scanner.rows, scanner.columns)
    np.testing.assert_allclose(
        image.array[0] / top, film, atol=0.51 * (encoding.slope or 1) / top + 1e-6
    )
    assert image.spacing == (scanner.pixel_mm, scanner.pixel_mm)
    assert image.modality == scanner.modality.lower()
    assert set(image.flags) <= {"spacing_from_imager"}
    assert ("inverted MONOCHROME1" in image.notes) == (encoding.photometric == "MONOCHROME1")


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_window_shows_the_film(pair: tuple[Scanner, Encoding], tmp_path: Path) -> None:
    scanner, encoding = pair
    film = film_of(scanner)
    write_film(tmp_path / "film.dcm", film, scanner, encoding, LABEL)
    shown = read_image(tmp_path / "film.dcm", voi=True).array[0]
    assert np.corrcoef(shown.ravel(), film.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_header_is_complete_and_says_synthetic(
    pair: tuple[Scanner, Encoding], tmp_path: Path
) -> None:
    scanner, encoding = pair
    write_film(tmp_path / "film.dcm", film_of(scanner), scanner, encoding, LABEL)
    dataset = pydicom.dcmread(tmp_path / "film.dcm")
    assert dataset.file_meta.TransferSyntaxUID == encoding.transfer_syntax
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert str(dataset.PatientName) == "SYNTHETIC^PHANTOM"
    assert dataset.PatientID == "SYNTH-0007"
    assert dataset.PatientAge == "061Y"
    assert dataset.ImageComments == COMMENT
    assert dataset.Manufacturer == "medtl phantom"
    assert dataset.BurnedInAnnotation == "NO"
    assert dataset.BitsStored == encoding.bits == dataset.HighBit + 1
    assert dataset.BitsAllocated == (8 if encoding.bits <= 8 else 16)
    if scanner.modality == "DX":  # PS3.3 C.8.11.3: type 1, and 1C without a VOI LUT
        assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (1, 0)
        assert dataset.PixelRepresentation == 0
        assert "WindowCenter" in dataset
        assert "ImagerPixelSpacing" in dataset


def test_variety() -> None:
    encodings = [encoding for _, encoding in PAIRS]
    assert {one.transfer_syntax for one in encodings} == {
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    }
    assert {one.bits for one in encodings} == {8, 10, 12, 14, 16}
    assert {one.photometric for one in encodings} == {"MONOCHROME1", "MONOCHROME2"}
    assert {scanner.modality for scanner in SCANNERS} == {"CR", "DX"}
    assert any(one.is_signed for one in encodings)
    assert any(not one.has_window for one in encodings)
    assert {scanner.spacing for scanner in SCANNERS} == {"PixelSpacing", "ImagerPixelSpacing"}


def test_stored_pixels_by_hand() -> None:
    film = np.array([[0.0, 0.5, 1.0, 1.5]], np.float32)
    explicit = uid.ExplicitVRLittleEndian
    plain = stored_pixels(film, Encoding(explicit, 8))
    inverted = stored_pixels(film, Encoding(explicit, 12, "MONOCHROME1"))
    signed = stored_pixels(film, Encoding(explicit, 12, is_signed=True, slope=1.0))
    assert plain.tolist() == [[0, 128, 255, 255]]
    assert inverted.tolist() == [[4095, 2047, 0, 0]]
    assert signed.tolist() == [[-2048, 0, 2047, 2047]]
    assert (plain.dtype, inverted.dtype, signed.dtype) == (np.uint8, np.uint16, np.int16)


def test_jpeg_lossless_uses_the_first_order_predictor(tmp_path: Path) -> None:
    scanner, encoding = next(
        pair for pair in PAIRS if pair[1].transfer_syntax == uid.JPEGLosslessSV1
    )
    write_film(tmp_path / "film.dcm", film_of(scanner), scanner, encoding, LABEL)
    data = pydicom.dcmread(tmp_path / "film.dcm").PixelData
    scan = data[data.index(b"\xff\xda") :]
    assert scan[7] == 1  # Ss of the scan header is the selection value (PS3.5 8.2.1)


def test_same_label_gives_the_same_bytes(tmp_path: Path) -> None:
    scanner, encoding = PAIRS[0]
    for name in ("a.dcm", "b.dcm"):
        write_film(tmp_path / name, film_of(scanner), scanner, encoding, LABEL)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
