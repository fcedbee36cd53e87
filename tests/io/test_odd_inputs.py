"""Files as people really have them: read rightly, or refused with the reason and the way out."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
from make_dicom import write
from PIL import Image as Pillow

from medtl.data.reader import ImageReader
from medtl.errors import ImageError
from medtl.io.masks import read_mask
from medtl.io.nifti import read_nifti
from medtl.io.read import read_image
from medtl.preprocess.pipeline import Preprocessor
from medtl.types import Case

ELLIPSE = np.hypot(*np.mgrid[-40:40, -48:48]) < 30


# -- a mask kept in the alpha channel


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("grey", [255, 0, 128])
def test_a_mask_in_the_alpha_channel_is_refused(mode: str, grey: int, tmp_path: Path) -> None:
    planes = [np.full(ELLIPSE.shape, grey, np.uint8)] * (len(mode) - 1)
    Pillow.fromarray(np.dstack([*planes, ELLIPSE.astype(np.uint8) * 255]), mode).save(
        tmp_path / "mask.png"
    )
    with pytest.raises(ImageError, match="alpha channel: the mask may be kept there"):
        read_mask(tmp_path / "mask.png")


def test_a_mask_beside_an_opaque_alpha_is_read_and_flagged(tmp_path: Path) -> None:
    drawn = ELLIPSE.astype(np.uint8) * 255
    both = np.dstack([drawn, np.full_like(drawn, 255)])
    Pillow.fromarray(both, "LA").save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(mask.array, ELLIPSE)
    assert "alpha_dropped" in mask.flags


# -- mosaics


def test_a_mosaic_is_no_image(tmp_path: Path) -> None:
    pixels = np.arange(96 * 96, dtype=np.uint16).reshape(96, 96)
    kinds = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    write(tmp_path / "a.dcm", pixels, ImageType=kinds)
    with pytest.raises(ImageError, match="a mosaic: many slices of a volume tiled"):
        read_image(tmp_path / "a.dcm")
    write(tmp_path / "b.dcm", pixels, ImageType=["DERIVED", "PRIMARY", "MOSAIC"])
    with pytest.raises(ImageError, match="a mosaic"):
        read_image(tmp_path / "b.dcm")
    write(tmp_path / "c.dcm", pixels, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    assert read_image(tmp_path / "c.dcm").array.shape == (1, 96, 96)


# -- NIfTI headers that every other reader understands

AFFINE = np.diag([-1, 1.5, 2, 1.0])
AFFINE[:3, 3] = 90, -100, -50


def _altered(path: Path, *, sform: bool, offset: int, value: bytes) -> Path:
    """A NIfTI file with some bytes of its header changed."""
    image = nibabel.Nifti1Image(np.arange(960).reshape(10, 12, 8).astype(np.int16), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE if sform else None, 1 if sform else 0)
    data = bytearray(image.to_bytes())
    data[offset : offset + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("sform", [False, True])
def test_a_qfac_of_zero_is_one(sform: bool, tmp_path: Path) -> None:
    path = _altered(tmp_path / "a.nii", sform=sform, offset=76, value=struct.pack("<f", 0))
    image = read_nifti(path)
    assert np.allclose(np.abs(np.diag(image.affine)[:3]), (1, 1.5, 2))
    assert "qfac_zero_read_as_one" in image.flags
    assert not any("singular" in flag for flag in image.flags)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_negative_voxel_size_is_positive(axis: int, tmp_path: Path) -> None:
    size = struct.pack("<f", -float(np.abs(np.diag(AFFINE))[axis - 1]))
    image = read_nifti(_altered(tmp_path / "a.nii", sform=False, offset=76 + 4 * axis, value=size))
    assert image.spacing == (1.0, 1.5, 2.0)
    assert "negative_pixdim_made_positive" in image.flags


@pytest.mark.parametrize(("excess", "is_read"), [(1e-7, True), (3e-7, True), (1e-3, False)])
def test_a_quaternion_a_hair_too_long_is_read(excess: float, is_read: bool, tmp_path: Path) -> None:
    turn = np.array([0.6, 0.64, 0.48])
    turn *= (1 + excess) / np.linalg.norm(turn)
    path = _altered(tmp_path / "a.nii", sform=False, offset=256, value=struct.pack("<3f", *turn))
    if is_read:
        assert read_nifti(path).affine is not None
    else:
        with pytest.raises(ImageError, match="header is broken"):
            read_nifti(path)


# -- compressed files


@pytest.mark.parametrize("kind", ["dcm", "png", "tif", "csv"])
def test_gzipped_files_are_named_as_such(kind: str, tmp_path: Path) -> None:
    plain = tmp_path / f"a.{kind}"
    if kind == "dcm":
        write(plain, np.zeros((8, 8), np.uint16))
    elif kind == "csv":
        plain.write_text("image\n")
    else:
        Pillow.fromarray(np.zeros((8, 8), np.uint8)).save(plain)
    packed = tmp_path / f"a.{kind}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(ImageError, match="compressed with gzip") as caught:
        read_image(packed)
    assert "gunzip" in str(caught.value)


# -- a picture with a third axis


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_nifti_picture_is_a_plane(ending: str, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 900, (40, 30, 1), dtype=np.int16)
    path = tmp_path / f"slice{ending}"
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), path)
    image = ImageReader(Preprocessor(size=32)).read(Case("c", "p", path))
    assert image.array.ndim == 3
    assert image.array.size == stored.size


def test_a_volume_is_still_none(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 9, 2), np.int16), np.eye(4)), path)
    with pytest.raises(ImageError, match="an image of 3 dimensions"):
        ImageReader(Preprocessor(size=32)).read(Case("c", "p", path))


# -- headers that contradict the bytes behind them


@pytest.mark.parametrize(
    ("offset", "value", "flags"),
    [
        (40, struct.pack("<h", 2), {"voxel_data_longer_than_declared_size"}),
        (42, struct.pack("<h", 9), {"voxel_data_longer_than_declared_size"}),
        (70, struct.pack("<h", 2),
         {"voxel_data_longer_than_declared_size", "bitpix_contradicts_datatype"}),
        (72, struct.pack("<h", 32), {"bitpix_contradicts_datatype"}),
        (42, struct.pack("<h", 10), set()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_the_voxels_contradict_is_flagged(
    offset: int, value: bytes, flags: set[str], packed: bool, tmp_path: Path
) -> None:
    path = _altered(tmp_path / "a.nii", sform=True, offset=offset, value=value)
    if packed:
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "a.nii.gz"
    contradictions = {"voxel_data_longer_than_declared_size", "bitpix_contradicts_datatype"}
    assert contradictions & {*read_nifti(path).flags} == flags


@pytest.mark.parametrize("start", [0, 348, 351])
def test_voxels_inside_the_header_are_refused(start: int, tmp_path: Path) -> None:
    value = struct.pack("<f", start)
    with pytest.raises(ImageError, match=f"start inside the header, at byte {start}"):
        read_nifti(_altered(tmp_path / "a.nii", sform=True, offset=108, value=value))


# -- JPEG of kinds that no camera writes


@pytest.mark.parametrize("kind", ["12 bits", "lossless", "JPEG-LS"])
def test_a_whole_jpeg_of_another_kind_is_not_called_truncated(kind: str, tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 4096, (40, 48)).astype(np.uint16)
    stored = {
        "12 bits": lambda: imagecodecs.jpeg8_encode(film, bitspersample=12),
        "lossless": lambda: imagecodecs.jpeg8_encode(film, lossless=True, bitspersample=12),
        "JPEG-LS": lambda: imagecodecs.jpegls_encode(film),
    }[kind]()
    (tmp_path / "a.jpg").write_bytes(stored)
    with pytest.raises(ImageError, match=r"a JPEG(-LS)? of 1[26] bits") as caught:
        read_image(tmp_path / "a.jpg")
    assert "truncated" not in str(caught.value)
    (tmp_path / "b.jpg").write_bytes(imagecodecs.jpeg8_encode((film >> 4).astype(np.uint8))[:300])
    with pytest.raises(ImageError, match="truncated"):
        read_image(tmp_path / "b.jpg")


# -- masks beside pictures


CORNER = np.zeros((40, 40), np.uint8)
CORNER[2:5, 10:30] = 1


@pytest.fixture
def film(tmp_path: Path) -> Path:
    Pillow.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)).save(tmp_path / "film.png")
    return tmp_path / "film.png"


def test_a_square_nifti_mask_of_a_picture_is_refused(film: Path, tmp_path: Path) -> None:
    """Columns first as ITK writes it, or rows first: one of them would be a transposed truth."""
    image = read_image(film)
    for stored in (CORNER, CORNER.T):
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "mask.nii")
        with pytest.raises(ImageError, match="a square NIfTI mask of a PNG picture"):
            read_mask(tmp_path / "mask.nii", image, labels={1: "lung"})
    symmetric = CORNER | CORNER.T
    nibabel.save(nibabel.Nifti1Image(symmetric, np.eye(4)), tmp_path / "mask.nii")
    mask = read_mask(tmp_path / "mask.nii", image, labels={1: "lung"})
    np.testing.assert_array_equal(mask.array, symmetric)
    Pillow.fromarray(CORNER).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", image, labels={1: "lung"})
    np.testing.assert_array_equal(mask.array, CORNER)


def test_a_film_without_a_place_is_a_picture_too(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(CORNER, np.eye(4)), tmp_path / "mask.nii")
    film = read_image(write(tmp_path / "film.dcm", CORNER, PixelSpacing=[1, 1]))
    with pytest.raises(ImageError, match="a square NIfTI mask of a DICOM picture"):
        read_mask(tmp_path / "mask.nii", film, labels={1: "lung"})
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 0]}
    placed = read_image(write(tmp_path / "b.dcm", CORNER, PixelSpacing=[1, 1], **place))
    by_itk = nibabel.Nifti1Image(CORNER.T, np.diag([-1.0, -1, 1, 1]))
    nibabel.save(by_itk, tmp_path / "mask.nii")
    mask = read_mask(tmp_path / "mask.nii", placed, labels={1: "lung"})
    np.testing.assert_array_equal(mask.array, CORNER)


def test_exchanged_rows_and_columns_are_named(film: Path, tmp_path: Path) -> None:
    wide = np.zeros((30, 40), np.uint8)
    Pillow.fromarray(wide).save(tmp_path / "wide.png")
    nibabel.save(nibabel.Nifti1Image(wide.T, np.eye(4)), tmp_path / "mask.nii")
    with pytest.raises(ImageError, match="Rows and columns are exchanged"):
        read_mask(tmp_path / "mask.nii", read_image(tmp_path / "wide.png"))
    with pytest.raises(ImageError, match="Name the mask that was drawn"):
        read_mask(tmp_path / "mask.nii", read_image(film))


def test_a_mask_of_one_slice_is_a_plane(tmp_path: Path) -> None:
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 7]}
    image = read_image(write(tmp_path / "a.dcm", CORNER, PixelSpacing=[1, 1], **place))
    affine = np.diag([-1.0, -1, 1, 1])
    affine[2, 3] = 7
    nibabel.save(nibabel.Nifti1Image(CORNER.T[..., None], affine), tmp_path / "mask.nii")
    mask = read_mask(tmp_path / "mask.nii", image, labels={1: "lung"})
    np.testing.assert_array_equal(mask.array, CORNER)
    both = np.dstack([CORNER.T, CORNER.T])
    nibabel.save(nibabel.Nifti1Image(both, affine), tmp_path / "mask.nii")
    with pytest.raises(ImageError, match="shape mismatch"):
        read_mask(tmp_path / "mask.nii", image, labels={1: "lung"})


@pytest.mark.parametrize("white", [255, 65535])
def test_white_is_one_structure_in_8_and_16_bits(white: int, tmp_path: Path) -> None:
    kind = np.uint8 if white == 255 else np.uint16
    Pillow.fromarray(CORNER.astype(kind) * kind(white)).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", labels={1: "lung"})
    np.testing.assert_array_equal(mask.array, CORNER)
    assert f"{white} read as label 1" in mask.notes
    if white == 65535:
        Pillow.fromarray(CORNER.astype(kind) * kind(300)).save(tmp_path / "mask.png")
        with pytest.raises(ImageError, match="unknown label 300"):
            read_mask(tmp_path / "mask.png", labels={1: "lung"})


@pytest.mark.parametrize("kind", [bool, np.uint8])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_white_is_zero_is_said(kind: type, photometric: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CORNER.astype(kind), photometric=photometric)
    is_said = "inverted white-is-zero" in read_image(tmp_path / "a.tif").notes
    assert is_said == (photometric == "miniswhite")
