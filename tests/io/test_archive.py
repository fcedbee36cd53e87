"""Archives of every sort: refused, nothing written, the worst fault named."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from medtl.cases.intake.discover import discover
from medtl.errors import MedtlError
from medtl.io.archive import archive_error, is_archive


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, "x")
    return path


def tarred(path: Path, *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, "/etc"
    return info


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["a.png"], "never unpacked here; expected"),
        (["a.png", "../../CANARY.txt"], "member 2 has a path that leads outside"),
        (["a\\..\\..\\b"], "member 1 has a path that leads outside"),
        (["/etc/passwd"], "member 1 has an absolute path"),
        (["C:/Windows/x"], "member 1 has an absolute path"),
    ],
)
def test_zip_files(tmp_path: Path, names: list[str], fault: str) -> None:
    path = zipped(tmp_path / "d.zip", *names)
    with pytest.raises(MedtlError, match=fault) as error:
        discover(path)
    assert "CANARY" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_a_zip_file(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr(info, "/etc")
    assert "is a link" in str(archive_error(tmp_path / "d.zip"))


def test_a_zip_bomb_is_seen_by_its_directory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(257 << 20))
    assert "beyond the limit" in str(archive_error(tmp_path / "d.zip"))


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([member("a/b.dcm", size=10)], "never unpacked here; expected"),
        ([member("../b")], "leads outside"),
        ([member("/b")], "absolute path"),
        ([member("a", tarfile.SYMTYPE)], "is a link or a device"),
        ([member("a", tarfile.LNKTYPE)], "is a link or a device"),
        ([member("a", tarfile.CHRTYPE)], "is a link or a device"),
        ([member("a", tarfile.FIFOTYPE)], "is a link or a device"),
    ],
)
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_files(tmp_path: Path, members: list[tarfile.TarInfo], fault: str, mode: str) -> None:
    path = tarred(tmp_path / "d.tar", *members, mode=mode)
    assert is_archive(path)
    with pytest.raises(MedtlError, match=fault):
        discover(path)


def test_a_tar_bomb_is_seen_by_the_size_that_a_member_declares(tmp_path: Path) -> None:
    """The member is cut off: its gigabyte is not even there."""
    path = tmp_path / "d.tar.gz"
    path.write_bytes(gzip.compress(member("zeros", size=1 << 40).tobuf()))
    assert "beyond the limit" in str(archive_error(path))


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04", b"\x1f\x8b\x08", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a"]
)
def test_what_cannot_be_looked_through_is_refused_all_the_same(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(data)
    with pytest.raises(MedtlError, match="never unpacked here"):
        discover(path)


def test_a_text_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label\n")
    assert not is_archive(tmp_path / "a.csv")
