"""An archive for tests and demonstrations: Orthanc, started on this machine and for it alone."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from medtl.errors import InstallationError, RunError

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
"""Of the Debian package orthanc-dicomweb."""

STARTS_WITHIN_S = 60
"""An archive that does not answer for so long does not start."""


@contextmanager
def local_archive(folder: Path, accounts: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start an empty archive; yield the address of its DICOMweb service; end it afterwards.

    Args:
        folder: For its configuration, log and storage; made when missing.
        accounts: Name -> password of those who may ask; None lets everybody on this machine.

    Raises:
        InstallationError: When Orthanc or its plugin is not installed.
        RunError: When it does not start.
    """
    program = find_orthanc()
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    config = {
        "Name": "medtl",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],  # of later versions; RemoteAccessAllowed of this one
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": accounts is not None,
        "RegisteredUsers": dict(accounts or {}),
        "HttpVerbose": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    settings, log = folder / "orthanc.json", folder / "orthanc.log"
    settings.write_text(json.dumps(config), encoding="utf-8")
    with log.open("wb") as said:
        process = subprocess.Popen([program, str(settings)], stdout=said, stderr=said)
        try:
            url = f"http://127.0.0.1:{port}/dicom-web"
            _wait_for(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def find_orthanc() -> str:
    """Return the program.

    Raises:
        InstallationError: When it or its plugin is not installed.
    """
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.is_file():
        raise InstallationError(
            "there is no Orthanc with DICOMweb on this machine",
            fix="Install the Debian packages orthanc and orthanc-dicomweb",
        )
    return program


def _free_port() -> int:
    """A port of loopback that nothing listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the archive answers, be it with a refusal."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ends = time.monotonic() + STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < ends:
        try:
            opener.open(f"{url}/studies", timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    last = log.read_text("utf-8", "replace").splitlines()[-1:]
    raise RunError("Orthanc does not start", where=log.name, fix="".join(last))
