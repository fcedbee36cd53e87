"""Every key of a recipe in words, from the schema that checks it: for a command and the manual."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medtl.errors import MedtlError, RecipeError
from medtl.recipe.faults import nearest_fix
from medtl.recipe.schema import Recipe

Schema = Mapping[str, Any]

TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false"}
"""JSON schema's words for types -> those of somebody who writes YAML."""

RANGES = {
    "minimum": "at least {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "at most {:g}",
    "exclusiveMaximum": "below {:g}",
}
"""JSON schema's words for ranges of numbers -> ours."""


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Attributes:
        name: With its sections, "finetune.stages.N.epochs"; of a loss's own, "task.loss.gamma".
        of: Name of the loss that has the key, "" for all other keys.
        takes: What may stand there.
        default: As it is written; "" where the key must be stated or its own keys have defaults.
        meaning: What it does.
    """

    name: str
    of: str
    takes: str
    default: str
    meaning: str

    @property
    def plain(self) -> str:
        """The name without numbers of stages, to be compared."""
        return ".".join(part for part in self.name.split(".") if part != "N")

    def __str__(self) -> str:
        state = f"; {self.default}" if self.default else ""
        return f"{self.name}{self.of and f' of {self.of}'}: {self.meaning}\n    {self.takes}{state}"


def recipe_keys() -> list[Key]:
    """Return every key of a recipe, in the order of the schema.

    Example:
        >>> print(next(key for key in recipe_keys() if key.name == "data.strata"))
        data.strata: columns that the report breaks results by
            list of text; default []
    """
    whole = Recipe.model_json_schema()
    return list(_keys(whole, whole["$defs"]))


def explain(name: str) -> str:
    """Return what a key means and, of a section, what its keys mean.

    Args:
        name: "image.size", or "finetune" for all keys of a section; "" for all. The number of a
            stage may stand in it.

    Raises:
        RecipeError: When there is no such key.

    Example:
        >>> print(explain("finetune.stages.0.epochs"))
        finetune.stages.N.epochs: Upper bound; early stopping may end the stage before.
            whole number, at least 1; must be stated
    """
    wanted = ".".join(part for part in name.split(".") if not part.isdigit() and part != "N")
    keys = recipe_keys()
    found = [key for key in keys if not wanted or f"{key.plain}.".startswith(f"{wanted}.")]
    if not found:
        names = [*dict.fromkeys(key.plain for key in keys)]
        ends = [known for known in names if f".{known}".endswith(f".{wanted.split('.')[-1]}")]
        fix = f"Did you mean {' or '.join(ends[:3])}?" if ends else nearest_fix(wanted, names)
        raise RecipeError([MedtlError(f"a recipe has no key {name!r}", fix=fix)])
    return "\n".join(map(str, found))


def _keys(section: Schema, defs: Schema, prefix: str = "", of: str = "") -> Iterator[Key]:
    """Yield the keys of a section, each before the keys below it."""
    for name, spec in section["properties"].items():
        if "const" in spec:  # the name of a loss, which chooses the section
            continue
        below = dict(_sections(spec))
        own = [defs[ref] for ref in below]
        is_required = name in section.get("required", ())
        meaning = (spec if "description" in spec or not own else own[0]).get("description", "")
        default = "must be stated" if is_required else _default(spec.get("default"))
        yield Key(prefix + name, of, _takes(spec), default, meaning or section["description"])
        inside = f"{prefix}{name}.{'N.' if spec.get('type') == 'array' else ''}"
        for ref, tag in below.items():
            yield from _keys(defs[ref], defs, inside, tag or of)


def _sections(spec: Schema) -> Iterator[tuple[str, str]]:
    """Yield the sections that may stand at a key, each with its tag if it is one of several."""
    if "$ref" in spec:
        yield _named(spec["$ref"]), ""
    for tag, ref in spec.get("discriminator", {}).get("mapping", {}).items():
        if tag != "python":  # what a recipe cannot state
            yield _named(ref), tag
    for inner in (*spec.get("anyOf", ()), *([spec["items"]] if "items" in spec else [])):
        yield from _sections(inner)


def _named(ref: str) -> str:
    return ref.rpartition("/")[2]


def _takes(spec: Schema) -> str:
    """What may stand at a key, in words."""
    if "anyOf" in spec:
        words = (_takes(part) for part in spec["anyOf"] if part.get("type") != "null")
        return " or ".join(dict.fromkeys(words))
    if "enum" in spec:
        return ", ".join(map(str, spec["enum"]))
    if "const" in spec:
        return str(spec["const"]).lower()
    if "oneOf" in spec or "$ref" in spec:
        return "a name with its options" if "oneOf" in spec else "keys of its own"
    kind = spec.get("type", "anything")
    if kind == "array":
        parts = spec.get("prefixItems", [spec.get("items", {})])
        number = f"{len(parts)} times " if len(parts) > 1 else ""
        return f"list of {number}{_takes(parts[0])}"
    if kind == "object":
        value = spec.get("additionalProperties")
        return f"name: {_takes(value)}" if isinstance(value, dict) else "mapping"
    limits: list[str] = [text.format(spec[word]) for word, text in RANGES.items() if word in spec]
    return ", ".join([TYPES.get(kind, str(kind)), *limits])


def _default(value: Any) -> str:
    """A default as it is written in YAML; of sections, their names or nothing."""
    if isinstance(value, dict):
        return f"default {value['name']}" if "name" in value else ""
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return f"default {', '.join(one['name'] for one in value)}"
    return "" if value is None else f"default {json.dumps(value, ensure_ascii=False)}"
