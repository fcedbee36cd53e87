"""Images in a bucket, from an object store of this machine that speaks as much S3 as is asked."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from make_dicom import write

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.errors import ImageError
from medtl.io.read import read_image
from medtl.io.remote import local_copy, version_of

s3fs = pytest.importorskip("s3fs")

LISTING = (
    '<?xml version="1.0"?><ListBucketResult><Name>films</Name><KeyCount>0</KeyCount>'
    "<IsTruncated>false</IsTruncated></ListBucketResult>"
)


class Handler(BaseHTTPRequestHandler):
    """Answers about the objects of a `Store`."""

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(is_head=True)

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self.send(200, LISTING.encode(), {"Content-Type": "application/xml"})
        else:
            self.answer(is_head=False)

    def answer(self, *, is_head: bool) -> None:
        assert "Authorization" in self.headers, "the user's credentials sign each request"
        store, name = self.server.store, self.path.partition("?")[0].removeprefix("/films/")
        data = store.objects.get(name)
        if data is None:
            self.send(404, b"", {})
            return
        store.fetched += [name] * (not is_head)
        code, about = 200, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        about["Last-Modified"] = formatdate(0, usegmt=True)
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if first:
            end = min(int(last or len(data)), len(data) - 1)
            about["Content-Range"] = f"bytes {first}-{end}/{len(data)}"
            code, data = 206, data[int(first) : end + 1]
        self.send(code, data, about, is_head=is_head)

    def send(self, code: int, data: bytes, about: dict[str, str], *, is_head: bool = False) -> None:
        self.send_response(code)
        for key, value in {**about, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not is_head:
            self.wfile.write(data)


class Store:
    """A bucket `films`, and what was fetched from it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.store = self
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    opened = Store()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{opened.http.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-a-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-a-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield opened
    s3fs.S3FileSystem.clear_instance_cache()
    opened.http.shutdown()
    opened.http.server_close()


def film(tmp_path: Path, level: int) -> bytes:
    write(tmp_path / "made.dcm", np.full((20, 24), level, np.uint16))
    return (tmp_path / "made.dcm").read_bytes()


def test_a_film_of_a_bucket_is_the_film(store, tmp_path):
    store.objects["chest/a.dcm"] = film(tmp_path, 7)
    image = read_image("s3://films/chest/a.dcm")
    np.testing.assert_array_equal(image.array, read_image(tmp_path / "made.dcm").array)


def test_it_is_fetched_once_and_again_when_it_has_changed(store, tmp_path):
    place, copies = Path("s3://films/a.dcm"), tmp_path / "copies"
    copies.mkdir()
    store.objects["a.dcm"] = film(tmp_path, 7)
    first, version = local_copy(place, copies), version_of(place)
    fetched = [*store.fetched]
    assert local_copy(place, copies) == first
    assert store.fetched == fetched, "the local copy was read"
    store.objects["a.dcm"] = film(tmp_path, 8)
    assert version_of(place) != version, "not what was said of it before"
    second = local_copy(place, copies)
    assert second.read_bytes() == store.objects["a.dcm"] != first.read_bytes()


def test_a_manifest_may_name_buckets(store, tmp_path):
    store.objects["a.dcm"] = film(tmp_path, 7)
    table = tmp_path / "films.csv"
    table.write_text("image,patient_id,effusion\ns3://films/a.dcm,p1,1\n")
    (case,) = read_manifest(table, Columns(targets=["effusion"]), salt=b"s" * 32).cases
    assert read_image(case.image).array.shape == (1, 20, 24)


def test_an_object_that_is_not_there_is_said_without_its_address(store):
    with pytest.raises(ImageError, match=r"^none\.dcm: the file cannot be fetched") as error:
        read_image("s3://films/secret-folder/none.dcm")
    assert "secret-folder" not in str(error.value)
