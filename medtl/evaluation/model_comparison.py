"""Several models, or a model and human readers, in one table of the same test cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.errors import PredictionsError
from medtl.evaluation.classification import headline_measures
from medtl.metrics.catalogue import entry
from medtl.metrics.comparison import PairedTest, holm, paired_auroc, paired_t, where_known
from medtl.metrics.confusion import share_measures
from medtl.metrics.operating_point import Rule, choose_operating_point
from medtl.metrics.overlap import casewise_measures
from medtl.metrics.ranking import rank
from medtl.metrics.readers.paired_shares import Noninferiority, noninferiority, paired_share
from medtl.metrics.scores import CI, CI95, PAIR, Scores, usable_rows
from medtl.types import FloatArray, Measure, OperatingPoint

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
class ModelComparison:
    """One pair of models on one label.

    Attributes:
        label: The finding.
        first: Name of a model. second: Name of the other.
        test: First minus second; its name says in what ("sensitivity_difference").
        p_holm: p adjusted within all pairs and labels compared in the same measure.
        dropped: Rows that only one of the two has, or without a truth or score.
        noninferior: Whether the shown model is no worse than the other by a stated margin; None
            without a margin, and where neither of the two is the shown one.
    """

    label: str
    first: str
    second: str
    test: PairedTest
    p_holm: float | None
    dropped: int
    noninferior: Noninferiority | None = None


@dataclass(frozen=True)
class Comparison:
    """Several models on the same test cases.

    Attributes:
        models: Their names.
        shown: The one whose results are reported in full.
        rows: The headline measures of each.
        tests: Paired differences, first minus second, Holm within each measure.
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

    >>> import pandas as pd
    >>> table = pd.DataFrame({"case_id": ["a", "a"], "reader": ["", "Dr. A"]})
    >>> [len(part) for part in without_readers(table)]
    [1, 1]
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
    readings: pd.DataFrame, model: pd.DataFrame, ci: CI
) -> tuple[list[ReaderPoint], list[str]]:
    """Return sensitivity and specificity of every reader and label on the test rows, and notes.

    A note says how many of the model's cases a reader read, where it is not each of them.

    Args:
        readings: Rows with `reader`; `y_score` is 1 for "yes" and 0 for "no".
        model: Rows of the model.
        ci: Level of the intervals.

    Raises:
        PredictionsError: If a reader's rows and the model's disagree about a truth.
    """
    import pandas as pd

    points: list[ReaderPoint] = []
    notes: list[str] = []
    if not len(readings):
        return points, notes
    test = readings[readings["split"] == "test"]
    known = _usable(model[model["split"] == "test"])
    for (reader, label), rows in test.groupby(["reader", "label"], sort=True):
        usable, read = _usable(rows), known[known["label"] == label]
        _refuse_two_truths(pd.concat([usable, read]), f"{reader} and the model", str(label))
        if not usable["y_score"].isin((0, 1)).all():
            notes.append(f"the readings of {reader!r} are not 0 and 1 and were left out")
            continue
        common = int(usable["case_id"].isin(read["case_id"]).sum())
        if common < len(read):
            notes.append(f"{reader!r} read {common} of the {len(read)} cases of {label!r}")
        if others := len(usable) - common:
            notes.append(f"{reader!r} read {others} cases of {label!r} that the model did not")
        shares = share_measures(_scores(usable), threshold=1.0, ci=ci)[:2]
        both = (replace(share, label=str(label)) for share in shares)
        points.append(ReaderPoint(str(reader), str(label), *both))
    return points, notes


NO_MARGINS: Mapping[str, float] = MappingProxyType({})


def compare(
    table: pd.DataFrame,
    shown: str,
    *,
    value: str = "",
    rule: Rule | None = None,
    given: Sequence[OperatingPoint] = (),
    margins: Mapping[str, float] = NO_MARGINS,
    ci: CI = CI95,
) -> Comparison:
    """Return the models of a table side by side on the same test cases, and paired tests.

    Args:
        table: With `model`, `split`, `label`, `patient_id`, `case_id` and what is compared.
        shown: The model that is reported in full.
        value: Measure whose mean over the cases is compared: "dice", or "mae_" and a unit; "" for
            classifiers, compared by AUROC, sensitivity and specificity.
        rule: How a classifier's threshold is chosen, on its own validation rows.
        given: Thresholds that were stated.
        margins: Measure -> loss that was said to be acceptable before the results were known.
        ci: Level and bootstrap of the intervals.

    Raises:
        PredictionsError: If no model is called so, models disagree about a truth, or a margin is
            one of a measure that is not compared or is no share.
    """
    names = sorted(map(str, table["model"].unique())) if "model" in table else []
    if shown not in names:
        raise PredictionsError(
            f"no model {shown!r}", expected=f"one of {', '.join(names) or 'no model at all'}"
        )
    if value:
        rows, tests = _compare_values(table, names, value, ci)
        tests = _with_margins(_with_holm(tests), shown, margins)
        return Comparison(tuple(names), shown, tuple(rows), tuple(tests))
    stated = {point.label: point.threshold for point in given}
    found, curves = [], []
    thresholds: dict[tuple[str, str], float] = {}
    for name in names:
        mine = table[table["model"] == name]
        for label, rows_of in mine[mine["split"] == "test"].groupby("label", sort=False):
            val = mine[(mine["split"] == "val") & (mine["label"] == label)]
            threshold = stated.get(str(label), _chosen(val, rule))
            if threshold is not None:
                thresholds[name, str(label)] = threshold
            scores = _scores(_usable(rows_of))
            found += [
                ModelRow(name, replace(measure, label=str(label)))
                for measure in headline_measures(scores, threshold, ci)
            ]
            curves += _roc_curve(scores, name, str(label))
    tests = _with_margins(compare_models(table, thresholds=thresholds, ci=ci), shown, margins)
    return Comparison(tuple(names), shown, tuple(found), tuple(tests), tuple(curves))


NO_THRESHOLDS: Mapping[tuple[str, str], float] = MappingProxyType({})


def compare_models(
    table: pd.DataFrame,
    *,
    models: Sequence[str] = (),
    thresholds: Mapping[tuple[str, str], float] = NO_THRESHOLDS,
    ci: CI = CI95,
) -> list[ModelComparison]:
    """Return the paired comparison of every pair of models on every label: AUC, and the decisions.

    Only cases that both models have are compared; the others are counted.

    Args:
        table: A predictions table with a column `model`; rows of `split` "test" only, if it has
            that column.
        models: Names, in the order of the pairs; empty for all, in alphabetical order.
        thresholds: (model, label) -> its own frozen threshold: where both of a pair have one,
            sensitivity and specificity are compared, too.
        ci: Level of the intervals.

    Raises:
        PredictionsError: If there are not two models, or the two disagree about the truth.

    >>> import pandas as pd
    >>> cases = pd.DataFrame({"case_id": list("abcdef"), "y_true": [0, 0, 0, 1, 1, 1]})
    >>> first = cases.assign(model="first", y_score=[1, 2, 5, 3, 4, 6])
    >>> table = pd.concat([first, cases.assign(model="second", y_score=[2, 5, 6, 1, 3, 4])])
    >>> round(compare_models(table)[0].test.difference.value, 3)
    0.556
    """
    if "model" not in table:
        raise PredictionsError("the table has no column model", expected="two models or more")
    names = list(models) or sorted(str(name) for name in table["model"].unique())
    if len(names) < 2:
        raise PredictionsError(f"one model, {names[0]}", expected="two models or more")
    rows = table[table["split"] == "test"] if "split" in table else table
    parts = rows.groupby("label", sort=False) if "label" in rows else [("", rows)]
    return _with_holm(
        [
            found
            for label, part in parts
            for pair in combinations(names, 2)
            for found in _compare_pair(part, str(label), pair, thresholds, ci)
        ]
    )


def _compare_pair(
    rows: pd.DataFrame,
    label: str,
    pair: tuple[str, str],
    thresholds: Mapping[tuple[str, str], float],
    ci: CI,
) -> list[ModelComparison]:
    """Join two models on the case and compare them."""
    first, second = pair
    _refuse_repeats(rows, label)
    parts = [rows[rows["model"] == name].set_index("case_id") for name in pair]
    both = parts[0].merge(parts[1], left_index=True, right_index=True, suffixes=("", "_second"))
    usable = usable_rows(both["y_true"], both["y_score"])
    kept = both[usable & usable_rows(both["y_true_second"], both["y_score_second"])]
    dropped = len(parts[0]) + len(parts[1]) - 2 * len(kept)
    mine = rows[rows["model"].isin(pair) & rows["case_id"].isin(kept.index)]
    _refuse_two_truths(mine, f"{first} and {second}", label)
    patients = kept["patient_id"].to_numpy() if "patient_id" in kept else None
    truth, scores = kept["y_true"], (kept["y_score"], kept["y_score_second"])
    tests = [paired_auroc(truth, *scores, patients=patients, ci=ci)]
    cuts = [thresholds.get((name, label)) for name in pair]
    if None not in cuts:
        called = [score.to_numpy() >= cut for score, cut in zip(scores, cuts, strict=True)]
        sick = truth.to_numpy() == 1
        for of, mine in (("sensitivity", sick), ("specificity", ~sick)):
            right = [(one == sick)[mine] for one in called]
            whose = None if patients is None else patients[mine]
            tests.append(paired_share(*right, name=f"{of}_difference", patients=whose, ci=ci))
    return [ModelComparison(label, first, second, test, None, dropped) for test in tests]


def _refuse_repeats(rows: pd.DataFrame, label: str) -> None:
    """Refuse a case that a model has twice."""
    twice = rows[rows.duplicated(["model", "case_id"])]
    if len(twice):
        raise PredictionsError(
            f"model {twice['model'].iloc[0]} has several rows for one case and label {label!r}",
            expected="one score per case",
            fix="Compare one seed or fold at a time, or average them",
        )


def _refuse_two_truths(rows: pd.DataFrame, whose: str, label: str) -> None:
    """Refuse rows that disagree about the truth of a case: its value, or the size of its mask."""
    for column in ("y_true", "voxels_truth"):
        if column not in rows:
            continue
        several = rows.groupby("case_id")[column].nunique() > 1
        if several.any():
            cases = [str(case) for case in several.index[several]]
            raise PredictionsError(
                f"{whose} disagree about the truth of {len(cases)} cases of {label!r}:"
                f" {', '.join(cases[:3])}",
                expected=f"the same {column} in all rows of a case",
                fix="Join one reference to the predictions of all by case_id",
            )


def _compare_values(
    table: pd.DataFrame, names: Sequence[str], measure: str, ci: CI
) -> tuple[list[ModelRow], list[ModelComparison]]:
    """Return the mean of a value per case of every model, and paired t tests over patients."""
    test = table[table["split"] == "test"]
    values = test[measure].to_numpy(float) if measure in test else _absolute_error(test)
    rows, tests = [], []
    for label, every in test.assign(value=values).groupby("label", sort=False):
        _refuse_repeats(every, str(label))
        _refuse_two_truths(every, "the models", str(label))
        wide = every.pivot(index="case_id", columns="model", values="value")
        owner = every.drop_duplicates("case_id").set_index("case_id")["patient_id"]
        for name in names:
            known = wide[name].dropna()
            patients = owner.loc[known.index].to_numpy()
            mean = casewise_measures(measure, known.to_numpy(), patients=patients, ci=ci)[0]
            rows.append(ModelRow(name, replace(mean, name=measure, label=str(label))))
        for first, second in combinations(names, 2):
            both = wide[[first, second]].dropna()
            means = both.groupby(owner.loc[both.index].to_numpy()).mean()
            found = paired_t(means[first], means[second], ci=ci)
            named = replace(found.difference, name=f"{measure}_difference")
            dropped = int(wide[[first, second]].notna().sum().sum()) - 2 * len(both)
            paired = replace(found, difference=named)
            tests.append(ModelComparison(str(label), first, second, paired, None, dropped))
    return rows, tests


def _absolute_error(rows: pd.DataFrame) -> FloatArray:
    """Return the absolute error of each row, NaN where truth or prediction is missing, `(n,)`."""
    truth, score = (rows[name].to_numpy(float, na_value=np.nan) for name in PAIR)
    return np.asarray(np.abs(score - truth))


def _with_holm(tests: Sequence[ModelComparison]) -> list[ModelComparison]:
    """Return the tests with p adjusted over all of the same measure."""
    families: dict[str, list[float | None]] = {}
    for one in tests:
        families.setdefault(one.test.difference.name, []).append(one.test.p)
    adjusted = {name: iter(where_known(holm, p_values)) for name, p_values in families.items()}
    return [replace(one, p_holm=next(adjusted[one.test.difference.name])) for one in tests]


def _with_margins(
    tests: Sequence[ModelComparison], shown: str, margins: Mapping[str, float]
) -> list[ModelComparison]:
    """Return the tests, those of the shown model judged by the margin of their measure."""
    compared = [one.test.difference.name.removesuffix("_difference") for one in tests]
    for name, margin in margins.items():
        if name not in compared:
            raise PredictionsError(
                f"a margin is stated for {name!r}",
                expected=f"one of {', '.join(dict.fromkeys(compared))}",
            )
        if not entry(name).unit and margin >= 1:
            raise PredictionsError(
                f"a margin of {margin:g} of {name}",
                expected="a share below 1: 5 points of 100 are 0.05",
            )
    return [_judged(one, shown, margins) for one in tests]


def _judged(one: ModelComparison, shown: str, margins: Mapping[str, float]) -> ModelComparison:
    """Return the comparison of the shown model with its margin; another one as it is."""
    found = one.test.difference
    name = found.name.removesuffix("_difference")
    if name not in margins or shown not in (one.first, one.second):
        return one
    if shown == one.second and found.value is not None:
        low, high = (None if end is None else -end for end in (found.high, found.low))
        found = replace(found, value=-found.value, low=low, high=high)
    higher = entry(name).better != "lower"
    judged = noninferiority(found, margins[name], higher_is_better=higher)
    return replace(one, noninferior=judged)


def _chosen(val: pd.DataFrame, rule: Rule | None) -> float | None:
    """Return the threshold that the rule picks on a model's own validation rows, if it can."""
    usable = _usable(val)
    if rule is None or usable["y_true"].nunique() < 2:
        return None
    return choose_operating_point(_scores(usable), rule=rule).threshold


def _usable(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a truth and a score."""
    return rows[usable_rows(rows["y_true"], rows["y_score"])]


def _scores(rows: pd.DataFrame) -> Scores:
    """Return truth, score and patients of usable rows."""
    return Scores.of(rows["y_true"], rows["y_score"], rows["patient_id"].astype(str).to_numpy())


def _roc_curve(rows: Scores, model: str, label: str) -> list[dict[str, Any]]:
    """Return the ROC of a model as a curve to draw, or nothing with one class."""
    if rows.one_class:
        return []
    ranking = rank(rows)
    at = np.unique(np.linspace(0, ranking.tp.size - 1, CURVE_POINTS).round().astype(int))
    x, y = ranking.fp[at] / ranking.num_negative, ranking.tp[at] / ranking.num_positive
    place = {"name": "roc_of_model", "model": model, "label": label, "split": "test"}
    return [{**place, "x": [0.0, *x.tolist()], "y": [0.0, *y.tolist()]}]
