"""From a table to metrics.json: what is there, what is said when it is not."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medtl.errors import PredictionsError
from medtl.evaluation.assemble import evaluate
from medtl.evaluation.result import Evaluation
from medtl.metrics.scores import CI
from medtl.types import Measure, OperatingPoint

RULE = {"sensitivity": 0.9}


def scores(n: int, split: str = "test", label: str = "x", images: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng([n, len(split), len(label), ord(label[0])])
    truth = (rng.random(n) < 0.4).astype(float)
    score = 1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * truth + 0.7))
    return pd.DataFrame({
        "case_id": [f"{split}{i:04d}" for i in range(n)],
        "patient_id": [f"{split}{i // images:04d}" for i in range(n)],
        "split": split, "label": label, "y_true": truth, "y_score": score,
        "sex": np.array(["F", "M", ""])[np.arange(n) % 3],
    })  # fmt: skip


def study(**options: int) -> pd.DataFrame:
    return pd.concat([scores(90, "val", **options), scores(120, **options)], ignore_index=True)


def run(table: pd.DataFrame, **options: object) -> Evaluation:
    found = evaluate(table, ci=CI(resamples=100), **options)  # type: ignore[arg-type]
    for measure in found.measures:
        _is_sound(measure)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == found
    return found


def _is_sound(measure: Measure) -> None:
    """An undefined value is None with a reason; every other value is a finite number."""
    numbers = [measure.value, measure.low, measure.high]
    assert all(number is None or math.isfinite(number) for number in numbers), measure
    assert (measure.value is None) == (measure.status == "undefined"), measure
    assert (measure.status == "ok") == (measure.reason == ""), measure
    if measure.status == "ok" and "_gap_p" not in measure.name:
        assert measure.low is not None, measure
        assert measure.method, measure


def of(found: Evaluation, name: str, **where: str) -> Measure:
    wanted = {"label": "x", "split": "test", "subset": "all"} | where
    (measure,) = [
        m for m in found.measures
        if m.name == name and all(getattr(m, key) == value for key, value in wanted.items())
    ]  # fmt: skip
    return measure


def test_the_threshold_comes_from_validation_alone() -> None:
    table = study()
    point = run(table, rule=RULE).operating_points[0]
    val = table[table["split"] == "val"]
    assert point.threshold in set(val["y_score"])
    assert (point.chosen_on, point.n, point.rule) == ("val", 90, "sensitivity >= 0.90")
    other = table.copy()
    test = other["split"] == "test"
    other.loc[test, "y_score"] = other.loc[test, "y_score"] ** 2
    assert run(other, rule=RULE).operating_points[0] == point


def test_the_frozen_threshold_is_applied_to_test() -> None:
    table = study()
    found = run(table, rule=RULE)
    threshold = found.operating_points[0].threshold
    test = table[table["split"] == "test"]
    flagged = test["y_score"] >= threshold
    counts = next(c for c in found.counts if c["subset"] == "all")
    assert counts["tp"] == int((flagged & (test["y_true"] == 1)).sum())
    assert counts["tp"] + counts["fp"] + counts["fn"] + counts["tn"] == 120
    assert of(found, "sensitivity").value == counts["tp"] / (counts["tp"] + counts["fn"])


def test_without_validation_there_is_no_operating_point() -> None:
    found = run(scores(60), rule=RULE)
    assert found.operating_points == ()
    assert not any(measure.name == "sensitivity" for measure in found.measures)
    assert any("the table has no validation rows" in note for note in found.notes)


def test_a_given_threshold_is_used_as_it_is() -> None:
    point = OperatingPoint("x", 0.3, "given", "given", 0, 0)
    found = run(study(), rule=RULE, operating_points=[point])
    assert found.operating_points == (point,)


def test_the_temperature_is_fitted_on_validation_and_tested_on_test() -> None:
    table = study()
    found = run(table)
    assert of(found, "temperature", split="val").n == 90
    assert of(found, "log_loss_after_temperature").n == 120
    same = run(table.assign(y_true=np.where(table["split"] == "test", 0.0, table["y_true"])))
    assert of(same, "temperature", split="val") == of(found, "temperature", split="val")


def test_rows_that_cannot_be_used_are_left_out_and_counted() -> None:
    table = study()
    test = table.index[table["split"] == "test"]
    table.loc[test[:5], "y_true"] = np.nan
    table.loc[test[5:8], "y_score"] = np.nan
    found = run(table)
    assert of(found, "auroc").n == 112
    assert "5 of 120 test rows of 'x' have no certain truth and were left out" in found.notes
    assert "3 of 120 test rows of 'x' have no finite score and were left out" in found.notes


def test_groups_have_measures_gaps_and_an_unknown_level() -> None:
    found = run(study(), rule=RULE, strata=["sex"])
    assert of(found, "auroc", subset="sex=unknown").n == 40
    gap = of(found, "sensitivity_gap", subset="sex=M")
    assert gap.value == pytest.approx(
        of(found, "sensitivity", subset="sex=M").value  # type: ignore[operator]
        - of(found, "sensitivity", subset="sex=F").value
    )
    p = of(found, "sensitivity_gap_p_holm", subset="sex=M")
    assert "family of 4 tests" in p.method


def test_a_group_without_positives_is_undefined_there_only() -> None:
    table = study()
    table.loc[table["sex"] == "F", "y_true"] = 0
    found = run(table, rule=RULE, strata=["sex"])
    assert of(found, "auroc", subset="sex=F").status == "undefined"
    assert of(found, "sensitivity", subset="sex=F").reason == "there are no positives"
    assert of(found, "specificity", subset="sex=F").value is not None
    assert of(found, "auroc").status == "ok"


def test_several_images_of_a_patient_are_named_in_the_method() -> None:
    found = run(study(images=3), rule=RULE, prevalence=0.05)
    assert of(found, "auroc").method.startswith("Obuchowski")
    assert of(found, "auroc").n_patients == 40
    for name in ("sensitivity", "f1", "lr_positive", "ppv_at_prevalence", "calibration_slope"):
        assert "patients" in of(found, name).method, name
    assert any("come from 40 patients" in note for note in found.notes)


@pytest.mark.parametrize(
    "change",
    [
        {"y_true": 0.0}, {"y_true": 1.0}, {"y_score": 0.5}, {"y_score": np.nan},
        {"y_true": np.nan}, {"y_score": 7.0}, {"patient_id": "one"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("rule", [RULE, {"youden": True}, {"net_benefit": 0.2}], ids=str)
def test_odd_tables_do_not_crash(change: dict[str, object], rule: dict[str, float]) -> None:
    table = study().assign(**change)
    found = run(table, rule=rule, strata=["sex"], prevalence=0.1)
    assert of(found, "auroc").status != "ok" or change == {"patient_id": "one"}


def test_ten_rows_do_not_crash() -> None:
    table = pd.concat([scores(10, "val"), scores(10)])
    found = run(table, rule=RULE, strata=["sex"], prevalence=0.1)
    assert of(found, "auroc").n == 10


def test_perfect_separation_is_not_certain() -> None:
    table = study()
    table["y_score"] = 0.2 + 0.6 * table["y_true"]
    found = run(table, rule=RULE)
    auroc = of(found, "auroc")
    assert (auroc.value, auroc.status) == (1.0, "degenerate")
    assert auroc.low < 1  # type: ignore[operator]
    assert of(found, "calibration_slope").status == "undefined"


def test_several_findings_have_macro_and_micro() -> None:
    table = pd.concat([study(), study(label="y"), study(label="z")], ignore_index=True)
    table.loc[table["label"] == "z", "y_true"] = 0
    found = run(table, rule=RULE)
    mean = (of(found, "auroc").value + of(found, "auroc", label="y").value) / 2  # type: ignore[operator]
    macro = of(found, "auroc", label="macro")
    assert macro.value == pytest.approx(mean)
    assert macro.method.startswith("mean over 2 of 3 labels")
    assert of(found, "auroc", label="z").status == "undefined"
    assert of(found, "auroc", label="micro").n == 360
    assert found.confusion is None
    assert "left out of the macro means, one class only: z" in found.notes


def test_exclusive_classes_have_a_matrix() -> None:
    rng = np.random.default_rng(0)
    parts = []
    truth = rng.integers(0, 3, 90)
    probability = rng.dirichlet([1, 1, 1], 90)
    probability[np.arange(90), truth] += 0.5
    probability /= probability.sum(axis=1, keepdims=True)
    for index, label in enumerate("abc"):
        parts.append(pd.DataFrame({
            "case_id": [f"{i:03d}" for i in range(90)], "label": label,
            "y_true": (truth == index).astype(float), "y_score": probability[:, index],
        }))  # fmt: skip
    found = run(pd.concat(parts))
    assert found.confusion is not None
    assert found.confusion["classes"] == ["a", "b", "c"]
    assert np.sum(found.confusion["matrix"]) == 90
    right = (probability.argmax(axis=1) == truth).mean()
    assert of(found, "accuracy", label="overall").value == pytest.approx(right)


def test_natural_frequencies_use_the_stated_prevalence() -> None:
    found = run(study(), rule=RULE, prevalence=0.05).per_1000[0]
    assert (found["source"], found["tp"] + found["fn"]) == ("stated", 50)
    own = run(study(), rule=RULE).per_1000[0]
    assert own["source"] == "test set"


def test_curves_are_drawn_and_small() -> None:
    found = run(scores(5000))
    curves = {curve["name"]: curve for curve in found.curves}
    assert set(curves) == {
        "roc", "precision_recall", "reliability", "smooth_calibration", "decision",
        "score_histogram", "threshold_table",
    }  # fmt: skip
    assert all(len(value) <= 202 for c in curves.values() for value in c.values()
               if isinstance(value, list))  # fmt: skip
    roc = curves["roc"]
    assert (roc["x"][0], roc["y"][0], roc["x"][-1], roc["y"][-1]) == (0, 0, 1, 1)
    assert roc["threshold"][0] == "inf"
    inside = np.array(roc["low"]) <= np.array(roc["y"]) + 1e-9
    assert inside.mean() > 0.95
    area = np.trapezoid(roc["y"], roc["x"])
    assert area == pytest.approx(of(found, "auroc").value, abs=1e-3)
    table = curves["threshold_table"]
    assert {a + b + c + d for a, b, c, d in zip(
        table["tp"], table["fp"], table["fn"], table["tn"], strict=True)} == {5000}  # fmt: skip
    assert curves["precision_recall"]["baseline"] == of(found, "prevalence").value


def months(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    truth = rng.uniform(10, 200, n).round(1)
    return pd.DataFrame({
        "case_id": [f"c{i}" for i in range(n)], "label": "bone_age_months", "y_true": truth,
        "y_score": truth + rng.normal(size=n) * 8, "sex": np.array(["F", "M"])[np.arange(n) % 2],
    })  # fmt: skip


def test_bone_age_is_a_reading_in_months() -> None:
    table = months()
    found = run(table, strata=["sex"])
    mae = of(found, "mae_months", label="bone_age_months")
    assert mae.value == pytest.approx((table["y_true"] - table["y_score"]).abs().mean())
    assert of(found, "bias_months", label="bone_age_months", subset="sex=F").n == 30
    assert not any(measure.name == "auroc" for measure in found.measures)


def test_repeated_hands_of_a_child_widen_the_intervals() -> None:
    table = months(20)
    copies = pd.concat([table.assign(case_id=table["case_id"] + k, patient_id=table["case_id"])
                        for k in "ab"])  # fmt: skip
    once, twice = run(table), run(copies)
    for name in ("pearson_r", "icc_2_1"):
        single, double = (of(f, name, label="bone_age_months") for f in (once, twice))
        assert "patients" in double.method
        assert double.high - double.low > 0.5 * (single.high - single.low)  # type: ignore[operator]


@pytest.mark.parametrize("change", [{"y_score": np.nan}, {"y_score": 100.0}, {"y_true": 90.0}])
def test_odd_readings_do_not_crash(change: dict[str, float]) -> None:
    run(months().assign(**change), strata=["sex"])
    run(months(1).assign(**change))


def test_bone_age_in_years_is_refused() -> None:
    table = months().assign(y_true=lambda t: t["y_true"] / 12)
    with pytest.raises(PredictionsError, match="no value of 'bone_age_months' is above 25"):
        run(table)


def masks() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    volume = rng.uniform(2, 9, 20)
    return pd.DataFrame({
        "case_id": [f"c{i}" for i in range(20)], "patient_id": [f"p{i // 2}" for i in range(20)],
        "label": "hippocampus", "dice": rng.uniform(0.4, 1, 20), "hd95_mm": rng.uniform(1, 5, 20),
        "nsd_2mm": rng.uniform(0.5, 1, 20), "voxels_truth": 100, "voxels_prediction": 90,
        "volume_truth_ml": volume, "volume_prediction_ml": volume + rng.normal(size=20) * 0.2,
    })  # fmt: skip


def test_segmentation_is_summarised_per_case() -> None:
    table = masks()
    table.loc[0, ["dice", "hd95_mm", "nsd_2mm"]] = np.nan
    table.loc[0, ["voxels_truth", "voxels_prediction"]] = 0
    found = run(table)
    assert of(found, "dice", label="hippocampus").value == pytest.approx(table["dice"].mean())
    assert of(found, "dice", label="hippocampus").n_patients == 10
    assert of(found, "correctly_absent", label="hippocampus").n == 1
    assert "1 of 20 cases have neither" in found.notes[0]
    empty = table.assign(dice=np.nan, hd95_mm=np.nan, nsd_2mm=np.nan, voxels_truth=0)
    assert of(run(empty), "dice", label="hippocampus").status == "undefined"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_true": -1.0}, "y_true of 'x' holds -1; expected 0, 1 or an empty cell"),
        ({"split": "train"}, "the table has no test rows"),
        ({"case_id": "same"}, "repeat a case"),
    ],
)
def test_tables_that_cannot_be_evaluated_are_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(PredictionsError, match=message):
        evaluate(study().assign(**change))


def test_two_models_in_one_table_are_refused() -> None:
    table = study().assign(model=np.arange(210) % 2)
    with pytest.raises(PredictionsError, match="2 values of model"):
        evaluate(table)


def test_an_unknown_stratum_and_an_unknown_label_are_refused() -> None:
    with pytest.raises(PredictionsError, match="there is no column site"):
        evaluate(study(), strata=["site"])
    with pytest.raises(PredictionsError, match="given for 'z'"):
        evaluate(study(), operating_points=[OperatingPoint("z", 0.3, "given", "given", 0, 0)])
    with pytest.raises(PredictionsError, match="no test rows"):
        evaluate(months().assign(split="val"))


def test_a_file_of_another_schema_is_refused() -> None:
    with pytest.raises(PredictionsError, match="statistics without a schema; expected 'medtl"):
        Evaluation.from_json({})


@pytest.mark.parametrize("kind", ["segmentation", "regresion"])
def test_a_kind_that_the_table_is_not_of_is_refused(kind: Any) -> None:
    table = pd.DataFrame({"case_id": ["a", "b"], "y_true": [0, 1], "y_score": [0.1, 0.9]})
    with pytest.raises(PredictionsError, match=f"the kind '{kind}'"):
        evaluate(table, kind=kind)
    assert evaluate(table, kind="classification").kind == "classification"


def test_a_label_without_test_rows_is_said() -> None:
    cells = {"case_id": list("abcd"), "split": ["val", "val", "test", "test"], "label": "x"}
    one = pd.DataFrame({**cells, "y_true": [0, 1, 0, 1], "y_score": [0.1, 0.9, 0.2, 0.8]})
    both = pd.concat([one, one.assign(label="y")])
    note = "'y' has validation rows and no test rows: nothing is said of it"
    assert note not in evaluate(both, ci=CI(resamples=50)).notes
    gone = both[(both["label"] == "x") | (both["split"] == "val")]
    assert note in evaluate(gone, ci=CI(resamples=50)).notes
