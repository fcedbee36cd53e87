"""From a hospital's folder and sheet to a checked study in two commands."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from make_dicom import write
from PIL import Image as Pillow

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.errors import ManifestError, MedtlError
from medtl.run.build import build_manifest, build_task
from medtl.run.check import read_recipe
from medtl.run.init import Answers, stage_lines, write_starter
from medtl.storage.yaml import scalar

IMAGES, PATIENTS = 200, 110
WORDS = ("ja", "nein", "unklar")


def patient_of(number: int) -> int:
    return number if number < PATIENTS else number - PATIENTS


def truth_of(number: int) -> str:
    """Label of a film: by accession number, so two films of a patient may differ."""
    return WORDS[0 if number % 3 == 0 else 2 if number % 20 == 1 else 1]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 films of 110 patients in folders named after them, and what lies about in archives."""
    root = tmp_path_factory.mktemp("hospital") / "Röntgen"
    for number in range(IMAGES):
        patient = patient_of(number)
        folder = root / f"Meier, Ärmin {patient:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 4000, (24, 20)).astype(np.uint16)
        is_lateral, is_inverted = number % 8 == 7, number % 5 == 0
        write(
            folder / f"IM{number:04d}",
            pixels,
            PatientID=f"PID{patient:05d}",
            AccessionNumber=f"{number:07d}",
            StudyInstanceUID=f"1.2.3.{number + 1}",
            SeriesInstanceUID=f"1.2.3.{number + 1}.1",
            SOPInstanceUID=f"1.2.3.{number + 1}.1.1",
            ViewPosition="LL" if is_lateral else "PA",
            PhotometricInterpretation="MONOCHROME1" if is_inverted else "MONOCHROME2",
        )
    first = root / "Meier, Ärmin 000"
    (first / "kaputt.dcm").write_bytes((first / "IM0000").read_bytes()[:300])
    (first / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(64))
    (first / "._IM0000").write_bytes(b"\0\5\26\7" + bytes(40))
    (first / "Befund.txt").write_text("siehe Akte")
    Pillow.fromarray(np.zeros((30, 30), np.uint8)).save(first / "foto.png")
    return root


def sheet_rows(header: tuple[str, ...], words: dict[str, str]) -> list[list[str]]:
    rows = [[f"{n}", words[truth_of(n)], f"Meier {n}"] for n in range(IMAGES - 4)]
    return [
        list(header),
        *rows,
        ["990001", words["ja"], "Fremd"],
        ["990002", words["nein"], "Fremd"],
    ]


GERMAN = sheet_rows(("Untersuchungsnr", "Pneumonie", "Größe"), {w: w for w in WORDS})
KOREAN = sheet_rows(
    ("검사번호", "폐렴", "이름"), {"ja": "양성", "nein": "음성", "unklar": "불확실"}
)


def write_sheet(folder: Path, kind: str) -> tuple[Path, str, str]:
    """A sheet, its key column and its target column."""
    rows = KOREAN if "korean" in kind else GERMAN
    path = folder / f"liste.{'xlsx' if 'xlsx' in kind else 'csv'}"
    if "xlsx" in kind:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append([int(row[0]) if row[0].isdigit() else row[0], *row[1:]])
        book.save(path)
    else:
        encoding = "cp949" if "korean" in kind else "latin-1"
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, delimiter=";").writerows(rows)
    return path, rows[0][0], rows[0][1]


@pytest.mark.parametrize("kind", ["latin1", "xlsx", "korean", "korean xlsx"])
def test_a_hospitals_sheet_and_tree_become_a_checked_study(
    kind: str, hospital: Path, tmp_path: Path
) -> None:
    sheet, key, target = write_sheet(tmp_path, kind)
    out = tmp_path / "study"
    before = sorted(hospital.rglob("*"))
    answers = Answers(target, labels=sheet, key=key, where="view in [AP, PA]")
    said = "\n".join(write_starter(hospital, out, answers))
    # What did not match is listed, on both sides, and no id is quoted.
    assert f"'{key}' is the accession number of the images: 196 of 200 images" in said
    assert "2 rows have no image: rows 198, 199" in said
    assert "4 images have no row and are left out" in said
    assert "without case, blanks and leading zeros" in said
    assert "990001" not in said
    assert "PID0" not in said
    # Nothing was written among the images, and every label is the right one, image by image.
    assert sorted(hospital.rglob("*")) == before
    recipe = read_recipe(out / "recipe.yaml")
    manifest = build_manifest(recipe)
    want = {"ja": "1", "nein": "0", "unklar": "-1"}
    frontal = [n for n in range(IMAGES - 4) if n % 8 != 7]
    assert len(manifest.cases) == len(frontal)
    for case in manifest.cases:
        number = int(case.image.name.removeprefix("IM"))
        assert number in frontal
        assert case.targets[target] == want[truth_of(number)], number
    of = {int(c.image.name.removeprefix("IM")): c.patient_id for c in manifest.cases}
    assert all(of[n] == of[n - PATIENTS] for n in of if n >= PATIENTS and n - PATIENTS in of)
    assert len({*of.values()}) == len({patient_of(n) for n in of})
    assert any("do not fulfil 'view in [AP, PA]'" in note for note in manifest.notes)


def test_images_without_a_row_are_listed_but_for_those_of_labelled_patients(
    hospital: Path, tmp_path: Path
) -> None:
    sheet, key, target = write_sheet(tmp_path, "latin1")
    lines = sheet.read_text("latin-1").splitlines()[:61]  # the films 0 to 59
    sheet.write_text("\n".join(lines), encoding="latin-1")
    out = tmp_path / "out"
    answers = Answers(target, labels=sheet, key=key, where="view in [AP, PA]", unlabelled=True)
    said = "\n".join(write_starter(hospital, out, answers))
    listed = read_manifest(out / "unlabelled.csv", Columns(ids="pseudonymous")).cases
    numbers = {int(case.image.name.removeprefix("IM")) for case in listed}
    frontal = {n for n in range(60, IMAGES) if n % 8 != 7}
    assert numbers == {n for n in frontal if patient_of(n) >= 60}
    assert f"Without labels: {len(numbers)} images of other patients" in said
    labelled = {case.patient_id for case in build_manifest(read_recipe(out / "recipe.yaml")).cases}
    assert not labelled & {case.patient_id for case in listed}


@pytest.mark.parametrize("where", [None, "view in [XX]"])
def test_no_image_to_list_is_an_error(where: str | None, hospital: Path, tmp_path: Path) -> None:
    sheet, key, target = write_sheet(tmp_path, "latin1")
    if where is None:  # the last rows have an image of their own then
        lines = sheet.read_text("latin-1").splitlines()
        more = [f"{n};nein;Meier" for n in range(IMAGES - 4, IMAGES)]
        sheet.write_text("\n".join([*lines, *more]), encoding="latin-1")
    answers = Answers(target, labels=sheet, key=key, where=where, unlabelled=True)
    with pytest.raises(ManifestError, match="without a row none is to be taken"):
        list(write_starter(hospital, tmp_path / "out", answers))
    assert not (tmp_path / "out").exists()


def test_read_only_data_are_no_obstacle(hospital: Path, tmp_path: Path) -> None:
    sheet, key, target = write_sheet(tmp_path, "latin1")
    folders = [hospital, *(path for path in hospital.iterdir() if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        said = list(
            write_starter(hospital, tmp_path / "out", Answers(target, labels=sheet, key=key))
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert said[-1].startswith("Next: medtl check")


def test_a_wrong_column_is_answered_with_the_right_one(hospital: Path, tmp_path: Path) -> None:
    sheet, key, target = write_sheet(tmp_path, "latin1")
    for answers, hint in (
        (Answers("pneumonie", labels=sheet, key=key), "Did you mean --target 'Pneumonie'"),
        (Answers(target, labels=sheet, key="untersuchungsnr"), "Did you mean --key"),
        (Answers(target, labels=sheet), "--key is not stated"),
        (Answers(target, labels=sheet, key=key, match="face"), "no image has a 'face'"),
    ):
        with pytest.raises(ManifestError) as caught:
            list(write_starter(hospital, tmp_path / "out", answers))
        assert hint in str(caught.value)
        assert not (tmp_path / "out").exists()


# -- folders of classes


def class_folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 255, (20, 20)).astype(np.uint8)
            Pillow.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_the_finding_of_class_folders_is_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", "Uninfected", "Parasitized")
    said = "\n".join(write_starter(root, tmp_path / "out"))
    assert "Recipe: positive: Parasitized    # the value that is the finding" in said
    assert not list(root.glob("*.csv"))
    text = (tmp_path / "out" / "recipe.yaml").read_text()
    (tmp_path / "out" / "recipe.yaml").write_text(text.replace("patient: false", "patient: true"))
    cases = build_manifest(read_recipe(tmp_path / "out" / "recipe.yaml")).cases
    assert {case.targets["label"] for case in cases} == {"Parasitized", "Uninfected"}


@pytest.mark.parametrize(
    ("column", "words", "name"),
    [
        ("Effusion", ("yes", "no"), "names: {Effusion: Effusion}"),
        ("befund", ("pos", "neg"), "names: {befund: befund}"),
        ("dx", ("Parasitized", "Uninfected"), None),  # the word names the finding
        ("label", ("yes", "no"), None),  # the column names nothing
    ],
)
def test_a_finding_that_is_called_yes_has_the_name_of_its_column(
    tmp_path: Path, column: str, words: tuple[str, str], name: str | None
) -> None:
    root = class_folders(tmp_path / "data", "x")
    rows = [f"x/{n}.png,P{n},{words[n % 2]}" for n in range(4)]
    (tmp_path / "data" / "t.csv").write_text(
        "\n".join([f"image,patient_id,{column}", *rows]) + "\n"
    )
    list(write_starter(root / "t.csv", tmp_path / "out", Answers(target=column)))
    text = (tmp_path / "out" / "recipe.yaml").read_text()
    assert f"positive: {scalar(words[0])}" in text
    assert ("names:" in text) == (name is not None)
    assert (name or "") in text
    recipe = read_recipe(tmp_path / "out" / "recipe.yaml")
    task = build_task(recipe, build_manifest(recipe).cases)
    assert task.labels == (column if name else words[0],)


def test_what_is_not_certain_is_asked_for_and_nothing_is_written(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", "AD", "CN")
    with pytest.raises(ManifestError, match="'AD' \\(4\\), 'CN' \\(4\\)") as caught:
        list(write_starter(root, tmp_path / "out"))
    assert "--positive AD or --positive CN" in str(caught.value)
    assert not (tmp_path / "out").exists()
    said = "\n".join(write_starter(root, tmp_path / "out", Answers(positive="AD")))
    assert "positive: AD" in said
    with pytest.raises(ManifestError, match="--positive 'XY' occurs in no row"):
        list(write_starter(root, tmp_path / "other", Answers(positive="XY")))


@pytest.mark.parametrize("column", ["Patient ID", "PatientID", "patient_id"])
def test_the_patients_of_a_sheet_are_kept(column: str, tmp_path: Path) -> None:
    films = class_folders(tmp_path / "films", "all")
    names = sorted(path.name for path in films.rglob("*.png"))
    lines = [
        f"Film,{column},Finding",
        *(f"{n},P{i // 2},{'yn'[i % 2]}" for i, n in enumerate(names)),
    ]
    (tmp_path / "sheet.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    answers = Answers("Finding", labels=tmp_path / "sheet.csv", key="Film", positive="y")
    said = "\n".join(write_starter(films, tmp_path / "out", answers))
    assert f"'{column}' of sheet.csv says who the patient is" in said
    assert "one_image_per_patient" not in said
    with (tmp_path / "out" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient_id"] for row in rows] == [f"P{i // 2}" for i in range(len(names))]


def test_a_sheet_without_patients_leaves_the_question_open(tmp_path: Path) -> None:
    films = class_folders(tmp_path / "films", "all")
    names = sorted(path.name for path in films.rglob("*.png"))
    lines = ["Film,Ward,Finding", *(f"{n},A,{'yn'[i % 2]}" for i, n in enumerate(names))]
    (tmp_path / "sheet.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    answers = Answers("Finding", labels=tmp_path / "sheet.csv", key="Film", positive="y")
    said = "\n".join(write_starter(films, tmp_path / "out", answers))
    assert "which images are of the same patient is not known" in said
    assert "one_image_per_patient: false" in said


def test_three_folders_are_classes(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", "normal", "covid, mild", "pneumonia")
    said = "\n".join(write_starter(root, tmp_path / "out"))
    assert 'classes: ["covid, mild", normal, pneumonia]' in said


def test_a_stray_picture_hides_no_dicom_files(hospital: Path, tmp_path: Path) -> None:
    said = "\n".join(_until_error(write_starter(hospital, tmp_path / "out")))
    assert "Found 200 images: DICOM headers were scanned" in said
    assert "Join it: --labels SHEET --key COLUMN --target COLUMN" in said


def _until_error(lines):
    try:
        yield from lines
    except MedtlError as error:
        yield str(error)


# -- tables among the images


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "table.csv",
            "Path,label\n0.png,1\n",
            "table.csv has no column 'image' (found Path, label)",
        ),
        ("TABLE.CSV", "image,image\n0.png,1\n", "TABLE.CSV cannot be used (duplicate column"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(
    name: str, text: str, reason: str, tmp_path: Path
) -> None:
    root = class_folders(tmp_path / "data", "img")
    (root / name).write_text(text)
    with pytest.raises(ManifestError) as caught:
        list(write_starter(root, tmp_path / "out"))
    assert reason in str(caught.value)


def test_the_images_of_a_manifest_may_lie_elsewhere(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "films", "a")
    there = tmp_path / "study"
    there.mkdir()
    (there / "m.csv").write_text("image,patient_id\na/0.png,p\n")
    (there / "m.yaml").write_text("images: ../films\n")
    assert read_manifest(there / "m.csv", salt=b"s").cases[0].image == root / "a" / "0.png"
    (there / "m.csv").write_text("image,patient_id\n../study/m.csv,p\n")
    with pytest.raises(ManifestError, match="leads outside"):
        read_manifest(there / "m.csv", salt=b"s")
    shutil.rmtree(root)
    (there / "m.csv").write_text("image,patient_id\na/0.png,p\n")
    with pytest.raises(ManifestError, match="not found"):
        read_manifest(there / "m.csv", salt=b"s")


# -- values of a label column that mean something else than a class


def table_of(folder: Path, values: list[str]) -> Path:
    """A table of labels, whose images need not be there to start a recipe."""
    rows = [f"{n}.png,P{n},{values[n % len(values)]}" for n in range(24)]
    file = folder / "cases.csv"
    file.write_text("\n".join(["image,patient_id,label", *rows]) + "\n", encoding="utf-8")
    return file


def test_one_is_never_taken_for_uncertain(tmp_path: Path) -> None:
    """-1 is a word for uncertain; 1 beside 0 and 2 is a grade."""
    said = "\n".join(write_starter(table_of(tmp_path, ["0", "1", "2"]), tmp_path / "out"))
    assert 'classes: ["0", "1", "2"]' in said
    said = "\n".join(write_starter(table_of(tmp_path, ["0", "1", "-1"]), tmp_path / "other"))
    assert "labels" not in said


@pytest.mark.parametrize("values", [["0", "1", "9"], ["AD", "CN", "MCI", "N/A"], ["1", "2", "99"]])
def test_a_value_that_may_mean_no_label_is_asked_for(values: list[str], tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nothing says which one is the finding") as caught:
        list(write_starter(table_of(tmp_path, values), tmp_path / "out"))
    assert "data.classes, if each is a class" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_no_label_beside_a_certain_finding_is_said(tmp_path: Path) -> None:
    said = "\n".join(write_starter(table_of(tmp_path, ["yes", "no", "n/a"]), tmp_path / "out"))
    assert 'labels: {"yes": 1, "no": 0, n/a: ""}' in said


@pytest.mark.parametrize("values", [["ja", "JA", "nein", "Nein"], ["Yes ", "yes", "no"]])
def test_one_word_in_several_spellings_is_one_label(values: list[str], tmp_path: Path) -> None:
    said = "\n".join(write_starter(table_of(tmp_path, values), tmp_path / "out"))
    assert "classes" not in said
    assert re.search(r'labels: {"?(ja|JA|[Yy]es)"?: 1, "?([Nn]ein|no)"?: 0}', said)
    assert "in several spellings" not in said  # what the recipe says, the check takes


def test_the_stages_are_those_of_the_chest_recipe():
    recipe = Path("pipelines/chest_xray.yaml").read_text(encoding="utf-8")
    stages = [re.sub(r"\s+", "", line) for line in stage_lines(753).splitlines()]
    assert set(stages) <= {re.sub(r"\s+", "", line) for line in recipe.splitlines()}
    assert len(stages) == 3


@pytest.mark.parametrize(
    ("images", "epochs"),
    [(1, [51, 85, 51]), (60, [24, 40, 24]), (500, [6, 10, 6]), (753, [3, 5, 3]), (9**9, [3, 5, 3])],
)
def test_few_images_take_as_many_steps_in_more_epochs(images, epochs):
    lines = stage_lines(images)
    assert [int(n) for n in re.findall(r" epochs: (\d+)", lines)] == epochs
    # Patience counts epochs, and would end a stage of short ones after a few steps.
    assert re.findall(r"patience: (\d+)", lines) == ([str(max(epochs))] * 3 if images < 753 else [])
