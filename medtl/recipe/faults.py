"""What is wrong with a recipe, in our words: where, what was expected, the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from medtl.errors import MedtlError

_WORDS = {
    "a valid string": "a text",
    "a valid array": "a list",
    "a valid tuple": "a list",
    "an object": "a mapping",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
}
"""pydantic's words for types -> those of somebody who writes YAML."""


def faults_of(error: ValidationError, root: type[BaseModel]) -> list[MedtlError]:
    """Return every fault that pydantic found, one per place.

    Args:
        error: What validation raised.
        root: The schema that it was validated against.
    """
    return _distinct([_fault(dict(entry), root) for entry in error.errors()])


def _distinct(faults: list[MedtlError]) -> list[MedtlError]:
    """One fault per place: members of a union are joined, a section with faulty keys is dropped."""
    merged: dict[str, MedtlError] = {}
    for fault in faults:
        first = merged.get(fault.where)
        if first is not None and fault.expected:
            expected = f"{first.expected} or {fault.expected}"
            merged[fault.where] = MedtlError(
                first.found, expected=expected, where=fault.where, fix=first.fix
            )
        else:
            merged[fault.where] = fault
    return [
        fault
        for where, fault in merged.items()
        if not any(other.startswith(f"{where}.") for other in merged)
    ]


def _fault(entry: dict[str, Any], root: type[BaseModel]) -> MedtlError:
    """Say one pydantic error in our words."""
    keys = [str(part) for part in entry["loc"] if not _names_union_member(part)]
    where = ".".join(keys)
    kind, value = entry["type"], _with_lists(entry.get("input"))
    if kind == "extra_forbidden":
        valid = list(_fields_of(_section_at(keys[:-1], root)))
        return MedtlError("unknown key", where=where, fix=_nearest(keys[-1], valid))
    if kind == "missing":
        return MedtlError("this key is missing", where=where, fix=_purpose(keys, root))
    if kind == "literal_error":
        allowed = entry["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        expected = f"one of {', '.join(allowed)}"
        near = _nearest(str(value), allowed)
        return MedtlError(f"got {value!r}", expected=expected, where=where, fix=near)
    message = entry["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return MedtlError(message, where=where)
    return MedtlError(f"got {value!r}", expected=_WORDS.get(message, message), where=where)


def _names_union_member(part: str | int) -> bool:
    """Whether pydantic added this part of a location to say which type of a union it tried."""
    return isinstance(part, str) and (part in {"str", "float"} or "[" in part)


def _section_at(keys: list[str], root: type[BaseModel]) -> Any:
    """The section class that `keys` lead to, or None."""
    section: Any = root
    for key in keys:
        if not key.isdigit():
            section = _fields_of(section).get(key)
    return section


def _fields_of(section: Any) -> dict[str, Any]:
    """Key -> type of a section's fields; empty for anything that is not a section."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: _section_in(field.annotation) for name, field in section.model_fields.items()}
    return {}


def _section_in(annotation: Any) -> Any:
    """The section class inside an annotation such as `tuple[StageSpec, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


def _purpose(keys: list[str], root: type[BaseModel]) -> str:
    """What a missing key is for."""
    field = _section_at(keys[:-1], root).model_fields[keys[-1]]
    return f"Add it: {field.description}" if field.description else "Add it"


def _nearest(name: str, valid: list[str]) -> str:
    """'Did you mean ...' with the nearest valid name, or the whole list when none is near."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Valid here: {', '.join(valid)}" if valid else "Remove it"


def _with_lists(value: Any) -> Any:
    """What the user wrote: YAML's lists, which validation got as tuples."""
    if isinstance(value, Mapping):
        return {key: _with_lists(item) for key, item in value.items()}
    return list(map(_with_lists, value)) if isinstance(value, list | tuple) else value
