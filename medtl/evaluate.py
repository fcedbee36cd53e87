"""From a predictions table to `metrics.json`, whoever made the table. Without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from medtl.errors import PredictionsError
from medtl.io.atomic import write_json
from medtl.io.predictions import read_predictions
from medtl.io.yaml12 import load_yaml
from medtl.metrics.evaluate import evaluate, measures_from_json
from medtl.types import OperatingPoint

HEADLINES = ("auroc", "sensitivity", "specificity", "mae_months", "dice")
"""Measures that the command line shows; all others are in the file."""


def evaluate_run(run: Path) -> Path:
    """Compute the statistics of a run's predictions; return its `metrics.json`."""
    recipe = load_yaml(run / "recipe.yaml")
    study = recipe["study"]
    result = evaluate(
        read_predictions(run / "predictions.csv"),
        rule=study["operating_point"],
        prevalence=study.get("prevalence"),
        strata=recipe["data"]["strata"],
    )
    write_json(run / "metrics.json", result.to_json())
    return run / "metrics.json"


def evaluate_table(
    table: Path,
    out: Path,
    *,
    threshold: float | None = None,
    prevalence: float | None = None,
    strata: Sequence[str] = (),
    one_image_per_patient: bool = False,
) -> Path:
    """Compute the statistics of a table that any tool made.

    Args:
        table: CSV or Parquet with `case_id, y_true, y_score` and what else the format knows.
        out: `metrics.json` to write.
        threshold: Fixed before the test set was seen, for every label; without one, it is chosen
            on rows with split "val" (Youden), or left out when there are none.
        prevalence: Of the finding where the model would be used, in (0, 1).
        strata: Columns to break the results by.
        one_image_per_patient: The user's statement for a table without `patient_id`.

    Raises:
        PredictionsError: For a table that is not a predictions table.
    """
    rows = read_predictions(table, one_image_per_patient=one_image_per_patient)
    missing = [name for name in strata if name not in rows.columns]
    if missing:
        raise PredictionsError(
            f"no column {', '.join(missing)}",
            expected=f"some of {', '.join(rows.columns)}",
            where=table.name,
        )
    if prevalence is not None and not 0 < prevalence < 1:
        raise PredictionsError(
            f"a prevalence of {prevalence:g}", expected="a share between 0 and 1"
        )
    points = []
    if threshold is not None:
        if math.isnan(threshold):
            raise PredictionsError("the threshold is not a number", fix="State --threshold 0.5")
        test = rows[rows["split"] == "test"]
        labels = dict.fromkeys(test["label"]) if "label" in test else [""]
        points = [OperatingPoint(label, threshold, "given", "given", 0, 0) for label in labels]
    has_validation = bool((rows["split"] == "val").any())
    result = evaluate(
        rows,
        rule={"youden": True} if has_validation and not points else None,
        operating_points=points,
        prevalence=prevalence,
        strata=strata,
    )
    write_json(out, result.to_json())
    return out


def summarise(metrics: Path) -> Iterator[str]:
    """Yield the headline measures of a `metrics.json` on the test rows, and its notes."""
    found = json.loads(metrics.read_text("utf-8"))
    for measure in measures_from_json(found):
        if measure.name not in HEADLINES or (measure.split, measure.subset) != ("test", "all"):
            continue
        name = f"{measure.label} {measure.name}".strip()
        if measure.value is None:
            yield f"{name}: not estimable, {measure.reason}"
            continue
        interval = ""
        if measure.low is not None and measure.high is not None:
            interval = f" [{measure.low:.3f}, {measure.high:.3f}]"
        flag = f" ({measure.reason})" if measure.status == "degenerate" else ""
        yield f"{name}: {measure.value:.3f}{interval}, n = {measure.n}{flag}"
    yield from found["notes"]
