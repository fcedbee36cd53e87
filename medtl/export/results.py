"""The results of each case, from a run or from a table that `medtl predict` made with it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import medtl
from medtl.errors import PredictionsError
from medtl.export.identity import Algorithm
from medtl.export.structured_report import Finding
from medtl.storage.atomic import read_json, sha256_file
from medtl.storage.tables import read_table

Row = Mapping[str, str]

VERSION_LENGTH = 12
"""Characters of the checkpoint's hash that name the version of a model."""


@dataclass(frozen=True)
class Result:
    """Everything to export about one case.

    Attributes:
        case_id: As in the run.
        content_sha256: Hash of the decoded image that was predicted.
        findings: Scores, with the frozen thresholds.
        masks: Predicted mask files; several where structures overlap.
        pictures: (finding, picture with heat map) of the gallery.
    """

    case_id: str
    content_sha256: str
    findings: tuple[Finding, ...]
    masks: tuple[Path, ...]
    pictures: tuple[tuple[str, Path], ...]


@dataclass(frozen=True)
class RunResults:
    """The parts of a finished run that an export is made of.

    Attributes:
        folder: The run folder; nothing is written into it.
        recipe: As it was stored.
        manifest: Table of the cases with the hashes of their images.
        predictions: Table of the predictions.
        thresholds: Label -> frozen threshold.
        pictures: List of pictures of the cases to export, beside them; None, or not there: none.
        environment: What the run was made with; may be empty.
        checkpoint: The best model; it may be gone.
        probabilities: (case, label) of `predictions` -> mended probability, where there is one.
    """

    folder: Path
    recipe: Mapping[str, Any]
    manifest: Path
    predictions: Path
    thresholds: Mapping[str, float]
    pictures: Path | None
    environment: Mapping[str, Any]
    checkpoint: Path
    probabilities: Mapping[tuple[str, str], float] = field(default_factory=dict)


def read_results(run: RunResults, table: Path | None = None) -> list[Result]:
    """Return the results of a run's test cases, or of all cases of another table.

    Args:
        run: Parts of a finished run.
        table: What `medtl predict` wrote with this run; None takes the run's own test cases.

    Raises:
        PredictionsError: When the table has no scores or masks, or does not say which images it is
            about.
    """
    hashes = {row["case_id"]: row["content_sha256"] for row in _rows(run.manifest)}
    source = table or run.predictions
    pictures = _pictures(run)
    by_case: dict[str, list[Row]] = defaultdict(list)
    for row in _rows(source):
        if "case_id" not in row or not {"y_score", "prediction"} & set(row):
            raise PredictionsError("no columns case_id and y_score", where=source.name)
        if table is not None or row.get("split", "test") == "test":
            by_case[row["case_id"]].append(row)
    results = []
    for case_id, rows in by_case.items():
        content = rows[0].get("content_sha256") or hashes.get(case_id, "")
        if not content:
            raise PredictionsError(
                f"nothing says which image the case {case_id} is",
                expected="a table that `medtl predict` made",
                where=source.name,
                fix="Predict the images again with this version",
            )
        mended = run.probabilities if table is None else {}
        findings = _findings(rows, run.thresholds, mended, source.name)
        masks = tuple(_mask(row["prediction"], source) for row in rows if row.get("prediction"))
        results.append(Result(case_id, content, findings, masks, tuple(pictures.get(case_id, ()))))
    return results


def read_algorithm(run: RunResults, made: Path) -> Algorithm:
    """Return what made a run's results.

    Args:
        run: Parts of a finished run.
        made: The predictions table; its time of writing dates the results.
    """
    model, environment, checkpoint = run.recipe["model"], run.environment, run.checkpoint
    study = run.recipe.get("study") or {}
    recipe_sha256 = str(environment.get("recipe_sha256", ""))
    model_sha256 = sha256_file(checkpoint) if checkpoint.is_file() else ""
    return Algorithm(
        name=str(study.get("title") or run.folder.resolve().name)[:64],
        version=(model_sha256 or recipe_sha256)[:VERSION_LENGTH] or "unknown",
        recipe_sha256=recipe_sha256,
        model_sha256=model_sha256,
        finished=datetime.fromtimestamp(int(made.stat().st_mtime)),
        backbone=str(model.get("backbone") or model.get("name") or ""),
        software=f"medtl {environment.get('medtl', medtl.__version__)}",
    )


def _findings(
    rows: list[Row],
    thresholds: Mapping[str, float],
    probabilities: Mapping[tuple[str, str], float],
    where: str,
) -> tuple[Finding, ...]:
    """The scores of one case; rows without a score are left out."""
    found = []
    for row in rows:
        label, text = row.get("label", ""), row.get("y_score", "")
        if not text:
            continue
        try:
            score = float(text)
        except ValueError:
            raise PredictionsError("y_score is not a number", where=where) from None
        if math.isfinite(score):
            written = row.get("probability") or probabilities.get((row["case_id"], label))
            probability = None if written is None else float(written)
            found.append(Finding(label, score, thresholds.get(label), probability))
    if len({finding.label for finding in found}) < len(found):
        raise PredictionsError(
            "several scores of one case and label", expected="the table of one model", where=where
        )
    return tuple(found)


def _mask(name: str, table: Path) -> Path:
    """A predicted mask: a file below the table."""
    path = (table.parent / name).resolve()
    if not path.is_relative_to(table.parent.resolve()) or not path.is_file():
        raise PredictionsError(
            "a predicted mask is missing", expected="a file below the table", where=table.name
        )
    return path


def _pictures(run: RunResults) -> dict[str, list[tuple[str, Path]]]:
    """Case id -> (finding, picture with heat map) of the gallery."""
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    if run.pictures is None or not run.pictures.is_file():
        return found
    for entry in read_json(run.pictures):
        name = Path(entry.get("overlay") or entry["image"]).name
        place = run.pictures.with_name(name)
        found[entry["case_id"]].append((str(entry.get("label", "")), place))
    return found


def _rows(path: Path) -> list[Row]:
    """The rows of a table, as text."""
    table = read_table(path)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]
