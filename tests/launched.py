"""Commands in several processes that find each other, as a launcher starts them."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

TESTS = Path(__file__).parent
PLACES = os.pathsep.join([str(TESTS), str(TESTS.parent)])


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def processes_of(command: list[str], processes: int) -> list[subprocess.Popen[str]]:
    """Start a command in so many processes that find each other, as launchers do."""
    shared = {**os.environ, "PYTHONPATH": PLACES, "OMP_NUM_THREADS": "1"}
    shared["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    running = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        running.append(
            subprocess.Popen(command, env=shared | own, stderr=subprocess.PIPE, text=True)
        )
    return running


def together(command: list[str], processes: int) -> None:
    """Run a command in so many processes until all have ended well."""
    running = processes_of(command, processes)
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0] * processes, said
