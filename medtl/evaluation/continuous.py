"""Evaluation of readings in a unit (bone age) and of values per case (segmentation)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.errors import PredictionsError
from medtl.evaluation.bands import CHILDHOOD, as_groups, bands_of
from medtl.evaluation.classification import gap_measures, without_interval_of_one
from medtl.evaluation.curves import Curve, numbers, thin
from medtl.metrics import agreement
from medtl.metrics.intervals import proportion_of_rows, t_quantile
from medtl.metrics.overlap import casewise_measures
from medtl.metrics.scores import CI, PAIR, Readings, usable_rows
from medtl.metrics.subgroups import mean_gaps
from medtl.types import FloatArray, IntArray, Measure

if TYPE_CHECKING:
    import pandas as pd

WITHIN_MONTHS = (6.0, 12.0, 24.0)
"""Limits of the shares of readings that are close enough."""

SMALLEST_BAND = 10
"""Readings below which a group is shown but not judged."""

PER_CASE = ("dice", "iou", "hd95_mm", "hd_mm", "assd_mm", "masd_mm")
"""Columns of a segmentation table that are summarised, and every column that begins with nsd_."""

REFERENCE_AGE = "reference_months"
"""Column of the bands of the reference, by which every bone age is reported."""

DRAWN = 500
"""Cases of a scatter plot at most; the worst are always among them."""

WORST = 10
"""Cases listed as the worst, per label."""


@dataclass(frozen=True)
class Found:
    """What is known of readings or masks: `worst` holds the cases to look at, the worst first."""

    measures: list[Measure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    worst: list[dict[str, Any]] = field(default_factory=list)


def regression(table: pd.DataFrame, strata: Sequence[str], ci: CI, unit: str = "months") -> Found:
    """Return the agreement of readings in a unit, of all test rows and of every group.

    Args:
        table: With label, split, y_true and y_score in the unit, patient_id, and the strata.
        strata: Columns to report by.
        ci: Level and bootstrap of the intervals.
        unit: As it ends the names of the measures ("months", "percent").

    Raises:
        PredictionsError: If the table has no test rows, or its readings look like years.
    """
    found = Found()
    for label, every in _test_labels(table):
        truth, score = (every[name].to_numpy(float, na_value=np.nan) for name in PAIR)
        usable = usable_rows(truth, score)
        rows = every[usable]
        if len(rows) < len(every):
            found.notes.append(
                f"{len(every) - len(rows)} of {len(every)} test rows of {label!r}"
                " lack a truth or a prediction and were left out"
            )
        _refuse_years(truth[usable], label)
        columns = list(strata)
        if label.endswith("_months") and REFERENCE_AGE not in rows:
            rows = rows.assign(**{REFERENCE_AGE: bands_of(truth[usable], CHILDHOOD)})
            columns.append(REFERENCE_AGE)
        error = rows["y_score"].to_numpy(float) - rows["y_true"].to_numpy(float)
        values = {f"mae_{unit}": np.abs(error), f"bias_{unit}": error}
        own = [*_readings(rows, unit, ci), *_correlations(rows, ci)]
        found.measures.extend(_placed(own, label, "all", len(rows)))
        readings = partial(_readings, unit=unit, ci=ci)
        found.measures.extend(_by_group(rows, columns, readings, values, label, ci))
        found.curves.append(_bland_altman_points(rows, label))
        found.worst.extend(_largest_errors(rows, label))
    return found


def _by_group(
    rows: pd.DataFrame,
    strata: Sequence[str],
    measures_of: Callable[[pd.DataFrame], list[Measure]],
    values: Mapping[str, np.ndarray],
    label: str,
    ci: CI,
) -> Iterator[Measure]:
    """Yield the measures of every group ("unknown" for empty cells), then how their means differ.

    The differences of a value are tested together by Holm.
    """
    groups = {name: as_groups(rows[name]) for name in strata}
    for column, names in groups.items():
        for name in np.unique(names):
            part = rows[names == name]
            yield from _placed(measures_of(part), label, f"{column}={name}", len(part))
    found = mean_gaps(values, groups, patients=rows["patient_id"].to_numpy(), ci=ci)
    yield from (replace(measure, label=label) for measure in gap_measures(found))


def _largest_errors(rows: pd.DataFrame, label: str) -> list[dict[str, Any]]:
    """Return the readings that are furthest off."""
    rows = rows.assign(error=rows["y_score"] - rows["y_true"])
    order = rows["error"].abs().sort_values(ascending=False, kind="stable").index[:WORST]
    names = {"reference": "y_true", "estimate": "y_score", "error": "error"}
    return [
        {
            **_place_of(label, row),
            **{name: float(row[column]) for name, column in names.items()},
        }
        for _, row in rows.loc[order].iterrows()
    ]


def _place_of(label: str, row: pd.Series[Any]) -> dict[str, Any]:
    """Return which case of the worst a row is."""
    return {"label": label, "kind": "worst", "case_id": str(row["case_id"])}


def _placed(measures: Sequence[Measure], label: str, subset: str, rows: int) -> Iterator[Measure]:
    """Yield measures with label and subset, those of a group too small to be judged marked."""
    for measure in measures:
        placed = replace(measure, label=label, subset=subset)
        if subset != "all" and rows < SMALLEST_BAND and measure.status == "ok":
            reason = f"small group: {rows} rows (fewer than {SMALLEST_BAND})"
            placed = replace(placed, status="degenerate", reason=reason)
        yield placed if subset == "all" else without_interval_of_one(placed)


def _test_labels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the test rows of every label."""
    rows = table[table["split"] == "test"]
    if not len(rows):
        raise PredictionsError("the table has no test rows", expected="rows of split test")
    return [(str(label), part) for label, part in rows.groupby("label", sort=False)]


def _refuse_years(truth: np.ndarray, label: str) -> None:
    """Refuse bone ages that can only be years."""
    if label.endswith("_months") and truth.size >= SMALLEST_BAND and truth.max() <= 25:
        raise PredictionsError(
            f"no value of {label!r} is above 25", expected="months", fix="Multiply years by 12"
        )


def _pair(rows: pd.DataFrame) -> Readings:
    """Return truth, prediction and patients; a row's own number where each patient has one."""
    patients = rows["patient_id"]
    clustered = patients.nunique() < len(rows)
    truth, score = (rows[name].to_numpy(float) for name in PAIR)
    return Readings.of(truth, score, patients.to_numpy() if clustered else None)


def _readings(rows: pd.DataFrame, unit: str, ci: CI) -> list[Measure]:
    """Return errors, shares within the limits (of months), bias and limits of agreement."""
    pair = _pair(rows)
    limits = WITHIN_MONTHS if unit == "months" else ()
    return [
        *agreement.error_measures(pair, unit=unit, ci=ci),
        *(agreement.within(pair, limit=limit, unit=unit, ci=ci) for limit in limits),
        *agreement.bland_altman(pair, unit=unit, ci=ci),
    ]


def _correlations(rows: pd.DataFrame, ci: CI) -> list[Measure]:
    """Return ICC, Pearson, concordance and the slopes of the error."""
    pair = _pair(rows)
    truth, score = pair.reference, pair.prediction

    def measures_of(index: IntArray) -> list[Measure]:
        drawn = truth[index], score[index]
        icc = agreement.intraclass_correlation(np.column_stack(drawn), ci=ci)
        return [icc, *agreement.correlation_measures(*drawn, ci=ci)]

    measures = measures_of(np.arange(truth.size))
    if not pair.clustered:
        return measures

    # The closed intervals take rows as independent; here some patients have several.
    people = pair.num_patients
    parts = min(people, LEFT_OUT)
    # Groups of patients in the order of their reference, for names must not reach a number.
    order = np.argsort(
        np.bincount(pair.patients, truth) / np.bincount(pair.patients), kind="stable"
    )
    part = np.empty(people, dtype=np.int64)
    part[order] = np.arange(people) % parts
    kept = (np.flatnonzero(part[pair.patients] != left) for left in range(parts))
    without = np.array([[m.value for m in measures_of(rows)] for rows in kept], dtype=float)
    return [
        _jackknifed(replace(pair.blank(ci), name=measure.name), measure.value, column)
        if measure.status == "ok" and measure.value is not None
        else measure
        for measure, column in zip(measures, without.T, strict=True)
    ]


LEFT_OUT = 500
"""Patients, or equal groups of them, that are left out one after the other at most."""


def _jackknifed(blank: Measure, value: float, without: FloatArray) -> Measure:
    """Fill in a value with the interval of the jackknife over patients; correlations on Fisher's z.

    Reference:
        Efron and Tibshirani 1993, chapter 11; t with groups - 1.
    """
    to, back = (np.asarray, np.asarray) if "slope" in blank.name else (np.arctanh, np.tanh)
    if not np.isfinite(without).all():
        return blank.weak(value, "it has no value without one of the patients")
    moved = to(without)
    groups, squares = moved.size, float(((moved - moved.mean()) ** 2).sum())
    half = t_quantile(groups - 1, blank.confidence) * math.sqrt((groups - 1) / groups * squares)
    low, high = (float(back(to(value) + side * half)) for side in (-1, 1))
    return blank.ok(value, (low, high), "jackknife of patients, t")


def _bland_altman_points(rows: pd.DataFrame, label: str, name: str = "bland_altman") -> Curve:
    """Return error against mean of the two readings, thinned evenly along the mean."""
    pair = _pair(rows)
    mean = (pair.reference + pair.prediction) / 2
    at = _drawn(mean, pair.error)
    columns = {"x": mean, "y": pair.error, "truth": pair.reference, "prediction": pair.prediction}
    return {
        "name": name,
        "label": label,
        "split": "test",
        **{key: numbers(values[at]) for key, values in columns.items()},
        "of": int(mean.size),
    }


def _drawn(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which points to draw, by x: evenly spread, and those whose y is furthest from 0."""
    order = np.argsort(x, kind="stable")
    if order.size <= DRAWN:
        return order
    furthest = np.argsort(-np.abs(y), kind="stable")[:WORST]
    kept = np.union1d(order[thin(order.size, DRAWN - WORST)], furthest)
    return np.asarray(kept[np.argsort(x[kept], kind="stable")])


def segmentation(table: pd.DataFrame, strata: Sequence[str], ci: CI) -> Found:
    """Return overlap and distances of every structure, per case first, of all and every group.

    Args:
        table: One row per case and structure (`label`) with `PER_CASE` columns, voxel counts and
            volumes as `overlap.compare_masks` gives them; NaN where undefined.
        strata: Columns to report by.
        ci: Level and bootstrap of the intervals.

    Raises:
        PredictionsError: If the table has no test rows.
    """
    found = Found()
    for label, rows in _test_labels(table):
        own = [*_cases(rows, ci), *_sizes(rows, ci)]
        found.measures.extend(_placed(own, label, "all", len(rows)))
        dice = {"dice": rows["dice"].to_numpy(float, na_value=np.nan)}
        of_group = partial(_cases, ci=ci)
        found.measures.extend(_by_group(rows, strata, of_group, dice, label, ci))
        empty = int(rows["dice"].isna().sum())
        if empty:
            found.notes.append(
                f"{label}: {empty} of {len(rows)} cases have neither a true nor a predicted"
                " structure; they are left out of the overlap"
            )
        found.curves.extend(_case_values(rows, label))
        found.curves.extend(_size_points(rows, label))
        found.worst.extend(_lowest_overlaps(rows, label))
    return found


def _lowest_overlaps(rows: pd.DataFrame, label: str) -> list[dict[str, Any]]:
    """Return the cases of the lowest Dice, of equals the one with the larger distance first."""
    far = rows["hd95_mm"].astype(float) if "hd95_mm" in rows else rows["dice"].astype(float) * 0
    order = rows.assign(_far=-far.fillna(np.inf)).dropna(subset=["dice"])
    order = order.sort_values(["dice", "_far", "case_id"], kind="stable").head(WORST)
    shown = ("dice", "hd95_mm", "voxels_truth", "voxels_prediction")
    names = [name for name in shown if name in rows]
    columns = zip(*(numbers(order[name].to_numpy(float)) for name in names), strict=True)
    return [
        {**_place_of(label, row), **dict(zip(names, values, strict=True))}
        for (_, row), values in zip(order.iterrows(), columns, strict=True)
    ]


def _cases(rows: pd.DataFrame, ci: CI) -> list[Measure]:
    """Return the summaries of every column, its mean under its own name, and of absences."""
    columns = [name for name in rows if name in PER_CASE or str(name).startswith("nsd_")]
    patients = rows["patient_id"].to_numpy()
    measures = []
    for name in columns:
        values = rows[name].to_numpy(float, na_value=np.nan)
        measures += casewise_measures(str(name), values, patients=patients, ci=ci)
    named = [replace(measure, name=measure.name.removesuffix("_mean")) for measure in measures]
    return [*named, *_absences(rows, ci)]


def _absences(rows: pd.DataFrame, ci: CI) -> list[Measure]:
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
        proportion_of_rows(name, hits[mask], patients=patients[mask], ci=ci, of=of)
        for name, (mask, hits, of) in parts.items()
    ]


SIZES = {"volume": "ml", "area": "cm2"}
"""What the size of a structure is called, in 3D and in 2D, and its unit."""


def _sizes(rows: pd.DataFrame, ci: CI) -> list[Measure]:
    """Return bias and limits of agreement of volumes or areas, where the table has them."""
    found = []
    for size, pair in _size_pairs(rows):
        measures = agreement.bland_altman(
            pair["y_true"], pair["y_score"], unit=SIZES[size], patients=pair["patient_id"], ci=ci
        )
        found += [replace(measure, name=f"{size}_{measure.name}") for measure in measures]
    return found


def _size_points(rows: pd.DataFrame, label: str) -> list[Curve]:
    """Return difference against mean of true and predicted volume or area, to draw."""
    return [
        _bland_altman_points(pair, label, f"{size}_bland_altman")
        for size, pair in _size_pairs(rows)
    ]


def _size_pairs(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield true and predicted size as y_true and y_score, for volume and area where there are."""
    for size, unit in SIZES.items():
        names = {f"{size}_truth_{unit}": "y_true", f"{size}_prediction_{unit}": "y_score"}
        if not all(name in rows for name in names):
            continue
        known = rows[["case_id", "patient_id", *names]].rename(columns=names).dropna()
        if len(known):
            yield size, known


def _case_values(rows: pd.DataFrame, label: str) -> list[Curve]:
    """Return Dice and HD95 of every case, the worst first, thinned, for a strip plot."""
    found = []
    for name in ("dice", "hd95_mm"):
        if name not in rows or rows[name].isna().all():
            continue
        values = np.sort(rows[name].dropna().to_numpy(float))
        values = values if name == "dice" else values[::-1]
        at = thin(values.size)
        place = {"name": f"{name}_of_cases", "label": label, "split": "test"}
        found.append({**place, "x": numbers(at + 1), "y": numbers(values[at])})
    return found
