"""Commands as they are typed, run in this process."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from medtl.cli.main import app, main


def medtl(*arguments: str, given: str = "") -> str:
    """Run a command in this process, with something on its standard input; return its output."""
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(app, words, input=given or None, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def fails(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """Run a command as the shell does; return exit status and message."""
    monkeypatch.setattr(sys, "argv", ["medtl", *[str(a) for a in arguments]])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code), capsys.readouterr().err
