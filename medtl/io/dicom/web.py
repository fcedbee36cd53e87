"""A study's images over DICOMweb (WADO-RS, PS3.18 10.4): one GET; `stow` is what writes there.

Nothing of this runs unless a server is named. Credentials come from the environment or from netrc,
go to that one server, and are never in a message or a log; a redirection is not followed, because
it would take them elsewhere. Proxies of the environment are not used.

Python's `http.client` is all it takes: it follows and asks nobody else by itself. dicomweb-client
holds a whole study in memory and knows no limits; httpx would save the 10 lines of `netrc`.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import json
import logging
import mmap
import netrc
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from medtl.errors import ImageError, MedtlError, located
from medtl.io.dicom.file import heard_warnings, open_dicom

log = logging.getLogger(__name__)

ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Files as they are stored: no server-side conversion (PS3.18 8.7.3.5)."""

TOKEN, USER, PASSWORD = "MEDTL_DICOMWEB_TOKEN", "MEDTL_DICOMWEB_USER", "MEDTL_DICOMWEB_PASSWORD"
"""Environment variables: a bearer token, or a name and a password."""

OWN = "medtl"
"""Manufacturer of what medtl exports; its pictures are no images to predict."""

_NO_IMAGES = frozenset({"SEG", "SR", "PR", "KO", "DOC", "RTSTRUCT", "RTDOSE", "RTPLAN", "REG"})
"""Modalities of objects that may have pixels and are no images."""

_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
"""PS3.5 9.1; at most 64 characters."""

_IS_DICOM = re.compile(rb"^content-type:\s*application/dicom\s*(;|$)", re.I | re.M)

Value = TypeVar("Value")

_CHUNK_BYTES = 1 << 18
_HEAD_BYTES = 1 << 14
"""Longest header of one part."""

REASONS = {
    401: (
        "the server asks for credentials, or refuses them",
        f"Set {TOKEN}, or {USER} and {PASSWORD}",
    ),
    403: ("the server refuses access", "Ask its administrator for the right to read"),
    404: ("the server knows no such study, or has no DICOMweb there", "Check UID and address"),
    406: ("the server does not give DICOM files as they are stored", ""),
}
"""HTTP status -> what it means here, and what to do."""


@dataclass(frozen=True)
class Server:
    """A DICOMweb server and what one study from it may cost.

    Attributes:
        url: Address of the service, "https://pacs.example/dicom-web".
        timeout_s: Longest silence.
        most_bytes: Largest study. Its files may be no larger either.
        most_files: Most instances of a study.
    """

    url: str
    timeout_s: float = 60.0
    most_bytes: int = 8 << 30
    most_files: int = 20_000


@dataclass(frozen=True)
class Fetched:
    """The files of a study.

    Attributes:
        images: Files that hold an image, named by their SOP Instance UID.
        left_out: Cause -> number of the study's other objects.
    """

    images: tuple[Path, ...]
    left_out: dict[str, int]


def fetch_study(server: Server, study: str, folder: str | PathLike[str]) -> Fetched:
    """Download the images of a study into a folder.

    Args:
        server: Where from.
        study: Study Instance UID.
        folder: An existing, empty folder. When the download fails, it holds no images.

    Raises:
        MedtlError: When the address or the UID is none, the server cannot be reached, refuses, or
            does not answer with the files of this study; when a limit is passed.

    >>> server = Server("https://pacs.example/dicom-web")
    >>> fetch_study(server, "the study of Monday", Path("study"))
    Traceback (most recent call last):
    medtl.errors.MedtlError: --study: the study is no DICOM UID; expected digits and points.
    """
    folder = Path(folder)
    if len(study) > 64 or not _UID.fullmatch(study):
        raise MedtlError("the study is no DICOM UID", expected="digits and points", where="--study")
    address = checked(server.url)
    body = folder / "answer.multipart"
    try:
        with located(str(address.hostname)):
            boundary = _download(server, address, study, body)
            paths = _divided(body, boundary, server) if boundary else []
            return _sorted_out(paths, study)
    except MedtlError:
        for path in folder.glob("*.dcm"):
            path.unlink()
        raise
    finally:
        body.unlink(missing_ok=True)


def find_studies(server: Server, query: str = "") -> list[tuple[str, int]]:
    """Ask which studies a server has: (Study Instance UID, number of its instances).

    Args:
        server: Where to ask.
        query: QIDO-RS parameters ("ModalitiesInStudy=CR&StudyDate=20260101-"); "" for all.

    Raises:
        MedtlError: When the server cannot be reached, refuses, or answers with something else.

    Reference:
        PS3.18 10.6 (Search Transaction); Number of Study Related Instances is (0020,1208).

    >>> find_studies(Server("pacs.example"))
    Traceback (most recent call last):
    medtl.errors.MedtlError: --dicomweb: not the address of a server; expected http(s)://host/path.
    """
    asked = "&".join(filter(None, [query, "includefield=00201208"]))
    return _found(server, f"studies?{asked}", "0020000D", "00201208", int)


def find_objects(server: Server, study: str) -> Counter[str]:
    """Ask what a server has of a study: Modality (0008,0060) -> number of objects.

    Args:
        server: Where to ask.
        study: Study Instance UID.

    Raises:
        MedtlError: As `find_studies`.

    >>> find_objects(Server("pacs.example"), "1.2")
    Traceback (most recent call last):
    medtl.errors.MedtlError: --dicomweb: not the address of a server; expected http(s)://host/path.
    """
    target = f"studies/{study}/instances?includefield=00080060"
    return Counter(kind for _, kind in _found(server, target, "00080018", "00080060", str))


def _found(
    server: Server, target: str, uid: str, tag: str, kind: Callable[[Any], Value]
) -> list[tuple[str, Value]]:
    """UID and another attribute (0 without it) of everything that a QIDO-RS request finds."""
    address = checked(server.url)
    with located(str(address.hostname)), contextlib.closing(_connected(server, address)) as line:
        headers = {"Accept": "application/dicom+json", **authorization(address)}
        answer = _asked(line, f"{address.path.rstrip('/')}/{target}", headers)
        _refuse_status(answer.status)
        body = b"".join(_chunks(answer, server))
        try:
            found = json.loads(body or b"[]")
            return [
                (str(one[uid]["Value"][0]), kind(one.get(tag, {}).get("Value", [0])[0]))
                for one in found
            ]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise MedtlError(
                "the answer is no list of studies", expected="application/dicom+json",
                fix="Check the address: it often ends in /dicom-web or /dicomweb",
            ) from error  # fmt: skip


def checked(url: str) -> SplitResult:
    """Return the parts of an address.

    Raises:
        MedtlError: When it is none, or holds credentials.

    >>> checked("https://pacs.example/dicom-web").hostname
    'pacs.example'
    """
    try:
        address = urlsplit(url)
        is_address = address.scheme in ("http", "https") and bool(address.hostname)
        is_address = is_address and address.port != 0 and not address.query
    except ValueError:
        is_address = False
    if not is_address:
        raise MedtlError(
            "not the address of a server", expected="http(s)://host/path", where="--dicomweb"
        )
    if address.username or address.password:
        raise MedtlError(
            "the address holds credentials, which would stay in histories and logs",
            where="--dicomweb",
            fix=f"Take them out; set {USER} and {PASSWORD}, or {TOKEN}, or use netrc",
        )
    return address


def _download(server: Server, address: SplitResult, study: str, path: Path) -> bytes:
    """Store the body of the answer in a file; return its multipart boundary, b"" without a body."""
    headers = {"Accept": ACCEPT, **authorization(address)}
    with contextlib.closing(_connected(server, address)) as connection:
        answer = _asked(connection, f"{address.path.rstrip('/')}/studies/{study}", headers)
        boundary = _boundary(answer)
        with path.open("wb") as file:
            file.writelines(_chunks(answer, server))
        return boundary


def _connected(server: Server, address: SplitResult) -> http.client.HTTPConnection:
    """Return a connection that is not open yet."""
    secure = address.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    return kind(str(address.hostname), address.port, timeout=server.timeout_s)


def _asked(
    connection: http.client.HTTPConnection, target: str, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    """Return the answer to a GET."""
    try:
        connection.request("GET", target, headers=dict(headers))
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(error) from None


def _boundary(answer: http.client.HTTPResponse) -> bytes:
    """Return the boundary of a multipart/related answer, b"" if the study is known and empty."""
    status = answer.status
    _refuse_status(status)
    boundary = answer.headers.get_boundary("")
    if status != 204 and (answer.headers.get_content_type() != "multipart/related" or not boundary):
        raise MedtlError(
            "the answer is not that of a DICOMweb server",
            expected="multipart/related with DICOM files",
            fix="Check the address: it often ends in /dicom-web or /dicomweb",
        )
    return b"" if status == 204 else boundary.encode("latin-1")


def _refuse_status(status: int) -> None:
    """Say what an answer that is none means."""
    if not 200 <= status < 300:
        found, fix = REASONS.get(status, (f"the server answers with status {status}", ""))
        if 300 <= status < 400:
            found, fix = "the server redirects to another address", "State that address"
        raise MedtlError(found, fix=fix)


def _chunks(answer: http.client.HTTPResponse, server: Server) -> Iterator[bytes]:
    """Yield the body of an answer; that it ends too early is seen where it is divided."""
    received = 0
    while True:
        try:
            chunk = answer.read1(_CHUNK_BYTES)
        except TimeoutError as error:
            raise unreachable(error) from None
        except (OSError, http.client.HTTPException):
            return
        received += len(chunk)
        if received > server.most_bytes:
            raise _too_much(f"{server.most_bytes} bytes")
        if not chunk:
            return
        yield chunk


def authorization(address: SplitResult) -> dict[str, str]:
    """Return the header for a server by environment or netrc, {} when there are no credentials.

    Raises:
        MedtlError: When they would be sent unencrypted.

    >>> import os
    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, {TOKEN: "abc"}):
    ...     authorization(checked("https://pacs.example/dicom-web"))
    {'Authorization': 'Bearer abc'}
    """
    host = str(address.hostname)
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if token := os.environ.get(TOKEN):
        credentials = f"Bearer {token}"
    else:
        if not (user and password):
            user, password = _from_netrc(host)
        if not (user and password):
            return {}
        credentials = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    if address.scheme == "http" and not _is_loopback(host):
        raise MedtlError("credentials would be sent unencrypted", expected="https://")
    return {"Authorization": credentials}


def _from_netrc(host: str) -> tuple[str | None, str | None]:
    """Name and password of a host in the user's netrc file; its default entry does not count."""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        found = netrc.netrc(path).hosts.get(host)
    except FileNotFoundError:
        return None, None
    except (OSError, UnicodeError, netrc.NetrcParseError):
        # Not chained: the message of the parser quotes the line.
        raise MedtlError("the netrc file cannot be read", where=path.name) from None
    return (found[0], found[2]) if found else (None, None)


def _is_loopback(host: str) -> bool:
    """Return whether a host is this machine, so that nothing leaves it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _divided(path: Path, boundary: bytes, server: Server) -> list[Path]:
    """Write each part of a multipart/related body as a file beside it (RFC 2046 5.1, RFC 2387)."""
    paths: list[Path] = []
    if path.stat().st_size == 0:  # which cannot be mapped
        raise _cut()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        delimiter = b"\r\n--" + boundary
        is_first = body[: len(delimiter) - 2] == delimiter[2:]  # without the line end before it
        end = -2 if is_first else _delimiter_at(body, delimiter, 0)
        while body[(start := end + len(delimiter)) : start + 2] != b"--":
            if len(paths) == server.most_files:
                raise _too_much(f"{server.most_files} files")
            blank = body.find(b"\r\n\r\n", start, start + _HEAD_BYTES)
            if blank < 0:
                is_long = len(body) - start > _HEAD_BYTES
                raise _too_much(f"{_HEAD_BYTES} bytes in one part") if is_long else _cut()
            if not _IS_DICOM.search(body[start:blank]):
                raise MedtlError(
                    "a part of the answer is no DICOM file",
                    expected="Content-Type: application/dicom",
                )
            end = _delimiter_at(body, delimiter, blank + 4)
            paths.append(path.with_name(f"part-{len(paths)}.dcm"))
            with paths[-1].open("wb") as part, memoryview(body)[blank + 4 : end] as content:
                part.write(content)
    return paths


def _delimiter_at(body: mmap.mmap, delimiter: bytes, start: int) -> int:
    """Return the place of the next delimiter, which must be there."""
    place = body.find(delimiter, start)
    if place < 0:
        raise _cut()
    return place


def _sorted_out(paths: list[Path], study: str) -> Fetched:
    """Keep the images, each once and under its own UID, and count what else there was.

    Raises:
        MedtlError: When a file is no DICOM or of another study, or none is an image.
    """
    images, left_out = [], Counter[str]()
    for path in paths:
        try:
            with heard_warnings(), open_dicom(path) as file:
                header, has_pixels = file.dataset, file.pixels is not None
                found = [str(header.get(f"{name}InstanceUID", "")) for name in ("Study", "SOP")]
                made_by, modality = header.get("Manufacturer"), header.get("Modality")
        except ImageError as error:
            raise MedtlError(f"a file of the answer cannot be read: {error.found}") from None
        if found[0] != study or not _UID.fullmatch(found[1]):
            raise MedtlError("the server sent a file of another study")
        target = path.with_name(f"{found[1]}.dcm")
        if modality in _NO_IMAGES or not has_pixels or made_by == OWN or target.exists():
            left_out["a result of medtl" if made_by == OWN else "no image"] += 1
            path.unlink()
        else:
            images.append(path.rename(target))
    if not images:
        raise MedtlError("the study has no images")
    log.info("%d images fetched, %d other objects left out", len(images), left_out.total())
    return Fetched(tuple(sorted(images)), dict(left_out))


def _cut() -> MedtlError:
    """Return the error for a body without its end."""
    return MedtlError("the answer ends in the middle of a file", fix="Try again")


def _too_much(limit: str) -> MedtlError:
    """Return the error for a study over a limit."""
    return MedtlError("the study is larger than allowed", expected=f"at most {limit}")


def unreachable(error: Exception) -> MedtlError:
    """Return the error for a server that does not answer; it quotes no address.

    >>> print(unreachable(TimeoutError()))
    the server does not answer in time. Check the address, and that the server is running.
    """
    reason = getattr(error, "strerror", None) or type(error).__name__
    is_late = isinstance(error, TimeoutError)
    return MedtlError(
        "the server does not answer in time" if is_late else f"no connection ({reason})",
        fix="Check the address, and that the server is running",
    )
