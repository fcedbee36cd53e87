"""A page's fenced blocks, run from the top to the bottom in one folder."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typed import medtl

_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what stands behind it, its text."""

    language: str
    options: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def run_page(page: Path) -> dict[str, Any]:
    """Run a page in the working folder; return the names that its Python defines.

    `python` is executed, with the names of the blocks before; each line of `sh` is a command of
    medtl; `yaml title="FILE"` is written to the file; `text` is what the block before it says,
    "..." for anything.
    """
    names: dict[str, Any] = {}
    said = ""
    for number, block in enumerate(blocks(page), 1):
        place = f"{page.name}, block {number}"
        if block.language == "python":
            exec(compile(block.text, place, "exec"), names)
        elif block.language == "sh":
            said = "".join(medtl(*_words(line, place)) for line in _lines(block.text))
        elif block.language == "yaml":
            (title,) = re.findall(r'title="(\S+)"', block.options)
            Path(title).write_text(block.text, encoding="utf-8")
        elif block.language == "text":
            assert says(said, block.text), f"{place} is not what was said:\n{said}"
        else:
            raise AssertionError(f"{place}: nobody runs {block.language!r}")
    return names


def _lines(text: str) -> list[str]:
    """The commands of a block, those on several lines as one, without remarks."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _words(line: str, place: str) -> list[str]:
    """The words of a command of medtl, behind its name."""
    name, *words = shlex.split(line, comments=True)
    assert name == "medtl", f"{place}: nobody runs {name!r}"
    return words


def says(said: str, shown: str) -> bool:
    """Whether a program said what a page shows: line by line, "..." for anything."""
    pattern = r"\s*".join(
        ".*" if line.strip() == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*?")
        for line in shown.splitlines()
        if line.strip()
    )
    return re.search(pattern, said, re.DOTALL) is not None
