"""The page about readers: modalities and models compared, and how far readers agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medtl import __version__
from medtl.report.language.numbers import cell
from medtl.report.language.texts import plain, speaking, spoken, translated
from medtl.report.page.finding import show
from medtl.report.render import _asset, _environment, _policy
from medtl.storage.atomic import write_text


def write_reader_page(
    out: Path, content: Mapping[str, Any], *, title: str, language: str = "en"
) -> None:
    """Write the results of a reader study as one HTML file without any outside reference.

    Args:
        out: The HTML file; its folder must exist.
        content: Of `readers.json`.
        title: Of the study.
        language: "en" or "ko".

    Raises:
        RunError: If the language is unknown, or the file cannot be written.
    """
    with speaking(language):
        style, script = _asset("report.css"), ""
        figures = list(dict.fromkeys(row[0] for row in content["single"]))
        page = {
            "language": spoken(),
            "version": __version__,
            "title": title,
            "style": Markup(style),
            "policy": _policy(script, style),
            "content": content,
            "notes": [translated(note) for note in content["notes"]],
            "means": [(name, show(measure)) for name, measure in content["means"]],
            "agreement": [(name, show(measure)) for name, measure in content["agreement"]],
            "single": [_readers(content, of) for of in figures],
            "components": {
                of: {plain(f"rs.part.{name}"): cell(value) for name, value in parts.items()}
                for of, parts in content["components"].items()
            },
        }
        write_text(out, _environment().get_template("readers.html.j2").render(page))


def _readers(content: Mapping[str, Any], of: str) -> dict[str, Any]:
    """The values of every reader in every modality."""
    values = {(m, r): show(measure) for f, m, r, measure in content["single"] if f == of}
    rows = [(r, [values[m, r] for m in content["modalities"]]) for r in content["readers"]]
    return {"of": of, "rows": rows}
