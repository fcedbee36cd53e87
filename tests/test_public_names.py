"""The public surface, frozen: a name that users or other programs rely on changes only on purpose.

To change one, change tests/golden/public_names.json in the same commit and say so in CHANGELOG.md.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import medtl
from medtl.recipe.schema import Recipe
from medtl.types import Measure

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((Path(__file__).parent / "golden" / "public_names.json").read_text())


def test_console_script() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == GOLDEN["console_scripts"]
    assert project["version"] == medtl.__version__


def test_package_names() -> None:
    assert sorted(medtl.__all__) == GOLDEN["package"]


def command_names(command: Any, prefix: str = "") -> list[str]:
    """Every command below a typer group, a command of a group as "group command"."""
    names = []
    for name, below in command.commands.items():
        is_group = hasattr(below, "commands")
        names += command_names(below, f"{prefix}{name} ") if is_group else [f"{prefix}{name}"]
    return sorted(names)


def test_commands() -> None:
    if importlib.util.find_spec("medtl.cli.main") is None:
        pytest.skip("medtl/cli/main.py is not there yet")
    import typer.main

    from medtl.cli.main import app

    assert command_names(typer.main.get_command(app)) == GOLDEN["commands"]


def test_recipe_keys() -> None:
    assert list(Recipe.model_fields) == GOLDEN["recipe_keys"]


def test_measure_fields() -> None:
    assert [field.name for field in fields(Measure)] == GOLDEN["measure_fields"]


def test_metrics_schema() -> None:
    named = {
        (path.name, schema)
        for path in (ROOT / "medtl").rglob("*.py")
        for schema in re.findall(r"medtl-metrics/\d+", path.read_text(encoding="utf-8"))
    }
    assert {schema for _, schema in named} == {GOLDEN["metrics_schema"]}, named
