"""`medtl plan-size` with the numbers of the papers it follows."""

from __future__ import annotations

import pytest
from typed import fails, medtl


@pytest.mark.parametrize(
    ("share", "number"), [("0.80", 245), ("0.85", 196), ("0.90", 141), ("0.95", 83)]
)
@pytest.mark.parametrize("name", ["sensitivity", "specificity"])
def test_shares_by_wilson(name, share, number):
    said = medtl("plan-size", f"--{name}", share)
    whose = "with" if name == "sensitivity" else "without"
    expected = f"{name} {float(share):g} known to +-5 points: {number} patients {whose} the finding"
    assert expected in said
    assert "in all" not in said


def test_patients_in_all_follow_from_the_prevalence():
    said = medtl("plan-size", "--sensitivity", "0.9", "--specificity", "0.8", "--prevalence", "0.1")
    assert "141 patients with the finding; 1,410 patients in all" in said
    assert "245 patients without the finding; 273 patients in all" in said
    assert "promised with 90% certainty (to choose the threshold by): 22 patients with" in said


@pytest.mark.parametrize(("auroc", "number"), [("0.80", "1,135"), ("0.85", "926"), ("0.90", "672")])
def test_auroc_by_hanley_and_mcneil(auroc, number):
    said = medtl("plan-size", "--auroc", auroc, "--prevalence", "0.1")
    assert f"(Hanley-McNeil): {number} patients" in said


def test_riley_2021():
    said = medtl(
        *("plan-size", "--auroc", "0.8", "--prevalence", "0.018", "--oe-width", "1"),
        *("--lp-mean", "-5", "--lp-sd", "2.5"),
    )
    assert "observed over expected, interval 1 wide: 905 patients" in said
    assert "(Riley): 4,252 patients" in said
    assert "calibration slope, interval 0.2 wide: " in said
    said = medtl(
        *("plan-size", "--sensitivity", "0.8", "--specificity", "0.8", "--prevalence", "0.3"),
        *("--act-at", "0.2"),
    )
    assert "net benefit at 0.2, interval 0.2 wide: 260 patients" in said


def test_several_images_of_a_patient():
    cluster = ("--images-per-patient", "3", "--icc", "0.5")
    said = medtl("plan-size", "--sensitivity", "0.9", "--prevalence", "0.5", *cluster)
    assert "282 images of 94 patients with the finding; 564 images of 188 patients in all" in said
    assert (
        "(to choose the threshold by): 22 patients with the finding" in said
    )  # patients, not images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing that is expected is stated"),
        (["--auroc", "0.8"], "State --prevalence"),
        (["--sensitivity", "90"], "a sensitivity of 90; expected a share between 0 and 1"),
        (["--sensitivity", "0.9", "--images-per-patient", "2"], "State --icc"),
        (["--sensitivity", "0.9", "--half-width", "0.7"], "half width is 0.7"),
        (["--auroc", "0.8", "--prevalence", "5"], "prevalence is 5"),
        (["--act-at", "0.1", "--prevalence", "0.5"], "State --sensitivity, --specificity"),
    ],
)
def test_what_cannot_be_planned(monkeypatch, capsys, arguments, message):
    status, text = fails(monkeypatch, capsys, "plan-size", *arguments)
    assert status == 1
    assert message in text
