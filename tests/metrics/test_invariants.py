"""What every measure of the evaluation must obey, whatever it measures."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medtl.evaluation.assemble import evaluate
from medtl.metrics.scores import CI
from medtl.types import Measure, OperatingPoint

POINT = (OperatingPoint("x", 0.5, "given", "given", 0, 0),)


def table(n: int = 90, images: int = 1, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.4).astype(float)
    score = 1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * truth + 0.7))
    return pd.DataFrame({
        "case_id": [f"c{i:03d}" for i in range(n)],
        "patient_id": [f"p{i // images:03d}" for i in range(n)],
        "split": "test", "label": "x", "y_true": truth, "y_score": score.round(3),
    })  # fmt: skip


def measures(data: pd.DataFrame, points: tuple[OperatingPoint, ...] = POINT) -> dict[str, Measure]:
    found = evaluate(data, operating_points=points, prevalence=0.1, ci=CI(resamples=200)).measures
    return {measure.name: measure for measure in found}


def test_the_order_of_the_rows_changes_nothing() -> None:
    data = table(images=2)
    shuffled = data.sample(frac=1, random_state=1)
    assert measures(shuffled) == measures(data)


def test_the_names_of_the_patients_change_no_value() -> None:
    data = table(images=2)
    other = data.assign(patient_id=data["patient_id"].str[::-1])
    for name, measure in measures(other).items():
        assert measure.value == measures(data)[name].value, name


def test_the_seed_changes_no_value_and_the_same_seed_no_bound() -> None:
    data = table()
    first = evaluate(data, operating_points=POINT, ci=CI(resamples=200, seed=1))
    again = evaluate(data, operating_points=POINT, ci=CI(resamples=200, seed=1))
    other = evaluate(data, operating_points=POINT, ci=CI(resamples=200, seed=2))
    assert first == again
    assert [m.value for m in first.measures] == [m.value for m in other.measures]
    assert first.measures != other.measures


def test_every_row_twice_keeps_values_and_every_interval_over_patients() -> None:
    data = table()
    twice = pd.concat([data, data.assign(case_id=data["case_id"] + "b")])
    once, doubled = measures(data), measures(twice)
    for name, measure in doubled.items():
        # A local fit takes its next rows by their number, which ties round differently.
        slack = 0.05 if name in ("ici", "e50", "e90", "emax", "ici_if_calibrated") else 1e-12
        assert measure.value == pytest.approx(once[name].value, abs=slack), name
        single = once[name]
        if None in (measure.low, measure.high, single.low, single.high):
            continue
        width, before = measure.high - measure.low, single.high - single.low  # type: ignore[operator]
        assert width > 0.8 * before, f"{name}: duplicated images narrowed the interval"


def test_a_monotone_change_of_the_score_keeps_all_that_ranks() -> None:
    data = table()
    changed = data.assign(y_score=data["y_score"] ** 3)
    moved = (replace(POINT[0], threshold=0.5**3),)
    before, after = measures(data), measures(changed, moved)
    same = ["auroc", "average_precision", "sensitivity", "specificity", "ppv", "npv", "f1", "mcc",
            "lr_positive", "partial_auc_specificity_90_to_100"]  # fmt: skip
    for name in same:
        assert after[name].value == pytest.approx(before[name].value, abs=1e-12), name
    assert after["brier"].value != pytest.approx(before["brier"].value, abs=1e-3)


def test_swapping_the_labels_mirrors_the_measures() -> None:
    data = table()
    swapped = data.assign(y_true=1 - data["y_true"], y_score=1 - data["y_score"])
    # Flagged when score >= t becomes not flagged: just above 1 - t, since no score is 0.5 itself.
    assert not (data["y_score"] == 0.5).any()
    before, after = measures(data), measures(swapped)
    for one, other in (("auroc", "auroc"), ("sensitivity", "specificity"), ("ppv", "npv"),
                       ("brier", "brier"), ("mcc", "mcc"), ("accuracy", "accuracy")):  # fmt: skip
        assert after[one].value == pytest.approx(before[other].value, abs=1e-12), one
        assert after[one].low == pytest.approx(before[other].low, abs=0.03), one


@pytest.mark.parametrize("images", [1, 3])
def test_every_interval_holds_its_value(images: int) -> None:
    for name, measure in measures(table(120, images)).items():
        if name in ("ece",):  # biased upward: its resamples may all lie above
            continue
        if measure.low is not None and measure.high is not None and measure.value is not None:
            assert measure.low <= measure.value <= measure.high, name


def test_a_wider_confidence_widens_every_interval() -> None:
    data = table()
    narrow = evaluate(data, operating_points=POINT, ci=CI(0.8, resamples=400))
    wide = evaluate(data, operating_points=POINT, ci=CI(0.99, resamples=400))
    for small, large in zip(narrow.measures, wide.measures, strict=True):
        if small.low is not None and large.low is not None:
            assert large.low <= small.low, small.name
            assert large.confidence == 0.99


def test_stacking_the_whole_set_four_times_as_new_patients_halves_the_interval() -> None:
    data = table(200)
    copies = [data.assign(case_id=data["case_id"] + str(i), patient_id=data["patient_id"] + str(i))
              for i in range(4)]  # fmt: skip
    once, fourfold = measures(data), measures(pd.concat(copies))
    for name in ("auroc", "sensitivity", "brier", "calibration_slope", "f1"):
        before, after = once[name], fourfold[name]
        assert after.value == pytest.approx(before.value, abs=1e-9)
        ratio = (after.high - after.low) / (before.high - before.low)  # type: ignore[operator]
        assert ratio == pytest.approx(0.5, abs=0.08), name
