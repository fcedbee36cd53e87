"""What stands first on page one: gaps, missed targets, missing scores, bad calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_example as example
from test_report_html import text_of, written

from medtl.report.language.texts import speaking
from medtl.report.page.gravest import concern_lines
from medtl.report.page.models import comparison_view

GAP: dict[str, Any] = {
    "kind": "gap", "label": "pneumonia", "subset": "site=Busan", "measure": "sensitivity",
    "value": -0.41, "low": -0.52, "high": -0.29, "p": 3e-10,
    "facts": {"group": "Busan", "group_value": 0.52, "reference": "Seoul",
              "reference_value": 0.93},
}  # fmt: skip
TARGET: dict[str, Any] = {
    "kind": "target_missed", "label": "pneumonia", "measure": "sensitivity",
    "value": 0.74, "low": 0.64, "high": 0.83,
    "facts": {"target": 0.9, "assurance": None, "refuted": True},
}  # fmt: skip
MISSING: dict[str, Any] = {
    "kind": "missing_scores", "label": "pneumonia", "measure": "",
    "facts": {"positives": 167, "positives_missing": 48, "negatives": 333,
              "negatives_missing": 2, "worst": {"sensitivity": 0.6},
              "best": {"sensitivity": 0.886}},
}  # fmt: skip
CALIBRATION: dict[str, Any] = {
    "kind": "miscalibrated", "label": "pneumonia", "measure": "calibration_slope",
    "value": 0.33, "low": 0.25, "high": 0.41,
    "facts": {"harmful": [0.2, 0.5], "mended_by": "platt"},
}  # fmt: skip
REVERSED: dict[str, Any] = {
    "kind": "scores_reversed", "label": "pneumonia", "measure": "auroc",
    "value": 0.145, "low": 0.1, "high": 0.2,
}  # fmt: skip
KINDS = [REVERSED, GAP, TARGET, MISSING, CALIBRATION]


def test_a_gap_names_the_worse_group_first_whichever_way_it_is_stored() -> None:
    (line,) = concern_lines({"concerns": [GAP]})
    assert (
        "missed in Busan. Of 100 with the finding 48 are missed there, against 7 in Seoul" in line
    )
    assert "p <0.001 after Holm" in line
    facts = {"group": "Seoul", "group_value": 0.93, "reference": "Busan", "reference_value": 0.52}
    turned = {**GAP, "subset": "site=Seoul", "value": 0.41, "low": 0.29, "high": 0.52,
              "facts": facts}  # fmt: skip
    assert concern_lines({"concerns": [turned]}) == [line]


def test_a_missed_target_of_many_findings_names_the_target_and_who_surely_missed_it() -> None:
    low = {**TARGET, "facts": {**TARGET["facts"], "refuted": False}}
    rows = [TARGET, {**low, "label": "mass"}, {**low, "label": "nodule"}]
    (line,) = concern_lines({"concerns": rows})
    assert "missed the target of the threshold, Sensitivity (found) 90%: pneumonia 74%" in line
    assert line.count("even the upper end lies below it") == 1


def test_a_gap_in_months_is_said_in_months() -> None:
    row = {**GAP, "label": "bone_age_months", "subset": "sex=F", "measure": "bias_months",
           "value": 11.0, "low": 8.0, "high": 14.0,
           "facts": {"group": "F", "group_value": 7.1, "reference": "M",
                     "reference_value": -3.9}}  # fmt: skip
    (line,) = concern_lines({"concerns": [row]})
    assert "is 7.1 months in F and −3.9 months in M" in line


def test_every_concern_stands_on_page_one_and_among_the_limits(tmp_path: Path) -> None:
    page = text_of(written(tmp_path, {**example.single(), "concerns": KINDS}))
    one, rest = page.split("Contents" if "Contents" in page else "Cases to look at", 1)
    for said in (
        "Read this first",
        "the scores may run the other way",
        "missed in Busan",
        "aimed at Sensitivity (found) 90%; the test set shows 74% (64% to 83%)",
        "48 of 167 cases with it and 2 of 333 without it have no score",
        "60% at worst, 89% at best",
        "0.33 (0.25 to 0.41)",
        "a risk of 20% to 50% is worse",
        "Platt scaling, fitted on validation, mends it",
    ):
        assert said in one, said
    assert page.count("missed in Busan") == 2
    assert rest.index("missed in Busan") < rest.index("other hospitals")


def test_what_many_findings_share_is_one_line() -> None:
    many = [{**TARGET, "label": name} for name in ("mass", "nodule", "hernia")]
    (line,) = concern_lines({"concerns": many})
    assert line.startswith("In 3 findings")
    assert "nodule 74% (64% to 83%)" in line
    assert len(concern_lines({"concerns": many[:2]})) == 2


def test_files_without_concerns_have_no_lines(tmp_path: Path) -> None:
    assert concern_lines(example.single()) == []
    assert "Read this first" not in written(tmp_path, example.single())


def test_concerns_are_said_in_korean(tmp_path: Path) -> None:
    with speaking("ko"):
        lines = concern_lines({"concerns": KINDS})
    assert "Busan에서 위음성(놓침)이 더 많습니다" in lines[1]
    assert all(line.startswith("폐렴") for line in lines)


def test_flags_that_are_right_are_worded_by_the_lower_end(tmp_path: Path) -> None:
    metrics = example.single()
    for row in metrics["measures"]:
        if row["name"] == "ppv_at_prevalence":
            row.update(value=1.0, low=0.48, high=1.0)
    page = text_of(written(tmp_path, metrics))
    assert "Of 100 flags, at least 48 are right." in page
    assert "best estimate 100 of 100; 95% interval 48 to 100" in page
    assert "Of 100 flags, 100 are right" not in page


def test_each_finding_has_its_prevalence_on_page_one(tmp_path: Path) -> None:
    stated = {"effusion": 0.05, "pneumothorax": 0.0055}
    page = text_of(written(tmp_path, example.several(), study={"prevalence": stated}))
    assert "5% stated" in page
    assert "0.55% stated" in page
    assert "0% test set" in page


def test_who_fixed_the_threshold_is_said_only_where_it_is_known(tmp_path: Path) -> None:
    metrics = example.single()
    assert "before the test set was opened is not recorded" in written(tmp_path, metrics)
    metrics["operating_points"][0]["source"] = "run"
    assert "fixed on validation before the test set was opened" in written(tmp_path, metrics)
    metrics["operating_points"][0]["chosen_on"] = "given"
    assert "stated by the user; where it comes from is not recorded" in written(tmp_path, metrics)


def line(slope: tuple[float, float], large: tuple[float, float], ending: str = "") -> list[Any]:
    """Rows of the two measures of calibration with these intervals."""
    rows = []
    for name, (low, high) in (("slope", slope), ("in_the_large", large)):
        rows.append({
            **example.single()["measures"][0], "name": f"calibration_{name}{ending}",
            "split": "test", "subset": "all", "status": "ok", "reason": "",
            "value": (low + high) / 2, "low": low, "high": high,
        })  # fmt: skip
    return rows


@pytest.mark.parametrize(
    ("slope", "large", "said"),
    [
        ((0.9, 1.1), (-0.1, 0.1), ["Yes, as far as this test set", "slope 1.00 (0.90 to 1.10)"]),
        ((0.2, 0.5), (-0.1, 0.1), ["No: calibration slope 0.35", "too extreme"]),
        ((1.5, 2.5), (-0.1, 0.1), ["No: calibration slope 2.00", "too timid"]),
        ((0.9, 1.1), (0.5, 0.9), ["No: calibration slope 1.00", "too low throughout"]),
        ((0.9, 1.1), (-0.9, -0.5), ["too high throughout"]),
        ((0.7, 1.6), (-0.1, 0.1), ["Not shown either way"]),
    ],
)
def test_whether_30_percent_is_3_in_10_is_answered_whatever_the_slope(
    tmp_path: Path, slope: tuple[float, float], large: tuple[float, float], said: list[str]
) -> None:
    metrics = example.single()
    kept = [row for row in metrics["measures"] if not row["name"].startswith("calibration_")]
    page = text_of(written(tmp_path, {**metrics, "measures": kept + line(slope, large)}))
    for words in said:
        assert words in page
    bare = text_of(written(tmp_path, {**metrics, "measures": kept}))
    assert "It cannot be said: the scores are not between 0 and 1" in bare


@pytest.mark.parametrize(
    ("then", "short", "concern"),
    [
        (
            (0.9, 1.1),
            "no; recalibrated: yes",
            "mends it; the mended probabilities are those to use",
        ),
        (
            (0.3, 0.6),
            "no; recalibrated: no",
            "fitted on validation, does not mend it. Mended, the slope",
        ),
    ],
)
def test_page_one_speaks_of_the_mended_probabilities(
    tmp_path: Path, then: tuple[float, float], short: str, concern: str
) -> None:
    metrics = example.single()
    kept = [row for row in metrics["measures"] if not row["name"].startswith("calibration_")]
    calm = (-0.1, 0.1)
    after = line(then, calm, "_after_recalibration")
    fit = {"label": after[0]["label"], "fit": {"method": "platt"}, "classes": []}
    facts = {"harmful": None, "mended_by": "platt", "after": after[0]}
    content = {**metrics, "measures": [*kept, *line((0.2, 0.5), calm), *after],
               "recalibrations": [fit], "concerns": [{**CALIBRATION, "facts": facts}]}  # fmt: skip
    page = text_of(written(tmp_path, content))
    one = page.split("Intended use", 1)[0]
    assert short in one
    assert concern in one
    assert "Platt scaling was fitted there" in page


def comparison_of(p_holm: float | None, second: str = "B") -> dict[str, Any]:
    difference = {"name": "auroc_difference", "value": 0.08, "low": 0.01, "high": 0.15}
    test = {"difference": {**difference, "status": "ok", "reason": "", "confidence": 0.95}}
    pair = {"label": "mass", "first": "A", "second": second, "test": test, "p_holm": p_holm}
    return {"comparison": {"models": ["A", second], "shown": "A", "rows": [], "tests": [pair]}}


def test_models_that_do_not_differ_are_not_called_equal() -> None:
    metrics = comparison_of(0.05)
    found = comparison_view(metrics)
    (line,) = found["first"]
    assert line.startswith("A and B: none of 1 paired differences is beyond chance, which is no")
    assert found["lead"].startswith("2 models on the same test cases.")
    metrics["comparison"]["tests"] *= 2
    metrics["comparison"]["tests"][1] = {**metrics["comparison"]["tests"][1], "p_holm": None}
    assert "none of 1 paired" in comparison_view(metrics)["first"][0]  # the other was not tested


@pytest.mark.parametrize("language", ["en", "ko"])
def test_models_without_common_cases_are_not_called_alike(language: str) -> None:
    metrics = comparison_of(None)
    metrics["comparison"]["tests"][0]["dropped"] = 100
    with speaking(language):
        found = comparison_view(metrics)
    (line,) = found["first"]
    assert ("too few common cases" if language == "en" else "비교하지 못했습니다") in line
    assert ("do not all have" if language == "en" else "같지는 않습니다") in found["lead"]


def test_models_that_differ_say_which_is_which() -> None:
    (line,) = comparison_view(comparison_of(0.03))["first"]
    assert (
        line
        == "mass, A minus B: AUROC +0.080 (+0.010 to +0.150), p 0.030 (Holm within the measure)."
    )
    other = comparison_of(0.03)
    other["comparison"] |= {
        "models": ["A", "B", "C"],
        "shown": "C",
    }  # A and B are another's business
    assert comparison_view(other)["first"] == []
