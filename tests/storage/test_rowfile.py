"""A file of rows: what is written is found, by several processes at once, and nothing else is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from medtl.errors import RunError
from medtl.storage.rowfile import KEY_BYTES, MISSING, RowFile, row_key

KEYS = [row_key(bytes([i])) for i in range(5)]
VALUES = np.arange(30, dtype=np.float32).reshape(5, 3, 2)


def opened(folder):
    return RowFile(folder / "a.rows", (3, 2), np.float32)


def test_rows_are_found_by_their_keys(tmp_path):
    rows = opened(tmp_path)
    assert rows.find(KEYS).tolist() == [MISSING] * 5
    rows.append(KEYS[:2], VALUES[:2])
    opened(tmp_path).append(KEYS[3:], VALUES[3:])
    found = rows.find(KEYS)
    assert found.tolist() == [0, 1, MISSING, 2, 3]
    np.testing.assert_array_equal(rows[found[4]], VALUES[4])


def test_the_last_value_of_a_key_counts(tmp_path):
    rows = opened(tmp_path)
    rows.append(KEYS[:1], VALUES[:1])
    rows.append(KEYS[:1], VALUES[1:2])
    np.testing.assert_array_equal(rows[rows.find(KEYS[:1])[0]], VALUES[1])


def test_what_a_killed_process_left_is_cut_off(tmp_path):
    rows = opened(tmp_path)
    rows.append(KEYS[:1], VALUES[:1])
    with (tmp_path / "a.rows").open("ab") as file:
        file.write(b"half a row")
    rows.append(KEYS[1:2], VALUES[1:2])
    assert opened(tmp_path).find(KEYS[:2]).tolist() == [0, 1]


def test_a_file_deleted_while_it_is_used_stays_with_its_user(tmp_path):
    rows = opened(tmp_path)
    rows.append(KEYS[:1], VALUES[:1])
    (tmp_path / "a.rows").unlink()
    opened(tmp_path).append(KEYS[2:3], VALUES[2:3])
    rows.append(KEYS[1:2], VALUES[1:2])
    assert rows.find(KEYS).tolist() == [0, 1, MISSING, MISSING, MISSING]


def test_processes_that_write_at_once_lose_no_row(tmp_path):
    script = """
import sys
from pathlib import Path
import numpy as np
from medtl.storage.rowfile import RowFile, row_key
rows = RowFile(Path(sys.argv[1]), (1000,), np.float16)
for i in range(50):
    rows.append([row_key(f"{sys.argv[2]}{i}".encode())], np.full((1, 1000), i, np.float16))
"""
    path = tmp_path / "b.rows"
    running = [subprocess.Popen([sys.executable, "-c", script, path, name]) for name in "xyz"]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    rows = RowFile(path, (1000,), np.float16)
    found = rows.find([row_key(f"{name}{i}".encode()) for name in "xyz" for i in range(50)])
    assert sorted(found) == list(range(150))
    assert all((rows[row] == i % 50).all() for i, row in enumerate(found))


def test_a_full_disk_is_said_with_the_way_round_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rows = opened(tmp_path)
    monkeypatch.setattr(rows, "_write", full)
    with pytest.raises(RunError, match=r"a\.rows: the cache cannot be written: No space"):
        rows.append(KEYS[:1], VALUES[:1])


def test_keys_tell_apart_where_one_part_ends():
    assert row_key(b"ab", b"c") != row_key(b"a", b"bc")
    assert len(row_key(b"")) == KEY_BYTES
