"""The same measures under other choices: per patient in place of per image, other label policies.

They are not headline results: they say whether the headline hangs on a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from medtl.evaluation.classification import LabelRows, headline_measures
from medtl.metrics.scores import CI, PAIR, Scores, certain_truth
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


def variants(
    table: pd.DataFrame, tests: Sequence[LabelRows], thresholds: Mapping[str, float], ci: CI
) -> list[Variant]:
    """Return AUROC and, at the frozen threshold, sensitivity and specificity under other choices.

    Args:
        table: Test rows with `label`, `y_true`, `y_score`, `patient_id` and, for other label
            policies, `y_true_raw` where -1 is uncertain.
        tests: The usable rows of each label.
        thresholds: Label -> the frozen one, of images.
        ci: Level of the intervals.
    """
    found = []
    for rows in tests:
        of_label: dict[VariantName, Scores] = {}
        if rows.scores.clustered:
            of_label["patient_max"] = rows.scores.per_patient("max")
        of_label |= _label_policies(table[table["label"] == rows.label])
        for name, scores in of_label.items():
            for measure in headline_measures(scores, thresholds.get(rows.label), ci):
                found.append(Variant(name, replace(measure, label=rows.label, split=rows.split)))
    return found


def _label_policies(table: pd.DataFrame) -> dict[VariantName, Scores]:
    """Return the rows with uncertain truths as absent, and as present; none without such truths."""
    import pandas as pd

    if "y_true_raw" not in table:
        return {}
    raw = pd.to_numeric(table["y_true_raw"], errors="coerce").to_numpy(dtype=float)
    truth, score = (table[name].to_numpy(dtype=float, na_value=np.nan) for name in PAIR)
    uncertain = np.isnan(truth) & (raw == -1)
    if not uncertain.any():
        return {}
    codes = pd.factorize(table["patient_id"], sort=True)[0]
    policies: dict[VariantName, Literal["u_zeros", "u_ones"]] = {
        "uncertain_as_absent": "u_zeros",
        "uncertain_as_present": "u_ones",
    }
    found: dict[VariantName, Scores] = {}
    for name, policy in policies.items():
        filled: FloatArray = np.where(uncertain, certain_truth(raw, uncertain=policy), truth)
        kept = np.isfinite(filled) & np.isfinite(score)
        found[name] = Scores.of(filled[kept] == 1, score[kept], codes[kept])
    return found
