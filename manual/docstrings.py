"""An extension of griffe: examples of docstrings are shown as code, with or without a heading."""

from __future__ import annotations

import re
from typing import Any

import griffe

_BARE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
"""An example at the margin of a docstring, up to the next empty line."""


class Examples(griffe.Extension):
    """Gives every example the section `Examples`, which is how griffe tells code from text."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of what was read."""
        if obj.docstring:
            obj.docstring.value = with_sections(obj.docstring.value)


def with_sections(docstring: str) -> str:
    """Return a docstring whose examples stand in a section of their own."""
    named = re.sub(r"^Example:$", "Examples:", docstring, flags=re.MULTILINE)
    return _BARE.sub(lambda found: "Examples:\n" + re.sub("(?m)^", "    ", found[0]), named)
