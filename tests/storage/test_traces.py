"""The search for a user's strings: every disguise is seen, nothing is repeated."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import struct
import unicodedata
import urllib.parse
import zipfile
import zlib
from pathlib import Path

import pytest

from medtl.errors import RunError
from medtl.run.folder import Run
from medtl.storage.traces import find_traces

NAME = 'Müller-홍길동 "x" & Söhne'


def archive(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("inside.bin", data)
    return stream.getvalue()


def picture(data: bytes) -> bytes:
    body = b"Comment\0\0" + zlib.compress(data)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(body)) + b"zTXt" + body + bytes(4)


RAW = NAME.encode()


@pytest.mark.parametrize(
    "data",
    [
        RAW,
        NAME.encode("utf-16-le"),
        NAME.upper().encode(),
        unicodedata.normalize("NFD", NAME).encode(),
        json.dumps({"a": NAME}).encode(),
        html.escape(NAME).encode(),
        urllib.parse.quote(NAME).encode(),
        RAW.hex().encode(),
        base64.b64encode(b"x" + RAW + b"yz"),
        base64.b64encode(b"xx" + RAW + b"y"),
        gzip.compress(RAW, mtime=0),
        archive(RAW),
        archive(gzip.compress(RAW, mtime=0)),
        picture(RAW),
        b"%PDF-1.7\nstream\n" + zlib.compress(RAW) + b"\nendstream",
        b'<img src="data:image/png;base64,' + base64.b64encode(picture(RAW)) + b'">',
    ],
    ids=range(16),
)
def test_every_disguise_is_seen(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(data)
    (tmp_path / "b.bin").write_bytes(b"nothing to see")
    found = find_traces(tmp_path, ["somebody else", NAME])
    assert {number for _, number in found} == {2}
    assert all(where.startswith("a.bin") for where, _ in found)


def test_a_name_of_a_file_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "Mustermann").mkdir()
    (tmp_path / "Mustermann" / "a.txt").write_text("x")
    found = find_traces(tmp_path, ["mustermann"])
    assert found == []  # another case: only lower and upper case of what was given are tried
    assert find_traces(tmp_path, ["Mustermann"]) == [("the name of a file or folder", 1)]


def test_short_strings_are_said_and_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("xy")
    assert Run(tmp_path).traces(["xy\n", "\n"]) == ["string 1 is too short to be looked for"]
    with pytest.raises(RunError, match="nothing to look for"):
        Run(tmp_path).traces(["\n"])
    with pytest.raises(RunError, match="no such folder"):
        Run(tmp_path / "gone").traces(["Mustermann"])


def test_damaged_containers_do_not_stop_the_search(tmp_path: Path) -> None:
    for number, data in enumerate((archive(RAW), gzip.compress(RAW), picture(RAW))):
        (tmp_path / f"{number}.bin").write_bytes(data[: len(data) // 2])
    (tmp_path / "c.html").write_bytes(b"base64,AAAAAAAAAAAAAAAAA")
    assert find_traces(tmp_path, ["somebody else"]) == []


def test_seals(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the run did not reach its end"):
        Run(tmp_path).broken_seals()
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    Run(tmp_path).seal()
    assert Run(tmp_path).broken_seals() == []
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").unlink()
    assert Run(tmp_path).broken_seals() == ["b: missing", "a: altered"]
