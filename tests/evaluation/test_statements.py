"""What is said of the headline, and what of it the data carry: facts of `metrics.json`."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from medtl.errors import PredictionsError
from medtl.evaluation.assemble import evaluate
from medtl.evaluation.result import Evaluation
from medtl.evaluation.statements.concerns import concerns
from medtl.evaluation.statements.promises import promises
from medtl.metrics.calibration import calibration_line
from medtl.metrics.scores import CI, Scores
from medtl.types import Measure, OperatingPoint

QUICK = CI(resamples=60)


def rows(
    n: int, split: str = "test", *, seed: int = 0, slope: float = 1.0, label: str = "x"
) -> pd.DataFrame:
    """Calibrated probabilities, made too extreme by a slope below 1."""
    rng = np.random.default_rng([seed, len(split)])
    logit = 1.5 * rng.normal(size=n) - 0.5
    truth = rng.random(n) < 1 / (1 + np.exp(-logit))
    return pd.DataFrame({
        "case_id": [f"{split}{i}" for i in range(n)], "split": split, "label": label,
        "y_true": truth.astype(float), "y_score": 1 / (1 + np.exp(-logit / slope)),
    })  # fmt: skip


def evaluated(table: pd.DataFrame, **options: object) -> Evaluation:
    found = evaluate(table, ci=QUICK, **options)  # type: ignore[arg-type]
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == found
    return found


def kinds(found: Evaluation) -> list[str]:
    return [concern.kind for concern in found.concerns]


def test_a_gap_that_survives_holm_comes_first_the_largest_before_the_others() -> None:
    table = rows(900)
    table["site"] = np.array(["a", "b", "c"])[np.arange(900) % 3]
    table.loc[(table["site"] == "b") & (table["y_true"] == 1), "y_score"] *= 0.05
    table.loc[(table["site"] == "c") & (table["y_true"] == 1), "y_score"] *= 0.6
    found = evaluated(table, rule=None, strata=["site"], operating_points=given(0.4))
    first = found.concerns[0]
    assert (first.kind, first.subset, first.measure) == ("gap", "site=b", "sensitivity")
    of_b = table[(table["site"] == "b") & (table["y_true"] == 1)]
    assert first.facts["group_value"] == (of_b["y_score"] >= 0.4).mean()
    assert first.facts["reference"] == "a"
    assert first.value == first.facts["group_value"] - first.facts["reference_value"]
    sizes = [abs(c.value or 0) for c in found.concerns if c.kind == "gap"]
    assert len(sizes) > 1
    assert sizes == sorted(sizes, reverse=True)
    alike = rows(900).assign(site=table["site"])
    assert "gap" not in kinds(evaluated(alike, strata=["site"], operating_points=given(0.4)))


def given(threshold: float, label: str = "x") -> list[OperatingPoint]:
    return [OperatingPoint(label, threshold, "given", "given", 0, 0)]


def test_scores_that_run_the_other_way_are_said() -> None:
    table = rows(200)
    assert "scores_reversed" not in kinds(evaluated(table))
    turned = evaluated(table.assign(y_score=1 - table["y_score"]))
    assert kinds(turned)[0] == "scores_reversed"
    assert turned.concerns[0].high is not None
    assert turned.concerns[0].high < 0.5


def test_missing_scores_have_a_worst_and_a_best_case() -> None:
    table = rows(400)
    positive = np.flatnonzero(table["y_true"] == 1)
    table.loc[positive[:30], "y_score"] = np.nan
    found = evaluated(table, operating_points=given(0.4))
    (missing,) = found.missing_scores
    hits = int((table["y_score"][positive] >= 0.4).sum())
    bounds = {of.measure: of for of in missing.bounds}
    assert bounds["sensitivity"].worst == hits / positive.size
    assert bounds["sensitivity"].best == (hits + 30) / positive.size
    assert bounds["sensitivity"].value == hits / (positive.size - 30)
    assert bounds["specificity"].worst == bounds["specificity"].best
    assert bounds["auroc"].worst < bounds["auroc"].value < bounds["auroc"].best
    assert "missing_scores" in kinds(found)


def test_few_scores_missing_of_both_classes_alike_are_no_limit() -> None:
    table = rows(400)
    table.loc[[3, 5], "y_score"] = np.nan
    table.loc[[3, 5], "y_true"] = [0.0, 1.0]
    found = evaluated(table)
    assert not found.missing_scores[0].is_limit
    assert "missing_scores" not in kinds(found)
    assert not evaluated(rows(400)).missing_scores


def test_a_label_without_any_score_has_counts_alone() -> None:
    table = pd.concat([rows(80), rows(80, label="y").assign(y_score=np.nan)])
    found = evaluated(table, operating_points=given(0.5))
    (missing,) = found.missing_scores
    assert (missing.label, missing.bounds) == ("y", ())


def test_a_target_that_the_test_rows_miss_is_said() -> None:
    table = pd.concat([rows(300, "val"), rows(300)])
    table.loc[(table["split"] == "test") & (table["y_true"] == 1), "y_score"] *= 0.5
    found = evaluated(table, rule={"sensitivity": 0.9, "assurance": 0.9})
    (promise,) = found.promises
    assert (promise.measure, promise.target, promise.assurance) == ("sensitivity", 0.9, 0.9)
    assert promise.met is False
    assert promise.refuted
    assert promise.n_patients == int(found.operating_points[0].n_positive)
    missed = next(c for c in found.concerns if c.kind == "target_missed")
    assert missed.facts == {"target": 0.9, "assurance": 0.9, "refuted": True}


def test_too_few_positives_promise_nothing_and_say_how_many_would() -> None:
    found = evaluated(
        pd.concat([rows(30, "val"), rows(200)]), rule={"sensitivity": 0.9, "assurance": 0.9}
    )
    (promise,) = found.promises
    assert promise.assurance is None
    assert "22 patients" in promise.reason
    assert "nothing_promised" in kinds(found)
    plain = evaluated(pd.concat([rows(30, "val"), rows(200)]), rule={"sensitivity": 0.9})
    assert plain.operating_points[0].threshold == found.operating_points[0].threshold
    assert not plain.promises[0].reason


def test_specificity_is_promised_alike() -> None:
    found = evaluated(
        pd.concat([rows(200, "val"), rows(200)]), rule={"specificity": 0.8, "assurance": 0.9}
    )
    (promise,) = found.promises
    val = rows(200, "val")
    negative = val["y_score"][val["y_true"] == 0]
    alarms = int((negative >= found.operating_points[0].threshold).sum())
    n = negative.size
    assert promise.n_patients == n
    assert beta.ppf(0.1, n - alarms, alarms + 1) >= 0.8 > beta.ppf(0.1, n - alarms - 1, alarms + 2)


def test_out_of_fold_scores_make_the_promise() -> None:
    folds = pd.concat([rows(60, "val", seed=fold).assign(fold=fold) for fold in range(4)])
    folds["case_id"] = [f"val{i}" for i in range(len(folds))]
    found = evaluated(
        pd.concat([folds, rows(100).assign(fold="")]), rule={"sensitivity": 0.9, "assurance": 0.9}
    )
    assert found.promises[0].n_patients == int(folds["y_true"].sum())
    assert found.promises[0].assurance == 0.9


@pytest.mark.parametrize(("slope", "method"), [(0.3, "temperature"), (3.0, "temperature")])
def test_probabilities_that_are_off_are_mended_by_validation(slope: float, method: str) -> None:
    table = pd.concat([rows(600, "val", slope=slope), rows(600, slope=slope, seed=1)])
    found = evaluated(table, rule={"sensitivity": 0.9})
    (done,) = found.recalibrations
    assert (done.label, done.fit.method, done.fit.fitted_on, done.fit.n) == (
        "x",
        method,
        "val",
        600,
    )
    assert done.fit.slope == pytest.approx(slope, rel=0.25)
    before, after = found.measure("brier"), found.measure("brier_after_recalibration")
    assert (after.value or 1) < (before.value or 0)
    line = found.measure("calibration_slope_after_recalibration")
    assert 0.8 < (line.value or 0) < 1.25
    concern = next(c for c in found.concerns if c.kind == "miscalibrated")
    assert concern.facts["mended_by"] == method
    assert {"reliability_after_recalibration", "decision_after_recalibration"} <= {
        curve["name"] for curve in found.curves
    }
    test = table["split"] == "test"
    other = table.assign(y_true=table["y_true"].where(~test, 1 - table["y_true"]))
    assert evaluated(other, rule={"sensitivity": 0.9}).recalibrations == found.recalibrations


def test_a_shift_is_mended_by_platt() -> None:
    table = pd.concat([rows(600, "val"), rows(600)])
    logit = np.log(table["y_score"] / (1 - table["y_score"])) + 1.5
    found = evaluated(table.assign(y_score=1 / (1 + np.exp(-logit))))
    (done,) = found.recalibrations
    assert done.fit.method == "platt"
    assert done.fit.intercept == pytest.approx(-1.5, abs=0.5)
    val = Scores.of(table["y_true"][:600], done.fit(1 / (1 + np.exp(-logit[:600]))))
    slope, intercept = (m.value for m in calibration_line(val)[:2])
    assert slope == pytest.approx(1, abs=1e-6)
    assert intercept == pytest.approx(0, abs=1e-6)


def test_right_probabilities_are_left_alone() -> None:
    found = evaluated(pd.concat([rows(600, "val"), rows(600, seed=1)]))
    assert not found.recalibrations
    assert "miscalibrated" not in kinds(found)
    assert not any("after_recalibration" in measure.name for measure in found.measures)


def test_without_validation_nothing_is_mended_and_the_limit_says_so() -> None:
    found = evaluated(rows(600, slope=0.3))
    concern = next(c for c in found.concerns if c.kind == "miscalibrated")
    assert concern.facts["mended_by"] is None
    assert not found.recalibrations


def test_each_label_has_its_own_prevalence() -> None:
    table = pd.concat([rows(200), rows(200, label="y", seed=2)])
    points = [*given(0.5), *given(0.4, "y")]
    found = evaluated(table, operating_points=points, prevalence={"x": 0.01})
    shown = {row["label"]: row for row in found.per_1000}
    assert (shown["x"]["prevalence"], shown["x"]["source"]) == (0.01, "stated")
    assert shown["y"]["source"] == "test set"
    assert {m.label for m in found.measures if m.name == "ppv_at_prevalence"} == {"x"}
    with pytest.raises(PredictionsError, match="a prevalence is stated for 'z'"):
        evaluate(table, prevalence={"z": 0.1})


def test_frequencies_are_of_patients_by_their_highest_score() -> None:
    table = rows(300)
    table["patient_id"] = [f"p{i // 2}" for i in range(300)]
    found = evaluated(table, operating_points=given(0.5))
    (row,) = found.per_1000
    by = table.groupby("patient_id")[["y_true", "y_score"]].max()
    wrong = ((by["y_score"] >= 0.5) & (by["y_true"] == 0)).sum() / (by["y_true"] == 0).sum()
    assert row["unit"] == "patients"
    assert row["prevalence"] == by["y_true"].mean()
    assert row["fp"] / (row["fp"] + row["tn"]) == pytest.approx(wrong, abs=2e-3)


def test_a_group_of_one_case_has_neither_interval_nor_p() -> None:
    table = rows(300).assign(site="a")
    lone = int(np.flatnonzero(table["y_true"] == 1)[0])
    table.loc[lone, "site"] = "b"
    found = evaluated(table, operating_points=given(0.5), strata=["site"])
    of_b = [m for m in found.measures if m.subset == "site=b"]
    assert {m.name for m in of_b if m.low is not None} == set()
    assert not [m for m in of_b if m.name.endswith("_p")]
    assert [m.reason for m in of_b if m.name == "sensitivity"] == ["one case"]


def test_classes_have_a_quadratic_kappa_only_in_a_stated_order() -> None:
    rng = np.random.default_rng(0)
    names = ["severe", "mild", "none"]
    truth = rng.integers(0, 3, 120)
    scores = rng.dirichlet(np.ones(3), 120) * 0.7
    scores[np.arange(120), truth] += 0.3
    table = pd.concat([
        pd.DataFrame({"case_id": range(120), "label": name, "y_true": (truth == k).astype(float),
                      "y_score": scores[:, k]}) for k, name in enumerate(names)
    ])  # fmt: skip
    unordered = evaluated(table)
    assert not [m for m in unordered.measures if m.name == "kappa_quadratic"]
    assert "no quadratic kappa: the classes have no stated order" in unordered.notes
    found = evaluated(table, classes=["none", "mild", "severe"])
    assert found.confusion is not None
    assert found.confusion["classes"] == ["none", "mild", "severe"]
    assert found.labels == ("none", "mild", "severe")
    value = found.measure("kappa_quadratic", label="overall").value
    wrong = evaluated(table, classes=["mild", "none", "severe"])
    assert wrong.measure("kappa_quadratic", label="overall").value != value
    assert not found.recalibrations
    with pytest.raises(PredictionsError, match="'severe' has no place in the order none, mild"):
        evaluate(table, classes=["none", "mild"])
    with pytest.raises(PredictionsError, match="'severe' has no place in the order none, mild, s"):
        evaluate(table, classes=["none", "mild", "sever"])  # a slip had left the class out
    for slip in ("none", ["none", "mild", "severe", "severe"]):
        with pytest.raises(PredictionsError, match="the order of the classes is"):
            evaluate(table, classes=slip)
    more = evaluated(table, classes=["none", "mild", "severe", "critical"])
    assert more.measure("kappa_quadratic", label="overall").value == value


def test_an_earlier_metrics_file_opens_without_the_new_parts() -> None:
    content = evaluated(rows(60)).to_json()
    for part in ("concerns", "promises", "missing_scores", "recalibrations"):
        del content[part]
    assert replace(Evaluation.from_json(content), cohort=None).concerns == ()


@pytest.mark.parametrize(("stop", "said"), [(0.24, None), (0.35, [0.2, 0.35])])
def test_a_model_that_is_worse_than_none_over_a_stretch_is_a_limit(
    stop: float, said: list[float] | None
) -> None:
    at = np.arange(1, 100) / 100
    top = np.where((at >= 0.2) & (at <= stop), -0.01, 0.01)
    curve = {"name": "decision", "label": "x", "x": at.tolist(), "high": top.tolist(),
             "treat_all": [-1.0] * 99}  # fmt: skip
    slope = Measure("calibration_slope", 1.0, label="x", low=0.7, high=1.3)
    found = concerns([slope], [curve])
    assert [concern.facts["harmful"] for concern in found] == ([said] if said else [])


def test_the_range_of_the_decision_curve_is_the_users() -> None:
    found = evaluated(rows(200), acting=(0.02, 0.06))
    (curve,) = [c for c in found.curves if c["name"] == "decision"]
    assert (curve["x"][0], curve["x"][-1], len(curve["x"])) == (0.02, 0.06, 101)
    assert curve["acting"] == [0.02, 0.06]
    (whole,) = [c for c in evaluated(rows(200)).curves if c["name"] == "decision"]
    assert (whole["x"][0], whole["x"][-1], "acting" in whole) == (0.01, 0.99, False)
    with pytest.raises(PredictionsError, match=r"a range of thresholds from 0\.5 to 0\.1"):
        evaluated(rows(60), acting=(0.5, 0.1))


def test_harm_is_looked_for_in_the_range_that_is_stated() -> None:
    at = np.linspace(0.02, 0.06, 101)
    curve = {"name": "decision", "label": "x", "x": at.tolist(), "high": [-0.01] * 101,
             "treat_all": [-1.0] * 101, "acting": [0.02, 0.06]}  # fmt: skip
    slope = Measure("calibration_slope", 1.0, label="x", low=0.9, high=1.1)
    (found,) = concerns([slope], [curve])
    assert found.facts["harmful"] == [0.02, 0.06]
    assert not concerns([slope], [{**curve, "high": [0.01] * 101}])
    short = [*[-0.01] * 20, *[0.01] * 81]  # 0.008 of 0.04
    assert not concerns([slope], [{**curve, "high": short}])


def test_targets_missed_beyond_chance_come_before_others() -> None:
    points = [
        OperatingPoint(name, 0.4, "sensitivity >= 0.90", "val", 90, 40, 0.9, 40, 0.9)
        for name in "abc"
    ]
    shown = [
        Measure("sensitivity", value, label=name, low=value - 0.1, high=high, n=50)
        for name, value, high in (("a", 0.85, 0.95), ("b", 0.7, 0.85), ("c", 0.5, 0.95))
    ]
    found = concerns(shown, promised=promises(points, shown))
    assert [concern.label for concern in found] == ["b", "c", "a"]


@pytest.mark.parametrize("present", [0.0, 1.0])
def test_a_table_of_one_class_is_not_called_harmful(present: float) -> None:
    """Acting on all, or on nobody, is right by definition where all or none have the finding."""
    table = rows(40).assign(y_true=present)
    assert evaluated(table).concerns == ()
