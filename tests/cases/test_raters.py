"""Several raters of an image, and labels that are probabilities."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.cases.raters import agreement
from medtl.errors import ManifestError, RecipeError
from medtl.recipe.schema import parse_recipe
from medtl.run.check import check_recipe
from medtl.tasks.findings import Findings
from medtl.types import Case

WIDE = {"target": "effusion", "raters": ["r1", "r2", "r3"]}


def table(folder: Path, header: str, *rows: str) -> Path:
    """A manifest whose images are there."""
    for row in rows:
        (folder / row.split(",")[0]).touch()
    file = folder / "cases.csv"
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def wide(folder: Path, *readings: str) -> Path:
    """A manifest with three raters' readings, "1 0 1" an image."""
    rows = [f"{n}.png,p{n}," + ",".join(r.split(" ")) for n, r in enumerate(readings)]
    return table(folder, "image,patient_id,r1,r2,r3", *rows)


def labels(file: Path, **data: object) -> list[str]:
    """The labels that a study reads."""
    columns = Columns.of({**WIDE, **data})
    return [c.targets["effusion"] for c in read_manifest(file, columns, salt=b"s" * 32).cases]


def test_the_majority_of_three_raters(tmp_path: Path) -> None:
    file = wide(tmp_path, "1 1 0", "0 0 1", "1 1 1", "0  0", "  ")
    assert labels(file, consensus="majority") == ["1", "0", "1", "0", ""]


def test_the_mean_is_a_soft_label(tmp_path: Path) -> None:
    file = wide(tmp_path, "1 1 0", "0 0 0", "1 -1 0", "1 -1 ")
    found = labels(file, consensus="mean")
    assert [float(x) for x in found] == pytest.approx([2 / 3, 0, 0.5, 1])


def test_one_named_rater(tmp_path: Path) -> None:
    file = wide(tmp_path, "1 0 0", "0 1 1", "1  1")
    assert labels(file, consensus="r2") == ["0", "1", ""]


def test_words_of_raters_are_read_as_those_of_one(tmp_path: Path) -> None:
    file = wide(tmp_path, "ja Ja nein", "nein nein JA")
    assert labels(file, consensus="majority", positive="ja") == ["ja", "nein"]
    assert [float(x) for x in labels(file, consensus="mean", positive="ja")] == pytest.approx(
        [2 / 3, 1 / 3]
    )


def test_a_tie_stops_with_its_rows_and_three_answers(tmp_path: Path) -> None:
    file = wide(tmp_path, "1 0 ", "1 1 0", "0 1 ")
    with pytest.raises(ManifestError, match=r"no majority in 2 of 3 images \(rows 2, 4\)") as error:
        labels(file, consensus="majority")
    assert all(a in str(error.value) for a in ("ties: uncertain", "consensus: mean", "one rater"))
    assert labels(file, consensus="majority", ties="uncertain") == ["-1", "1", "-1"]


def test_tied_classes_are_unknown_and_no_class_of_their_own(tmp_path: Path) -> None:
    file = wide(tmp_path, "mild none severe", "mild mild none", "severe severe mild")
    found = labels(file, consensus="majority", ties="uncertain", classes=["none", "mild", "severe"])
    assert found == ["", "mild", "severe"]


def test_classes_have_no_mean(tmp_path: Path) -> None:
    file = wide(tmp_path, "mild none severe", "mild mild none")
    with pytest.raises(ManifestError, match="neither present nor absent: mild, none, severe"):
        labels(file, consensus="mean")


def test_long_rows_of_one_image_are_one_case(tmp_path: Path) -> None:
    rows = ["a.png,p1,R8,1,0", "b.png,p2,R8,0,1", "a.png,p1,R9,1,1", "a.png,p1,R10,0,1"]
    file = table(tmp_path, "image,patient_id,rad_id,effusion,mass", *rows)
    data = {"target": ["effusion", "mass"], "raters": "rad_id", "consensus": "majority"}
    found = read_manifest(file, Columns.of(data), salt=b"s" * 32)
    assert [dict(c.targets) for c in found.cases] == [
        {"effusion": "1", "mass": "1"},
        {"effusion": "0", "mass": "1"},
    ]
    assert found.cases[0].readings["R10"] == {"effusion": "0", "mass": "1"}
    named = read_manifest(file, Columns.of({**data, "consensus": "r9"}), salt=b"s" * 32)
    assert [c.targets["effusion"] for c in named.cases] == ["1", ""]
    assert "1 of 2 images have no label by that rule" in " ".join(named.notes)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("a.png,p1,R8,0", "one rater labels the image again"),
        ("a.png,p2,R9,1", "conflicting patient_id"),
        ("b.png,p2,,1", "no rad_id"),
    ],
)
def test_long_rows_that_contradict_each_other(tmp_path: Path, row: str, found: str) -> None:
    file = table(tmp_path, "image,patient_id,rad_id,effusion", "a.png,p1,R8,1", row)
    data = {"target": "effusion", "raters": "rad_id", "consensus": "majority"}
    with pytest.raises(ManifestError, match=found):
        read_manifest(file, Columns.of(data), salt=b"s" * 32)


def test_agreement_is_that_of_fleiss_over_patients(tmp_path: Path) -> None:
    """By hand: pairs agree in (1 + 1/3 + 1 + 1/3) / 4 = 2/3; present 6 of 12, so 1/2 by chance."""
    file = wide(tmp_path, "1 1 1", "1 1 0", "0 0 0", "0 0 1")
    found = read_manifest(file, Columns.of({**WIDE, "consensus": "majority"}), salt=b"s" * 32)
    kappa = {m.name: m for m in agreement(found.cases, "effusion")}["fleiss_kappa"]
    assert kappa.value == pytest.approx(1 / 3)
    assert kappa.n == 4
    told = " ".join(found.notes)
    assert "agreement of 3 raters: Fleiss' kappa 0.333" in told
    assert "the label is what most raters say" in told


def test_a_soft_label_is_trained_on_and_scored_at_one_half() -> None:
    cases = [Case(x, x, Path(x), {"f": x}) for x in ("0.3", "0.85", "0.5", "1", "", "-1")]
    task = Findings(("f",), soft=True)
    nan = math.nan
    assert task.targets(cases)[:, 0].tolist() == pytest.approx(
        [0.3, 0.85, 0.5, 1, nan, nan], nan_ok=True
    )
    assert task.truth_matrix(cases)[:, 0].tolist() == pytest.approx(
        [0, 1, nan, 1, nan, nan], nan_ok=True
    )
    assert task.to_dict()["soft"] is True
    assert "soft" not in Findings(("f",)).to_dict()


def recipe(file: Path, **data: object) -> dict[str, object]:
    """A recipe as a file holds it."""
    return {
        "study": {"question": "Is there an effusion?"},
        "data": {"manifest": str(file), "target": "effusion", **data},
        "image": {"modality": "cxr"},
    }


def test_probabilities_stop_until_the_recipe_calls_them_so(tmp_path: Path) -> None:
    rows = [f"{n}.png,p{n},{x}" for n, x in enumerate((0, 1, 0.3, 0.85, 1))]
    file = table(tmp_path, "image,patient_id,effusion", *rows)
    with pytest.raises(RecipeError, match=r"2 labels lie between 0 and 1.*State data.soft: true"):
        check_recipe(recipe(file))
    assert check_recipe(recipe(file, soft=True)).data.soft


def test_percentages_are_no_probabilities(tmp_path: Path) -> None:
    rows = [f"{n}.png,p{n},{x}" for n, x in enumerate((0, 100, 30, 0.5))]
    file = table(tmp_path, "image,patient_id,effusion", *rows)
    with pytest.raises(RecipeError, match=r"'100' \(1\), '30' \(1\).*Percent are divided"):
        check_recipe(recipe(file, soft=True))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"raters": ["r1", "r2"]}, "raters need consensus"),
        ({"consensus": "majority"}, "raters need consensus"),
        ({"raters": ["r1", "r2"], "consensus": "r7"}, "none of majority, mean, r1, r2"),
        ({"raters": ["r1", "r2"], "consensus": "mean", "target": ["a", "b"]}, "make one target"),
        ({"exam": "study"}, "exam and exam_score go together"),
    ],
)
def test_what_a_recipe_must_say(data: dict[str, object], found: str) -> None:
    with pytest.raises(RecipeError, match=found):
        parse_recipe(recipe(Path("cases.csv"), **data))


@pytest.mark.parametrize("data", [{"soft": True}, {"exam": "e", "exam_score": "max"}])
def test_what_means_nothing_to_a_quantity(data: dict[str, object]) -> None:
    stated = recipe(Path("cases.csv"), **data)
    with pytest.raises(RecipeError, match="regression"):
        parse_recipe({**stated, "task": {"kind": "regression", "unit": "%"}})


def test_several_boxes_of_one_rater_are_taken_together(tmp_path: Path) -> None:
    rows = [
        "a.png,p1,R8,Effusion,10,20",
        "a.png,p1,R8,Effusion,50,60",
        "a.png,p1,R8,Mass,5,6",
        "a.png,p1,R9,No finding,,",
        "a.png,p1,R10,Mass,7,8",
        "b.png,p2,R8,No finding,,",
    ]
    file = table(tmp_path, "image,patient_id,rad_id,class_name,x,y", *rows)
    data = {
        "target": ["Effusion", "Mass"],
        "listed_in": "class_name",
        "raters": "rad_id",
        "consensus": "majority",
    }
    found = read_manifest(file, Columns.of(data), salt=b"s" * 32)
    assert found.cases[0].readings == {
        "R8": {"Effusion": "1", "Mass": "1"},
        "R9": {"Effusion": "0", "Mass": "0"},
        "R10": {"Effusion": "0", "Mass": "1"},
    }
    assert dict(found.cases[0].targets) == {"Effusion": "0", "Mass": "1"}
    assert any("2 rows are further marks (boxes)" in note for note in found.notes)
    # Labels of 0 and 1 that contradict each other stay a fault.
    rows = ["a.png,p1,R8,1,10", "a.png,p1,R8,1,50", "a.png,p1,R8,0,60"]
    file = table(tmp_path, "image,patient_id,rad_id,effusion,x", *rows)
    columns = Columns(["effusion"], raters=["rad_id"], consensus="majority")
    with pytest.raises(ManifestError, match="one rater labels the image again"):
        read_manifest(file, columns, salt=b"s" * 32)


def test_a_rater_in_two_spellings_is_no_majority(tmp_path: Path) -> None:
    long = {"raters": ["reader"], "consensus": "majority"}
    rows = [f"0.png,p0,{who},{said}" for who, said in [("Kim", 1), ("kim ", 1), ("Lee", 0)]]
    header = "image,patient_id,reader,effusion"
    with pytest.raises(ManifestError, match="1 raters stand in several spellings") as caught:
        labels(table(tmp_path, header, *rows), **long)
    assert "column 'reader'" in str(caught.value)
    assert "kim" not in str(caught.value).casefold()
    rows[1] = "0.png,p0,Park,1"
    assert labels(table(tmp_path, header, *rows), **long) == ["1"]
