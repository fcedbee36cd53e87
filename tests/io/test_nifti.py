"""NIfTI: voxels, geometry and damage, with nibabel as the independent reader."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from medtl.errors import ImageError
from medtl.io.cost import Limits
from medtl.io.nifti import read_nifti

VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 50
LAS = np.array([[-2.0, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])


def written(path, voxels=VOLUME, affine=LAS, change=None, kind=nibabel.Nifti1Image):
    """Write a NIfTI file with nibabel; `change` may edit the image first."""
    image = kind(voxels, affine)
    image.header.set_xyzt_units("mm")
    if change is not None:
        change(image)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr", "a.nii.odd.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image], ids=["1", "2"])
def test_voxels_and_geometry_are_kept(tmp_path, name, kind):
    if name == "a.hdr":
        kind = {nibabel.Nifti1Image: nibabel.Nifti1Pair, nibabel.Nifti2Image: nibabel.Nifti2Pair}[
            kind
        ]
    target = tmp_path / (name if name != "a.nii.odd.gz" else "a.nii.gz")
    image = read_nifti(written(target, kind=kind))
    np.testing.assert_array_equal(image.array[0], VOLUME)
    np.testing.assert_allclose(image.affine, LAS)
    assert image.spacing == (2.0, 3.0, 4.0)
    assert image.array.flags.c_contiguous
    assert image.flags == ()


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
def test_values_agree_with_nibabel_for_every_type(tmp_path, kind):
    voxels = (VOLUME + 50).astype(kind)
    path = tmp_path / "a.nii"
    image = nibabel.Nifti1Image(voxels, LAS)
    image.header.set_data_dtype(voxels.dtype)
    nibabel.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, -7], "<f4").tobytes()
    path.write_bytes(raw)
    np.testing.assert_allclose(read_nifti(path).array[0], nibabel.load(path).get_fdata(), atol=1e-6)
    np.testing.assert_allclose(read_nifti(path).array[0], (VOLUME + 50) * 0.5 - 7)


def test_a_slice_keeps_its_place_in_the_patient(tmp_path):
    path = written(tmp_path / "a.nii.gz")
    image = read_nifti(path, frame=3)
    np.testing.assert_array_equal(image.array[0], VOLUME[:, :, 3])
    assert image.spacing == (2.0, 3.0)
    np.testing.assert_allclose(image.affine @ [1, 2, 0, 1], LAS @ [1, 2, 3, 1])
    with pytest.raises(ImageError, match="slice 6 is asked for; expected 0 to 5"):
        read_nifti(path, frame=6)


def test_the_fourth_dimension_comes_first_and_single_ones_go(tmp_path):
    four = np.stack([VOLUME, VOLUME + 1], axis=-1)
    image = read_nifti(written(tmp_path / "a.nii", four))
    np.testing.assert_array_equal(image.array, [VOLUME, VOLUME + 1])
    assert "fourth_dimension_as_channels" in image.flags
    one = read_nifti(written(tmp_path / "a.nii", four), frame=2)
    np.testing.assert_array_equal(one.array, image.array[..., 2])
    assert one.array.shape == (2, 4, 5)
    assert read_nifti(written(tmp_path / "b.nii", VOLUME[..., None, None])).array.shape == (
        1,
        4,
        5,
        6,
    )
    flat = read_nifti(written(tmp_path / "c.nii", VOLUME[:, :, 0]))
    assert flat.array.shape == (1, 4, 5)
    assert flat.spacing == (2.0, 3.0)


def test_rgb_voxels_become_channels(tmp_path):
    voxels = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    voxels["G"] = 7
    image = read_nifti(written(tmp_path / "a.nii", voxels))
    assert image.array.shape == (3, 2, 2, 2)
    np.testing.assert_array_equal(image.array[:, 0, 0, 0], [0, 7, 0])


def test_contradicting_missing_and_singular_forms_are_flagged(tmp_path):
    def conflict(image):
        image.set_qform(np.diag([2.0, 3, 4, 1]), code=1)
        image.set_sform(LAS, code=1)

    def nothing(image):
        image.set_qform(LAS, code=0)
        image.set_sform(LAS, code=0)

    assert "sform_qform_conflict" in read_nifti(written(tmp_path / "a.nii", change=conflict)).flags
    image = read_nifti(written(tmp_path / "b.nii", change=nothing))
    assert image.affine is None
    assert image.spacing == (2.0, 3.0, 4.0)
    assert "orientation_unknown_no_usable_sform_or_qform" in image.flags
    path = written(tmp_path / "c.nii")
    raw = bytearray(path.read_bytes())
    raw[280:328] = bytes(48)
    path.write_bytes(raw)
    assert "sform_affine_singular" in read_nifti(path).flags


def test_lengths_in_metres_become_millimetres(tmp_path):
    def metres(image):
        image.header.set_xyzt_units("meter")

    image = read_nifti(
        written(tmp_path / "a.nii", affine=LAS / 1000 + np.diag([0, 0, 0, 0.999]), change=metres)
    )
    np.testing.assert_allclose(image.spacing, (2.0, 3.0, 4.0))
    np.testing.assert_allclose(image.affine, LAS, atol=1e-5)
    assert "spacing_converted_to_mm" in image.flags


def test_a_wrong_checksum_behind_the_last_voxel_is_seen(tmp_path):
    path = written(tmp_path / "a.nii.gz")
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(ImageError, match="corrupt"):
        read_nifti(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_truncated_file_is_refused(tmp_path, name):
    path = written(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError, match="truncated"):
        read_nifti(path)


def test_more_voxels_than_the_file_holds_are_refused_before_reading(tmp_path):
    path = written(tmp_path / "a.nii.gz")
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[42:48] = np.array([600, 600, 600], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(ImageError, match="compressed bytes inflate to"):
        read_nifti(path)
    raw[42:48] = np.array([32000, 32000, 32000], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(ImageError, match="expected at most the limit"):
        read_nifti(path)


def test_a_bomb_behind_the_voxels_is_refused(tmp_path):
    path = written(tmp_path / "a.nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(3 << 20)))
    assert read_nifti(path).array.shape == (1, 4, 5, 6)
    with pytest.raises(ImageError, match="compressed bytes inflate to"):
        read_nifti(path, limits=Limits(inflate_free_bytes=1 << 20))


def test_what_is_no_real_volume_is_refused(tmp_path):
    with pytest.raises(ImageError, match="complex"):
        read_nifti(written(tmp_path / "c.nii", VOLUME.astype(np.complex64)))
    with pytest.raises(ImageError, match="5 dimensions"):
        read_nifti(written(tmp_path / "d.nii", np.zeros((2, 2, 2, 2, 2), np.float32)))
    pair = written(tmp_path / "e.hdr", kind=nibabel.Nifti1Pair)
    (tmp_path / "e.img").unlink()
    with pytest.raises(ImageError, match=r"the \.img file of this \.hdr is missing"):
        read_nifti(pair)
    (tmp_path / "f.nii").write_bytes(bytes(400))
    with pytest.raises(ImageError, match="not a NIfTI file"):
        read_nifti(tmp_path / "f.nii")


def test_a_plain_file_named_gz_is_read_and_flagged(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(written(tmp_path / "b.nii").read_bytes())
    image = read_nifti(path)
    np.testing.assert_array_equal(image.array[0], VOLUME)
    assert "named_gz_but_not_gzip_compressed" in image.flags


def test_an_unknown_unit_is_taken_as_millimetres(tmp_path):
    path = written(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    raw[123] = 6 | 160  # neither code exists: nibabel itself raises KeyError for them
    path.write_bytes(raw)
    assert read_nifti(path).spacing == (2.0, 3.0, 4.0)
