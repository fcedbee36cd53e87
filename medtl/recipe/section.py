"""What every section of a recipe is: strict, frozen, and without unknown keys."""

from __future__ import annotations

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
        """Return the schema for editors, with the first line of each docstring."""
        said = handler(schema)
        for choice in said.get("oneOf", [said]):
            section = handler.resolve_ref_schema(choice)
            section["description"] = section.get("description", "").partition("\n")[0]
        return said
