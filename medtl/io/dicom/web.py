"""A study's images over DICOMweb (WADO-RS, PS3.18 10.4): one GET, nothing is ever written there.

Nothing of this runs unless a server is named. Credentials come from the environment or from netrc,
go to that one server, and are never in a message or a log; a redirection is not followed, because
it would take them elsewhere. Proxies of the environment are not used.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import logging
import netrc
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from medtl.errors import ImageError, MedtlError
from medtl.io.dicom.file import heard_warnings, open_dicom
from medtl.storage.atomic import atomic_path

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

_CHUNK_BYTES = 1 << 18
_HEAD_BYTES = 1 << 14
"""Longest header of one part."""

_REASONS = {
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
    """What a study held.

    Attributes:
        images: Files that hold an image, named by their SOP Instance UID.
        left_out: Cause -> number of the study's other objects.
    """

    images: tuple[Path, ...]
    left_out: dict[str, int]


def fetch_study(server: Server, study: str, folder: Path) -> Fetched:
    """Download the images of a study into a folder.

    Args:
        server: Where from.
        study: Study Instance UID.
        folder: An existing, empty folder. When the download fails, it holds no images.

    Raises:
        MedtlError: When the address or the UID is none, the server cannot be reached, refuses, or
            does not answer with the files of this study; when a limit is passed.
    """
    if len(study) > 64 or not _UID.fullmatch(study):
        raise MedtlError("the study is no DICOM UID", expected="digits and points", where="--study")
    address = _checked(server.url)
    where = address.hostname or ""
    paths: list[Path] = []
    try:
        with _open(server, address, study) as answer:
            for number, part in enumerate(_parts(answer, server, where), start=1):
                if number > server.most_files:
                    raise _too_much(f"{server.most_files} files", where)
                path = folder / f"part-{number}.dcm"
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    paths.append(path)
                    file.writelines(part)
        return _sorted_out(paths, study, where)
    except MedtlError:
        for path in folder.glob("*.dcm"):
            path.unlink()
        raise


def _checked(url: str) -> SplitResult:
    """Return the parts of an address, which must be one and hold no credentials."""
    try:
        address = urlsplit(url)
        is_address = address.scheme in ("http", "https") and bool(address.hostname)
        is_address = is_address and address.port != 0 and not address.query
    except ValueError:
        is_address = False
    if not is_address:
        raise MedtlError("not the address of a server", expected="http(s)://host/path",
                         where="--dicomweb")  # fmt: skip
    if address.username or address.password:
        raise MedtlError(
            "the address holds credentials, which would stay in histories and logs",
            where="--dicomweb",
            fix=f"Take them out; set {USER} and {PASSWORD}, or {TOKEN}, or use netrc",
        )
    return address


def _open(server: Server, address: SplitResult, study: str) -> Any:
    """Ask for the study; return the answer, an HTTP response with a multipart body."""
    where = str(address.hostname)
    request = urllib.request.Request(
        f"{server.url.rstrip('/')}/studies/{study}", headers={"Accept": ACCEPT}
    )
    credentials = _credentials(where)
    if credentials:
        if address.scheme == "http" and not _is_loopback(where):
            raise MedtlError(
                "credentials would be sent unencrypted", expected="https://", where=where
            )
        request.add_unredirected_header("Authorization", credentials)
    opener = urllib.request.build_opener(_NoRedirection, urllib.request.ProxyHandler({}))
    try:
        return opener.open(request, timeout=server.timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        found, fix = _REASONS.get(error.code, (f"the server answers with status {error.code}", ""))
        if 300 <= error.code < 400:
            found, fix = "the server redirects to another address", "State that address"
        raise MedtlError(found, where=where, fix=fix) from None
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(error, where) from None


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: what was asked of one server is not told to another."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Return nothing, which makes the redirection an error."""


def _credentials(host: str) -> str:
    """The Authorization header for a host from environment or netrc, "" when there is none."""
    if token := os.environ.get(TOKEN):
        return f"Bearer {token}"
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if not (user and password):
        user, password = _from_netrc(host)
    if not (user and password):
        return ""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


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
    """Whether a host is this machine, so that nothing leaves it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parts(answer: Any, server: Server, where: str) -> Iterator[Iterator[bytes]]:
    """Yield the chunks of each part of a multipart/related answer (RFC 2046 5.1, RFC 2387)."""
    head = Message()
    head["Content-Type"] = answer.headers.get("Content-Type", "")
    boundary = head.get_boundary()
    if answer.status == 204:
        return
    if head.get_content_type() != "multipart/related" or not boundary:
        raise MedtlError(
            "the answer is not that of a DICOMweb server",
            expected="multipart/related with DICOM files",
            where=where,
            fix="Check the address: it often ends in /dicom-web or /dicomweb",
        )
    stream = _Stream(answer, server, where)
    delimiter = b"\r\n--" + boundary.encode("latin-1")
    for _preamble in stream.until(delimiter, _HEAD_BYTES):
        pass
    while (begin := stream.take(2)) != b"--":
        lines = begin + b"".join(stream.until(b"\r\n\r\n", _HEAD_BYTES))
        if not re.search(rb"^content-type:\s*application/dicom\s*(;|$)", lines, re.I | re.M):
            raise MedtlError(
                "a part of the answer is no DICOM file",
                expected="Content-Type: application/dicom",
                where=where,
            )
        yield stream.until(delimiter, server.most_bytes)


class _Stream:
    """An HTTP body that is read up to markers, a chunk at a time."""

    def __init__(self, answer: Any, server: Server, where: str) -> None:
        self.answer = answer
        self.server = server
        self.where = where
        self.buffer = b"\r\n"  # the first delimiter may stand without the line end before it
        self.received = 0

    def until(self, marker: bytes, most: int) -> Iterator[bytes]:
        """Yield what comes before a marker, at most some bytes, and take the marker away."""
        given = 0
        while (place := self.buffer.find(marker)) < 0:
            ready = max(0, len(self.buffer) - len(marker) + 1)
            chunk, self.buffer = self.buffer[:ready], self.buffer[ready:]
            given += len(chunk)
            if given > most:
                raise _too_much(f"{most} bytes in one part", self.where)
            yield chunk
            self._more()
        chunk, self.buffer = self.buffer[:place], self.buffer[place + len(marker) :]
        yield chunk

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        while len(self.buffer) < count:
            self._more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _more(self) -> None:
        """Read on; the end of the body comes too early here."""
        try:
            chunk = self.answer.read1(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError):
                raise _unreachable(error, self.where) from None
            chunk = b""
        if not chunk:
            raise MedtlError(
                "the answer ends in the middle of a file", where=self.where, fix="Try again"
            )
        self.received += len(chunk)
        if self.received > self.server.most_bytes:
            raise _too_much(f"{self.server.most_bytes} bytes", self.where)
        self.buffer += chunk


def _sorted_out(paths: list[Path], study: str, where: str) -> Fetched:
    """Keep the images, each once and under its own UID, and count what else there was.

    Raises:
        MedtlError: When a file is no DICOM or of another study, or none is an image.
    """
    images, left_out = [], dict[str, int]()
    for path in paths:
        try:
            with heard_warnings(), open_dicom(path) as file:
                header, has_pixels = file.dataset, file.pixels is not None
                found = [str(header.get(f"{name}InstanceUID", "")) for name in ("Study", "SOP")]
                made_by, modality = header.get("Manufacturer"), header.get("Modality")
        except ImageError as error:
            raise MedtlError(f"a file of the answer cannot be read: {error.found}",
                             where=where) from None  # fmt: skip
        if found[0] != study or not _UID.fullmatch(found[1]):
            raise MedtlError("the server sent a file of another study", where=where)
        target = path.with_name(f"{found[1]}.dcm")
        if modality in _NO_IMAGES or not has_pixels or made_by == OWN or target.exists():
            cause = "a result of medtl" if made_by == OWN else "no image"
            left_out[cause] = left_out.get(cause, 0) + 1
            path.unlink()
            continue
        images.append(path.rename(target))
    if not images:
        raise MedtlError("the study has no images", where=where)
    log.info("%d images fetched, %d other objects left out", len(images), sum(left_out.values()))
    return Fetched(tuple(sorted(images)), left_out)


def _too_much(limit: str, where: str) -> MedtlError:
    """Return the error for a study over a limit."""
    return MedtlError("the study is larger than allowed", expected=f"at most {limit}", where=where)


def _unreachable(error: BaseException, where: str) -> MedtlError:
    """Return the error for a server that does not answer; it quotes no address."""
    cause = getattr(error, "reason", error)
    timed_out = isinstance(cause, TimeoutError)
    reason = getattr(cause, "strerror", None) or type(cause).__name__
    return MedtlError(
        "the server does not answer in time" if timed_out else f"no connection ({reason})",
        where=where,
        fix="Check the address, and that the server is running",
    )
