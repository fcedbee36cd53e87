"""Cells that mean something to YAML, to a spreadsheet, to a browser or to nobody; ages; splits."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.cases.predictions import read_predictions, write_predictions
from medtl.cli.main import app
from medtl.errors import ManifestError, PredictionsError, RecipeError
from medtl.run.check import check_recipe
from medtl.storage.yaml import loads
from medtl.types import Manifest

ACTIVE = ("=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", '=HYPERLINK("http://x")')
MARKUP = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;b&gt;")


def table(folder: Path, header: list[str], rows: list[list[str]]) -> Path:
    """A manifest whose images are there."""
    for row in rows:
        (folder / row[0]).touch()
    file = folder / "cases.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header, *rows])
    return file


def of_column(folder: Path, name: str, cells: list[str]) -> Path:
    """A manifest of one column besides the ids."""
    rows = [[f"{n}.png", f"p{n}", cell] for n, cell in enumerate(cells)]
    return table(folder, ["image", "patient_id", name], rows)


def read(file: Path, **data: object) -> Manifest:
    """The manifest, without this user's salt."""
    return read_manifest(file, Columns.of(data), salt=b"s" * 32)


def recipe(file: Path, **data: object) -> dict[str, object]:
    """A recipe as a file holds it."""
    return {
        "study": {"question": "Is it there?"},
        "data": {"manifest": str(file), "target": "f", **data},
        "image": {"modality": "cxr"},
    }


@pytest.mark.parametrize(
    "word", ["null", "true", "no", "NA", "nan", "None", "~", "1e5", "[a", "a: b"]
)
def test_the_answer_can_be_pasted_whatever_the_word_is_to_yaml(word: str, tmp_path: Path) -> None:
    file = of_column(tmp_path, "f", [word, "Tumor"] * 6)
    with pytest.raises(RecipeError) as error:
        check_recipe(recipe(file))
    answers = str(error.value).split("State which one is the finding: ")[1].removesuffix(".")
    stated = [loads(f"{{{answer}}}", "recipe")["positive"] for answer in answers.split(" or ")]
    assert set(stated) <= {word, "Tumor"}
    assert check_recipe(recipe(file, positive=stated[0])).data.positive == stated[0]
    assert {case.targets["f"] for case in read(file, target="f").cases} == {word, "Tumor"}


@pytest.mark.parametrize("data", [{"positive": True}, {"classes": ["ja", None]}])
def test_words_that_yaml_took_for_something_else_need_quotes(
    data: dict[str, object], tmp_path: Path
) -> None:
    file = of_column(tmp_path, "f", ["ja", "null"] * 6)
    with pytest.raises(RecipeError, match="put the word in quotes"):
        check_recipe(recipe(file, **data))


@pytest.mark.parametrize("cell", [*ACTIVE, *MARKUP])
def test_cells_that_others_would_run_are_text_and_said(cell: str, tmp_path: Path) -> None:
    found = read(of_column(tmp_path, "site", ["A", "B", cell]), strata=["site"])
    assert found.cases[2].strata["site"] == cell.strip()
    assert "1 rows hold cells that look like formulas or markup (row 4)" in " ".join(found.notes)


@pytest.mark.parametrize("cell", ["-3", "+0.5", "a=b", "p<0.05", "R&D", "x@y", "< 5 mm"])
def test_harmless_cells_are_not_said(cell: str, tmp_path: Path) -> None:
    assert not read(of_column(tmp_path, "site", ["A", "B", cell]), strata=["site"]).notes


def test_formulas_and_markup_are_dead_in_every_output(tmp_path: Path) -> None:
    sites = [*ACTIVE, *MARKUP]
    header = ["case_id", "patient_id", "label", "y_true", "y_score", "site"]
    rows = [
        [f"c{n}", f"p{n}", "=1+1 <script>", str(n % 2), str(n / 90), sites[n % len(sites)]]
        for n in range(64)
    ]
    file = table(tmp_path, header, rows)
    frame = read_predictions(file)
    write_predictions(frame, tmp_path / "again.csv")
    text = (tmp_path / "again.csv").read_text("utf-8")
    cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+@\t" and cell]
    assert read_predictions(tmp_path / "again.csv").equals(frame)
    out = tmp_path / "report"
    done = CliRunner().invoke(app, ["report", str(file), "--strata", "site", "--out", str(out)])
    assert done.exit_code == 0, done.output
    html = (out / "report.html").read_text("utf-8")
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    card = (out / "model_card.md").read_text("utf-8")
    assert "<script>" not in card
    assert json.loads((out / "metrics.json").read_text("utf-8"))["measures"]


@pytest.mark.parametrize("place", ["cell", "header", "tail", "all"])
def test_nul_bytes_are_named_in_manifests_and_predictions(place: str, tmp_path: Path) -> None:
    text = {
        "cell": b"image,patient_id,f\na.png,p\x001,1\nb.png,p2,0\n",
        "header": b"image,patient_id,f\x00\na.png,p1,1\nb.png,p2,0\n",
        "tail": b"image,patient_id,f\na.png,p1,1\nb.png,p2,0\n" + b"\x00" * 64,
        "all": b"\x00" * 400,
    }[place]
    file = tmp_path / "cases.csv"
    file.write_bytes(text)
    with pytest.raises(ManifestError, match="NUL bytes"):
        read(file, target="f")
    file.write_bytes(text.replace(b"image", b"case_id").replace(b",f", b",y_true,y_score"))
    with pytest.raises(PredictionsError, match="NUL bytes"):
        read_predictions(file)


@pytest.mark.parametrize(
    ("ages", "read_as", "note"),
    [
        (["065Y", "018M", "003W", "010D"], ["65", "1.5", "0.05749", "0.02738"],
         "1 in years, 1 in months, 1 in weeks, 1 in days"),
        (["65", "65 years", "065Y", ""], ["65", "65", "65", ""], "2 in years"),
        (["30세", "41세", "95세"], ["30", "41", "90+"], "3 in years"),
        (["40", "18X", "50"], ["40", "18X", "50"], "1 ages are no number with a unit (row 3)"),
        (["1950-01-02", "40"], ["", "40"], "1 ages are no number with a unit (row 2)"),
    ],
)  # fmt: skip
def test_ages_with_units_are_years_and_that_is_said(
    ages: list[str], read_as: list[str], note: str, tmp_path: Path
) -> None:
    found = read(of_column(tmp_path, "age", ages), strata=["age"])
    assert [case.strata["age"] for case in found.cases] == read_as
    assert note in " ".join(found.notes)


@pytest.mark.parametrize("other", ["18 months", "018M", "3 W", "200 Tage"])
def test_ages_without_a_unit_beside_months_are_a_fault(other: str, tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match=r"2 ages have no unit and 1 are in months, weeks or days"
    ):
        read(of_column(tmp_path, "age", ["65", other, "40"]), strata=["age"])


def test_an_unknown_word_for_a_split_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    file = of_column(tmp_path, "split", ["train", "test", "holdout"])
    with pytest.raises(ManifestError, match=r"row 4: unknown split. Write train, val, test"):
        read(file)


# -- ids that are none, and a split under another name


@pytest.mark.parametrize("word", ["nan", "N/A", "#REF!", "unknown"])
def test_a_word_for_missing_is_nobody_twice(word: str, tmp_path: Path) -> None:
    rows = [[f"{n}.png", word if n < 3 else f"P{n}"] for n in range(6)]
    with pytest.raises(ManifestError, match="rows 2, 3, 4: one word for 'missing' stands as the p"):
        read(table(tmp_path, ["image", "patient_id"], rows))
    alone = table(tmp_path, ["image", "patient_id"], rows[2:])
    assert len({case.patient_id for case in read(alone).cases}) == 4


@pytest.mark.parametrize("name", ["set", "Subset", "phase"])
def test_a_split_under_another_name_is_not_passed_over(name: str, tmp_path: Path) -> None:
    parts = ["Training", "train", "validate", "test", ""]
    rows = [[f"{n}.png", f"P{n}", part] for n, part in enumerate(parts)]
    with pytest.raises(ManifestError, match=f"column '{name}' holds test, train, val") as caught:
        read(table(tmp_path, ["image", "patient_id", name], rows))
    assert f"state data.columns: {{split: {name}}}" in str(caught.value)
    filled = table(tmp_path, ["image", "patient_id", name], rows[:4])
    splits = [case.split for case in read(filled, columns={"split": name}).cases]
    assert splits == ["train", "train", "val", "test"]
    assert len(read(filled, where=f"{name} in [train, training]").cases) == 2


@pytest.mark.parametrize("cells", [("train", "bus"), ("test", "val"), ("train", ""), ("", "")])
def test_other_columns_are_no_splits(cells: tuple[str, str], tmp_path: Path) -> None:
    rows = [[f"{n}.png", f"P{n}", cell] for n, cell in enumerate(cells)]
    assert len(read(table(tmp_path, ["image", "patient_id", "set"], rows)).cases) == 2


def test_without_patients_the_columns_that_there_are_are_listed(tmp_path: Path) -> None:
    file = table(tmp_path, ["image", "MRN"], [["0.png", "7"]])
    with pytest.raises(ManifestError, match="among: image, MRN"):
        read(file)
    assert read(file, columns={"patient_id": "MRN"}).cases[0].patient_id
