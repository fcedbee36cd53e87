"""From a predictions table to `metrics.json`: every measure, its interval and what was left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.errors import PredictionsError
from medtl.evaluation import classification, continuous
from medtl.evaluation import model_comparison as models
from medtl.evaluation.bands import band_strata
from medtl.evaluation.classification import LabelRows
from medtl.evaluation.cohort import describe_table
from medtl.evaluation.curves import Curve, label_curves
from medtl.evaluation.exclusive import exclusive_classes
from medtl.evaluation.finding_rows import label_rows, refuse_mixtures, with_defaults, worst_cases
from medtl.evaluation.own import NO_METRICS, OwnMetric, own_measures
from medtl.evaluation.result import Evaluation, Kind, storable
from medtl.evaluation.variants import variants
from medtl.metrics import subgroups
from medtl.metrics.catalogue import unit_word
from medtl.metrics.confusion import counts_of, natural_frequencies
from medtl.metrics.operating_point import Rule, choose_operating_point, describe_rule
from medtl.metrics.scores import CI, CI95
from medtl.types import Measure, OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

BONE_AGE = "bone_age_months"
"""The label whose truth and score are months, not classes."""


def evaluate(  # noqa: PLR0913 - one call states a whole evaluation
    table: pd.DataFrame,
    *,
    rule: Rule | None = None,
    operating_points: Sequence[OperatingPoint] = (),
    prevalence: float | None = None,
    strata: Sequence[str] = (),
    kind: Kind | None = None,
    unit: str = "",
    model: str | None = None,
    metrics: Mapping[str, OwnMetric] = NO_METRICS,
    ci: CI = CI95,
) -> Evaluation:
    """Return every measure of one model's predictions on its test rows.

    The rule picks a threshold per label on the rows of split "val" only; it is then frozen and
    applied to the test rows. Without such rows, and without given points, there is no operating
    point. Rows without a certain truth or a score are left out and counted in the notes.

    Args:
        table: Tidy predictions, one row per case and label; see `cases.predictions`. Segmentation:
            one row per case and structure with `dice` and other values of `overlap.compare_masks`.
        rule: How to choose the threshold, such as {"sensitivity": 0.9}.
        operating_points: Given thresholds; they come before the rule.
        prevalence: Of the clinic, for predictive values, in (0, 1).
        strata: Columns to report by.
        kind: Of study; None is a regression where a unit is given, and else found from the table.
        unit: Of a regression ("%"); months without one.
        model: The one to report in full when the table holds several: the others are compared
            with it on the same cases. Its rows may be joined by those of human `reader`s.
        metrics: Own measures by name, each a function of truth and score of the test rows, `(n,)`
            and `(n,)`, that returns a number; their intervals are bootstrapped over patients.
        ci: Level and bootstrap of the intervals.

    Raises:
        PredictionsError: If the table holds several models or seeds, a column is missing, or an
            own measure has the name of another one.

    >>> import pandas as pd
    >>> cells = {"case_id": list("abcdef"), "y_true": [0, 0, 0, 1, 1, 1],
    ...          "y_score": [0.1, 0.4, 0.2, 0.35, 0.8, 0.7]}
    >>> evaluate(pd.DataFrame(cells), ci=CI(resamples=50)).auroc
    auroc: 0.889 [0.261, 0.995], n = 6 (hull of DeLong and Newcombe 2006 method 5)
    """
    kind = kind or ("regression" if unit else _kind_of(table))
    word = unit_word(unit) or "months"
    table, readings = models.without_readers(with_defaults(table, strata))
    comparison = None
    if model is not None:
        value = {"classification": "", "regression": f"mae_{word}", "segmentation": "dice"}[kind]
        comparison = models.compare(
            table, model, value=value, rule=rule, given=operating_points, ci=ci
        )
        table = table[table["model"] == model]
    table = table.reset_index(drop=True)
    refuse_mixtures(table)
    cohort = describe_table(table, kind == "classification")
    table, notes = band_strata(table, strata)
    if kind == "classification":
        labels, left_out = label_rows(table, strata)
        points, missing = models.reader_points(readings, ci)
        found = _evaluate_classification(
            table, labels, [*notes, *left_out, *missing], rule, operating_points, prevalence, ci
        )
        found = replace(found, comparison=comparison, readers=tuple(points))
    else:
        values = (
            continuous.regression(table, strata, ci, word)
            if kind == "regression"
            else continuous.segmentation(table, strata, ci)
        )
        found = Evaluation(
            tuple(values.measures),
            curves=tuple(values.curves),
            notes=(*notes, *values.notes),
            kind=kind,
            unit="" if word == "months" else unit,
            worst=tuple(values.worst),
            comparison=comparison,
        )
    own = own_measures(table, metrics, kind, ci)
    return replace(found, measures=(*found.measures, *own), cohort=cohort)


def _kind_of(table: pd.DataFrame) -> Kind:
    """Return the kind of study that a table belongs to."""
    if "y_score" not in table and "dice" in table:
        return "segmentation"
    if "label" in table and set(table["label"]) == {BONE_AGE}:
        return "regression"
    return "classification"


def _evaluate_classification(
    table: pd.DataFrame,
    labels: Mapping[tuple[str, str], LabelRows],
    notes: list[str],
    rule: Rule | None,
    given: Sequence[OperatingPoint],
    prevalence: float | None,
    ci: CI,
) -> Evaluation:
    """Evaluate every label on test, then what belongs to all labels together."""
    names = list(dict.fromkeys(label for split, label in labels if split == "test"))
    if not names:
        raise PredictionsError("the table has no test rows", expected="rows of split test")
    points, point_notes = _operating_points(names, labels, rule, given)
    notes = [*notes, *point_notes]
    thresholds = {label: point.threshold for label, point in points.items()}
    tests = [labels["test", label] for label in names]
    on_test = table[table["split"] == "test"]
    measures: list[Measure] = []
    curves: list[Curve] = []
    for test in tests:
        val = labels.get(("val", test.label))
        found, label_notes = _evaluate_label(test, val, points.get(test.label), prevalence, ci)
        measures += found
        notes += label_notes
        curves += label_curves(test, prevalence, ci)
    matrix = None
    if len(tests) > 1:
        measures += classification.macro_measures(tests, thresholds, ci)
        measures.append(classification.micro_auroc(tests, ci))
        absent = [rows.label for rows in tests if rows.scores.one_class]
        if absent:
            notes.append(f"left out of the macro means, one class only: {', '.join(absent)}")
        exclusive, matrix = exclusive_classes(on_test, names, ci)
        measures += exclusive
    return Evaluation(
        measures=(*measures, *_subgroups(tests, thresholds, ci)),
        operating_points=tuple(points.values()),
        counts=tuple(_tables(tests, thresholds)),
        confusion=matrix,
        curves=tuple(curves),
        per_1000=tuple(_per_1000(measures, prevalence)),
        notes=tuple(notes),
        variants=tuple(variants(on_test, tests, thresholds, ci)),
        worst=tuple(worst_cases(on_test, tuple(points.values()))),
    )


def _evaluate_label(
    test: LabelRows,
    val: LabelRows | None,
    point: OperatingPoint | None,
    prevalence: float | None,
    ci: CI,
) -> tuple[list[Measure], list[str]]:
    """Return a label's measures on test, its AUROC on validation, and notes."""
    measures, notes = classification.label_measures(test, point, prevalence, ci)
    if val is not None:
        threshold = None if point is None else point.threshold
        of_val = classification.headline_measures(val.scores, threshold, ci)
        measures += [replace(measure, split="val") for measure in of_val]
        if val.scores.are_probabilities and test.scores.are_probabilities:
            after, note = classification.recalibrated_measures(test, val, ci)
            measures += after
            notes += [note] if note else []
    rows, patients = test.scores.truth.size, int(np.unique(test.patients).size)
    if patients != rows:
        notes.append(
            f"{rows} test rows of {test.label!r} come from {patients} patients:"
            " all intervals are over patients"
        )
    return [replace(measure, label=test.label) for measure in measures], notes


def _operating_points(
    names: Sequence[str],
    labels: Mapping[tuple[str, str], LabelRows],
    rule: Rule | None,
    given: Sequence[OperatingPoint],
) -> tuple[dict[str, OperatingPoint], list[str]]:
    """Return the operating point of each label that has one, and why others have none."""
    points, notes = {point.label: point for point in given if point.label in names}, []
    unknown = [point.label for point in given if point.label not in names]
    if unknown:
        raise PredictionsError(
            f"an operating point is given for {unknown[0]!r}",
            expected=f"one of {', '.join(map(repr, names))}",
        )
    for label in names:
        if label in points or (rule is None and given):
            continue
        val = labels.get(("val", label))
        if rule is None:
            notes.append(f"no operating point for {label!r}: no rule and no threshold was given")
        elif val is None:
            notes.append(f"no operating point for {label!r}: the table has no validation rows")
        elif val.scores.one_class:
            notes.append(f"no operating point for {label!r}: validation holds one class only")
        else:
            points[label] = choose_operating_point(val.scores, rule=rule, label=label)
            if math.isinf(points[label].threshold):
                notes.append(
                    f"no validation score of {label!r} meets {describe_rule(rule)}:"
                    " the operating point flags nobody"
                )
    return {label: points[label] for label in names if label in points}, notes


def _subgroups(
    tests: Sequence[LabelRows], thresholds: Mapping[str, float], ci: CI
) -> list[Measure]:
    """Return the measures of every group of every label, then the gaps, tested together."""
    gaps, measures = [], []
    for rows in tests:
        if not rows.scores.truth.size:
            continue
        threshold = thresholds.get(rows.label)
        for column in rows.strata:
            found = classification.subgroup_measures(rows, column, threshold, ci)
            measures += [replace(measure, label=rows.label) for measure in found]
        gaps += [
            replace(gap, difference=replace(gap.difference, label=rows.label))
            for gap in subgroups.gaps(rows.scores, groups=rows.strata, threshold=threshold, ci=ci)
        ]
    return [*measures, *classification.gap_measures(gaps)]


def _tables(tests: Sequence[LabelRows], thresholds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the two-by-two tables at the operating points, of all rows and of every group."""
    tables = []
    for rows in tests:
        if rows.label not in thresholds:
            continue
        threshold, truth = thresholds[rows.label], rows.scores.truth
        flagged = rows.scores.score >= threshold
        groups = {"all": np.ones(truth.size, dtype=bool)}
        for column, values in rows.strata.items():
            groups |= {f"{column}={value}": values == value for value in np.unique(values)}
        for subset, mask in groups.items():
            place = {"label": rows.label, "split": "test", "subset": subset}
            cells = asdict(counts_of(truth[mask], flagged[mask]))
            tables.append({**place, "threshold": storable(threshold), **cells})
    return tables


def _per_1000(measures: Sequence[Measure], stated: float | None) -> list[dict[str, Any]]:
    """Return natural frequencies at the stated prevalence, or else at that of the test rows."""
    values = {(m.label, m.name): m.value for m in measures if m.split == "test"}
    found = []
    for label in dict.fromkeys(measure.label for measure in measures):
        se, sp = values.get((label, "sensitivity")), values.get((label, "specificity"))
        prevalence = stated if stated is not None else values.get((label, "prevalence"))
        if label == "macro" or se is None or sp is None or prevalence is None:
            continue
        source = "stated" if stated is not None else "test set"
        counts = asdict(natural_frequencies(se, sp, prevalence))
        found.append({"label": label, "prevalence": prevalence, "source": source, **counts})
    return found
