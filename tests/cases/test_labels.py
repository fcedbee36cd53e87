"""Columns of labels: strangers, words for "missing", a split with one value."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtl.cases.labels import label_faults, listed_findings, one_value_notes
from medtl.types import Case


def cases(*labels: str, splits: tuple[str, ...] = ()) -> list[Case]:
    return [
        Case(
            case_id=f"c{row}",
            patient_id=f"p{row}",
            image=Path("x.png"),
            targets={"label": label},
            split=splits[row] if splits else "",
            row=row + 2,
        )
        for row, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("labels", "classes", "found"),
    [
        (("0", "1", ""), (), []),
        (("0", "1", "-1", "2.5"), (), []),
        (("0", "1", "nan"), (), ["the label 'nan' (rows 4)"]),
        (("0", "NaN", "N/A"), (), ["the label 'NaN' (rows 3)", "the label 'N/A' (rows 4)"]),
        (("NA", "None", "mild"), (), []),  # honest names of classes
        (("0", "1", "mild"), (), []),  # another fault, which the task names
        (("NA", "None", "mild"), ("NA", "None", "mild"), []),
        (("0", "1", "7"), ("0", "1"), ["the label '7' (rows 4)"]),
        (("0", "1", "na"), ("0", "1", "na"), []),
        (("0", "1"), ("0", "1", "2"), ["data.classes: '2' occurs in no row"]),
    ],
)
def test_values_of_a_column(
    labels: tuple[str, ...], classes: tuple[str, ...], found: list[str]
) -> None:
    faults = label_faults(cases(*labels), "label", classes)
    assert [fault.found for fault in faults] == found
    assert all(fault.fix for fault in faults)


def test_a_split_with_one_value_is_noted() -> None:
    study = cases("0", "1", "0", "", "1", "0", splits=("train", "train", "test", "test", "val", ""))
    assert one_value_notes(study, ["label"]) == [
        "the val split holds the class '1' only of column 'label': statistics that compare "
        "classes, such as the AUROC, are undefined there",
        "the test split holds the class '0' only of column 'label': statistics that compare "
        "classes, such as the AUROC, are undefined there",
    ]
    assert one_value_notes(cases("", splits=("val",)), ["label"])[0].startswith(
        "the val split holds no known label"
    )
    assert one_value_notes(study[:2], ["label"]) == []


@pytest.mark.parametrize("separator", ["|", "; ", " + ", " & ", "\n", "\u3001", " and "])
def test_several_findings_in_one_cell_are_seen_whatever_joins_them(separator: str) -> None:
    cells = ["none", "Effusion", "Mass", f"Effusion{separator}Mass"]
    found = listed_findings(cells)
    assert found is not None
    assert found[1] == ["Effusion", "Mass"]
    assert found[0] in separator


@pytest.mark.parametrize("cells", [["COVID", "COVID+"], ["HER2+", "HER2-"], ["A", "B and C"]])
def test_a_sign_at_the_end_of_a_word_lists_nothing(cells: list[str]) -> None:
    assert listed_findings(cells) is None
