"""Tables with known answers: what is said of gaps, missing scores, patients and ordered classes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtl.cases.predictions import read_predictions
from medtl.evaluation.assemble import evaluate
from medtl.metrics.curves.decision_curve import decision_curve
from medtl.metrics.scores import CI
from medtl.types import OperatingPoint

QUICK = CI(resamples=50)


@pytest.fixture
def tables(shared: Path) -> Path:
    folder = shared / "oracles2"
    if not folder.is_dir():
        pytest.skip("needs the second set of tables")
    return folder


def at(label: str, threshold: float) -> list[OperatingPoint]:
    return [OperatingPoint(label, threshold, "given", "given", 0, 0)]


@pytest.mark.parametrize("threshold", [0.2, 0.3, 0.5])
def test_the_misses_of_one_site_come_first(tables: Path, threshold: float) -> None:
    table = read_predictions(tables / "sub.csv")
    found = evaluate(
        table, operating_points=at("pneumonia", threshold), strata=["site", "sex"], ci=QUICK
    )
    first = found.concerns[0]
    assert (first.kind, first.subset, first.measure) == ("gap", "site=Busan", "sensitivity")
    assert first.p is not None
    assert first.p < 1e-6


def test_without_a_threshold_one_site_stands_out_by_its_auroc(tables: Path) -> None:
    found = evaluate(read_predictions(tables / "sub.csv"), strata=["site", "sex"], ci=QUICK)
    first = found.concerns[0]
    assert (first.kind, first.subset, first.measure) == ("gap", "site=Busan", "auroc")
    assert first.p is not None
    assert first.p < 1e-6
    assert [concern.subset for concern in found.concerns if concern.kind == "gap"] == ["site=Busan"]


def test_missing_scores_may_hide_a_sensitivity_of_60_percent(tables: Path) -> None:
    table = read_predictions(tables / "miss.csv")
    known = table["y_score"][(table["y_true"] == 1) & table["y_score"].notna()]
    threshold = float(np.sort(known)[-100])  # finds 84 % of the 119 that have a score
    found = evaluate(table, operating_points=at("pneumonia", threshold), ci=QUICK)
    (missing,) = found.missing_scores
    assert (missing.positives, missing.positives_missing) == (167, 48)
    assert missing.is_limit
    of = missing.bounds[0]
    shares = (round(of.value, 3), round(of.worst, 3), round(of.best, 3))
    assert (of.measure, shares) == ("sensitivity", (0.84, 0.599, 0.886))


def test_of_1000_patients_250_are_wrongly_flagged(tables: Path) -> None:
    table = read_predictions(tables / "multi14.csv")
    one = table[table["label"] == "Atelectasis"]
    found = evaluate(one, rule={"youden": True}, prevalence={"Atelectasis": 0.1}, ci=QUICK)
    (row,) = found.per_1000
    assert (row["unit"], row["prevalence"]) == ("patients", 0.1)
    assert row["fp"] == pytest.approx(250, abs=1.5)
    # The control: by image 190 would be, for a patient is flagged when one of the images is.
    by_image = 1 - (found.measure("specificity", label="Atelectasis").value or 0)
    assert 900 * by_image == pytest.approx(190, abs=1.5)


def test_the_quadratic_kappa_of_ordered_classes(tables: Path) -> None:
    table = pd.read_csv(tables / "ord_text.csv", keep_default_na=False)
    order = ["none", "mild", "moderate", "severe"]
    found = evaluate(table, classes=order, ci=QUICK)
    assert found.measure("kappa_quadratic", label="overall").value == pytest.approx(
        0.8443, abs=5e-5
    )
    other = evaluate(table, classes=sorted(order), ci=QUICK)
    wrong = other.measure("kappa_quadratic", label="overall").value
    assert wrong == pytest.approx(0.569, abs=5e-4)


def test_net_benefit_at_a_stated_prevalence(tables: Path) -> None:
    table = read_predictions(tables / "dca.csv")
    thresholds = [0.05, 0.1, 0.2, 0.3, 0.5]
    curve = decision_curve(table["y_true"], table["y_score"], thresholds, prevalence=0.05)
    assert curve.model == pytest.approx([0.0338, 0.0276, 0.0203, 0.0165, 0.0097], abs=5e-5)
    # Negative control: scores that mean 30 % are cut as they are.
    sensitivity, false = (
        np.array([(table["y_score"][table["y_true"] == k] >= t).mean() for t in thresholds])
        for k in (1, 0)
    )
    odds = np.array(thresholds) / (1 - np.array(thresholds))
    unmoved = 0.05 * sensitivity - 0.95 * false * odds
    assert unmoved == pytest.approx([0.0231, 0.0084, -0.0125, -0.0244, -0.0324], abs=5e-5)
