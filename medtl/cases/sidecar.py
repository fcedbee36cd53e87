"""The YAML file beside a manifest: what its columns and labels mean, units, source and licence.

columns: {target: pneumonia in the radiologist's report}
labels: {0: no finding, 1: pneumonia}
units: {boneage_months: months}
source: NIH ChestX-ray14
licence: CC0-1.0
images: /archive/films        # the folder that paths start from, when it is not this one
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtl.errors import ManifestError, MedtlError
from medtl.storage.tables import nearest
from medtl.storage.yaml import load_yaml

_TEXTS = ("source", "licence", "images")

SIDECAR_KEYS = ("columns", "labels", "units", *_TEXTS)
"""Keys of the YAML file beside a manifest: three mappings and three texts."""


def read_sidecar(path: Path, columns: Sequence[str]) -> tuple[dict[str, Any], list[MedtlError]]:
    """Return what the YAML file beside a table says, every key filled, and its faults.

    Args:
        path: The table; the sidecar is the file of the same name with the suffix `.yaml`.
        columns: Names of the table's columns.
    """
    sidecar: dict[str, Any] = {
        "columns": {},
        "labels": {},
        "units": {},
        "source": "",
        "licence": "",
        "images": "",
    }
    file = path.with_suffix(".yaml")
    if not file.exists():
        return sidecar, []
    try:
        given = load_yaml(file)
    except MedtlError as error:
        return sidecar, [error]
    checked = [_fault(key, value, columns, file.name) for key, value in given.items()]
    faults = [fault for fault in checked if fault is not None]
    return ({**sidecar, **given}, []) if not faults else (sidecar, list(faults))


def _fault(key: str, value: Any, columns: Sequence[str], where: str) -> ManifestError | None:
    """Return what is wrong with one entry of a sidecar, None if nothing is."""
    found, expected, fix = "", "", "Write `name: text` for each"
    if key not in SIDECAR_KEYS:
        near = nearest(key, SIDECAR_KEYS)
        found, expected = f"unknown key '{key}'", ", ".join(SIDECAR_KEYS)
        fix = f"Did you mean '{near}'?" if near else "If the file is a recipe, rename it"
    elif key in _TEXTS:
        if not isinstance(value, str):
            found, fix = f"'{key}' is not a text", "Put it in quotes"
    elif not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        found = f"'{key}' is not a mapping of names to texts"
    elif key != "labels" and (others := [name for name in value if name not in columns]):
        near = nearest(others[0], columns)
        found = f"'{key}' names '{others[0]}', which is no column"
        fix = f"Did you mean '{near}'?" if near else "Delete the entry"
    return ManifestError(found, expected=expected, where=where, fix=fix) if found else None
