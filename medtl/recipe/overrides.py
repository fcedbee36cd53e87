"""A recipe file with the command line's changes, as plain data with absolute paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtl.errors import MedtlError, RecipeError
from medtl.recipe.finetune import Finetune
from medtl.storage.yaml import load_yaml, loads

PATH_KEYS = (
    *("data.manifest", "model.weights.path"),
    *("finetune.learn.teacher", "finetune.learn.unlabelled"),
)
"""Recipe keys that hold a path."""

TABLES = frozenset({".csv", ".tsv", ".parquet", ".xlsx"})
"""Endings of manifests, which are taken for recipes in a hurry."""


def read_data(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return a recipe file as plain data with its paths made absolute.

    Args:
        path: The YAML file. Paths inside it are relative to its folder.
        overrides: "key.key=value" with values in YAML; paths are relative to the current folder.

    Raises:
        RecipeError: When the file is missing, a table or not YAML, or an override is not
            "key=value".
    """
    if path.suffix.lower() in TABLES and path.is_file():
        fault = MedtlError("a table, and no recipe", fix=f"Make one of it: medtl init {path.name}")
        raise RecipeError([fault], where=path.name)
    try:
        data = load_yaml(path)
        _resolve_paths(data, path.absolute().parent)
        for override in overrides:
            change(data, *_override(override))
    except RecipeError:
        raise
    except MedtlError as error:
        raise RecipeError([error], where=path.name) from error
    return data


def _override(override: str) -> tuple[str, Any]:
    """Return the key and the value of one "key.key=value"."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise MedtlError(f"cannot read the override {override!r}", expected="key.key=value")
    return key, loads(f"value: {text}", f"override {key}")["value"]


def change(data: dict[str, Any], key: str, value: Any) -> None:
    """Set one value of a recipe's plain data, in place.

    Args:
        data: What a recipe file holds.
        key: "section.key"; a number is a member of a list ("finetune.stages.0.epochs"), and * is
            every one. Stages that a recipe leaves to the default can be changed too.
        value: A path is relative to the current folder.

    Raises:
        MedtlError: When the key leads below a value that has none, or to no member of a list.
    """
    *sections, last = key.split(".")
    if sections[:2] == ["finetune", "stages"]:
        _state_stages(data)
    places: list[Any] = [data]
    for section in sections:
        places = [
            place[member] if isinstance(place, list) else place.setdefault(member, {})
            for place in places
            for member in _members(place, section, key)
        ]
    for place in places:
        for member in _members(place, last, key):
            place[member] = value
    if any(f"{path}.".startswith(f"{key}.") for path in PATH_KEYS):
        _resolve_paths(data, Path.cwd())


def _members(place: Any, section: str, key: str) -> list[Any]:
    """What a part of a key names in a mapping or a list."""
    if isinstance(place, dict):
        return [section]
    if not isinstance(place, list) or not (section.isdigit() or section == "*"):
        raise MedtlError(f"the override {key!r} leads below a value that has no keys")
    if section == "*":
        return [*range(len(place))]
    if int(section) >= len(place):
        raise MedtlError(
            f"the override {key!r} leads to number {section} of {len(place)}, which has no keys",
            expected=f"0 to {len(place) - 1}" if place else "a list with members",
        )
    return [int(section)]


def _state_stages(data: dict[str, Any]) -> None:
    """Write the default stages out where the recipe states none, so that they can be changed."""
    section = data.setdefault("finetune", {})
    if isinstance(section, dict) and "stages" not in section:
        if section.get("preset") is not None:
            raise MedtlError(
                f"the stages of the preset {section['preset']!r} cannot be changed",
                fix="State finetune.stages in place of the preset",
            )
        section["stages"] = Finetune().model_dump(mode="json")["stages"]


def _resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """Make the paths of a recipe absolute, in place."""
    for key in PATH_KEYS:
        *sections, last = key.split(".")
        place: Any = data
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(last), str):
            place[last] = str((folder / place[last]).resolve())
