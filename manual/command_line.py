"""The page of the command line: every command with its arguments and options, from typer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from manual.markdown import code, table

HEAD = """# Command line

Made from the program itself; `medtl COMMAND --help` says the same. A change to a recipe is written
`key=value` behind it, as in `medtl run study/recipe.yaml image.size=320` ([every key](recipe.md)).

"""


def command_line_page() -> str:
    """Return the page, a section for each command."""
    from medtl.cli.main import app

    whole = typer.main.get_command(app)
    return HEAD + "\n".join(_section(name, command) for name, command in commands(whole))


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command below a group with its whole name, in order."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _section(name: str, command: Any) -> str:
    """One command: what it does, how it is called, what it takes, as its own help has it."""
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(["medtl", name, *command.collect_usage_pieces(context)])
    records = (one.get_help_record(context) for one in command.get_params(context))
    rows = [_row(*record) for record in records if record and "--help" not in record[0]]
    takes = table(("", "what it does", "default"), rows) if rows else ""
    told = (command.help or "").strip()
    return f"## {name}\n\n{told}\n\n```text\n{usage}\n```\n\n{takes}"


def _row(shown: str, told: str) -> tuple[str, str, str]:
    """One argument or option; what its help says in brackets at the end is default and range."""
    what, _, remarks = told.partition("  [")
    return code(" ".join(shown.split())), what, remarks.removesuffix("]").removeprefix("default: ")
