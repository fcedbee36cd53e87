"""All measures of one finding on one split, and what belongs to several findings together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from medtl.errors import PredictionsError
from medtl.metrics import calibration, confusion, discrimination, subgroups
from medtl.metrics.inputs import num_patients, patient_codes
from medtl.metrics.intervals import normal_quantile
from medtl.metrics.ranking import (
    area_under_part_of_roc,
    area_under_roc,
    auroc,
    rank,
    step_precision,
    weighted_counts,
)
from medtl.metrics.resampling import affordable_resamples, bootstrap
from medtl.metrics.temperature import fit_recalibration
from medtl.types import BoolArray, FloatArray, IntArray, Measure, OperatingPoint

FIXED_LEVEL = 0.9
"""Level of sensitivity at fixed specificity, of the reverse, and of the partial AUC."""


@dataclass(frozen=True)
class LabelRows:
    """The usable rows of one finding on one split.

    Attributes:
        label: The finding.
        split: "val" or "test".
        truth: `(n,)`.
        score: `(n,)`.
        patients: `(n,)` codes that mean the same patient in every label of the split.
        strata: Column -> `(n,)` values, "unknown" where empty.
    """

    label: str
    split: str
    truth: BoolArray
    score: FloatArray
    patients: IntArray
    strata: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def clusters(self) -> IntArray | None:
        """Patient codes where some patient has several rows, else None."""
        alone = num_patients(self.patients) == self.patients.size
        return None if alone else self.patients

    @property
    def has_probabilities(self) -> bool:
        """Whether there are scores and all lie in [0, 1]."""
        return bool(self.score.size) and bool(self.score.min() >= 0 and self.score.max() <= 1)


@dataclass(frozen=True)
class Settings:
    """What every measure of an evaluation shares."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0
    prevalence: float | None = None


def discrimination_measures(rows: LabelRows, settings: Settings) -> list[Measure]:
    """Return AUROC, average precision, partial AUC and the two fixed-level measures."""
    ranking, clusters = rank(rows.truth, rows.score), rows.clusters
    area = auroc(rows.truth, rows.score, patients=clusters, confidence=settings.confidence)
    least = (1 - FIXED_LEVEL) ** 2 / 2
    level = discrimination.percent(FIXED_LEVEL)
    statistics: dict[str, discrimination.FromCounts] = {
        "average_precision": step_precision,
        f"partial_auc_specificity_{level}_to_100": lambda tp, fp: (
            1 + (area_under_part_of_roc(tp, fp, FIXED_LEVEL) - least) / (1 - FIXED_LEVEL - least)
        ) / 2,
        f"sensitivity_at_specificity_{level}": lambda tp, fp: (
            discrimination.best_sensitivity(tp, fp, FIXED_LEVEL)
        ),
        f"specificity_at_sensitivity_{level}": lambda tp, fp: (
            discrimination.best_specificity(tp, fp, FIXED_LEVEL)
        ),
    }  # fmt: skip
    measures = discrimination.bootstrap_measures(
        statistics, ranking, patients=clusters, confidence=settings.confidence,
        resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    return [area, *measures]


def calibration_measures(rows: LabelRows, settings: Settings) -> list[Measure]:
    """Return Brier, log loss, ECE, slope, intercept and calibration in the large."""
    pair, clusters, level = (rows.truth, rows.score), rows.clusters, settings.confidence
    return [
        calibration.brier(*pair, patients=clusters, confidence=level),
        calibration.log_loss(*pair, patients=clusters, confidence=level),
        calibration.expected_calibration_error(
            *pair, patients=clusters, confidence=level,
            resamples=settings.resamples, seed=settings.seed,
        ),
        *calibration.calibration_line(*pair, patients=clusters, confidence=level),
    ]  # fmt: skip


def recalibrated_measures(
    test: LabelRows, val: LabelRows, settings: Settings
) -> tuple[list[Measure], str]:
    """Return the temperature fitted on validation and what it does to the test rows.

    Returns:
        Measures, and a note if there is no temperature.
    """
    try:
        scaling = fit_recalibration(val.truth, val.score)
    except PredictionsError as error:
        return [], f"no temperature for {test.label!r}: {error.found}"
    after = replace(test, score=scaling(test.score))
    changed = [
        replace(measure, name=f"{measure.name}_after_temperature")
        for measure in calibration_measures(after, settings)[:3]
    ]
    # On the log scale, where the error of log T is that of log slope.
    factor = math.exp(normal_quantile(settings.confidence) * scaling.slope_error / scaling.slope)
    temperature = Measure(
        "temperature", scaling.temperature, split="val", low=scaling.temperature / factor,
        high=scaling.temperature * factor, confidence=settings.confidence, n=scaling.n,
        n_positive=int(val.truth.sum()), method="maximum likelihood, Wald on the log scale",
    )  # fmt: skip
    return [temperature, *changed], ""


def measures_at(rows: LabelRows, threshold: float, settings: Settings) -> list[Measure]:
    """Return everything that follows from the two-by-two table at a frozen threshold."""
    pair, clusters = (rows.truth, rows.score), rows.clusters
    counts = confusion.count(*pair, threshold)
    shares = confusion.share_measures(
        *pair, threshold, patients=clusters, confidence=settings.confidence
    )
    summaries = confusion.summary_measures(
        *pair, threshold, patients=clusters, confidence=settings.confidence,
        resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    ratios = confusion.likelihood_ratios(counts, confidence=settings.confidence)
    if settings.prevalence is not None:
        ratios += confusion.predictive_values_at(
            counts, settings.prevalence, confidence=settings.confidence
        )
    if clusters is not None:
        ratios = _over_patients(ratios, rows, threshold, settings)
    positives, patients = int(rows.truth.sum()), num_patients(rows.patients)
    filled = [replace(measure, n_positive=positives, n_patients=patients) for measure in ratios]
    return [*shares, *summaries, *filled]


def _over_patients(
    measures: Sequence[Measure], rows: LabelRows, threshold: float, settings: Settings
) -> list[Measure]:
    """Replace intervals that take rows as independent by the bootstrap over patients."""
    tp, fp, fn, tn = confusion.drawn_cells(
        rows.truth, rows.score >= threshold, patient_codes(rows.patients, rows.truth.size),
        resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    prevalence = settings.prevalence or math.nan
    found = []
    for measure in measures:
        if measure.status != "ok":
            found.append(measure)
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = RATIOS[measure.name](tp / (tp + fn), tn / (tn + fp), prevalence)
        found.append(discrimination.with_percentiles(replace(measure, low=None, high=None), draws))
    return found


RATIOS: Mapping[str, Callable[[FloatArray, FloatArray, float], FloatArray]] = {
    "lr_positive": lambda se, sp, _: se / (1 - sp),
    "lr_negative": lambda se, sp, _: (1 - se) / sp,
    "diagnostic_odds_ratio": lambda se, sp, _: se * sp / ((1 - se) * (1 - sp)),
    "ppv_at_prevalence": lambda se, sp, p: se * p / (se * p + (1 - sp) * (1 - p)),
    "npv_at_prevalence": lambda se, sp, p: sp * (1 - p) / (sp * (1 - p) + (1 - se) * p),
}
"""Measures of sensitivity, specificity and prevalence whose formula assumes independent rows."""


def subgroup_measures(
    rows: LabelRows, column: str, threshold: float | None, settings: Settings
) -> list[Measure]:
    """Return AUROC and, at the threshold, four shares of every group of a column."""
    measures = []
    for value in np.unique(rows.strata[column]):
        mask = rows.strata[column] == value
        part = replace(rows, truth=rows.truth[mask], score=rows.score[mask],
                       patients=rows.patients[mask], strata={})  # fmt: skip
        found = [auroc(part.truth, part.score, patients=part.clusters,
                       confidence=settings.confidence)]  # fmt: skip
        if threshold is not None:
            shares = confusion.share_measures(
                part.truth, part.score, threshold,
                patients=part.clusters, confidence=settings.confidence,
            )  # fmt: skip
            found += [share for share in shares if share.name != "accuracy"]
        positives = int(part.truth.sum())
        measures += [
            replace(
                subgroups.flag_small(measure, rows=part.truth.size, positives=positives),
                subset=f"{column}={value}",
            )
            for measure in found
        ]
    return measures


def gap_measures(found: Sequence[subgroups.Gap]) -> list[Measure]:
    """Return gaps, adjusted together, as measures: the gap, its p and its p by Holm."""
    adjusted = subgroups.adjust_for_multiplicity(found)
    family = sum(gap.p is not None for gap in adjusted)
    measures = []
    for gap in adjusted:
        measures.append(gap.difference)
        if gap.p is None:
            continue
        for name, p in (("p", gap.p), ("p_holm", gap.p_holm)):
            measures.append(
                replace(gap.difference, name=f"{gap.difference.name}_{name}", value=p, low=None,
                        high=None, method=f"against {gap.reference}; family of {family} tests")
            )  # fmt: skip
    return measures


def macro_measures(
    labels: Sequence[LabelRows], thresholds: Mapping[str, float], settings: Settings
) -> list[Measure]:
    """Return means over the labels where each is defined, by a joint bootstrap over patients.

    AUROC and average precision; with a threshold for every label also sensitivity, specificity and
    F1. A resample in which a label loses a class is left out and counted.
    """
    used = [rows for rows in labels if rows.truth.any() and not rows.truth.all()]
    of = f"mean over {len(used)} of {len(labels)} labels"
    names = ["auroc", "average_precision"]
    if used and all(rows.label in thresholds for rows in used):
        names += ["sensitivity", "specificity", "f1"]
    blank = Measure(
        "", None, label="macro", split=labels[0].split, n=sum(rows.truth.size for rows in used),
        n_positive=sum(int(rows.truth.sum()) for rows in used),
        confidence=settings.confidence, status="undefined",
    )  # fmt: skip
    if not used:
        return [replace(blank, name=name, reason="no label has both classes") for name in names]
    parts = [_label_columns(rows, thresholds.get(rows.label), len(names)) for rows in used]
    patients = max(int(rows.patients.max()) for rows in used) + 1

    def means(weights: IntArray) -> FloatArray:
        return np.asarray(np.mean([part(weights) for part in parts], axis=0))

    values = means(np.ones((1, patients), dtype=int))[0]
    drawn = affordable_resamples(settings.resamples, blank.n)
    draws = bootstrap(means, np.arange(patients), resamples=drawn, seed=settings.seed)
    blank = replace(blank, n_patients=num_patients(np.concatenate([r.patients for r in used])))
    measures = []
    for name, value, column in zip(names, values, draws.T, strict=True):
        if not math.isfinite(value):
            measures.append(replace(blank, name=name, reason="undefined for a label"))
            continue
        measure = discrimination.with_percentiles(
            replace(blank, name=name, value=float(value)), column
        )
        measures.append(replace(measure, method=f"{of}; {measure.method}"))
    return measures


def _label_columns(
    rows: LabelRows, threshold: float | None, width: int
) -> Callable[[IntArray], FloatArray]:
    """Return the function from patient weights `(b, P)` to the label's values `(b, width)`."""
    ranking = rank(rows.truth, rows.score)
    codes = rows.patients[ranking.order]
    at = -1 if threshold is None else int(
        np.searchsorted(-ranking.thresholds, -threshold, side="right")) - 1  # fmt: skip

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


def micro_auroc(labels: Sequence[LabelRows], settings: Settings) -> Measure:
    """Return the AUROC of all labels' rows thrown together; a patient's rows are one cluster."""
    pooled = auroc(
        np.concatenate([rows.truth for rows in labels]),
        np.concatenate([rows.score for rows in labels]),
        patients=np.concatenate([rows.patients for rows in labels]),
        confidence=settings.confidence,
    )
    return replace(pooled, label="micro", split=labels[0].split)


def label_measures(
    rows: LabelRows, point: OperatingPoint | None, settings: Settings
) -> tuple[list[Measure], list[str]]:
    """Return the measures of a finding on the test rows, and notes."""
    measures, notes = discrimination_measures(rows, settings), []
    if rows.has_probabilities:
        measures += calibration_measures(rows, settings)
    elif rows.score.size:
        notes.append(f"the scores of {rows.label!r} are not probabilities: no calibration")
    if point is not None:
        measures += measures_at(rows, point.threshold, settings)
    else:
        shares = confusion.share_measures(
            rows.truth, rows.score, math.inf,
            patients=rows.clusters, confidence=settings.confidence,
        )  # fmt: skip
        measures.append(shares[-1])
    return measures, notes
