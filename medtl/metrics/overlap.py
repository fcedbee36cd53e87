"""Agreement of two masks: overlap, surface distances in mm, volume in ml.

Masks are cut to the box that holds both, with a margin of one voxel, before any distance is
computed: a 200-voxel organ costs what its box costs, not what the scan costs. The surface of a mask
is its voxels with a face-neighbour outside (also outside the image). A case where both masks are
empty is undefined ("correctly absent"), never 1; one empty mask has overlap 0 and no distances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.agreement import quantile_measure
from medtl.metrics.intervals import skewed_mean
from medtl.metrics.scores import CI, CI95, Ids, num_patients, patient_codes
from medtl.types import BoolArray, FloatArray, IntArray, Measure


@dataclass(frozen=True)
class MaskAgreement:
    """How two masks of one structure in one case agree; None where it is undefined.

    Attributes:
        voxels_truth, voxels_prediction: Voxel counts.
        volume_truth_ml, volume_prediction_ml: Volumes; areas in 2D are in cm2 / 10 (mm2 / 1000).
        dice, iou: Overlap in [0, 1]; None when both are empty.
        hd_mm, hd95_mm: Largest, and 95th percentile of, surface distance: the larger of the two
            directions.
        assd_mm: Mean distance of all surface voxels of both; masd_mm: mean of the two means.
        nsd: Tolerance in mm -> share of surface voxels within it (counted as voxels).
        reason: Why something is None.
    """

    voxels_truth: int
    voxels_prediction: int
    volume_truth_ml: float
    volume_prediction_ml: float
    dice: float | None
    iou: float | None
    hd_mm: float | None = None
    hd95_mm: float | None = None
    assd_mm: float | None = None
    masd_mm: float | None = None
    nsd: Mapping[float, float | None] = field(default_factory=dict)
    reason: str = ""

    @property
    def relative_volume_difference(self) -> float | None:
        """(prediction - truth) / truth, or None without truth."""
        if not self.voxels_truth:
            return None
        return (self.voxels_prediction - self.voxels_truth) / self.voxels_truth


def compare_masks(
    truth: BoolArray,
    prediction: BoolArray,
    spacing: Sequence[float],
    *,
    tolerances_mm: Sequence[float] = (),
) -> MaskAgreement:
    """Return how the prediction agrees with the truth.

    Args:
        truth: `(*S)` 2D or 3D mask.
        prediction: `(*S)` mask.
        spacing: Millimetres per axis, in the order of the axes.
        tolerances_mm: Of the normalised surface Dice.

    Raises:
        PredictionsError: If shapes differ or the spacing does not fit.

    Reference:
        Metrics Reloaded, Nature Methods 2024;21:195; NSD: Nikolov et al., JMIR 2021;23:e26151,
        with voxels counted in place of surface elements.

    >>> truth, prediction = np.zeros((2, 8, 8), dtype=bool)
    >>> truth[2:4, 2:6], prediction[2:4, 3:7] = True, True
    >>> found = compare_masks(truth, prediction, (1.0, 0.5))
    >>> found.dice, found.hd_mm
    (0.75, 0.5)
    """
    _check(truth, prediction, spacing)
    truth, prediction = (mask.astype(bool, copy=False) for mask in (truth, prediction))
    box = bounding_box(truth | prediction)
    truth, prediction = truth[box], prediction[box]
    first, second = int(truth.sum()), int(prediction.sum())
    both = int((truth & prediction).sum())
    voxel_ml = float(np.prod(spacing)) / 1000
    union = first + second - both
    overlaps = MaskAgreement(
        voxels_truth=first,
        voxels_prediction=second,
        volume_truth_ml=first * voxel_ml,
        volume_prediction_ml=second * voxel_ml,
        dice=2 * both / (first + second) if union else None,
        iou=both / union if union else None,
    )
    if not (first and second):
        reason = "both masks are empty" if not union else "one mask is empty"
        return replace(
            overlaps, nsd=dict.fromkeys(tolerances_mm, 0.0 if union else None), reason=reason
        )
    there, back = surface_distances(truth, prediction, spacing)
    pooled = np.concatenate([there, back])
    return replace(
        overlaps,
        hd_mm=float(pooled.max()),
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd_mm=float(pooled.mean()),
        masd_mm=float((there.mean() + back.mean()) / 2),
        nsd={tolerance: float((pooled <= tolerance + 1e-9).mean()) for tolerance in tolerances_mm},
    )


def case_overlaps(
    truth: IntArray,
    prediction: IntArray,
    spacing: Sequence[float] | None,
    *,
    structures: Mapping[int, str],
    tolerances_mm: Sequence[float] = (),
) -> list[dict[str, float | str | None]]:
    """Return one row per structure of a case: overlap, distances, size, and why one is missing.

    Args:
        truth: `(*S)` label map, 0 is background.
        prediction: `(*S)` label map.
        spacing: Millimetres per axis, or None when the files do not say: then no distances and no
            sizes, because a voxel is no length.
        structures: Value in the maps -> name.
        tolerances_mm: Of the normalised surface Dice.

    Raises:
        PredictionsError: If shapes differ or the spacing does not fit.

    >>> maps = np.array([[1, 1, 0], [2, 2, 0]]), np.array([[1, 0, 0], [2, 2, 0]])
    >>> rows = case_overlaps(*maps, None, structures={1: "liver", 2: "spleen"})
    >>> [(row["label"], row["dice"]) for row in rows]
    [('liver', 0.6666666666666666), ('spleen', 1.0)]
    """
    rows = []
    for value, name in structures.items():
        found = compare_masks(
            truth == value, prediction == value, spacing or (1.0,) * truth.ndim,
            tolerances_mm=tolerances_mm if spacing else (),
        )  # fmt: skip
        row: dict[str, float | str | None] = {
            "label": name, "dice": found.dice, "iou": found.iou,
            "voxels_truth": found.voxels_truth, "voxels_prediction": found.voxels_prediction,
        }  # fmt: skip
        if spacing:
            row |= {key: getattr(found, key) for key in ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")}
            row |= {f"nsd_{at:g}_mm": share for at, share in found.nsd.items()}
            # In 2D the "volume" is an area: mm2 / 1000 is a tenth of a square centimetre.
            size, unit, factor = ("area", "cm2", 10) if truth.ndim == 2 else ("volume", "ml", 1)
            row[f"{size}_truth_{unit}"] = found.volume_truth_ml * factor
            row[f"{size}_prediction_{unit}"] = found.volume_prediction_ml * factor
        rows.append({**row, "reason": found.reason})
    return rows


def bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """Return the slices of the smallest box around a mask; empty slices for an empty mask.

    >>> bounding_box(np.array([[False, False], [False, True]]))
    (slice(1, 2, None), slice(1, 2, None))
    """
    slices: list[slice] = []
    for axis in range(mask.ndim):
        # What lies outside the box on the axes before is empty and need not be looked at again.
        inside = mask[tuple(slices)]
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(inside.any(axis=others))
        slices.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0))
    return tuple(slices)


def surface(mask: BoolArray) -> BoolArray:
    """Return the voxels of a mask with a face-neighbour outside it or outside the array.

    >>> surface(np.ones((3, 3), dtype=bool)).sum()
    np.int64(8)
    """
    inside = mask.copy()
    padded = np.pad(mask, 1)
    core = (slice(1, -1),) * mask.ndim
    for axis in range(mask.ndim):
        for step in (slice(0, -2), slice(2, None)):
            inside &= padded[(*core[:axis], step, *core[axis + 1 :])]
    return mask & ~inside


def surface_distances(
    truth: BoolArray, prediction: BoolArray, spacing: Sequence[float]
) -> tuple[FloatArray, FloatArray]:
    """Return the distances in mm from each surface voxel to the other mask's surface.

    Args:
        truth: `(*S)`, not empty.
        prediction: `(*S)`, not empty.
        spacing: Millimetres per axis.

    Returns:
        From truth to prediction, and from prediction to truth.

    >>> truth, prediction = np.array([True, False, False]), np.array([False, False, True])
    >>> surface_distances(truth, prediction, (0.5,))
    (array([1.]), array([1.]))
    """
    from scipy.spatial import KDTree

    points = [np.argwhere(surface(mask)) * np.asarray(spacing) for mask in (truth, prediction)]
    trees = [KDTree(cloud) for cloud in points]
    there, _ = trees[1].query(points[0])
    back, _ = trees[0].query(points[1])
    return there, back


def _check(truth: BoolArray, prediction: BoolArray, spacing: Sequence[float]) -> None:
    """Refuse masks that cannot be compared in millimetres."""
    if truth.shape != prediction.shape:
        raise PredictionsError(
            f"the prediction has shape {prediction.shape} and the truth {truth.shape}",
            expected="masks on the same grid",
            fix="Resample the prediction to the truth's grid, nearest neighbour",
        )
    if len(spacing) != truth.ndim or not all(0 < step < np.inf for step in spacing):
        raise PredictionsError(
            f"the spacing {tuple(spacing)} does not fit {truth.ndim} axes",
            expected="one positive number of millimetres per axis",
        )


QUANTILES = {"median": 0.5, "p05": 0.05, "p25": 0.25, "p75": 0.75}
"""Quantiles of the cases that are reported, by linear interpolation."""


SHARES = ("dice", "iou", "nsd")
"""Beginnings of the names of values that are at most 1."""


def casewise_measures(
    name: str, values: ArrayLike, *, patients: Ids = None, ci: CI = CI95
) -> list[Measure]:
    """Return mean, median, 5th percentile and quartiles of a value per case.

    Never of pooled voxels. Undefined cases are left out; `n` counts the others. The mean has t's
    interval for skewed values, quantiles have that of order statistics: the 5th percentile none
    below 59 patients.

    Args:
        name: Of the value ("dice", "hd95_mm"); the measures are "dice_mean", "dice_median", ...
        values: `(n,)` one per case, NaN where undefined.
        patients: `(n,)` identifiers, or None for one case per patient.
        ci: Level of the intervals.

    Reference:
        Metrics Reloaded, aggregation per case.

    >>> [round(m.value, 2) for m in casewise_measures("dice", [0.8, 0.9, float("nan"), 0.4])]
    [0.7, 0.8, 0.44, 0.6, 0.85]
    """
    every = np.asarray(values, dtype=float)
    known = np.isfinite(every)
    codes = patient_codes(patients, every.size)[known]
    codes = np.unique(codes, return_inverse=True)[1].ravel()
    defined = every[known]
    blank = ci.blank("", defined.size, patients=num_patients(codes))
    names = [f"{name}_mean", *(f"{name}_{quantile}" for quantile in QUANTILES)]
    if not defined.size:
        return [replace(blank, name=of).undefined("it is defined in no case") for of in names]
    mean = _mean(replace(blank, name=names[0]), defined, codes)
    return [
        mean,
        *(
            quantile_measure(replace(blank, name=of), defined, level, codes)
            for of, level in zip(names[1:], QUANTILES.values(), strict=True)
        ),
    ]


def _mean(blank: Measure, values: FloatArray, codes: IntArray) -> Measure:
    """Fill in the mean of values that are never negative, with its interval over patients."""
    value, bounds = float(values.mean()), skewed_mean(values, codes, blank.confidence)
    if bounds is None:
        return blank.weak(value, "it does not vary between patients, or there is one patient only")
    most = 1.0 if blank.name.startswith(SHARES) else np.inf
    low, high = max(bounds[0], 0.0), min(bounds[1], most)
    return blank.ok(value, (low, high), "t over patients, for skewed values")
