"""An evaluation as an object: what it prints, finds, draws, saves and opens again."""

import copy
import json
import pickle
import re
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from medtl.cases.predictions import read_predictions
from medtl.errors import PredictionsError
from medtl.evaluation.arrays import evaluate_arrays
from medtl.evaluation.assemble import evaluate
from medtl.evaluation.result import Evaluation
from medtl.metrics.catalogue import CATALOGUE, entry
from medtl.metrics.scores import CI
from medtl.types import Measure, OperatingPoint

FEW = CI(resamples=40)


def arrays(n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    truth = (rng.random(n) < 0.4).astype(float)
    return truth, 1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * truth + 0.7)), np.arange(n) // 2


def binary() -> Evaluation:
    truth, score, patients = arrays()
    return evaluate_arrays(truth, score, patients, threshold=0.5, prevalence=0.1, ci=FEW)


def two_findings() -> Evaluation:
    truth, score, _ = arrays()
    both = np.stack([truth, 1 - truth], axis=1), np.stack([score, score[::-1]], axis=1)
    split = np.where(np.arange(120) < 50, "val", "test")
    return evaluate_arrays(*both, labels=["a", "b"], split=split, rule={"youden": True}, ci=FEW)


def classes() -> Evaluation:
    rng = np.random.default_rng(1)
    return evaluate_arrays(rng.integers(0, 3, 60), rng.dirichlet([1, 1, 1], 60), ci=FEW)


def percents() -> Evaluation:
    truth, score, patients = arrays()
    return evaluate_arrays(
        50 + 20 * score, 50 + 20 * score[::-1] + truth, patients, unit="%", ci=FEW
    )


def masks() -> Evaluation:
    dice = np.random.default_rng(2).uniform(0.4, 1, 30)
    table = pd.DataFrame(
        {"case_id": [f"c{i:02d}" for i in range(30)], "label": "liver", "dice": dice}
    )
    return evaluate(table.assign(hd95_mm=9 * (1 - dice)), ci=FEW)


def models_and_readers() -> Evaluation:
    truth, score, patients = arrays()
    base = pd.DataFrame({
        "case_id": [f"c{i:03d}" for i in range(120)], "patient_id": patients, "label": "x",
        "y_true": truth, "reader": "",
    })  # fmt: skip
    parts = [
        base.assign(model="a", y_score=score), base.assign(model="b", y_score=score[::-1]),
        base.assign(model="", reader="R", y_score=truth),
    ]  # fmt: skip
    point = OperatingPoint("x", float("inf"), "given", "given", 0, 0)
    return evaluate(pd.concat(parts), model="a", operating_points=[point], ci=FEW)


ALL = {f.__name__: f for f in (binary, two_findings, classes, percents, masks, models_and_readers)}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_it_opens_again_as_it_was(make, tmp_path):
    found = make()
    (tmp_path / "metrics.json").write_text(json.dumps(found.to_json(), allow_nan=False))
    assert Evaluation.from_json(tmp_path / "metrics.json") == found
    assert Evaluation.from_json(str(tmp_path / "metrics.json")) == found
    assert Evaluation.from_json(found.to_json()) == found
    assert copy.deepcopy(found) == found == pickle.loads(pickle.dumps(found))


def test_a_changed_figure_is_another_evaluation():
    content = json.loads(json.dumps(binary().to_json()))
    content["measures"][0]["value"] += 1e-12
    assert Evaluation.from_json(content) != binary()


def test_a_file_of_an_earlier_version_opens():
    content = binary().to_json()
    old = {key: content[key] for key in ("schema", "measures", "operating_points")}
    assert Evaluation.from_json(old).auroc == binary().auroc
    with pytest.raises(PredictionsError, match="statistics of the schema 'other'; expected 'medtl"):
        Evaluation.from_json({**content, "schema": "other"})


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_it_prints_in_a_few_lines(make):
    found = make()
    assert len(repr(found)) < 400
    assert found.headlines()
    assert str(found.headlines()[0].n) in repr(found)
    assert found.headlines()[0].name in found._repr_html_()
    assert found._repr_html_().count("<tr>") == len(found.headlines())


def test_markup_in_a_label_is_escaped():
    truth, score, _ = arrays()
    found = evaluate_arrays(truth, score, labels=["<b>x"], ci=FEW)
    assert "<b>x" not in found._repr_html_()
    assert "<b>x" not in found.measure("auroc")._repr_html_()


def test_a_measure_is_an_attribute():
    found = binary()
    assert found.auroc == next(m for m in found.measures if m.name == "auroc")
    assert found.sensitivity.n_patients == found.measure("sensitivity", label="").n_patients
    assert percents().mae == percents().measure("mae_percent")
    with pytest.raises(AttributeError, match="no measure 'dice'"):
        found.dice  # noqa: B018
    with pytest.raises(
        PredictionsError, match=r"there is no measure dice; expected one of accuracy"
    ):
        found.measure("dice")


def test_of_several_findings_one_must_be_named():
    found = two_findings()
    with pytest.raises(PredictionsError, match=r"auroc is known of 2 findings: a, b.*label=\"a\""):
        found.auroc  # noqa: B018
    assert found.measure("auroc", label="b").label == "b"
    assert found.measure("auroc", label="macro").method.startswith("mean over 2 of 2")
    assert found.measure("auroc", label="a", split="val").split == "val"
    assert found.labels == ("a", "b")


def test_the_frame_has_a_row_per_measure():
    found = binary()
    frame = found.frame()
    assert list(frame) == list(asdict(found.auroc))
    assert frame.loc[frame["name"] == "auroc", "value"].item() == found.auroc.value


def test_arrays_have_the_figures_of_the_table(tmp_path):
    """The table read from its file, and the arrays: equal measures, curves and counts."""
    truth, score, patients = arrays()
    sex = np.array(["F", "M"])[np.arange(120) % 2]
    table = pd.DataFrame({
        "case_id": [f"c{i:03d}" for i in range(120)], "patient_id": [f"p{i:03d}" for i in patients],
        "split": "test", "label": "", "y_true": truth, "y_score": score, "sex": sex,
    })  # fmt: skip
    table.to_csv(tmp_path / "p.csv", index=False)
    point = OperatingPoint("", 0.5, "given", "given", 0, 0)
    of_table = evaluate(
        read_predictions(tmp_path / "p.csv"), operating_points=[point], strata=["sex"], ci=FEW
    )
    of_arrays = evaluate_arrays(truth, score, table["patient_id"], {"sex": sex}, 0.5, ci=FEW)
    assert of_arrays.measures == of_table.measures
    assert of_arrays.curves == of_table.curves
    assert of_arrays.counts == of_table.counts
    other = evaluate_arrays(truth, score, None, {"sex": sex}, 0.5, ci=FEW)
    assert other.measures != of_table.measures


def test_a_regression_has_the_names_of_its_unit():
    found = percents()
    names = {measure.name for measure in found.measures}
    assert {"mae_percent", "bias_percent", "loa_low_percent"} <= names
    assert not any("months" in name for name in names)
    assert (found.kind, found.unit, found.to_json()["unit"]) == ("regression", "%", "%")
    truth, score, _ = arrays()
    months = evaluate_arrays(100 * score, 100 * score + truth, unit="months", ci=FEW)
    assert "unit" not in months.to_json()
    assert months.mae.name == "mae_months"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_score": [0.1, 0.2]}, r"y_true has shape \(3,\) and y_score \(2,\)"),
        ({"patients": [1, 2]}, r"patient_id has shape \(2,\) for 3 rows"),
        ({"groups": {"sex": ["F"]}}, r"sex has shape \(1,\) for 3 rows"),
        ({"labels": ["a", "b"]}, "2 labels for 1 columns"),
        ({"y_true": [0, 1, 2]}, "holds 2; expected 0, 1"),
        ({"kind": "bone_age"}, "kind is 'bone_age'; expected classification, or regression .*unit"),
        ({"kind": "segmentation"}, "kind is 'segmentation'; expected classification"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    given = {"y_true": [0, 1, 1], "y_score": [0.1, 0.2, 0.3]} | change
    with pytest.raises(PredictionsError, match=message):
        evaluate_arrays(**given)


def test_missing_truths_are_left_out():
    truth, score, _ = arrays()
    truth[:7] = np.nan
    found = evaluate_arrays(truth, score, ci=FEW)
    assert found.auroc.n == 113
    assert "7 of 120 test rows have no certain truth" in found.notes[0]


def top_half(truth: np.ndarray, score: np.ndarray) -> float:
    return float(truth[np.argsort(-score)[: len(score) // 2]].mean())


def test_an_own_metric_has_an_interval_over_patients():
    truth, score, patients = arrays()
    found = evaluate_arrays(truth, score, patients, metrics={"top_half": top_half}, ci=FEW)
    own = found.top_half
    assert own.value == top_half(truth, score)
    assert own.low <= own.value <= own.high
    assert own.low < own.high
    assert own.method == "percentile bootstrap of patients, B=40"
    assert own.n_patients == 60
    assert {m["name"] for m in found.to_json()["measures"]} >= {"top_half", "auroc"}
    alone = evaluate_arrays(truth, score, metrics={"top_half": top_half}, ci=FEW).top_half
    assert (alone.value, alone.n_patients) == (own.value, 120)


def test_an_own_metric_may_be_undefined_and_may_not_take_a_name():
    truth, score, _ = arrays()
    nothing = evaluate_arrays(truth, score, metrics={"no": lambda _t, _s: np.nan}, ci=FEW).no
    assert str(nothing) == "not estimable, the function has no value on these rows"
    with pytest.raises(PredictionsError, match="an own measure is called auroc"):
        evaluate_arrays(truth, score, metrics={"auroc": top_half})
    with pytest.raises(PredictionsError, match="own measures need y_true and y_score"):
        evaluate(pd.DataFrame({"case_id": ["a"], "dice": [0.5]}), metrics={"x": top_half})


PICTURES = {
    "roc": binary, "precision_recall": binary, "calibration": binary, "decision": binary,
    "scores": binary, "agreement": percents, "cases": masks,
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_drawn(name):
    import matplotlib.pyplot as plt

    ax = getattr(PICTURES[name]().plot, name)()
    assert ax.get_xlabel()
    assert ax.get_lines()
    assert getattr(PICTURES[name]().plot, name)(ax=ax) is ax
    plt.close("all")


def test_the_roc_is_drawn_as_it_is():
    import matplotlib.pyplot as plt

    found = binary()
    drawn = found.plot.roc().get_lines()[0].get_xydata()
    assert np.trapezoid(drawn[:, 1], drawn[:, 0]) == pytest.approx(found.auroc.value)
    assert repr(found.plot).startswith("Plots(roc, precision_recall")
    plt.close("all")


def test_a_picture_of_several_findings_needs_a_label():
    with pytest.raises(PredictionsError, match="there is no curve roc; expected a label: a, b"):
        two_findings().plot.roc()
    with pytest.raises(PredictionsError, match="no curve roc of liver; expected an evaluation"):
        masks().plot.roc("liver")


def test_the_report_is_written_from_the_object(tmp_path):
    found = binary()
    out = found.report(str(tmp_path / "report.html"), study={"question": "Is there one?"})
    page = out.read_text("utf-8")
    assert f"{found.auroc.value:.3f}" in page
    assert "Is there one?" in page
    korean = found.report(tmp_path / "ko.html", language="ko").read_text("utf-8")
    assert 'lang="ko"' in korean
    assert percents().report(tmp_path / "percent.html").is_file()


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_every_measure_is_in_the_catalogue(make):
    found = make()
    measures = [*found.measures, *(v.measure for v in found.variants)]
    if found.comparison:
        measures += [row.measure for row in found.comparison.rows]
        measures += [test.test.difference for test in found.comparison.tests]
    assert not {measure.name for measure in measures if not entry(measure.name).base}


def test_measures_outside_an_evaluation_are_in_the_catalogue():
    from medtl.metrics import agreement, calibration, comparison, paired_runs, subgroups

    truth, score, patients = arrays()
    fold, few = np.arange(120) % 3, CI(resamples=20)
    names = [
        *(m.name for m in paired_runs.mean_of_folds_auroc(truth, [score, truth], fold, ci=few)),
        *(m.name for m in paired_runs.mean_of_folds_mae(truth, [score, truth], fold, ci=few)),
        *(m.name for m in agreement.correlation_measures(truth, score)),
        *(m.name for m in calibration.calibration_line(truth, score, patients=patients)),
        *(gap.difference.name for gap in subgroups.gaps(truth, score, {"fold": fold})),
        paired_runs.compare_runs({"a": score[:5]})["a"].difference.name,
        comparison.paired_t(score, truth).difference.name,
        comparison.wilcoxon(score[:9], truth[:9]).difference.name,
    ]
    assert not {name for name in names if not entry(name).base}


def test_a_new_measure_is_a_function_and_a_line(monkeypatch, tmp_path):
    """It reaches the evaluation, its file, the report and the rows of a study."""
    from medtl.metrics import calibration, catalogue
    from medtl.metrics.scores import CI95, Scores
    from medtl.studies.rows import lower_is_better, measures_row

    def oe_ratio(y_true, y_score=None, *, patients=None, ci=CI95):
        rows = Scores.of(y_true, y_score, patients)
        share = rows.truth.mean() / rows.score.mean()
        return rows.blank("oe_ratio", ci).ok(share, (share, share), "none")

    monkeypatch.setattr(calibration, "oe_ratio", oe_ratio, raising=False)
    line = catalogue.Entry("number", "lower", "headline", function="calibration.oe_ratio")
    monkeypatch.setitem(catalogue.CATALOGUE, "oe_ratio", line)
    catalogue.entry.cache_clear()
    found = binary()
    truth, score, _ = arrays()
    assert found.oe_ratio.value == pytest.approx(truth.mean() / score.mean())
    assert found.oe_ratio in found.headlines()
    content = found.to_json()
    assert "oe_ratio" in {measure["name"] for measure in content["measures"]}
    assert "Oe ratio" in found.report(tmp_path / "report.html").read_text("utf-8")
    assert measures_row(content)["oe_ratio"] == found.oe_ratio.value
    assert lower_is_better("oe_ratio")
    catalogue.entry.cache_clear()


def test_a_name_that_is_in_no_catalogue_is_found_out():
    assert entry("auroc_of_tomorrow").base == ""
    assert entry("auroc_of_tomorrow").better == ""


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("auroc", "higher"), ("dice_median", "higher"), ("brier", "lower"), ("log_loss", "lower"),
        ("mae_months", "lower"), ("mae_percent", "lower"), ("hd95_mm", "lower"),
        ("val_loss", "lower"), ("nsd_2_mm", "higher"),
        ("ece_after_temperature", "lower"), ("calibration_slope", ""), ("auroc_gap_p", ""),
        ("bias_ml", ""), ("within_12_months", "higher"), ("volume_bias_ml", ""),
        ("auroc_difference", ""),
    ],
)  # fmt: skip
def test_directions(name, better):
    assert entry(name).better == better


def test_losses_and_distances_are_better_when_lower():
    """By name, so that a new loss cannot be forgotten."""
    for name, of in CATALOGUE.items():
        if re.search("loss|brier|error|hd|rmse|mae|ece|a.?sd", name):
            expected = {"scaled_brier": "higher"}.get(name, "" if "slope" in name else "lower")
            assert of.better == expected, name


def test_a_measure_prints_what_it_is():
    exact = Measure("auroc", 0.81449, low=0.76, high=0.859, n=300, method="DeLong, logit scale")
    assert str(exact) == "0.814 [0.760, 0.859], n = 300 (DeLong)"
    assert repr(exact) == "auroc: 0.814 [0.760, 0.859], n = 300 (DeLong)"
    weak = Measure("f1", 1.0, "x", n=3, status="degenerate", reason="all resamples agree")
    assert repr(weak) == "x f1: 1.000, n = 3 (all resamples agree)"


def test_a_name_means_the_measure_itself_and_none_made_from_it() -> None:
    measures = (
        Measure("brier", 0.3, label="x"),
        Measure("brier_after_temperature", 0.2, label="x"),
        Measure("mae_months", 6.0, label="y"),
    )
    found = Evaluation(measures)
    assert found.brier.value == 0.3
    assert found.measure("brier_after_temperature").value == 0.2
    assert found.mae.value == 6.0


def test_arrays_take_thresholds_and_prevalences_by_label_and_promise_alike() -> None:
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 2, (240, 2))
    score = 1 / (1 + np.exp(-rng.normal(size=(240, 2)) - truth))
    split = np.repeat(["val", "test"], 120)
    found = evaluate_arrays(
        truth,
        score,
        threshold={"a": 0.4},
        labels=["a", "b"],
        split=split,
        rule={"sensitivity": 0.9},
        prevalence={"b": 0.02},
        ci=FEW,
    )
    given, promised = found.operating_points
    assert (given.threshold, given.source) == (0.4, "user")
    assert (promised.target, promised.assurance) == (0.9, 0.9)
    assert [row["source"] for row in found.per_1000] == ["test set", "stated"]
