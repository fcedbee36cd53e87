"""Sheets as people have them: what decides a study is asked for, never guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.errors import ManifestError, RecipeError
from medtl.run.check import read_recipe
from medtl.types import Manifest

ROWS = 24
SALT = b"s" * 32


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    (folder / "img").mkdir()
    for row in range(ROWS):
        pixels = np.random.default_rng(row).normal(110, 18, (40, 40))
        Pillow.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
            folder / f"img/{row:03d}.png"
        )
    return folder


def film(row: int) -> str:
    return f"img/{row:03d}.png"


def table(folder: Path, header: str, row: Callable[[int], str]) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *map(row, range(ROWS))]) + "\n", encoding="utf-8")
    return path


def read(path: Path, **data: Any) -> Manifest:
    return read_manifest(path, Columns.of(data), salt=SALT)


def faults(folder: Path, data: str) -> str:
    """What the first pass says of a recipe with this data section; "" when nothing."""
    (folder / "recipe.yaml").write_text(
        f"study: {{question: '?'}}\ndata: {{manifest: manifest.csv, {data}}}\n"
        "image: {modality: cxr, size: 32}\n"
        "model: {backbone: test_resnet, weights: {source: none, random_features: true}}\n",
        encoding="utf-8",
    )
    try:
        read_recipe(folder / "recipe.yaml")
    except RecipeError as error:
        return str(error)
    return ""


# -- one person in two spellings

SPELLINGS = {
    "a trailing .0": lambda n, odd: f"{n}.0" if odd else f"{n}",
    "leading zeros": lambda n, odd: f"{n}" if odd else f"{n:05d}",
    "case": lambda n, odd: f"{'P' if odd else 'p'}{n:04d}",
    "a blank that is none": lambda n, odd: f"P{chr(160) if odd else ' '}{n}",
    "no blank": lambda n, odd: f"P{n}" if odd else f"P {n}",
    "an invisible sign": lambda n, odd: f"P{n}\u200b" if odd else f"P{n}",
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_one_person_in_two_splits_under_two_spellings(kind: str, films: Path) -> None:
    spell = SPELLINGS[kind]
    path = table(
        films,
        "image,patient_id,split,label",
        lambda i: f"{film(i)},{spell(i // 2 + 1, i % 2)},{('train', 'test')[i % 2]},{i // 2 % 2}",
    )
    with pytest.raises(ManifestError, match=r"one patient id in 2 spellings.*in test and train"):
        read(path, target="label")
    # Without splits, they would be drawn: the two could come apart.
    path = table(
        films,
        "image,patient_id,label",
        lambda i: f"{film(i)},{spell(i // 2 + 1, i % 2)},{i % 2}",
    )
    with pytest.raises(ManifestError, match=r"one patient id in 2 spellings"):
        read(path, target="label")


def test_two_spellings_in_one_split_are_a_note(films: Path) -> None:
    path = table(
        films,
        "image,patient_id,split,label",
        lambda i: (
            f"{film(i)},{'p1' if i == 0 else f'P{i}'},{'train' if i < 20 else 'test'},{i % 2}"
        ),
    )
    notes = " ".join(read(path, target="label").notes)
    assert "one patient id in 2 spellings (rows 2, 3): counted as 2 patients" in notes


def test_ids_that_a_spreadsheet_rounded_are_refused(films: Path) -> None:
    path = table(
        films,
        "image,patient_id,label",
        lambda i: f"{film(i)},{'2.0231E+11' if i < 3 else i},{i % 2}",
    )
    with pytest.raises(ManifestError, match=r"rows 2, 3, 4: patient ids were rounded by a spread"):
        read(path, target="label")


# -- what labels mean


def labelled(films: Path, word: Callable[[int], str]) -> Path:
    return table(films, "image,patient_id,label", lambda i: f'{film(i)},P{i},"{word(i)}"')


def test_a_third_value_is_a_fault_with_counts_and_the_answer(films: Path) -> None:
    labelled(films, lambda i: "unklar" if i < 3 else ("ja", "nein")[i % 2])
    said = faults(films, "target: label, positive: ja")
    assert "beside 'ja' (10) stand 'unklar' (3), 'nein' (11)" in said
    assert "labels: {ja: 1, unklar: ..., nein: ...}" in said
    assert faults(films, "target: label, labels: {ja: 1, nein: 0, unklar: -1}") == ""
    one = read(films / "manifest.csv", target="label", labels={"ja": 1, "nein": 0, "unklar": -1})
    assert [case.targets["label"] for case in one.cases[:5]] == ["-1", "-1", "-1", "0", "1"]


def test_spellings_of_a_stated_word_are_folded_and_said(films: Path) -> None:
    words = ("ja", "Ja ", "JA", "ja\u200b", "nein", "Nein")
    path = labelled(films, lambda i: words[i % 6])
    assert "one value in several spellings" in faults(films, "target: label")
    one = read(path, target="label", labels={"ja": 1, "nein": 0})
    assert [case.targets["label"] for case in one.cases[:6]] == ["1", "1", "1", "1", "0", "0"]
    assert any("read as '1'" in note for note in one.notes)


@pytest.mark.parametrize(
    ("word", "named"),
    [
        (
            lambda i: "Pneumonia" if i in (3, 5) else ("normal", "pneumonia")[i % 2],
            "'Pneumonia' (2)",
        ),
        (lambda i: ("normal", "pneumonia")[i % 2] + "\u200b" * (i in (3, 5)), "'pneumonia' (10)"),
        (lambda i: f"{i % 3}.0" if i < 20 else f"{i % 3}", "'2.0'"),
        (lambda i: ("Normal", "normal", "Pneumonia")[i % 3], "'Normal' (8), 'normal' (8)"),
        (lambda i: ("grade 1", "grade  1", "grade 2")[i % 3], "'grade 1'"),
    ],
)
def test_spellings_of_one_class_are_a_fault_that_names_them(word, named: str, films: Path) -> None:
    labelled(films, word)
    said = faults(films, "target: label")
    assert "one value in several spellings" in said
    assert named in said


def test_words_are_stated_before_they_are_classes(films: Path) -> None:
    labelled(films, lambda i: ("normal", "covid", "pneumonia")[i % 3])
    said = faults(films, "target: label")
    assert "the values are 'normal' (8), 'covid' (8), 'pneumonia' (8)" in said
    assert "data.classes: [covid, normal, pneumonia]" in said
    assert faults(films, "target: label, classes: [covid, normal, pneumonia]") == ""
    labelled(films, lambda i: str(i % 4))
    assert faults(films, "target: label") == ""  # grades without a gap
    labelled(films, lambda i: "33" if i == 5 else str(i % 4))
    assert "'33' (1)" in faults(films, "target: label")


def test_the_ready_answer_is_the_finding_where_that_is_certain(films: Path) -> None:
    labelled(films, lambda i: ("nein", "ja")[i % 2])
    assert "positive: ja." in faults(films, "target: label")
    labelled(films, lambda i: ("AD", "CN")[i % 2])
    assert "positive: AD or positive: CN" in faults(films, "target: label")


@pytest.mark.parametrize("separator", ["|", ";", ", "])
def test_several_findings_in_a_cell(separator: str, films: Path) -> None:
    cells = ["No Finding", "Effusion", f"Effusion{separator}Mass", "Mass"]
    path = labelled(films, lambda i: cells[i % 4])
    said = faults(films, "target: label")
    assert "6 cells list several findings" in said
    assert "data.target: [Effusion, Mass], data.listed_in: label" in said
    sign = separator.strip()
    section = f"target: [Effusion, Mass], listed_in: label, separator: '{sign}'"
    assert faults(films, section) == ""
    one = read(path, target=["Effusion", "Mass"], listed_in="label", separator=sign)
    found = [tuple(case.targets.values()) for case in one.cases[:4]]
    assert found == [("0", "0"), ("1", "0"), ("1", "1"), ("0", "1")]
    assert any("lists also, as no target: No Finding (6)" in note for note in one.notes)


# -- columns and file names


def test_a_column_may_have_any_name(films: Path) -> None:
    path = table(
        films,
        "Path,Patientennummer,Frontal/Lateral,AP/PA,label",
        lambda i: f"{film(i)},P{i},Frontal,AP,{i % 2}",
    )
    with pytest.raises(ManifestError, match=r"Did you mean 'Path'.*columns: {image: Path}"):
        read(path, target="label")
    one = read(path, target="label", columns={"image": "Path", "patient_id": "Patientennummer"})
    assert len(one.cases) == ROWS
    assert faults(films, "target: label, columns: {image: Path, patient_id: Patientennummer}") == ""


@pytest.mark.parametrize("name", ["img/{:03d}", "img/{:03d}.PNG", "img\\{:03d}.png", "IMG\\{:03d}"])
def test_names_that_can_mean_one_file_alone_are_found_and_said(name: str, films: Path) -> None:
    path = table(films, "image,patient_id,label", lambda i: f"{name.format(i)},P{i},{i % 2}")
    if name.startswith("IMG"):
        with pytest.raises(ManifestError, match="the folder IMG is not found") as caught:
            read(path, target="label")
        assert len(str(caught.value).splitlines()) == 1
        return
    one = read(path, target="label")
    assert [case.image.name for case in one.cases] == [f"{i:03d}.png" for i in range(ROWS)]
    assert f"{ROWS} files were found by names that differ" in " ".join(one.notes)


def test_another_format_is_another_file(films: Path) -> None:
    path = table(films, "image,patient_id,label", lambda i: f"img/{i:03d}.jpg,P{i},{i % 2}")
    with pytest.raises(ManifestError, match=r"img/000.jpg is not found"):
        read(path, target="label")


def test_a_name_that_two_files_may_have_is_not_taken(tmp_path: Path) -> None:
    for name in ("a.png", "a.dcm", "b.png"):
        (tmp_path / name).touch()
    file = tmp_path / "manifest.csv"
    file.write_text("image,patient_id\na,p1\nb,p2\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="row 2: image: the file is not found"):
        read(file)


def test_a_wrong_folder_is_one_line(films: Path) -> None:
    path = table(films, "image,patient_id,label", lambda i: f"pictures/{i:03d}.png,P{i},{i % 2}")
    with pytest.raises(ManifestError, match=r"the folder pictures is not found") as caught:
        read(path, target="label")
    assert len(str(caught.value).splitlines()) == 1


def test_mimic_calls_its_validation_part_validate(films: Path) -> None:
    parts = ("train", "validate", "test")
    path = table(
        films,
        "image,patient_id,split,label",
        lambda i: f"{film(i)},P{i},{parts[i % 3]},{i % 2}",
    )
    assert {case.split for case in read(path, target="label").cases} == {"train", "val", "test"}
