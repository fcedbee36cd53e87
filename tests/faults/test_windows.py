"""What Windows lacks is not needed: modules of Unix, signals, open files that can be deleted.

No Windows machine runs these tests; they hide from Python on Linux what Python on Windows lacks.
"""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_study import write_tiny_study

from medtl.errors import RunError
from medtl.run.check import read_recipe
from medtl.run.prepare import read_study
from medtl.storage.cache import LOCK, make_room
from medtl.storage.filenames import file_name
from medtl.storage.lock import locked

PACKAGE = Path(__file__).parents[2] / "medtl"

UNIX_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty")

ALLOWED = {("run/plan.py", "resource")}
"""Imported where `psutil` has said that this is no Windows."""

HIDE = """
import importlib, pkgutil, signal, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD"):
    delattr(signal, name)
import medtl
for found in pkgutil.walk_packages(medtl.__path__, "medtl."):
    importlib.import_module(found.name)
print(len(sys.modules))
"""


def unix_imports(root: Path) -> set[tuple[str, str]]:
    """(module of the package, module of Unix) for each import, lazy ones too."""
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            place = path.relative_to(root).as_posix()
            found |= {(place, name) for name in names if name in UNIX_MODULES}
    return found


def test_every_module_can_be_imported_without_the_modules_of_unix() -> None:
    done = subprocess.run([sys.executable, "-c", HIDE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]


def test_no_module_of_unix_is_imported_elsewhere() -> None:
    assert unix_imports(PACKAGE) == ALLOWED


def test_a_lazy_import_of_one_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    from fcntl import flock\n    import os, pwd")
    assert unix_imports(tmp_path) == {("a.py", "fcntl"), ("a.py", "pwd")}


HOLD = """
import sys, time
from pathlib import Path
from medtl.storage.filenames import file_name
from medtl.storage.lock import locked
with locked(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        message = "another process works in this folder"
        with pytest.raises(RunError, match=message), locked(file, wait=False):
            raise AssertionError
        owner.kill()
    with locked(file, wait=True):
        assert file.read_bytes() == b""  # names no process, host or user


def test_the_cache_never_deletes_its_lock_and_passes_over_what_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / "old").write_bytes(b"x" * 100)
    (tmp_path / "new").write_bytes(b"x" * 100)
    delete = Path.unlink

    def refuse_old(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == "old":
            raise PermissionError(13, "The process cannot access the file")
        delete(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_old)
    assert make_room(tmp_path, 50, limit_bytes=150)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, "old"}
    assert not make_room(tmp_path, 120, limit_bytes=150)


def test_workers_that_are_spawned_get_the_same_samples(tmp_path: Path) -> None:
    prepared = read_study(read_recipe(write_tiny_study(tmp_path, patients=12)))
    samples = prepared.samples(prepared.split("train"), seed=1)
    sent = pickle.loads(pickle.dumps(samples))
    for mine, theirs in zip(samples[0, 1], sent[0, 1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["c-01", "P 01", "환자 1", "a.b", "console", "x" * 100])
def test_a_plain_name_stays(name: str) -> None:
    assert file_name(name) == name


UNSAFE = [
    "",
    "a/b",
    "../x",
    "C:x",
    "a\\b",
    "a?",
    ".hidden",
    "a.",
    " a",
    "NUL",
    "con.png",
    "x" * 101,
]


def test_no_name_leaves_its_folder_or_opens_a_device(tmp_path: Path) -> None:
    names = [file_name(text) for text in UNSAFE]
    assert len(set(names)) == len(UNSAFE)
    for name in names:
        (tmp_path / f"{name}.png").touch()
    assert len(list(tmp_path.iterdir())) == len(UNSAFE)
