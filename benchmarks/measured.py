"""What a whole command costs: its processor seconds and its most memory, children included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts a process's most memory."""


@dataclass(frozen=True)
class Cost:
    """Of one command.

    Attributes:
        cpu_s: Processor seconds, user and system.
        wall_s: Seconds by the clock.
        peak_mb: Most memory of its largest process, in MB.
    """

    cpu_s: float
    wall_s: float
    peak_mb: float

    def __str__(self) -> str:
        return f"{self.cpu_s:.1f} s CPU, {self.wall_s:.1f} s, {self.peak_mb:,.0f} MB"


def medtl(*arguments: object, python: str = sys.executable) -> Cost:
    """Run a command of medtl on one thread and return what it cost; its output is passed on."""
    return cost_of([str(Path(python).with_name("medtl")), *map(str, arguments)])


def cost_of(command: Sequence[str], cwd: Path | None = None) -> Cost:
    """Run a command on one thread and return what it cost.

    Raises:
        SystemExit: The command failed.
    """
    started = time.perf_counter()
    child = subprocess.Popen(command, cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}")
    peak = used.ru_maxrss * _UNIT / 1e6
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - started, peak)
