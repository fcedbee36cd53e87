"""Do the numbers hold in every group? Gaps with intervals, multiplicity and a smallest size.

A gap that is not significant is no proof of fairness: `detectable` says what could have been seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtl.errors import PredictionsError
from medtl.metrics.comparison import (
    benjamini_hochberg,
    fisher_exact,
    holm,
    minimum_detectable_difference,
    two_sided_p,
    where_known,
)
from medtl.metrics.intervals import (
    correlation_of,
    mover_sum,
    normal_quantile,
    proportion_of_rows,
    ratio_influence,
    t_quantile,
)
from medtl.metrics.ranking import auc_influence, auroc
from medtl.metrics.scores import (
    CI,
    CI95,
    ONE_CLASS,
    Ids,
    Scores,
    Truth,
    Values,
    is_clustered,
    num_patients,
    patient_codes,
)
from medtl.types import BoolArray, FloatArray, IntArray, Measure

NO_REFERENCE: Mapping[str, str] = MappingProxyType({})
NO_GROUPS: Mapping[str, ArrayLike] = MappingProxyType({})

SMALLEST_GROUP = 30
"""Rows below which a group is shown but not judged."""

SMALLEST_POSITIVES = 10
"""Positives below which a group is shown but not judged."""


ONE_PATIENT = "a group has one patient for it"
"""Why a gap has neither interval nor test."""

FEWEST_FOR_A_MEAN = 5
"""Patients of a group below which a gap of means has neither: so few values show no spread."""

Rows = tuple[BoolArray, BoolArray]
"""The rows of a group and of its reference."""


@dataclass(frozen=True)
class Gap:
    """How a group differs from the reference group at the same threshold.

    Attributes:
        column: Of the groups ("sex").
        group: Value of the column.
        reference: Value that it is compared with.
        of: Name of the measure ("sensitivity").
        difference: Group minus reference.
        p: Two-sided p of the difference, None without a test.
        p_holm: p adjusted within the family (Holm).
        p_bh: p adjusted for the false discovery rate (Benjamini-Hochberg).
        detectable: Smallest true gap found with 80 percent power.
    """

    column: str
    group: str
    reference: str
    of: str
    difference: Measure
    p: float | None = None
    p_holm: float | None = None
    p_bh: float | None = None
    detectable: float | None = None


def flag_small(measure: Measure, *, rows: int, positives: int) -> Measure:
    """Return the measure, marked as degenerate if its group is too small to be judged.

    Args:
        measure: Of the group.
        rows: Size of the group.
        positives: Positives in it.

    >>> flag_small(Measure("auroc", 0.8, n=20), rows=20, positives=9).status
    'degenerate'
    """
    if measure.status != "ok" or (rows >= SMALLEST_GROUP and positives >= SMALLEST_POSITIVES):
        return measure
    reason = (
        f"small group: {rows} rows, {positives} positives "
        f"(fewer than {SMALLEST_GROUP} or {SMALLEST_POSITIVES})"
    )
    return replace(measure, status="degenerate", reason=reason)


def gaps(
    y_true: Truth,
    y_score: Values = None,
    groups: Mapping[str, ArrayLike] = NO_GROUPS,
    *,
    threshold: float | None = None,
    reference: Mapping[str, str] = NO_REFERENCE,
    patients: Ids = None,
    ci: CI = CI95,
) -> list[Gap]:
    """Return the gaps of every group in AUC and, at the threshold, sensitivity and specificity.

    The interval joins the two groups' own (MOVER), with the correlation that patients in both give
    them; of shares with one row per patient it is Newcombe's. Shares have Fisher's test, with
    several rows per patient a t test over patients. The AUC has a test where there is no threshold
    and so nothing else to test: normal, with the width of its interval on the side of 0.

    Args:
        y_true: `(n,)`, 0 or 1, or a `Scores`.
        y_score: `(n,)`, finite.
        groups: Column -> `(n,)` values; "unknown" is a group like any other.
        threshold: The frozen operating point, or None for the AUC alone.
        reference: Column -> group to compare with; without one the largest (by name if equal).
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the intervals.

    Raises:
        PredictionsError: If a reference group does not occur.

    Reference:
        Newcombe 1998 method 10; Zou and Donner, Stat Med 2008;27:1693; Fisher 1935.

    >>> truth, score = [1, 1, 1, 1, 0, 0], [0.9, 0.8, 0.2, 0.7, 0.1, 0.6]
    >>> found = gaps(truth, score, {"sex": ["F", "F", "M", "M", "F", "M"]}, threshold=0.5)
    >>> [(gap.group, gap.of, gap.difference.value) for gap in found]
    [('M', 'sensitivity', -0.5), ('M', 'specificity', -1.0), ('M', 'auroc', -0.5)]
    """
    rows = Scores.of(y_true, y_score, patients)
    truth, score, codes = rows.truth, rows.score, rows.patients
    flagged = None if threshold is None else score >= threshold
    found = []
    for blank, pair in _pairs(groups, reference, ci):
        positives = int(truth[pair[0]].sum())
        gap = replace(blank, difference=replace(blank.difference, n_positive=positives))
        if flagged is not None:
            for of, cases, hits in (
                ("sensitivity", truth, flagged),
                ("specificity", ~truth, ~flagged),
            ):
                denominators = (cases & pair[0], cases & pair[1])
                found.append(_share_gap(_about(gap, of), hits, denominators, codes))
        of_area = _auc_gap(_about(gap, "auroc"), truth, score, pair, codes)
        found.append(of_area if flagged is not None else replace(of_area, p=_p_of(of_area)))
    return found


def mean_gaps(
    values: Mapping[str, ArrayLike],
    groups: Mapping[str, ArrayLike],
    *,
    patients: Ids = None,
    ci: CI = CI95,
) -> list[Gap]:
    """Return the gaps of every group in the mean of a value per row, with a t test over patients.

    Args:
        values: Name of the measure -> `(n,)` value of each row; NaN rows are left out.
        groups: Column -> `(n,)` values; the largest group is the reference.
        patients: `(n,)` identifiers, or None for one row per patient.
        ci: Level of the intervals.

    Reference:
        Welch, Biometrika 1947;34:28, with the patients of both groups.

    >>> (gap,) = mean_gaps({"dice": [0.8, 0.9, 0.5, 0.6]}, {"site": ["a", "a", "b", "b"]})
    >>> gap.group, round(gap.difference.value, 3)
    ('b', -0.3)
    """
    found = []
    for of, given in values.items():
        every = np.asarray(given, dtype=float)
        known = np.isfinite(every)
        codes = patient_codes(patients, every.size)[known]
        mine = {column: np.asarray(names).astype(str)[known] for column, names in groups.items()}
        for gap, rows in _pairs(mine, NO_REFERENCE, ci) if known.any() else ():
            found.append(_mean_gap(_about(gap, of), every[known], rows, codes))
    return found


def _pairs(
    groups: Mapping[str, ArrayLike], reference: Mapping[str, str], ci: CI
) -> Iterator[tuple[Gap, Rows]]:
    """Yield every group that is not a reference, without figures, and its rows and those of it."""
    for column, given in groups.items():
        values = np.asarray(given).astype(str)
        base = _reference(values, column, reference.get(column, ""))
        for name in np.unique(values[values != base]):
            rows = (values == name, values == base)
            blank = replace(ci.blank(n=int(rows[0].sum())), subset=f"{column}={name}")
            yield Gap(column, str(name), base, "", blank), rows


def _mean_gap(gap: Gap, values: FloatArray, rows: Rows, codes: IntArray) -> Gap:
    """Fill in the gap of a mean."""
    value = float(values[rows[0]].mean() - values[rows[1]].mean())
    moved = [ratio_influence(values[mask], codes[mask]) for mask in rows]
    return _welch(gap, value, _Spread.of(moved, codes, rows))


def _about(gap: Gap, of: str) -> Gap:
    """Return the gap with the name of its measure."""
    return replace(gap, of=of, difference=replace(gap.difference, name=f"{of}_gap"))


def _reference(values: NDArray[np.str_], column: str, wanted: str) -> str:
    """Return the group that the others are compared with."""
    names, sizes = np.unique(values, return_counts=True)
    if wanted and wanted not in names:
        raise PredictionsError(
            f"no row has {column} = {wanted}", expected=f"one of {', '.join(names)}"
        )
    return wanted or str(names[np.argmax(sizes)])


def _share_gap(gap: Gap, hits: BoolArray, rows: Rows, codes: IntArray) -> Gap:
    """Fill in the gap of a share; `rows` are the denominators of the group and the reference."""
    totals = tuple(int(mask.sum()) for mask in rows)
    if not all(totals):
        which = gap.group if not totals[0] else gap.reference
        reason = f"{gap.column} = {which} has no rows for it"
        return replace(gap, difference=gap.difference.undefined(reason))
    counts = tuple(int(hits[mask].sum()) for mask in rows)
    value = counts[0] / totals[0] - counts[1] / totals[1]
    moved = [ratio_influence(hits[mask], codes[mask]) for mask in rows]
    spread = _Spread.of(moved, codes, rows)
    if spread.fewest == 1:
        return replace(gap, difference=gap.difference.weak(value, ONE_PATIENT))
    level = CI(gap.difference.confidence)
    of = [proportion_of_rows("", hits[mask], patients=codes[mask], ci=level) for mask in rows]
    found = replace(gap, difference=_joined(gap, of, spread), detectable=spread.detectable)
    if is_clustered(codes):
        return replace(found, p=spread.p(value))
    method = f"Newcombe method 10, against {gap.reference}"
    pairs = ((counts[0], totals[0]), (counts[1], totals[1]))
    difference = replace(found.difference, method=method)
    return replace(found, difference=difference, p=fisher_exact(*pairs))


def _auc_gap(gap: Gap, truth: BoolArray, score: FloatArray, rows: Rows, codes: IntArray) -> Gap:
    """Fill in the gap of the AUC, without a test."""
    if any(truth[mask].all() or not truth[mask].any() for mask in rows):
        return replace(gap, difference=gap.difference.undefined(ONE_CLASS))
    level = CI(gap.difference.confidence)
    of = [auroc(truth[mask], score[mask], patients=codes[mask], ci=level) for mask in rows]
    moved = [
        np.bincount(codes[mask], auc_influence(truth[mask], score[mask])).astype(float)
        for mask in rows
    ]
    spread = _Spread.of(moved, codes, rows)
    return replace(gap, difference=_joined(gap, of, spread), detectable=spread.detectable)


def _p_of(gap: Gap) -> float | None:
    """Return the two-sided p that is 0.05 where the 95 percent interval ends at 0."""
    difference = gap.difference
    value, low, high = difference.value, difference.low, difference.high
    if difference.status != "ok" or value is None or low is None or high is None:
        return None
    half = value - low if value > 0 else high - value
    z = normal_quantile(difference.confidence) * abs(value) / half if half > 0 else math.inf
    return two_sided_p(z)


@dataclass(frozen=True)
class _Spread:
    """How much the patients move a difference: its error, Welch's freedom, their correlation."""

    error: float
    freedom: float
    correlation: float
    fewest: int

    @classmethod
    def of(cls, moved: Sequence[FloatArray], codes: IntArray, rows: Rows) -> _Spread:
        """Return it from the influence of each patient on the group and on its reference."""
        patients = int(codes.max()) + 1
        group, base = (np.pad(values, (0, patients - values.size)) for values in moved)
        numbers = [num_patients(codes[mask]) for mask in rows]
        clusters = num_patients(codes[rows[0] | rows[1]])
        if min(numbers) < 2:
            return cls(math.nan, math.nan, 0.0, min(numbers))
        parts = [k / (k - 1) * x @ x for k, x in zip(numbers, (group, base), strict=True)]
        below = sum(part**2 / (k - 1) for k, part in zip(numbers, parts, strict=True))
        freedom = float(sum(parts) ** 2 / below) if below > 0 else math.nan
        shared = clusters / (clusters - 1) * float(group @ base)
        error = math.sqrt(max(float(sum(parts)) - 2 * shared, 0.0))
        return cls(error, freedom, correlation_of(group, base), min(numbers))

    @property
    def detectable(self) -> float | None:
        """Smallest true gap found with 80 percent power."""
        return minimum_detectable_difference(self.error) if self.error > 0 else None

    def p(self, value: float) -> float | None:
        """Two-sided p of the t test; None where nothing varies."""
        from scipy.special import stdtr

        return 2 * float(stdtr(self.freedom, -abs(value) / self.error)) if self.error > 0 else None


def _joined(gap: Gap, of: Sequence[Measure], spread: _Spread) -> Measure:
    """Return group minus reference with the interval that joins the two of their own."""
    (value, low, high), (base, base_low, base_high) = ((m.value, m.low, m.high) for m in of)
    difference = (value or 0.0) - (base or 0.0)
    if low is None or high is None or base_low is None or base_high is None:
        return gap.difference.weak(difference, next(m.reason for m in of if m.low is None))
    bounds = mover_sum(
        (value or 0.0, low, high), (-(base or 0.0), -base_high, -base_low), -spread.correlation
    )
    return gap.difference.ok(difference, bounds, f"MOVER over patients, against {gap.reference}")


def _welch(gap: Gap, value: float, spread: _Spread) -> Gap:
    """Fill in a gap of means with Welch's interval and test over patients."""
    if spread.fewest < FEWEST_FOR_A_MEAN:
        reason = f"a group has fewer than {FEWEST_FOR_A_MEAN} patients for it"
        return replace(gap, difference=gap.difference.weak(value, reason))
    if not spread.error > 0:
        reason = "the difference does not vary between patients"
        return replace(gap, difference=gap.difference.weak(value, reason))
    half = t_quantile(spread.freedom, gap.difference.confidence) * spread.error
    method = f"Welch's t over patients, against {gap.reference}"
    difference = gap.difference.ok(value, (value - half, value + half), method)
    return replace(gap, difference=difference, p=spread.p(value), detectable=spread.detectable)


def adjust_for_multiplicity(found: Sequence[Gap]) -> list[Gap]:
    """Return the gaps with p adjusted within the family of all that have a test.

    Args:
        found: All gaps that are reported together.

    >>> gap = Gap("sex", "M", "F", "auroc", Measure("auroc_gap", 0.1), p=0.25)
    >>> [g.p_holm for g in adjust_for_multiplicity([gap, replace(gap, p=0.125)])]
    [0.25, 0.25]
    """
    p_values = [gap.p for gap in found]
    by_holm, by_bh = where_known(holm, p_values), where_known(benjamini_hochberg, p_values)
    return [
        replace(gap, p_holm=p_holm, p_bh=p_bh)
        for gap, p_holm, p_bh in zip(found, by_holm, by_bh, strict=True)
    ]
