from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from medtl.cases import paths, pseudonyms
from medtl.cases.columns import Columns
from medtl.cases.manifest import (
    check_manifest,
    manifest_columns,
    read_manifest,
    write_manifest,
)
from medtl.cases.pseudonyms import pseudonym
from medtl.errors import LeakError, ManifestError, MedtlError
from medtl.storage.tables import nearest, read_table
from medtl.types import Manifest

SALT = b"s" * 32
HEADER = "image,patient_id,label,split"


def folder(tmp_path: Path, *, images: int = 8) -> Path:
    """A data folder with empty image files a0.png, a1.png, ..."""
    (tmp_path / "images").mkdir(parents=True, exist_ok=True)
    for i in range(images):
        (tmp_path / "images" / f"a{i}.png").write_bytes(b"")
    return tmp_path


def write(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder(tmp_path) / "chest.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8", newline="")
    return path


def read(path: Path, **wanted: object) -> Manifest:
    columns = Columns(**{"targets": ["label"], **wanted})
    found = read_manifest(path, columns, salt=SALT)
    patients = len({case.patient_id for case in found.cases})
    assert check_manifest(path, columns, salt=SALT) == (len(found.cases), patients, found.notes)
    return found


def fault(path: Path, **wanted: object) -> str:
    columns = Columns(**{"targets": ["label"], **wanted})
    with pytest.raises(ManifestError) as error:
        read_manifest(path, columns, salt=SALT)
    assert str(path.parent) not in str(error.value)
    with pytest.raises(ManifestError) as checked:  # the quick look finds what reading finds
        check_manifest(path, columns, salt=SALT)
    assert (str(checked.value), type(checked.value)) == (str(error.value), type(error.value))
    return str(error.value)


GOOD = ("images/a0.png,P0,0,train", "images/a1.png,P0,1,train", "images/a2.png,P1,NA,test")


# ----------------------------------------------------------------- what comes out


def test_a_manifest(tmp_path: Path) -> None:
    one = read(write(tmp_path, *GOOD))
    first, _, third = one.cases
    assert first.case_id == pseudonym("case", "images/a0.png", SALT)
    assert first.patient_id == pseudonym("patient", "P0", SALT)
    assert first.image == tmp_path.resolve() / "images" / "a0.png"
    assert (first.split, first.row, first.mask, first.frame) == ("train", 2, None, None)
    assert third.targets == {"label": "NA"}
    assert first.strata == {}
    assert one.root == tmp_path.resolve()
    assert one.notes == ()


def test_texts_survive_as_they_are(tmp_path: Path) -> None:
    names = ["7", "07", "007", "1e3"]
    rows = [f"images/a{i}.png,P{i},{name}" for i, name in enumerate(names)]
    rows += ["images/a4.png,NA,None", "images/a5.png,nan,", 'images/a6.png,"x, ""y""\nz",TRUE']
    one = read(write(tmp_path, *rows, header="image,patient_id,label"))
    assert len({case.patient_id for case in one.cases}) == 7
    labels = [case.targets["label"] for case in one.cases]
    assert labels == ["7", "07", "007", "1e3", "None", "", "TRUE"]
    assert one.cases[-1].patient_id == pseudonym("patient", 'x, "y"\nz', SALT)


def test_rows_are_lines_of_the_file_also_after_a_quoted_newline(tmp_path: Path) -> None:
    path = write(tmp_path, 'images/a0.png,"P\n0",0,', "", ",,,", "images/a1.png,P1,0,")
    assert [case.row for case in read(path).cases] == [2, 6]


def test_optional_columns(tmp_path: Path) -> None:
    header = "image,patient_id,case_id,label,age,sex,lesion,frame"
    rows = ["images/a0.png,P0,K0,0,89,F,images/a5.png,0", "images/a0.png,P0,K1,0,93.5,M,,1"]
    path = write(tmp_path, *rows, header=header)
    one = read(path, strata=["sex", "age"], mask="lesion")
    assert [dict(case.strata) for case in one.cases] == [
        {"sex": "F", "age": "89"},
        {"sex": "M", "age": "90+"},
    ]
    assert [case.mask and case.mask.name for case in one.cases] == ["a5.png", None]
    assert [case.frame for case in one.cases] == [0, 1]
    assert one.cases[0].case_id == pseudonym("case", "K0", SALT)
    kept = read(path, ids="pseudonymous")
    assert [(case.case_id, case.patient_id) for case in kept.cases] == [("K0", "P0"), ("K1", "P0")]


def test_a_case_id_is_a_hash_of_path_and_frame(tmp_path: Path) -> None:
    rows = ["./images/../images/a0.png,P0,", "images/a0.png,P0,0", "images/a0.png,P0,1"]
    one = read(write(tmp_path, *rows, header="image,patient_id,frame"), targets=())
    assert one.cases[0].case_id == pseudonym("case", "images/a0.png", SALT)
    assert len({case.case_id for case in one.cases}) == 3


def test_a_free_column_may_be_named_almost_like_a_known_one(tmp_path: Path) -> None:
    path = write(tmp_path, "images/a0.png,P0,x", header="image,patient_id,Patient ID")
    assert read(path, targets=["Patient ID"]).cases[0].targets == {"Patient ID": "x"}


def test_one_image_per_patient_is_a_statement_of_the_user(tmp_path: Path) -> None:
    path = write(tmp_path, "images/a0.png,0", "images/a1.png,1", header="image,label")
    assert "state `one_image_per_patient: true`" in fault(path)
    one = read(path, one_image_per_patient=True)
    assert [case.patient_id for case in one.cases] == [case.case_id for case in one.cases]


def test_a_statement_that_the_table_denies_is_a_fault(tmp_path: Path) -> None:
    text = fault(write(tmp_path, *GOOD), one_image_per_patient=True)
    assert "row 3: duplicate patient_id: the one of row 2" in text


def test_a_folder_of_slices_is_an_image(tmp_path: Path) -> None:
    path = write(tmp_path, "images,P0,0,")
    assert read(path).cases[0].image == tmp_path.resolve() / "images"


@pytest.mark.parametrize("word", ["Training", "TRAIN", "train"])
def test_names_of_splits_are_understood(tmp_path: Path, word: str) -> None:
    rows = [f"images/a0.png,P0,0,{word}", "images/a1.png,P1,0,valid", "images/a2.png,P2,0,testing"]
    one = read(write(tmp_path, *rows))
    assert [case.split for case in one.cases] == ["train", "val", "test"]
    assert "the split 'valid' is read as val" in one.notes
    assert len(one.notes) == (3 if word == "Training" else 2)


def test_identical_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    one = read(write(tmp_path, *GOOD, GOOD[0], GOOD[1]))
    assert len(one.cases) == 3
    assert one.notes == ("2 duplicate rows left out (rows 5, 6)",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_delimiters_and_line_ends(
    tmp_path: Path, encoding: str, delimiter: str, end: str
) -> None:
    text = end.join([HEADER, "images/a0.png,한,0,train", "images/a1.png,P1,1,test"])
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    path = folder(tmp_path) / "chest.csv"
    path.write_bytes((mark + text.replace(",", delimiter)).encode(encoding))
    one = read(path)
    assert [case.row for case in one.cases] == [2, 3]
    assert one.cases[0].patient_id == pseudonym("patient", "한", SALT)
    assert manifest_columns(path) == HEADER.split(",")
    assert len(one.notes) == ("16" in encoding) + (delimiter != ",")


def test_parquet_gives_the_same_as_csv(tmp_path: Path) -> None:
    path = folder(tmp_path) / "chest.parquet"
    columns = {
        "image": ["images/a0.png", "images/a1.png", None],
        "patient_id": ["007", "8", None],
        "label": [1.0, float("nan"), None],
        "months": [7.5, None, None],
        "split": ["train", "test", None],
    }
    parquet.write_table(pyarrow.table(columns), path)
    one = read(path, targets=["label", "months"])
    assert [dict(case.targets) for case in one.cases] == [
        {"label": "1", "months": "7.5"},
        {"label": "", "months": ""},
    ]
    assert [case.row for case in one.cases] == [2, 3]
    assert manifest_columns(path) == list(columns)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(ManifestError, match=r"^chest\.parquet: not a Parquet file"):
        read(path)


# ------------------------------------------------------------------------- faults


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    rows = [
        "images/a0.png,P0,0,train",
        "images/none.png,P1,0,tset",
        "/etc/hostname,P2,0,train",
        "images/../../x.png,P3,0,train",
        "images/a1.png,,0,train",
        "images/a2.png,P4,0,trian",
        "images/a3.png,P5,0",
        "images/a4.png,P0,0,test",
        "images/a0.png,P0,1,train",
        ",P6,0,train",
    ]
    text = fault(write(tmp_path, *rows), targets=["label", "labell"], strata=["Split"])
    lines = text.splitlines()
    assert lines[0] == "chest.csv: 12 faults"
    for expected in (
        "no column 'labell'; expected one of: image, patient_id, label, split. Did you mean 'lab",
        "no column 'Split'; expected one of",
        "row 8: 3 fields; expected 4",
        "row 3: image: the file images/none.png is not found",
        "row 3: unknown split. Did you mean 'test'",
        "row 4: image: the path leads outside",
        "row 5: image: the path leads outside",
        "row 6: no patient_id",
        "row 7: unknown split. Did you mean 'train'",
        "row 10: the image of row 2 again, with conflicting label",
        "row 11: image: no path",
        f"leak: patient {pseudonym('patient', 'P0', SALT)} is in train (row 2) and in test (row 9)",
    ):
        assert sum(expected in line for line in lines) == 1, expected
    assert "hostname" not in text


def test_only_the_first_twenty_faults_are_written_out(tmp_path: Path) -> None:
    lines = fault(write(tmp_path, *[f"n{i}.png,P,0," for i in range(45)])).splitlines()
    assert lines[0] == "chest.csv: 45 faults"
    assert len(lines) == 22
    assert lines[-1] == "  - and 25 more."


@pytest.mark.parametrize(
    ("rows", "header", "match"),
    [
        ((), HEADER, "chest.csv: empty: no rows below the header"),
        ((), "", "the file is empty"),
        (GOOD, "Image,patient_id,label,split", "no column 'image'.*Did you mean 'Image'"),
        (GOOD, "file,patient_id,label,split", "one of: file, patient_id, label, split"),
        (GOOD, "image,PatientID,label,split", "column 'PatientID' is not read. Rename it to 'pat"),
        (GOOD, "image,patient_id,label,Split", "column 'Split' is not read. Rename it to 'split'"),
        (GOOD, "image,patient_id,label,label", "duplicate column 'label'"),
        (GOOD, "image,patient_id,label,", "column 4 has no name"),
        (("images/a0.png,P0,0,train", "images/a1.png,P1,0,"), HEADER, "row 3: no split, though"),
        (("images/a0.png,P0,0,x\0",), HEADER, "row 2: holds NUL bytes"),
        (GOOD, "image,patient_id,label\0,split", "the header holds NUL bytes"),
        (('images/a0.png,"P0,0,', GOOD[0]), HEADER, "row 2: the quotes do not match"),
        (('images/a0.png,"P0"x,0,',), HEADER, "row 2: the quotes do not match"),
        (
            GOOD,
            '"' + "x" * 200_000,
            "row 1: the quotes do not match .field larger than field limit",
        ),
        (("Kim Minsu,P0,0,",), HEADER, "row 2: image: the file is not found. Correct the path"),
        (("images\\zz.png,P0,0,",), HEADER, "row 2: image: the file images.* is not found"),
        (("C:\\a\\a0.png,P0,0,",), HEADER, "row 2: image: the path is absolute"),
        (("..,P0,0,",), HEADER, "outside"),
        (("images/..,P0,0,",), HEADER, "outside"),
        ((".,P0,0,",), HEADER, "outside"),
        (("x" * 300 + ".png,P0,0,",), HEADER, "the path cannot be used"),
        (("images/a0.png/x.png,P0,0,",), HEADER, "is not found"),
        (
            ("images/a0.png,P0,K,", "images/a1.png,P0,K,"),
            "image,patient_id,case_id,label",
            "row 3: d",
        ),
        (("images/a0.png,P0,,",), "image,patient_id,case_id,label", "row 2: no case_id"),
        (("images/a0.png,P0,0,-1",), "image,patient_id,label,frame", "frame is no whole number"),
        (("images/a0.png,P0,0,²",), "image,patient_id,label,frame", "frame is no whole number"),
        ((GOOD[0], "images/a0.png,P0,0,train,x"), HEADER, "row 3: 5 fields; expected 4"),
        (
            ("images/a0.png,P0,0,a", "images/a0.png,P0,0,b"),
            "image,patient_id,label,x",
            "again. Keep",
        ),
    ],
)
def test_one_fault(tmp_path: Path, rows: tuple[str, ...], header: str, match: str) -> None:
    assert re.search(match, fault(write(tmp_path, *rows, header=header)))


def test_no_message_shows_a_cell(tmp_path: Path) -> None:
    rows = [
        "images/a0.png,Kim^Minsu,Kim^Minsu,Kim^Minsu",
        "images/a0.png,Kim^Minsu,Lee^Jiu,train,x",
    ]
    rows += ["images/a0.png,Kim^Minsu,Lee^Jiu,train", "/home/kim^minsu/a.png,Kim^Minsu,0,test"]
    text = fault(write(tmp_path, *rows, "images/a1.png,Kim^Minsu,0,test"))
    assert "kim" not in text.casefold()
    assert "lee" not in text.casefold()


@pytest.mark.parametrize(
    "first",
    ["images/a0.png,Kim Minsu,1,train", "P1,Kim Minsu,1,Kim Minsu", "Kim^Minsu,x,label,Kim^Minsu"],
)
def test_a_table_without_a_header_is_not_quoted(tmp_path: Path, first: str) -> None:
    text = fault(write(tmp_path, *GOOD, header=first))
    assert "does not look like names" in text or "is no header" in text
    assert "Kim" not in text


def test_a_leak_alone_is_a_leak_error(tmp_path: Path) -> None:
    path = write(tmp_path, *GOOD, "images/a3.png,P0,0,test")
    name = pseudonym("patient", "P0", SALT)
    match = rf"^chest\.csv: leak: patient {name} is in train \(rows 2, 3\) and in test \(row 5\)"
    with pytest.raises(LeakError, match=match):
        read(path)
    with pytest.raises(LeakError, match="patient P0 is in train"):
        read(path, ids="pseudonymous")


def test_links_may_not_lead_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path = write(data, "images/in.png,P0,0,", "images/out.png,P1,0,", "linked/a.png,P2,0,")
    (tmp_path / "a.png").write_bytes(b"")
    (data / "images" / "in.png").symlink_to(data / "images" / "a0.png")
    (data / "images" / "out.png").symlink_to(tmp_path / "a.png")
    (data / "linked").symlink_to(tmp_path, target_is_directory=True)
    text = fault(path)
    assert "chest.csv: 2 faults" in text
    assert "row 3: image: the path leads outside" in text
    assert "row 4: image: the path leads outside" in text
    path.write_text(f"{HEADER}\nimages/in.png,P0,0,\nimages/a0.png,P0,1,\n")
    assert "row 3: the image of row 2 again, with conflicting label" in fault(path)


def test_a_folder_of_many_files_is_listed_once_and_its_links_still_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "data", images=40)
    (tmp_path / "a.png").write_bytes(b"")
    (data / "images" / "out.png").symlink_to(tmp_path / "a.png")
    rows = [f"images/a{i}.png,P{i},0," for i in range(40)]
    path = write(data, *rows, "images/out.png,P0,0,", "images/none.png,P1,0,", rows[0])
    text = fault(path)
    assert "row 42: image: the path leads outside" in text
    assert "row 43: image: the file images/none.png is not found" in text
    asked: list[str] = []
    real = os.lstat
    monkeypatch.setattr(paths.os, "lstat", lambda path: asked.append(str(path)) or real(path))
    found = read_manifest(write(data, *rows, rows[30]), Columns(targets=["label"]), salt=SALT)
    assert len(found.cases) == 40
    assert found.notes == ("1 duplicate rows left out (rows 42)",)
    images = [path for path in asked if "/images/a" in path]
    assert len(images) == paths._LISTED_AFTER  # those before the listing, and the one named twice


def test_an_absolute_path_below_the_manifest_is_accepted(tmp_path: Path) -> None:
    path = write(tmp_path, f"{tmp_path / 'images' / 'a0.png'},P0,0,")
    assert read(path).cases[0].case_id == pseudonym("case", "images/a0.png", SALT)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    path = write(tmp_path, "images/pipe.png,P0,0,")
    os.mkfifo(tmp_path / "images" / "pipe.png")
    assert "neither a file nor a folder" in fault(path)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    path = tmp_path / "chest.csv"
    with pytest.raises(ManifestError, match=r"^chest\.csv: the file is not found"):
        read(path)
    with pytest.raises(ManifestError, match="not found"):
        manifest_columns(path)
    path.write_bytes(b"")
    with pytest.raises(ManifestError, match="the file is empty"):
        manifest_columns(path)
    path.write_bytes(f"{HEADER}\nimages/a0.png,山田太郎,0,train\n".encode("shift_jis"))
    for call in (read, manifest_columns):
        with pytest.raises(ManifestError, match=r"chest\.csv, line 2: the encoding is not UTF-8"):
            call(path)
    with pytest.raises(ManifestError, match="not found"):
        manifest_columns(tmp_path / "chest.xlsx")
    (tmp_path / "text.xlsx").write_text("image\n")
    with pytest.raises(ManifestError, match="not a spreadsheet, whatever its name says"):
        manifest_columns(tmp_path / "text.xlsx")


def test_columns_are_read_from_the_head_alone(tmp_path: Path) -> None:
    path = tmp_path / "chest.csv"
    body = "images/한.png,P0,0,train\n" * 100_000
    path.write_text(f'"image","a ""b""\nc";x\n{body}'.replace(";", ","), encoding="utf-8")
    assert manifest_columns(path) == ["image", 'a "b"\nc', "x"]


# ------------------------------------------------------------------------ sidecar


def test_the_sidecar_says_what_things_mean(tmp_path: Path) -> None:
    path = write(tmp_path, *GOOD)
    path.with_suffix(".yaml").write_text(
        "columns: {label: pneumonia in the report}\nlabels: {0: no finding, NA: not read}\n"
        "units: {label: none}\nsource: NIH\nlicence: CC0-1.0\n"
    )
    one = read(path)
    meanings = {"label": "pneumonia in the report", "0": "no finding", "NA": "not read"}
    assert one.meanings == meanings
    assert one.units == {"label": "none"}
    assert (one.source, one.licence) == ("NIH", "CC0-1.0")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("license: x", "chest.yaml: unknown key 'license'; .*Did you mean 'licence'"),
        ("study: {}", "unknown key 'study'.*If the file is a recipe, rename it"),
        ("units: {lable: x}", "'units' names 'lable', which is no column. Did you mean 'label'"),
        ("columns: {weight_of_it: x}", "names 'weight_of_it', which is no column. Delete"),
        ("labels: {0: 1}", "'labels' is not a mapping of names to texts"),
        ("labels: [a]", "'labels' is not a mapping of names to texts"),
        ("source: [a]", "'source' is not a text"),
        ("labels: {0: a, 0: b}", "chest.yaml, line 1: duplicate key '0'"),
    ],
)
def test_faults_of_the_sidecar(tmp_path: Path, text: str, match: str) -> None:
    path = write(tmp_path, *GOOD)
    path.with_suffix(".yaml").write_text(text)
    assert re.search(match, fault(path))
    with path.open("a") as file:
        file.write("none.png,P0,0,train\n")
    assert re.match(r"chest\.csv: 2 faults", fault(path))


# ------------------------------------------------------------------------ writing


TRICKY = ["=1+1", "+A1", "-A1", "@x", "'=1", "''=1", "'quoted'", "a,b", 'say "x"', "a\nb", "한", ""]


def test_written_tables_are_defused_and_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    rows = [{"image": f"{i}.png", "note": text} for i, text in enumerate(TRICKY)]
    rows += [
        {"image": "n.png", "hu": -1000, "x": None},
        {"image": "m.png", "hu": -0.5, "note": "-3"},
    ]
    write_manifest(rows, path)
    table = read_table(path)
    notes = [row[1] for row in table.rows]
    assert notes == [*TRICKY, "", "-3"]
    assert [row[2] for row in table.rows[-2:]] == ["-1000", "-0.5"]
    text = path.read_text("utf-8")
    assert "'=1+1" in text
    assert "\n" in text
    assert "\r" not in text
    for cell in re.split(r"[,\n]", text):
        assert not re.match(r"[=+@]|-[^\d.]", cell)
    assert os.listdir(tmp_path) == ["out.csv"]


def test_a_sidecar_is_written_beside_the_table(tmp_path: Path) -> None:
    path = folder(tmp_path) / "out.csv"
    rows = [{"image": "images/a0.png", "patient_id": "007", "label": "no"}]
    write_manifest(rows, path, {"labels": {"no": "nothing seen"}, "source": "made"})
    one = read(path)
    assert one.meanings == {"no": "nothing seen"}
    assert one.source == "made"
    assert one.cases[0].targets == {"label": "no"}


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, *GOOD)
    before = read(path).sha256
    path.write_text(path.read_text().replace("P1", "P2"))
    assert read(path).sha256 != before


def test_the_salt_of_the_user_and_the_table_that_maps_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setattr(pseudonyms, "data_folder", lambda: home)
    data = tmp_path / "data"
    data.mkdir()
    one = read_manifest(write(data, *GOOD))
    assert pseudonyms.whois(one.cases[0].patient_id) == "P0"
    assert pseudonyms.whois(one.cases[2].case_id) == "images/a2.png"
    assert sorted(os.listdir(data)) == ["chest.csv", "images"]


def test_nearest() -> None:
    names = ["boneage_months", "patient_id", "Age"]
    assert nearest("bone_age_month", names) == "boneage_months"
    assert nearest("AGE", names) == "Age"
    assert nearest("weight", names) == ""
    assert nearest("PatientID", names, likeness=1.0) == "patient_id"
    assert nearest("PatientsID", names, likeness=1.0) == ""


# ----------------------------------------------------------------- the real thing


CORPUS_STOPS = {
    "csv_absolute_path": "outside",
    "csv_duplicate_columns": "duplicate column 'label'",
    "csv_empty_file": "empty",
    "csv_missing_column": "no column 'label'; expected one of: image, patient_id, age",
    "csv_missing_files": "3 faults",
    "csv_negative_age": "the age is out of the range",
    "csv_patient_leak": "leak: patient p-",
    "csv_ragged": "row 6: 7 fields",
    "csv_same_patient_conflict": "conflicting label",
    "csv_traversal": "2 faults",
    "csv_unknown_split": "row 5: unknown split. Did you mean 'train'",
    "csv_zero_rows": "empty: no rows",
}
CORPUS_NOTES = {
    "csv_cp949": "the encoding is taken to be Korean CP949",
    "csv_duplicate_rows": "3 duplicate rows",
    "csv_semicolon": "semicolons",
    "csv_tab": "tabs",
    "csv_utf16": "UTF-16",
}


def test_the_corpus(shared: Path) -> None:
    for kind in sorted((shared / "corpus" / "csv").iterdir()):
        path = kind / "manifest.csv"
        if kind.name in CORPUS_STOPS:
            text = fault(path, strata=["age", "sex"])
            assert CORPUS_STOPS[kind.name] in text
            assert "P000" not in text
        else:
            one = read(path, strata=["age", "sex"])
            assert len(one.cases) == (1 if kind.name == "csv_one_row" else 24), kind.name
            note = CORPUS_NOTES.get(kind.name)
            assert (note in one.notes[0]) if note else not one.notes


@pytest.mark.parametrize(
    ("name", "wanted", "rows", "patients"),
    [
        ("boneage_rsna", {"targets": ["boneage_months"], "strata": ["sex"]}, 2062, 2062),
        ("cxr_nih_pneumonia", {"targets": ["target"], "strata": ["view", "matched"]}, 753, None),
        ("cxr_lung_seg_v7", {"mask": "lung_mask", "strata": ["age"]}, 364, None),
        ("mri_hippocampus_msd", {"mask": "label"}, 208, 208),
        ("dicom_odd", {"one_image_per_patient": True}, 191, 191),
    ],
)
def test_the_real_manifests(
    shared: Path, name: str, wanted: dict[str, object], rows: int, patients: int | None
) -> None:
    path = shared / "data" / name / "manifest.csv"
    one = read_manifest(path, Columns(**wanted), salt=SALT)
    assert len(one.cases) == rows
    assert patients is None or len({case.patient_id for case in one.cases}) == patients
    assert one.notes == ()


def test_slices_without_patients_ask_for_a_statement(shared: Path) -> None:
    path = shared / "data" / "mri_dicom_series" / "manifest.csv"
    with pytest.raises(MedtlError, match="no column 'patient_id'"):
        read_manifest(path, salt=SALT)


def test_damaged_tables_give_documented_errors_only(tmp_path: Path) -> None:
    whole = write(tmp_path, *GOOD, 'images/a3.png,"P2, ""x""",1,val').read_bytes()
    path = tmp_path / "damaged.csv"
    draw = random.Random(0)
    messages = []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(data))
            data[place : place + draw.randint(0, 2)] = draw.choice(
                b'\0\xff",;\n\r\t=/.\xef'
            ).to_bytes()
        path.write_bytes(data[: draw.choice((None, draw.randrange(len(data))))])
        try:
            manifest_columns(path)
            read(path)
        except ManifestError as error:
            messages.append(str(error))
    assert 50 < len(messages) < 300
    assert "P0" not in "".join(messages)
