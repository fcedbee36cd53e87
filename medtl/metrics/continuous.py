"""Evaluation of readings in a unit (bone age) and of values per case (segmentation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.errors import PredictionsError
from medtl.metrics import agreement
from medtl.metrics.classification import Settings
from medtl.metrics.curves import Curve, numbers, thin
from medtl.metrics.discrimination import with_percentiles
from medtl.metrics.inputs import num_patients, patient_codes, usable_rows
from medtl.metrics.overlap import casewise_measures
from medtl.metrics.proportions import proportion_of_rows
from medtl.metrics.resampling import bootstrap
from medtl.types import FloatArray, IntArray, Measure

if TYPE_CHECKING:
    import pandas as pd

PAIR = ("y_true", "y_score")

WITHIN_MONTHS = (6.0, 12.0, 24.0)
"""Limits of the shares of readings that are close enough."""

SMALLEST_BAND = 10
"""Readings below which a group is shown but not judged."""

PER_CASE = ("dice", "iou", "hd95_mm", "hd_mm", "assd_mm", "masd_mm")
"""Columns of a segmentation table that are summarised, and every column that begins with nsd_."""

Found = tuple[list[Measure], list[Curve], list[str]]
"""Measures, curves and notes."""


def regression(table: pd.DataFrame, strata: Sequence[str], settings: Settings) -> Found:
    """Return the agreement of readings in months, of all test rows and of every group.

    Args:
        table: With label, split, y_true and y_score in months, patient_id, and the strata.
        strata: Columns to report by.
        settings: Level and bootstrap.

    Raises:
        PredictionsError: If the table has no test rows, or its readings look like years.
    """
    found: Found = ([], [], [])
    for label, every in _test_labels(table):
        truth, score = (every[name].to_numpy(float, na_value=np.nan) for name in PAIR)
        usable = usable_rows(truth, score)
        rows = every[usable]
        if len(rows) < len(every):
            found[2].append(f"{len(every) - len(rows)} of {len(every)} test rows of {label!r} lack"
                            " a truth or a prediction and were left out")  # fmt: skip
        _refuse_years(truth[usable], label)
        of_all = [*_readings(rows, settings), *_correlations(rows, settings)]
        for subset, group in [("all", rows), *_groups(rows, strata)]:
            measures = of_all if subset == "all" else _readings(group, settings)
            if subset != "all" and len(group) < SMALLEST_BAND:
                measures = [_small(measure, len(group)) for measure in measures]
            found[0].extend(replace(m, label=label, subset=subset) for m in measures)
        found[1].append(_bland_altman_points(rows, label))
    return found


def _small(measure: Measure, rows: int) -> Measure:
    """Mark a measure of a group that is too small to be judged."""
    if measure.status != "ok":
        return measure
    reason = f"small group: {rows} rows (fewer than {SMALLEST_BAND})"
    return replace(measure, status="degenerate", reason=reason)


def _test_labels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the test rows of every label."""
    rows = table[table["split"] == "test"]
    if not len(rows):
        raise PredictionsError("the table has no test rows", expected="rows of split test")
    return [(str(label), part) for label, part in rows.groupby("label", sort=False)]


def _groups(rows: pd.DataFrame, strata: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of every value of every column, "unknown" for empty cells."""
    found = []
    for column in strata:
        values = rows[column].astype(object).where(rows[column].notna(), "unknown").astype(str)
        values = values.replace("", "unknown")
        found += [(f"{column}={value}", rows[values == value]) for value in sorted(set(values))]
    return found


def _refuse_years(truth: np.ndarray, label: str) -> None:
    """Refuse bone ages that can only be years."""
    if label.endswith("_months") and truth.size >= SMALLEST_BAND and truth.max() <= 25:
        raise PredictionsError(
            f"no value of {label!r} is above 25", expected="months", fix="Multiply years by 12"
        )


def _pair(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return truth, prediction, and patients where some patient has several rows."""
    patients = rows["patient_id"].to_numpy()
    clustered = rows["patient_id"].nunique() < len(rows)
    truth, score = (rows[name].to_numpy(float) for name in PAIR)
    return truth, score, patients if clustered else None


def _readings(rows: pd.DataFrame, settings: Settings) -> list[Measure]:
    """Return errors, shares within the limits, bias and limits of agreement."""
    truth, score, patients = _pair(rows)
    measures = agreement.error_measures(
        truth, score, patients=patients, confidence=settings.confidence,
        resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    measures += [
        agreement.within(truth, score, limit, patients=patients, confidence=settings.confidence)
        for limit in WITHIN_MONTHS
    ]
    measures += agreement.bland_altman(
        truth, score, patients=patients, confidence=settings.confidence
    )
    return measures


def _correlations(rows: pd.DataFrame, settings: Settings) -> list[Measure]:
    """Return ICC, Pearson, concordance and the slopes of the error."""
    truth, score, patients = _pair(rows)

    def measures_of(index: np.ndarray) -> list[Measure]:
        pair = truth[index], score[index]
        icc = agreement.intraclass_correlation(
            np.column_stack(pair), confidence=settings.confidence
        )
        return [icc, *agreement.correlation_measures(*pair, confidence=settings.confidence)]

    measures = measures_of(np.arange(truth.size))
    if patients is None:
        return measures

    # The closed intervals take rows as independent; here some patients have several.
    def values_of(weights: IntArray) -> FloatArray:
        drawn = [measures_of(np.repeat(np.arange(truth.size), row)) for row in weights]
        return np.array([[np.nan if m.value is None else m.value for m in row] for row in drawn])

    resamples = min(settings.resamples, 500)
    codes = patient_codes(patients, truth.size)
    draws = bootstrap(values_of, codes, resamples=resamples, seed=settings.seed)
    number = num_patients(codes)
    return [
        with_percentiles(replace(measure, low=None, high=None, n_patients=number), column)
        if measure.status == "ok"
        else measure
        for measure, column in zip(measures, draws.T, strict=True)
    ]


def _bland_altman_points(rows: pd.DataFrame, label: str) -> Curve:
    """Return error against mean of the two readings, thinned evenly along the mean."""
    truth, score, _ = _pair(rows)
    middle, error = (truth + score) / 2, score - truth
    order = np.argsort(middle, kind="stable")
    at = order[thin(order.size)] if order.size else order
    return {"name": "bland_altman", "label": label, "split": "test", "x": numbers(middle[at]),
            "y": numbers(error[at]), "truth": numbers(truth[at]),
            "prediction": numbers(score[at])}  # fmt: skip


def segmentation(table: pd.DataFrame, strata: Sequence[str], settings: Settings) -> Found:
    """Return overlap and distances of every structure, per case first, of all and every group.

    Args:
        table: One row per case and structure (`label`) with `PER_CASE` columns, voxel counts and
            volumes as `overlap.compare_masks` gives them; NaN where undefined.
        strata: Columns to report by.
        settings: Level and bootstrap.

    Raises:
        PredictionsError: If the table has no test rows.
    """
    found: Found = ([], [], [])
    for label, rows in _test_labels(table):
        for subset, group in [("all", rows), *_groups(rows, strata)]:
            measures = _per_case(group, settings) + _absences(group, settings)
            if subset == "all" and "volume_truth_ml" in rows:
                measures += _volumes(group, settings)
            if subset != "all" and len(group) < SMALLEST_BAND:
                measures = [_small(measure, len(group)) for measure in measures]
            found[0].extend(replace(m, label=label, subset=subset) for m in measures)
        empty = int(rows["dice"].isna().sum())
        if empty:
            found[2].append(f"{label}: {empty} of {len(rows)} cases have neither a true nor a"
                            " predicted structure; they are left out of the overlap")  # fmt: skip
        found[1].append(_case_values(rows, label))
    return found


def _per_case(rows: pd.DataFrame, settings: Settings) -> list[Measure]:
    """Return the summaries of every column; the mean bears the column's own name."""
    columns = [name for name in rows if name in PER_CASE or str(name).startswith("nsd_")]
    measures = []
    for name in columns:
        values = rows[name].to_numpy(float, na_value=np.nan)
        measures += casewise_measures(
            str(name), values, patients=rows["patient_id"].to_numpy(),
            confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed,
        )  # fmt: skip
    return [replace(measure, name=measure.name.removesuffix("_mean")) for measure in measures]


def _absences(rows: pd.DataFrame, settings: Settings) -> list[Measure]:
    """Return the shares of missed, correctly absent and poor (Dice below 0.5) cases."""
    if "voxels_truth" not in rows:
        return []
    present = rows["voxels_truth"].to_numpy() > 0
    called = rows["voxels_prediction"].to_numpy() > 0
    dice = rows["dice"].to_numpy(float, na_value=np.nan)
    patients = rows["patient_id"].to_numpy()
    parts = {
        "missed": (present, ~called, "cases with the structure"),
        "correctly_absent": (~present, ~called, "cases without the structure"),
        "dice_below_50_percent": (np.isfinite(dice), dice < 0.5, "cases with a defined Dice"),
    }
    return [
        proportion_of_rows(name, hits[mask], patients=patients[mask],
                           confidence=settings.confidence, of=of)
        for name, (mask, hits, of) in parts.items()
    ]  # fmt: skip


def _volumes(rows: pd.DataFrame, settings: Settings) -> list[Measure]:
    """Return bias and limits of agreement of the volumes."""
    measures = agreement.bland_altman(
        rows["volume_truth_ml"].to_numpy(float), rows["volume_prediction_ml"].to_numpy(float),
        unit="ml", patients=rows["patient_id"].to_numpy(), confidence=settings.confidence,
    )  # fmt: skip
    return [replace(measure, name=f"volume_{measure.name}") for measure in measures]


def _case_values(rows: pd.DataFrame, label: str) -> dict[str, Any]:
    """Return the Dice of every case in ascending order, thinned, for a strip plot."""
    values = np.sort(rows["dice"].dropna().to_numpy(float))
    at = thin(values.size) if values.size else np.arange(0)
    return {"name": "dice_of_cases", "label": label, "split": "test",
            "x": numbers(at), "y": numbers(values[at])}  # fmt: skip
