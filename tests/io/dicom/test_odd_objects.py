"""DICOM objects that are no images, headers and streams at odds, and two objects under one UID."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_dicom import compressed, header, save, with_padding, write
from PIL import Image as Pillow
from pydicom import uid
from pydicom.dataset import Dataset

from medtl.cases.intake.discover import discover
from medtl.cases.intake.scan import scan_dicom
from medtl.data.reader import ImageReader
from medtl.errors import ImageError, ManifestError
from medtl.io.dicom.image import read_dicom
from medtl.io.dicom.series import read_series
from medtl.io.dicom.sop_classes import object_flags
from medtl.io.read import read_image
from medtl.preprocess.pipeline import Preprocessor
from medtl.types import Case

STORAGE = "1.2.840.10008.5.1.4.1.1."
FILM = np.random.default_rng(0).integers(0, 255, (48, 50), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 4000, (48, 50)).astype(np.uint16)


# -- objects that are no images


@pytest.mark.parametrize(
    ("number", "modality", "named"),
    [
        ("11.1", "PR", "Grayscale Softcopy Presentation State"),
        ("11.2", "PR", "Color Softcopy Presentation State"),
        ("88.11", "SR", "Basic Text SR"),
        ("88.50", "SR", "Mammography CAD SR"),
        ("88.59", "KO", "Key Object Selection"),
        ("104.1", "DOC", "Encapsulated PDF"),
        ("66.1", "REG", "Spatial Registration"),
        ("66", "OT", "Raw Data"),
        ("481.3", "RTSTRUCT", "RT Structure Set"),
        ("481.5", "RTPLAN", "RT Plan"),
        ("9.1.1", "ECG", "12-lead ECG Waveform"),
    ],
)
def test_what_is_no_image_is_refused_by_its_sop_class(
    number: str, modality: str, named: str, tmp_path: Path
) -> None:
    options = {"SOPClassUID": STORAGE + number, "Modality": modality}
    write(tmp_path / "a.dcm", FILM, **options)  # pixels that have no business there
    with pytest.raises(ImageError, match=f"a.dcm: no image of a patient by its SOP class: {named}"):
        read_image(tmp_path / "a.dcm")
    save(tmp_path / "b.dcm", header(FILM, **options))
    with pytest.raises(ImageError, match=f"b.dcm: no pixel data.*by its SOP class it is {named}"):
        read_image(tmp_path / "b.dcm")
    found = scan_dicom(tmp_path, salt=bytes(32), workers=1)
    assert not found.rows
    assert all(named in cause for _, cause in found.skipped)


@pytest.mark.parametrize(
    ("number", "modality", "flag"),
    [
        ("66.4", "SEG", "segmentation_not_an_image"),
        ("481.2", "RTDOSE", "radiotherapy_dose_not_an_image"),
    ],
)
def test_masks_and_doses_are_flagged_and_no_folder_gives_them(
    number: str, modality: str, flag: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.dcm", FILM, SOPClassUID=STORAGE + number, Modality=modality)
    write(tmp_path / "b.dcm", FILM)
    assert flag in read_image(tmp_path / "a.dcm").flags
    found = scan_dicom(tmp_path, salt=bytes(32), workers=1)
    assert [row["image"] for row in found.rows] == ["b.dcm"]
    assert found.skipped == (("a.dcm", flag.replace("_", " ")),)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"SOPClassUID": STORAGE + "7"}, {"secondary_capture"}),
        ({"SOPClassUID": STORAGE + "7.2"}, {"secondary_capture"}),
        ({"SOPClassUID": STORAGE + "30"}, {"parametric_map_not_original_pixels"}),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, {"screen_save", "derived_image"}),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MIP"]}, {"projection_of_a_volume"}),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, {"reformatted", "derived_image"}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {"localizer"}),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VIRTUAL_MONO"]}, {"multi_energy_ct"}),
        ({"MultienergyCTAcquisition": "YES"}, {"multi_energy_ct"}),
        ({"ImageType": ["DERIVED", "SECONDARY"], "Modality": "DX"}, {"derived_image"}),
    ],
)
def test_derived_images_are_read_and_flagged(
    options: dict[str, Any], flags: set[str], tmp_path: Path
) -> None:
    write(tmp_path / "a.dcm", FILM, **options)
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.array[0], FILM)
    assert flags <= set(image.flags)


@pytest.mark.parametrize(
    "options",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {"ImageType": ["DERIVED", "PRIMARY"], "Modality": "DX", "SOPClassUID": STORAGE + "1.1"},
        {"SOPClassUID": "1.2.3.4"},  # a private class says nothing
        {},
    ],
)
def test_usual_images_have_no_such_flag(options: dict[str, Any]) -> None:
    assert object_flags(header(FILM, **options)) == []


def test_a_coloured_ct_is_flagged(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", np.dstack([FILM] * 3))
    assert "colour_in_a_grey_modality" in read_image(tmp_path / "a.dcm").flags
    write(tmp_path / "b.dcm", np.dstack([FILM] * 3), Modality="US")
    assert "colour_in_a_grey_modality" not in read_image(tmp_path / "b.dcm").flags


def test_a_broken_element_makes_no_flag() -> None:
    dataset = Dataset()
    dataset.add_new(0x00080008, "CS", None)
    assert object_flags(dataset) == []


# -- two objects under one UID


def place(path: Path, pixels: np.ndarray, at: float, **options: Any) -> None:
    given = {"SeriesInstanceUID": "1.2.5", "StudyInstanceUID": "1.2.6", "PixelSpacing": [1, 1]}
    orientation = [1, 0, 0, 0, 1, 0]
    write(
        path,
        pixels,
        ImagePositionPatient=[0, 0, at],
        ImageOrientationPatient=orientation,
        **given,
        **options,
    )


@pytest.mark.parametrize(("patient", "said"), [("P1", False), ("P2", True)])
def test_two_objects_under_one_uid_are_said(patient: str, said: bool, tmp_path: Path) -> None:
    place(tmp_path / "a.dcm", DEEP, 0, SOPInstanceUID="1.2.9", PatientID="P1")
    place(tmp_path / "b.dcm", DEEP[::-1].copy(), 2, SOPInstanceUID="1.2.9", PatientID=patient)
    place(tmp_path / "c.dcm", DEEP, 4, SOPInstanceUID="1.2.10", PatientID="P1")
    found = scan_dicom(tmp_path, salt=bytes(32), workers=1)
    assert len(found.rows) == 3
    assert len(found.notes) == 1
    assert "1 SOP Instance UIDs stand in several different files" in found.notes[0]
    assert "a.dcm, b.dcm" in found.notes[0]
    assert ("in several patients" in found.notes[0]) is said


def test_init_leaves_out_what_is_disputed(tmp_path: Path) -> None:
    for number, (uid_, patient) in enumerate([("9", "P1"), ("9", "P2"), ("10", "P3")]):
        pixels = FILM + np.uint8(number)
        file = tmp_path / f"{number}.dcm"
        write(file, pixels, SOPInstanceUID=f"1.2.{uid_}", PatientID=patient)
    found = discover(tmp_path, has_sheet=True, salt=bytes(32))
    assert [row["image"] for row in found.rows] == ["2.dcm"]
    assert len(found.called) == 1
    assert any(
        note.startswith("2 images left out: which of those under one UID") for note in found.notes
    )
    (tmp_path / "2.dcm").unlink()
    with pytest.raises(ManifestError, match="each of the 2 images shares its SOP Instance UID"):
        discover(tmp_path, has_sheet=True, salt=bytes(32))


@pytest.mark.parametrize(
    ("modality", "what"), [("SEG", "segmentation not an image"), ("RTDOSE", "radiotherapy dose")]
)
def test_no_study_takes_what_shows_no_patient_for_an_image(
    modality: str, what: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.dcm", FILM, Modality=modality)
    read_image(tmp_path / "a.dcm")  # who asks for it alone may look at it
    reader = ImageReader(Preprocessor(size=32))
    with pytest.raises(ImageError, match=rf"a\.dcm: {what}.*expected an image of a patient"):
        reader.read(Case("c", "p", tmp_path / "a.dcm"))


def test_copies_to_the_byte_are_said(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        write(tmp_path / name, FILM, SOPInstanceUID="1.2.9")
    notes = scan_dicom(tmp_path, salt=bytes(32), workers=1).notes
    assert notes == ("1 images are there more than once, to the byte (a.dcm, b.dcm)",)


def test_a_series_with_one_uid_for_two_slices_is_flagged(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        place(tmp_path / f"{name}.dcm", DEEP, 2 * number, SOPInstanceUID="1.2.9")
    assert "several_slices_under_one_sop_instance_uid" in read_series(tmp_path).flags
    for number, name in enumerate("abc"):
        place(tmp_path / f"{name}.dcm", DEEP, 2 * number, SOPInstanceUID=f"1.2.{number}")
    assert "several_slices_under_one_sop_instance_uid" not in read_series(tmp_path).flags


# -- streams and headers at odds


SYNTAXES = {
    "JPEG": uid.JPEGBaseline8Bit,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000": uid.JPEG2000Lossless,
    "RLE": uid.RLELossless,
}


@pytest.mark.parametrize("said", SYNTAXES)
@pytest.mark.parametrize("held", ["JPEG", "JPEG-LS", "JPEG 2000"])
def test_a_stream_of_another_format_is_named(held: str, said: str, tmp_path: Path) -> None:
    data = compressed(FILM, SYNTAXES[held], 8)
    write(tmp_path / "a.dcm", FILM, SYNTAXES[said], data=data)
    if held == said:
        assert read_image(tmp_path / "a.dcm").array.shape == (1, 48, 50)
        return
    found = f"a.dcm: the pixel data hold {held}, but the transfer syntax says {said};"
    with pytest.raises(ImageError, match=found):
        read_image(tmp_path / "a.dcm")


def test_a_png_inside_is_named(tmp_path: Path) -> None:
    Pillow.fromarray(FILM).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    write(tmp_path / "a.dcm", FILM, uid.JPEGBaseline8Bit, data=data)
    with pytest.raises(ImageError, match="the pixel data hold PNG"):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1),
        (uid.JPEGLosslessSV1, uid.JPEGBaseline8Bit),
    ],
)
def test_another_jpeg_process_is_flagged(held: str, said: str, tmp_path: Path) -> None:
    flag = "jpeg_process_not_that_of_the_transfer_syntax"
    write(tmp_path / "a.dcm", FILM, said, data=compressed(FILM, held, 8))
    assert flag in read_image(tmp_path / "a.dcm").flags
    write(tmp_path / "b.dcm", FILM, held, data=compressed(FILM, held, 8))
    assert flag not in read_image(tmp_path / "b.dcm").flags


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_bits_of_the_stream_and_of_the_header(syntax: str, tmp_path: Path) -> None:
    deep, flat = compressed(DEEP, syntax, 16), compressed(FILM, syntax, 8)
    write(tmp_path / "a.dcm", FILM, syntax, data=deep)
    with pytest.raises(ImageError, match="16 bits a sample; expected at most the 8 bits"):
        read_image(tmp_path / "a.dcm")
    write(tmp_path / "b.dcm", DEEP, syntax, data=flat, BitsStored=12, HighBit=11)
    assert "stream_precision_below_bits_stored" in read_image(tmp_path / "b.dcm").flags
    write(tmp_path / "c.dcm", DEEP, syntax, data=deep, BitsStored=10, HighBit=9)
    assert "pixels_beyond_bits_stored" in read_image(tmp_path / "c.dcm").flags
    write(tmp_path / "d.dcm", DEEP, syntax, data=deep, BitsStored=12, HighBit=11)
    assert not [flag for flag in read_image(tmp_path / "d.dcm").flags if "stored" in flag]


def encapsulated(*fragments: bytes) -> bytes:
    """Return items as they stand in the element: an empty offset table, fragments, the end."""
    items = [b"", *(one + b"\0" * (len(one) % 2) for one in fragments)]
    head = b"\xfe\xff\x00\xe0"
    body = b"".join(head + struct.pack("<I", len(one)) + one for one in items)
    return body + b"\xfe\xff\xdd\xe0\0\0\0\0"


def with_items(path: Path, data: bytes, **options: Any) -> Path:
    dataset = header(FILM, **options)
    dataset.add_new(0x7FE00010, "OB", data)
    dataset["PixelData"].is_undefined_length = True
    return save(path, dataset, uid.JPEGBaseline8Bit)


def test_empty_pixel_data_are_named(tmp_path: Path) -> None:
    for name, data in (("a", encapsulated()), ("b", encapsulated(b""))):
        with_items(tmp_path / f"{name}.dcm", data)
        with pytest.raises(ImageError, match="the pixel data hold nothing"):
            read_image(tmp_path / f"{name}.dcm")


def test_frames_that_are_missing_or_too_many(tmp_path: Path) -> None:
    stream = compressed(FILM, uid.JPEGBaseline8Bit, 8)
    with_items(tmp_path / "a.dcm", encapsulated(stream, stream), NumberOfFrames=3)
    with pytest.raises(ImageError, match=r"truncated or corrupt|fewer frames"):
        read_image(tmp_path / "a.dcm")
    with_items(tmp_path / "b.dcm", encapsulated(stream, stream), NumberOfFrames=2)
    assert read_image(tmp_path / "b.dcm").array.shape == (1, 2, 48, 50)
    with_items(tmp_path / "c.dcm", encapsulated(stream[:300], stream[300:]))
    assert read_image(tmp_path / "c.dcm").array.shape == (1, 48, 50)


# -- high bit, stored bits, sign, planes


def test_a_sample_kept_high_is_shifted_and_said(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", DEEP << 4, BitsStored=12, HighBit=15)
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.array[0], DEEP)
    assert "high_bit_not_bits_stored_less_one" in image.flags


@pytest.mark.parametrize("high_bit", [9, 12, 13, 15, 16])
def test_a_high_bit_that_the_pixels_contradict_is_set_right(high_bit: int, tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", DEEP, BitsStored=12, HighBit=high_bit)
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.array[0], DEEP)
    assert "high_bit_wrong" in image.flags


def test_a_high_bit_that_nothing_decides_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", DEEP * np.uint16(16) + np.uint16(5), BitsStored=12, HighBit=15)
    with pytest.raises(ImageError, match=r"High Bit \(0028,0102\) is 15 and Bits Stored"):
        read_image(tmp_path / "a.dcm")


def test_bits_above_the_sample_are_said(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", DEEP | np.uint16(0x8000), BitsStored=12, HighBit=11)
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.array[0], DEEP)
    assert "bits_above_high_bit_left_out" in image.flags
    signed = DEEP.astype(np.int16) - np.int16(2000)  # a sign that goes on is no overlay
    write(tmp_path / "b.dcm", signed, BitsStored=12, HighBit=11)
    image = read_image(tmp_path / "b.dcm")
    np.testing.assert_array_equal(image.array[0], signed)
    assert "bits_above_high_bit_left_out" not in image.flags


@pytest.mark.parametrize("keyword", ["PixelRepresentation", "PlanarConfiguration"])
def test_elements_of_two_values_have_one_of_them(keyword: str, tmp_path: Path) -> None:
    film = np.dstack([FILM] * 3)
    write(tmp_path / "a.dcm", film, **{keyword: 2})
    with pytest.raises(ImageError, match="is 2; expected 0 or 1"):
        read_image(tmp_path / "a.dcm")
    write(tmp_path / "b.dcm", film, **{keyword: None})
    flags = read_image(tmp_path / "b.dcm").flags
    assert any(flag.startswith("no_p") for flag in flags)


def test_a_smallest_value_below_zero_in_unsigned_pixels_is_refused(tmp_path: Path) -> None:
    dataset = header(DEEP)
    dataset.add_new(0x00280106, "SS", -2000)
    dataset.add_new(0x7FE00010, "OW", DEEP.tobytes())
    save(tmp_path / "a.dcm", dataset)
    with pytest.raises(ImageError, match="says that the pixels are unsigned"):
        read_image(tmp_path / "a.dcm")


def test_pixels_outside_their_stated_range_are_flagged(tmp_path: Path) -> None:
    flag = "pixels_outside_smallest_and_largest_pixel_value"
    write(tmp_path / "a.dcm", DEEP, SmallestImagePixelValue=100, LargestImagePixelValue=200)
    assert flag in read_image(tmp_path / "a.dcm").flags
    ends = {"SmallestImagePixelValue": int(DEEP.min()), "LargestImagePixelValue": int(DEEP.max())}
    write(tmp_path / "b.dcm", DEEP, **ends)
    assert flag not in read_image(tmp_path / "b.dcm").flags


@pytest.mark.parametrize(
    ("stated", "padded"),
    [
        (2048, [True, False, False, False]),
        (0xF800, [True, False, False, False]),
        (2047, [False, False, False, True]),
        (0xFFFF, [False, True, False, False]),
    ],
)
def test_padding_of_twelve_signed_bits_stated_as_their_pattern(tmp_path, stated, padded):
    """The pattern of -2048 in 12 bits is 2048, which no such pixel can be."""
    pixels = np.array([[-2048, -1, 5, 2047]], np.int16)
    image = read_dicom(with_padding(tmp_path / "a.dcm", pixels, stated, BitsStored=12, HighBit=11))
    mask = image.array[0, 0] == np.float32(image.header["padding_value"])
    np.testing.assert_array_equal(mask, padded)


def test_colours_that_are_called_signed_are_not(tmp_path):
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
    found = read_dicom(write(tmp_path / "a.dcm", pixels, PixelRepresentation=1))
    np.testing.assert_array_equal(np.moveaxis(found.array, 0, 2), pixels)
    assert "signed_colour_read_as_unsigned" in found.flags
    plain = read_dicom(write(tmp_path / "b.dcm", pixels))
    assert "signed_colour_read_as_unsigned" not in plain.flags
    grey = read_dicom(write(tmp_path / "c.dcm", np.full((4, 4), -3, np.int8)))
    assert grey.array.max() == -3
