from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_dicom import write

from medtl.cases import pseudonyms
from medtl.cases.columns import Columns
from medtl.cases.intake import discover as module
from medtl.cases.intake.discover import discover
from medtl.cases.manifest import read_manifest, write_manifest
from medtl.errors import ManifestError

SALT = b"s" * 32
PIXELS = np.zeros((3, 4), np.uint16)


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def test_a_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "ill/a.png", "ill/b.JPG", "well/a.png", "well/c.tiff", "well/.DS_Store")
    touch(tmp_path, "ill/._b.JPG", ".cache/x/a.png", "readme.md")
    one = discover(tmp_path)
    assert (one.kind, one.root, one.target, one.classes) == (
        "folders",
        tmp_path,
        "label",
        ("ill", "well"),
    )
    assert one.rows[0] == {"image": "ill/a.png", "label": "ill"}
    assert len(one.rows) == 4
    assert one.table is None
    assert "state `one_image_per_patient: true`" in one.notes[0]
    assert one.notes[1] == "1 files are no PNG, JPEG or TIFF and were left out"


def test_classes_below_folders_for_the_splits(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/{i}.png" for s in ("Train", "valid") for c in "ab" for i in "12"))
    one = discover(tmp_path)
    assert one.classes == ("a", "b")
    assert [row["split"] for row in one.rows] == ["train"] * 4 + ["val"] * 4
    write_manifest(one.rows, tmp_path / "manifest.csv")
    manifest = read_manifest(
        tmp_path / "manifest.csv", Columns(["label"], one_image_per_patient=True), salt=SALT
    )
    assert [case.targets["label"] for case in manifest.cases] == list("aabbaabb")


@pytest.mark.parametrize(
    ("paths", "match"),
    [
        (["a/1.png", "a/2.png"], "1 folders with 2 images; expected 2 to 50 folders"),
        (["1.png", "2.png"], "0 folders with 0 images, 2 images directly in the folder"),
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png", "x.png"], "1 images directly"),
        (["a/1.png", "a/2.png", "b/c/1.png", "b/2.png"], "1 images in folders below a class"),
        ([f"patient {i}/{k}.png" for i in range(60) for k in "12"], "60 folders with 120 images"),
        ([f"patient {i}/1.png" for i in range(9)], "9 folders with 9 images"),
        ([f"{s}{c}/{k}.png" for s in ("", "train/") for c in "ab" for k in "12"], "others do not"),
    ],
)
def test_trees_that_are_no_classes(tmp_path: Path, paths: list[str], match: str) -> None:
    touch(tmp_path, *paths)
    with pytest.raises(ManifestError, match=match) as error:
        discover(tmp_path)
    assert "patient " not in str(error.value)


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "chest.csv"
    path.write_text("image;label;sex\na.png;007;F\nb.png;NA;M\nc.png;;M\n")
    for data in (path, tmp_path):
        one = discover(data)
        assert (one.kind, one.root, one.target) == ("csv", tmp_path, "label")
        assert one.classes == ("007", "NA")
        assert one.table == path
        assert one.rows[2] == {"image": "c.png", "label": "", "sex": "M"}
        assert "semicolons" in one.notes[0]
        assert "one_image_per_patient" in one.notes[1]


def test_a_table_whose_columns_do_not_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "chest.csv"
    path.write_text("file,patient_id,label\na.png,1,masks/a.png\n")
    one = discover(path)
    assert one.target is None
    assert one.classes == ()
    assert "no column is named 'image'" in one.notes[0]
    assert "state `data.target`" in one.notes[1]


def test_many_values_are_no_classes(tmp_path: Path) -> None:
    path = tmp_path / "age.csv"
    path.write_text(
        "image,patient_id,boneage_months\n" + "".join(f"{i},{i},{i}\n" for i in range(60))
    )
    one = discover(path)
    assert (one.target, one.classes, one.notes) == ("boneage_months", (), ())


def test_a_faulty_table_is_refused_but_a_stray_one_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    assert discover(tmp_path).kind == "folders"
    (tmp_path / "m.csv").write_text("image,label\na/1.png,1,2\n")
    with pytest.raises(ManifestError, match="row 2: 3 fields; expected 2"):
        discover(tmp_path)


def test_dicom_files(tmp_path: Path) -> None:
    for patient in "ab":
        (tmp_path / f"KIM {patient}").mkdir()
        for i in range(2):
            uid = f"1.2.{ord(patient)}.{i}"
            path = tmp_path / f"KIM {patient}" / f"{i}"
            write(path, PIXELS, PatientID=patient, SOPInstanceUID=uid)
    (tmp_path / "x.txt").write_text("x")
    one = discover(tmp_path, salt=SALT)
    assert (one.kind, one.target, one.classes, len(one.rows)) == ("dicom", None, (), 4)
    assert "label" not in one.rows[0]
    assert one.notes[0] == "1 files left out: not a DICOM file"
    assert "DICOM headers hold no labels" in one.notes[1]


def test_dicom_folders_that_hold_several_patients_each_are_classes(tmp_path: Path) -> None:
    for name in ("ill", "well"):
        (tmp_path / name).mkdir()
        for i in range(3):
            patient, uid = f"{name}{i}" if i else None, f"1.2.{len(name)}.{i}"
            path = tmp_path / name / f"{i}.dcm"
            write(path, PIXELS, PatientID=patient, SOPInstanceUID=uid)
    one = discover(tmp_path, salt=SALT)
    assert (one.kind, one.target, one.classes) == ("dicom", "label", ("ill", "well"))
    assert [row["label"] for row in one.rows] == ["ill"] * 3 + ["well"] * 3
    assert one.notes[0] == "2 images have no patient id in their header: fill the column"
    assert "are taken for classes" in one.notes[1]


def test_a_file_beside_the_folders_means_they_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "1.dcm", PIXELS)
    write(tmp_path / "2.dcm", PIXELS)
    assert discover(tmp_path, salt=SALT).target is None


def test_the_salt_of_the_user_lets_whois_map_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setattr(pseudonyms, "data_folder", lambda: home)
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "1.dcm", PIXELS)
    one = discover(tmp_path / "data")
    assert pseudonyms.whois(one.rows[0]["patient_id"]) == "CANARYID"


def test_what_cannot_be_discovered(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no images; expected a CSV file, class folders"):
        discover(tmp_path, salt=SALT)
    with pytest.raises(ManifestError, match=r"^none: there is no such file or folder"):
        discover(tmp_path / "none")
    touch(tmp_path, "a.pdf", "n/scan.nii.gz")
    with pytest.raises(ManifestError, match="not a table; expected CSV or Parquet"):
        discover(tmp_path / "a.pdf")
    with pytest.raises(ManifestError, match="NIfTI files need a table"):
        discover(tmp_path)


def test_real_folders(shared: Path) -> None:
    one = discover(shared / "data" / "cxr_nih_pneumonia")
    assert (one.kind, one.target, one.classes, one.notes) == ("csv", "target", ("0", "1"), ())
    assert discover(shared / "data" / "mri_hippocampus_msd").target is None
    assert discover(shared / "corpus" / "series", salt=SALT).kind == "dicom"
    assert module.MAX_CLASSES >= 20
