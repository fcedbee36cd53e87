"""Images behind an address, from a server of this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from make_dicom import write

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.errors import ImageError, ManifestError
from medtl.io import remote
from medtl.io.read import read_image
from medtl.io.remote import address_of, is_remote, local_copy

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


class Server:
    """A folder that is served, and what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, _format: str, *words: object) -> None:
                asked.append(str(words[0]).split()[0])

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    served = Server(tmp_path / "served")
    yield served
    served.http.shutdown()
    served.http.server_close()


def film(folder: Path, name: str, level: int) -> None:
    write(folder / name, np.full((20, 24), level, np.uint16))


def test_a_film_of_a_server_is_the_film(server, tmp_path):
    film(server.folder, "a.dcm", 7)
    path = Path(f"{server.address}/a.dcm")
    assert address_of(path) == f"{server.address}/a.dcm"
    found = read_image(path)
    assert (found.array == read_image(server.folder / "a.dcm").array).all()


def test_it_is_fetched_once_and_again_when_it_has_changed(server, tmp_path):
    film(server.folder, "a.dcm", 7)
    path, copies = Path(f"{server.address}/a.dcm"), tmp_path / "copies"
    copies.mkdir()
    first = local_copy(path, copies)
    fetched = server.asked.count("GET")
    assert local_copy(path, copies) == first
    assert server.asked.count("GET") == fetched
    film(server.folder, "a.dcm", 9)
    with (server.folder / "a.dcm").open("ab") as file:
        file.write(b"\0\0")
    again = local_copy(path, copies)
    assert again != first
    assert again.read_bytes() == (server.folder / "a.dcm").read_bytes()


def test_a_manifest_may_name_addresses(server, tmp_path):
    film(server.folder, "a.dcm", 7)
    (tmp_path / "b.png").touch()
    table = tmp_path / "films.csv"
    table.write_text(f"image,patient_id\n{server.address}/a.dcm,p1\nb.png,p2\n")
    found = read_manifest(table, Columns(), salt=b"s")
    there, here = found.cases
    assert read_image(there.image).array.shape == (1, 20, 24)
    assert here.image == tmp_path / "b.png"
    assert there.case_id != here.case_id
    assert any("1 images are on servers" in note for note in found.notes)


@pytest.mark.parametrize(
    "cell", ["file:///etc/passwd", "https://a::file:///etc/passwd", "memory://a", "https://a//b"]
)
def test_no_other_address_is_taken(tmp_path, cell):
    (tmp_path / "films.csv").write_text(f"image,patient_id\n{cell},p1\n")
    with pytest.raises(ManifestError, match="image: "):
        read_manifest(tmp_path / "films.csv", Columns(), salt=b"s")


def test_a_file_that_is_not_there_is_said_without_its_address(server):
    path = Path(f"{server.address}/none.dcm?signature=secret")
    with pytest.raises(ImageError, match=r"none.dcm: the file cannot be fetched") as caught:
        read_image(path)
    assert "secret" not in str(caught.value)


def test_a_missing_library_is_named(monkeypatch):
    def missing(_path: Path) -> None:
        raise ImportError("no s3fs")

    monkeypatch.setattr(remote, "_opened", missing)
    with pytest.raises(ImageError, match=r"a library for s3:// is not .*medtl\[s3\]"):
        read_image("s3://bucket/a.dcm")


def test_copies_make_room(server, tmp_path, monkeypatch):
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(remote, "CACHE_BYTES", 2000)
    monkeypatch.setattr(remote, "_FETCHES_BETWEEN_LOOKS", 1)
    for number in range(3):
        (server.folder / f"{number}.bin").write_bytes(os.urandom(900))
        local_copy(Path(f"{server.address}/{number}.bin"), copies)
    assert len(list(copies.iterdir())) == 2


def test_a_file_without_an_end_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "FILE_BYTES", 2 << 20)
    (server.folder / "long.bin").write_bytes(bytes(3 << 20))
    with pytest.raises(ImageError, match=r"long.bin: larger than the limit of 2 MiB"):
        local_copy(Path(f"{server.address}/long.bin"), tmp_path)
    assert not list(tmp_path.glob("*long.bin"))


@pytest.mark.parametrize("text", ["a/b.dcm", "C:/a.dcm", "C:\\a.dcm", "ftp://h/a", "https:"])
def test_what_is_a_file_of_this_machine(text):
    assert not is_remote(text)
    assert not is_remote(Path(text))
