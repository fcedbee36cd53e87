"""Recalibration of classes that exclude each other, and of whole tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from medtl.errors import PredictionsError
from medtl.evaluation.assemble import evaluate
from medtl.evaluation.result import Evaluation
from medtl.evaluation.statements.recalibrated import Recalibrated, mended
from medtl.metrics.scores import CI
from medtl.metrics.temperature import Recalibration, fit_class_temperature
from medtl.run.use.mending import probability_lines
from medtl.types import Measure

CLASSES = ["mild", "none", "severe"]
WHY = Measure("calibration_slope", 0.5)


def chosen(n: int, split: str, *, slope: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Cases of three classes whose right probabilities are softmax(slope x log of the scores)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 3))
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = [rng.choice(3, p=row) for row in right]
    sharp = right ** (1 / slope)
    scores = sharp / sharp.sum(axis=1, keepdims=True)
    rows = {
        "case_id": [f"{split}{i}" for i in range(n) for _ in CLASSES],
        "split": split,
        "label": CLASSES * n,
        "y_true": [float(k == of) for of in truth for k in range(3)],
        "y_score": scores.ravel(),
    }
    return pd.DataFrame(rows)


def evaluated(slope: float) -> Evaluation:
    table = pd.concat([chosen(400, "val", slope=slope), chosen(400, "test", slope=slope, seed=1)])
    return evaluate(table, rule={"sensitivity": 0.9}, ci=CI(resamples=40))


def test_overconfident_classes_get_one_temperature() -> None:
    found = evaluated(0.4)
    (done,) = found.recalibrations
    assert (done.label, done.classes, done.fit.method) == ("overall", tuple(CLASSES), "temperature")
    assert done.fit.slope == pytest.approx(0.4, rel=0.25)
    assert done.why.high is not None
    assert done.why.high < 0.8
    for name in CLASSES:
        before, after = (
            found.measure(of, label=name).value or 0 for of in ("log_loss", "log_loss_after_"
            "recalibration")
        )  # fmt: skip
        assert after < before
        slope = found.measure("calibration_slope_after_recalibration", label=name).value
        assert 0.7 < (slope or 0) < 1.4
    assert {one.facts["mended_by"] for one in found.concerns if one.kind == "miscalibrated"} == {
        "temperature"
    }
    assert Evaluation.from_json(found.to_json()).recalibrations == found.recalibrations


def test_right_classes_are_left_alone() -> None:
    assert evaluated(1.0).recalibrations == ()


def test_the_temperature_is_that_of_another_optimiser() -> None:
    table = chosen(200, "val", slope=0.5)
    scores = table["y_score"].to_numpy().reshape(-1, 3)
    truth = table["y_true"].to_numpy().reshape(-1, 3).argmax(axis=1)

    def loss(slope: float) -> float:
        raised = scores**slope
        return -float(np.log(raised[np.arange(200), truth] / raised.sum(axis=1)).sum())

    best = minimize_scalar(loss, bounds=(0.01, 5), method="bounded", options={"xatol": 1e-10})
    fit = fit_class_temperature(truth, scores)
    assert fit.slope == pytest.approx(best.x, rel=1e-6)
    step = 1e-3
    around = loss(fit.slope + step) - 2 * loss(fit.slope) + loss(fit.slope - step)
    assert fit.slope_error == pytest.approx(math.sqrt(step**2 / around), rel=1e-3)


def test_two_classes_are_one_finding_seen_from_both_sides() -> None:
    p, truth = np.array([0.9, 0.8, 0.7, 0.3, 0.6, 0.2] * 5), [1, 1, 0, 0, 1, 1] * 5
    both = fit_class_temperature(truth, np.column_stack([1 - p, p]))
    from medtl.metrics.temperature import fit_recalibration

    one = fit_recalibration(truth, p)
    assert both.slope == pytest.approx(one.slope)
    assert both.slope_error == pytest.approx(one.slope_error)
    assert both.jointly([[0.1, 0.9]])[0, 1] == pytest.approx(one([0.9])[0])


def test_copied_rows_bring_no_certainty() -> None:
    table = chosen(100, "val", slope=0.5)
    scores = table["y_score"].to_numpy().reshape(-1, 3)
    truth = table["y_true"].to_numpy().reshape(-1, 3).argmax(axis=1)
    once = fit_class_temperature(truth, scores)
    patients = np.repeat(np.arange(100), 4)
    copied = [np.repeat(of, 4, axis=0) for of in (truth, scores)]
    known = fit_class_temperature(*copied, patients=patients)
    naive = fit_class_temperature(*copied)
    assert known.slope == pytest.approx(once.slope)
    assert known.slope_error == pytest.approx(once.slope_error, rel=0.3)
    assert naive.slope_error == pytest.approx(once.slope_error / 2)


@pytest.mark.parametrize("truth", [[0, 1, 2], [1, 2, 0]])
def test_classes_that_are_always_right_or_always_wrong_have_no_temperature(
    truth: list[int],
) -> None:
    scores = np.full((3, 3), 0.1) + 0.7 * np.eye(3)
    with pytest.raises(PredictionsError, match="no finite, positive slope"):
        fit_class_temperature(truth, scores)


def test_a_table_is_mended_row_by_row_whatever_its_order() -> None:
    table = chosen(5, "test").sample(frac=1, random_state=0, ignore_index=True)
    fit = Recalibration("temperature", 0.5, 0.0, "val", 9, 0.1)
    done = [Recalibrated("overall", fit, WHY, tuple(CLASSES))]
    after = table.assign(y_score=mended(done, table))
    wide, before = (
        t.pivot(index="case_id", columns="label", values="y_score")[CLASSES] for t in (after, table)
    )
    assert np.allclose(wide.to_numpy(), fit.jointly(before.to_numpy()))
    assert np.allclose(wide.sum(axis=1), 1)
    assert (wide.idxmax(axis=1) == before.idxmax(axis=1)).all()
    torn = table.drop(index=0)
    assert np.isnan(mended(done, torn)[torn["case_id"] == table["case_id"][0]]).all()


def test_what_a_model_keeps_is_taken_and_not_fitted_again() -> None:
    fit = Recalibration("platt", 0.5, 0.3, "val", 9, 0.1)
    rows = chosen(200, "test")
    rows = rows[rows["label"] == "mild"].assign(label="x")
    kept = [Recalibrated("x", fit, WHY), Recalibrated("other", fit, WHY)]
    found = evaluate(rows, recalibrations=kept, ci=CI(resamples=20))
    assert found.recalibrations == (kept[0],)
    again = evaluate(rows.assign(y_score=fit(rows["y_score"])), ci=CI(resamples=20))
    assert found.measure("brier_after_recalibration").value == again.measure("brier").value
    none = evaluate(
        pd.concat([rows.assign(split="val", case_id=rows["case_id"] + "v",
                               y_score=rows["y_score"] ** 8), rows]),
        recalibrations=[], ci=CI(resamples=20),
    )  # fmt: skip
    assert none.recalibrations == ()


def one_finding(score: Sequence[float], val: Sequence[int]) -> Evaluation:
    """Truths of validation as stated, the scores of test the same and its truths mixed."""
    rows = [
        {"case_id": f"{split}{n}", "split": split, "label": "x", "y_true": truth, "y_score": s}
        for split, truths in (("val", val), ("test", [0, 1] * (len(score) // 2)))
        for n, (truth, s) in enumerate(zip(truths, score, strict=True))
    ]
    return evaluate(pd.DataFrame(rows), ci=CI(resamples=20))


MIXED = [0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7] * 5


@pytest.mark.parametrize(
    ("score", "val", "reason"),
    [
        (MIXED, [0, 0, 0, 0, 1, 1, 1, 1] * 5, "cannot say .*: the score separates the classes"),
        (MIXED, [0] * 40, "cannot say whether it needs one: .*class"),
        ([s * 10 for s in MIXED], [0, 0, 1, 0, 0, 1, 1, 1] * 5, "its scores are no probabilities"),
        (MIXED, [1, 1, 0, 1, 1, 0, 0, 0] * 5, "calls for one, and none can be fitted: no finite"),
    ],
)
def test_why_nothing_is_mended_is_kept(
    score: Sequence[float], val: Sequence[int], reason: str
) -> None:
    found = one_finding(score, val)
    assert found.recalibrations == ()
    assert re.search(reason, found.unmended["x"])
    assert Evaluation.from_json(found.to_json()).unmended == found.unmended
    (said,) = probability_lines((), found.to_json())
    assert re.search(f"^No recalibration of x: .*{reason}", said)


def test_a_finding_that_needs_nothing_has_no_reason_and_neither_has_one_that_is_mended() -> None:
    """The control: the slope of these is 1 within its interval, and far from 1."""
    rng = np.random.default_rng(1)
    score = rng.uniform(0.05, 0.95, 2000).tolist()
    good = one_finding(score, rng.binomial(1, score).tolist())
    assert (good.recalibrations, good.unmended) == ((), {})
    line = "No column probability: validation did not call for a recalibration"
    assert [*probability_lines((), good.to_json())] == [line]
    bad = one_finding(score, rng.binomial(1, 0.4 + 0.2 * np.array(score)).tolist())
    assert [done.label for done in bad.recalibrations] == ["x"]
    assert bad.unmended == {}


def test_of_several_findings_the_judged_ones_are_said_apart() -> None:
    metrics = {
        "measures": [{"name": "auroc", "label": name} for name in ("a", "b", "macro")],
        "unmended": {"a": "no"},
    }
    assert [*probability_lines((), metrics)] == [
        "No column probability: validation did not call for a recalibration of the other findings",
        "No recalibration of a: no",
    ]


def test_a_finding_without_validation_rows_is_said_and_a_table_without_any_is_not() -> None:
    table = pd.DataFrame(
        {
            "case_id": [*"abcdefgh"] * 2,
            "label": ["x"] * 8 + ["y"] * 8,
            "split": (["val"] * 4 + ["test"] * 4) + ["test"] * 8,
            "y_true": [0, 1] * 8,
            "y_score": [0.3, 0.4, 0.5, 0.35] * 4,
        }
    )
    found = evaluate(table, ci=CI(resamples=20))
    assert "no certain case of it" in found.unmended["y"]
    assert evaluate(table[table["split"] == "test"], ci=CI(resamples=20)).unmended == {}


def test_classes_without_a_temperature_say_it() -> None:
    table = chosen(60, "val")
    right = table["y_true"] == 1
    sure = table.assign(y_score=np.where(right, 0.98, 0.01))
    both = pd.concat([sure, chosen(60, "test", seed=1)], ignore_index=True)
    (reason,) = evaluate(both, ci=CI(resamples=20)).unmended.values()
    assert reason.startswith("validation cannot say whether they need one: ")
