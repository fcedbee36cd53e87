"""A page's fenced blocks, run from the top to the bottom in one folder."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any

from typed import medtl

from medtl.recipe.schema import parse_recipe
from medtl.storage.yaml import loads

NOTHING: Mapping[str, str] = MappingProxyType({})

_BLOCK = re.compile(
    r"^(?:<!-- not run: (.+?) -->\n)?```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))

_EXTRAS = _PROJECT["project"]["optional-dependencies"]

_BASE = """
study: {question: "Is there one?"}
data: {manifest: manifest.csv, target: bright}
image: {modality: cxr}
model: {backbone: tf_efficientnet_lite0, weights: bundled}
"""
"""What a page's fragment of a recipe leaves out."""


@dataclass(frozen=True)
class Block:
    """One fenced block: why it is not run, its language, what stands behind it, its text."""

    not_run: str
    language: str
    options: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def run_page(page: Path, shorter: Mapping[str, str] = NOTHING) -> dict[str, Any]:
    """Run a page in the working folder; return the names that its Python defines.

    `python` is executed, with the names of the blocks before; each line of `sh` is a command of
    medtl, or an installation whose extra must exist; `yaml title="FILE"` is written to the file,
    and without a title is a part of a recipe, which must be one; `text` is what the block before
    it says, "..." for anything. What stands below "not run" is passed over.

    Args:
        page: Its Markdown.
        shorter: Words of its commands that take long -> others in their place.
    """
    names: dict[str, Any] = {}
    said = ""
    for number, block in enumerate(blocks(page), 1):
        place = f"{page.name}, block {number}"
        if block.not_run:
            continue
        if block.language == "python":
            exec(compile(block.text, place, "exec"), names)
        elif block.language == "sh":
            lines = _lines(reduce(lambda text, to: text.replace(*to), shorter.items(), block.text))
            said = "".join(_run_line(line, place) for line in lines)
        elif block.language == "yaml":
            titles = re.findall(r'title="(\S+)"', block.options)
            if titles:
                Path(titles[0]).write_text(block.text, encoding="utf-8")
            else:
                _check_fragment(block.text)
        elif block.language == "text":
            assert says(said, block.text), f"{place} is not what was said:\n{said}"
        else:
            raise AssertionError(f"{place}: nobody runs {block.language!r}")
    return names


def _lines(text: str) -> list[str]:
    """The commands of a block, those on several lines as one, without remarks."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _run_line(line: str, place: str) -> str:
    """Run a command of medtl, its input or output a file where `<` or `>` says so."""
    name, *words = shlex.split(line, comments=True)
    if [name, *words[:1]] == ["pip", "install"]:
        extras = [one for word in words for one in re.findall(r"^medtl\[(.+)\]$", word)]
        assert extras, f"{place}: {line}"
        assert {name for one in extras for name in one.split(",")} <= set(_EXTRAS), place
        return ""
    assert name == "medtl", f"{place}: nobody runs {name!r}"
    given = ""
    if "<" in words:
        given = Path(words[words.index("<") + 1]).read_text(encoding="utf-8")
        words = words[: words.index("<")]
    if ">" in words:
        at = words.index(">")
        Path(words[at + 1]).write_text(medtl(*words[:at]), encoding="utf-8")
        return ""
    return medtl(*words, given=given)


def _check_fragment(text: str) -> None:
    """Check a part of a recipe, put into one that is whole."""
    recipe, part = loads(_BASE, "what is left out"), loads(text, "the fragment")
    for section, keys in part.items():
        recipe[section] = keys if section == "model" else {**recipe.get(section, {}), **keys}
    if recipe.get("task", {}).get("kind") == "segmentation":
        recipe["data"] = {"mask": "mask", **recipe["data"]}
        recipe["data"].pop("target")
    parse_recipe(recipe)


def says(said: str, shown: str) -> bool:
    """Whether a program said what a page shows: line by line, "..." for anything."""
    pattern = r"\s*".join(
        ".*" if line.strip() == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*?")
        for line in shown.splitlines()
        if line.strip()
    )
    return re.search(pattern, said, re.DOTALL) is not None
