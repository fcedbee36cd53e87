"""Processes that see other numbers, or of which one fails, end together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from launched import processes_of

SCRIPT = Path(__file__).with_name("processes_apart.py")


def ended(folder: Path, mode: str) -> tuple[list[int | None], list[str]]:
    """Return codes of two processes, None for one that stood still, and what each wrote."""
    running = processes_of([sys.executable, str(SCRIPT), str(folder), mode], 2)
    codes: list[int | None] = []
    for process in running:
        try:
            process.communicate(timeout=400)
            codes.append(process.returncode)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            codes.append(None)
    return codes, [p.read_text() for p in sorted(folder.glob("rank*.txt"))]


@pytest.mark.slow
def test_processes_that_disagree_by_noise_stop_in_the_same_epoch(tmp_path):
    assert ended(tmp_path, "noise") == ([0, 0], ["3", "3"])


@pytest.mark.slow
def test_deciding_by_values_of_ones_own_never_ends_well(tmp_path):
    """The control: one process leaves the stage, the other goes on and waits for it."""
    assert ended(tmp_path, "own values")[0] != [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["error", "broken"])
def test_the_error_of_one_process_ends_all(tmp_path, mode):
    codes, said = ended(tmp_path, mode)
    assert all(codes), codes
    assert "this process broke" in said[1]
    assert mode == "error" or "another process of this training has stopped" in said[0]
