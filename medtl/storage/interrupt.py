"""Stopping on a signal where nothing is half done, with the status that a shell expects.

Python raises the exception of a signal between any two instructions. Inside a reader written in
Rust or C it can come out as another exception ("the file is cut"), and the run would end in a false
fault. So whoever reads or writes a file holds signals back for that moment, and the training loop
holds them for good and asks between two steps.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)
"""Signals that end a program: Ctrl-C, a scheduler, a closed terminal, SLURM before a job's time is
over. Windows has the first two."""


class Stopped(SystemExit):
    """A signal has asked the program to end.

    Args:
        number: Of the signal; the exit status is 128 more.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Listener:
    """Turns the first stop signal into `Stopped`; a second one ends the process at once.

    Attributes:
        heard: Number of the first signal, None before it.
    """

    def __init__(self) -> None:
        self.heard: int | None = None

    def listen(self) -> None:
        """Take over the signals, except those that the parent told this process to ignore."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)

    def close(self) -> None:
        """Ignore what comes now: the end is decided, and Python would die of it on its way out."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) == self._hear:
                signal.signal(number, signal.SIG_IGN)

    def _hear(self, number: int, _frame: FrameType | None) -> NoReturn:
        """End in order the first time."""
        if self.heard is not None:
            os._exit(128 + number)
        self.heard = number
        raise Stopped(number)


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Hold stop signals back until the block has ended, then deliver the first of them.

    Yields a function that tells whether one is waiting. A second signal ends the process at once.
    Only the main thread is ever interrupted, so in other threads there is nothing to hold back.
    """
    waiting: list[int] = []

    def wait(number: int, _frame: FrameType | None) -> None:
        if waiting:
            os._exit(128 + number)
        waiting.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    mine = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in mine:
            signal.signal(number, wait)
        yield lambda: bool(waiting)
    finally:
        for number in mine:
            signal.signal(number, before[number])
        if waiting:
            signal.raise_signal(waiting[0])
