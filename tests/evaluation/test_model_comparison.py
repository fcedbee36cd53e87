"""Several models, readers, other choices, and gaps of a mean."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from medtl.errors import PredictionsError
from medtl.evaluation.assemble import evaluate
from medtl.evaluation.model_comparison import compare_models
from medtl.evaluation.result import Evaluation
from medtl.metrics.comparison import paired_auroc
from medtl.metrics.confusion import count
from medtl.metrics.overlap import case_overlaps
from medtl.metrics.ranking import auroc
from medtl.metrics.readers.paired_shares import newcombe_paired
from medtl.metrics.scores import CI
from medtl.metrics.subgroups import mean_gaps
from medtl.types import OperatingPoint


def scores(n: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(n)
    truth = (rng.random(n) < 0.4).astype(float)
    return pd.DataFrame({
        "case_id": [f"c{i:03d}" for i in range(n)], "patient_id": [f"p{i // 2}" for i in range(n)],
        "split": "test", "label": "x", "y_true": truth, "y_score": rng.random(n) / 2 + truth / 3,
    })  # fmt: skip


def run(table: pd.DataFrame, **options: object) -> Evaluation:
    return evaluate(table, ci=CI(resamples=50), **options)  # type: ignore[arg-type]


def test_models_are_compared_by_delong_on_the_same_cases() -> None:
    first = scores()
    second = first.assign(y_score=1 - first["y_score"])
    table = pd.concat([first.assign(model="a"), second.assign(model="b")], ignore_index=True)
    found = run(table, model="b").comparison
    assert found is not None
    assert (found.models, found.shown) == (("a", "b"), "b")
    (test,) = found.tests
    by_hand = paired_auroc(first["y_true"], first["y_score"], second["y_score"],
                           patients=first["patient_id"])  # fmt: skip
    assert test.test.difference.value == pytest.approx(by_hand.difference.value)
    assert test.p_holm == pytest.approx(by_hand.p)
    areas = {row.model: row.measure.value for row in found.rows if row.measure.name == "auroc"}
    assert areas["a"] == pytest.approx(1 - areas["b"])
    assert {curve["model"] for curve in found.curves} == {"a", "b"}


def test_decisions_of_models_are_compared_at_their_own_thresholds() -> None:
    first = scores().assign(patient_id=[f"p{i}" for i in range(80)])
    second = first.assign(y_score=1 - first["y_score"])
    val = first.assign(split="val", case_id="v" + first["case_id"])
    table = pd.concat(
        [
            first.assign(model="a"),
            second.assign(model="b"),
            val.assign(model="a"),
            val.assign(model="b", y_score=second["y_score"]),
        ],
        ignore_index=True,
    )
    found = run(table, model="a", rule={"youden": True}).comparison
    assert found is not None
    names = [test.test.difference.name for test in found.tests]
    assert names == ["auroc_difference", "sensitivity_difference", "specificity_difference"]
    shares = {(row.model, row.measure.name): row.measure.value for row in found.rows}
    for test, of in zip(found.tests[1:], ("sensitivity", "specificity"), strict=True):
        expected = shares["a", of] - shares["b", of]  # type: ignore[operator]
        assert test.test.difference.value == pytest.approx(expected)
        assert test.test.method == "McNemar, exact"
        assert test.p_holm == test.test.p  # one test of its measure


def test_p_of_the_areas_is_not_adjusted_for_the_decisions() -> None:
    first = scores()
    random = np.random.default_rng(1)
    models = [first.assign(model=name, y_score=first["y_score"] + random.normal(0, s, 80))
              for name, s in (("a", 0.0), ("b", 0.2), ("c", 0.4))]  # fmt: skip
    table = pd.concat(models, ignore_index=True)
    thresholds = {(name, "x"): 0.4 for name in "abc"}
    alone = compare_models(table)
    both = compare_models(table, thresholds=thresholds)
    areas = [t.p_holm for t in both if t.test.difference.name == "auroc_difference"]
    assert areas == [t.p_holm for t in alone]
    assert len(both) == 9
    assert both[1].test.method == "Obuchowski 1998 over patients"


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(PredictionsError, match="no model 'c'"):
        run(scores().assign(model="a"), model="c")


def test_bone_ages_of_two_models_differ_by_their_errors() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 200, 30)
    ids = [str(i) for i in range(30)]
    base = pd.DataFrame({"case_id": ids, "patient_id": ids, "split": "test",
                         "label": "bone_age_months", "y_true": truth})  # fmt: skip
    table = pd.concat(
        [base.assign(y_score=truth + 3, model="a"),
         base.assign(y_score=truth + rng.normal(0, 9, 30), model="b")], ignore_index=True,
    )  # fmt: skip
    found = run(table, model="a").comparison
    assert found is not None
    values = {row.model: row.measure.value for row in found.rows}
    assert values["a"] == pytest.approx(3)
    assert found.tests[0].test.difference.value == pytest.approx(3 - values["b"])
    assert found.tests[0].test.difference.name == "mae_months_difference"


def test_readers_are_points_and_not_rows_of_the_model() -> None:
    model = scores()
    reader = model.assign(reader="R", y_score=model["y_true"])
    rated = model.assign(reader="S")
    found = run(pd.concat([model.assign(reader=""), reader, rated], ignore_index=True))
    (point,) = found.readers
    assert (point.reader, point.sensitivity.value, point.specificity.value) == ("R", 1, 1)
    assert found.notes[0] == "the readings of 'S' are not 0 and 1 and were left out"
    alone = next(m for m in run(model).measures if m.name == "auroc")
    assert next(m for m in found.measures if m.name == "auroc") == alone
    with pytest.raises(PredictionsError, match="every row has a reader"):
        run(reader)


def test_what_a_reader_did_not_read_is_said() -> None:
    model = scores().assign(reader="")
    reader = model.assign(reader="R", y_score=model["y_true"])
    reader.loc[:9, "y_score"] = np.nan
    found = run(pd.concat([model, reader], ignore_index=True))
    assert found.readers[0].sensitivity.n + found.readers[0].specificity.n == 70
    assert "'R' read 70 of the 80 cases of 'x'" in found.notes
    strange = reader.assign(case_id="z" + reader["case_id"])
    notes = run(pd.concat([model, strange], ignore_index=True)).notes
    assert "'R' read 0 of the 80 cases of 'x'" in notes
    assert "'R' read 70 cases of 'x' that the model did not" in notes
    whole = reader.assign(y_score=model["y_true"])
    assert not [n for n in run(pd.concat([model, whole], ignore_index=True)).notes if "read" in n]


def test_a_reader_is_judged_by_the_truth_of_the_model() -> None:
    model = scores().assign(reader="")
    reader = model.assign(reader="R", y_score=model["y_true"])
    reader.loc[[3, 7], "y_true"] = 1 - reader.loc[[3, 7], "y_true"]
    with pytest.raises(PredictionsError, match="disagree about the truth of 2 cases of 'x'"):
        run(pd.concat([model, reader], ignore_index=True))


def two_models(kind: str) -> pd.DataFrame:
    n, rng = 12, np.random.default_rng(0)
    ids = [f"c{i}" for i in range(n)]
    base = pd.DataFrame({"case_id": ids, "patient_id": ids, "split": "test", "label": "x"})
    if kind == "masks":
        base = base.assign(dice=rng.random(n), voxels_truth=range(9, 9 + n), voxels_prediction=9)
    else:
        base = base.assign(y_true=rng.uniform(20, 90, n), y_score=rng.uniform(20, 90, n))
    return pd.concat([base.assign(model="a"), base.assign(model="b")], ignore_index=True)


@pytest.mark.parametrize(
    ("kind", "truth", "unit"), [("masks", "voxels_truth", ""), ("quantity", "y_true", "ml")]
)
def test_models_of_quantities_and_masks_have_one_truth(kind: str, truth: str, unit: str) -> None:
    table = two_models(kind)
    assert run(table, model="a", unit=unit).comparison is not None
    other = table.copy()
    other.loc[0, truth] += 1
    with pytest.raises(PredictionsError, match="disagree about the truth of 1 cases of 'x': c0"):
        run(other, model="a", unit=unit)
    with pytest.raises(PredictionsError, match="model a has several rows for one case and label"):
        run(pd.concat([table, table[:1]]), model="a", unit=unit)


def test_one_row_per_patient_by_hand() -> None:
    table = scores()
    patients = table.groupby("patient_id").agg(y=("y_true", "max"), s=("y_score", "max"))
    found = {(v.variant, v.measure.name): v.measure for v in run(table).variants}
    assert found["patient_max", "auroc"].value == auroc(patients["y"], patients["s"]).value
    assert run(table.assign(patient_id=table["case_id"])).variants == ()


def test_uncertain_labels_under_both_policies_by_hand() -> None:
    table = scores().assign(patient_id=lambda t: t["case_id"])
    table["y_true_raw"] = table["y_true"]
    table.loc[:9, "y_true_raw"], table.loc[:9, "y_true"] = -1, np.nan
    found = {(v.variant, v.measure.name): v.measure for v in run(table).variants}
    for name, value in (("uncertain_as_absent", 0.0), ("uncertain_as_present", 1.0)):
        filled = table["y_true"].fillna(value)
        assert found[name, "auroc"].value == auroc(filled, table["y_score"]).value
        assert found[name, "auroc"].n == 80


def test_the_worst_cases_are_the_furthest_from_the_threshold() -> None:
    from medtl.types import OperatingPoint

    table = scores()
    found = run(table, operating_points=[OperatingPoint("x", 0.5, "given", "given", 0, 0)])
    missed = [row["y_score"] for row in found.worst if row["kind"] == "missed"]
    assert missed == sorted(missed)
    assert max(missed) < 0.5
    counts = count(table["y_true"], table["y_score"], 0.5)
    assert len(missed) == min(counts.fn, 12)


def test_a_gap_of_means_by_hand() -> None:
    values = np.array([1.0, 3, 2, 2, 2, 8, 9, 10, 9, 9, 9])
    groups = ["a"] * 5 + ["b"] * 6
    (gap,) = mean_gaps({"mae_months": values}, {"sex": groups})
    assert gap.difference.value == pytest.approx(2 - 9)
    assert (gap.group, gap.reference, gap.difference.subset) == ("a", "b", "sex=a")
    # Welch: variances of the means 2 / 4 / 5 and 2 / 5 / 6, freedom 4 and 5.
    parts = 2 / 4 / 5, 2 / 5 / 6
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 4 + parts[1] ** 2 / 5)
    assert gap.difference.high == pytest.approx(-7 + t.ppf(0.975, freedom) * sum(parts) ** 0.5)
    (same,) = mean_gaps({"mae_months": np.ones(4)}, {"sex": ["a", "a", "b", "b"]})
    assert same.difference.status == "degenerate"


def test_overlaps_of_a_case_by_hand() -> None:
    truth, prediction = np.zeros((8, 8), int), np.zeros((8, 8), int)
    truth[2:4, 2:4], prediction[2:4, 2:6] = 1, 1
    truth[6, 6] = 2
    names = {1: "heart", 2: "tumour", 3: "absent"}
    heart, tumour, absent = case_overlaps(
        truth, prediction, (2.0, 1.0), structures=names, tolerances_mm=(1.0,)
    )
    assert (heart["dice"], heart["hd_mm"], heart["area_truth_cm2"]) == (2 * 4 / 12, 2.0, 0.08)
    assert (tumour["dice"], tumour["hd95_mm"], tumour["nsd_1_mm"]) == (0, None, 0)
    assert (absent["dice"], absent["reason"]) == (None, "both masks are empty")
    unscaled = case_overlaps(truth, prediction, None, structures=names)[0]
    assert unscaled["dice"] == heart["dice"]
    assert "hd95_mm" not in unscaled


def test_a_class_has_the_share_that_was_called_rightly() -> None:
    rows = [
        (0, "a", 0.8),
        (0, "b", 0.2),
        (1, "a", 0.7),
        (1, "b", 0.3),
        (2, "a", 0.1),
        (2, "b", 0.9),
    ]
    truth = {(0, "a"), (1, "b"), (2, "b")}
    table = pd.DataFrame(
        [{"case_id": str(c), "label": k, "y_score": s, "y_true": float((c, k) in truth)}
         for c, k, s in rows]
    )  # fmt: skip
    found = {m.label: m for m in run(table).measures if m.name == "class_sensitivity"}
    assert (found["a"].value, found["b"].value, found["b"].n) == (1, 0.5, 2)


def test_precision_recall_has_a_band_around_it() -> None:
    table = scores(200).assign(patient_id=lambda t: t["case_id"])
    curve = next(c for c in run(table).curves if c["name"] == "precision_recall")
    inside = [low <= y <= high for low, y, high in zip(curve["low"], curve["y"], curve["high"],
                                                      strict=True)]  # fmt: skip
    assert np.mean(inside) > 0.95
    assert replace(run(table), notes=()).kind == "classification"


def decided(first: list[int], second: list[int]) -> pd.DataFrame:
    """Positives of which two models call these; their thresholds are stated as 0.5."""
    rows = pd.DataFrame({"case_id": [f"c{i}" for i in range(len(first))], "y_true": 1})
    healthy = pd.DataFrame({"case_id": ["h"], "y_true": [0], "y_score": [0]})
    parts = [
        pd.concat([rows.assign(y_score=called), healthy]).assign(model=name)
        for name, called in (("a", first), ("b", second))
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(("margin", "shown"), [(0.05, True), (0.04, False)])
@pytest.mark.parametrize("new", ["a", "b"])
def test_the_new_model_is_no_worse_whatever_the_names(new: str, margin: float, shown: bool) -> None:
    old_calls, new_calls = [1] * 60 + [0] * 40, [1] * 58 + [0] * 2 + [1] * 2 + [0] * 38
    old = "b" if new == "a" else "a"
    calls = {old: old_calls, new: new_calls}
    table = decided(calls["a"], calls["b"])
    points = [OperatingPoint("", 0.5, "given", "given", 0, 0)]
    margins = {"sensitivity": margin}
    found = run(table, model=new, operating_points=points, margins=margins).comparison
    assert found is not None
    (judged,) = (one for one in found.tests if one.noninferior is not None)
    low, high = newcombe_paired([[58, 2], [2, 38]])
    assert judged.test.difference.name == "sensitivity_difference"
    assert judged.noninferior is not None
    assert judged.noninferior.bound == pytest.approx(low)
    assert low == pytest.approx(-high)
    assert judged.noninferior.shown is shown
    assert str(judged.noninferior).startswith(f"not worse by {margin:g}: ")
    worse = decided(*([1] * 60 + [0] * 40, [0] * 100)[:: 1 if new == "b" else -1])
    lost = run(worse, model=new, operating_points=points, margins=margins).comparison
    assert lost is not None
    assert [one.noninferior.shown for one in lost.tests if one.noninferior] == [False]


def test_errors_may_grow_by_the_margin() -> None:
    ages = pd.DataFrame({"case_id": [f"c{i}" for i in range(30)], "label": "bone_age_months",
                         "y_true": 100.0, "y_score": 100.0 + np.arange(30) % 3})  # fmt: skip
    more = 1.0 + np.arange(30) % 2
    table = pd.concat([ages.assign(model="old"),
                       ages.assign(model="new", y_score=ages["y_score"] + more)])  # fmt: skip
    for margin, shown in ((2.5, True), (1.2, False)):
        found = run(table, model="new", margins={"mae_months": margin}).comparison
        assert found is not None
        assert [one.noninferior and one.noninferior.shown for one in found.tests] == [shown]


@pytest.mark.parametrize(
    ("margins", "said"),
    [({"sensitivty": 0.1}, "a margin is stated for 'sensitivty'"),
     ({"auroc": 5}, "a margin of 5 of auroc"), ({"auroc": -0.1}, "a margin of -0.1")],
)  # fmt: skip
def test_a_margin_that_cannot_be_meant_is_refused(margins: dict[str, float], said: str) -> None:
    table = decided([1, 0, 1], [0, 1, 1])
    with pytest.raises(PredictionsError, match=said):
        run(table, model="a", margins=margins)


def test_two_models_of_the_known_table_are_compared_whole() -> None:
    file = Path(__file__).parents[2] / "../shared/oracles2/two.csv"
    if not file.is_file():
        pytest.skip("the table is not here")
    table = pd.read_csv(file)
    margins = {"specificity": 0.05}
    found = run(table, model="B", rule={"youden": True}, margins=margins).comparison
    assert found is not None
    p = {one.test.difference.name: one.test.p for one in found.tests}
    assert p["sensitivity_difference"] == pytest.approx(0.6271, abs=5e-5)
    assert p["specificity_difference"] == pytest.approx(0.0006428, abs=5e-8)
    judged = found.tests[2].noninferior
    assert judged is not None
    assert judged.shown is False
    assert judged.bound == pytest.approx(-(found.tests[2].test.difference.high or 0))


def test_decisions_as_scores_have_no_calibration_in_the_large() -> None:
    hard = decided([1] * 60 + [0] * 40, [1] * 100)
    found = run(hard[hard["model"] == "a"].drop(columns="model"))
    large = found.measure("calibration_in_the_large")
    assert (large.value, large.status) == (None, "undefined")
    assert "near to 0 and 1" in large.reason
