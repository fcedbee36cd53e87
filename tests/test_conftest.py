"""The guards of conftest.py do guard."""

from __future__ import annotations

import os
import socket

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
