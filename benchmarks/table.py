"""One row of the table: two sides of the same work, timed in turn."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import process_time

ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: The work.
        other: Who else does it.
        ours, theirs: Processor seconds.
        ratio: Median of theirs / ours over the rounds; None where there is no other side.
        target: What issue 7 asks for, 0 for nothing.
        agreement: Whether the results agree, or what was scaled.
    """

    what: str
    other: str
    ours: float | None
    theirs: float | None
    ratio: float | None
    target: float = 0.0
    agreement: str = ""

    def markdown(self) -> str:
        """The row as the table shows it."""
        ours, theirs = (f"{s:.4g}" if s is not None else "" for s in (self.ours, self.theirs))
        ratio = f"{self.ratio:.1f}x" if self.ratio is not None else ""
        target = f"{self.target:g}x" if self.target else ""
        return (
            f"| {self.what} | {self.other} | {ours} | {theirs} | {ratio} | {target} "
            f"| {self.agreement} |"
        )


Work = Callable[[], object]


def compare(
    what: str,
    other: str,
    ours: Work,
    theirs: Work,
    agreement: Callable[[object, object], str] | str = "",
    *,
    target: float = 0.0,
    times: float = 1.0,
) -> Row:
    """Time both sides in turn, each after once more without the clock.

    What one side leaves of memory and of the processor's caches is so no cost of the other.

    Args:
        what: The work.
        other: The other side.
        ours: One repetition.
        theirs: One repetition.
        agreement: What to say of the two results.
        target: Ratio asked for.
        times: How much longer the other side's whole work is than what is timed of it.
    """
    first = (ours(), theirs())
    note = agreement if isinstance(agreement, str) else agreement(*first)
    pairs = [(settled(ours), settled(theirs) * times) for _ in range(ROUNDS)]
    return Row(
        what,
        other,
        median(a for a, _ in pairs),
        median(b for _, b in pairs),
        median(b / a for a, b in pairs),
        target,
        note,
    )


def settled(work: Work) -> float:
    """Processor seconds of the second of two repetitions."""
    work()
    return seconds(work)


def seconds(work: Work) -> float:
    """Processor seconds of one repetition."""
    gc.collect()
    started = process_time()
    work()
    return process_time() - started


def missing(what: str, other: str, fault: ImportError, target: float = 0.0) -> Row:
    """The row of a peer that is not installed."""
    return Row(what, other, None, None, None, target, f"not installed: {fault.name}")
