from __future__ import annotations

import hashlib
import hmac
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medtl.cases import pseudonyms as module
from medtl.cases.pseudonyms import band_age, load_salt, pseudonym, remember, whois
from medtl.errors import MedtlError

SALT = bytes(range(32))
POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_pseudonym_is_a_truncated_hmac() -> None:
    digest = hmac.new(SALT, b"patient\x00P000", hashlib.sha256).hexdigest()
    assert pseudonym("patient", "P000", SALT) == f"p-{digest[:12]}"


def test_pseudonyms_differ_by_text_kind_and_salt_and_by_nothing_else() -> None:
    kinds = ("patient", "case", "study", "series")
    names = [
        pseudonym(kind, text, SALT) for kind in kinds for text in ("7", "007", "07", " 7", "한")
    ]
    assert len({name.split("-")[1] for name in names}) == len(names)
    assert pseudonym("patient", "7", SALT) == names[0] != pseudonym("patient", "7", b"other")
    assert {name.split("-")[0] for name in names} == {"p", "c", "st", "se"}


@POSIX
def test_the_salt_is_made_once_secret_and_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "salt.bin"
    salt = load_salt(path)
    assert len(salt) == 32
    assert load_salt(path) == salt
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert os.listdir(path.parent) == ["salt.bin"]
    assert load_salt(tmp_path / "other.bin") != salt


def test_runs_that_start_together_get_the_same_salt(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        salts = set(pool.map(load_salt, [tmp_path / "salt.bin"] * 64))
    assert len(salts) == 1
    assert os.listdir(tmp_path) == ["salt.bin"]


@POSIX
def test_a_salt_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "salt.bin"
    load_salt(path)
    path.chmod(0o640)
    with pytest.raises(MedtlError, match=r"other users.*expected mode 0600.*chmod 600") as error:
        load_salt(path)
    assert str(tmp_path) not in str(error.value)


def test_a_damaged_salt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "salt.bin"
    load_salt(path)
    path.write_bytes(b"short")
    with pytest.raises(MedtlError, match="has 5 bytes; expected 32"):
        load_salt(path)


def test_a_data_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MedtlError, match="cannot be read or made") as error:
        load_salt(tmp_path / "file" / "salt.bin")
    assert str(tmp_path) not in str(error.value)


def test_by_default_the_salt_lies_in_the_data_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "data_folder", lambda: tmp_path)
    assert load_salt() == (tmp_path / "salt.bin").read_bytes()
    remember([("p-1", "P000")])
    assert whois("p-1") == "P000"


def test_the_data_folder_is_private_and_named_after_medtl() -> None:
    folder = module.data_folder()
    assert folder.name == "medtl"
    if os.name == "posix":
        assert mode(folder) == 0o700


def test_a_data_folder_below_a_file_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "file" / "x")
    with pytest.raises(MedtlError, match=r"cannot be read or made.*Make the folder writable"):
        load_salt()


@POSIX
def test_whois_gives_back_what_was_remembered(tmp_path: Path) -> None:
    assert whois("p-1", folder=tmp_path) is None
    remember([("p-1", "P000"), ("c-1", "images/한.png")], folder=tmp_path)
    remember([("p-2", "007"), ("p-1", "P000")], folder=tmp_path)
    assert [whois(name, folder=tmp_path) for name in ("p-1", "p-2", "c-1", "p-3")] == [
        "P000",
        "007",
        "images/한.png",
        None,
    ]
    assert mode(tmp_path / "pseudonyms.sqlite") == 0o600
    (tmp_path / "pseudonyms.sqlite").chmod(0o644)
    with pytest.raises(MedtlError, match="other users"):
        whois("p-1", folder=tmp_path)
    with pytest.raises(MedtlError, match="other users"):
        remember([("p-1", "P000")], folder=tmp_path)


def test_a_damaged_table_is_an_error_without_ids(tmp_path: Path) -> None:
    remember([("p-1", "P000")], folder=tmp_path)
    (tmp_path / "pseudonyms.sqlite").write_bytes(b"P000 is no database" * 100)
    for call in (lambda: whois("p-1", folder=tmp_path), lambda: remember([], folder=tmp_path)):
        with pytest.raises(MedtlError, match="cannot be read or made") as error:
            call()
        assert "P000" not in str(error.value)


@pytest.mark.parametrize(
    ("years", "band"),
    [("0", "0"), ("89", "89"), ("89.9", "89.9"), ("90", "90+"), ("104.0", "90+"), ("", "")],
)
def test_ages_above_89_become_one_band(years: str, band: str) -> None:
    assert band_age(years) == band


def test_a_group_of_ages_is_kept() -> None:
    groups = ["90+", "adult", "nan", "18-40", "60 to 89"]
    assert [band_age(text) for text in groups] == groups


@pytest.mark.parametrize(
    ("written", "band"),
    [
        ("058Y", "58"),
        ("095Y", "90+"),
        ("95Y", "90+"),
        ("95 years", "90+"),
        ("95,5", "90+"),
        ("1140M", "90+"),
        ("1140 Monate", "90+"),
        ("018M", "1.5"),
        ("6 months", "0.5"),
        ("14 Jahre", "14"),
        ("92세", "90+"),
        ("35歳", "35"),
        ("1e2", "90+"),
        ("born 1920", ""),
        ("95 or 96", ""),
        ("12 parsecs", "12 parsecs"),
    ],
)
def test_ages_are_read_as_people_and_dicom_write_them(written: str, band: str) -> None:
    assert band_age(written) == band
