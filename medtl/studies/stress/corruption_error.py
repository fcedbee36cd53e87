"""One number for all corruptions: a model's errors as a share of those of a reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from medtl.errors import RunError
from medtl.storage.atomic import read_json
from medtl.studies.stress.changed import Row

WHERE = "--against"


def mean_corruption_error(rows: Sequence[Row], reference: Path) -> dict[str, dict[str, float]]:
    """Return each label's errors under corruptions, in percent of a reference's, and their mean.

    The error is 1 - AUROC, 1 - Dice, or the mean absolute error; of each corruption it is summed
    over the severities. Below 100 is better than the reference. There is no interval: it orders
    models, it tests nothing.

    Args:
        rows: Of the model.
        reference: Folder of a stress test of another model on the same images.

    Returns:
        Label -> corruption, and "mean" -> percent.

    Raises:
        RunError: When the reference has other images, labels or corruptions, or makes no error.

    Reference:
        Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
        perturbations", ICLR 2019, section 4.2, with 1 - AUROC for the share of wrong answers.
    """
    stored = read_json(reference / "robustness.json")
    own, theirs = _errors(map(asdict, rows)), _errors(stored["rows"])
    if own.keys() != theirs.keys():
        raise RunError(
            f"{reference.name} has other labels, corruptions or numbers of images",
            expected="a stress test of the same images by the same version of medtl",
            where=WHERE,
            fix="Run medtl stress on both models alike",
        )
    by_label: dict[str, dict[str, float]] = {}
    for place, error in own.items():
        label, name, _ = place
        if not theirs[place]:
            raise RunError(f"{reference.name} makes no error under {name}", where=WHERE)
        by_label.setdefault(label, {})[name] = 100 * error / theirs[place]
    return {label: {"mean": mean(parts.values()), **parts} for label, parts in by_label.items()}


_Place = tuple[str, str, int]


def _errors(rows: Iterable[Mapping[str, Any]]) -> dict[_Place, float]:
    """(label, corruption, images) -> error summed over the severities, of rows as in the JSON."""
    total: dict[_Place, float] = {}
    for row in rows:
        if row["family"] == "corruptions":
            one = row["reaches"]
            error = one["value"] if one["name"].startswith("mae") else 1 - one["value"]
            place = row["label"], row["name"], one["n"]
            total[place] = total.get(place, 0.0) + error
    return total
