"""The evaluation of arrays: what `medtl evaluate` says of a table, for a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtl.errors import PredictionsError
from medtl.evaluation.assemble import OfLabels, evaluate, refuse_no_unit
from medtl.evaluation.own import NO_METRICS, OwnMetric
from medtl.evaluation.result import Evaluation, Kind
from medtl.metrics.curves.decision_curve import Range
from medtl.metrics.operating_point import Rule, with_assurance
from medtl.metrics.scores import CI, CI95, as_numbers
from medtl.types import FloatArray, OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

NO_GROUPS: Mapping[str, ArrayLike] = MappingProxyType({})


def evaluate_arrays(  # noqa: PLR0913 - one call states a whole evaluation
    y_true: ArrayLike,
    y_score: ArrayLike,
    patients: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] = NO_GROUPS,
    threshold: OfLabels | None = None,
    *,
    labels: Sequence[str] = (),
    split: ArrayLike = "test",
    rule: Rule | None = None,
    prevalence: OfLabels | None = None,
    acting: Range | None = None,
    kind: Kind | None = None,
    unit: str = "",
    metrics: Mapping[str, OwnMetric] = NO_METRICS,
    ci: CI = CI95,
) -> Evaluation:
    """Return the evaluation of truth and score: the figures of `medtl evaluate` on that table.

    Args:
        y_true: `(n,)` of 0, 1 or NaN (left out), `(n, k)` for k findings, or `(n,)` class numbers
            beside scores of `(n, k)`. With `unit`, references in the unit.
        y_score: `(n,)` or `(n, k)`, higher means more diseased; predictions in the unit.
        patients: `(n,)` identifiers, or None for one row per patient.
        groups: Column -> `(n,)` values to report by ("sex", "site").
        threshold: Fixed beforehand, for every label, or label -> its own: positive if and only if
            score >= threshold.
        labels: Names of the k findings or classes.
        split: "test", or `(n,)` of "val" and "test": thresholds are chosen on "val" alone.
        rule: How to choose the threshold on "val", such as {"sensitivity": 0.9}, which is kept with
            a certainty of 0.9 where no "assurance" is stated.
        prevalence: Of the clinic, for predictive values, in (0, 1): of every label, or label -> its
            own.
        acting: Lowest and highest probability at which somebody would act, of the decision curves.
        kind: "classification" unless a unit is given.
        unit: Of a regression ("months", "%").
        metrics: Own measures by name; see `evaluate`.
        ci: Level and bootstrap of the intervals.

    Raises:
        PredictionsError: If lengths differ, a value is not usable, or the kind is none of arrays.

    >>> truth, score = [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.7]
    >>> found = evaluate_arrays(truth, score, threshold=0.5, ci=CI(resamples=50))
    >>> round(found.auroc.value, 3), found.sensitivity.n
    (0.889, 3)
    """
    if kind not in (None, "classification", "regression"):
        raise PredictionsError(
            f"kind is {kind!r}",
            expected="classification, or regression with its unit",
            fix="State unit='months' of bone ages; compare masks with medtl evaluate TABLE",
        )
    scores, truths = as_numbers(y_score, "y_score"), as_numbers(y_true, "y_true")
    scores = scores[:, None] if scores.ndim == 1 else scores
    if truths.ndim == 1 and scores.ndim == 2 and scores.shape[1] > 1:
        truths = (truths[:, None] == np.arange(scores.shape[1])).astype(float)
    truths = truths[:, None] if truths.ndim == 1 else truths
    if truths.shape != scores.shape or truths.ndim != 2:
        raise PredictionsError(
            f"y_true has shape {np.shape(y_true)} and y_score {np.shape(y_score)}",
            expected="(n,) and (n,), (n, k) and (n, k), or class numbers (n,) and (n, k)",
        )
    names = list(labels) or [""] * (truths.shape[1] == 1) or list(map(str, range(truths.shape[1])))
    if len(names) != truths.shape[1]:
        raise PredictionsError(
            f"{len(names)} labels for {truths.shape[1]} columns", expected="one each"
        )
    refuse_no_unit(kind, unit, names)
    columns = {**groups, "split": np.broadcast_to(split, len(truths))}
    if patients is not None:
        columns["patient_id"] = _as_text(patients)
    points = []
    if threshold is not None:
        stated = threshold if isinstance(threshold, Mapping) else dict.fromkeys(names, threshold)
        points = [
            OperatingPoint(name, at, "given", "given", 0, 0, source="user")
            for name, at in stated.items()
        ]
    return evaluate(
        _table(truths, scores, names, columns),
        rule=None if rule is None else with_assurance(rule),
        operating_points=points,
        prevalence=prevalence,
        acting=acting,
        strata=list(groups),
        kind=kind or ("regression" if unit else "classification"),
        unit=unit,
        metrics=metrics,
        ci=ci,
    )


def _as_text(patients: ArrayLike) -> NDArray[np.object_]:
    """Return identifiers as a table on disk holds them: a bootstrap draws them in their order."""
    return np.array([str(patient) for patient in np.asarray(patients)], dtype=object)


def _table(
    truths: FloatArray, scores: FloatArray, names: Sequence[str], columns: Mapping[str, ArrayLike]
) -> pd.DataFrame:
    """Return the predictions table of `(n, k)` truths and scores, cases numbered in their order."""
    import pandas as pd

    for name, values in columns.items():
        if np.shape(values) != (len(truths),):
            raise PredictionsError(
                f"{name} has shape {np.shape(values)} for {len(truths)} rows",
                expected="one value each",
            )
    width = len(str(len(truths)))
    given = {name: np.asarray(values) for name, values in columns.items()}
    cases = pd.DataFrame({"case_id": [f"{row:0{width}d}" for row in range(len(truths))], **given})
    return pd.concat(
        [
            cases.assign(label=name, y_true=truths[:, at], y_score=scores[:, at])
            for at, name in enumerate(names)
        ],
        ignore_index=True,
    )
