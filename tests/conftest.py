"""What every test can rely on: no network, no trace in the user's folders, one `shared` folder."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medtl.storage.interrupt import STOP_SIGNALS

# Before any library is imported: each of these asks a server, or writes to the user's folder.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ.setdefault("MPLBACKEND", "agg")

LOOPBACK = ("127.", "::1", "localhost")
STARTED = time.monotonic()


class NetworkTouchedError(RuntimeError):
    """A test that reached for a machine other than this one."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine (docs/decisions/0005-no-network.md)."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        is_inet = self.family in (socket.AF_INET, socket.AF_INET6)
        if is_inet and not str(address[0]).startswith(LOOPBACK):
            msg = f"a test connected to {address[0]}; nothing in medtl may need the network"
            raise NetworkTouchedError(msg)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(autouse=True)
def _usual_signals() -> None:
    """Stop signals stop: background jobs of a shell ignore Ctrl-C, medtl ends deaf."""
    for number in STOP_SIGNALS:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Where minutes are stated, begin no test after them: the summary says how many were left."""
    minutes = float(os.environ.get("MEDTL_SUITE_MINUTES", "inf"))
    if time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(f"not reached in the {minutes:g} minutes of MEDTL_SUITE_MINUTES")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by length: a gzip header holds the time, and workers must agree on names."""
    return f"{len(val)}bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def _own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the pseudonym salt and the caches of the tests out of the user's folders."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("data", "cache"):
            patch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path_factory.mktemp(f"{name}-home")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout: public images and oracles that are not in git."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder `shared` beside the checkout, which is not there")
    return folder
