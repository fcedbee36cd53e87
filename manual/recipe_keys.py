"""The page of a recipe's keys: from the schema, with examples from the recipes that come along."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import medtl
from manual.markdown import code, table
from medtl.recipe.explain import Key, recipe_keys
from medtl.storage.yaml import load_yaml

ROOT = Path(__file__).parents[1]

HEAD = """# Recipe

Every key, from the schema that checks a recipe; `medtl recipe --explain KEY` says the same of one
key or section. On the command line a change is written `finetune.stages.0.epochs=5`. Examples are
values that a recipe in `pipelines/` or of the demo states. {since}
"""


def recipe_page() -> str:
    """Return the page, a section for each section of a recipe."""
    parts = [HEAD.format(since=since((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))]
    for section, keys in itertools.groupby(recipe_keys(), lambda key: key.name.split(".")[0]):
        head, *rest = keys
        rows = [_row(key) for key in rest]
        shown = table(("key", "meaning", "takes", "default", "example"), rows)
        parts.append(f"\n## {section}\n\n{head.meaning}\n\n{shown}")
    return "".join(parts)


def since(changelog: str) -> str:
    """Return since when the keys are there: one sentence while one version has them all.

    Raises:
        ValueError: If there were several releases: each key then needs its own.
    """
    releases = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    if len(releases) > 1:
        raise ValueError("several releases: state in manual/recipe_keys.py since which a key is")
    if releases:
        return f"All keys are there since {releases[0]}."
    return f"No version has been released yet; all keys are there since {medtl.__version__}."


def _row(key: Key) -> tuple[str, ...]:
    """One key as a row of its section's table."""
    name = f"{code(key.name)}{key.of and f' of {key.of}'}"
    default = key.default.removeprefix("default ")
    is_value = default and not default.startswith("must")
    example = "" if key.of else code(_stated().get(key.plain, ""))
    return name, key.meaning, key.takes, code(default) if is_value else default, example


@cache
def _stated() -> dict[str, str]:
    """Key -> the first value that a shipped recipe states for it."""
    paths = [*sorted((ROOT / "pipelines").glob("*.yaml")), *(ROOT / "medtl/demo").glob("*.yaml")]
    found: dict[str, str] = {}
    for path in paths:
        for name, value in _leaves(load_yaml(path), ""):
            found.setdefault(name, value)
    return found


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the plain name and the written value of everything below a section, stages once."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, f"{name}.{key}".strip("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for below in value:
            yield from _leaves(below, name)
    if not isinstance(value, dict):
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(written) <= 60:
            yield name, written
