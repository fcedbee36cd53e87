"""Files that are not what they say, and files that were made to do harm.

Each is read by its content and that is said, or refused with the cause named; never without a word.
"""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pytest
from make_dicom import write
from PIL import Image as Pillow

from medtl.errors import ImageError
from medtl.io.archive import archive_error
from medtl.io.png import oversized_part
from medtl.io.read import read_image
from medtl.storage.content import content_of, is_pickle

FILM = np.random.default_rng(0).integers(0, 255, (48, 50), dtype=np.uint8)
ZEROS = bytes(80 << 20)


def raster(kind: str) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(FILM).save(buffer, kind)
    return buffer.getvalue()


def nifti(shape: tuple[int, ...] = (4, 5, 3)) -> bytes:
    image = nibabel.Nifti1Image(np.arange(np.prod(shape)).reshape(shape).astype("i2"), np.eye(4))
    return image.to_bytes()


def dicom(folder: Path) -> bytes:
    return write(folder / "made", FILM.astype(np.uint16)).read_bytes()


def zipped(name: str = "a.dcm", data: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


# -- content that is not what its ending says: read, and said


@pytest.mark.parametrize("ending", [".dcm", ".jpg", ".tif", ".nii"])
def test_png_under_another_ending_is_read_and_said(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(raster("PNG"))
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], FILM)
    assert f"content_is_PNG_not_as_its_ending_{ending}_says" in image.flags
    assert f"the name ends in {ending}, the content is PNG" in " ".join(image.notes)


@pytest.mark.parametrize(
    ("name", "make", "content"),
    [
        ("a.png", dicom, "DICOM"),
        ("a.jpeg", dicom, "DICOM"),
        ("a.png", lambda _: raster("JPEG"), "JPEG"),
        ("a.dcm", lambda _: raster("JPEG"), "JPEG"),
        ("a.PNG", lambda _: raster("TIFF"), "TIFF"),
        ("a.png", lambda _: nifti(), "NIfTI"),
        ("a.dcm", lambda _: gzip.compress(nifti()), "NIfTI"),
        ("a.csv", lambda _: raster("PNG"), "PNG"),
    ],
)
def test_every_format_under_another_ending_is_said(
    name: str, make: Callable[[Path], bytes], content: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(make(tmp_path))
    flags = read_image(tmp_path / name).flags
    assert any(flag.startswith(f"content_is_{content}_not_as") for flag in flags), flags


@pytest.mark.parametrize("name", ["a.dcm", "a.ima", "a", "1.2.840.1", "a.dat", "A.DCM"])
def test_usual_names_of_dicom_files_are_not_remarked(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(dicom(tmp_path))
    assert not [flag for flag in read_image(tmp_path / name).flags if "ending" in flag]


def test_a_gzip_stream_without_gz_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(gzip.compress(nifti()))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(nifti()))
    assert "gzip_compressed_but_not_named_gz" in read_image(tmp_path / "a.nii").flags
    assert read_image(tmp_path / "b.nii.gz").flags == ()


# -- other content: refused, and named


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"<!DOCTYPE html><html>Login</html>", "an HTML page"),
        (b"\n <html><body>404</body></html>", "an HTML page"),
        (b'{"error": "not authorised"}', "a JSON text"),
        (b"<?xml version='1.0'?><a/>", "an XML file"),
        (b"see the PACS\n" * 30, "a text file"),
        (b"%PDF-1.7\n" + bytes(300), "a PDF document"),
        (zipped(), "a zip archive"),
        (b"Rar!\x1a\x07\x01\0" + bytes(300), "a RAR archive"),
        (bz2.compress(b"abc"), "a bzip2 stream"),
        (b"GIF89a" + bytes(90), "GIF"),
        (b"RIFF\0\0\0\0WEBPVP8 " + bytes(90), "WebP"),
        (bytes(4000), "zero bytes only"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"NRRD0004\n" + bytes(400), "NRRD"),
        (b"\x93NUMPY\x01\0" + bytes(90), "a NumPy array"),
        (b"\x89HDF\r\n\x1a\n" + bytes(400), "an HDF5 file"),
        (pickle.dumps({"a": 1}, 2), "a Python pickle"),
        (pickle.dumps([np.zeros(3)], 5), "a Python pickle"),
        (pickle.dumps({"a": 1}, 0), "a Python pickle"),
        (bytes(imagecodecs.jpeg2k_encode(FILM)), "JPEG 2000"),
    ],
)
@pytest.mark.parametrize("name", ["a.dcm", "a.png", "a.nii.gz"])
def test_other_content_is_refused_by_its_name(
    content: bytes, named: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"{name}: not an image.*by its content it is {named}"):
        read_image(tmp_path / name)


def test_content_is_told_of_what_is_an_image_too() -> None:
    assert [content_of(raster(kind)) for kind in ("PNG", "JPEG", "TIFF")] == ["PNG", "JPEG", "TIFF"]
    assert content_of(nifti()) == "NIfTI"
    assert content_of(b"") == content_of(bytes(range(1, 200))) == ""
    assert not is_pickle(b"image,label\n")
    assert not is_pickle(raster("JPEG"))


@pytest.mark.parametrize(
    ("inside", "named"), [(raster("PNG"), "holds PNG"), (gzip.compress(b"x"), "a gzip stream")]
)
def test_compressed_files_are_told_by_what_they_hold(
    inside: bytes, named: str, tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(gzip.compress(inside))
    with pytest.raises(ImageError, match=f"compressed with gzip, and .*{named}.*gunzip"):
        read_image(tmp_path / "a.dcm")


# -- bombs


def test_a_gzip_bomb_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(ZEROS))
    with pytest.raises(ImageError, match=r"a gzip bomb: \d+ compressed bytes.*\(\d+ times\)"):
        read_image(tmp_path / "a.nii.gz")


def test_a_bomb_behind_the_last_voxel_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti() + ZEROS))
    with pytest.raises(ImageError, match=r"a gzip bomb: .* behind the last voxel"):
        read_image(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(nifti() + bytes(1000)))
    assert read_image(tmp_path / "b.nii.gz").array.shape == (1, 4, 5, 3)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = zlib.compress(bytes(8 << 20), 9)


@pytest.mark.parametrize(
    "part",
    [
        chunk(b"zTXt", b"Comment\0\0" + BOMB),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
        chunk(b"iTXt", b"Comment\0\1\0de\0Titel\0" + BOMB),
        chunk(b"iCCP", b"profile\0\0" + BOMB),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000))) * 80,
    ],
)
@pytest.mark.parametrize("place", [33, -12])
def test_a_bomb_in_a_png_text_is_called_one(part: bytes, place: int, tmp_path: Path) -> None:
    png = raster("PNG")
    if place == -12 and part[4:8] == b"iCCP":
        pytest.skip("a profile behind the pixels is passed over")
    path = tmp_path / "a.png"
    path.write_bytes(png[:place] + part + png[place:])
    with pytest.raises(ImageError, match=r"a\.png: a decompression bomb: the .* chunk"):
        read_image(path)
    path.write_bytes(png[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"hello")) + png[33:])
    np.testing.assert_array_equal(read_image(path).array[0], FILM)


def test_more_pixels_than_the_picture_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = zlib.compress(bytes(64 << 20), 9)
    path.write_bytes(raster("PNG")[:33] + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    with pytest.raises(ImageError, match="more behind the last row, as in a decompression bomb"):
        read_image(path)


def test_files_without_parts_have_none_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(raster("JPEG"))
    assert oversized_part(tmp_path / "a.jpg") is None


def tarred(member: tarfile.TarInfo, data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def link() -> tarfile.TarInfo:
    member = tarfile.TarInfo("link")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc"
    return member


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (zipped("inner.zip"), "member 1 is an archive itself"),
        (zipped("a/inner.tar.gz"), "member 1 is an archive itself"),
        (zipped("..\\x.dcm"), "outside the folder"),
        (tarred(tarfile.TarInfo("../x")), "outside the folder"),
        (tarred(link()), "a link"),
        (gzip.compress(ZEROS), "as in a bomb"),
        (bz2.compress(ZEROS), "as in a bomb"),
        (gzip.compress(b"one file"), "it holds a single file"),
        (gzip.compress(b"one file")[:-9], "it is corrupt"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "it cannot be looked through"),
    ],
    # Compressed bytes hold the time: they cannot name a case in two test processes.
    ids=["zip", "tar", "backslash", "up", "link", "gz-bomb", "bz2-bomb", "gz", "cut", "7z"],
)
def test_archives_are_told_by_their_fault(data: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "d.bin").write_bytes(data)
    assert named in str(archive_error(tmp_path / "d.bin"))


def test_members_that_hide_each_other_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", b"2")
    assert "two members have one name" in str(archive_error(path))


def test_volumes_inside_an_archive_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "d.zip").write_bytes(zipped("brain.nii.gz"))
    assert "unsafe" not in str(archive_error(tmp_path / "d.zip"))


def test_overlapping_members_are_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "d.zip"
    data = zipped("a.dcm", np.random.default_rng(0).bytes(4000))
    at = data.index(b"PK\x01\x02")
    entry = data[at : data.index(b"PK\x05\x06")]
    names = [entry.replace(b"a.dcm", b"%05d" % number) for number in range(9)]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 9 * len(entry), at, 0)
    path.write_bytes(data[:at] + b"".join(names) + end)
    assert "overlap, as in a bomb" in str(archive_error(path))
