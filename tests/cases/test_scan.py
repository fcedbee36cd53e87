from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from make_dicom import header, save, write
from pydicom.dataset import Dataset

from medtl.cases.columns import Columns
from medtl.cases.intake import scan as module
from medtl.cases.intake.scan import COLUMNS, ScanResult, scan_dicom
from medtl.cases.manifest import read_manifest, write_manifest
from medtl.cases.pseudonyms import pseudonym
from medtl.errors import ImageError, ManifestError, RunError

SALT = b"s" * 32
PIXELS = np.zeros((3, 4), np.uint16)
SR = "1.2.840.10008.5.1.4.1.1.88.11"


def series(folder: Path, uid: str, count: int, **elements: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        write(folder / f"{uid[-1]}_{i}.dcm", PIXELS, SeriesInstanceUID=uid, **elements)


def scan(root: Path, **options: object) -> ScanResult:
    return scan_dicom(root, salt=SALT, **options)


def test_a_row_holds_pseudonyms_and_allowed_facts(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    elements = {
        "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.2",
        "StudyDate": "20200101",
        "PatientBirthDate": "19340219",
        "PatientAge": "045Y",
        "PatientSex": "F",
        "Modality": "DX",
        "ViewPosition": "PA",
        "Laterality": "L",
        "BodyPartExamined": "CHEST",
        "Manufacturer": "SYNTH",
        "ManufacturerModelName": "M 1",
        "PixelSpacing": [0.5, 0.25],
        "BurnedInAnnotation": "NO",
        "InstitutionName": "CANARY HOSPITAL",
        "AccessionNumber": "CANARYACC",
    }
    write(tmp_path / "s" / "a.dcm", PIXELS, **elements)
    result = scan(tmp_path)
    assert result.rows == (
        {
            "image": "s/a.dcm",
            "patient_id": pseudonym("patient", "CANARYID", SALT),
            "study_id": pseudonym("study", "1.2.1", SALT),
            "series_id": pseudonym("series", "1.2.2", SALT),
            "modality": "DX",
            "view": "PA",
            "body_part": "CHEST",
            "laterality": "L",
            "age": "45",
            "sex": "F",
            "rows": "3",
            "columns": "4",
            "frames": "",
            "photometric": "MONOCHROME2",
            "bits_stored": "16",
            "spacing": "0.5\\0.25",
            "manufacturer": "SYNTH",
            "model": "M 1",
            "burned_in": "NO",
        },
    )
    assert result.skipped == ()
    assert set(result.identities.values()) == {"CANARYID", "1.2.1", "1.2.2"}
    assert "CANARY" not in repr(result)


@pytest.mark.parametrize(
    ("elements", "age"),
    [
        ({"PatientAge": "093Y"}, "90+"),
        ({"PatientAge": "006M"}, "0.5"),
        ({"PatientAge": "old"}, ""),
        ({}, ""),
        ({"PatientBirthDate": "20000229", "StudyDate": "20200228"}, "19"),
        ({"PatientBirthDate": "20000229", "StudyDate": "20200229"}, "20"),
        ({"PatientBirthDate": "19200101", "StudyDate": "20200101"}, "90+"),
        ({"PatientBirthDate": "20210101", "StudyDate": "20200101"}, ""),
        ({"PatientBirthDate": "20000229"}, ""),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_ages_are_years_in_bands(tmp_path: Path, elements: dict[str, str], age: str) -> None:
    write(tmp_path / "a.dcm", PIXELS, **elements)
    assert scan(tmp_path).rows[0]["age"] == age


def test_missing_ids_stay_empty_and_are_not_merged_into_one_patient(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", PIXELS, PatientID=None)
    write(tmp_path / "b.dcm", PIXELS, PatientID="  ")
    assert [row["patient_id"] for row in scan(tmp_path).rows] == ["", ""]


def test_an_id_that_cannot_be_read_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(dataset: Dataset, keyword: str) -> object:
        if keyword == "PatientID":
            raise ImageError("cannot be read")
        return dataset.get(keyword)

    monkeypatch.setattr(module, "value", broken)
    write(tmp_path / "a.dcm", PIXELS)
    assert scan(tmp_path).rows[0]["patient_id"] == ""


def test_what_is_no_image_is_named_with_the_cause(tmp_path: Path) -> None:
    write(tmp_path / "good.dcm", PIXELS)
    (tmp_path / "notes.txt").write_text("CANARY")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "good.dcm").read_bytes()[:140])
    save(tmp_path / "report.dcm", header(PIXELS, SOPClassUID=SR))
    save(tmp_path / "private.dcm", header(PIXELS, SOPClassUID="1.2.3.999"))
    directory = header(PIXELS, DirectoryRecordSequence=[])
    save(tmp_path / "DICOMDIR", directory)
    write(tmp_path / "rows.dcm", PIXELS, Rows=None)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link.dcm").symlink_to(tmp_path / "good.dcm")
    result = scan(tmp_path)
    assert [row["image"] for row in result.rows] == ["good.dcm"]
    causes = dict(result.skipped)
    assert sorted(causes) == sorted(set(os.listdir(tmp_path)) - {"good.dcm"})
    assert causes["report.dcm"] == "no pixel data (Basic Text SR Storage)"
    assert causes["private.dcm"] == "no pixel data"
    assert causes["DICOMDIR"] == "a DICOMDIR, an index of images and no image itself"
    assert causes["rows.dcm"] == "Rows (0028,0010) is missing or empty"
    assert causes["notes.txt"] == "not a DICOM file"
    assert "the file is empty" in causes["Thumbs.db"]
    assert causes["loop"] == causes["link.dcm"] == "a link, which a scan does not follow"
    assert "CANARY" not in str(causes)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    assert scan(tmp_path).skipped == (("pipe.dcm", "not a regular file"),)


def test_a_series_is_a_folder_or_its_only_file(tmp_path: Path) -> None:
    series(tmp_path / "p1" / "t1", "1.2.1", 3)
    series(tmp_path / "p1" / "mixed", "1.2.2", 2)
    series(tmp_path / "p1" / "mixed", "1.2.3", 1)
    series(tmp_path, "1.2.4", 2)
    result = scan(tmp_path, per="series")
    assert [(row["image"], row["images"]) for row in result.rows] == [
        ("p1/mixed/3_0.dcm", "1"),
        ("p1/t1", "3"),
    ]
    assert result.skipped == (
        (".", "a series that lies in the scanned folder itself"),
        ("p1/mixed", "2 files of a series that shares its folder with others"),
    )
    assert len(scan(tmp_path).rows) == 8


def test_the_rows_are_a_manifest(tmp_path: Path) -> None:
    series(tmp_path / "a", "1.2.1", 2)
    series(tmp_path / "b", "1.2.2", 2, PatientID="other")
    result = scan(tmp_path, per="series")
    write_manifest(result.rows, tmp_path / "manifest.csv")
    one = read_manifest(tmp_path / "manifest.csv", Columns(ids="pseudonymous"), salt=SALT)
    assert [case.patient_id for case in one.cases] == [row["patient_id"] for row in result.rows]
    assert [case.image.name for case in one.cases] == ["a", "b"]


def test_progress_counts_every_file(tmp_path: Path) -> None:
    series(tmp_path, "1.2.1", 3)
    seen: list[tuple[int, int]] = []
    scan(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_several_processes_give_the_same_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path / "a", "1.2.1", 6)
    series(tmp_path / "b", "1.2.2", 6)
    (tmp_path / "a" / "x.txt").write_text("x")
    monkeypatch.setattr(module, "_CHUNK", 2)
    assert scan(tmp_path, workers=2) == scan(tmp_path, workers=1)


def test_a_worker_that_dies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path, "1.2.1", 8)
    monkeypatch.setattr(module, "_CHUNK", 2)

    class Dying(module.ProcessPoolExecutor):
        def map(self, *_: object, **__: object) -> object:
            raise BrokenProcessPool

    monkeypatch.setattr(module, "ProcessPoolExecutor", Dying)
    with pytest.raises(RunError, match=r"was killed.*fewer workers"):
        scan(tmp_path, workers=2)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"^none: there is no such folder"):
        scan(tmp_path / "none")
    assert scan(tmp_path) == ScanResult((), (), {})


def test_real_series(shared: Path) -> None:
    result = scan(shared / "data" / "mri_dicom_series", per="series")
    assert [row["images"] for row in result.rows] == ["32", "22", "35", "40"]
    assert {row["modality"] for row in result.rows} == {"MR"}


def test_the_corpus_shows_no_canary(shared: Path) -> None:
    root = shared / "corpus" / "dicom"
    result = scan(root)
    assert len(result.rows) >= 45
    assert set(result.rows[0]) == {"image", "patient_id", "study_id", "series_id", *COLUMNS}
    assert "CANARY" not in repr(result)
    ages = {row["image"]: row["age"] for row in result.rows if "age_formats" in row["image"]}
    assert list(ages.values())[:2] == ["45", "0.5"]


@pytest.mark.parametrize("pair", [("P3", "p3"), ("12", "0012"), ("A-7", "A7"), ("P3", "P4")])
def test_two_spellings_of_a_patient_are_said(tmp_path: Path, pair: tuple[str, str]) -> None:
    """Pseudonyms hide what the manifest would see: one person in training and in test."""
    for number, patient in enumerate(pair):
        write(tmp_path / f"{number}.dcm", PIXELS, PatientID=patient, SOPInstanceUID=f"1.{number}")
    found = scan(tmp_path)
    assert len({row["patient_id"] for row in found.rows}) == 2
    said = [note for note in found.notes if "in several spellings" in note]
    assert bool(said) == (pair[1] != "P4")
    assert not said or "0.dcm, 1.dcm" in said[0]
    assert "A-7" not in " ".join(found.notes)


@pytest.mark.parametrize("word", ["ANONYMOUS", "unknown", "N/A", "####"])
def test_a_word_for_missing_is_no_patient(tmp_path: Path, word: str) -> None:
    for number, patient in enumerate([word, word, "P1"]):
        write(tmp_path / f"{number}.dcm", PIXELS, PatientID=patient, SOPInstanceUID=f"1.{number}")
    found = scan(tmp_path)
    assert [row["patient_id"] for row in found.rows] == ["", "", pseudonym("patient", "P1", SALT)]
    assert word not in found.identities.values()
