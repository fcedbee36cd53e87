"""One command from a table that any tool made to a report: every kind, and tables at the edge."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import table_examples as tables
from PIL import Image
from test_report_html import text_of
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import PredictionsError, RunError
from medtl.report import card, pdf
from medtl.report.language.numbers import describe
from medtl.run import evaluate
from medtl.run.evaluate import TableOptions, count_openings, report_table

Reports = dict[str, Path]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    found = {}
    for kind, make in tables.KINDS.items():
        folder = tmp_path_factory.mktemp(kind) / "in"
        options = TableOptions(prevalence=0.1, model="net A" if kind == "models" else "")
        found[kind] = report_table(make(folder), folder / "out", options)
    return found


def test_ten_lines_of_scikit_learn_become_a_report_with_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "predictions-from-elsewhere.md"
    script, command = re.findall(r"```(?:python|sh)\n(.+?)```", page.read_text("utf-8"), re.S)[:2]
    assert len([line for line in script.splitlines() if line]) == 10
    monkeypatch.chdir(tmp_path)
    exec(compile(script, page.name, "exec"), {})
    result = CliRunner().invoke(app, command.split()[1:])
    assert result.exit_code == 0, result.output
    words = text_of((tmp_path / "predictions-report" / "report.html").read_text("utf-8"))
    assert "patients with malignant" in words
    assert "1000 patients" in words


def metrics_of(report: Path) -> dict[str, Any]:
    return dict(json.loads((report.parent / "metrics.json").read_text("utf-8")))


def measure_of(report: Path, name: str, **where: str) -> dict[str, Any]:
    wanted = {"split": "test", "subset": "all"} | where
    (row,) = [m for m in metrics_of(report)["measures"] if m["name"] == name
              and all(m[key] == value for key, value in wanted.items())]  # fmt: skip
    return dict(row)


@pytest.mark.parametrize("kind", tables.KINDS)
def test_every_kind_has_a_complete_folder(reports: Reports, kind: str) -> None:
    folder = reports[kind].parent
    names = {path.name for path in folder.iterdir()}
    assert {"metrics.json", "report.html", "model_card.md", "model_card.json"} <= names
    assert ("overlap.csv" in names) == (kind == "segmentation")
    html = reports[kind].read_text("utf-8")
    assert len(html) < 2_000_000
    assert not re.search(r"(src|href)=\"(https?:)?//", html)
    assert "nan" not in text_of(html).lower().split()


def test_the_study_comes_from_the_file_beside_the_table(reports: Reports) -> None:
    words = text_of(reports["classification"].read_text("utf-8"))
    assert "Pneumonia on a frontal chest radiograph?" in words
    assert "two readers, a third where they differ" in words


def test_other_choices_are_shown_beside_the_headline(reports: Reports) -> None:
    words = text_of(reports["classification"].read_text("utf-8"))
    for choice in ("One row per patient", "count as absent", "count as present"):
        assert choice in words
    assert "age was divided into decades" in words
    assert "The frozen threshold on validation and on test" in words
    assert measure_of(reports["classification"], "sensitivity", split="val")["value"] is not None


def test_bone_age_in_words_for_the_clinician(reports: Reports) -> None:
    words = text_of(reports["bone_age"].read_text("utf-8"))
    mae = measure_of(reports["bone_age"], "mae_months")["value"]
    low = measure_of(reports["bone_age"], "loa_low_months")["value"]
    assert f"The estimate is off by {mae:.1f} months on average" in words
    assert f"95% of single estimates are expected from {-low:.1f} below" in words
    assert "extreme values, which are pulled towards the middle" in words
    for title in ("Estimate against reference", "Bland-Altman", "120-167", "Furthest off"):
        assert title in words
    assert "Operating point" not in words


def test_masks_are_compared_case_by_case(reports: Reports) -> None:
    report = reports["segmentation"]
    words = text_of(report.read_text("utf-8"))
    overlap = pd.read_csv(report.parent / "overlap.csv")
    assert len(overlap) == 28
    heart = overlap[overlap["label"] == "heart"]
    assert measure_of(report, "dice", label="heart")["value"] == pytest.approx(heart["dice"].mean())
    # Absent in truth and prediction in three cases, missed in one of the other eleven.
    assert measure_of(report, "missed", label="tumour")["value"] == pytest.approx(1 / 11)
    assert measure_of(report, "correctly_absent", label="tumour")["value"] == 1
    assert measure_of(report, "dice", label="tumour")["n"] == 11
    for said in ("Structure missed", "HD95, median", "Both masks empty", "Area: agreement"):
        assert said in words


def test_models_are_compared_and_readers_are_on_the_curve(reports: Reports) -> None:
    report = reports["models"]
    content, html = metrics_of(report), report.read_text("utf-8")
    assert content["comparison"]["models"] == ["baseline", "net A", "net B"]
    compared = [test["test"]["difference"]["name"] for test in content["comparison"]["tests"]]
    names = ("auroc_difference", "sensitivity_difference", "specificity_difference")
    assert compared == 3 * list(names)
    words = text_of(html)
    assert "baseline minus net A" in words
    assert "The rest of this report describes net A" in words
    first = words[: words.index("Do not rely on this for")]
    for test in content["comparison"]["tests"]:  # page one: what differs beyond chance, no other
        difference = test["test"]["difference"]
        measure = describe(difference["name"].removesuffix("_difference"))[0]
        pair = f"{test['first']} minus {test['second']}: {measure}"
        shown = "net A" in (test["first"], test["second"]) and test["p_holm"] < 0.05
        assert (pair in first) == shown, pair
    assert "minus" in first
    assert html.count('class="reader"') == 2
    assert "an unbiased figure: the test set was opened for 3 models" in words


def test_classes_have_the_predicted_class(reports: Reports) -> None:
    words = text_of(reports["classes"].read_text("utf-8"))
    accuracy = measure_of(reports["classes"], "accuracy", label="overall")["value"]
    shown = "The class with the highest score is right in"
    assert f"{shown} {round(100 * accuracy)}%" in words
    assert "called bacterial" in words
    assert "Called rightly, of this class" in words


def test_the_model_card_holds_the_measures_of_metrics_json(reports: Reports) -> None:
    report = reports["classification"]
    described = json.loads((report.parent / "model_card.json").read_text("utf-8"))
    stored = {json.dumps(m, sort_keys=True) for m in metrics_of(report)["measures"]}
    (finding,) = described["findings"]
    assert {json.dumps(m, sort_keys=True) for m in finding["measures"]} <= stored
    assert described["schema"] == card.SCHEMA
    assert described["stated_by_a_person"]["funding"] is None
    states = {row["item"]: row["state"] for row in described["checklist"]}
    assert states["Calibration"] == "filled"
    assert states["Interaction with its users, safety in use"] == "person"
    text = (report.parent / "model_card.md").read_text("utf-8")
    assert "**Not stated**" in text
    assert "| AUROC |" in text


def small(n: int = 60, **change: object) -> pd.DataFrame:
    return tables.scores(n, "test", 7).assign(**change)


EDGES = {
    "one class": (small(y_true=0.0), "not estimable"),
    "ten rows": (small(10), "precise rates, for only"),
    "nan scores": (small(y_score=np.nan), "have no finite score and were left out"),
    "some nan scores": (small().assign(y_score=lambda t: t["y_score"].where(t.index % 3 > 0)),
                        "20 of 60 test rows"),
    "ties": (small(y_score=0.5), "separates the classes completely or not at all"),
    "group without positives": (
        small().assign(y_true=lambda t: t["y_true"].where(t["sex"] == "F", 0.0)), "not estimable"),
    "no truth": (small(y_true=np.nan), "have no certain truth"),
    "one row": (small(1), "not estimable"),
}  # fmt: skip


@pytest.mark.parametrize("edge", EDGES)
def test_tables_at_the_edge_say_what_could_not_be_estimated(tmp_path: Path, edge: str) -> None:
    table, said = EDGES[edge]
    table.to_csv(tmp_path / "t.csv", index=False)
    report = report_table(tmp_path / "t.csv", tmp_path / "out", TableOptions(threshold=0.4))
    words = text_of(report.read_text("utf-8"))
    assert said in words
    assert "nan" not in words.lower().split()


@pytest.mark.slow
def test_two_hundred_thousand_rows(tmp_path: Path) -> None:
    table = pd.concat([tables.scores(60_000, "val", 1), tables.scores(140_000, "test", 2)])
    table.to_parquet(tmp_path / "t.parquet")
    report = report_table(tmp_path / "t.parquet", tmp_path / "out", TableOptions(prevalence=0.05))
    assert report.stat().st_size < 2_000_000


def test_the_same_look_counts_once_and_a_changed_model_again(tmp_path: Path) -> None:
    file, first = tmp_path / "openings.jsonl", small()
    assert count_openings(file, first, "") == {"models": 1, "this": 1}
    assert count_openings(file, first.sample(frac=1, random_state=0), "") == {
        "models": 1, "this": 1,
    }  # fmt: skip
    changed = first.assign(y_score=first["y_score"] ** 2)
    assert count_openings(file, changed, "") == {"models": 2, "this": 2}
    other = small(y_score=0.5).assign(case_id=lambda t: "x" + t["case_id"])
    assert count_openings(file, other, "") == {"models": 1, "this": 1}
    assert count_openings(file, first, "") == {"models": 2, "this": 1}
    assert len(file.read_text("utf-8").splitlines()) == 3
    file.write_text('{"test": 1\n[]\n', encoding="utf-8")
    assert count_openings(file, first, "") == {"models": 1, "this": 1}


def test_a_folder_that_cannot_be_written_has_no_count(tmp_path: Path) -> None:
    assert count_openings(tmp_path / "missing" / "openings.jsonl", small(), "") is None


def test_a_second_look_is_said(tmp_path: Path) -> None:
    first = small()
    first.to_csv(tmp_path / "a.csv", index=False)
    first.assign(y_score=first["y_score"] ** 2).to_csv(tmp_path / "b.csv", index=False)
    report_table(tmp_path / "a.csv", tmp_path / "a")
    second = report_table(tmp_path / "b.csv", tmp_path / "b")
    assert "for 2 models, as far as this folder records; this is number 2" in text_of(
        second.read_text("utf-8")
    )


def test_an_unknown_key_of_the_study_is_refused(tmp_path: Path) -> None:
    path = tables.classification(tmp_path)
    (tmp_path / "predictions.yaml").write_text("study: {purpose: x}\n", encoding="utf-8")
    with pytest.raises(PredictionsError, match="study has the key 'purpose'"):
        report_table(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("yaml", "change", "message"),
    [
        ("labels: {1: heart}\n", {}, "the mask holds the value 2"),
        ("labels: [heart]\n", {}, "labels do not name the values"),
        ("labels: {1: heart, 2: tumour}\n", {"prediction": "masks/none.png"}, "cannot be read"),
        ("labels: {1: heart, 2: tumour}\n", {"spacing_mm": "wide"}, "spacing_mm is .wide."),
        ("labels: {1: heart, 2: tumour}\n", {"spacing_mm": "1 1 1"}, "does not fit 2 axes"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(
    tmp_path: Path, yaml: str, change: dict[str, str], message: str
) -> None:
    path = tables.segmentation(tmp_path, n=2)
    (tmp_path / "predictions.yaml").write_text(yaml, encoding="utf-8")
    pd.read_csv(path).assign(**change).to_csv(path, index=False)
    with pytest.raises(PredictionsError, match=message):
        report_table(path, tmp_path / "out")


def test_volumes_have_their_spacing_in_the_file_and_must_share_the_grid(tmp_path: Path) -> None:
    import nibabel

    mask = np.zeros((12, 12, 6), np.uint8)
    mask[3:9, 3:9, 1:5] = 1
    for name, step in (("t", 1.0), ("p", 1.0), ("q", 2.0)):
        nibabel.save(nibabel.Nifti1Image(mask, np.diag([step, step, 3.0, 1])),
                     tmp_path / f"{name}.nii.gz")  # fmt: skip
    rows = pd.DataFrame({"case_id": ["a"], "patient_id": ["a"], "split": ["test"],
                         "truth": ["t.nii.gz"], "prediction": ["p.nii.gz"]})  # fmt: skip
    found = evaluate.overlap_table(rows, tmp_path / "predictions.csv")
    assert found.loc[0, "volume_truth_ml"] == pytest.approx(6 * 6 * 4 * 3 / 1000)
    assert (found.loc[0, "dice"], found.loc[0, "hd95_mm"]) == (1, 0)
    with pytest.raises(PredictionsError, match="other voxel sizes"):
        evaluate.overlap_table(rows.assign(prediction="q.nii.gz"), tmp_path / "predictions.csv")


def test_pictures_without_a_size_have_overlap_but_no_distances(tmp_path: Path) -> None:
    path = tables.segmentation(tmp_path, n=3)
    pd.read_csv(path).drop(columns="spacing_mm").to_csv(path, index=False)
    report = report_table(path, tmp_path / "out")
    assert "hd95_mm" not in pd.read_csv(tmp_path / "out" / "overlap.csv")
    assert "HD95" not in text_of(report.read_text("utf-8")).split("Conventions")[0]


def test_without_a_browser_the_pdf_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf.shutil, "which", lambda _: None)
    with pytest.raises(RunError, match="no browser to print the PDF with"):
        pdf.write_pdf(tmp_path / "report.html", tmp_path / "report.pdf")


def test_a_browser_that_fails_leaves_no_pdf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf.shutil, "which", lambda _: "/bin/false")
    with pytest.raises(RunError, match="could not print the report"):
        pdf.write_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    assert not (tmp_path / "report.pdf").exists()


def test_a_picture_of_one_of_two_structures_is_read_although_drawn_in_white(tmp_path):
    """Writers draw a mask whose only label is 1 as 255; the other structure is absent there."""
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(tmp_path / "t.png")
    (tmp_path / "predictions.yaml").write_text("labels: {1: left, 2: right}\n")
    rows = pd.DataFrame([{"case_id": "a", "truth": "t.png", "prediction": "t.png"}])
    found = evaluate.overlap_table(rows, tmp_path / "predictions.csv").set_index("label")
    assert found.loc["left", "dice"] == 1.0
    assert found.loc["right", "voxels_truth"] == 0


def test_a_row_that_names_its_structure_is_about_that_one_alone(tmp_path):
    for value in (1, 2):
        Image.fromarray(np.eye(4, dtype=np.uint8) * value).save(tmp_path / f"{value}.png")
    (tmp_path / "predictions.yaml").write_text("labels: {1: left, 2: right}\n")
    rows = pd.DataFrame(
        [
            {"case_id": "a", "label": name, "truth": file, "prediction": file}
            for name, file in (("left", "1.png"), ("right", "2.png"))
        ]
    )
    found = evaluate.overlap_table(rows, tmp_path / "predictions.csv")
    assert found["label"].tolist() == ["left", "right"]
    assert found["dice"].tolist() == [1.0, 1.0]
