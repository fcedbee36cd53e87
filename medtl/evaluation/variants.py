"""The same measures under other choices: per patient in place of per image, other label policies.

They are not headline results: they say whether the headline hangs on a choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from medtl.evaluation.classification import LabelRows, Settings
from medtl.metrics import confusion
from medtl.metrics.inputs import num_patients
from medtl.metrics.patients import certain_truth
from medtl.metrics.ranking import auroc
from medtl.types import FloatArray, Measure

if TYPE_CHECKING:
    import pandas as pd

VariantName = Literal["patient_max", "uncertain_as_absent", "uncertain_as_present"]


@dataclass(frozen=True)
class Variant:
    """One measure under another choice.

    Attributes:
        variant: "patient_max" (one score per patient, the highest; positive if one image is), or
            what an uncertain truth counts as.
        measure: With its label.
    """

    variant: VariantName
    measure: Measure


def per_patient(rows: LabelRows, threshold: float | None, settings: Settings) -> list[Variant]:
    """Return AUROC, sensitivity and specificity with one row per patient; none if it is so already.

    Args:
        rows: Test rows of a finding.
        threshold: The frozen one, of images, or None.
        settings: Level of the intervals.
    """
    if rows.clusters is None:
        return []
    codes = np.unique(rows.patients, return_inverse=True)[1]
    truth = np.zeros(num_patients(codes), dtype=bool)
    np.logical_or.at(truth, codes, rows.truth)
    score = np.full(truth.size, -np.inf)
    np.maximum.at(score, codes, rows.score)
    whole = replace(rows, truth=truth, score=score, patients=np.arange(truth.size), strata={})
    return _measured("patient_max", whole, threshold, settings)


def label_policies(
    table: pd.DataFrame, rows: LabelRows, threshold: float | None, settings: Settings
) -> list[Variant]:
    """Return the same measures with uncertain truths as absent and as present; none without them.

    Args:
        table: Test rows of one label with `y_true`, `y_score`, `patient_id` and, for any result,
            `y_true_raw` where -1 is uncertain.
        rows: The usable ones of them, for label and split.
        threshold: The frozen one, or None.
        settings: Level of the intervals.
    """
    import pandas as pd

    if "y_true_raw" not in table:
        return []
    raw = pd.to_numeric(table["y_true_raw"], errors="coerce").to_numpy(dtype=float)
    truth, score = (table[n].to_numpy(dtype=float, na_value=np.nan) for n in ("y_true", "y_score"))
    uncertain = np.isnan(truth) & (raw == -1)
    if not uncertain.any():
        return []
    codes = pd.factorize(table["patient_id"], sort=True)[0]
    found: list[Variant] = []
    policies: tuple[tuple[VariantName, Literal["u_zeros", "u_ones"]], ...] = (
        ("uncertain_as_absent", "u_zeros"),
        ("uncertain_as_present", "u_ones"),
    )
    for name, policy in policies:
        filled: FloatArray = np.where(uncertain, certain_truth(raw, uncertain=policy), truth)
        kept = np.isfinite(filled) & np.isfinite(score)
        part = LabelRows(rows.label, rows.split, filled[kept] == 1, score[kept], codes[kept])
        found += _measured(name, part, threshold, settings)
    return found


def _measured(
    name: VariantName, rows: LabelRows, threshold: float | None, settings: Settings
) -> list[Variant]:
    """Return AUROC and, at a threshold, sensitivity and specificity under a choice."""
    measures = [
        auroc(rows.truth, rows.score, patients=rows.clusters, confidence=settings.confidence)
    ]
    if threshold is not None:
        measures += confusion.share_measures(
            rows.truth, rows.score, threshold,
            patients=rows.clusters, confidence=settings.confidence,
        )[:2]  # fmt: skip
    return [Variant(name, replace(m, label=rows.label, split=rows.split)) for m in measures]
