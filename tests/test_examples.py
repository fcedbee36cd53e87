"""The examples in docstrings run, and what a user calls has one."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import medtl as mt

ROOT = Path(__file__).parents[1]
PROMPT = ">>> "

HAVE_EXAMPLES = ("io", "preprocess", "losses", "metrics")
"""Rooms whose every public function has an example: a library's readers and numbers."""


def with_examples() -> list[str]:
    """Dotted names of the modules that hold an example; no other is imported for it."""
    paths = [
        path.relative_to(ROOT).with_suffix("")
        for path in sorted((ROOT / "medtl").rglob("*.py"))
        if PROMPT in path.read_text(encoding="utf-8")
    ]
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


@pytest.mark.parametrize("name", with_examples())
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write a file
    assert failed(importlib.import_module(name)) == 0


def failed(module: ModuleType) -> int:
    """How many lines of a module's examples show something else than they say."""
    return doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed


def test_a_wrong_example_is_caught() -> None:
    assert failed(ModuleType("toy", ">>> 1 + 1\n3\n")) == 1


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """The public functions of a module, and the classes that are called like one."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            names = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
            if "__call__" in names and not node.name.startswith("_"):
                yield node
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def without_example(root: Path, rooms: tuple[str, ...] = HAVE_EXAMPLES) -> list[str]:
    """ "path name" of each public function of `rooms` whose docstring shows no call."""
    return [
        f"{path.relative_to(root).as_posix()} {node.name}"
        for room in rooms
        for path in sorted((root / room).rglob("*.py"))
        for node in public(ast.parse(path.read_text(encoding="utf-8")).body)
        if PROMPT not in (ast.get_docstring(node) or "")
    ]


def test_what_a_user_calls_has_an_example() -> None:
    missing = without_example(ROOT / "medtl")
    assert not missing, "\n".join(missing)


def test_every_name_of_the_face_has_an_example() -> None:
    """A room has those of its functions; the docstring of `Recipe` is a text of its schema."""
    own = {name: getattr(mt, name) for name in mt.__all__ if name != "Recipe"}
    of_calls = {k: v for k, v in own.items() if not isinstance(v, ModuleType | str)}
    assert not [name for name, value in of_calls.items() if PROMPT not in (value.__doc__ or "")]


def test_a_function_without_an_example_is_caught(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "a.py").write_text(
        'def shown():\n    """Two.\n\n    >>> shown()\n    2\n    """\n'
        'def plain():\n    """Two."""\n'
        "def _private(): ...\n"
        'class Loss:\n    """Called."""\n    def __call__(self): ...\n'
        'class Value:\n    """Held."""\n'
    )
    assert without_example(tmp_path) == ["metrics/a.py plain", "metrics/a.py Loss"]
