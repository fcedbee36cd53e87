"""All measures of one finding on one split, and what belongs to several findings together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module

import numpy as np

from medtl.errors import PredictionsError
from medtl.metrics import calibration, confusion, discrimination, subgroups
from medtl.metrics.catalogue import CATALOGUE
from medtl.metrics.curves.smooth_calibration import calibration_indices
from medtl.metrics.intervals import normal_quantile
from medtl.metrics.ranking import area_under_roc, auroc, rank, step_precision, weighted_counts
from medtl.metrics.resampling import resampled_measures
from medtl.metrics.scores import CI, Scores, num_patients
from medtl.metrics.temperature import fit_recalibration
from medtl.types import FloatArray, IntArray, Measure, OperatingPoint

FIXED_LEVEL = 0.9
"""Level of sensitivity at fixed specificity, of the reverse, and of the partial AUC."""


@dataclass(frozen=True)
class LabelRows:
    """The usable rows of one finding on one split.

    Attributes:
        label: The finding.
        split: "val" or "test".
        scores: Truth and score.
        patients: `(n,)` codes that mean the same patient in every label of the split.
        strata: Column -> `(n,)` values, "unknown" where empty.
    """

    label: str
    split: str
    scores: Scores
    patients: IntArray
    strata: Mapping[str, np.ndarray] = field(default_factory=dict)


def discrimination_measures(rows: Scores, ci: CI) -> list[Measure]:
    """Return AUROC, average precision, partial AUC and the two fixed-level measures."""
    return [
        auroc(rows, ci=ci),
        *discrimination.curve_measures(rank(rows), FIXED_LEVEL, ci=ci),
        discrimination.sensitivity_at_specificity(rows, specificity=FIXED_LEVEL, ci=ci),
        discrimination.specificity_at_sensitivity(rows, sensitivity=FIXED_LEVEL, ci=ci),
    ]


def error_measures(rows: Scores, ci: CI) -> list[Measure]:
    """Return Brier, log loss, and ECE beside that of right probabilities."""
    return [
        calibration.brier(rows, ci=ci),
        calibration.log_loss(rows, ci=ci),
        calibration.expected_calibration_error(rows, ci=ci),
        calibration.calibrated_error(rows, ci=ci),
    ]


def calibration_measures(rows: Scores, ci: CI) -> list[Measure]:
    """Return the errors of the probabilities, the calibration line and the indices."""
    return [
        *error_measures(rows, ci),
        *calibration.calibration_line(rows, ci=ci),
        *calibration_indices(rows, ci=ci),
    ]


def recalibrated_measures(test: LabelRows, val: LabelRows, ci: CI) -> tuple[list[Measure], str]:
    """Return the temperature fitted on validation and what it does to the test rows.

    Returns:
        Measures, and a note if there is no temperature.
    """
    try:
        scaling = fit_recalibration(val.scores)
    except PredictionsError as error:
        return [], f"no temperature for {test.label!r}: {error.found}"
    after = replace(test.scores, score=scaling(test.scores.score))
    changed = [
        replace(measure, name=f"{measure.name}_after_temperature")
        for measure in error_measures(after, ci)
    ]
    # On the log scale, where the error of log T is that of log slope.
    factor = math.exp(normal_quantile(ci.level) * scaling.slope_error / scaling.slope)
    value = scaling.temperature
    blank = replace(ci.blank("temperature", scaling.n, val.scores.positives), split="val")
    method = "maximum likelihood, Wald on the log scale"
    return [blank.ok(value, (value / factor, value * factor), method), *changed], ""


def measures_at(rows: Scores, threshold: float, prevalence: float | None, ci: CI) -> list[Measure]:
    """Return everything that follows from the two-by-two table at a frozen threshold."""
    shares = confusion.share_measures(rows, threshold=threshold, ci=ci)
    summaries = confusion.summary_measures(rows, threshold=threshold, ci=ci)
    ratios = confusion.likelihood_ratios(shares, ci=ci)
    if prevalence is not None:
        ratios += confusion.predictive_values_at(shares, prevalence, ci=ci)
    filled = (
        replace(measure, n_positive=rows.positives, n_patients=rows.num_patients)
        for measure in ratios
    )
    return [*shares, *summaries, *filled]


def headline_measures(rows: Scores, threshold: float | None, ci: CI) -> list[Measure]:
    """Return AUROC and, at a threshold, sensitivity and specificity."""
    found = [auroc(rows, ci=ci)]
    if threshold is not None:
        found += confusion.share_measures(rows, threshold=threshold, ci=ci)[:2]
    return found


def subgroup_measures(
    rows: LabelRows, column: str, threshold: float | None, ci: CI
) -> list[Measure]:
    """Return AUROC and, at the threshold, the shares but accuracy of every group of a column."""
    measures = []
    for value in np.unique(rows.strata[column]):
        part = rows.scores.only(rows.strata[column] == value)
        found = [auroc(part, ci=ci)]
        if threshold is not None:
            shares = confusion.share_measures(part, threshold=threshold, ci=ci)
            found += [share for share in shares if share.name != "accuracy"]
        for measure in found:
            flagged = subgroups.flag_small(measure, rows=part.truth.size, positives=part.positives)
            flagged = without_interval_of_one(flagged)
            measures.append(replace(flagged, subset=f"{column}={value}"))
    return measures


def without_interval_of_one(measure: Measure) -> Measure:
    """Return the measure of a group, without the interval where it is of one case.

    >>> without_interval_of_one(Measure("sensitivity", 1.0, low=0.2, high=1.0, n=1)).reason
    'one case'
    """
    if measure.n > 1 or measure.value is None:
        return measure
    return replace(measure, low=None, high=None).weak(measure.value, "one case")


def gap_measures(found: Sequence[subgroups.Gap]) -> list[Measure]:
    """Return gaps, adjusted together, as measures: the gap, its p and its p by Holm."""
    adjusted = subgroups.adjust_for_multiplicity(found)
    family = sum(gap.p is not None for gap in adjusted)
    measures = []
    for gap in adjusted:
        measures.append(gap.difference)
        if gap.p is None:
            continue
        method = f"against {gap.reference}; family of {family} tests"
        of_p = replace(gap.difference, low=None, high=None, method=method)
        name = gap.difference.name
        measures.append(replace(of_p, name=f"{name}_p", value=gap.p))
        measures.append(replace(of_p, name=f"{name}_p_holm", value=gap.p_holm))
    return measures


def macro_measures(
    labels: Sequence[LabelRows], thresholds: Mapping[str, float], ci: CI
) -> list[Measure]:
    """Return means over the labels where each is defined, by a joint bootstrap over patients.

    AUROC and average precision; with a threshold for every label also sensitivity, specificity and
    F1. A resample in which a label loses a class is left out and counted.
    """
    used = [rows for rows in labels if not rows.scores.one_class]
    names = ["auroc", "average_precision"]
    if used and all(rows.label in thresholds for rows in used):
        names += ["sensitivity", "specificity", "f1"]
    n = sum(rows.scores.truth.size for rows in used)
    positives = sum(rows.scores.positives for rows in used)
    blank = replace(ci.blank("", n, positives), label="macro", split=labels[0].split)
    if not used:
        reason = "no label has both classes"
        return [replace(blank, name=name).undefined(reason) for name in names]
    parts = [_label_columns(rows, thresholds.get(rows.label), len(names)) for rows in used]
    patients = max(int(rows.patients.max()) for rows in used) + 1

    def means(weights: IntArray) -> FloatArray:
        return np.asarray(np.mean([part(weights) for part in parts], axis=0))

    blank = replace(blank, n_patients=num_patients(np.concatenate([r.patients for r in used])))
    measures = resampled_measures(
        means,
        names,
        blank,
        np.arange(patients),
        ci.affordable(n),
        reason="undefined for a label",
        units=min(num_patients(r.patients[r.scores.truth]) for r in used),
    )
    of = f"mean over {len(used)} of {len(labels)} labels"
    return [
        measure if measure.value is None else replace(measure, method=f"{of}; {measure.method}")
        for measure in measures
    ]


def _label_columns(
    rows: LabelRows, threshold: float | None, width: int
) -> Callable[[IntArray], FloatArray]:
    """Return the function from patient weights `(b, P)` to the label's values `(b, width)`."""
    ranking = rank(rows.scores)
    codes = rows.patients[ranking.order]
    at = -1
    if threshold is not None:
        at += int(np.searchsorted(-ranking.thresholds, -threshold, side="right"))

    def columns(weights: IntArray) -> FloatArray:
        tp, fp = weighted_counts(ranking, weights[:, codes])
        values = [area_under_roc(tp, fp), step_precision(tp, fp)]
        if width > len(values):
            positives, negatives = tp[:, -1].astype(float), fp[:, -1].astype(float)
            hits = tp[:, at].astype(float) if at >= 0 else np.zeros(len(tp))
            alarms = fp[:, at].astype(float) if at >= 0 else np.zeros(len(tp))
            with np.errstate(divide="ignore", invalid="ignore"):
                values += [hits / positives, 1 - alarms / negatives]
                values.append(confusion.f1(hits, alarms, positives - hits, negatives - alarms))
        return np.stack(values, axis=1)

    return columns


def micro_auroc(labels: Sequence[LabelRows], ci: CI) -> Measure:
    """Return the AUROC of all labels' rows thrown together; a patient's rows are one cluster."""
    pooled = auroc(
        np.concatenate([rows.scores.truth for rows in labels]),
        np.concatenate([rows.scores.score for rows in labels]),
        patients=np.concatenate([rows.patients for rows in labels]),
        ci=ci,
    )
    return replace(pooled, label="micro", split=labels[0].split)


def label_measures(
    rows: LabelRows, point: OperatingPoint | None, prevalence: float | None, ci: CI
) -> tuple[list[Measure], list[str]]:
    """Return the measures of a finding on the test rows, and notes."""
    scores = rows.scores
    measures, notes = discrimination_measures(scores, ci), []
    if scores.are_probabilities:
        measures += calibration_measures(scores, ci)
    elif scores.score.size:
        notes.append(f"the scores of {rows.label!r} are not probabilities: no calibration")
    if point is not None:
        measures += measures_at(scores, point.threshold, prevalence, ci)
    else:
        measures.append(confusion.share_measures(scores, threshold=math.inf, ci=ci)[-1])
    for of in CATALOGUE.values():
        module, _, function = of.function.rpartition(".")
        if module:
            found = getattr(import_module(f"medtl.metrics.{module}"), function)
            measures.append(found(scores, ci=ci))
    return measures, notes
