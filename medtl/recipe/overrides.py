"""A recipe file with the command line's changes, as plain data with absolute paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtl.errors import MedtlError, RecipeError
from medtl.storage.yaml import load_yaml, loads

PATH_KEYS = ("data.manifest", "model.weights.path")
"""Recipe keys that hold a path."""


def read_data(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return a recipe file as plain data with its paths made absolute.

    Args:
        path: The YAML file. Paths inside it are relative to its folder.
        overrides: "key.key=value" with values in YAML; paths are relative to the current folder.

    Raises:
        RecipeError: When the file is missing or is not YAML, or an override is not "key=value".
    """
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
        key: "section.key", or a number for a member of a list ("finetune.stages.0.epochs").
        value: A path is relative to the current folder.

    Raises:
        MedtlError: When the key leads below a value that has none.
    """
    *sections, last = key.split(".")
    place: Any = data
    for section in sections:
        if section.isdigit() and isinstance(place, list) and int(section) < len(place):
            place = place[int(section)]
        elif isinstance(place, dict):
            place = place.setdefault(section, {})
        else:
            raise MedtlError(f"the override {key!r} leads below a value that has no keys")
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise MedtlError(f"the override {key!r} leads below a value that has no keys")
    if key in PATH_KEYS:
        _resolve_paths(data, Path.cwd())


def _resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """Make the paths of a recipe absolute, in place."""
    for key in PATH_KEYS:
        *sections, last = key.split(".")
        place: Any = data
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(last), str):
            place[last] = str((folder / place[last]).resolve())
