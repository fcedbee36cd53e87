"""Public data sets: a made-up release in the published form becomes a checked manifest, row by row.

Headers, separators, folders and odd values are those of the real releases; images are empty files.
"""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from medtl.cases.columns import Columns
from medtl.cases.intake.layouts import Takes, import_layout
from medtl.cases.manifest import read_manifest
from medtl.cases.releases.described import write_imported
from medtl.cases.releases.shelf import ABOUT_KEYS, about, names, shipped
from medtl.errors import LeakError, ManifestError
from medtl.storage.tables import read_table
from medtl.types import Manifest

Rows = list[dict[str, str]]


def release(folder: Path, tables: dict[str, str | bytes], images: list[str] | None = None) -> Path:
    """Write a release: its tables and texts, and an empty file for each image."""
    for name, content in {**tables, **dict.fromkeys(images or [], b"")}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def taken(
    folder: Path, layout: str | Path, columns: Columns, **takes: Any
) -> tuple[Rows, Manifest, tuple[str, ...]]:
    """Import a release to a manifest elsewhere; return its rows, what a study reads, the notes."""
    found = import_layout(folder, layout, takes=Takes(**takes))
    out = folder.parent / "elsewhere" / "m.csv"
    out.parent.mkdir(exist_ok=True)
    before = sorted(folder.rglob("*"))
    write_imported(found, folder, out)
    assert sorted(folder.rglob("*")) == before  # nothing is written into the release
    table = read_table(out)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return rows, read_manifest(out, columns, salt=b"test"), found.notes


def columns_of(rows: Rows, *wanted: str) -> list[tuple[str, ...]]:
    """Some columns of all rows, images by their last name."""
    return [tuple(Path(row[c]).name if c == "image" else row[c] for c in wanted) for row in rows]


# ------------------------------------------------------------------- chest films

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
NIH_ROWS = [
    "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,058Y,M,PA,2894,2729,0.143,0.143,",
    "00000002_000.png,No Finding,0,2,081Y,M,PA,2500,2048,0.171,0.171,",
    "00000003_000.png,Hernia,0,3,081Y,F,PA,2582,2991,0.143,0.143,",
    "00000003_001.png,Hernia|Pleural_Thickening,1,3,074Y,F,AP,2500,2048,0.168,0.168,",
    "00000004_000.png,Mass|Nodule,0,4,082Y,M,AP,2500,2048,0.168,0.168,",
    "00005567_000.png,Effusion|Pneumonia,0,5567,412Y,M,AP,3056,2544,0.139,0.139,",
    "00000006_000.png,Infiltration,0,6,006M,F,PA,2992,2991,0.143,0.143,",
    "00000007_000.png,No Finding,0,7,082Y,M,PA,2500,2048,0.168,0.168,",
    "00000008_000.png,Pneumothorax,0,8,069Y,F,PA,2048,2500,0.171,0.171,",
]
NIH_TEST = ("00000003_000.png", "00000003_001.png", "00000008_000.png")


def nih(folder: Path, **changes: str) -> Path:
    """NIH ChestX-ray14 as Box gives it: the first table, two lists, images of two archives."""
    files = [row.split(",")[0] for row in NIH_ROWS]
    tables: dict[str, str | bytes] = {
        "Data_Entry_2017.csv": "\n".join([NIH_HEADER, *NIH_ROWS]) + "\n",
        "train_val_list.txt": "".join(f"{f}\n" for f in files if f not in NIH_TEST),
        "test_list.txt": "\n".join(NIH_TEST),
        **changes,
    }
    places = ["images_001/images" if f < "00000004" else "images_002/images" for f in files]
    return release(folder, tables, [f"{p}/{f}" for p, f in zip(places, files, strict=True)])


def test_nih_chestxray14(tmp_path: Path) -> None:
    folder = nih(tmp_path / "nih")
    rows, manifest, notes = taken(folder, "nih_chestxray14", Columns(["hernia", "mass"]))
    shown = columns_of(rows, "image", "patient_id", "split", "view", "age", "sex", "hernia", "mass")
    assert shown == [
        ("00000001_000.png", "1", "train", "PA", "058Y", "M", "0", "0"),
        ("00000001_001.png", "1", "train", "PA", "058Y", "M", "0", "0"),
        ("00000002_000.png", "2", "train", "PA", "081Y", "M", "0", "0"),
        ("00000003_000.png", "3", "test", "PA", "081Y", "F", "1", "0"),
        ("00000003_001.png", "3", "test", "AP", "074Y", "F", "1", "0"),
        ("00000004_000.png", "4", "train", "AP", "082Y", "M", "0", "1"),
        ("00005567_000.png", "5567", "train", "AP", "", "M", "0", "0"),
        ("00000006_000.png", "6", "train", "PA", "006M", "F", "0", "0"),
        ("00000007_000.png", "7", "train", "PA", "082Y", "M", "0", "0"),
        ("00000008_000.png", "8", "test", "PA", "069Y", "F", "0", "0"),
    ]
    listed = {row["image"][-16:]: [f for f in row if row[f] == "1"] for row in rows}
    assert "pleural_thickening" in listed["00000003_001.png"]
    assert {"effusion", "pneumonia"} <= {*listed["00005567_000.png"]}
    assert len(manifest.cases) == 10
    assert "1 rows have an age above 120 years, which is left empty" in notes


def test_nih_of_2020_and_a_table_without_its_lists(tmp_path: Path) -> None:
    header = NIH_HEADER.rstrip(",").replace("Patient Gender", "Patient Sex")
    rows = [row.rstrip(",").replace("006M", "000Y") for row in NIH_ROWS]
    rows = [re.sub(r",0?(\d+)Y,", r",\1,", row) for row in rows]
    files = [row.split(",")[0] for row in rows]
    folder = release(
        tmp_path / "nih",
        {"Data_Entry_2017_v2020.csv": "\n".join([header, *rows])},
        [f"images/{f}" for f in files],
    )
    made, _, notes = taken(folder, "nih_chestxray14", Columns(["hernia"]))
    assert columns_of(made, "sex", "age")[1] == ("M", "58")
    assert "split" not in made[0]
    assert "there is no official split" in notes
    assert "10 rows are without test_list.txt, which is not there" in notes


CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)
CHEXPERT_TRAIN = [
    "patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    "patient00002/study1/view1_frontal.jpg,Female,83,Frontal,AP,,,,1.0,,,-1.0,,,,,,1.0,",
    "patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,",
    "patient00003/study1/view1_frontal.jpg,Male,41,Frontal,AP,,,,,,1.0,,,,0.0,,,,",
    "patient00004/study1/view1_frontal.jpg,Female,20,Frontal,PA,1.0,0.0,,,,,0.0,,,,0.0,,,",
    "patient00005/study1/view1_frontal.jpg,Unknown,0,Frontal,LL,,,1.0,,,,,,,,,,,",
]


def chexpert(folder: Path, *more: str) -> Path:
    """CheXpert-v1.0-small as it is unpacked."""
    top = "CheXpert-v1.0-small"
    train = [f"{top}/train/{row}" for row in (*CHEXPERT_TRAIN, *more)]
    valid = [
        f"{top}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,"
        "0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        f"{top}/valid/patient64542/study1/view1_frontal.jpg,Male,70,Frontal,PA,"
        "1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
        f"{top}/valid/patient64542/study1/view2_lateral.jpg,Male,70,Lateral,,"
        "1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
    ]
    tables: dict[str, str | bytes] = {
        f"{top}/train.csv": CHEXPERT + "\n".join(train) + "\n",
        f"{top}/valid.csv": CHEXPERT + "\n".join(valid) + "\n",
    }
    return release(folder, tables, [row.split(",")[0] for row in (*train, *valid)])


def test_chexpert(tmp_path: Path) -> None:
    columns = Columns(["cardiomegaly", "edema"])
    rows, manifest, notes = taken(chexpert(tmp_path / "data"), "chexpert", columns)
    wanted = ("patient_id", "split", "view", "sex", "cardiomegaly", "edema", "support_devices")
    assert columns_of(rows, *wanted) == [
        ("patient00001", "train", "AP", "F", "", "", "1"),
        ("patient00002", "train", "AP", "F", "-1", "-1", ""),
        ("patient00002", "train", "AP", "F", "", "", ""),
        ("patient00003", "train", "AP", "M", "", "1", ""),
        ("patient00004", "train", "PA", "F", "", "", ""),
        ("patient00005", "train", "LL", "", "1", "", ""),
        ("patient64541", "val", "AP", "M", "1", "0", "0"),
        ("patient64542", "val", "PA", "M", "0", "0", "1"),
    ]
    assert rows[2]["study_id"] == "patient00002/study1"
    assert rows[2]["image"] == "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg"
    assert manifest.cases[0].image.is_file()
    assert any("2 images are left out (projection: Lateral 2)" in note for note in notes)
    assert "the release lies in CheXpert-v1.0-small" in notes
    inside = tmp_path / "data" / "CheXpert-v1.0-small"
    assert len(import_layout(inside, "chexpert", takes=Takes(where="")).rows) == 10


def test_mimic_cxr_jpg_joins_three_tables(tmp_path: Path) -> None:
    films = [  # dicom, subject, study, view, split, Cardiomegaly, Edema
        ("02aa804e-bde0afdd", "10000032", "50414267", "PA", "train", "", ""),
        ("174413ec-4ec4c1f7", "10000032", "50414267", "LATERAL", "train", "", ""),
        ("2a2277a9-b0ded155", "10000032", "53189527", "PA", "train", "1.0", ""),
        ("68b5c4b1-227d0485", "10000764", "57375967", "AP", "train", "0.0", "-1.0"),
        ("096052b7-d256dc40", "10000764", "57375967", "", "train", "0.0", "-1.0"),
        ("8959e402-2175d68d", "10000898", "50771383", "AP", "validate", "-1.0", "1.0"),
        ("11111111-aaaaaaaa", "10001122", "50000001", "AP", "validate", "", "0.0"),
        ("22222222-bbbbbbbb", "19999987", "58621812", "AP", "test", "1.0", "1.0"),
        ("33333333-cccccccc", "19999987", "58621812", "LL", "test", "1.0", "1.0"),
        ("44444444-dddddddd", "19999733", "57132437", "PA", "test", None, None),
    ]
    meta = (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
        "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
        "PatientOrientationCodeSequence_CodeMeaning\n"
    )
    for dicom, subject, study, view, *_ in films:
        step = '"CHEST (PA AND LAT)"' if view == "PA" else ""
        meta += f"{dicom},{subject},{study},{step},{view},3056,2544,21800506,213014.531,,,Erect\n"
    labels = "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,"
    labels += "Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,"
    labels += "Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n"
    seen = {(s, t): (c, e) for _, s, t, _, _, c, e in films if c is not None}
    for (subject, study), (heart, edema) in seen.items():
        labels += f"{subject},{study},,{heart},,{edema},,,,,,,,,,\n"
    split = "dicom_id,study_id,subject_id,split\n"
    split += "".join(f"{d},{t},{s},{part}\n" for d, s, t, _, part, *_ in films)
    tables: dict[str, str | bytes] = {
        "mimic-cxr-2.0.0-metadata.csv.gz": gzip.compress(meta.encode()),
        "mimic-cxr-2.0.0-chexpert.csv.gz": gzip.compress(labels.encode()),
        "mimic-cxr-2.0.0-split.csv.gz": gzip.compress(split.encode()),
    }
    images = [f"files/p{s[:2]}/p{s}/s{t}/{d}.jpg" for d, s, t, *_ in films]
    folder = release(tmp_path / "mimic-cxr-jpg", tables, images)
    rows, manifest, notes = taken(folder, "mimic_cxr_jpg", Columns(["cardiomegaly"]))
    assert columns_of(rows, "patient_id", "study_id", "split", "view", "cardiomegaly", "edema") == [
        ("10000032", "50414267", "train", "PA", "", ""),
        ("10000032", "53189527", "train", "PA", "1", ""),
        ("10000764", "57375967", "train", "AP", "0", "-1"),
        ("10000898", "50771383", "val", "AP", "-1", "1"),
        ("10001122", "50000001", "val", "AP", "", "0"),
        ("19999987", "58621812", "test", "AP", "1", "1"),
        ("19999733", "57132437", "test", "PA", "", ""),
    ]
    assert {case.split for case in manifest.cases} == {"train", "val", "test"}
    assert any("3 images are left out (view: LATERAL 1, (empty) 1, LL 1)" in note for note in notes)
    assert any(note.startswith("1 rows have no row in mimic-cxr-2.0.0-chexpert") for note in notes)
    (folder / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(split.encode())[:-12])
    with pytest.raises(ManifestError, match="the file is cut"):
        import_layout(folder, "mimic_cxr_jpg")


PADCHEST_COLUMNS = [
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
    "ViewPosition_DICOM",
    "Projection",
    "MethodProjection",
    "Pediatric",
    "Modality_DICOM",
    "Manufacturer_DICOM",
    "PhotometricInterpretation_DICOM",
    "PixelRepresentation_DICOM",
    "PixelAspectRatio_DICOM",
    "SpatialResolution_DICOM",
    "BitsStored_DICOM",
    "WindowCenter_DICOM",
    "WindowWidth_DICOM",
    "Rows_DICOM",
    "Columns_DICOM",
    "XRayTubeCurrent_DICOM",
    "Exposure_DICOM",
    "ExposureInuAs_DICOM",
    "ExposureTime",
    "RelativeXRayExposure_DICOM",
    "ReportID",
    "Report",
    "MethodLabel",
    "Labels",
    "Localizations",
    "LabelsLocalizationsBySentence",
    "labelCUIS",
    "LocalizationsCUIS",
]


def padchest_row(number: int, **cells: str) -> str:
    """A row of PadChest's table, all other cells as they usually are."""
    usual = {
        "ImageID": f"{2000 + number}_00-0{number}.png",
        "ImageDir": "0",
        "StudyDate_DICOM": "20140915",
        "StudyID": f"2053668664013634823614867989145588646{number}",
        "PatientID": f"83986048869429233163798823568146098{number}",
        "PatientBirth": "1930.0",
        "PatientSex_DICOM": "F",
        "Projection": "PA",
        "Pediatric": "No",
        "MethodLabel": "Physician",
        "Report": '"sin hallazgos , ""normal"" ."',
        "Labels": "['normal']",
        **cells,
    }
    quoted = [usual.get(name, "") for name in PADCHEST_COLUMNS]
    return ",".join([str(number), *(f'"{c}"' if "[" in c else c for c in quoted)])


def test_padchest_labels_are_python_lists(tmp_path: Path) -> None:
    table = [
        padchest_row(0),
        padchest_row(1, Labels="['pulmonary fibrosis', 'kyphosis']"),
        padchest_row(2, Labels="['pneumonia', ' pleural effusion', '']", ImageDir="54"),
        padchest_row(3, Projection="L"),
        padchest_row(4, Labels="", MethodLabel="RNN_model", PatientSex_DICOM="O"),
        padchest_row(5, Labels="['nodule', 'normal']", Projection="AP_horizontal"),
        padchest_row(6, Labels="[]", PatientBirth=""),
        padchest_row(7, Projection="EXCLUDE", Labels="['exclude']"),
        padchest_row(8, Labels="['unchanged']", PatientBirth="2052.0"),
        padchest_row(9, Labels="['cardiomegaly']", PatientSex_DICOM="M", Projection="AP"),
    ]
    header = "," + ",".join(PADCHEST_COLUMNS)
    images = [f"{'54' if n == 2 else '0'}/{2000 + n}_00-0{n}.png" for n in range(10)]
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    folder = release(tmp_path / "padchest", {name: "\n".join([header, *table])}, images)
    columns = Columns(["pneumonia", "normal"])
    rows, manifest, notes = taken(folder, "padchest", columns)
    assert columns_of(rows, "image", "view", "age", "sex", "pneumonia", "normal", "findings") == [
        ("2000_00-00.png", "PA", "84", "F", "0", "1", "normal"),
        (
            "2001_00-01.png",
            "PA",
            "84",
            "F",
            "0",
            "0",
            "pulmonary fibrosis|kyphosis",
        ),
        ("2002_00-02.png", "PA", "84", "F", "1", "0", "pneumonia|pleural effusion"),
        ("2004_00-04.png", "PA", "84", "", "", "", ""),
        ("2005_00-05.png", "AP_horizontal", "84", "F", "0", "1", "nodule|normal"),
        ("2006_00-06.png", "PA", "", "F", "", "", ""),
        ("2008_00-08.png", "PA", "", "F", "0", "0", "unchanged"),
        ("2009_00-09.png", "AP", "84", "M", "0", "0", "cardiomegaly"),
    ]
    assert rows[3]["read_by"] == "program"
    assert len({case.patient_id for case in manifest.cases}) == 8
    assert any("(projection" not in note and "L 1, EXCLUDE 1" in note for note in notes)
    broken = padchest_row(3, Labels="['pneumonia'")
    release(folder, {name: "\n".join([header, *table[:3], broken])})
    with pytest.raises(ManifestError, match=r"row 5: the column Labels is no list"):
        import_layout(folder, "padchest")


VINDR = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,"
    "Edema,Emphysema,Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,"
    "Mediastinal shift,Nodule/Mass,Pleural effusion,Pleural thickening,Pneumothorax,"
    "Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,Tuberculosis"
)


def test_vindr_cxr_has_several_radiologists_a_film(tmp_path: Path) -> None:
    def read(film: str, rater: str, heart: str, other: str = "0", none: str = "0") -> str:
        values = ["0", "0", "0", heart, *["0"] * 22]
        return ",".join([film, *([rater] if rater else []), *values, other, none])

    train = f"image_id,rad_id,{VINDR},Other diseases,No finding\n" + "\n".join(
        [
            read("000434271f63a053", "R1", "1"),
            read("000434271f63a053", "R2", "1"),
            read("000434271f63a053", "R8", "0", none="1"),
            read("00053190460d56c5", "R1", "0", none="1"),
            read("00053190460d56c5", "R9", "0", none="1"),
            read("00053190460d56c5", "R10", "1"),
        ]
    )
    test = f"image_id,{VINDR},Other disease,No finding\n" + "\n".join(
        [
            read("002a34c58c5b7582", "", "1", other="1"),
            read("aa", "", "0", none="1"),
        ]
    )
    folder = release(
        tmp_path / "vindr",
        {"annotations/image_labels_train.csv": train, "annotations/image_labels_test.csv": test},
        [
            *(f"train/{film}.dicom" for film in ("000434271f63a053", "00053190460d56c5")),
            *(f"test/{film}.dicom" for film in ("002a34c58c5b7582", "aa")),
        ],
    )
    columns = Columns(["cardiomegaly"], raters=["rater"], consensus="majority")
    rows, manifest, _ = taken(folder, "vindr_cxr", columns)
    assert columns_of(rows, "image", "split", "rater", "cardiomegaly", "other_diseases") == [
        ("000434271f63a053.dicom", "train", "R1", "1", "0"),
        ("000434271f63a053.dicom", "train", "R2", "1", "0"),
        ("000434271f63a053.dicom", "train", "R8", "0", "0"),
        ("00053190460d56c5.dicom", "train", "R1", "0", "0"),
        ("00053190460d56c5.dicom", "train", "R9", "0", "0"),
        ("00053190460d56c5.dicom", "train", "R10", "1", "0"),
        ("002a34c58c5b7582.dicom", "test", "consensus", "1", "1"),
        ("aa.dicom", "test", "consensus", "0", "0"),
    ]
    assert [case.targets["cardiomegaly"] for case in manifest.cases] == ["1", "0", "1", "0"]


RSNA_ROWS = """patientId,x,y,width,height,Target
0004cfab-14fd,,,,,0
00313ee0-9eaa,,,,,0
00322d4d-1c29,,,,,0
003d8fa0-6bf1,,,,,0
00436515-870c,264.0,152.0,213.0,379.0,1
00436515-870c,562.0,152.0,256.0,453.0,1
00569f44-917d,,,,,0
006cec2e-6ce2,,,,,0
00704310-78a8,323.0,577.0,160.0,104.0,1
00704310-78a8,695.0,575.0,162.0,137.0,1
"""
RSNA_CLASSES = """patientId,class
0004cfab-14fd,No Lung Opacity / Not Normal
00313ee0-9eaa,No Lung Opacity / Not Normal
00322d4d-1c29,No Lung Opacity / Not Normal
003d8fa0-6bf1,Normal
00436515-870c,Lung Opacity
00436515-870c,Lung Opacity
00569f44-917d,No Lung Opacity / Not Normal
006cec2e-6ce2,No Lung Opacity / Not Normal
00704310-78a8,Lung Opacity
00704310-78a8,Lung Opacity
"""


def rsna(folder: Path, rows: str = RSNA_ROWS, classes: str = RSNA_CLASSES) -> Path:
    """The RSNA pneumonia challenge, stage 2."""
    films = sorted({line.split(",")[0] for line in RSNA_ROWS.splitlines()[1:]})
    tables: dict[str, str | bytes] = {
        "stage_2_train_labels.csv": rows,
        "stage_2_detailed_class_info.csv": classes,
        "stage_2_sample_submission.csv": "patientId,PredictionString\n",
    }
    return release(folder, tables, [f"stage_2_train_images/{film}.dcm" for film in films])


def test_rsna_pneumonia_makes_labels_of_boxes(tmp_path: Path) -> None:
    rows, manifest, _ = taken(rsna(tmp_path / "rsna"), "rsna_pneumonia", Columns(["pneumonia"]))
    assert columns_of(rows, "image", "patient_id", "pneumonia", "class", "boxes") == [
        ("0004cfab-14fd.dcm", "0004cfab-14fd", "0", "other", "0"),
        ("00313ee0-9eaa.dcm", "00313ee0-9eaa", "0", "other", "0"),
        ("00322d4d-1c29.dcm", "00322d4d-1c29", "0", "other", "0"),
        ("003d8fa0-6bf1.dcm", "003d8fa0-6bf1", "0", "normal", "0"),
        ("00436515-870c.dcm", "00436515-870c", "1", "lung opacity", "2"),
        ("00569f44-917d.dcm", "00569f44-917d", "0", "other", "0"),
        ("006cec2e-6ce2.dcm", "006cec2e-6ce2", "0", "other", "0"),
        ("00704310-78a8.dcm", "00704310-78a8", "1", "lung opacity", "2"),
    ]
    assert len(manifest.cases) == 8


def test_rsna_boxes_become_masks(tmp_path: Path) -> None:
    columns = Columns(["pneumonia"], mask="mask")
    _, manifest, _ = taken(rsna(tmp_path / "rsna"), "rsna_pneumonia_boxes", columns)
    masks = [np.asarray(Picture.open(case.mask)) for case in manifest.cases if case.mask]
    assert [int(mask.sum()) for mask in masks] == [
        *(0, 0, 0, 0),
        213 * 379 + 256 * 453,
        *(0, 0),
        160 * 104 + 162 * 137,
    ]
    assert masks[4].shape == (1024, 1024)
    assert masks[4][152, 264] == 1  # top 152, left 264
    assert masks[4][151, 264] == masks[4][152, 263] == masks[4][152 + 379, 264] == 0


def test_rows_of_one_film_that_contradict_each_other_are_a_fault(tmp_path: Path) -> None:
    folder = rsna(tmp_path / "r", RSNA_ROWS.replace("453.0,1", "453.0,0"))
    with pytest.raises(ManifestError, match="the rows of one image differ in 'pneumonia'"):
        import_layout(folder, "rsna_pneumonia")
    folder = rsna(tmp_path / "c", classes=RSNA_CLASSES.replace("Lung Opacity\n", "Normal\n", 1))
    with pytest.raises(ManifestError, match="the ids patientId stand in several rows that differ"):
        import_layout(folder, "rsna_pneumonia")


def test_siim_run_lengths_become_masks(tmp_path: Path) -> None:
    uids = [f"1.2.276.0.7230010.3.1.4.8323329.{n}.1517875163.537052" for n in range(300, 310)]
    runs = {uids[0]: ["1000 3 1021 4"], uids[4]: ["0 2", "4 1"]}
    table = ["ImageId, EncodedPixels"]
    for uid in uids:
        table += [f"{uid}, {run}" for run in runs.get(uid, ["-1"])]
    images = [f"dicom-images-train/1.2.{n}/1.3.{n}/{uid}.dcm" for n, uid in enumerate(uids)]
    folder = release(tmp_path / "siim", {"train-rle.csv": "\n".join(table)}, images)
    columns = Columns(["pneumothorax"], mask="mask")
    rows, manifest, _ = taken(folder, "siim_pneumothorax", columns)
    assert columns_of(rows, "pneumothorax") == [("1",), *[("0",)] * 3, ("1",), *[("0",)] * 5]
    assert columns_of(rows, "image", "patient_id") == [(f"{uid}.dcm", uid) for uid in uids]
    assert [case.image.parent.name for case in manifest.cases[:2]] == ["1.3.0", "1.3.1"]
    masks = [np.asarray(Picture.open(case.mask)) for case in manifest.cases if case.mask]
    assert len(masks) == 10
    # Down the columns of 1024: pixels 1000 to 1002; 1021 pixels later, from 1003 + 1021 = 2024 on.
    expected = [(1000, 0), (1001, 0), (1002, 0), (1000, 1), (1001, 1), (1002, 1), (1003, 1)]
    assert sorted(map(tuple, np.argwhere(masks[0]).tolist())) == sorted(expected)
    assert np.argwhere(masks[4]).tolist() == [[0, 0], [1, 0], [4, 0]]  # two rows of one film
    assert not masks[1].any()


@pytest.mark.parametrize(
    ("run", "message"),
    [("5 x", "no pairs of whole numbers"), ("5", "no pairs"), ("1048575 2", "leaves the image")],
)
def test_run_lengths_that_cannot_be_are_faults(tmp_path: Path, run: str, message: str) -> None:
    table = f"ImageId, EncodedPixels\n1.2.3, {run}\n"
    folder = release(tmp_path / "s", {"train-rle.csv": table}, ["dicom-images-train/a/b/1.2.3.dcm"])
    with pytest.raises(ManifestError, match=message):
        import_layout(folder, "siim_pneumothorax")


def drawn(*places: tuple[int, int]) -> bytes:
    """A PNG of 8 x 8 pixels, white at some places."""
    array = np.zeros((8, 8), np.uint8)
    for row, column in places:
        array[row, column] = 255
    file = io.BytesIO()
    Picture.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_montgomery_unites_left_and_right(tmp_path: Path) -> None:
    stems = [f"MCUCXR_{n:04d}_{int(n > 6)}" for n in range(1, 11)]
    tables: dict[str, str | bytes] = {}
    for n, stem in enumerate(stems):
        reading = "normal" if stem.endswith("0") else "infiltrates in RUL\nconsistent with TB"
        sex = "O" if n == 3 else "FM"[n % 2]
        tables[f"ClinicalReadings/{stem}.txt"] = (
            f"Patient's Sex: {sex} \r\nPatient's Age: 0{20 + n}Y\r\n{reading}"
        )
        tables[f"ManualMask/leftMask/{stem}.png"] = drawn((2, 6))
        tables[f"ManualMask/rightMask/{stem}.png"] = drawn((2, 1), (3, 1))
    images = [f"CXR_png/{stem}.png" for stem in stems]
    images += ["CXR_png/Thumbs.db", "NLM-MontgomeryCXRSet-ReadMe.pdf"]
    folder = release(tmp_path / "MontgomerySet", tables, images)
    rows, manifest, _ = taken(folder, "montgomery", Columns(["tuberculosis"], mask="mask"))
    assert columns_of(rows, "image", "patient_id", "tuberculosis", "age", "sex", "reading") == [
        (
            f"{stem}.png",
            stem[:-2],
            stem[-1],
            str(20 + n),
            "" if n == 3 else "FM"[n % 2],
            "normal" if n < 6 else "infiltrates in RUL",
        )
        for n, stem in enumerate(stems)
    ]
    mask = np.asarray(Picture.open(manifest.cases[0].mask))
    assert np.argwhere(mask == 1).tolist() == [[2, 1], [3, 1]]
    assert np.argwhere(mask == 2).tolist() == [[2, 6]]
    assert manifest.meanings["2"] == "left lung"
    (folder / f"ManualMask/leftMask/{stems[0]}.png").unlink()
    with pytest.raises(ManifestError, match="the mask of label 2 is not there, that of others is"):
        import_layout(folder, "montgomery")


def test_shenzhen_readings_as_people_wrote_them(tmp_path: Path) -> None:
    readings = {
        "CHNCXR_0001_0": ("male 45yrs\nnormal", "45Y", "M", "normal"),
        "CHNCXR_0044_0": ("femal 32yrs\nnormal", "32Y", "F", "normal"),
        "CHNCXR_0115_0": ("male 16month\nnormal", "16M", "M", "normal"),
        "CHNCXR_0202_0": ("female 64days\nnormal", "64D", "F", "normal"),
        "CHNCXR_0300_0": ("Female, 28yrs\nnormal", "28Y", "F", "normal"),
        "CHNCXR_0301_0": ("female24yrs\nnormal", "24Y", "F", "normal"),
        "CHNCXR_0327_1": ("male , 29yrs  \t\nbilateral PTB", "29Y", "M", "bilateral PTB"),
        "CHNCXR_0328_1": ("male 42\nSTB", "", "M", "STB"),
        "CHNCXR_0329_1": ("female 35yr\nPTB in the left upper field", "35Y", "F", None),
        "CHNCXR_0330_1": ("male 63yrs\nright PTB", "63Y", "M", "right PTB"),
    }
    tables: dict[str, str | bytes] = {
        f"ClinicalReadings/{stem}.txt": text for stem, (text, *_) in readings.items()
    }
    tables["mask/CHNCXR_0327_1_mask.png"] = drawn((1, 1))
    images = [f"CXR_png/{stem}.png" for stem in readings]
    folder = release(tmp_path / "ChinaSet_AllFiles", tables, images)
    rows, manifest, _ = taken(folder, "shenzhen", Columns(["tuberculosis"], mask="mask"))
    for row, (stem, (_, age, sex, reading)) in zip(rows, readings.items(), strict=True):
        assert (row["image"], row["age"], row["sex"]) == (f"CXR_png/{stem}.png", age, sex)
        assert row["tuberculosis"] == stem[-1]
        assert reading is None or row["reading"] == reading
    assert [case.mask.name for case in manifest.cases if case.mask] == ["CHNCXR_0327_1_mask.png"]


def test_kermany_takes_patients_from_names(tmp_path: Path) -> None:
    films = {
        "train/NORMAL/IM-0115-0001.jpeg": ("train-IM-0115", "train", "0", ""),
        "train/NORMAL/NORMAL2-IM-1094-0001-0002.jpeg": ("train-NORMAL2-IM-1094", "train", "0", ""),
        "train/PNEUMONIA/person1_bacteria_1.jpeg": ("train-person1", "train", "1", "bacteria"),
        "train/PNEUMONIA/person1_bacteria_2.jpeg": ("train-person1", "train", "1", "bacteria"),
        "train/PNEUMONIA/person544_virus_1080.jpeg": ("train-person544", "train", "1", "virus"),
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg": ("train-NORMAL2-IM-1427", "val", "0", ""),
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg": ("train-person1946", "val", "1", "bacteria"),
        "test/NORMAL/IM-0001-0001.jpeg": ("test-IM-0001", "test", "0", ""),
        "test/PNEUMONIA/person1_virus_6.jpeg": ("test-person1", "test", "1", "virus"),
        "test/PNEUMONIA/person100_bacteria_475.jpeg": ("test-person100", "test", "1", "bacteria"),
    }
    images = [f"chest_xray/{name}" for name in films] + ["chest_xray/train/NORMAL/.DS_Store"]
    folder = release(tmp_path / "kaggle", {}, images)
    rows, _, _ = taken(folder, "kermany_pneumonia", Columns(["pneumonia"]))
    found = {row["image"].removeprefix("chest_xray/"): row for row in rows}
    assert {
        name: (row["patient_id"], row["split"], row["pneumonia"], row["cause"])
        for name, row in found.items()
    } == films


# ------------------------------------------------------------------ other images


def test_mura_has_tables_without_headers(tmp_path: Path) -> None:
    top = "MURA-v1.1"
    train = [
        f"{top}/train/XR_SHOULDER/patient00001/study1_positive/image1.png",
        f"{top}/train/XR_SHOULDER/patient00001/study1_positive/image2.png",
        f"{top}/train/XR_WRIST/patient00006/study1_negative/image1.png",
        f"{top}/train/XR_HAND/patient00009/study1_positive/image1.png",
        f"{top}/train/XR_HAND/patient00009/study2_negative/image1.png",
    ]
    valid = [
        f"{top}/valid/XR_WRIST/patient11185/study1_positive/image1.png",
        f"{top}/valid/XR_WRIST/patient11185/study1_positive/image2.png",
        f"{top}/valid/XR_FOREARM/patient11186/study1_negative/image1.png",
    ]
    folder = release(
        tmp_path / "d",
        {
            f"{top}/train_image_paths.csv": "\n".join(train) + "\n",
            f"{top}/valid_image_paths.csv": "\n".join(valid) + "\n",
        },
        [*train, *valid],
    )
    columns = Columns(["abnormal"], exam="study_id")
    rows, manifest, _ = taken(folder, "mura", columns)
    assert columns_of(rows, "patient_id", "study_id", "split", "body_part", "abnormal") == [
        ("patient00001", "XR_SHOULDER/patient00001/study1", "train", "SHOULDER", "1"),
        ("patient00001", "XR_SHOULDER/patient00001/study1", "train", "SHOULDER", "1"),
        ("patient00006", "XR_WRIST/patient00006/study1", "train", "WRIST", "0"),
        ("patient00009", "XR_HAND/patient00009/study1", "train", "HAND", "1"),
        ("patient00009", "XR_HAND/patient00009/study2", "train", "HAND", "0"),
        ("patient11185", "XR_WRIST/patient11185/study1", "val", "WRIST", "1"),
        ("patient11185", "XR_WRIST/patient11185/study1", "val", "WRIST", "1"),
        ("patient11186", "XR_FOREARM/patient11186/study1", "val", "FOREARM", "0"),
    ]
    assert len({case.exam for case in manifest.cases}) == 6


def test_bone_age_with_its_validation_set(tmp_path: Path) -> None:
    train = "id,boneage,male\n" + "".join(
        f"{n},{n - 1300},{'True' if n % 2 else 'False'}\n" for n in range(1377, 1384)
    )
    valid = "Image ID,male,Bone Age (months)\n1386,TRUE,30\n1392,FALSE,162\n1397,TRUE,18\n"
    folder = release(
        tmp_path / "rsna",
        {
            "boneage-training-dataset.csv": train,
            "Bone Age Validation Set/Validation Dataset.csv": valid,
        },
        [
            *(f"boneage-training-dataset/{n}.png" for n in range(1377, 1384)),
            "Bone Age Validation Set/boneage-validation-dataset-1/1386.png",
            "Bone Age Validation Set/boneage-validation-dataset-1/1392.png",
            "Bone Age Validation Set/boneage-validation-dataset-2/1397.png",
        ],
    )
    rows, manifest, _ = taken(folder, "rsna_boneage", Columns(["boneage_months"], strata=["sex"]))
    assert columns_of(rows, "image", "boneage_months", "sex", "patient_id", "split") == [
        *(
            (f"{n}.png", str(n - 1300), "M" if n % 2 else "F", f"rsna-{n}", "train")
            for n in range(1377, 1384)
        ),
        ("1386.png", "30", "M", "rsna-1386", "val"),
        ("1392.png", "162", "F", "rsna-1392", "val"),
        ("1397.png", "18", "M", "rsna-1397", "val"),
    ]
    assert manifest.units == {"boneage_months": "months"}


def test_busi_unites_the_masks_of_one_image(tmp_path: Path) -> None:
    tables: dict[str, str | bytes] = {}
    for kind, number in [("benign", 4), ("malignant", 4), ("normal", 2)]:
        for n in range(1, number + 1):
            tables[f"{kind}/{kind} ({n}).png"] = drawn()
            tables[f"{kind}/{kind} ({n})_mask.png"] = drawn(*[(1, 1)] * (kind != "normal"))
    tables["benign/benign (4)_mask_1.png"] = drawn((5, 5))
    folder = release(
        tmp_path / "d", {f"Dataset_BUSI_with_GT/{name}": b for name, b in tables.items()}
    )
    rows, manifest, _ = taken(folder, "busi", Columns(["class"], mask="mask"))
    assert columns_of(rows, "image", "patient_id", "class") == [
        (f"{kind} ({n}).png", f"{kind}-{n}", kind)
        for kind, number in [("benign", 4), ("malignant", 4), ("normal", 2)]
        for n in range(1, number + 1)
    ]
    masks = {case.image.name: np.asarray(Picture.open(case.mask)) for case in manifest.cases}
    assert np.argwhere(masks["benign (4).png"]).tolist() == [[1, 1], [5, 5]]
    assert np.argwhere(masks["benign (1).png"]).tolist() == [[1, 1]]
    assert masks["benign (1).png"].max() == 1
    assert not masks["normal (1).png"].any()


def test_isic_2019_is_one_hot_and_grouped_by_lesion(tmp_path: Path) -> None:
    codes = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK", "NV"]
    header = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
    truth, meta = [header], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    images = []
    for n, code in enumerate(codes):
        name = f"ISIC_000000{n}{'_downsampled' if n == 1 else ''}"
        hot = ["1.0" if column == code else "0.0" for column in header.split(",")[1:]]
        truth.append(",".join([name, *hot]))
        lesion = "" if n in (0, 2) else f"MSK4_00{n if n != 9 else 1}"
        age = "" if n == 3 else "55.0"
        meta.append(f"{name},{age},anterior torso,{lesion},{'female' if n % 2 else 'male'}")
        images.append(f"ISIC_2019_Training_Input/{name}.jpg")
    meta[-1] = meta[-1].replace("female", "")
    folder = release(
        tmp_path / "isic",
        {
            "ISIC_2019_Training_GroundTruth.csv": "\n".join(truth),
            "ISIC_2019_Training_Metadata.csv": "\n".join(meta),
        },
        images,
    )
    rows, manifest, _ = taken(folder, "isic2019", Columns(["diagnosis"]))
    assert columns_of(rows, "image", "patient_id", "diagnosis", "melanoma", "age", "sex") == [
        ("ISIC_0000000.jpg", "ISIC_0000000", "melanoma", "1", "55", "M"),
        ("ISIC_0000001_downsampled.jpg", "MSK4_001", "naevus", "0", "55", "F"),
        ("ISIC_0000002.jpg", "ISIC_0000002", "basal cell carcinoma", "0", "55", "M"),
        ("ISIC_0000003.jpg", "MSK4_003", "actinic keratosis", "0", "", "F"),
        ("ISIC_0000004.jpg", "MSK4_004", "benign keratosis", "0", "55", "M"),
        ("ISIC_0000005.jpg", "MSK4_005", "dermatofibroma", "0", "55", "F"),
        ("ISIC_0000006.jpg", "MSK4_006", "vascular lesion", "0", "55", "M"),
        ("ISIC_0000007.jpg", "MSK4_007", "squamous cell carcinoma", "0", "55", "F"),
        ("ISIC_0000008.jpg", "MSK4_008", "none of these", "0", "55", "M"),
        ("ISIC_0000009.jpg", "MSK4_001", "naevus", "0", "55", ""),
    ]
    assert len({case.patient_id for case in manifest.cases}) == 9
    release(
        folder, {"ISIC_2019_Training_GroundTruth.csv": "\n".join(truth).replace("1.0", "0.0", 1)}
    )
    with pytest.raises(ManifestError, match=r"row 2: 0 of the columns .* hold 1; expected exactly"):
        import_layout(folder, "isic2019")


def test_ham10000(tmp_path: Path) -> None:
    codes = ["bkl", "bkl", "nv", "mel", "df", "vasc", "bcc", "akiec", "nv", "nv"]
    lesions = [f"HAM_000{n if n > 1 else 0}118" for n in range(10)]
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    images = []
    for n, (lesion, code) in enumerate(zip(lesions, codes, strict=True)):
        sex = "unknown" if n == 5 else "male"
        rows.append(f"{lesion},ISIC_002741{n},{code},histo,{'' if n == 6 else '80.0'},{sex},scalp")
        images.append(f"HAM10000_images_part_{1 + n % 2}/ISIC_002741{n}.jpg")
    folder = release(tmp_path / "ham", {"HAM10000_metadata.csv": "\n".join(rows)}, images)
    made, manifest, _ = taken(folder, "ham10000", Columns(["diagnosis"]))
    full = [
        *("benign keratosis", "benign keratosis", "naevus", "melanoma", "dermatofibroma"),
        *("vascular lesion", "basal cell carcinoma", "actinic keratosis", "naevus", "naevus"),
    ]
    assert columns_of(made, "image", "patient_id", "diagnosis", "age", "sex") == [
        (
            f"ISIC_002741{n}.jpg",
            lesions[n],
            full[n],
            "" if n == 6 else "80",
            "" if n == 5 else "M",
        )
        for n in range(10)
    ]
    assert len({case.patient_id for case in manifest.cases}) == 9


def test_aptos_2019(tmp_path: Path) -> None:
    ids = [f"000c1434d8d{n}" for n in range(10)]
    table = "id_code,diagnosis\n" + "".join(f"{one},{n % 5}\n" for n, one in enumerate(ids))
    tables: dict[str, str | bytes] = {"train.csv": table, "test.csv": "id_code\n0005cfc8afb6\n"}
    folder = release(tmp_path / "aptos", tables, [f"train_images/{one}.png" for one in ids])
    rows, _, _ = taken(folder, "aptos2019", Columns(["grade"]))
    assert columns_of(rows, "image", "patient_id", "grade", "referable") == [
        (f"{one}.png", one, str(n % 5), str(int(n % 5 > 1))) for n, one in enumerate(ids)
    ]


def npz(**arrays: Any) -> bytes:
    """The bytes of an archive of arrays."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def medmnist(images: Any, labels: Any) -> bytes:
    """An archive of MedMNIST: six images train, two validate, two test."""
    parts = {"train": slice(0, 6), "val": slice(6, 8), "test": slice(8, 10)}
    return npz(
        **{f"{part}_images": images[cut] for part, cut in parts.items()},
        **{f"{part}_labels": labels[cut] for part, cut in parts.items()},
    )


def test_medmnist_writes_the_images_of_its_arrays(tmp_path: Path) -> None:
    grey = np.arange(10 * 28 * 28, dtype=np.uint64).reshape(10, 28, 28).astype(np.uint8)
    labels = (np.arange(10)[:, None] % 2).astype(np.uint8)
    folder = release(tmp_path / "m", {"pneumoniamnist.npz": medmnist(grey, labels)})
    rows, manifest, _ = taken(folder, "medmnist", Columns(["label"]))
    parts = [*["train"] * 6, *["val"] * 2, *["test"] * 2]
    numbers = [*range(6), 0, 1, 0, 1]
    assert columns_of(rows, "image", "patient_id", "split", "label") == [
        (
            f"{part}_{number:06d}.png",
            f"{part}-{number:06d}",
            part,
            ("normal", "pneumonia")[int(labels[i, 0])],
        )
        for i, (part, number) in enumerate(zip(parts, numbers, strict=True))
    ]
    for case, array in zip(manifest.cases, grey, strict=True):
        np.testing.assert_array_equal(np.asarray(Picture.open(case.image)), array)


def test_medmnist_in_colour_in_three_dimensions_and_with_several_findings(tmp_path: Path) -> None:
    several = np.zeros((10, 14), np.uint8)
    several[0, [1, 13]] = 1
    small = np.zeros((10, 28, 28), np.uint8)
    folder = release(tmp_path / "c", {"chestmnist_224.npz": medmnist(small, several)})
    rows, _, _ = taken(
        folder, "medmnist", Columns(["cardiomegaly", "hernia"], listed_in="label", separator="|")
    )
    assert [row["label"] for row in rows[:2]] == ["cardiomegaly|hernia", "no finding"]
    grades = (np.arange(10)[:, None] % 5).astype(np.uint8)
    colour = np.full((10, 28, 28, 3), 7, np.uint8)
    folder = release(tmp_path / "r", {"retinamnist.npz": medmnist(colour, grades)})
    (tmp_path / "elsewhere" / "m.csv").unlink()
    rows, manifest, _ = taken(folder, "medmnist", Columns(["label"]))
    assert [row["label"] for row in rows] == [str(n % 5) for n in range(10)]
    assert np.asarray(Picture.open(manifest.cases[0].image)).shape == (28, 28, 3)
    volumes = np.random.default_rng(0).integers(0, 255, (10, 4, 5, 6)).astype(np.uint8)
    folder = release(tmp_path / "v", {"nodulemnist3d.npz": medmnist(volumes, grades % 2)})
    (tmp_path / "elsewhere" / "m.csv").unlink()
    rows, manifest, _ = taken(folder, "medmnist", Columns(["label"]))
    from medtl.io.read import read_image

    read = read_image(manifest.cases[3].image)
    np.testing.assert_array_equal(read.array[0], volumes[3].astype(np.float32))
    assert rows[3]["label"] == "malignant"


def test_archives_of_arrays_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    grey = np.zeros((10, 28, 28), np.uint8)
    labels = np.zeros((10, 1), np.uint8)
    empty = release(tmp_path / "e", {"note.txt": ""})
    with pytest.raises(ManifestError, match=r"not laid out like that.*expected \{name\}\.npz"):
        import_layout(empty, "medmnist")
    two = release(tmp_path / "2", {n: medmnist(grey, labels) for n in ("a.npz", "b.npz")})
    with pytest.raises(ManifestError, match="2 archives of arrays"):
        import_layout(two, "medmnist")
    for name, content, message in [
        ("other.npz", npz(x=grey), "no archive with the arrays train_images"),
        ("cut.npz", medmnist(grey, labels)[:200], "no archive with the arrays"),
        (
            "pathmnist.npz",
            medmnist(grey.astype(np.float32), labels),
            "expected as many 8-bit images",
        ),
        ("octmnist.npz", medmnist(grey, labels + 9), "has no meaning.*Seen: '9'"),
        ("newmnist.npz", medmnist(grey, labels), "'newmnist' is unknown"),
    ]:
        folder = release(tmp_path / name, {name: content})
        with pytest.raises(ManifestError, match=message):
            import_layout(folder, "medmnist")


def test_lidc_by_the_listing_of_tcia(tmp_path: Path) -> None:
    import openpyxl

    header = (
        "Series UID,Collection,3rd Party Analysis,Data Description URI,Subject ID,Study UID,"
        "Study Description,Study Date,Series Description,Manufacturer,Modality,SOP Class Name,"
        "SOP Class UID,Number of Images,File Size,File Location,Download Timestamp"
    )
    lines, images = [header], []
    for n in range(10):
        subject = f"LIDC-IDRI-{n // 2 + 68:04d}"
        kind = "CT" if n % 2 == 0 else ("DX", "SEG")[n % 3 % 2]
        place = rf".\LIDC-IDRI\{subject}\01-01-2000-{n:05d}\3000566.000000-0{n}"
        lines.append(
            f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{n},LIDC-IDRI,NO,https://doi.org/10.7937/x,"
            f"{subject},1.3.6.{n},,01-01-2000,,GE MEDICAL SYSTEMS,{kind},CT Image Storage,"
            f'1.2.840.10008.5.1.4.1.1.2,133,"70,02 MB",{place},2021-06-07T17:41:49.963'
        )
        images.append(f"{place[2:]}/1-001.dcm".replace("\\", "/"))
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    patient = "Diagnosis at the Patient Level\n0=Unknown\n1=benign or non-malignant disease\n"
    patient += "2= malignant, primary lung cancer\n3 = malignant metastatic\n"
    sheet.append(["TCIA Patient ID", patient, "Diagnosis Method\n0 = unknown"])
    for subject, level in [(68, 3), (69, 1), (70, 0), (71, 2)]:
        sheet.append([f"LIDC-IDRI-{subject:04d}", level, 1])
    file = io.BytesIO()
    book.save(file)
    tables: dict[str, str | bytes] = {
        "metadata.csv": "\n".join(lines),
        "tcia-diagnosis-data-2012-04-20.xlsx": file.getvalue(),
    }
    folder = release(tmp_path / "manifest-1600709154662", tables, images)
    rows, manifest, notes = taken(folder, "lidc_idri", Columns(["malignant"]))
    assert columns_of(rows, "patient_id", "modality", "malignant", "slices") == [
        ("LIDC-IDRI-0068", "CT", "1", "133"),
        ("LIDC-IDRI-0069", "CT", "0", "133"),
        ("LIDC-IDRI-0070", "CT", "", "133"),
        ("LIDC-IDRI-0071", "CT", "1", "133"),
        ("LIDC-IDRI-0072", "CT", "", "133"),
    ]
    assert rows[0]["image"] == images[0].rsplit("/", 1)[0]
    assert manifest.cases[0].image.is_dir()
    assert any(note.startswith("2 rows have no row in tcia-diagnosis") for note in notes)
    (folder / "tcia-diagnosis-data-2012-04-20.xlsx").unlink()
    assert {row["malignant"] for row in import_layout(folder, "lidc_idri").rows} == {""}


# ------------------------------------------------------------------ what goes wrong


def test_a_wrong_folder_says_what_a_layout_expects(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match=r"not laid out like that.*expected train\.csv, valid\.csv"
    ):
        import_layout(nih(tmp_path / "nih"), "chexpert")
    with pytest.raises(ManifestError, match=r"no such layout.*Did you mean 'chexpert'"):
        import_layout(tmp_path, "chexprt")
    folder = chexpert(tmp_path / "c")
    (folder / "CheXpert-v1.0-small" / "valid.csv").unlink()
    with pytest.raises(ManifestError, match=r"expected train\.csv, valid\.csv"):
        import_layout(folder, "chexpert")


def test_a_table_that_a_join_needs_is_missed_by_name(tmp_path: Path) -> None:
    folder = rsna(tmp_path / "r")
    (folder / "stage_2_detailed_class_info.csv").unlink()
    with pytest.raises(ManifestError, match=r"the table is not there; expected one of stage_2_det"):
        import_layout(folder, "rsna_pneumonia")


def test_unknown_values_are_counted(tmp_path: Path) -> None:
    more = [f"patient0009{n}/study1/view1_frontal.jpg,Male,41,Frontal,AP,,,2.0" for n in range(4)]
    folder = chexpert(tmp_path / "c", *(f"{row},,,,,,,,,,," for row in more))
    with pytest.raises(ManifestError) as caught:
        import_layout(folder, "chexpert")
    assert "4 rows: a value of the column Cardiomegaly has no meaning" in str(caught.value)
    assert "Seen: '2.0' (4)" in str(caught.value)
    table = "\n".join([NIH_HEADER, *NIH_ROWS]).replace("Hernia", "Herniation")
    with pytest.raises(ManifestError, match=r"an unknown finding.*Seen: 'Herniation'") as caught:
        import_layout(nih(tmp_path / "n", **{"Data_Entry_2017.csv": table}), "nih_chestxray14")


def test_a_patient_in_two_official_splits_is_a_leak_with_counts(tmp_path: Path) -> None:
    test = "\n".join([*NIH_TEST[1:], "00000007_000.png"])
    train = "\n".join(
        row.split(",")[0] for row in NIH_ROWS if row.split(",")[0] not in test.split("\n")
    )
    lists = {"train_val_list.txt": train, "test_list.txt": test}
    with pytest.raises(LeakError) as caught:
        import_layout(nih(tmp_path / "n", **lists), "nih_chestxray14")
    assert (
        "1 patients stand in two official splits (test and train), with 2 images (rows 5, 6)"
        in str(caught.value)
    )
    both = {**lists, "test_list.txt": f"{test}\n00000001_000.png"}
    with pytest.raises(ManifestError, match=r"test_list\.txt says another part than the tables"):
        import_layout(nih(tmp_path / "b", **both), "nih_chestxray14")
    none = {**lists, "test_list.txt": NIH_TEST[2]}
    with pytest.raises(
        ManifestError, match=r"2 of 10 images are in no official split \(rows 6, 10\)"
    ):
        import_layout(nih(tmp_path / "0", **none), "nih_chestxray14")


def test_a_partial_download_is_said_with_counts(tmp_path: Path) -> None:
    folder = nih(tmp_path / "n")
    for path in (folder / "images_001").rglob("*.png"):
        path.unlink()
    rows, _, notes = taken(folder, "nih_chestxray14", Columns(["mass"]))
    assert len(rows) == 5
    (said,) = [note for note in notes if "partial" in note]
    assert said == (
        "partial download: 5 of 10 images are not there (first images/00000001_000.png); "
        "5 are taken (train 4 of 7, test 1 of 3)"
    )
    (folder / "images_002/images/00000004_000.png").unlink()
    with pytest.raises(ManifestError, match=r"6 of 10 images are not there.*--partial takes the 4"):
        import_layout(folder, "nih_chestxray14")
    assert len(import_layout(folder, "nih_chestxray14", takes=Takes(partial=True)).rows) == 4
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(ManifestError, match="10 of 10 images are not there"):
        import_layout(folder, "nih_chestxray14", takes=Takes(partial=True))


def test_releases_with_one_official_part_leave_the_parts_to_a_run(tmp_path: Path) -> None:
    folder = rsna(tmp_path / "r")
    found = import_layout(folder, "rsna_pneumonia")
    assert "split" not in found.rows[0]
    train = tmp_path / "b"
    release(train, {"train.csv": "id,boneage,male\n1,2,True\n"}, ["images/1.png"])
    found = import_layout(train, "rsna_boneage")
    assert "all images are of the official train part: a run makes the parts" in found.notes
    assert "split" not in found.rows[0]


def test_a_manifest_lies_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = rsna(tmp_path / "data" / "rsna")
    found = import_layout(folder, "rsna_pneumonia_boxes")
    for out in (folder / "m.csv", tmp_path / "m.csv", tmp_path / "other" / "m.csv"):
        out.parent.mkdir(exist_ok=True)
        assert write_imported(found, folder, out) == 8
        manifest = read_manifest(out, Columns(["pneumonia"], mask="mask"), salt=b"test")
        assert len(manifest.cases) == 8
        assert manifest.cases[0].mask == out.parent / "m_masks" / manifest.cases[0].mask.name
    with pytest.raises(ManifestError, match="the manifest exists"):
        write_imported(found, folder, tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": {"fom": "x"}}, "unknown key 'fom' of findings.*Did you mean 'from'"),
        ({"rows": [{"tabel": "t.csv"}]}, "unknown key 'tabel' of rows"),
        ({"join": [{"table": "t.csv", "onn": ["id"]}]}, "unknown key 'onn' of join"),
        ({"mask": {"rel": "x"}}, "unknown key 'rel' of a mask"),
        ({"columns": {"a": {"from": "id", "mach": "x"}}}, "unknown key 'mach' of a column"),
        ({"columns": {"a": {"from": ["id"], "several": "most"}}}, "several: most; expected one of"),
        ({"where": "view in [AP]"}, "no column 'view' to choose rows by"),
        ({"rows": [{"table": "t.csv", "header": ["a", "b"]}]}, "1 columns; expected 2: a, b"),
        ({"columns": {"a": {"from": ["id"], "match": "x(.)"}}}, "the column id is not of the form"),
        ({"join": [{"text": "{id}.txt", "match": "x"}]}, "the text of the image is not there"),
        ({"join": [{"text": "note.txt", "match": "x"}]}, "note.txt is not of the form x"),
        ({"join": [{"table": "u.csv", "on": ["id"]}]}, "no row of u.csv has its id"),
        ({"image": "*.png"}, "2 files are called"),
    ],
)
def test_descriptions_that_are_wrong_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    from medtl.storage.yaml import dump_yaml

    tables: dict[str, str | bytes] = {"t.csv": "id\n7\n", "u.csv": "id\n8\n", "note.txt": "y"}
    folder = release(tmp_path / "d", tables, ["i.png", "j.png"])
    spec = {"rows": [{"table": "t.csv"}], "image": "i.png", "columns": {"n": "{id}"}, **change}
    (tmp_path / "spec.yaml").write_text(dump_yaml(spec))
    with pytest.raises(ManifestError, match=message):
        import_layout(folder, tmp_path / "spec.yaml")


def test_tables_in_gzip_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"id\n" + b"1\n" * 5000))
    assert len(read_table(path).rows) == 5000
    monkeypatch.setattr("medtl.storage.tables.MAX_BYTES", 4096)
    with pytest.raises(ManifestError, match="more than 0 MiB when unpacked"):
        read_table(path)
    path.write_bytes(b"id\n1\n")
    with pytest.raises(ManifestError, match="no gzip file that can be read"):
        read_table(path)


# ------------------------------------------------------------------ the shelf


def test_every_data_set_says_where_it_is_from_and_what_was_tried() -> None:
    assert len(names()) >= 18
    for name in names():
        told = about(name)
        assert {*told} == {"title", *ABOUT_KEYS}
        assert all(text.strip() for text in told.values()), name
        assert "http" in told["ask"], name
    assert shipped("no_such_set") is None
    with pytest.raises(ManifestError, match=r"no such data set.*Did you mean 'chexpert'"):
        about("chexper")


def test_the_command_line_lists_and_imports(tmp_path: Path, capsys: Any) -> None:
    from medtl.cli.manifest_commands import manifest_import, manifest_layouts

    manifest_layouts(None)
    listed = capsys.readouterr().out
    assert all(name in listed for name in names())
    manifest_layouts("mimic_cxr_jpg")
    shown = capsys.readouterr().out
    assert "Credentialed" in shown
    assert "tried: a made-up release" in shown
    out = tmp_path / "out" / "m.csv"
    out.parent.mkdir()
    manifest_import(chexpert(tmp_path / "d"), "chexpert", out)
    assert "8 rows: " in capsys.readouterr().out
    manifest_import(rsna(tmp_path / "r"), "rsna_pneumonia_boxes", tmp_path / "out" / "r.csv")
    assert "8 files were made for it, in r_images or r_masks" in capsys.readouterr().out
