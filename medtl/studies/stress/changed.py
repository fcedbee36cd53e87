"""What changed images did to a model: one row for each change and label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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
    """

    family: str
    name: str
    level: int
    strength: float
    label: str
    reaches: Measure
    drop: Measure | None
    shares: Mapping[str, Measure] = field(default_factory=dict)


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
    """

    rows: tuple[Row, ...]
    words: Mapping[str, Mapping[str, str]]
    modality: str
    images: int
    patients: int
    least_sensitivity: float | None
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return {"schema": "medtl-robustness/1", **asdict(self)}
