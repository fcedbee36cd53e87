"""What every section of a recipe is: strict, frozen, and without unknown keys."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Section(BaseModel):
    """A part of the recipe: unknown keys are faults, values are never coerced, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FromMapping:
    """Annotation of dataclasses in a section: they are made from mappings, as sections are.

    Strict validation of a dataclass takes instances alone; its fields stay strict.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Return the schema of the dataclass, or of the tagged union of dataclasses."""
        schema = handler.resolve_ref_schema(handler(source))
        union = schema["type"] == "tagged-union"
        for choice in [*schema["choices"].values()] if union else [schema]:
            dataclass: Any = handler.resolve_ref_schema(choice)
            dataclass["strict"] = False
        return schema

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema for editors, with what the docstring says of class and attributes."""
        said = handler(schema)
        for choice in said.get("oneOf", [said]):
            section = handler.resolve_ref_schema(choice)
            text = section.get("description", "")
            section["description"] = text.partition("\n")[0]
            for name, meaning in _attributes(text).items():
                if name in section["properties"]:
                    section["properties"][name]["description"] = meaning
        return said


def _attributes(docstring: str) -> dict[str, str]:
    """Name -> text of the part "Attributes:" of a docstring."""
    part = re.search(r"^Attributes:\n((?:[ ].*\n?|\n)*)", inspect.cleandoc(docstring), re.MULTILINE)
    entries = (
        re.findall(r"^ {4}([\w, ]+): ((?:.*\n?)(?: {8}.*\n?)*)", part[1], re.M) if part else []
    )
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
