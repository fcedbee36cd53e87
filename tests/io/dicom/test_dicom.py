"""The DICOM pipeline on hand-made files: every step with a number worked out by hand."""

from __future__ import annotations

import os

import numpy as np
import pytest
from make_dicom import compressed, header, lut, save, with_padding, write
from pydicom import uid
from pydicom.dataset import Dataset

from medtl.errors import ImageError
from medtl.io.cost import Limits
from medtl.io.dicom.header import age_years
from medtl.io.dicom.image import read_dicom, read_header
from medtl.io.dicom.luts import Window, rgb_from_ybr

GREY16 = np.arange(12 * 10, dtype=np.uint16).reshape(12, 10) * 30
GREY8 = (np.arange(12 * 10) * 2 % 256).astype(np.uint8).reshape(12, 10)
SIGNED16 = GREY16.astype(np.int16) - 1800
COLOR8 = np.stack([GREY8, 255 - GREY8, GREY8 // 2], axis=-1)
NATIVE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]
LOSSLESS = [uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless]


# ------------------------------------------------------------- decode and bits


@pytest.mark.parametrize("syntax", NATIVE + LOSSLESS)
@pytest.mark.parametrize("pixels", [GREY8, GREY16, COLOR8], ids=["grey8", "grey16", "rgb8"])
def test_every_lossless_syntax_gives_the_same_pixels(tmp_path, syntax, pixels):
    image = read_dicom(write(tmp_path / "a.dcm", pixels, syntax))
    expected = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array, expected)


@pytest.mark.parametrize("syntax", [*NATIVE, uid.RLELossless])
def test_signed_pixels_keep_their_sign(tmp_path, syntax):
    image = read_dicom(write(tmp_path / "a.dcm", SIGNED16, syntax))
    np.testing.assert_array_equal(image.array[0], SIGNED16)


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_the_sign_is_extended_from_the_precision_of_an_unsigned_stream(tmp_path, syntax):
    # 12-bit two's complement in 16-bit cells: codecs without signs see unsigned numbers.
    cells = (SIGNED16 & 0x0FFF).astype(np.uint16)
    bits = {"BitsStored": 12, "HighBit": 11}
    data = compressed(cells, syntax, 12)
    precision = {uid.JPEGLosslessSV1: 12}.get(syntax, 16)
    path = write(tmp_path / "a.dcm", SIGNED16, syntax, data=data, **bits)
    image = read_dicom(path)
    expected = SIGNED16 if precision == 12 else cells  # a 16-bit stream has its sign in bit 15
    np.testing.assert_array_equal(image.array[0], expected)


def test_baseline_jpeg_is_close_and_its_colours_are_not_swapped(tmp_path):
    rows, columns = np.mgrid[:64, :64]
    smooth = np.stack([rows * 4, columns * 4, np.full_like(rows, 40)], axis=-1).astype(np.uint8)
    path = write(
        tmp_path / "a.dcm",
        smooth,
        uid.JPEGBaseline8Bit,
        PhotometricInterpretation="YBR_FULL_422",
    )
    image = read_dicom(path)
    assert np.abs(image.array - np.moveaxis(smooth, -1, 0)).mean() < 3
    assert "YBR_FULL_422 converted to RGB" in image.notes


def test_bits_above_the_high_bit_are_dropped_and_the_sign_comes_from_it(tmp_path):
    # 12 bits stored, high bit 11, an old overlay in bit 15; -1 is 0xFFF
    cells = np.array([[0x0FFF, 0x8FFF, 0x07FF, 0x0800]], np.uint16)
    common = {"BitsStored": 12, "HighBit": 11}
    unsigned = read_dicom(write(tmp_path / "u.dcm", cells, **common))
    np.testing.assert_array_equal(unsigned.array[0], [[4095, 4095, 2047, 2048]])
    signed = read_dicom(write(tmp_path / "s.dcm", cells, PixelRepresentation=1, **common))
    np.testing.assert_array_equal(signed.array[0], [[-1, -1, 2047, -2048]])


def test_a_left_aligned_sample_is_shifted_down(tmp_path):
    cells = np.array([[0xFFF0, 0x0010]], np.uint16)
    path = write(tmp_path / "a.dcm", cells, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_dicom(path).array[0], [[4095, 1]])


def test_one_bit_pixels_are_unpacked_across_frames(tmp_path):
    # 2 frames of 3 x 5: 30 bits, least significant first; frame 1 starts inside byte 1
    bits = np.arange(30) % 7 == 0
    data = np.packbits(bits, bitorder="little").tobytes()
    base = np.zeros((2, 3, 5), np.uint8)
    elements = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    path = write(tmp_path / "a.dcm", base, data=data, **elements)
    np.testing.assert_array_equal(read_dicom(path).array[0], bits.reshape(2, 3, 5))
    np.testing.assert_array_equal(read_dicom(path, frame=1).array[0], bits[15:].reshape(3, 5))


def test_float_pixel_data_stay_as_they_are(tmp_path):
    values = np.linspace(-1, 1, 120, dtype=np.float32).reshape(12, 10)
    dataset = header(GREY16, BitsAllocated=32, BitsStored=None, HighBit=None)
    dataset.add_new(0x7FE00008, "OF", values.tobytes())
    image = read_dicom(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(image.array[0], values)


def test_planes_of_colour_are_put_together(tmp_path):
    data = np.moveaxis(COLOR8, -1, 0).tobytes()
    image = read_dicom(write(tmp_path / "a.dcm", COLOR8, data=data, PlanarConfiguration=1))
    np.testing.assert_array_equal(image.array, np.moveaxis(COLOR8, -1, 0))


def test_shared_chroma_is_spread_over_two_pixels(tmp_path):
    data = bytes([76, 150, 85, 255]) * 2  # Y1 Y2 Cb Cr of pure red, then a brighter one
    pixels = np.zeros((2, 2, 3), np.uint8)
    path = write(tmp_path / "a.dcm", pixels, data=data, PhotometricInterpretation="YBR_FULL_422")
    np.testing.assert_allclose(read_dicom(path).array[:, 0, 0], [254, 0, 0], atol=1)


def test_ybr_to_rgb_has_the_numbers_of_the_standard():
    ybr = np.array([[255, 128, 128], [76, 85, 255], [0, 128, 128]], np.uint8)
    np.testing.assert_allclose(rgb_from_ybr(ybr), [[255] * 3, [254, 0, 0], [0] * 3], atol=1)


# --------------------------------------------------- modality, VOI, MONOCHROME1


def test_rescale_gives_hounsfield_units_and_is_recorded(tmp_path):
    path = write(tmp_path / "a.dcm", GREY16, RescaleSlope="2.5", RescaleIntercept="-1024")
    image = read_dicom(path)
    np.testing.assert_allclose(image.array[0], GREY16 * 2.5 - 1024)
    assert "rescale slope and intercept applied" in image.notes


def test_modality_lut_takes_its_ends_outside_the_table(tmp_path):
    path = write(
        tmp_path / "a.dcm",
        np.array([[0, 4, 5, 6, 9]], np.uint16),
        ModalityLUTSequence=[lut([100, 200, 400], first=4, bits=16)],
    )
    np.testing.assert_array_equal(read_dicom(path).array[0], [[100, 100, 200, 400, 400]])


def test_monochrome1_is_mirrored_once_in_the_range_of_its_bits(tmp_path):
    elements = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}
    image = read_dicom(write(tmp_path / "a.dcm", GREY16, **elements))
    np.testing.assert_array_equal(image.array[0], 4095.0 - GREY16)
    assert image.notes.count("inverted MONOCHROME1") == 1
    signed = read_dicom(
        write(tmp_path / "s.dcm", SIGNED16, **elements, RescaleSlope="2", RescaleIntercept="5")
    )
    # stored -2048 .. 2047 is -4091 .. 4099; low + high - (2 x + 5) = 3 - 2 x
    np.testing.assert_array_equal(signed.array[0], 3.0 - 2 * SIGNED16.astype(float))


def test_monochrome1_and_monochrome2_of_one_film_agree(tmp_path):
    common = {"BitsStored": 12, "HighBit": 11}
    white_low = write(
        tmp_path / "1.dcm", 4095 - GREY16, PhotometricInterpretation="MONOCHROME1", **common
    )
    white_high = write(tmp_path / "2.dcm", GREY16, **common)
    np.testing.assert_array_equal(read_dicom(white_low).array, read_dicom(white_high).array)


def test_hounsfield_units_are_not_mirrored_unless_shown(tmp_path):
    elements = {
        "PhotometricInterpretation": "MONOCHROME1",
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        "RescaleType": "HU",
        "WindowCenter": "800",
        "WindowWidth": "3600",
    }
    path = write(tmp_path / "a.dcm", GREY16, **elements)
    image = read_dicom(path)
    np.testing.assert_array_equal(image.array[0], GREY16 - 1024.0)
    assert "monochrome1_in_hounsfield_units" in image.flags
    shown = read_dicom(path, voi=True).array[0]
    assert shown[0, 0] > shown[-1, -1]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # C.11.2.1.2.1 with c = 2048, w = 4096 gives 0 at x <= 0 and 1 at x > 4095
        ("LINEAR", [0.0, 2047.5 / 4095 + 0.5 / 4095, 1.0]),
        ("LINEAR_EXACT", [0.0, 0.5, 4095 / 4096]),
        ("SIGMOID", [1 / (1 + np.exp(2.0)), 0.5, 1 / (1 + np.exp(-4 * 2047 / 4096))]),
    ],
)
def test_window_functions_have_the_numbers_of_the_standard(function, expected):
    values = np.array([0, 2048, 4095], np.float32)
    np.testing.assert_allclose(Window(2048, 4096, function)(values), expected, atol=1e-6)


def test_a_window_of_width_one_is_a_threshold():
    values = np.array([99, 99.5, 99.6, 100], np.float32)
    np.testing.assert_array_equal(Window(100, 1)(values), [0, 0, 1, 1])


def test_voi_is_applied_only_when_asked_and_inverted_after_it(tmp_path):
    elements = {"WindowCenter": "1800", "WindowWidth": "3600"}
    plain = write(tmp_path / "2.dcm", GREY16, **elements)
    shown = read_dicom(plain, voi=True).array
    np.testing.assert_allclose(shown[0], ((GREY16 - 1799.5) / 3599 + 0.5).clip(0, 1), atol=1e-6)
    np.testing.assert_array_equal(read_dicom(plain).array[0], GREY16)
    inverse = write(tmp_path / "1.dcm", GREY16, PhotometricInterpretation="MONOCHROME1", **elements)
    np.testing.assert_allclose(read_dicom(inverse, voi=True).array, 1 - shown, atol=1e-6)


def test_a_voi_lut_goes_before_a_window(tmp_path):
    path = write(
        tmp_path / "a.dcm",
        np.array([[0, 1, 2, 3]], np.uint16),
        VOILUTSequence=[lut([0, 51, 102, 255], first=0, bits=8)],
        WindowCenter="1",
        WindowWidth="2",
    )
    image = read_dicom(path, voi=True)
    np.testing.assert_allclose(image.array[0], [[0, 0.2, 0.4, 1.0]], atol=1e-6)
    assert "VOI LUT applied" in image.notes


@pytest.mark.parametrize("width", ["0", "-5"])
def test_a_broken_window_is_flagged_and_ignored(tmp_path, width):
    path = write(tmp_path / "a.dcm", GREY16, WindowCenter="40", WindowWidth=width)
    assert "broken_window" in read_dicom(path).flags
    shown = read_dicom(path, voi=True)
    assert (shown.array.min(), shown.array.max()) == (0.0, 1.0)
    assert "broken_window" in shown.flags


def test_padding_gets_one_value_below_the_real_ones(tmp_path):
    pixels = SIGNED16.copy()
    pixels[:3] = -2000
    image = read_dicom(write(tmp_path / "a.dcm", pixels, PixelPaddingValue=-2000))
    mask = image.array == np.float32(image.header["padding_value"])
    np.testing.assert_array_equal(mask[0], pixels == -2000)
    assert image.array[~mask].min() == pixels[3:].min()
    assert 0 < image.array[~mask].min() - image.array[mask].max() < 0.01
    assert "pixel_padding" in image.flags


@pytest.mark.parametrize(
    ("stated", "limit", "padded"),
    [
        (0x8000, None, [True, False, False, False]),
        (0x8000, 0x8001, [True, True, False, False]),
        (0x7FFF, None, [False, False, False, True]),
    ],
)
def test_padding_of_signed_pixels_stated_as_unsigned(tmp_path, stated, limit, padded):
    """0x8000 is -32768, the usual padding of signed pixels: the first number that wraps."""
    pixels = np.array([[-32768, -32767, 5, 32767]], np.int16)
    image = read_dicom(with_padding(tmp_path / "a.dcm", pixels, stated, limit))
    mask = image.array[0, 0] == np.float32(image.header["padding_value"])
    np.testing.assert_array_equal(mask, padded)


def test_padding_of_unsigned_pixels_does_not_wrap(tmp_path):
    pixels = np.array([[0x8000, 1, 2, 3]], np.uint16)
    image = read_dicom(write(tmp_path / "a.dcm", pixels, PixelPaddingValue=0x8000))
    mask = image.array[0, 0] == np.float32(image.header["padding_value"])
    np.testing.assert_array_equal(mask, [True, False, False, False])


def test_a_palette_becomes_rgb(tmp_path):
    dataset = header(
        np.array([[0, 1], [2, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR"
    )
    for offset, entries in enumerate(([0, 10, 20], [1, 11, 21], [2, 12, 22])):
        dataset.add_new(0x00281101 + offset, "US", [3, 0, 16])
        dataset.add_new(0x00281201 + offset, "OW", np.array(entries, "<u2").tobytes())
    dataset.add_new(0x7FE00010, "OB", bytes([0, 1, 2, 1]))
    image = read_dicom(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(image.array[:, 1, 0], [20, 21, 22])


# ------------------------------------------------------------ frames, geometry


def enhanced(path, positions, slopes=None, orientation=(1, 0, 0, 0, 1, 0)):
    """Write an enhanced CT whose frame k holds 10 k + stored, at the given z positions."""
    pixels = np.stack([np.full((4, 5), 10 * k, np.uint16) for k in range(len(positions))])
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.7]
    plane.ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    groups = []
    for k, z in enumerate(positions):
        group, place, change = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [10, 20, z]
        group.PlanePositionSequence = [place]
        if slopes:
            change.RescaleSlope, change.RescaleIntercept = slopes[k], 1
            group.PixelValueTransformationSequence = [change]
        groups.append(group)
    return write(
        path,
        pixels,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )


def test_frames_are_sorted_by_position_and_rescaled_each_by_its_own(tmp_path):
    path = enhanced(tmp_path / "a.dcm", [6.0, 2.0, 4.0], slopes=[1, 2, 3])
    image = read_dicom(path)
    assert image.array.shape == (1, 3, 4, 5)
    # frame 1 (z 2): 10 * 2 + 1; frame 2 (z 4): 20 * 3 + 1; frame 0 (z 6): 0 * 1 + 1
    np.testing.assert_array_equal(image.array[0, :, 0, 0], [21, 61, 1])
    assert image.spacing == (2.0, 0.5, 0.7)
    assert "frames sorted by position along their normal" in image.notes
    assert image.affine is not None
    # slice 1, row 2, column 3 in RAS: x = -(10 + 3 * 0.7), y = -(20 + 2 * 0.5), z = 2 + 2
    np.testing.assert_allclose(image.affine @ [1, 2, 3, 1], [-12.1, -21.0, 4.0, 1])


def test_one_frame_is_that_of_the_whole_array(tmp_path):
    path = enhanced(tmp_path / "a.dcm", [6.0, 2.0, 4.0], slopes=[1, 2, 3])
    whole = read_dicom(path)
    for k in range(3):
        one = read_dicom(path, frame=k)
        np.testing.assert_array_equal(one.array, whole.array[:, k])
        assert one.spacing == (0.5, 0.7)
        np.testing.assert_allclose(one.affine @ [2, 3, 0, 1], whole.affine @ [k, 2, 3, 1])
    with pytest.raises(ImageError, match="frame 3 is asked for; expected 0 to 2"):
        read_dicom(path, frame=3)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless])
def test_single_frames_of_compressed_series_are_found(tmp_path, syntax):
    pixels = np.stack([GREY16, GREY16 + 1, GREY16 + 2])
    path = write(tmp_path / "a.dcm", pixels, syntax)
    np.testing.assert_array_equal(read_dicom(path, frame=2).array[0], pixels[2])
    np.testing.assert_array_equal(read_dicom(path).array[0], pixels)


def test_a_gap_between_slices_and_one_place_twice_are_flagged(tmp_path):
    gap = read_dicom(enhanced(tmp_path / "g.dcm", [0.0, 2.0, 6.0, 8.0]))
    assert "slice_distances_differ" in gap.flags
    assert gap.spacing is None
    twice = read_dicom(enhanced(tmp_path / "t.dcm", [0.0, 2.0, 2.0]))
    assert "frames_not_one_stack" in twice.flags


@pytest.mark.parametrize(
    ("elements", "spacing", "flag"),
    [
        ({"PixelSpacing": [0.4, 0.8]}, (0.4, 0.8), None),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "spacing_from_imager"),
        ({"PixelSpacing": [0.4, 0.8], "ImagerPixelSpacing": [1, 1]}, (0.4, 0.8), None),
        ({"PixelSpacing": [0, 0]}, None, "bad_spacing"),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [1, 2]}, (1, 2), "bad_spacing"),
        ({"PixelAspectRatio": [2, 1]}, None, "spacing_only_as_aspect_ratio"),
        ({}, None, "no_spacing"),
    ],
)
def test_spacing_comes_from_the_first_element_that_has_it(tmp_path, elements, spacing, flag):
    image = read_dicom(write(tmp_path / "a.dcm", GREY16, **elements))
    assert image.spacing == spacing
    assert flag is None or flag in image.flags


def test_a_slice_in_the_patient_has_an_affine(tmp_path):
    elements = {
        "PixelSpacing": [0.5, 0.25],
        "ImagePositionPatient": [1, 2, 3],
        "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
    }
    affine = read_dicom(write(tmp_path / "a.dcm", GREY16, **elements)).affine
    assert affine is not None
    # row 2 goes down 2 * 0.5 in -z, column 4 goes 4 * 0.25 in +y (LPS), then x and y change sign
    np.testing.assert_allclose(affine @ [2, 4, 0, 1], [-1, -3, 2, 1])


# ------------------------------------------------------- headers, flags, errors


def test_header_holds_allowed_facts_and_nothing_of_the_patient(tmp_path):
    path = write(
        tmp_path / "a.dcm",
        GREY16,
        ViewPosition="PA",
        BodyPartExamined="CHEST",
        BurnedInAnnotation="YES",
        PatientAge="006M",
        Manufacturer="ACME",
        StudyDate="19340219",
        InstitutionName="CANARYHOSPITAL",
    )
    found = read_header(path)
    assert found["view_position"] == "PA"
    assert found["patient_age_years"] == "0.5"
    assert found["rows"] == "12"
    assert "CANARY" not in str(dict(found))
    assert "1934" not in str(dict(found))
    image = read_dicom(path)
    assert "burned_in_annotation" in image.flags
    assert image.modality == "ct"


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("045Y", (45.0, True)),
        ("006M", (0.5, True)),
        ("010D", (10 / 365.25, True)),
        ("095Y", (90.0, True)),
        ("", (None, True)),
        (None, (None, True)),
        ("45", (None, False)),
    ],
)
def test_ages_are_years_whatever_their_unit(text, years):
    assert age_years(text) == years


@pytest.mark.parametrize(
    ("elements", "match"),
    [
        ({"Rows": None}, r"Rows \(0028,0010\) is missing"),
        ({"Rows": 0}, "expected rows and columns above zero"),
        ({"Columns": 11}, "truncated: 240 bytes; expected 264 bytes"),
        ({"NumberOfFrames": 2}, "truncated"),
        ({"NumberOfFrames": 900, "Rows": 1, "Columns": 1}, "900 frames are declared in 240 bytes"),
        ({"BitsAllocated": 12}, "12 bits allocated"),
        ({"BitsStored": 17}, "17 bits stored"),
        ({"SamplesPerPixel": 3}, "Photometric Interpretation"),
        ({"PhotometricInterpretation": "MAGIC"}, "Photometric Interpretation"),
        ({"RescaleSlope": "0"}, "Rescale Slope"),
        ({"ModalityLUTSequence": [Dataset()]}, "Modality LUT"),
    ],
)
def test_contradicting_headers_are_refused_by_name(tmp_path, elements, match):
    path = write(tmp_path / "a.dcm", GREY16, **elements)
    with pytest.raises(ImageError, match=match) as fault:
        read_dicom(path)
    assert "a.dcm" in str(fault.value)
    assert str(tmp_path) not in str(fault.value)
    assert "CANARY" not in str(fault.value)


def test_an_image_of_padding_only_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", np.full((4, 4), 7, np.uint16), PixelPaddingValue=7)
    with pytest.raises(ImageError, match="every pixel is padding"):
        read_dicom(path)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("tail", [b"", b"\xff\xd9"], ids=["cut", "cut_and_closed"])
def test_a_cut_stream_is_refused(tmp_path, syntax, tail):
    noise = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    data = compressed(noise, syntax, 12)
    path = write(
        tmp_path / "a.dcm",
        noise,
        syntax,
        data=data[: len(data) // 2] + tail,
        BitsStored=12,
        HighBit=11,
    )
    with pytest.raises(ImageError, match="truncated"):
        read_dicom(path)


@pytest.mark.parametrize("tail", [b"", b"\xff\xd9"], ids=["cut", "cut_and_closed"])
def test_a_cut_baseline_jpeg_is_refused_and_a_grey_one_is_not(tmp_path, tail):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    data = compressed(noise, uid.JPEGBaseline8Bit, 8)
    cut = data[: len(data) // 2] + tail
    path = write(tmp_path / "a.dcm", noise, uid.JPEGBaseline8Bit, data=cut)
    with pytest.raises(ImageError, match="JPEG stream is truncated"):
        read_dicom(path)
    noise[32:] = 128  # honest mid-grey must pass
    assert read_dicom(write(tmp_path / "b.dcm", noise, uid.JPEGBaseline8Bit)).array.shape[1] == 64


def test_a_stream_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    data = compressed(np.zeros((400, 300), np.uint8), uid.JPEGLSLossless, 8)
    path = write(tmp_path / "a.dcm", GREY8, uid.JPEGLSLossless, data=data)
    with pytest.raises(
        ImageError, match=r"the JPEG-LS stream is 400 x 300 x 1; expected .* 12 x 10"
    ):
        read_dicom(path)


def test_compressed_frames_that_are_missing_are_counted(tmp_path):
    data = compressed(GREY8, uid.JPEGLSLossless, 8)
    path = write(tmp_path / "a.dcm", GREY8, uid.JPEGLSLossless, data=data, NumberOfFrames=1)
    assert read_dicom(path).array.shape == (1, 12, 10)
    path = write(tmp_path / "b.dcm", np.stack([GREY8] * 3), uid.JPEGLSLossless, data=data)
    with pytest.raises(ImageError, match=r"frames|truncated or corrupt"):
        read_dicom(path)


def test_an_unknown_transfer_syntax_is_named(tmp_path):
    path = write(tmp_path / "a.dcm", GREY8, data=GREY8.tobytes())
    raw = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0")
    path.write_bytes(raw)
    with pytest.raises(ImageError, match=r"transfer syntax 1\.2\.840\.99999\.1\.2\.1"):
        read_dicom(path)


def test_limits_are_held_before_and_after_inflation(tmp_path):
    path = write(tmp_path / "a.dcm", GREY16)
    with pytest.raises(ImageError, match="at most the limit of 100"):
        read_dicom(path, limits=Limits(pixels_per_frame=100))
    with pytest.raises(ImageError, match="needs 480 bytes"):
        read_dicom(path, limits=Limits(decoded_bytes=400))
    blank = np.zeros((2000, 1000), np.uint8)
    deflated = write(tmp_path / "d.dcm", blank, uid.DeflatedExplicitVRLittleEndian)
    assert read_dicom(deflated).array.shape == (1, 2000, 1000)
    with pytest.raises(ImageError, match="compressed bytes inflate to"):
        read_dicom(deflated, limits=Limits(inflate_free_bytes=1000))
    deflated.write_bytes(deflated.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"deflated data set is (truncated|corrupt)"):
        read_dicom(deflated)


def test_deep_nesting_is_refused(tmp_path):
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.ReferencedImageSequence = [inner]
        outer["ReferencedImageSequence"].is_undefined_length = True
        inner = outer
    dataset = header(GREY16)
    dataset["ReferencedImageSequence"] = inner["ReferencedImageSequence"]
    dataset.add_new(0x7FE00010, "OW", GREY16.tobytes())
    path = save(tmp_path / "a.dcm", dataset)
    assert read_dicom(path, limits=Limits(sequence_depth=50)).array.shape == (1, 12, 10)
    with pytest.raises(ImageError, match="nested too deeply; expected at most 32 levels"):
        read_dicom(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")
    with pytest.raises(ImageError, match="not a regular file"):
        read_dicom(tmp_path / "pipe.dcm")
    with pytest.raises(ImageError, match="not a regular file"):
        read_dicom(tmp_path)
    with pytest.raises(ImageError, match="cannot be opened"):
        read_dicom(tmp_path / "absent.dcm")
    link = tmp_path / "link.dcm"
    link.symlink_to(write(tmp_path / "a.dcm", GREY16))
    assert read_dicom(link).array.shape == (1, 12, 10)


def test_more_bytes_than_declared_are_flagged(tmp_path):
    path = write(tmp_path / "a.dcm", GREY16, data=GREY16.tobytes() + bytes(40))
    image = read_dicom(path)
    np.testing.assert_array_equal(image.array[0], GREY16)
    assert "pixel_data_longer_than_declared_size" in image.flags


def test_a_header_without_preamble_is_read_and_flagged(tmp_path):
    path = write(tmp_path / "a.dcm", GREY16, uid.ImplicitVRLittleEndian)
    raw = path.read_bytes()
    start = raw.index(b"\x08\x00\x16\x00", 132)  # SOP Class UID, the first element of group 8
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(raw[start:])
    image = read_dicom(bare)
    np.testing.assert_array_equal(image.array[0], GREY16)
    assert {"no_preamble", "no_file_meta"} <= set(image.flags)


def test_pydicom_warnings_become_a_flag_without_their_text(tmp_path):
    path = write(tmp_path / "a.dcm", GREY16, PatientAge="006M", StudyDate="20200101")
    raw = path.read_bytes().replace(b"006M", b"CANA")
    path.write_bytes(raw)
    image = read_dicom(path)
    assert "malformed_age" in image.flags
    assert "CANA" not in " ".join((*image.notes, *image.flags, *image.header.values()))


def test_encapsulated_data_under_an_uncompressed_syntax_are_refused(tmp_path):
    path = write(tmp_path / "a.dcm", GREY8, uid.JPEGLSLossless)
    swapped = b"1.2.840.10008.1.2.1\0\0\0"
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.80", swapped))
    with pytest.raises(ImageError, match="the pixel data have no length"):
        read_dicom(path)


def test_compressed_syntax_without_capsules_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", GREY8)
    raw = path.read_bytes()
    # UI values are padded to even length, so the syntax of JPEG-LS cannot be put in by replacing
    path.write_bytes(raw.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    with pytest.raises(ImageError, match="not encapsulated"):
        read_dicom(path)


def test_colours_that_share_chroma_need_pairs_of_columns(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    path = write(
        tmp_path / "a.dcm", pixels, data=bytes(12), PhotometricInterpretation="YBR_FULL_422"
    )
    with pytest.raises(ImageError, match="even number of columns"):
        read_dicom(path)


def test_one_bit_run_lengths_are_refused(tmp_path):
    elements = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    path = write(tmp_path / "a.dcm", GREY8, uid.RLELossless, data=bytes(66), **elements)
    with pytest.raises(ImageError, match="RLE of 1-bit pixels"):
        read_dicom(path)
