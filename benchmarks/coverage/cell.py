"""A setting whose truth is known, and the count of how often its intervals hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from medtl.metrics.scores import CI
from medtl.types import FloatArray, Measure

DRAWS = CI(resamples=300)
"""Bootstrap of an interval that needs one; the package's own default is 2000."""

Truths = dict[str, float]
Drawn = Callable[[np.random.Generator], Iterable[Measure]]
Weighted = Iterable[tuple[float, Iterable[Measure]]]


@dataclass(frozen=True)
class Cell:
    """One setting.

    Attributes:
        name: Of the column.
        truths: Name of a measure -> its true value.
        draw: From a generator to the measures of one sample.
        tables: Every possible sample with its probability, where they can be counted: then the
            coverage is exact and nothing is drawn.
    """

    name: str
    truths: Truths
    draw: Drawn | None = None
    tables: Callable[[], Weighted] | None = None


@dataclass
class Tally:
    """How many samples there were, how many had an interval, and how many of these held the truth.

    Of an exact cell these are probabilities.
    """

    samples: float = 0.0
    there: float = 0.0
    held: float = 0.0
    exact: bool = False

    def add(self, other: Tally) -> None:
        """Count another's samples, too."""
        self.samples += other.samples
        self.there += other.there
        self.held += other.held
        self.exact = other.exact

    @property
    def share(self) -> float:
        """Of the intervals that hold the truth."""
        return self.held / self.there

    @property
    def error(self) -> float:
        """Standard error of the share that comes from the number of samples; 0 where exact.

        Several intervals of one sample count as one.
        """
        if self.exact:
            return 0.0
        number = min(self.there, self.samples)
        # With all of them held the error is that of the least of Wilson's interval.
        share = (self.share * number + 2) / (number + 4)
        return math.sqrt(share * (1 - share) / number)

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


def counted(cell: Cell, rng: np.random.Generator, sets: int) -> dict[str, Tally]:
    """Return the tally of every measure of a cell."""
    if cell.tables is not None:
        weighted: Weighted = cell.tables()
    else:
        draw = cell.draw or (lambda _: [])
        weighted = ((1.0, draw(rng)) for _ in range(sets))
    tallies = {name: Tally(exact=cell.tables is not None) for name in cell.truths}
    for weight, measures in weighted:
        for tally in tallies.values():
            tally.samples += weight
        for measure in measures:
            # A ratio that divides by 0 is said to be "at least" its lower end.
            if measure.name in tallies and measure.low is not None:
                high = math.inf if measure.high is None else measure.high
                tally = tallies[measure.name]
                tally.there += weight
                truth = cell.truths[measure.name]
                tally.held += weight * (measure.low - 1e-9 <= truth <= high + 1e-9)
    return tallies


def clustered(rng: np.random.Generator, n: int, size: int) -> FloatArray:
    """Return standard normal values, those of a patient correlated by a half."""
    if size == 1:
        return rng.normal(size=n)
    own, shared = rng.normal(size=n), np.repeat(rng.normal(size=n // size), size)
    return np.asarray(math.sqrt(0.5) * (own + shared))


def owners(n: int, size: int) -> np.ndarray | None:
    """Return whose each of n rows is, None where every patient has one."""
    return np.arange(n) // size if size > 1 else None


def each(size: int, of: str = "images") -> str:
    """Return how a cell says that patients have several rows."""
    return f", {size} {of} each" if size > 1 else ""


def against(measure: Measure, name: str, truth: float) -> Measure:
    """Return the measure under a name, less its truth, where that differs between samples."""
    low, high = (None if end is None else end - truth for end in (measure.low, measure.high))
    return replace(measure, name=name, low=low, high=high)
