"""What is wrong with a recipe, in our words: where, what was expected, the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from typing_extensions import get_type_hints, is_typeddict

from medtl.errors import MedtlError

_WORDS = {
    "a valid string": "a text",
    "a valid array": "a list",
    "a valid tuple": "a list",
    "a valid dictionary or object to extract fields from": "a name, or a mapping with a name",
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
    parts = [str(part) for part in entry["loc"] if not _names_union_member(part)]
    sections, keys = _way(parts, root)
    where = ".".join(keys)
    kind, value, ctx = entry["type"], _with_lists(entry.get("input")), entry.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        is_option = len(sections) > 2 and isinstance(sections[-3], dict)
        found = f"unknown option of {parts[-2]}" if is_option else "unknown key"
        return MedtlError(
            found, where=where, fix=nearest_fix(parts[-1], [*_fields_of(sections[-2])])
        )
    if kind in ("missing", "missing_argument"):
        return MedtlError("this key is missing", where=where, fix=_purpose(parts[-1], sections[-2]))
    if kind == "union_tag_not_found":
        tag = ctx["discriminator"].strip("'")
        fix = f"State {{{tag}: ...}}" + (", or a name" if tag == "name" else "")
        return MedtlError("this key is missing", where=f"{where}.{tag}", fix=fix)
    if kind in ("literal_error", "union_tag_invalid"):
        allowed = ctx.get("expected") or ctx["expected_tags"]
        allowed = allowed.replace("'", "").replace(" or ", ", ").split(", ")
        value = ctx.get("tag", value)
        expected = f"one of {', '.join(allowed)}"
        near = nearest_fix(str(value), allowed)
        return MedtlError(f"got {value!r}", expected=expected, where=where, fix=near)
    message = entry["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return MedtlError(message, where=where)
    is_word = kind == "string_type" and (value is None or isinstance(value, bool | int | float))
    fix = "YAML takes it for something else: put the word in quotes" if is_word else ""
    expected = _WORDS.get(message, message)
    return MedtlError(f"got {value!r}", expected=expected, where=where, fix=fix)


def _names_union_member(part: str | int) -> bool:
    """Whether pydantic added this part of a location to say which type of a union it tried."""
    words = {"str", "float", "constrained-float", "constrained-int", "LowRankAdapters"}
    return isinstance(part, str) and (part in words or "[" in part)


def _way(parts: list[str], root: Any) -> tuple[list[Any], list[str]]:
    """The sections that a location leads through, its end too, and the keys that a user wrote.

    A tagged union adds the tag of the member that was meant; no user wrote that.
    """
    sections, keys = [root], []
    for part in parts:
        if not isinstance(sections[-1], dict):
            keys.append(part)
        step = sections[-1] if part.isdigit() else _fields_of(sections[-1]).get(part)
        sections.append(step)
    return sections, keys


def _fields_of(section: Any) -> dict[str, Any]:
    """Key -> type of a section's fields; empty for anything that is not a section."""
    if isinstance(section, dict):
        return section
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: _section_in(field.annotation) for name, field in section.model_fields.items()}
    if is_typeddict(section):
        return dict.fromkeys(section.__annotations__)
    if is_dataclass(section):
        hints = get_type_hints(section)
        return {field.name: _section_in(hints[field.name]) for field in fields(section)}
    return {}


def _section_in(annotation: Any) -> Any:
    """The section inside an annotation such as `tuple[Stage, ...] | None`.

    Of a tagged union of dataclasses that is a dictionary: tag -> section.
    """
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if is_model or is_dataclass(annotation) or is_typeddict(annotation):
        return annotation
    found = [_section_in(argument) for argument in getattr(annotation, "__args__", ())]
    found = [section for section in found if section is not None]
    if len(found) > 1:
        return {word: section for section in found for word in _tags_of(section)}
    return found[0] if found else None


def _tags_of(section: Any) -> tuple[str, ...]:
    """The words that say which member of a tagged union is meant: its name, or its method."""
    hints = get_type_hints(section)
    tags: tuple[str, ...] = get_args(hints["name" if "name" in hints else "method"])
    return tags


def _purpose(key: str, section: Any) -> str:
    """What a missing key is for."""
    field = getattr(section, "model_fields", {}).get(key)
    return f"Add it: {field.description}" if field and field.description else "Add it"


def nearest_fix(name: str, valid: list[str]) -> str:
    """Return 'Did you mean ...' with the nearest name, or the whole list when none is near."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Valid here: {', '.join(valid)}" if valid else "Remove it"


def _with_lists(value: Any) -> Any:
    """What the user wrote: YAML's lists, which validation got as tuples."""
    if isinstance(value, Mapping):
        return {key: _with_lists(item) for key, item in value.items()}
    return list(map(_with_lists, value)) if isinstance(value, list | tuple) else value
