"""The checklists item by item: their numbers, states from content, and the files."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import report_example as example
import table_examples as tables
from test_report_html import written

from medtl.errors import PredictionsError
from medtl.recipe.about import ReportingItem
from medtl.report.language.texts import LANGUAGES, speaking, texts_of
from medtl.report.page.checklist import dossier, guidelines, known_content
from medtl.run.evaluate import report_table
from medtl.run.folder import Run


def test_the_guidelines_have_their_published_numbers_of_items() -> None:
    numbers = {name: [i["no"] for i in g["items"]] for name, g in guidelines().items()}
    assert numbers["CLAIM 2024"] == [str(n) for n in range(1, 45)]
    main = dict.fromkeys(n.rstrip("abcd") for n in numbers["STARD-AI 2025"])
    assert list(main) == [str(n) for n in range(1, 41)]
    assert len(numbers["STARD-AI 2025"]) == 48
    assert len(numbers["TRIPOD+AI 2024"]) == len(set(numbers["TRIPOD+AI 2024"])) == 52
    assert {n.rstrip("abcdefg") for n in numbers["TRIPOD+AI 2024"]} == {
        str(n) for n in range(1, 28)
    }


def test_one_class_without_age_or_sex_ticks_nothing_that_is_empty(tmp_path: Path) -> None:
    rows = {"case_id": [f"c{i}" for i in range(40)], "patient_id": [f"p{i}" for i in range(40)],
            "label": "pneumonia", "y_true": 0, "y_score": np.linspace(0.01, 0.9, 40)}  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    page = report_table(tmp_path / "t.csv", tmp_path / "out")
    card = json.loads(page.with_name("model_card.json").read_text("utf-8"))
    states = {row["item"]: row["state"] for row in card["checklist"]}
    for item in ("Characteristics of each part", "Calibration", "Cross tabulation of result and"
                 " reference", "Missing data and uncertain labels", "Subgroups and fairness",
                 "Measures of performance with their uncertainty",
                 "Flow of participants with exclusions and reasons"):  # fmt: skip
        assert states[item] == "absent", item
    assert states["Sample size, or the precision reached"] == "absent"
    # What is counted in each analysis, and the limits, are there; nothing else is.
    with page.with_name("reporting_checklist.csv").open(encoding="utf-8-sig") as file:
        ticked = [f"{r['Guideline'][:5]} {r['No.']}" for r in csv.DictReader(file)
                  if r["State"] not in ("a person must add it", "not recorded here")]  # fmt: skip
    assert ticked == ["CLAIM 40", "STARD 33", "TRIPO 21", "TRIPO 26"]
    said = page.read_text("utf-8")
    assert "the curve “roc”: the set holds one class only" in said
    rows = re.findall(r"<td>([^<]+)</td><td>([^<]+)</td><td>\d+ / \d+ / \d+ / \d+</td>", said)
    assert set(rows) == {("–", "–")}  # PPV and NPV of one class are 0 or 100 % of any model
    assert all(row["state"] in ("person", "absent") for row in dossier(frozenset(), {}))


def test_every_item_has_korean_words() -> None:
    with speaking("ko"):
        rows = dossier(frozenset(), {})
    assert [row["text"] for row in rows if not re.search("[가-힣]", row["text"])] == []


def test_a_single_group_or_part_is_no_comparison(tmp_path: Path) -> None:
    rows = {"case_id": [f"c{i}" for i in range(60)], "patient_id": [f"p{i}" for i in range(60)],
            "label": "pneumonia", "y_true": [0, 1] * 30, "sex": "F", "site": "Seoul",
            "y_score": np.linspace(0.01, 0.9, 60)}  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    page = report_table(tmp_path / "t.csv", tmp_path / "out")
    with page.with_name("reporting_checklist.csv").open(encoding="utf-8-sig") as file:
        states = {(r["Guideline"][:5], r["No."]): r["State"] for r in csv.DictReader(file)}
    for item in (("STARD", "23"), ("STARD", "25"), ("TRIPO", "14"), ("TRIPO", "20c"),
                 ("TRIPO", "23b")):  # fmt: skip
        assert states[item] == "not recorded here", item
    assert states["CLAIM", "36"] == "filled in by software"


def test_a_complete_run_fills_what_software_can(tmp_path: Path) -> None:
    page = Run(example.write_run(tmp_path / "run")).report()
    with page.with_name("reporting_checklist.csv").open(encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["Guideline"] == "CLAIM 2024"]
    states = {row["No."]: row["State"] for row in rows}
    for number in ("9", "20", "23", "29", "35", "36"):
        assert states[number] == "filled in by software", number
    assert states["1"] == states["34"] == "a person must add it"


@pytest.mark.parametrize("field", ["ethics", "registration", "annotators", "dates"])
def test_what_a_person_states_is_stated(tmp_path: Path, field: str) -> None:
    study = {field: "in words <b>"}
    page = written(tmp_path, example.single(), study=study)
    assert "in words &lt;b&gt;" in page
    rows = (tmp_path / "reporting_checklist.csv").read_text("utf-8-sig")
    assert rows.count("stated by a person") == sum(
        item["needs"] == field for g in guidelines().values() for item in g["items"]
    )


def test_other_items_of_the_guidelines_are_stated_by_name(tmp_path: Path) -> None:
    asked = {i["needs"] for g in guidelines().values() for i in g["items"]}
    for name in get_args(ReportingItem):
        assert name in asked
        assert all(f"person.{name}" in texts_of(language) for language in LANGUAGES)
    page = written(tmp_path, example.single(), study={"reporting": {"blinding": "read twice <i>"}})
    assert "read twice &lt;i&gt;" in page
    with (tmp_path / "reporting_checklist.csv").open(encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["Stated"]]
    assert {(row["No."], row["State"]) for row in rows} == {
        ("17a", "stated by a person"), ("17b", "stated by a person"), ("8c", "stated by a person"),
    }  # fmt: skip


def test_items_of_a_table_that_no_guideline_asks_for_are_refused(tmp_path: Path) -> None:
    table = tables.classification(tmp_path)
    table.with_suffix(".yaml").write_text("study: {reporting: {colour: blue}}")
    with pytest.raises(PredictionsError, match=r"study\.reporting has the key 'colour'.*blinding"):
        report_table(table, tmp_path / "out")


@pytest.mark.parametrize(("level", "state"), [("Acme Ray 1", "draft"), ("unknown", "person")])
def test_devices_of_the_headers_draft_the_item_of_acquisition(level: str, state: str) -> None:
    records = {"cohort": {"splits": {"test": {"images": 9, "device": {level: 9}}}}}
    known = known_content([], study={}, metrics={}, records=records)
    states = {
        row["no"]: row["state"] for row in dossier(known, {}) if row["guideline"][:3] == "CLA"
    }
    assert states["13"] == state


@pytest.mark.parametrize(("overlay", "state"), [("data:", "draft"), ("", "absent")])
def test_pictures_without_a_heat_map_explain_nothing(overlay: str, state: str) -> None:
    records = {"gallery": {"groups": [{"cases": [{"image": "data:", "overlay": overlay}]}]}}
    known = known_content([], study={}, metrics={}, records=records)
    states = {
        row["no"]: row["state"] for row in dossier(known, {}) if row["guideline"][:3] == "CLA"
    }
    assert states["31"] == state


def test_the_document_is_one_table_and_the_same_every_time(tmp_path: Path) -> None:
    written(tmp_path, example.single())
    first = (tmp_path / "reporting_checklist.docx").read_bytes()
    written(tmp_path, example.single())
    assert (tmp_path / "reporting_checklist.docx").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "reporting_checklist.docx") as archive:
        assert archive.testzip() is None
        root = ElementTree.fromstring(archive.read("word/document.xml"))
    word = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
    assert len(root.findall(f".//{word}tr")) == 1 + 44 + 48 + 52
    assert "CLAIM 2024" in "".join(root.itertext())
