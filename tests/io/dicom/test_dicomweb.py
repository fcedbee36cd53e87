"""A study over WADO-RS from a server on loopback that does what it is told, faults included."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from make_dicom import write

from medtl.errors import MedtlError
from medtl.io.dicom import web as dicomweb
from medtl.io.dicom.web import PASSWORD, TOKEN, USER, Server, fetch_study

STUDY = "1.2.840.99"
MULTIPART = 'multipart/related; type="application/dicom"; boundary="b-1"'
SECRET = "CANARY-secret"

Answer = Callable[[BaseHTTPRequestHandler], None]


class Fake:
    """A server whose one answer a test states; it keeps the requests it has seen."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.answer: Answer = reply(404)
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.requests.append((self.command, self.path, dict(self.headers)))
                fake.answer(self)
                self.close_connection = True

            def log_message(self, *_args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    for name in (TOKEN, USER, PASSWORD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fake = Fake()
    threading.Thread(target=fake.server.serve_forever, args=(0.01,), daemon=True).start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


def reply(
    status: int, body: bytes = b"", kind: str = MULTIPART, *, length: int | None = None
) -> Answer:
    """An answer with a body, and perhaps a false length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def image(tmp_path: Path, number: int, **elements: object) -> bytes:
    """The bytes of an image of the study."""
    elements = {"StudyInstanceUID": STUDY, "SOPInstanceUID": f"1.2.3.{number}", **elements}
    path = write(tmp_path / "one.dcm", np.full((4, 5), number, np.uint16), **elements)
    return path.read_bytes()


def multipart(*parts: bytes, kind: str = "application/dicom", end: bytes = b"--") -> bytes:
    """A multipart/related body (RFC 2387)."""
    body = b""
    for part in parts:
        head = f"Content-Type: {kind}\r\nContent-Length: {len(part)}\r\n\r\n".encode()
        body += b"--b-1\r\n" + head + part + b"\r\n"
    return body + b"--b-1" + end + b"\r\n" * (end == b"--")


def test_the_images_of_a_study_are_fetched_by_one_read_only_request(fake, folder, tmp_path):
    parts = [image(tmp_path, number) for number in (1, 2)]
    fake.answer = reply(200, multipart(*parts))
    fetched = fetch_study(Server(fake.url + "/"), STUDY, folder)
    assert [path.name for path in fetched.images] == ["1.2.3.1.dcm", "1.2.3.2.dcm"]
    assert [path.read_bytes() for path in fetched.images] == parts
    assert fetched.left_out == {}
    ((method, path, headers),) = fake.requests
    assert (method, path) == ("GET", f"/dicom-web/studies/{STUDY}")
    assert headers["Accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert "Authorization" not in headers
    assert sorted(folder.iterdir()) == sorted(fetched.images)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_parts_are_found_wherever_the_chunks_are_cut(fake, folder, tmp_path, size, monkeypatch):
    parts = [image(tmp_path, n, ImageComments="x\r\n--b-0\r\n\r\n--b-") for n in (1, 2)]
    fake.answer = reply(200, b"preamble\r\n" + multipart(*parts))
    monkeypatch.setattr(dicomweb, "_CHUNK_BYTES", size)
    fetched = fetch_study(Server(fake.url), STUDY, folder)
    assert [path.read_bytes() for path in fetched.images] == parts


def test_a_chunked_answer_is_read(fake, folder, tmp_path):
    part = image(tmp_path, 1)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", MULTIPART)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        source = BytesIO(multipart(part))
        while chunk := source.read(100):
            handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    fake.answer = answer
    assert fetch_study(Server(fake.url), STUDY, folder).images[0].read_bytes() == part


def test_what_is_no_image_is_left_out(fake, folder, tmp_path):
    report = image(tmp_path, 2, Modality="SR")
    parts = [
        image(tmp_path, 1),
        report,
        image(tmp_path, 3, Modality="SEG"),
        image(tmp_path, 4, Modality="OT", Manufacturer="medtl"),
        image(tmp_path, 1),
    ]
    fake.answer = reply(200, multipart(*parts))
    fetched = fetch_study(Server(fake.url), STUDY, folder)
    assert [path.name for path in fetched.images] == ["1.2.3.1.dcm"]
    assert fetched.left_out == {"no image": 3, "a result of medtl": 1}
    assert [path.name for path in folder.iterdir()] == ["1.2.3.1.dcm"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(401), "asks for credentials, or refuses them.*Set MEDTL_DICOMWEB_TOKEN"),
        (reply(403), "refuses access"),
        (reply(404), "knows no such study, or has no DICOMweb there"),
        (reply(406), "does not give DICOM files as they are stored"),
        (reply(500, SECRET.encode()), "answers with status 500"),
        (reply(204), "the study has no images"),
        (reply(200, multipart()), "the study has no images"),
        (reply(200, b"<html>", "text/html"), "not that of a DICOMweb server"),
        (reply(200, b"[]", "application/dicom+json"), "not that of a DICOMweb server"),
        (reply(200, b"x", "multipart/related"), "not that of a DICOMweb server"),
        (reply(200, multipart(b"{}", kind="application/json")), "a part .* is no DICOM file"),
        (reply(200, multipart(b"no DICOM")), "cannot be read: not a DICOM file"),
        (reply(200, b"nothing"), "ends in the middle"),
        (reply(200, b"--b-1\r\nContent-Type: application/dicom\r\n"), "ends in the middle"),
    ],
)
def test_an_answer_that_is_no_study_is_said(fake, folder, answer, message):
    fake.answer = answer
    with pytest.raises(MedtlError, match=f"^127.0.0.1: .*{message}") as error:
        fetch_study(Server(fake.url), STUDY, folder)
    assert SECRET not in str(error.value)
    assert STUDY not in str(error.value)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 5, 8, 200])
@pytest.mark.parametrize("is_declared", [True, False])
def test_a_truncated_answer_leaves_nothing(fake, folder, tmp_path, cut, is_declared):
    body = multipart(image(tmp_path, 1), image(tmp_path, 2), end=b"--")[:-2]
    length = len(body) if is_declared else len(body) - cut
    fake.answer = reply(200, body[:-cut], length=length)
    with pytest.raises(MedtlError, match="ends in the middle of a file"):
        fetch_study(Server(fake.url), STUDY, folder)
    assert list(folder.iterdir()) == []


def test_files_of_another_study_are_refused(fake, folder, tmp_path):
    for elements in ({"StudyInstanceUID": "1.2.3"}, {"SOPInstanceUID": "../../x"}):
        fake.answer = reply(200, multipart(image_raw(tmp_path, **elements)))
        with pytest.raises(MedtlError, match="a file of another study"):
            fetch_study(Server(fake.url), STUDY, folder)
    assert list(folder.iterdir()) == []


def image_raw(tmp_path: Path, **elements: str) -> bytes:
    """An image with a UID that pydicom would not write: the bytes are changed in place."""
    (name, text), *_ = elements.items()
    placeholder = "1.2.3.4.5.6.7.8.9"[: len(text)]
    data = image(tmp_path, 1, **{name: placeholder})
    assert placeholder.encode() in data
    return data.replace(placeholder.encode(), text.encode())


def test_a_study_over_the_limits_is_refused(fake, folder, tmp_path):
    fake.answer = reply(200, multipart(*(image(tmp_path, number) for number in range(5))))
    for server in (Server(fake.url, most_bytes=1000), Server(fake.url, most_files=4)):
        with pytest.raises(MedtlError, match=r"larger than allowed; expected at most (1000 b|4 f)"):
            fetch_study(server, STUDY, folder)
    assert list(folder.iterdir()) == []
    fake.answer = reply(200, b"--b-1\r\n" + b"x" * 100_000)
    with pytest.raises(MedtlError, match="at most 16384 bytes in one part"):
        fetch_study(Server(fake.url), STUDY, folder)


def test_a_silent_server_is_not_waited_for(fake, folder):
    released = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        released.wait(10)

    def begin(handler: BaseHTTPRequestHandler) -> None:
        reply(200, b"--b-1\r\n", length=1000)(handler)
        handler.wfile.flush()
        released.wait(10)

    for fake.answer in (answer, begin):
        with pytest.raises(MedtlError, match="does not answer in time"):
            fetch_study(Server(fake.url, timeout_s=0.2), STUDY, folder)
    released.set()


def test_a_server_that_is_not_there_is_said(fake, folder):
    fake.server.shutdown()
    fake.server.server_close()
    with pytest.raises(MedtlError, match=r"127.0.0.1: no connection \(Connection refused\)"):
        fetch_study(Server(fake.url), STUDY, folder)


def test_something_that_does_not_speak_http_is_said(fake, folder):
    fake.answer = lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n")
    with pytest.raises(MedtlError, match=r"no connection \(BadStatusLine\)"):
        fetch_study(Server(fake.url), STUDY, folder)


def test_a_redirection_is_not_followed(fake, folder, monkeypatch):
    monkeypatch.setenv(TOKEN, SECRET)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"{fake.url}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    fake.answer = answer
    with pytest.raises(MedtlError, match="redirects to another address"):
        fetch_study(Server(fake.url), STUDY, folder)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("way", ["token", "environment", "netrc"])
def test_credentials_are_sent_and_never_said(fake, folder, tmp_path, monkeypatch, caplog, way):
    expected = "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()
    if way == "token":
        monkeypatch.setenv(TOKEN, SECRET)
        expected = f"Bearer {SECRET}"
    elif way == "environment":
        monkeypatch.setenv(USER, "ann")
        monkeypatch.setenv(PASSWORD, SECRET)
    else:
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login ann password {SECRET}\n")
    fake.answer = reply(401)
    with caplog.at_level(logging.DEBUG), pytest.raises(MedtlError) as error:
        fetch_study(Server(fake.url), STUDY, folder)
    assert fake.requests[0][2]["Authorization"] == expected
    assert SECRET not in str(error.value) + caplog.text + repr(Server(fake.url))


def test_a_netrc_for_other_hosts_is_not_used(fake, folder, tmp_path):
    netrc = f"machine other login a password {SECRET}\ndefault login b password {SECRET}\n"
    (tmp_path / "netrc").write_text(netrc)
    with pytest.raises(MedtlError):
        fetch_study(Server(fake.url), STUDY, folder)
    assert "Authorization" not in fake.requests[0][2]


def test_a_broken_netrc_is_said_without_its_text(fake, folder, tmp_path):
    (tmp_path / "netrc").write_text(f"machine x password {SECRET} {SECRET}\n")
    with pytest.raises(MedtlError, match="netrc: the netrc file cannot be read") as error:
        fetch_study(Server(fake.url), STUDY, folder)
    assert SECRET not in str(error.value)
    assert fake.requests == []


def test_credentials_are_not_sent_unencrypted(folder, monkeypatch):
    monkeypatch.setenv(TOKEN, SECRET)
    with pytest.raises(MedtlError, match="would be sent unencrypted; expected https"):
        fetch_study(Server("http://pacs.example/dicom-web"), STUDY, folder)


@pytest.mark.parametrize(
    "url",
    ["", "pacs", "ftp://host/x", "file:///etc/passwd", "http:///x", "http://h:x/", "http://h/?a=b"],
)
def test_an_address_that_is_none_is_refused(folder, url):
    with pytest.raises(MedtlError, match="not the address of a server"):
        fetch_study(Server(url), STUDY, folder)


def test_credentials_in_the_address_are_refused(folder):
    with pytest.raises(MedtlError, match="the address holds credentials") as error:
        fetch_study(Server(f"https://ann:{SECRET}@host/x"), STUDY, folder)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("study", ["", "1", "1.2/../..", "1.2.", "a.b", "1.02", "1." + "2" * 70])
def test_a_study_that_is_no_uid_is_refused(folder, study):
    with pytest.raises(MedtlError, match="the study is no DICOM UID"):
        fetch_study(Server("http://127.0.0.1/x"), study, folder)
