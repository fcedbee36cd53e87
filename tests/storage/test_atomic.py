from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from medtl.errors import RunError
from medtl.storage import atomic
from medtl.storage.atomic import TEMPORARY_MARK, atomic_path, sha256_file, write_json, write_text


def test_the_file_appears_whole_and_nothing_is_left_behind(tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".safetensors"
        assert TEMPORARY_MARK in temporary.name
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_failing_block_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_data_reach_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    replace, fsync = Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle)))
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (events.append("replace"), replace(self, target))
    )
    write_text(tmp_path / "a.txt", "x")
    assert events == ["fsync", "replace", "fsync"]


def test_a_full_disk_keeps_the_old_file_and_names_the_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"^a\.txt: cannot be written: No space left") as error:
        write_text(target, "new")
    assert str(tmp_path) not in str(error.value)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\.txt: cannot be written.*Check that the folder exists"):
        write_text(tmp_path / "none" / "a.txt", "x")


def test_long_names_stay_below_the_limit_of_file_systems(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 240 + ".csv")
    write_text(target, "x")
    assert target.read_text() == "x"


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "한\r\n\n")
    assert (tmp_path / "a.txt").read_bytes() == "한\r\n\n".encode()


def test_json_keeps_the_order_of_keys_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [None, "한"]})
    assert path.read_text("utf-8") == '{\n  "b": 1,\n  "a": [\n    null,\n    "한"\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text("utf-8"))["b"] == 1


def test_sha256_file(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "a", b"abc")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
