"""PNG, JPEG and TIFF: stored units, orientation, and what is refused."""

from __future__ import annotations

import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Pillow

from medtl.errors import ImageError
from medtl.io.cost import Limits
from medtl.io.raster import read_raster

GREY8 = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
GREY16 = (np.arange(20 * 30, dtype=np.uint32) * 109).astype(np.uint16).reshape(20, 30)
COLOR8 = np.stack([GREY8, 255 - GREY8, GREY8 // 2], axis=-1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("pixels", [GREY8, GREY16, COLOR8], ids=["grey8", "grey16", "rgb8"])
def test_values_are_those_that_were_stored(tmp_path, suffix, pixels):
    path = tmp_path / f"a.{suffix}"
    Pillow.fromarray(pixels).save(path)
    image = read_raster(path)
    expected = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    np.testing.assert_array_equal(image.array, expected)
    assert image.array.dtype == np.float32
    assert image.spacing is None


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_colour_is_not_cut_to_eight(tmp_path, channels):
    pixels = np.stack([GREY16, GREY16 + 7, GREY16 // 3, GREY16][:channels], axis=-1)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    image = read_raster(path)
    colors = 1 if channels == 2 else 3
    np.testing.assert_array_equal(image.array, np.moveaxis(pixels[..., :colors], -1, 0))
    assert ("alpha_dropped" in image.flags) == (channels != 3)


def test_float_tiff_keeps_its_fractions(tmp_path):
    values = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)
    Pillow.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_raster(tmp_path / "a.tif").array[0], values)


def test_one_bit_is_0_and_255_and_a_palette_is_looked_up(tmp_path):
    Pillow.fromarray(GREY8 > 100).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(
        read_raster(tmp_path / "bit.png").array[0], np.where(GREY8 > 100, 255, 0)
    )
    palette = Pillow.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(
        read_raster(tmp_path / "p.png").array[:, 0], [[10, 200], [20, 100], [30, 50]]
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, suffix, orientation):
    # Stored so that, read with this orientation, the picture is `upright` (EXIF 2.3, table).
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 250  # top left
    upright[:8, 16:] = 120  # top right
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Pillow.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    image = read_raster(path)
    np.testing.assert_allclose(image.array[0], upright, atol=12)
    assert any("EXIF orientation" in note for note in image.notes) == (orientation > 1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80)).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    Pillow.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match="truncated"):
        read_raster(path)


def test_a_cut_jpeg_with_an_end_marker_is_refused_and_mid_grey_is_not(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3)).astype(np.uint8)
    path = tmp_path / "a.jpg"
    Pillow.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    with pytest.raises(ImageError, match="the JPEG is truncated"):
        read_raster(path)
    noise[40:] = 128
    Pillow.fromarray(noise).save(path)
    assert read_raster(path).array.shape == (3, 80, 80)


def test_declared_size_is_checked_before_decoding(tmp_path):
    Pillow.fromarray(GREY8).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="600 pixels in a frame; expected at most the limit of 99"):
        read_raster(tmp_path / "a.png", limits=Limits(pixels_per_frame=99))
    raw = bytearray((tmp_path / "a.png").read_bytes())
    raw[16:24] = (60000).to_bytes(4) * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4)
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(ImageError, match="decompression bomb"):
        read_raster(tmp_path / "a.png")


def test_pages_are_taken_only_when_asked_for(tmp_path):
    pages = [Pillow.fromarray(GREY8), Pillow.fromarray(255 - GREY8)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="holds several frames or pages"):
        read_raster(tmp_path / "a.tif")
    second = read_raster(tmp_path / "a.tif", frame=1)
    np.testing.assert_array_equal(second.array[0], 255 - GREY8)
    with pytest.raises(ImageError, match="frame 2 is asked for"):
        read_raster(tmp_path / "a.tif", frame=2)


def test_other_formats_are_never_opened(tmp_path):
    Pillow.fromarray(GREY8).save(tmp_path / "a.bmp")
    with pytest.raises(ImageError, match="truncated, corrupt or of another format"):
        read_raster(tmp_path / "a.bmp")
