"""Synthetic hands: bones ossify and fuse in order, and only the hand tells the age."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import look_at, needs_chromium

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.demo.hand import (
    OLDEST,
    SIDECAR,
    TARGET,
    YOUNGEST,
    attenuation,
    draw_hand,
    write_hand_study,
)
from medtl.demo.hand_anatomy import (
    CARPALS,
    FUSING_MONTHS,
    GIRLS_AHEAD,
    Hand,
    bone_outlines,
    openness,
    ossified,
    sample_hand,
)
from medtl.errors import RunError
from medtl.io.read import read_image
from medtl.storage.yaml import load_yaml

SHAPE = (600, 480)
UPRIGHT = np.array([[440.0, 0.0, 240.0], [0.0, -440.0, 500.0]])
PATIENTS = 6


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hand_study(tmp_path_factory.mktemp("study"), patients=PATIENTS, seed=3)


def hand(months: float, sex: str = "M") -> Hand:
    """A hand without individual variation."""
    drawn = sample_hand(np.random.default_rng(0), sex, months)
    return replace(
        drawn,
        slenderness=1.0,
        spread=(0.0,) * len(drawn.spread),
        earliness=(0.0,) * len(drawn.earliness),
    )


def area(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def test_growth_plate_and_ossification_by_hand() -> None:
    assert openness(100, closes=100 + 2 * FUSING_MONTHS) == 1
    assert openness(100, closes=100 + FUSING_MONTHS / 2) == pytest.approx(0.5)
    assert openness(100, closes=99) == 0
    assert ossified(10, appears=10, months=50) == 0
    assert ossified(35, appears=10, months=50) == pytest.approx(0.65)
    assert ossified(99, appears=10, months=50) == 1


def test_bones_appear_and_fuse() -> None:
    """19 long bones and 2 of the forearm, each in two parts while its plate is open."""
    number = {months: len(list(bone_outlines(hand(months)))) for months in (2, 40, 150, 230)}
    shafts = 19 + 2
    assert number[2] == shafts
    # At 40 months 3 carpals (the first three), 19 epiphyses, and that of the radius.
    assert number[40] == shafts + 3 + 19 + 1
    assert number[150] == shafts + len(CARPALS) + shafts
    assert number[230] == shafts + len(CARPALS)


def test_the_area_of_bone_grows_with_age() -> None:
    areas = [sum(map(area, bone_outlines(hand(months)))) for months in (12, 48, 96, 144)]
    assert areas == sorted(areas)


def test_girls_are_ahead() -> None:
    girl, boy = hand(100, "F"), hand(100 * GIRLS_AHEAD, "M")
    pairs = zip(bone_outlines(girl), bone_outlines(boy), strict=True)
    assert all(np.allclose(one, other) for one, other in pairs)
    assert len(list(bone_outlines(hand(65, "F")))) > len(list(bone_outlines(hand(65, "M"))))


def test_size_tells_the_age_only_roughly() -> None:
    rng = np.random.default_rng(0)
    lengths = {
        months: np.array([sample_hand(rng, "M", months).length_mm for _ in range(300)])
        for months in (96, 120)
    }
    assert lengths[120].mean() > lengths[96].mean()
    assert lengths[120].min() < lengths[96].mean()


def test_bone_is_whiter_than_flesh_and_flesh_than_air() -> None:
    seen = attenuation(hand(180), UPRIGHT, SHAPE)
    across = seen[500 - round(0.35 * 440), 200:300]  # through the metacarpals
    assert seen[5, 5] == 0
    assert across.min() > 1.5
    assert across.max() > across.min() + 1


def test_growth_plates_are_dark_lines_that_go() -> None:
    """From the third metacarpal into its finger: a plate, the joint, a plate; then the joint."""
    place = np.linspace(0.44, 0.60, 200)
    columns = np.round(240 + 440 * (0.015 + np.sin(np.deg2rad(1)) * (place - 0.175))).astype(int)
    rows = np.round(500 - 440 * place).astype(int)
    lines = {}
    for months in (110, 204):
        is_dark = attenuation(hand(months), UPRIGHT, SHAPE)[rows, columns] < 3.2
        lines[months] = int((np.diff(is_dark.astype(int)) == 1).sum())
    assert lines == {110: 3, 204: 1}


def test_manifest_is_accepted_and_every_image_reads_back(manifest: Path) -> None:
    found = read_manifest(manifest, Columns([TARGET], strata=["sex", "age"], ids="pseudonymous"))
    assert len(found.cases) == len({case.patient_id for case in found.cases}) == PATIENTS
    for number, case in enumerate(found.cases):
        drawn = draw_hand(3, number)
        assert YOUNGEST <= float(case.targets[TARGET]) <= OLDEST
        assert case.strata["sex"] == drawn.hand.sex
        image = read_image(case.image)
        level = drawn.encoding.slope or 1.0
        top = ((1 << drawn.encoding.bits) - 1) * level
        np.testing.assert_allclose(image.array[0] / top, drawn.film, atol=0.51 * level / top + 1e-6)


def test_files_say_that_they_are_synthetic_left_hands(manifest: Path) -> None:
    from pydicom import dcmread

    for path in sorted((manifest.parent / "images").iterdir()):
        header = dcmread(path, stop_before_pixels=True)
        assert header.BodyPartExamined == "HAND"
        assert "SYNTHETIC" in header.ImageComments
        assert header.StudyDescription == "SYNTHETIC hand phantom"
        assert str(header.PatientName) == "SYNTHETIC^PHANTOM"
        if header.Modality == "DX":
            assert header.ImageLaterality == "L"
            assert header.AnatomicRegionSequence[0].CodeMeaning == "Hand"


def test_the_sidecar_gives_the_unit(manifest: Path) -> None:
    assert load_yaml(manifest.with_suffix(".yaml")) == SIDECAR
    assert SIDECAR["units"][TARGET] == "months"


def test_same_seed_same_bytes(manifest: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_hand_study(tmp_path, patients=2, seed=3, progress=lambda *done: calls.append(done))
    assert calls == [(1, 2), (2, 2)]
    first, second = (
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (root / "images").iterdir()}
        for root in (manifest.parent, tmp_path)
    )
    assert second.items() <= first.items()
    write_hand_study(tmp_path / "other", patients=1, seed=4)
    other = (tmp_path / "other" / "images" / "synth-0001.dcm").read_bytes()
    assert hashlib.sha256(other).hexdigest() not in first.values()


def test_device_and_sex_say_nothing_about_the_age() -> None:
    rows = [draw_hand(0, number) for number in range(60)]
    age = np.array([row.hand.bone_age_months for row in rows])
    for group in (
        [row.hand.sex == "F" for row in rows],
        [row.scanner.site == "north" for row in rows],
        [row.encoding.bits > 10 for row in rows],
    ):
        assert abs(np.corrcoef(age, group)[0, 1]) < 3 / np.sqrt(len(rows))


def test_chronological_age_is_near_the_bone_age(manifest: Path) -> None:
    with manifest.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert abs(float(row["age"]) + 0.5 - float(row[TARGET]) / 12) < 3


def test_no_patient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="0 patients are asked for; expected 1 or more"):
        write_hand_study(tmp_path, patients=0)


def test_folder_that_cannot_be_written_is_said_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"^taken: the images cannot be written") as caught:
        write_hand_study(tmp_path / "taken", patients=1)
    assert str(tmp_path) not in str(caught.value)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medtl.demo.demonstration import run_demo

    return run_demo(tmp_path_factory.mktemp("hand") / "demo", task="bone-age").report_path


@pytest.mark.slow
def test_the_demo_learns_the_bone_age_and_its_report_says_synthetic(report: Path) -> None:
    import json

    from medtl.cases.predictions import read_predictions

    measures = json.loads(report.with_name("metrics.json").read_text())["measures"]
    (error,) = [m for m in measures if (m["name"], m["subset"]) == ("mae_months", "all")]
    table = read_predictions(report.with_name("predictions.csv"))
    truth = table.loc[table["split"] == "test", "y_true"]
    of_median = (truth - truth.median()).abs().mean()
    assert error["high"] < of_median / 2
    assert "Synthetic images" in report.read_text()


@needs_chromium
@pytest.mark.slow
def test_the_report_in_a_browser(report: Path) -> None:
    look_at(report, ["identity", "bland"])
