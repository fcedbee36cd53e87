"""From a predictions table to `metrics.json`: every measure, its interval and what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
from medtl.evaluation.exclusive import choice_measures, choices
from medtl.evaluation.finding_rows import label_rows, refuse_mixtures, with_defaults, worst_cases
from medtl.evaluation.own import NO_METRICS, OwnMetric, own_measures
from medtl.evaluation.result import Evaluation, Kind, storable
from medtl.evaluation.statements.concerns import concerns
from medtl.evaluation.statements.missing_scores import missing_scores
from medtl.evaluation.statements.promises import promises
from medtl.evaluation.statements.recalibrated import (
    Recalibrated,
    after_recalibration,
    recalibrations,
)
from medtl.evaluation.transfer.sites import sites_of
from medtl.evaluation.variants import variants
from medtl.metrics import subgroups
from medtl.metrics.catalogue import unit_word
from medtl.metrics.confusion import counts_of, natural_frequencies
from medtl.metrics.curves.decision_curve import Range
from medtl.metrics.operating_point import Rule, choose_operating_point, describe_rule
from medtl.metrics.scores import CI, CI95, PAIR
from medtl.types import Measure, OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

OfLabels = float | Mapping[str, float]
"""One number for all labels, or label -> its own."""

BONE_AGE = "bone_age_months"
"""The label whose truth and score are months, not classes."""


def evaluate(  # noqa: PLR0913 - one call states a whole evaluation
    table: pd.DataFrame,
    *,
    rule: Rule | None = None,
    operating_points: Sequence[OperatingPoint] = (),
    prevalence: OfLabels | None = None,
    acting: Range | None = None,
    strata: Sequence[str] = (),
    classes: Sequence[str] = (),
    kind: Kind | None = None,
    unit: str = "",
    model: str | None = None,
    margins: Mapping[str, float] = models.NO_MARGINS,
    metrics: Mapping[str, OwnMetric] = NO_METRICS,
    recalibrations: Sequence[Recalibrated] | None = None,
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
        prevalence: Of the clinic, for predictive values, in (0, 1); one, or label -> its own.
        acting: Lowest and highest probability at which somebody would act, inside (0, 1): the range
            of the decision curves; None draws 0.01 to 0.99.
        strata: Columns to report by.
        classes: Labels in an order that means something (none, mild, severe); empty for none.
        kind: Of study; None is a regression where a unit is given, and else found from the table.
        unit: Of a regression ("%"); months without one.
        model: The one to report in full when the table holds several: the others are compared
            with it on the same cases. Its rows may be joined by those of human `reader`s.
        margins: Measure -> how much of it `model` may lose to another one and still count as no
            worse (non-inferiority), as it was stated before the results were known.
        metrics: Own measures by name, each a function of truth and score of the test rows, `(n,)`
            and `(n,)`, that returns a number; their intervals are bootstrapped over patients.
        recalibrations: Kept with a model; None fits where the validation rows call for one.
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
    _refuse_another_kind(table, kind)
    word = unit_word(unit) or "months"
    table, readings = models.without_readers(with_defaults(table, strata))
    comparison = None
    if model is not None:
        value = {"classification": "", "regression": f"mae_{word}", "segmentation": "dice"}[kind]
        comparison = models.compare(
            table, model, value=value, rule=rule, given=operating_points, margins=margins, ci=ci
        )
        table = table[table["model"] == model]
    table = table.reset_index(drop=True)
    refuse_mixtures(table)
    cohort = describe_table(table, kind == "classification")
    table, notes = band_strata(table, strata)
    if kind == "classification":
        labels, left_out = label_rows(table, strata)
        names = _ordered([label for split, label in labels if split == "test"], classes)
        points, unset = _operating_points(names, labels, rule, operating_points)
        read, missing = models.reader_points(readings, table, ci)
        tests = [labels["test", name] for name in names]
        kept = recalibrations and [one for one in recalibrations if {*one.labels} <= {*names}]
        vals = [labels.get(("val", name)) for name in names]
        found = _evaluate_classification(
            table,
            list(zip(tests, vals, strict=True)),
            points,
            _of_each(names, prevalence),
            bool(classes),
            kept,
            ci,
            acting=acting,
        )
        notes = [*notes, *left_out, *missing, *unset, *found.notes]
        found = replace(found, comparison=comparison, readers=tuple(read), notes=tuple(notes))
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
            concerns=tuple(concerns(values.measures)),
        )
        if prevalence is not None or acting is not None:
            stray = "a prevalence and a range of thresholds belong to findings, and were not used"
            found = replace(found, notes=(*found.notes, stray))
    own = own_measures(table, metrics, kind, ci)
    return replace(found, measures=(*found.measures, *own), cohort=cohort)


def refuse_no_unit(
    kind: Kind | None, unit: str | None, labels: Iterable[object], where: str = ""
) -> None:
    """Refuse a quantity without a unit, which would be called months; its name may say months."""
    if kind != "regression" or unit:
        return
    strangers = {str(label) for label in labels if not str(label).endswith("_months")}
    if strangers:
        raise PredictionsError(
            f"a regression of {min(strangers)!r} without a unit",
            expected="the unit of y_true and y_score",
            where=where,
            fix='State --unit "%", or unit="%" in Python; of bone ages months',
        )


def _kind_of(table: pd.DataFrame) -> Kind:
    """Return the kind of study that a table belongs to."""
    if "y_score" not in table and "dice" in table:
        return "segmentation"
    if "label" in table and set(table["label"]) == {BONE_AGE}:
        return "regression"
    return "classification"


def _refuse_another_kind(table: pd.DataFrame, kind: Kind) -> None:
    """Refuse a kind that there is not, and one whose columns the table lacks."""
    needed = {"classification": PAIR, "regression": PAIR, "segmentation": ("dice",)}
    lacks = [name for name in needed.get(kind, ()) if name not in table]
    if kind not in needed or lacks:
        raise PredictionsError(
            f"the kind {kind!r}" + (f", and no column {', '.join(lacks)}" if lacks else ""),
            expected="classification or regression (y_true, y_score), segmentation (masks as truth "
            "and prediction)",
            fix="Leave the kind out, or state that of the table",
        )


def _evaluate_classification(  # noqa: PLR0913 - what is stated of a whole evaluation
    table: pd.DataFrame,
    labels: Sequence[tuple[LabelRows, LabelRows | None]],
    points: Mapping[str, OperatingPoint],
    prevalences: Mapping[str, float],
    ordered: bool,
    mended: Sequence[Recalibrated] | None,
    ci: CI,
    *,
    acting: Range | None,
) -> Evaluation:
    """Evaluate every label on test, beside validation; then what belongs to all of them."""
    on_test, on_val = (table[table["split"] == split] for split in ("test", "val"))
    thresholds = {label: point.threshold for label, point in points.items()}
    tests = [test for test, _ in labels]
    names = [rows.label for rows in tests]
    measures: list[Measure] = []
    curves: list[Curve] = []
    notes: list[str] = []
    for test, val in labels:
        stated = prevalences.get(test.label)
        found, label_notes = _evaluate_label(test, val, points.get(test.label), stated, ci)
        measures += found
        notes += label_notes
        curves += label_curves(test, stated, ci, acting)
    matrix = None
    if len(tests) > 1:
        measures += classification.macro_measures(tests, thresholds, ci)
        measures.append(classification.micro_auroc(tests, ci))
        absent = [rows.label for rows in tests if rows.scores.one_class]
        if absent:
            notes.append(f"left out of the macro means, one class only: {', '.join(absent)}")
        if (chosen := choices(on_test, names)) is not None:
            of_choice, matrix = choice_measures(chosen, names, ci, ordered=ordered)
            measures += of_choice
            if not ordered:
                notes.append("no quadratic kappa: the classes have no stated order")
    rule = tests, {v.label: v for _, v in labels if v}, choices(on_val, names), ci
    fitted, unmended = recalibrations(*rule, exclusive=matrix is not None)
    mended = fitted if mended is None else mended
    after, drawn = after_recalibration(on_test, mended, prevalences, ci, acting)
    measures, curves = [*measures, *after], [*curves, *drawn]
    measures += _subgroups(tests, thresholds, ci)
    promised = promises(tuple(points.values()), measures)
    missing = missing_scores(on_test, thresholds, ci)
    return Evaluation(
        measures=tuple(measures),
        concerns=tuple(concerns(measures, curves, promised, missing, mended)),
        promises=tuple(promised),
        missing_scores=tuple(missing),
        recalibrations=tuple(mended),
        unmended=unmended,
        operating_points=tuple(points.values()),
        counts=tuple(_tables(tests, thresholds)),
        confusion=matrix,
        curves=tuple(curves),
        per_1000=tuple(_per_1000(tests, thresholds, prevalences)),
        notes=tuple(notes),
        variants=tuple(variants(on_test, tests, thresholds, ci)),
        worst=tuple(worst_cases(on_test, tuple(points.values()))),
        sites=tuple(
            one for rows in tests for one in sites_of(rows, thresholds.get(rows.label), ci)
        ),
    )


def _of_each(names: Sequence[str], prevalence: OfLabels | None) -> dict[str, float]:
    """Return the prevalence that is stated of each label."""
    if not isinstance(prevalence, Mapping):
        return {} if prevalence is None else dict.fromkeys(names, prevalence)
    if unknown := [label for label in prevalence if label not in names]:
        raise PredictionsError(
            f"a prevalence is stated for {unknown[0]!r}",
            expected=f"one of {', '.join(map(repr, names))}",
        )
    return dict(prevalence)


def _ordered(names: list[str], classes: Sequence[str]) -> list[str]:
    """Return the labels of the test rows, in the order of the classes if there is one."""
    if not names:
        raise PredictionsError("the table has no test rows", expected="rows of split test")
    if not classes:
        return names
    if isinstance(classes, str) or len({*classes}) < len(classes):
        raise PredictionsError(
            f"the order of the classes is {classes!r}",
            expected="a list that names every class once, the lowest first",
            fix="State classes: [none, mild, severe]",
        )
    stranger = next((name for name in names if name not in classes), None)
    if stranger is not None:
        raise PredictionsError(
            f"the class {stranger!r} has no place in the order {', '.join(map(str, classes))}",
            expected="all classes, the lowest first",
        )
    return [name for name in classes if name in names]


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
    points = {point.label: point for point in given if point.label in names}
    notes = [
        f"{name!r} has validation rows and no test rows: nothing is said of it"
        for split, name in labels
        if split == "val" and name not in names
    ]
    unknown = [point.label for point in given if point.label not in names]
    if unknown:
        raise PredictionsError(
            f"an operating point is given for {unknown[0]!r}",
            expected=f"one of {', '.join(map(repr, names))}",
        )
    for label in names:
        if label in points:
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


def _per_1000(
    tests: Sequence[LabelRows], thresholds: Mapping[str, float], stated: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return frequencies in 1000 patients at the stated prevalence, or at that of the test set.

    A patient with several images counts once, with the highest score.
    """
    found = []
    for rows in tests:
        scores = rows.scores.per_patient("max") if rows.scores.clustered else rows.scores
        if rows.label not in thresholds or scores.one_class:
            continue
        flagged = scores.score >= thresholds[rows.label]
        rates = flagged[scores.truth].mean(), 1 - flagged[~scores.truth].mean()
        prevalence = stated.get(rows.label, scores.positives / scores.truth.size)
        source = "stated" if rows.label in stated else "test set"
        counts = asdict(natural_frequencies(float(rates[0]), float(rates[1]), prevalence))
        about = {"label": rows.label, "prevalence": prevalence, "source": source}
        found.append({**about, "unit": "patients", **counts})
    return found
