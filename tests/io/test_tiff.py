"""TIFF kinds that Pillow cuts, turns round or does not know come out as they were stored."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from medtl.errors import ImageError
from medtl.io.cost import Limits
from medtl.io.raster import read_raster

ROWS, COLUMNS = np.mgrid[:64, :48]
GREY = (ROWS * 400 + COLUMNS * 200).astype(np.uint16)  # 22000 at (40, 30)
COLOUR = np.stack([GREY, GREY // 2, GREY // 3], -1)

KINDS = {
    "white is zero, 16 bits": (65535 - GREY, {"photometric": "miniswhite"}, GREY),
    "white is zero, 32 bits": (
        np.uint32(2**32 - 1) - GREY.astype(np.uint32) * 60000,
        {"photometric": "miniswhite"},
        GREY.astype(np.uint32) * 60000,
    ),
    "16-bit colour": (COLOUR, {"photometric": "rgb"}, COLOUR),
    "16-bit colour in planes": (
        np.moveaxis(COLOUR, 2, 0),
        {"photometric": "rgb", "planarconfig": "separate"},
        COLOUR,
    ),
    "16-bit colour, deflated": (COLOUR, {"photometric": "rgb", "compression": "zlib"}, COLOUR),
    "unsigned 32 bits": (
        GREY.astype(np.uint32) * 70000 + 1,
        {},
        GREY.astype(np.uint32) * 70000 + 1,
    ),
    "float64": (GREY / 7.0, {}, GREY / 7.0),
    "float16": ((GREY / 100).astype(np.float16), {}, (GREY / 100).astype(np.float16)),
    "float32 colour": (COLOUR.astype(np.float32), {"photometric": "rgb"}, COLOUR),
    "uint64": (GREY.astype(np.uint64), {}, GREY),
    "int8": ((GREY % 100 - 50).astype(np.int8), {}, (GREY % 100 - 50).astype(np.int8)),
    "big-endian BigTIFF": (GREY, {"bigtiff": True, "byteorder": ">"}, GREY),
    "BigTIFF of 8 bits": ((GREY >> 8).astype(np.uint8), {"bigtiff": True}, GREY >> 8),
    "JPEG 2000 in TIFF": (GREY, {"compression": "jpeg2000"}, GREY),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_that_were_stored(kind: str, tmp_path) -> None:
    stored, options, shown = KINDS[kind]
    path = tmp_path / "film.tif"
    tifffile.imwrite(path, stored, **{"photometric": "minisblack"} | options)
    image = read_raster(path)
    planes = shown[None] if shown.ndim == 2 else np.moveaxis(shown, 2, 0)
    np.testing.assert_array_equal(image.array, planes.astype(np.float32))
    assert image.notes[0] == "decoded TIFF"
    assert ("inverted white-is-zero" in image.notes) == ("white" in kind)


def test_16_bit_grey_with_alpha_loses_the_alpha_and_says_so(tmp_path) -> None:
    both = np.stack([GREY, np.full_like(GREY, 65535)], -1)
    tifffile.imwrite(
        tmp_path / "a.tif", both, photometric="minisblack", extrasamples=["unassalpha"]
    )
    image = read_raster(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array[0], GREY)
    assert image.flags == ("alpha_dropped",)


@pytest.mark.parametrize(
    "stored", [np.zeros((8, 8, 5), np.uint16), np.zeros((8, 8), np.complex64)], ids=["5", "complex"]
)
def test_kinds_without_a_meaning_are_named(stored, tmp_path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match=r"a TIFF of .* samples of type") as caught:
        read_raster(tmp_path / "a.tif")
    assert "Convert it to 16-bit grey TIFF" in str(caught.value)
    assert "truncated" not in str(caught.value)


def test_pages_are_asked_for(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([COLOUR, COLOUR // 2]), photometric="rgb")
    with pytest.raises(ImageError, match="several frames or pages"):
        read_raster(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="frame 2 is asked for"):
        read_raster(tmp_path / "a.tif", frame=2)
    assert read_raster(tmp_path / "a.tif", frame=1).array[0, 40, 30] == 11000


def test_a_declared_bomb_is_not_decoded(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb")
    with pytest.raises(ImageError, match="limit"):
        read_raster(tmp_path / "a.tif", limits=Limits(pixels_per_frame=100))


def test_a_cut_file_is_refused(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", compression="zlib")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cannot be decoded|truncated"):
        read_raster(tmp_path / "b.tif")


def test_orientation_turns_deep_tiffs_too(tmp_path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", COLOUR, photometric="rgb", extratags=[(274, 3, 1, 3, True)]
    )
    image = read_raster(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array[0], GREY[::-1, ::-1])
    assert "turned upright from EXIF orientation 3" in image.notes


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_second_channel_of_grey_is_not_dropped_in_silence(kind, tmp_path) -> None:
    grey = (GREY >> 8).astype(kind)
    tifffile.imwrite(
        tmp_path / "a.tif", np.dstack([grey, grey]), photometric="minisblack", planarconfig="contig"
    )
    image = read_raster(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array[0], grey)
    assert image.flags == ("alpha_dropped",)


def test_four_grey_channels_of_8_bits_are_named(tmp_path) -> None:
    four = np.zeros((8, 8, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", four, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match="a TIFF of 4 samples of type uint8"):
        read_raster(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("photometric", "samples"), [("rgb", 3), ("rgb", 4), ("minisblack", 1), ("miniswhite", 1)]
)
def test_usual_tiffs_of_8_bits_are_read(photometric, samples, tmp_path) -> None:
    grey = (GREY >> 8).astype(np.uint8)
    stored = np.dstack([grey] * samples) if samples > 1 else grey
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric)
    expected = 255 - grey if photometric == "miniswhite" else grey
    np.testing.assert_array_equal(read_raster(tmp_path / "a.tif").array[0], expected)
