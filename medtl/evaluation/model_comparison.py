"""Several models, or a model and human readers, in one table of the same test cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.errors import PredictionsError
from medtl.evaluation.classification import LabelRows, Settings
from medtl.metrics import confusion
from medtl.metrics.comparison import (
    ModelComparison,
    compare_models,
    holm,
    paired_t,
)
from medtl.metrics.inputs import PAIR, usable_rows
from medtl.metrics.operating_point import Rule, choose_operating_point
from medtl.metrics.overlap import casewise_measures
from medtl.metrics.ranking import auroc, rank
from medtl.types import Measure, OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

CURVE_POINTS = 80
"""Points of a model's ROC in the picture of all models."""


@dataclass(frozen=True)
class ModelRow:
    """One measure of one model on the test rows."""

    model: str
    measure: Measure


@dataclass(frozen=True)
class ReaderPoint:
    """How one reader did: a point on the ROC.

    Attributes:
        reader: Name or number of the reader.
        label: The finding.
        sensitivity, specificity: With their intervals.
    """

    reader: str
    label: str
    sensitivity: Measure
    specificity: Measure


@dataclass(frozen=True)
class Comparison:
    """Several models on the same test cases.

    Attributes:
        models: Their names.
        shown: The one whose results are reported in full.
        rows: The headline measures of each.
        tests: Paired differences, first minus second, Holm over all of them.
        curves: `roc_of_model` of each model and label.
    """

    models: tuple[str, ...]
    shown: str
    rows: tuple[ModelRow, ...]
    tests: tuple[ModelComparison, ...]
    curves: tuple[dict[str, Any], ...] = ()


def without_readers(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of models, and the rows in which a person read (`reader` is filled).

    Args:
        table: Predictions. A table of readers only has no model to evaluate.

    Raises:
        PredictionsError: If every row is a reader's.
    """
    if "reader" not in table:
        return table, table.iloc[:0]
    named = table["reader"].notna() & (table["reader"].astype(str).str.strip() != "")
    if named.all():
        raise PredictionsError(
            "every row has a reader",
            expected="rows of a model, whose reader is empty, beside those of readers",
            fix="Empty the column reader in the rows of the model",
        )
    return table[~named].drop(columns="reader"), table[named]


def reader_points(
    readings: pd.DataFrame, settings: Settings
) -> tuple[list[ReaderPoint], list[str]]:
    """Return sensitivity and specificity of every reader and label on the test rows, and notes.

    Args:
        readings: Rows with `reader`; `y_score` is 1 for "yes" and 0 for "no".
        settings: Level of the intervals.
    """
    points: list[ReaderPoint] = []
    notes: list[str] = []
    if not len(readings):
        return points, notes
    test = readings[readings["split"] == "test"]
    for (reader, label), rows in test.groupby(["reader", "label"], sort=True):
        usable = rows[usable_rows(rows["y_true"], rows["y_score"])]
        if not usable["y_score"].isin((0, 1)).all():
            notes.append(f"the readings of {reader} are not 0 and 1 and were left out")
            continue
        patients = usable["patient_id"].to_numpy()
        shares = confusion.share_measures(
            usable["y_true"], usable["y_score"], 1.0,
            patients=patients if len(set(patients)) < len(patients) else None,
            confidence=settings.confidence,
        )[:2]  # fmt: skip
        both = (replace(share, label=str(label)) for share in shares)
        points.append(ReaderPoint(str(reader), str(label), *both))
    return points, notes


def compare_classifiers(
    table: pd.DataFrame,
    shown: str,
    *,
    rule: Rule | None,
    given: Sequence[OperatingPoint],
    settings: Settings,
) -> Comparison:
    """Return every model's AUROC, sensitivity and specificity, and DeLong's paired tests.

    Each model has its own threshold: given for its label, or chosen by the rule on its own
    validation rows.

    Args:
        table: With `model`, `split`, `label`, `patient_id`, `y_true`, `y_score`.
        shown: The model that is reported in full.
        rule: How thresholds are chosen.
        given: Thresholds that were stated.
        settings: Level of the intervals.
    """
    names = sorted(str(name) for name in table["model"].unique())
    stated = {point.label: point.threshold for point in given}
    found, curves = [], []
    for name in names:
        mine = table[table["model"] == name]
        for label, rows in mine[mine["split"] == "test"].groupby("label", sort=False):
            val = mine[(mine["split"] == "val") & (mine["label"] == label)]
            threshold = stated.get(str(label), _chosen(val, rule))
            test = _label_rows(rows, str(label))
            found += [ModelRow(name, m) for m in _headline(test, threshold, settings)]
            curves += _roc_curve(test, name)
    tests = compare_models(table, confidence=settings.confidence)
    return Comparison(tuple(names), shown, tuple(found), tuple(tests), tuple(curves))


def compare_values(
    table: pd.DataFrame, shown: str, *, values: Mapping[str, Any], settings: Settings
) -> Comparison:
    """Return the mean of a value per case of every model, and paired t tests over patients.

    Args:
        table: Test and other rows with `model`, `label`, `patient_id`, `case_id`.
        shown: The model that is reported in full.
        values: One entry: name of the measure -> column, or function of the rows, that gives the
            value per case (Dice, or the absolute error).
        settings: Level and bootstrap.
    """
    ((measure, of),) = values.items()
    test = table[table["split"] == "test"]
    test = test.assign(value=of(test) if callable(of) else test[of].to_numpy(float))
    names = sorted(str(name) for name in test["model"].unique())
    rows, tests = [], []
    for label, every in test.groupby("label", sort=False):
        wide = every.pivot(index="case_id", columns="model", values="value")
        owner = every.drop_duplicates("case_id").set_index("case_id")["patient_id"]
        for name in names:
            known = wide[name].dropna()
            mean = casewise_measures(
                measure, known.to_numpy(), patients=owner.loc[known.index].to_numpy(),
                confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed,
            )[0]  # fmt: skip
            rows.append(ModelRow(name, replace(mean, name=measure, label=str(label))))
        for at, first in enumerate(names):
            for second in names[at + 1 :]:
                both = wide[[first, second]].dropna()
                means = both.groupby(owner.loc[both.index].to_numpy()).mean()
                test_of = paired_t(means[first], means[second], confidence=settings.confidence)
                named = replace(test_of.difference, name=f"{measure}_difference")
                dropped = int(wide[[first, second]].notna().sum().sum()) - 2 * len(both)
                paired = replace(test_of, difference=named)
                tests.append(ModelComparison(str(label), first, second, paired, None, dropped))
    return Comparison(tuple(names), shown, tuple(rows), tuple(_with_holm(tests)))


def absolute_error(rows: pd.DataFrame) -> np.ndarray:
    """Return the absolute error of each row, NaN where truth or prediction is missing, `(n,)`."""
    truth, score = (rows[name].to_numpy(float, na_value=np.nan) for name in PAIR)
    return np.asarray(np.abs(score - truth))


def _with_holm(tests: Sequence[ModelComparison]) -> list[ModelComparison]:
    """Return the tests with p adjusted over all of them."""
    adjusted = iter(holm([item.test.p for item in tests if item.test.p is not None]))
    return [replace(t, p_holm=None if t.test.p is None else next(adjusted)) for t in tests]


def _chosen(val: pd.DataFrame, rule: Rule | None) -> float | None:
    """Return the threshold that the rule picks on a model's own validation rows, if it can."""
    usable = val[usable_rows(val["y_true"], val["y_score"])]
    if rule is None or usable["y_true"].nunique() < 2:
        return None
    return choose_operating_point(usable["y_true"], usable["y_score"], rule).threshold


def _label_rows(rows: pd.DataFrame, label: str) -> LabelRows:
    """Return the usable rows of one model and label."""
    kept = rows[usable_rows(rows["y_true"], rows["y_score"])]
    codes = np.unique(kept["patient_id"].astype(str), return_inverse=True)[1]
    truth, score = (kept[name].to_numpy(float) for name in PAIR)
    return LabelRows(label, "test", truth == 1, score, codes)


def _headline(rows: LabelRows, threshold: float | None, settings: Settings) -> list[Measure]:
    """Return AUROC and, at the model's threshold, sensitivity and specificity."""
    pair, level = (rows.truth, rows.score), settings.confidence
    found = [auroc(*pair, patients=rows.clusters, confidence=level)]
    if threshold is not None:
        found += confusion.share_measures(
            *pair, threshold, patients=rows.clusters, confidence=level
        )[:2]
    return [replace(measure, label=rows.label) for measure in found]


def _roc_curve(rows: LabelRows, model: str) -> list[dict[str, Any]]:
    """Return the ROC of a model as a curve to draw, or nothing with one class."""
    ranking = rank(rows.truth, rows.score)
    if not (ranking.num_positive and ranking.num_negative):
        return []
    at = np.unique(np.linspace(0, ranking.tp.size - 1, CURVE_POINTS).round().astype(int))
    x, y = ranking.fp[at] / ranking.num_negative, ranking.tp[at] / ranking.num_positive
    return [{"name": "roc_of_model", "model": model, "label": rows.label, "split": "test",
             "x": [0.0, *x.tolist()], "y": [0.0, *y.tolist()]}]  # fmt: skip
