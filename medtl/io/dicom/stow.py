"""Objects to a DICOMweb server (STOW-RS, PS3.18 10.5): one POST for each, only when asked.

Address, credentials and their rules are those of `io.dicom.web`.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from medtl.errors import MedtlError, located
from medtl.io.dicom.web import REASONS, Server, authorization, checked, unreachable
from medtl.types import Progress, silent

BOUNDARY = "medtl-part-of-a-multipart-body"
"""Between parts; an object holds it by no chance that matters, and is looked through for it."""


def store_objects(
    server: Server, paths: Sequence[str | PathLike[str]], *, progress: Progress = silent
) -> int:
    """Send DICOM files to an archive, one after the other; return how many it took.

    Args:
        server: Where to.
        paths: The files.
        progress: Told of each file.

    Raises:
        MedtlError: When the address is none, the server cannot be reached or refuses a file. What
            was sent before stays there; sending again is harmless, for the UIDs are the same.

    Reference:
        PS3.18 10.5 (Store Transaction).

    >>> store_objects(Server("pacs.example"), [])
    Traceback (most recent call last):
    medtl.errors.MedtlError: --dicomweb: not the address of a server; expected http(s)://host/path.
    """
    address = checked(server.url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    headers = {
        "Accept": "application/dicom+json",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
        **authorization(address),
    }
    with located(str(address.hostname)):
        for done, path in enumerate(map(Path, paths), start=1):
            connection = kind(str(address.hostname), address.port, timeout=server.timeout_s)
            with contextlib.closing(connection):
                try:
                    target = f"{address.path.rstrip('/')}/studies"
                    connection.request("POST", target, body=_body(path), headers=headers)
                    status = connection.getresponse().status
                except (OSError, http.client.HTTPException) as error:
                    raise unreachable(error) from None
            if status != 200:  # 202: some objects were stored, which is not this one
                raise _refused(status, path)
            progress("Sending", done, len(paths))
    return len(paths)


def _body(path: Path) -> bytes:
    """A multipart/related body of one part."""
    content = path.read_bytes()
    if BOUNDARY.encode() in content:
        raise MedtlError("the file holds the words that part its message", where=path.name)
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n"
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def _refused(status: int, path: Path) -> MedtlError:
    """The error for an answer that is not 200."""
    found, fix = {
        **REASONS,
        202: ("the server stored only a part", ""),
        409: ("the server cannot store the object", "Check that it takes this kind of object"),
        415: ("the server takes no DICOM files there", "Check the address"),
    }.get(status, (f"the server answers with status {status}", ""))
    if 300 <= status < 400:
        found, fix = "the server redirects to another address", "State that address"
    return MedtlError(found, where=path.name, fix=fix)
