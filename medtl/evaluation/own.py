"""Measures that a user brings along, with an interval over patients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from medtl.errors import PredictionsError
from medtl.metrics.catalogue import entry
from medtl.metrics.resampling import bootstrap_function
from medtl.metrics.scores import CI, PAIR, usable_rows
from medtl.types import FloatArray, Measure

if TYPE_CHECKING:
    import pandas as pd

OwnMetric = Callable[[FloatArray, FloatArray], float]
"""Truth and score of the same rows, `(n,)` and `(n,)` -> a number."""

NO_METRICS: Mapping[str, OwnMetric] = MappingProxyType({})


def own_measures(
    table: pd.DataFrame, metrics: Mapping[str, OwnMetric], kind: str, ci: CI
) -> Iterator[Measure]:
    """Yield every own measure of every label of the test rows.

    Args:
        table: Predictions with `split`, `label`, `y_true`, `y_score` and `patient_id`.
        metrics: Functions by the name of their measure.
        kind: Of study.
        ci: Level and bootstrap of the intervals.

    Raises:
        PredictionsError: If a name is one of medtl's own, or the table is one of masks.
    """
    taken = [name for name in metrics if entry(name).base]
    if taken:
        raise PredictionsError(
            f"an own measure is called {taken[0]}", expected="a name that medtl does not use"
        )
    if metrics and kind == "segmentation":
        raise PredictionsError(
            "own measures need y_true and y_score", expected="a classification or a regression"
        )
    for label, rows in table[table["split"] == "test"].groupby("label", sort=False):
        if not metrics:
            continue
        kept = rows[usable_rows(rows["y_true"], rows["y_score"])]
        truth, score = (kept[name].to_numpy(float) for name in PAIR)
        for name, function in metrics.items():
            measure = bootstrap_function(
                name, function, truth, score, patients=kept["patient_id"].to_numpy(), ci=ci
            )
            yield replace(measure, label=str(label))
