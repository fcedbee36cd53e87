"""The executed notebooks of first studies: their cells, what runs them, the files that show both.

`python -m manual.notebook` runs the cells of `manual/notebooks/*.md` and writes a notebook of each
into `docs/tutorials/`. Neither Jupyter nor a kernel is needed: a cell is executed, and what it
prints and its last value are kept as text.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SOURCES = sorted((Path(__file__).parent / "notebooks").glob("*.md"))
"""Their texts: Markdown, in which each block of Python is a cell of code."""

_TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def notebook_of(source: Path) -> Path:
    """Return where the notebook of a text lies."""
    return _TUTORIALS / f"{source.stem}.ipynb"


def write_notebooks() -> None:
    """Run the cells of each text in an empty folder and write its notebook."""
    for source in SOURCES:
        cells = cells_of(source.read_text(encoding="utf-8"))
        with TemporaryDirectory() as folder, contextlib.chdir(folder):
            outputs = run_cells([text for kind, text in cells if kind == "code"])
        text = json.dumps(notebook(cells, outputs), indent=1, ensure_ascii=False)
        notebook_of(source).write_text(text + "\n", encoding="utf-8")


def cells_of(text: str) -> list[tuple[str, str]]:
    """Return the cells of a Markdown text: "markdown" or "code", and what stands in them."""
    parts = _BLOCK.split(text)
    kinds = ("markdown", "code")
    named = [(kinds[place % 2], part.strip("\n")) for place, part in enumerate(parts)]
    return [(kind, part) for kind, part in named if part]


def run_cells(sources: Sequence[str]) -> list[str]:
    """Run cells one after the other in the working folder; return what each of them says."""
    names: dict[str, Any] = {}
    return [_run(source, names) for source in sources]


def _run(source: str, names: dict[str, Any]) -> str:
    """Run one cell; what it prints, and its last value where it ends in one."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    said, value = io.StringIO(), None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return (said.getvalue() + ("" if value is None else repr(value))).rstrip("\n")


def notebook(cells: Sequence[tuple[str, str]], outputs: Sequence[str]) -> dict[str, Any]:
    """Return a notebook in Jupyter's format 4.4, with the outputs below the cells of code."""
    said = iter(outputs)
    numbers = iter(range(1, len(cells) + 1))
    return {
        "cells": [
            {"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
            if kind == "markdown"
            else {
                "cell_type": kind,
                "execution_count": next(numbers),
                "metadata": {},
                "outputs": list(_output(next(said))),
                "source": text.splitlines(keepends=True),
            }
            for kind, text in cells
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def _output(said: str) -> Iterator[dict[str, Any]]:
    """What a cell says, as the format has it; nothing for nothing."""
    if said:
        yield {"name": "stdout", "output_type": "stream", "text": said.splitlines(keepends=True)}


if __name__ == "__main__":
    write_notebooks()
