"""Counter-based randomness: every draw is a function of where it happens, of nothing else.

Then any number of workers, and a resumed run, give the same bits (Salmon et al., SC 2011).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a draw is for; two streams never share numbers."""

    INIT = 0
    ORDER = 1
    AUGMENT = 2
    DROPOUT = 3
    UNLABELLED = 4


def generator(seed: int, stream: Stream, *counters: int) -> np.random.Generator:
    """Return the generator of one place: `(seed, stream, epoch, index)` or `(seed, stream, step)`.

    The first draw of `generator(0, Stream.ORDER, 3)` is the same in every process, every time.
    """
    return np.random.default_rng([seed, int(stream), *counters])


def torch_seed(seed: int, stream: Stream, *counters: int) -> int:
    """Return a 63-bit seed for torch's own generators at one place."""
    return int(generator(seed, stream, *counters).integers(2**63 - 1))
