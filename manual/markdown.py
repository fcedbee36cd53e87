"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, addresses in it as links."""
    lines = [head, ["---"] * len(head), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cell(text: str) -> str:
    """Return a text as one cell: on one line, its bars escaped, addresses as links."""
    on_a_line = " ".join(text.split()).replace("|", "\\|")
    return re.sub(r"(?<![<(])(https?://[^\s),]+)", r"<\1>", on_a_line)


def code(text: object) -> str:
    """Return a text as code, nothing for nothing."""
    return f"`{text}`" if str(text) else ""
