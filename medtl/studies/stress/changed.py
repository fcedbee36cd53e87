"""What changed images did to a model: one row for each change and label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.types import Measure


@dataclass(frozen=True)
class Row:
    """What one condition does to one label.

    Attributes:
        family, name, level, strength: Of the change; "clean" is level 0.
        label: What was asked.
        reaches: AUROC, MAE or mean Dice.
        drop: That of the clean images less this one, paired; for errors, below 0 is worse.
        shares: Sensitivity, specificity at the frozen threshold; share of decisions that flip.
        example: The score, value or Dice of the image that is shown.
    """

    family: str
    name: str
    level: int
    strength: float
    label: str
    reaches: Measure
    drop: Measure | None
    shares: Mapping[str, Measure] = field(default_factory=dict)
    example: float | None = None

    @property
    def is_worse(self) -> bool:
        """Whether the interval of the paired difference excludes 0 on the side of a loss."""
        if self.drop is None or self.drop.low is None or self.drop.high is None:
            return False
        is_error = self.reaches.name.startswith("mae")
        return self.drop.high < 0 if is_error else self.drop.low > 0


@dataclass(frozen=True)
class Verdict:
    """From which level on a condition costs something.

    Attributes:
        label: Of whom.
        name: Of the condition.
        loss_from: First level whose loss is beyond chance, or None.
        below_from: First level whose sensitivity is below what the operating point asks for.
    """

    label: str
    name: str
    loss_from: int | None
    below_from: int | None


@dataclass(frozen=True)
class Robustness:
    """The result of a stress test.

    Attributes:
        rows: Each condition and label, the clean images first.
        words: Condition name -> language -> what happens.
        modality: Of the images.
        images, patients: Tested.
        least_sensitivity: What the run's operating point asks for, or None.
        left_out: What could not be tried, and why.
        thresholds: Label -> the run's, frozen.
        tuned: Name of the run's folder.
        tuned_sha256: Of its checkpoint.
        example: Case of the image that is shown, or "" where images are no pictures.
        pictures: `NAME_LEVEL` -> that image `(C, H, W)` in [0, 1], changed as it was scored.
        against: Label -> corruption, and "mean" -> errors in percent of those of another model; {}
            where there is none.
    """

    rows: tuple[Row, ...]
    words: Mapping[str, Mapping[str, str]]
    modality: str
    images: int
    patients: int
    least_sensitivity: float | None
    left_out: tuple[str, ...]
    thresholds: Mapping[str, float]
    tuned: str
    tuned_sha256: str
    example: str
    pictures: Mapping[str, NDArray[np.float32]] = field(repr=False)
    against: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def verdicts(self) -> Iterator[Verdict]:
        """Yield one of each condition, label by label."""
        for label in dict.fromkeys(row.label for row in self.rows):
            for name in self.words:
                rows = [row for row in self.rows if (row.label, row.name) == (label, name)]
                worse = (row.level for row in rows if row.is_worse)
                below = (row.level for row in rows if self._breaks_promise(row))
                yield Verdict(label, name, next(worse, None), next(below, None))

    def _breaks_promise(self, row: Row) -> bool:
        """Whether the sensitivity is below what the operating point asks for."""
        share = row.shares.get("sensitivity")
        least = self.least_sensitivity
        return least is not None and share is not None and (share.value or 0.0) < least

    def to_json(self) -> dict[str, Any]:
        """JSON types only; the pictures are files beside it."""
        kept = (one.name for one in fields(self) if one.name not in ("pictures", "rows"))
        return {
            "schema": "medtl-robustness/1",
            **{name: getattr(self, name) for name in kept},
            "verdicts": [asdict(one) for one in self.verdicts()],
            "rows": [asdict(row) for row in self.rows],
        }
