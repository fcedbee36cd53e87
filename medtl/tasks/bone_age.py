"""Bone age: the months of skeletal age of one hand, from the image and, where stated, the sex.

All ages are in months. Targets stay in months; losses see them standardised by the training ages
(regression) or on a grid of classes (ordinal), and `decode` leads back to months.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medtl.errors import ManifestError
from medtl.losses.ordinal import Decoding, Head, decode_values
from medtl.losses.quantity import L1
from medtl.tasks.inputs import IMAGE_ALONE, Inputs, Sex
from medtl.types import Case

LABEL = "bone_age_months"
"""The label of the predictions table."""

OLDEST_MONTHS = 300
"""Above 25 years no hand has a bone age: such a number is in another unit."""

OLDEST_YEARS = 25
"""Ages of which none is above this are years, not months, when there are `ENOUGH_FOR_UNIT`."""

ENOUGH_FOR_UNIT = 10

SPLIT_BAND_MONTHS = 24
"""Splits are balanced by bands of two years, for each sex."""

MONTHS_PER_YEAR = 12.0
"""The published strengths of the mean-variance loss, and of the error in dex, are for years."""


@dataclass(frozen=True)
class BoneAge:
    """Bone age in months: one output, or an output per class or threshold of ordinal losses.

    Attributes:
        column: Target column, in months.
        sex_column: Column of the sex that joins the image's features; "" for the image alone.
        criterion: The loss: of standardised months, or with a `head` (those in `losses.ordinal`) of
            years and the values of the classes.
        class_months: Width of a class of the ordinal losses.
        decoding: How class probabilities become one age.
        mean_months, sd_months, lowest_months, highest_months: Of the training ages, once `weighted`
            has seen them.
    """

    column: str
    sex_column: str = ""
    criterion: Callable[..., Tensor] = field(default_factory=L1)
    class_months: float = 12.0
    decoding: Decoding = "mean"
    mean_months: float = field(default=math.nan, kw_only=True)
    sd_months: float = field(default=math.nan, kw_only=True)
    lowest_months: float = field(default=math.nan, kw_only=True)
    highest_months: float = field(default=math.nan, kw_only=True)
    labels: tuple[str, ...] = field(default=(LABEL,), init=False)
    watched: str = field(default="mae_months", init=False)
    larger_is_better: bool = field(default=False, init=False)

    @property
    def inputs(self) -> Inputs:
        """The sex, where a column of it is named."""
        return Sex(self.sex_column) if self.sex_column else IMAGE_ALONE

    @property
    def outputs(self) -> int:
        """One standardised age; or one logit per class, or per threshold between classes."""
        return 1 if self.head is None else len(self.grid) - self.head.thresholds

    @property
    def head(self) -> Head | None:
        """What the outputs of an ordinal loss stand for; None for one standardised age."""
        return getattr(self.criterion, "head", None)

    @property
    def grid(self) -> NDArray[np.float64]:
        """`(K,)` months of the classes: multiples of their width that enclose the training ages."""
        first = math.floor(self.lowest_months / self.class_months)
        last = math.ceil(self.highest_months / self.class_months)
        return self.class_months * np.arange(first, max(last, first + 1) + 1, dtype=np.float64)

    def targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n,)` months; NaN where the age is not known.

        Raises:
            ManifestError: When a cell is not a number from 0 to `OLDEST_MONTHS`.
        """
        return np.array([self._months(case) for case in cases], dtype=np.float32)

    def truth_matrix(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, 1)` months; NaN where the age is not known."""
        return self.targets(cases)[:, None]

    def strata(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """`(n, k)`: one column per band of two years and sex that occurs."""
        column = self.sex_column or "sex"
        ages = self.targets(cases)
        keys = [
            "" if math.isnan(age) else f"{age // SPLIT_BAND_MONTHS:.0f} {case.strata.get(column)}"
            for case, age in zip(cases, ages, strict=True)
        ]
        occurring = np.array(sorted(set(keys) - {""}), dtype=np.str_)
        return np.asarray(np.array(keys)[:, None] == occurring, dtype=np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar mean over the cases whose age is known."""
        if self.head is None:
            return self.criterion(outputs[:, 0], (targets - self.mean_months) / self.sd_months)
        years = self._grid_like(outputs) / MONTHS_PER_YEAR
        return self.criterion(outputs, targets / MONTHS_PER_YEAR, years)

    def decode(self, outputs: Tensor) -> Tensor:
        """`(B, 1)` months."""
        if self.head is None:
            return outputs * self.sd_months + self.mean_months
        months = self._decoded(self.head, outputs.double(), self.decoding)
        return months[:, None].to(outputs.dtype)

    def explain(self, outputs: Tensor, label: str) -> Tensor:
        """The expected age, which every output bears on."""
        del label
        if self.head is None:
            return outputs[0, 0]
        return self._decoded(self.head, outputs, "mean")[0]

    def assess(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float | None]:
        """Loss, and mean absolute error in months; None where no age is known."""
        outputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
        known = ~torch.isnan(targets)
        errors = (self.decode(outputs)[:, 0] - targets)[known].abs()
        return float(self.loss(outputs, targets)), float(errors.mean()) if len(errors) else None

    def can_watch(self, cases: Sequence[Case]) -> bool:
        """Whether any age is known: a mean error moves smoothly however few they are."""
        return not np.isnan(self.targets(cases)).all()

    def rows(self, case: Case, score: NDArray[np.float32]) -> list[dict[str, Any]]:
        """One row; `outside_training_range` is "yes" where the prediction must not be trusted."""
        months = float(score[0])
        truth = self._months(case)
        return [
            {
                "label": LABEL,
                "y_true": None if math.isnan(truth) else truth,
                "y_true_raw": case.targets.get(self.column, ""),
                "y_score": months,
                "outside_training_range": "yes" if self.is_outside(case, months) else "no",
            }
        ]

    def is_outside(self, case: Case, months: float) -> bool:
        """Whether an age of this patient lies outside the ages the model has learned from.

        Args:
            case: Its reference bone age, and its `age` in (completed) years, count where known.
            months: The prediction.
        """
        reference = self._months(case)
        ranges = [(months, months), (reference, reference), _chronological_months(case)]
        # A NaN is neither below nor above: an unknown age says nothing.
        return any(
            last < self.lowest_months or first > self.highest_months for first, last in ranges
        )

    def tally(self, cases: Sequence[Case]) -> dict[str, dict[str, int]]:
        """How many ages are known and missing."""
        missing = int(np.isnan(self.targets(cases)).sum())
        return {LABEL: {"known": len(cases) - missing, "missing": missing}}

    def head_bias(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """What an image-blind head would say: the median age, or how often each class occurs."""
        ages = self.targets(cases)
        ages = ages[~np.isnan(ages)]
        if self.head is None:
            return np.array([(np.median(ages) - self.mean_months) / self.sd_months], np.float32)
        nearest = np.abs(self.grid - ages[:, None]).argmin(axis=1)
        # One more of each, so that a class which does not occur is improbable, not impossible.
        counts = np.bincount(nearest, minlength=len(self.grid)) + 1.0
        return self.head.bias(counts).astype(np.float32)

    def weighted(self, cases: Sequence[Case]) -> BoneAge:
        """This task with the mean, SD and range of the training ages.

        Raises:
            ManifestError: When no two ages differ.
        """
        ages = self.targets(cases).astype(float)
        ages = ages[~np.isnan(ages)]
        if len(np.unique(ages)) < 2:
            raise ManifestError(
                f"{len(ages)} known ages, and no two that differ",
                expected="training cases of different ages",
                where=f"column {self.column!r}",
            )
        return replace(
            self,
            mean_months=float(ages.mean()),
            sd_months=float(ages.std()),
            lowest_months=float(ages.min()),
            highest_months=float(ages.max()),
        )

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, besides its recipe, to decode and to read the truth."""
        names = [
            *("column", "sex_column", "class_months", "decoding"),
            *("mean_months", "sd_months", "lowest_months", "highest_months"),
        ]
        return {"kind": "bone_age"} | {name: getattr(self, name) for name in names}

    def _decoded(self, head: Head, outputs: Tensor, decoding: Decoding) -> Tensor:
        """`(B,)` months of ordinal outputs."""
        return decode_values(head.probabilities(outputs), self._grid_like(outputs), decoding)

    def _grid_like(self, tensor: Tensor) -> Tensor:
        """`(K,)` months of the classes, on the tensor's device and of its type."""
        return torch.as_tensor(self.grid, dtype=tensor.dtype, device=tensor.device)

    def _months(self, case: Case) -> float:
        """The reference age of a case, NaN when its cell is empty."""
        text = case.targets.get(self.column, "").strip()
        if text == "":
            return math.nan
        try:
            months = float(text)
        except ValueError:
            months = math.nan
        if not 0 <= months <= OLDEST_MONTHS:
            raise ManifestError(
                f"a value of column {self.column!r} is not an age in months",
                expected=f"a number from 0 to {OLDEST_MONTHS}, or an empty cell",
                where=f"row {case.row}",
            )
        return months


def bone_age_task(cases: Sequence[Case], column: str, **options: Any) -> BoneAge:
    """Return the task of a column of bone ages in months, with the range of these cases.

    Args:
        cases: All cases of the study; `weighted` later takes the training cases alone.
        column: Target column.
        **options: Further fields of `BoneAge`.

    Raises:
        ManifestError: When the ages are years, are no numbers, or do not vary.
    """
    task = BoneAge(column, **options)
    ages = task.targets(cases)
    known = ages[~np.isnan(ages)]
    if len(known) >= ENOUGH_FOR_UNIT and known.max() <= OLDEST_YEARS:
        raise ManifestError(
            f"no age of column {column!r} is above {known.max():g}",
            expected="months",
            where="data.target",
            fix="Multiply years by 12",
        )
    task.inputs(cases)
    return task.weighted(cases)


def _chronological_months(case: Case) -> tuple[float, float]:
    """The patient's age from the manifest's `age` in years, NaN when it is not a number.

    A whole number is taken for completed years: from its first to its last month.
    """
    try:
        years = float(case.strata.get("age", ""))
    except ValueError:
        years = math.nan
    first = years * MONTHS_PER_YEAR
    return first, first + (MONTHS_PER_YEAR - 1 if years.is_integer() else 0)
