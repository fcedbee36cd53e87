"""JPEG 2000 and JPEG decoded at the size needed: how far from the whole, what is refused."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from make_dicom import write
from PIL import Image as Pillow
from pydicom import uid

from medtl.errors import ImageError, RecipeError
from medtl.io.dicom.image import read_dicom
from medtl.io.read import read_image
from medtl.networks.weights import InputContract
from medtl.preprocess.pipeline import Preprocessor
from medtl.recipe.overrides import read_data
from medtl.recipe.schema import parse_recipe
from medtl.run.build import build_reader
from medtl.run.check import read_recipe
from medtl.types import Case, Image

PIPELINES = Path(__file__).parents[3] / "pipelines"

ROWS, COLUMNS = 1000, 820
AT_AN_EDGE, ON_AVERAGE = 0.1, 0.004
"""Accepted difference of the 224 px picture in [0, 1]: of one pixel at a metal edge, of all."""


def film(bits: int = 12, seed: int = 0) -> np.ndarray:
    """Smooth anatomy, noise of a detector, a metal edge."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    smooth = 0.5 + 0.35 * np.sin(y / 150) * np.cos(x / 110)
    smooth[200:300, 300:600] = 0.95
    noisy = smooth + np.random.default_rng(seed).normal(0, 0.005, smooth.shape)
    kind = np.uint16 if bits > 8 else np.uint8
    return np.rint(np.clip(noisy, 0, 1) * (2**bits - 1)).astype(kind)


def j2k(pixels: np.ndarray, bits: int, **options) -> bytes:
    options = {"reversible": True, "level": 0, **options}
    return bytes(
        imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", bitspersample=bits, **options)
    )


def written(folder: Path, bits: int = 12, data: bytes | None = None, **elements) -> Path:
    stream = j2k(film(bits), bits) if data is None else data
    shown = {"BitsStored": bits, "HighBit": bits - 1, **elements}
    return write(folder / "a.dcm", film(bits), uid.JPEG2000Lossless, data=stream, **shown)


def assert_nearly_the_same(whole: Image, reduced: Image) -> None:
    """One is flagged, and as network input they are one picture but for what was averaged."""
    assert "reduced_resolution" in reduced.flags
    assert "reduced_resolution" not in whole.flags
    units = [Preprocessor(size=224).to_unit(image) for image in (whole, reduced)]
    difference = np.abs(units[0] - units[1])
    assert 0 < difference.max() < AT_AN_EDGE
    assert difference.mean() < ON_AVERAGE
    assert np.corrcoef(units[0].ravel(), units[1].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_picture_is_nearly_that_of_the_whole_one(tmp_path, bits):
    path = written(tmp_path, bits)
    whole, reduced = read_image(path), read_image(path, at_least=448)
    assert whole.array.shape == (1, ROWS, COLUMNS)
    assert reduced.array.shape == (1, ROWS // 2, COLUMNS // 2)
    assert_nearly_the_same(whole, reduced)


@pytest.mark.parametrize(
    ("at_least", "rows"),
    [(None, 1000), (1000, 1000), (501, 1000), (500, 500), (250, 250), (1, 125)],
)
def test_as_coarse_as_asked_and_as_the_stream_holds(tmp_path, at_least, rows):
    """Never coarser than 125 rows: Pillow and the stream round the sides below differently."""
    image = read_dicom(written(tmp_path), at_least=at_least)
    assert image.array.shape[1] == rows


def test_larger_pixels_lie_where_the_smaller_ones_lay(tmp_path):
    path = written(
        tmp_path,
        PixelSpacing=[0.2, 0.1],
        ImagePositionPatient=[5, 6, 7],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    )
    whole, reduced = read_dicom(path), read_dicom(path, at_least=250)
    assert reduced.spacing == pytest.approx((0.8, 0.4))
    corners = np.array([[-0.5, -0.5, 0, 1], [ROWS - 0.5, COLUMNS - 0.5, 0, 1]])
    fewer = np.array([[-0.5, -0.5, 0, 1], [ROWS / 4 - 0.5, COLUMNS / 4 - 0.5, 0, 1]])
    np.testing.assert_allclose(fewer @ reduced.affine.T, corners @ whole.affine.T, atol=1e-9)


def test_an_odd_size_rounds_up(tmp_path):
    pixels = film()[:999, :817]
    path = write(
        tmp_path / "a.dcm", pixels, uid.JPEG2000Lossless, data=j2k(pixels, 12),
        BitsStored=12, HighBit=11, PixelSpacing=[0.1, 0.1],
    )  # fmt: skip
    image = read_dicom(path, at_least=200)
    assert image.array.shape == (1, 500, 409)
    assert image.spacing == pytest.approx((99.9 / 500, 81.7 / 409))


@pytest.mark.parametrize("elements", [{"PixelPaddingValue": 0}, {"PixelRepresentation": 1}])
def test_padded_and_signed_pictures_are_decoded_whole(tmp_path, elements):
    pixels = film().astype(np.int16) if "PixelRepresentation" in elements else film()
    path = write(
        tmp_path / "a.dcm", pixels, uid.JPEG2000Lossless, data=j2k(pixels.astype(np.uint16), 12),
        BitsStored=12, HighBit=11, **elements,
    )  # fmt: skip
    image = read_dicom(path, at_least=100)
    assert image.array.shape == (1, ROWS, COLUMNS)


def test_colour_is_decoded_whole(tmp_path):
    pixels = np.stack([film(8)] * 3, axis=-1)
    path = write(tmp_path / "a.dcm", pixels, uid.JPEG2000Lossless)
    assert read_dicom(path, at_least=100).array.shape == (3, ROWS, COLUMNS)


@pytest.mark.parametrize(
    "syntax", [uid.JPEGLSLossless, uid.RLELossless, uid.ExplicitVRLittleEndian]
)
def test_other_syntaxes_are_decoded_whole(tmp_path, syntax):
    path = write(tmp_path / "a.dcm", film(16), syntax)
    np.testing.assert_array_equal(read_dicom(path, at_least=100).array, read_dicom(path).array)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["cut", "cut and closed"])
def test_a_cut_stream_is_refused_though_its_coarse_part_is_there(tmp_path, share, end):
    stream = j2k(film(), 12)
    cut = stream[: int(len(stream) * share)] + end
    with pytest.raises(ImageError, match="JPEG 2000 stream is truncated"):
        read_dicom(written(tmp_path, data=cut), at_least=250)


def test_a_stream_of_another_size_is_refused(tmp_path):
    with pytest.raises(ImageError, match="another size than the file says"):
        read_dicom(written(tmp_path, data=j2k(film()[:800], 12)), at_least=250)


def test_a_damaged_header_is_refused(tmp_path):
    stream = bytearray(j2k(film(), 12))
    at = stream.find(b"\xff\x5c")  # QCD, without which nothing can be decoded
    stream[at + 1] = 0x64
    with pytest.raises(ImageError, match="cannot be decoded, it is corrupt"):
        read_dicom(written(tmp_path, data=bytes(stream)), at_least=250)


def jpeg(folder: Path, pixels: np.ndarray, **options) -> Path:
    Pillow.fromarray(pixels).save(folder / "a.jpg", quality=90, **options)
    return folder / "a.jpg"


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_of_a_jpeg_is_nearly_that_of_the_whole_one(tmp_path, channels, options):
    pixels = film(8) if channels == 1 else np.stack([film(8, seed) for seed in range(3)], axis=-1)
    path = jpeg(tmp_path, pixels, **options)
    whole, reduced = read_image(path), read_image(path, at_least=448)
    assert reduced.array.shape == (1, ROWS // 2, COLUMNS // 2)
    assert "decoded at 500 x 410 pixels" in reduced.notes
    assert_nearly_the_same(whole, reduced)


@pytest.mark.parametrize(
    ("at_least", "rows"),
    [(None, 1000), (501, 1000), (500, 500), (251, 500), (250, 250), (125, 125), (1, 125)],
)
def test_a_jpeg_is_decoded_as_coarse_as_asked_and_as_libjpeg_can(tmp_path, at_least, rows):
    assert read_image(jpeg(tmp_path, film(8)), at_least=at_least).array.shape[1] == rows


def test_a_jpeg_is_turned_upright_after_it_was_scaled(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    upright = read_image(jpeg(tmp_path, film(8), exif=exif.tobytes()), at_least=500)
    as_stored = read_image(jpeg(tmp_path, film(8)), at_least=500)
    np.testing.assert_array_equal(upright.array[0], np.rot90(as_stored.array[0], -1))


def test_a_narrow_jpeg_keeps_a_row(tmp_path):
    assert read_image(jpeg(tmp_path, film(8)[:3]), at_least=100).array.shape == (1, 2, 410)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["cut", "cut and closed"])
@pytest.mark.parametrize("at_least", [500, 250, 125])
def test_a_cut_jpeg_is_refused_at_every_size(tmp_path, share, end, at_least):
    path = jpeg(tmp_path, film(8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)] + end)
    with pytest.raises(ImageError, match="truncated"):
        read_image(path, at_least=at_least)


@pytest.mark.parametrize("at_least", [500, 250, 125])
def test_a_whole_jpeg_that_ends_in_mid_grey_is_not_cut(tmp_path, at_least):
    pixels = film(8)
    pixels[600:] = 128
    assert read_image(jpeg(tmp_path, pixels), at_least=at_least).array.shape[1] == at_least


def test_print_colours_and_other_formats_are_decoded_whole(tmp_path):
    Pillow.fromarray(film(8)).convert("CMYK").save(tmp_path / "a.jpg")
    Pillow.fromarray(film(8)).save(tmp_path / "a.png")
    for name in ("a.jpg", "a.png"):
        assert read_image(tmp_path / name, at_least=100).array.shape == (1, ROWS, COLUMNS)


def test_a_recipe_asks_for_it_and_its_reader_does_it(tmp_path):
    data = read_data(PIPELINES / "chest_xray.yaml", ["image.size=64", "image.decode=reduced"])
    reader = build_reader(parse_recipe(data), InputContract((0.5,), (0.5,)), None)
    case = Case("c", "p", written(tmp_path))
    assert reader.read(case).array.shape == (1, ROWS // 4, COLUMNS // 4)  # 205 is above 128


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [("lung_segmentation", "masks are drawn on whole images"), ("hippocampus", "decoded whole")],
)
def test_masks_and_volumes_are_decoded_whole(pipeline, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(PIPELINES / f"{pipeline}.yaml", ["image.decode=reduced"])
