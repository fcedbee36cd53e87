"""What every statistic takes: truth and score of the same rows, checked once, and an interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CI:
    """How intervals are made.

    Attributes:
        level: In (0, 1).
        resamples: Of the patients, where an interval needs the bootstrap.
        seed: Of the bootstrap.
    """

    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


CI95 = CI()
"""The interval of everything that states none: 95 percent, 2000 resamples."""
