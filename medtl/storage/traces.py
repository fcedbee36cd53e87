"""Looks for a user's own strings in everything that a run has written.

A name can hide: in another encoding, escaped for JSON, HTML or a URL, as base64 or hexadecimal
digits, in a compressed chunk of a picture, in a member of an archive, in a file name. What is found
is told by the number of the string, never by the string.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import unicodedata
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

SHORTEST_BYTES = 4
"""A shorter string is found everywhere by chance."""

_MOST_BYTES = 1 << 26
"""Of one compressed part."""

_MOST_NESTING = 3
_ENCODINGS = ("utf-8", "utf-16-le", "cp949", "euc-jp", "latin-1")
_EMBEDDED = re.compile(rb"base64,([A-Za-z0-9+/=]{16,})")
_PDF_STREAM = re.compile(rb"stream\r?\n")


def find_traces(folder: str | PathLike[str], strings: Sequence[str]) -> list[tuple[str, int]]:
    """Return (file and part of it, number of the string from 1) of every trace, sorted.

    Args:
        folder: Everything below it is read; links are not followed.
        strings: Names, ids, dates, places: what must not be there. Those shorter than
            `SHORTEST_BYTES` in every form are not looked for.
    """
    folder = Path(folder)
    wanted = [_forms(text) for text in strings]
    found: set[tuple[str, int]] = set()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        parts = [("name of " + relative, relative.encode())]
        if path.is_file() and not path.is_symlink():
            parts += _parts(relative, path.read_bytes(), _MOST_NESTING)
        for where, data in parts:
            for number, forms in enumerate(wanted, 1):
                if any(form in data for form in forms):
                    # The name of a file that holds the string must not be told either.
                    is_name = any(form in where.encode() for form in forms)
                    found.add(("the name of a file or folder" if is_name else where, number))
    return sorted(found)


def _forms(text: str) -> set[bytes]:
    """The ways in which a string may have been written."""
    written = {text, text.lower(), text.upper()}
    written |= {unicodedata.normalize(kind, text) for kind in ("NFC", "NFD")}
    written |= {json.dumps(text)[1:-1], urllib.parse.quote(text), html.escape(text)}
    forms = set()
    for one in written:
        for encoding in _ENCODINGS:
            try:
                forms.add(one.encode(encoding))
            except UnicodeEncodeError:
                continue
    raw = text.encode()
    forms.add(raw.hex().encode())
    if len(raw) > 12:  # the ends depend on the neighbours, so a long string only
        forms |= {base64.b64encode(raw[start:])[:-4] for start in range(3)}
    return {form for form in forms if len(form) >= SHORTEST_BYTES}


def _parts(where: str, data: bytes, nesting: int) -> Iterator[tuple[str, bytes]]:
    """Yield some bytes and what is packed inside them."""
    yield where, data
    if nesting == 0:
        return
    if data[:2] == b"PK":
        for name, member in _zip_members(data):
            yield where, name.encode()
            yield from _parts(f"{where}, a member of the archive", member, nesting - 1)
    if data[:2] == b"\x1f\x8b":
        yield from _parts(f"{where}, unpacked", _inflated(data, 31), nesting - 1)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        yield from ((f"{where}, a text chunk", text) for text in _png_texts(data))
    if data[:4] == b"%PDF":
        for match in _PDF_STREAM.finditer(data):
            yield f"{where}, a stream", _inflated(data[match.end() :], zlib.MAX_WBITS)
    for match in _EMBEDDED.finditer(data):
        try:
            inner = base64.b64decode(match[1], validate=True)
        except ValueError:
            continue
        yield from _parts(f"{where}, embedded", inner, nesting - 1)


def _zip_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the members of a zip file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    yield member.filename, file.read(_MOST_BYTES)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError, EOFError):
        return


def _png_texts(data: bytes) -> Iterator[bytes]:
    """Yield the compressed texts of a PNG file, inflated."""
    place = 8
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        place += 12 + size
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            start = body.find(b"\x78")  # the first byte of a zlib stream
            while start >= 0:
                yield _inflated(body[start:], zlib.MAX_WBITS)
                start = body.find(b"\x78", start + 1)


def _inflated(data: bytes, wbits: int) -> bytes:
    """A compressed stream inflated, as far as it goes; empty when it is none."""
    try:
        return zlib.decompressobj(wbits).decompress(data, _MOST_BYTES)
    except zlib.error:
        return b""
