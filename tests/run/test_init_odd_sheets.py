"""What a newcomer gives `medtl init`: odd sheets and folders, each taken rightly or asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from medtl.errors import ManifestError
from medtl.run.init import Answers, write_starter
from medtl.storage.tables import read_table


def picture(path: Path, value: int = 0) -> None:
    """Write a small image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.full((8, 8), value, np.uint8)).save(path)


def started(folder: Path, text: str | bytes, name: str = "s.csv") -> tuple[str, str]:
    """Six films and a sheet that is about them: the recipe, and what init said."""
    for n in range(1, 7):
        picture(folder / "films" / f"{n:03d}.png", n)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    answers = Answers(labels=folder / name, key="id", target="dx")
    said = [*write_starter(folder / "films", folder / "out", answers)]
    return (folder / "out" / "recipe.yaml").read_text(encoding="utf-8"), "\n".join(said)


def sheet(values: list[str], key: str = "{:03d}", separator: str = ",") -> str:
    """A sheet with a row for each film."""
    rows = [f"{key.format(n)}{separator}{value}" for n, value in enumerate(values, 1)]
    return "\n".join([f"id{separator}dx", *rows]) + "\n"


YES_NO = ["ja", "nein"] * 3


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (["s\u00ed", "no"] * 3, 'positive: "s\u00ed"'),
        (["Oui", "Non"] * 3, "positive: Oui"),
        (["var", "yok"] * 3, "positive: var"),
        (["presente", "assente"] * 3, "positive: presente"),
        (["+", "-"] * 3, 'positive: "+"'),
        (["Schlaganfall", "kein Schlaganfall"] * 3, "positive: Schlaganfall"),
        (["with fracture", "without fracture"] * 3, "positive: with fracture"),
        (["I", "II", "III"] * 2, "classes: [I, II, III]"),
        (["benign", "malignant", "normal"] * 2, "classes: [benign, malignant, normal]"),
    ],
)
def test_what_is_certain_is_taken(values: list[str], line: str, tmp_path: Path) -> None:
    recipe, _ = started(tmp_path, sheet(values))
    assert line in recipe


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([f"{n}%" for n in range(6)], "6 different numbers.*no classes.*data.soft"),
        (["0.1", "0.25", "0.3", "1.5", "2.5", "3.5"], "6 different numbers.*kind: regression"),
        (["x", ""] * 3, "3 cells say 'x' and 3 say nothing, which may mean that it is absent"),
        (["1", ""] * 3, "3 cells say '1' and 3 say nothing"),
        ([""] * 6, "empty in all 6 rows"),
        (["1", "2"] * 3, "nothing says which one is the finding"),
        (["7", "30", "95", "141", "7", "30"], r"or \{kind: bone_age\}"),
        (["MS", "NMOSD"] * 3, "--positive MS or --positive NMOSD"),
        (["neg", "negative", "positive"] * 2, "nothing says which one is the finding"),
        (["positive", "positive (confirmed)", "negative"] * 2, "nothing says which one"),
        (["yes", "no", "yes?"] * 2, "nothing says which one"),
    ],
)
def test_what_decides_and_is_not_certain_is_asked(
    values: list[str], found: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=found):
        started(tmp_path, sheet(values))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["films\\{:03d}.png", "C:/Users/ann/{:03d}.png", "a/b/{:03d}"])
def test_paths_of_another_machine_are_compared_by_their_last_part(key: str, tmp_path: Path) -> None:
    _, said = started(tmp_path, sheet(YES_NO, key))
    assert "6 of 6 images belong to 6 of 6 rows" in said
    assert "of 'id' the last part alone was compared" in said


def test_last_parts_that_repeat_are_refused(tmp_path: Path) -> None:
    text = "id,dx\na/001.png,ja\nb/001.png,nein\n"
    with pytest.raises(ManifestError, match="1 ids of column 'id' stand in more than one row"):
        started(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("s.json", '[{"id": "001", "dx": 1}]', "JSON, no table"),
        ("s.jsonl", '{"id": "001", "dx": 1}\n', "JSON, no table"),
        ("s.csv", "<html><table><tr><td>id</td></tr></table>", "an HTML or XML page"),
        ("s.csv", sheet(["z\u0142amanie", "brak"] * 3).encode("cp1250"), "encoding is not UTF-8"),
        ("s.csv", sheet(["\u0434\u0430", "\u043d\u0435\u0442"] * 3).encode("cp1251"), "not UTF-8"),
    ],
)
def test_what_is_no_table_is_named(name: str, text: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=found):
        started(tmp_path, text, name)


def test_a_table_in_the_middle_of_a_spreadsheet(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    for row in ([], [None, "Befunde"], [None, "id", None, "dx"]):
        page.append(row)
    for n, word in enumerate(YES_NO, 1):
        page.append([None, f"{n:03d}", None, word])
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.columns == ("id", "dx")
    assert table.rows[0] == ("001", "ja")
    assert table.lines[0] == 4
    recipe, said = started(tmp_path, (tmp_path / "t.xlsx").read_bytes(), "s.xlsx")
    assert "positive: ja" in recipe
    assert "2 columns have no name, are empty and are left out" in said


def test_masks_beside_their_images_are_no_images(tmp_path: Path) -> None:
    for kind in ("benign", "malignant"):
        for n in range(3):
            for ending in ("", "_mask", "_mask_1"):
                picture(tmp_path / "f" / kind / f"{kind} ({n}){ending}.png", n)
    picture(tmp_path / "f" / "benign" / "face_mask.png")  # no image that it belongs to
    said = [*write_starter(tmp_path / "f", tmp_path / "out")]
    assert "Found 7 images: one folder per class" in said
    assert any(note.startswith("12 files are named like masks of others") for note in said)


def test_folders_of_images_and_masks_are_no_classes(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        for n in range(3):
            picture(tmp_path / "f" / kind / f"{n}.png", n)
    with pytest.raises(ManifestError, match="3 files are named like masks of others") as error:
        [*write_starter(tmp_path / "f", tmp_path / "out")]
    assert "1 folders with 3 images" in error.value.found
    assert "a CSV with image, patient_id and mask" in error.value.fix


def test_several_tables_in_a_folder_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "f" / "a.png")
    for name in ("train.csv", "test.csv"):
        (tmp_path / "f" / name).write_text("image,label\na.png,1\n")
    with pytest.raises(ManifestError, match=r"2 tables have a column 'image' \(test.csv, train"):
        [*write_starter(tmp_path / "f", tmp_path / "out")]
