"""Tables of readers' marks: from the table to differences, agreement, page and plain errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtl.errors import PredictionsError
from medtl.metrics.ranking import auroc
from medtl.metrics.readers.multireader import reader_study
from medtl.run.clinical.marks import read_marks
from medtl.run.clinical.reader_tables import ReaderOptions, evaluate_readers, summarise_readers

VAN_DYKE = Path(__file__).parents[2] / "../shared/oracles2/vandyke.csv"


def made_up(cases: int = 40, readers: str = "ABC", *, model: bool = False) -> pd.DataFrame:
    random = np.random.default_rng(0)
    truth = np.arange(cases) % 3 == 0
    rows = []
    for modality, gain in (("alone", 1.0), ("with AI", 2.0)):
        for reader in readers:
            marks = np.clip(np.round(2 + gain * truth + random.normal(0, 1, cases)), 1, 5)
            rows += [
                {"case_id": f"c{i:02d}", "reader": reader, "modality": modality,
                 "score": marks[i], "truth": int(truth[i])} for i in range(cases)
            ]  # fmt: skip
    if model:
        scores = truth + random.normal(0, 0.7, cases)
        rows += [{"case_id": f"c{i:02d}", "reader": "", "modality": "net", "score": scores[i],
                  "truth": int(truth[i])} for i in range(cases)]  # fmt: skip
    return pd.DataFrame(rows)


def written(table: pd.DataFrame, folder: Path) -> Path:
    path = folder / "marks.csv"
    table.to_csv(path, index=False)
    return path


def test_van_dyke_through_the_house(tmp_path: Path) -> None:
    if not VAN_DYKE.is_file():
        pytest.skip("the published table is not here")
    evaluate_readers(VAN_DYKE, tmp_path / "out")
    (row,) = pd.read_csv(tmp_path / "out" / "differences.csv").to_dict("records")
    assert row["value"] == pytest.approx(-0.04380032, abs=5e-9)
    assert (row["low"], row["high"]) == pytest.approx((-0.0878672, 0.00026655), abs=5e-8)
    assert row["p"] == pytest.approx(0.05123303, abs=5e-9)
    (parts,) = pd.read_csv(tmp_path / "out" / "components.csv").to_dict("records")
    assert parts["error_variance"] == pytest.approx(0.0007921325, abs=5e-11)
    assert (parts["f"], parts["df"]) == pytest.approx((4.484854, 15.06611), abs=5e-6)


def test_the_table_says_what_the_arrays_say(tmp_path: Path) -> None:
    table = made_up().sample(frac=1, random_state=0)
    found = evaluate_readers(
        written(table, tmp_path), tmp_path / "out", ReaderOptions(threshold=3, margin=0.1)
    )
    wide = made_up().pivot(index=["modality", "reader"], columns="case_id", values="score")
    marks = wide.to_numpy().reshape(2, 3, 40)
    truth = made_up().drop_duplicates("case_id")["truth"].to_numpy()
    for of in ("auroc", "sensitivity", "specificity"):
        by_hand = reader_study(truth, marks, of=of, threshold=3)
        (mine,) = [one for one in found.compared if one.of == of]
        assert mine.contrast.test.p == pytest.approx(by_hand.contrasts[0].test.p)
        assert (mine.first, mine.second) == ("alone", "with AI")
        assert mine.noninferior is not None
    values = {(m, r): v for of, m, r, v in found.single if of == "auroc"}
    assert values["with AI", "B"] == auroc(truth, marks[1, 1])


def test_everything_is_in_the_folder_in_both_languages(tmp_path: Path) -> None:
    path = written(made_up(model=True), tmp_path)
    options = ReaderOptions(threshold=3, cutoff=0.5, margin=0.1)
    for language, words in (("en", "Reader study"), ("ko", "판독자 연구")):
        out = tmp_path / language
        found = evaluate_readers(path, out, options, language=language)
        assert words in (out / "report.html").read_text("utf-8")
    names = {"each_reader.csv", "means.csv", "differences.csv", "components.csv", "agreement.csv"}
    assert names | {"readers.json", "report.html"} == {file.name for file in out.iterdir()}
    content = json.loads((out / "readers.json").read_text(), parse_constant=pytest.fail)
    assert content["schema"] == "medtl-readers/1"
    assert {(c["first"], c["second"]) for c in content["compared"]} == {
        ("alone", "with AI"), ("net", "alone"), ("net", "with AI")
    }  # fmt: skip
    assert any("gwet_ac1" in line for line in summarise_readers(found))


def test_yes_and_no_have_no_area_and_names_of_columns_are_known(tmp_path: Path) -> None:
    table = made_up().assign(score=lambda t: (t["score"] >= 3).astype(int))
    table = table.rename(columns={"case_id": "Case", "modality": "treatment", "score": "rating"})
    found = evaluate_readers(written(table, tmp_path), tmp_path / "out")
    assert {one.of for one in found.compared} == {"sensitivity", "specificity"}
    assert "no AUROC" in " ".join(found.notes)


def test_fixed_readers_and_one_modality(tmp_path: Path) -> None:
    path = written(made_up().query("modality == 'alone'").drop(columns="modality"), tmp_path)
    found = evaluate_readers(path, tmp_path / "out", ReaderOptions(readers="fixed"))
    assert (found.modalities, found.compared) == (("all",), ())
    assert "no threshold is stated" in " ".join(found.notes)
    json.loads((tmp_path / "out" / "readers.json").read_text(), parse_constant=pytest.fail)


def test_a_reader_who_did_not_read_all_stops_it_with_what_is_possible(tmp_path: Path) -> None:
    table = made_up()
    gone = (table["reader"] == "C") & (table["modality"] == "alone")
    path = written(table[~(gone & table["case_id"].isin(["c01", "c02"]))], tmp_path)
    with pytest.raises(PredictionsError, match="reader C in alone: 2") as error:
        read_marks(path)
    assert "--complete-cases compares the 38 cases" in str(error.value)
    assert "--without C keeps all cases with 2 readers" in str(error.value)
    kept = read_marks(path, complete_cases=True)
    assert kept.marks.shape == (2, 3, 38)
    assert "2 of 40 cases were not read by all" in kept.notes[0]
    assert read_marks(path, without=["C"]).marks.shape == (2, 2, 40)
    with pytest.raises(PredictionsError, match="no reader D"):
        read_marks(path, without=["D"])
    path = written(table[~gone], tmp_path)
    with pytest.raises(PredictionsError, match="reader C in alone: 40"):
        read_marks(path)
    with pytest.raises(PredictionsError, match="no case was read by all"):
        read_marks(path, complete_cases=True)


def test_tables_that_are_none(tmp_path: Path) -> None:
    table = made_up()
    broken = {
        "no column truth": table.drop(columns="truth"),
        "score is not a number in 240 rows": table.assign(score="high"),
        "truth holds other values": table.assign(truth=2),
        "rows repeat a case": pd.concat([table, table.head(3)]),
        "no row has a reader": table.query("reader == 'A'").assign(reader=""),
    }
    apart = table.copy()
    apart.loc[0, "truth"] = 0
    broken["the truth of 1 cases differs"] = apart
    for message, faulty in broken.items():
        with pytest.raises(PredictionsError, match=message):
            read_marks(written(faulty, tmp_path))
    with pytest.raises(PredictionsError, match="1 reader"):
        evaluate_readers(written(table.query("reader == 'A'"), tmp_path), tmp_path / "out")


def test_a_model_without_a_cutoff_is_compared_in_its_area_alone(tmp_path: Path) -> None:
    path = written(made_up(model=True), tmp_path)
    found = evaluate_readers(path, tmp_path / "out", ReaderOptions(threshold=3))
    of_model = {one.of for one in found.compared if one.first == "net"}
    assert of_model == {"auroc"}
    assert "no --cutoff" in " ".join(found.notes)


def test_the_command(tmp_path: Path) -> None:
    path = written(made_up(), tmp_path)
    medtl = str(Path(sys.executable).with_name("medtl"))
    command = [medtl, "readers", str(path), "--threshold", "3", "--margin", "0.1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "alone minus with AI, auroc_difference" in done.stdout
    assert (tmp_path / "marks-readers" / "report.html").is_file()
