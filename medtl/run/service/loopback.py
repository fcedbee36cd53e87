"""A small web server for this machine: who may ask, and nothing of what is asked is logged.

Python's `http.server` is all it takes. It listens on loopback; another address needs a token. A
page of another origin in the same browser is refused (by `Origin`, `Sec-Fetch-Site` and, against
names that are pointed at this machine, by `Host`).
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from medtl.errors import MedtlError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content Security Policy of every answer: nothing comes from, or goes to, anywhere else."""

COOKIE = "medtl_token"

MOST_BYTES = 512 << 20
"""Largest upload."""

SILENCE_S = 30.0
"""A connection that says nothing for so long is closed."""


@dataclass(frozen=True)
class Answer:
    """What a page answers: its body, its type and its status."""

    body: bytes
    kind: str = "text/html; charset=utf-8"
    status: int = 200

    @classmethod
    def of(cls, data: Any, status: int = 200) -> Answer:
        """Return data as JSON."""
        return cls(json.dumps(data).encode(), "application/json", status)


Get = Callable[[], Answer]
Post = Callable[[Path], Answer]
"""From an uploaded file, which is gone afterwards, to the answer."""


@dataclass(frozen=True)
class Pages:
    """What a server has: path -> page, and path -> what takes a file."""

    get: Mapping[str, Get]
    post: Mapping[str, Post]


def make_server(
    pages: Pages, *, host: str = "127.0.0.1", port: int = 0, token: str = ""
) -> ThreadingHTTPServer:
    """Return a server that waits for `serve_forever`.

    Args:
        pages: What it has.
        host: An address of this machine.
        port: 0 takes a free one.
        token: That every request must show, by `Authorization: Bearer`, or once as `/?token=`.

    Raises:
        MedtlError: When others could reach it and no token is stated, or the port is taken.

    >>> make_server(Pages({}, {}), host="0.0.0.0")
    Traceback (most recent call last):
    medtl.errors.MedtlError: --host: other machines could reach 0.0.0.0; expected a token from...
    """
    if not is_loopback(host) and len(token) < 16:
        raise MedtlError(
            f"other machines could reach {host}",
            expected="a token from 16 characters on, which they must show",
            where="--host",
            fix="Set MEDTL_SERVE_TOKEN, or leave --host away",
        )
    handler = type("Handler", (_Handler,), {"pages": pages, "token": token})
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise MedtlError(
            f"the server cannot listen at {host}:{port}: {error.strerror}",
            fix="Choose another --port",
        ) from error
    server.daemon_threads = True
    return server


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("10.0.0.1")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    pages: Pages
    token: str
    timeout = SILENCE_S
    server_version, sys_version = "medtl", ""

    def do_GET(self) -> None:
        """Answer with a page."""
        path = urlsplit(self.path).path
        if self._is_refused():
            return
        page = self.pages.get.get(path)
        self._send(page() if page else Answer.of({"error": "there is no such page"}, 404))

    def do_POST(self) -> None:
        """Take a file."""
        if self._is_refused(writes=True):
            return
        taker = self.pages.post.get(urlsplit(self.path).path)
        length = self.headers.get("Content-Length", "")
        if taker is None or not length.isdigit():
            self._send(Answer.of({"error": "there is no such page"}, 404))
        elif int(length) > MOST_BYTES:
            self._send(Answer.of({"error": f"more than {MOST_BYTES >> 20} MB"}, 413))
        else:
            self._take(taker, int(length))

    def _take(self, taker: Post, length: int) -> None:
        """Keep the body in a file for as long as it is looked at."""
        with TemporaryDirectory(prefix="medtl-film-") as folder:
            path = Path(folder) / "film"
            try:
                with path.open("wb") as file:
                    left = length
                    while left and (chunk := self.rfile.read(min(left, 1 << 20))):
                        file.write(chunk)
                        left -= len(chunk)
                if left:
                    return  # the other side has gone
                answer = taker(path)
            except OSError as error:
                answer = Answer.of({"error": f"the film cannot be kept: {error.strerror}"}, 507)
        self._send(answer)

    def _is_refused(self, *, writes: bool = False) -> bool:
        """Refuse who may not ask; a token in the address becomes a cookie."""
        host = self.headers.get("Host", "")
        own = {f"http://{host}", f"https://{host}"}
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "none")
        server: Any = self.server  # whose address socketserver leaves open
        bound = str(server.server_address[0])
        rebound = is_loopback(bound) and not is_loopback(urlsplit(f"//{host}").hostname or "")
        foreign = (origin is not None and origin not in own) or site not in ("none", "same-origin")
        if rebound or foreign or (writes and origin is None and site == "none" and not self._told):
            self._send(Answer.of({"error": "a request from another origin is refused"}, 403))
            return True
        if not self.token or self._shows_token():
            return False
        given = parse_qs(urlsplit(self.path).query).get("token", [""])[0]
        if hmac.compare_digest(given.encode(), self.token.encode()):
            self.send_response(303)
            self.send_header("Location", "/")
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            self.send_header("Set-Cookie", cookie)
            self.end_headers()
        else:
            self._send(Answer.of({"error": "a token is asked for"}, 401))
        return True

    @property
    def _told(self) -> bool:
        """Whether a program says that it means this server: a page of elsewhere cannot set it."""
        return self.headers.get("X-Medtl") == "1"

    def _shows_token(self) -> bool:
        """Whether the request shows the token."""
        cookies = self.headers.get("Cookie", "").split("; ")
        shown = [c.partition("=")[2] for c in cookies if c.startswith(f"{COOKIE}=")]
        shown.append(self.headers.get("Authorization", "").removeprefix("Bearer "))
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in shown)

    def _send(self, answer: Answer) -> None:
        """Send an answer that nobody keeps."""
        self.send_response(answer.status)
        for name, value in (
            ("Content-Type", answer.kind),
            ("Content-Length", str(len(answer.body))),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Log nothing: addresses and names of files are nobody's business."""
