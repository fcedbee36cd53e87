"""The limits of augmentation for each modality: the table `safety.yaml`, read and checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from medtl.errors import MedtlError

Level = Literal["SAFE", "CAUTION", "UNSAFE"]
Kind = Literal["orientation", "geometric", "photometric", "batch"]
Border = Literal["black", "mirror"]
Limits = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a transform for a modality.

    Attributes:
        level: "SAFE" is in the default policy, "CAUTION" on request, "UNSAFE" is refused.
        reason: Why, in words.
        limits: Parameter -> lowest and highest value; empty for UNSAFE and for exact transforms.
    """

    level: Level
    reason: str
    limits: Limits


@dataclass(frozen=True)
class _Table:
    """The file by its parts: by modality, by transform, and the verdicts."""

    borders: Mapping[str, Border]
    kinds: Mapping[str, Kind]
    parameters: Mapping[str, str]
    possible: Mapping[str, tuple[float, float]]
    verdicts: Mapping[tuple[str, str], Verdict]


def safety(transform: str, modality: str) -> Verdict:
    """Return the verdict on a transform for a modality.

    Args:
        transform: One of `transform_names()`.
        modality: One of `modality_names()`.

    Raises:
        MedtlError: When the table has no such transform or modality.

    >>> verdict = safety("horizontal_flip", "cxr")
    >>> verdict.level, verdict.reason.split(":")[0]
    ('UNSAFE', 'puts the heart on the right')
    """
    return _table().verdicts[_known("transform", transform), _known("modality", modality)]


def modality_names() -> tuple[str, ...]:
    """The modalities of the table.

    >>> modality_names()[:3]
    ('cxr', 'hand', 'ct')
    """
    return tuple(_table().borders)


def transform_names() -> tuple[str, ...]:
    """The transforms of the table.

    >>> transform_names()[:3]
    ('horizontal_flip', 'vertical_flip', 'quarter_turn')
    """
    return tuple(_table().kinds)


def kind_of(transform: str) -> Kind:
    """Return what sort of transform this is: it decides how transforms are combined.

    Args:
        transform: One of `transform_names()`.

    Raises:
        MedtlError: When the table has no such transform.

    >>> kind_of("rotate"), kind_of("gamma")
    ('geometric', 'photometric')
    """
    return _table().kinds[_known("transform", transform)]


def parameter_of(transform: str) -> str:
    """Return the name of the transform's one parameter, "" when it has none.

    Args:
        transform: One of `transform_names()`.

    Raises:
        MedtlError: When the table has no such transform.

    >>> parameter_of("rotate"), parameter_of("horizontal_flip")
    ('degrees', '')
    """
    return _table().parameters[_known("transform", transform)]


def possible_of(transform: str) -> tuple[float, float]:
    """Return the range outside which the transform's parameter has no meaning at all.

    Args:
        transform: One of `transform_names()` that has a parameter.

    Raises:
        MedtlError: When the table has no such transform.

    >>> possible_of("rotate")
    (-180.0, 180.0)
    """
    return _table().possible[_known("transform", transform)]


def border_of(modality: str) -> Border:
    """Return what lies beyond the edge of a moved picture.

    Args:
        modality: One of `modality_names()`.

    Raises:
        MedtlError: When the table has no such modality.

    >>> border_of("cxr"), border_of("derm")
    ('black', 'mirror')
    """
    return _table().borders[_known("modality", modality)]


def _known(what: str, name: str) -> str:
    """The name, if the table has it."""
    names = transform_names() if what == "transform" else modality_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise MedtlError(
            f"unknown {what} {name!r}",
            expected=f"one of {', '.join(names)}",
            fix=f"Perhaps {near[0]!r} is meant" if near else "",
        )
    return name


@cache
def _table() -> _Table:
    """The table, read once."""
    from ruamel.yaml import YAML

    text = resources.files("medtl.preprocess").joinpath("safety.yaml").read_text(encoding="utf-8")
    data = YAML(typ="safe").load(text)
    borders = {name: entry["border"] for name, entry in data["modalities"].items()}
    rows: dict[str, dict[str, Any]] = data["transforms"]
    kinds = {name: row["kind"] for name, row in rows.items()}
    parameters = {name: row.get("parameter", "") for name, row in rows.items()}
    verdicts = {
        (name, modality): _verdict(row.get(modality) or row["others"], parameters[name])
        for name, row in rows.items()
        for modality in borders
    }
    possible = {name: _range(row["possible"]) for name, row in rows.items() if parameters[name]}
    return _Table(borders, kinds, parameters, possible, verdicts)


def _verdict(entry: Mapping[str, Any], parameter: str) -> Verdict:
    """One cell of the table."""
    limits = {parameter: _range(entry["limits"])} if "limits" in entry else {}
    return Verdict(entry["level"], entry["reason"], MappingProxyType(limits))


def _range(pair: Sequence[float]) -> tuple[float, float]:
    """Two numbers of the file."""
    low, high = pair
    return float(low), float(high)
