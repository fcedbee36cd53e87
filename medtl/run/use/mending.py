"""What mends a run's probabilities: kept in its checkpoint, and applied to new predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.cases.exams import EXAM, Combine, by_exam
from medtl.evaluation.result import POOLED, built, plain
from medtl.evaluation.statements.recalibrated import OVERALL, Recalibrated, mended
from medtl.run.files import RunFiles
from medtl.storage.atomic import read_json

if TYPE_CHECKING:
    import pandas as pd

KEY = "recalibrations"
"""In the meta data of a checkpoint, and in `metrics.json`."""


def keep_recalibrations(checkpoint: Path, done: Sequence[Recalibrated]) -> None:
    """Write into a checkpoint what was fitted on validation, also that nothing was called for.

    Args:
        checkpoint: The best model; nothing is written where it says the same already.
        done: Fitted on validation.
    """
    from medtl.training.checkpoint import load_checkpoint, save_checkpoint

    tensors, meta = load_checkpoint(checkpoint)
    content = plain(tuple(done))
    if meta.get(KEY) != content:
        save_checkpoint(checkpoint, tensors, {**meta, KEY: content})


def kept_recalibrations(checkpoint: Path) -> tuple[Recalibrated, ...] | None:
    """Return what a checkpoint keeps; None where it is gone or older than keeping.

    Only its header is read, without torch.

    Args:
        checkpoint: The best model, a safetensors file.
    """
    try:
        with checkpoint.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        kept = json.loads(header["__metadata__"]["meta"]).get(KEY)
    except (OSError, ValueError, KeyError, OverflowError, MemoryError):  # said when it is loaded
        return None
    return None if kept is None else _read(kept)


def recalibrations_of(files: RunFiles) -> tuple[Recalibrated, ...]:
    """Return what mends a run's probabilities; runs of an earlier version say it in `metrics.json`.

    Args:
        files: Of the run.
    """
    kept = kept_recalibrations(files.best)
    if kept is None:
        kept = _read(read_json(files.metrics).get(KEY, ()) if files.metrics.is_file() else ())
    return kept


def _read(content: Any) -> tuple[Recalibrated, ...]:
    """Return what was stored as values."""
    found: tuple[Recalibrated, ...] = built(tuple[Recalibrated, ...], content)
    return found


def judged_score(table: pd.DataFrame, exams: Combine | None) -> str:
    """Return the column of the score that is judged; of a run of exams it is added.

    An image of which nothing says the exam is an exam of its own.

    Args:
        table: Predictions of images, with the exam of each where it is known.
        exams: How the scores of an exam's images become one; None judges images.

    >>> judged_score({}, None)
    'y_score'
    """
    if exams is None or "y_score" not in table:
        return "y_score"
    exam = table.get(EXAM, table["case_id"]).fillna("")
    alone = exam.isin({""}) | (EXAM not in table)
    own = exam.mask(alone, "image " + table["case_id"])
    combined, _ = by_exam(table.assign(exam_id=own, y_true=np.nan), exams)
    scores = combined.set_index(["case_id", "label"])["y_score"]
    table["exam_score"] = scores.loc[list(zip(own, table["label"], strict=True))].to_numpy()
    return "exam_score"


def add_probabilities(table: pd.DataFrame, done: Sequence[Recalibrated], score: str) -> None:
    """Add the mended probability, and the threshold on its scale where there is one.

    Scores and decisions stay as they are: a recalibration keeps the order of the scores. A finding
    that needs none has its score as probability. A threshold of one of several classes has no place
    on the mended scale, where the probability depends on all of their scores.

    Args:
        table: With `case_id`, `label`, the score and, where thresholds were frozen, `threshold`.
        done: Fitted on validation.
        score: Column of the score that was judged.
    """
    table["probability"] = mended(done, table.assign(y_score=table[score]))
    if "threshold" not in table:
        return
    table["probability_threshold"] = table["threshold"].astype(float)
    for one in done:
        mine = table["label"].isin(one.labels)
        if one.classes:
            table.loc[mine, "probability_threshold"] = float("nan")
            continue
        cuts = table.loc[mine, "threshold"]
        known = cuts[(cuts >= 0) & (cuts <= 1)]  # infinity flags nobody on any scale
        table.loc[known.index, "probability_threshold"] = one.fit(known)


def own_probabilities(
    table: pd.DataFrame, done: Sequence[Recalibrated], exams: Combine | None
) -> dict[tuple[str, str], float]:
    """Return (case, label) -> mended probability of the test cases; {} where none is called for.

    Args:
        table: The predictions of the run.
        done: What mends them.
        exams: How the scores of an exam's images become one; None judges images.
    """
    if not done:
        return {}
    test = table[table["split"] == "test"].reset_index(drop=True)
    add_probabilities(test, done, judged_score(test, exams))
    rows = zip(test["case_id"], test["label"], test["probability"], strict=True)
    return {(case, label): p for case, label, p in rows if p == p}  # noqa: PLR0124 - NaN


def probability_lines(done: Sequence[Recalibrated], metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is said of the probabilities of new predictions, for the command line.

    Args:
        done: What mends the run's probabilities.
        metrics: Content of its metrics.json.

    >>> list(probability_lines((), {"measures": [{"name": "mae_months"}]}))
    ['The predictions are values, not probabilities: none is mended']
    """
    names = {row["name"].partition("_")[0] for row in metrics["measures"]}
    if "mae" in names:
        yield "The predictions are values, not probabilities: none is mended"
        return
    for one in done:
        what, rows = ", ".join(one.labels), one.fit.n
        yield f"Probability of {what}: {one.fit.method} scaling, fitted on {rows} validation cases"
    unmended = metrics.get("unmended") or {}
    labels = {row["label"] for row in metrics["measures"] if row["name"] == "auroc"} - POOLED
    if "auroc" in names and not done and OVERALL not in unmended and not labels <= {*unmended}:
        of_others = " of the other findings" if unmended else ""
        yield f"No column probability: validation did not call for a recalibration{of_others}"
    for label, reason in unmended.items():
        whose = "" if label == OVERALL else f" of {label}"
        yield f"No recalibration{whose}: {reason}"
