"""What a run found, in the few lines that the command line ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import isinf

from medtl.evaluation.result import POOLED, Evaluation
from medtl.metrics.catalogue import entry
from medtl.run.folder import Run
from medtl.types import Measure

MOST_LABELS = 2
"""Labels whose measures are all said; of more, their mean alone."""


def headline(run: Run) -> Iterator[str]:
    """Yield the measures of the test set that count, the threshold, and how the training ended.

    Args:
        run: Predicted and evaluated.

    Raises:
        RunError: Before the evaluation.
    """
    found = run.evaluation
    measures = found.headlines()
    labels = {m.label for m in measures} - POOLED
    if len(labels) > MOST_LABELS:
        measures = [m for m in measures if m.label == "macro"]
    yield "Test set:"
    several = len({m.label for m in measures}) > 1
    yield from (f"  {_said(measure, several=several)}" for measure in measures)
    points = [p for p in found.operating_points if len(labels) <= MOST_LABELS]
    for point in points:
        label = f"{point.label}: " if len(points) > 1 else ""
        origin = "stated" if point.chosen_on == "given" else f"chosen on {point.chosen_on}"
        yield f"  {label}threshold {point.threshold:.3g} ({point.rule}, {origin})"
        if isinf(point.threshold):
            yield f"  {label}no validation score meets the rule: this threshold flags nobody"
    if len(labels) > MOST_LABELS:
        yield f"  {len(labels)} findings; each with its threshold is in the report"
    yield from _without_threshold(found)
    yield training_line(run)


def _without_threshold(found: Evaluation) -> Iterator[str]:
    """Which findings have no threshold, with the reasons that the evaluation noted."""
    start = "no operating point for "
    lacking = [note.removeprefix(start) for note in found.notes if note.startswith(start)]
    for whose in lacking[:MOST_LABELS]:
        yield f"  No threshold, and so no decisions, for {whose}"
    if len(lacking) > MOST_LABELS:
        yield f"  No threshold for {len(lacking) - MOST_LABELS} more findings: see the report"


def training_line(run: Run) -> str:
    """Return which epoch was kept, and how many of its epochs each stage took.

    Args:
        run: Trained.

    Raises:
        RunError: Before the training.
    """
    rows = run.history_rows
    planned = {stage.name: f" of {stage.epochs}" for stage in run.recipe.finetune.stages}
    taken = Counter(row["stage"] for row in rows)
    kept = max((n for n, row in enumerate(rows) if row["best"] == "1"), default=len(rows) - 1)
    stage, loss = rows[kept]["stage"], float(rows[kept]["val_loss"])
    number = sum(row["stage"] == stage for row in rows[: kept + 1])
    stages = ", ".join(f"{name} {epochs}{planned.get(name, '')}" for name, epochs in taken.items())
    members = run.recipe.run.members
    first = f"Training of the first of {members} networks" if members > 1 else "Training"
    return (
        f"{first}: epoch {kept + 1} was kept, number {number} of stage {stage} (validation loss "
        f"{loss:.3f}); epochs run: {stages}"
    )


def _said(measure: Measure, *, several: bool) -> str:
    """One measure as a line, with its interval and its numbers."""
    known = entry(measure.name)
    title = known.title or measure.name.replace("_", " ")
    name = f"{measure.label} {title}" if several else title
    if measure.value is None:
        return f"{name}: not estimable, {measure.reason}"
    interval = ""
    if measure.low is not None and measure.high is not None:
        interval = f" [{known.write(measure.low)}, {known.write(measure.high)}]"
    positive = measure.n_positive or 0
    of_whom = f", {positive} with the finding" if 0 < positive < measure.n else ""
    weak = f" ({measure.reason})" if measure.status == "degenerate" else ""
    return f"{name} {known.write(measure.value)}{interval}, n = {measure.n}{of_whom}{weak}"
