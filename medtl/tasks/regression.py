"""Regression: one quantity of an image in its unit, told the sex as well where that is stated.

Targets stay in their unit; losses see them standardised by the training values, or on a grid of
classes (ordinal losses), and `decode` leads back to the unit. Bone age is a preset of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ManifestError
from medtl.losses.ordinal import Decoding, Head, decode_values
from medtl.losses.quantity import L1
from medtl.metrics.catalogue import unit_word
from medtl.tasks.findings import joined
from medtl.tasks.inputs import IMAGE_ALONE, Inputs, Sex
from medtl.types import Case

if TYPE_CHECKING:
    from torch import Tensor

FIFTHS = (0.2, 0.4, 0.6, 0.8)
"""Quantiles between which splits are balanced, where a quantity has no bands of its own."""

CLASSES = 20
"""Classes of the ordinal losses over the training range, where no width is stated."""

OLDEST_YEARS = 25
"""Bone ages of which none is above this are years, not months, when there are `ENOUGH_FOR_UNIT`."""

ENOUGH_FOR_UNIT = 10


@dataclass(frozen=True)
class Quantity:
    """What is measured.

    Attributes:
        label: Name in the predictions table and the report.
        unit: "%", "months", "g/cm2"; it ends the names of the measures (`mae_percent`).
        limits: Smallest and largest value there can be, in the unit: another is a fault of the
            table. None for any number.
        meaning: What a cell must be, for messages; "a number in UNIT" by default.
        band: Width, in the unit, of the bands by which splits are balanced; None for fifths.
        per_year: Of an age of development: how many units make a year. The patient's own age then
            tells, too, whether a prediction can be trusted, and ordinal losses count years, for
            which their strengths were published.
    """

    label: str
    unit: str = ""
    limits: tuple[float, float] | None = None
    meaning: str = ""
    band: float | None = None
    per_year: float | None = None

    def read(self, case: Case, column: str) -> float:
        """Return the reference value of a case in the unit, NaN when its cell is empty.

        Raises:
            ManifestError: When the cell is no number, or none within the limits.
        """
        text = case.targets.get(column, "").strip()
        if text == "":
            return math.nan
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        low, high = self.limits or (-math.inf, math.inf)
        if not (math.isfinite(value) and low <= value <= high):
            numbers = f"a number from {low:g} to {high:g}" if self.limits else "a number"
            raise ManifestError(
                f"a value of column {column!r} is not {self.meaning or f'a number in {self.unit}'}",
                expected=f"{numbers}, or an empty cell",
                where=f"row {case.row}",
            )
        return value


BONE_AGE = Quantity(
    "bone_age_months", "months", (0, 300), "an age in months", band=24, per_year=12.0
)
"""Skeletal age of a hand. Above 25 years no hand has one: such a number is in another unit."""


@dataclass(frozen=True)
class Regression:
    """A quantity: one output, or an output per class or threshold of ordinal losses.

    Attributes:
        column: Target column, in the quantity's unit.
        quantity: What is measured.
        sex_column: Column of the sex that joins the image's features; "" for the image alone.
        criterion: The loss: of standardised values, or with a `head` (those in `losses.ordinal`) of
            values and classes in years or, where the quantity is no age, in widths of a class.
        class_width: Of the ordinal losses, in the unit; None for a twentieth of the training range.
        decoding: How class probabilities become one value.
        mean, sd, lowest, highest: Of the training values, once `weighted` has seen them.
    """

    column: str
    quantity: Quantity
    sex_column: str = ""
    criterion: Callable[..., Tensor] = field(default_factory=L1)
    class_width: float | None = None
    decoding: Decoding = "mean"
    mean: float = field(default=math.nan, kw_only=True)
    sd: float = field(default=math.nan, kw_only=True)
    lowest: float = field(default=math.nan, kw_only=True)
    highest: float = field(default=math.nan, kw_only=True)
    larger_is_better: bool = field(default=False, init=False)
    encode: None = field(default=None, init=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of the quantity."""
        return (self.quantity.label,)

    @property
    def unit(self) -> str:
        """The unit of the quantity."""
        return self.quantity.unit

    @property
    def watched(self) -> str:
        """The mean absolute error, with its unit ("mae_months")."""
        return "_".join(["mae", unit_word(self.quantity.unit)]).rstrip("_")

    @property
    def inputs(self) -> Inputs:
        """The sex, where a column of it is named."""
        return Sex(self.sex_column) if self.sex_column else IMAGE_ALONE

    @property
    def outputs(self) -> int:
        """One standardised value; or one logit per class, or per threshold between classes."""
        return 1 if self.head is None else len(self.grid) - self.head.thresholds

    @property
    def head(self) -> Head | None:
        """What the outputs of an ordinal loss stand for; None for one standardised value."""
        return getattr(self.criterion, "head", None)

    @property
    def width(self) -> float:
        """Of a class, in the unit."""
        return self.class_width or (self.highest - self.lowest) / CLASSES

    @property
    def grid(self) -> NDArray[np.float64]:
        """`(K,)` values of the classes: multiples of their width that enclose those of training."""
        first = math.floor(self.lowest / self.width)
        last = math.ceil(self.highest / self.width)
        return self.width * np.arange(first, max(last, first + 1) + 1, dtype=np.float64)

    def targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n,)` values in the unit; NaN where they are not known.

        Raises:
            ManifestError: When a cell is not a number within the limits.
        """
        return np.array([self.quantity.read(case, self.column) for case in cases], np.float32)

    def certain_targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """The targets: none is uncertain."""
        return self.targets(cases)

    def truth_matrix(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, 1)` values in the unit; NaN where they are not known."""
        return self.targets(cases)[:, None]

    def strata(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """`(n, k)`: one column per band of the values, and sex, that occurs."""
        column = self.sex_column or ("sex" if self.quantity.per_year else "")
        values = self.targets(cases)
        keys = [
            "" if math.isnan(band) else f"{band:.0f} {case.strata.get(column)}"
            for case, band in zip(cases, self._bands(values), strict=True)
        ]
        occurring = np.array(sorted(set(keys) - {""}), dtype=np.str_)
        return np.asarray(np.array(keys)[:, None] == occurring, dtype=np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar mean over the cases whose value is known."""
        if self.head is None:
            return self.criterion(outputs[:, 0], (targets - self.mean) / self.sd)
        scale = self.quantity.per_year or self.width
        return self.criterion(outputs, targets / scale, self._grid_like(outputs) / scale)

    def decode(self, outputs: Tensor) -> Tensor:
        """`(B, 1)` values in the unit."""
        if self.head is None:
            return outputs * self.sd + self.mean
        values = self._decoded(self.head, outputs.double(), self.decoding)
        return values[:, None].to(outputs.dtype)

    def explain(self, outputs: Tensor, label: str) -> Tensor:
        """The expected value, which every output bears on."""
        del label
        if self.head is None:
            return outputs[0, 0]
        return self._decoded(self.head, outputs, "mean")[0]

    def assess(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float | None]:
        """Loss, and mean absolute error in the unit; None where no value is known."""
        outputs, targets = joined(batches)
        known = ~targets.isnan()
        errors = (self.decode(outputs)[:, 0] - targets)[known].abs()
        return float(self.loss(outputs, targets)), float(errors.mean()) if len(errors) else None

    def can_watch(self, cases: Sequence[Case]) -> bool:
        """Whether any value is known: a mean error moves smoothly however few they are."""
        return not np.isnan(self.targets(cases)).all()

    def rows(self, case: Case, score: NDArray[np.float32]) -> list[dict[str, Any]]:
        """One row; `outside_training_range` is "yes" where the prediction must not be trusted."""
        value = float(score[0])
        truth = self.quantity.read(case, self.column)
        return [
            {
                "label": self.quantity.label,
                "y_true": None if math.isnan(truth) else truth,
                "y_true_raw": case.targets.get(self.column, ""),
                "y_score": value,
                "outside_training_range": "yes" if self.is_outside(case, value) else "no",
            }
        ]

    def is_outside(self, case: Case, value: float) -> bool:
        """Whether a value of this patient lies outside of those the model has learned from.

        Args:
            case: Its reference and, of an age of development, its `age` in (completed) years,
                count where known.
            value: The prediction.
        """
        reference = self.quantity.read(case, self.column)
        ranges = [(value, value), (reference, reference)]
        if self.quantity.per_year:
            ranges.append(_own_age(case, self.quantity.per_year))
        # A NaN is neither below nor above: an unknown value says nothing.
        return any(last < self.lowest or first > self.highest for first, last in ranges)

    def tally(self, cases: Sequence[Case]) -> dict[str, dict[str, int]]:
        """How many values are known and missing."""
        missing = int(np.isnan(self.targets(cases)).sum())
        return {self.quantity.label: {"known": len(cases) - missing, "missing": missing}}

    def summary(self, cases: Sequence[Case]) -> str:
        """The smallest, the median and the largest value, and how many are missing.

        >>> from pathlib import Path
        >>> cases = [Case(str(n), "p", Path("a"), {"x": str(n)}) for n in (4, 9, 30)]
        >>> Regression("x", Quantity("volume", "ml")).summary(cases)
        'volume 4 to 30 ml, median 9'
        """
        values = self.targets(cases).astype(float)
        values = values[~np.isnan(values)]
        missing = len(cases) - len(values)
        lacking = f", {missing} without a value" if missing else ""
        if not len(values):
            return f"{self.quantity.label}: no value is known{lacking}"
        is_told = not self.unit or self.quantity.label.endswith(self.unit)
        unit = "" if is_told else f" {self.unit}"
        low, median, high = np.percentile(values, (0, 50, 100))
        return f"{self.quantity.label} {low:.6g} to {high:.6g}{unit}, median {median:.6g}{lacking}"

    def head_bias(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """What an image-blind head would say: the median, or how often each class occurs."""
        values = self.targets(cases)
        values = values[~np.isnan(values)]
        if self.head is None:
            return np.array([(np.median(values) - self.mean) / self.sd], np.float32)
        nearest = np.abs(self.grid - values[:, None]).argmin(axis=1)
        # One more of each, so that a class which does not occur is improbable, not impossible.
        counts = np.bincount(nearest, minlength=len(self.grid)) + 1.0
        return self.head.bias(counts).astype(np.float32)

    def weighted(self, cases: Sequence[Case]) -> Regression:
        """This task with the mean, SD and range of the training values.

        Raises:
            ManifestError: When no two values differ.
        """
        values = self.targets(cases).astype(float)
        values = values[~np.isnan(values)]
        if len(np.unique(values)) < 2:
            raise ManifestError(
                f"{len(values)} known values, and no two that differ",
                expected="training cases of different values",
                where=f"column {self.column!r}",
            )
        return replace(
            self,
            mean=float(values.mean()),
            sd=float(values.std()),
            lowest=float(values.min()),
            highest=float(values.max()),
        )

    def observed(self, masks: Iterable[tuple[str, NDArray[np.uint8]]]) -> Regression:
        """This task: it has no masks."""
        del masks
        return self

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, besides its recipe, to decode and to read the truth."""
        names = {one.name for one in fields(self) if one.init} - {"criterion", "quantity"}
        told = {name: getattr(self, name) for name in sorted(names)}
        return {"kind": "regression", **told, "quantity": vars(self.quantity)}

    def _bands(self, values: NDArray[np.float32]) -> NDArray[np.floating]:
        """`(n,)` number of the band of each value, NaN where it is not known."""
        if self.quantity.band is not None:
            return np.asarray(values // self.quantity.band)
        known = values[~np.isnan(values)]
        edges = np.quantile(known, FIFTHS) if len(known) else np.zeros(0)
        return np.where(np.isnan(values), np.nan, np.searchsorted(edges, values, side="right"))

    def _decoded(self, head: Head, outputs: Tensor, decoding: Decoding) -> Tensor:
        """`(B,)` values of ordinal outputs."""
        return decode_values(head.probabilities(outputs), self._grid_like(outputs), decoding)

    def _grid_like(self, tensor: Tensor) -> Tensor:
        """`(K,)` values of the classes, on the tensor's device and of its type."""
        return tensor.new_tensor(self.grid)


def regression_task(
    cases: Sequence[Case], column: str, quantity: Quantity, **options: Any
) -> Regression:
    """Return the task of a column of values, with the range of these cases.

    Args:
        cases: All cases of the study; `weighted` later takes the training cases alone.
        column: Target column.
        quantity: What it holds.
        **options: Further fields of `Regression`.

    Raises:
        ManifestError: When the values are no numbers within the limits, or do not vary; or a cell
            of the sex is none.
    """
    task = Regression(column, quantity, **options)
    task.inputs(cases)
    return task.weighted(cases)


def bone_age_task(
    cases: Sequence[Case], column: str, *, class_months: float = 12.0, **options: Any
) -> Regression:
    """Return the task of a column of bone ages in months. Arguments as `regression_task`.

    Args:
        cases: All cases of the study.
        column: Target column.
        class_months: Width of a class of the ordinal losses.
        **options: Further fields of `Regression`.

    Raises:
        ManifestError: When the ages are years, are no numbers, or do not vary.
    """
    task = regression_task(cases, column, BONE_AGE, class_width=class_months, **options)
    known = int((~np.isnan(task.targets(cases))).sum())
    if known >= ENOUGH_FOR_UNIT and task.highest <= OLDEST_YEARS:
        raise ManifestError(
            f"no age of column {column!r} is above {task.highest:g}",
            expected="months",
            where="data.target",
            fix="Multiply years by 12",
        )
    return task


def _own_age(case: Case, per_year: float) -> tuple[float, float]:
    """The patient's age, from the manifest's `age` in years, in units of which a year has some.

    A whole number is taken for completed years: from their first to their last unit. NaN when it is
    not a number.
    """
    try:
        years = float(case.strata.get("age", ""))
    except ValueError:
        years = math.nan
    first = years * per_year
    return first, first + (per_year - 1 if years.is_integer() else 0)
