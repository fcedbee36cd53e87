"""The guards of conftest.py do guard."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def test_connection_to_another_machine_is_refused() -> None:
    # 192.0.2.1 is reserved for documentation (RFC 5737): nobody is there.
    with socket.socket() as out, pytest.raises(RuntimeError, match=r"connected to 192\.0\.2\.1"):
        out.connect(("192.0.2.1", 80))


def test_connection_to_this_machine_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_data_folder_is_not_the_users() -> None:
    assert "data-home" in os.environ["XDG_DATA_HOME"]


@pytest.mark.parametrize(("minutes", "said"), [("0", "1 skipped"), ("60", "1 passed")])
def test_no_test_begins_when_the_minutes_of_a_suite_are_over(minutes: str, said: str) -> None:
    test = f"{__file__}::{test_data_folder_is_not_the_users.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "MEDTL_SUITE_MINUTES": minutes}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert said in done.stdout
    assert ("not reached in the 0 minutes" in done.stdout) == (minutes == "0")
