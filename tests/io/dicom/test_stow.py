"""STOW-RS: what is sent, and what is said when the server does not take it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from medtl.errors import MedtlError
from medtl.io.dicom.stow import BOUNDARY, store_objects
from medtl.io.dicom.web import Server


class Archive(BaseHTTPRequestHandler):
    """Takes everything, or answers with `status`."""

    status = 200
    got: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive() -> Iterator[str]:
    Archive.status, Archive.got = 200, []
    server = HTTPServer(("127.0.0.1", 0), Archive)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/dicom-web/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_file_is_one_part_of_one_request(archive: str, tmp_path: Path) -> None:
    files = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    for number, file in enumerate(files):
        file.write_bytes(b"DICM" + bytes([number]) * 5)
    assert store_objects(Server(archive), files) == 2
    paths, kinds, bodies = zip(*Archive.got, strict=True)
    assert set(paths) == {"/dicom-web/studies"}
    assert all('multipart/related; type="application/dicom"' in kind for kind in kinds)
    for file, body in zip(files, bodies, strict=True):
        head, _, rest = body.partition(b"\r\n\r\n")
        assert head == f"--{BOUNDARY}\r\nContent-Type: application/dicom".encode()
        assert rest == file.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "asks for credentials"), (409, "cannot store"), (202, "only a part"),
     (302, "redirects"), (500, "status 500")],
)  # fmt: skip
def test_a_refusal_names_the_file(archive: str, tmp_path: Path, status: int, said: str) -> None:
    Archive.status = status
    (tmp_path / "a.dcm").write_bytes(b"x")
    with pytest.raises(MedtlError, match=rf"a.dcm: .*{said}"):
        store_objects(Server(archive), [tmp_path / "a.dcm"])


def test_a_file_with_the_boundary_in_it_is_not_sent(archive: str, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(BOUNDARY.encode())
    with pytest.raises(MedtlError, match=r"a\.dcm: the file holds the words"):
        store_objects(Server(archive), [tmp_path / "a.dcm"])
    assert Archive.got == []


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"x")
    with pytest.raises(MedtlError, match="no connection"):
        store_objects(Server("http://127.0.0.1:9"), [tmp_path / "a.dcm"])
