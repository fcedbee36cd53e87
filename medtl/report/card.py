"""The model card: the report's content for programs (JSON) and for a repository (Markdown)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from medtl import __version__
from medtl.report.language.numbers import (
    count_text,
    number,
    reason_of,
    sentence,
    subset_text,
    threshold_text,
)
from medtl.report.language.texts import plain, spoken
from medtl.report.page.caveats import PERSON_FIELDS
from medtl.report.page.drawings import BY_SUBGROUP
from medtl.report.page.finding import Finding, show

SCHEMA = "medtl-model-card/1"

Row = Mapping[str, Any]


def model_card(
    findings: Sequence[Finding],
    *,
    study: Row,
    metrics: Row,
    limits: Sequence[str],
    checks: Sequence[Row],
    environment: Row | None,
) -> dict[str, Any]:
    """Return the model card as JSON can hold it; its measures are those of metrics.json.

    Args:
        findings: Those of the report.
        study: What a person stated.
        metrics: Content of metrics.json.
        limits: In words, the gravest first.
        checks: Rows of `checklist.checklist`.
        environment: Content of environment.json, or None.
    """
    return {
        "schema": SCHEMA,
        "language": spoken(),
        "made_by": f"medtl {__version__}",
        "status": plain("page.not_device"),
        "title": study.get("title") or None,
        "question": study.get("question") or None,
        "synthetic": study.get("synthetic") is True,
        "stated_by_a_person": {name: study.get(name) or None for name in PERSON_FIELDS},
        "prevalence": study.get("prevalence"),
        "findings": [
            {
                "label": finding.label,
                "name": finding.name,
                "operating_point": finding.point,
                "measures": list(finding.measures.values()),
                "subgroups": list(finding.subsets),
            }
            for finding in findings
        ],
        "test_openings": metrics.get("test_openings"),
        "limits": list(limits),
        "checklist": [{k: row[k] for k in ("item", "sources", "state")} for row in checks],
        "environment": environment,
    }


def as_markdown(card: Row, findings: Sequence[Finding]) -> str:
    """Return the model card as Markdown.

    Args:
        card: As `model_card` returned it.
        findings: Those of the report.
    """
    lines = [
        f"# {_cell(card['title'] or card['question'] or plain('page.kicker'))}",
        "",
        f"**{card['status']}** {card['made_by']}.",
        "",
    ]
    if card["synthetic"]:
        lines += [f"**{plain('page.synthetic')}**", ""]
    if card["question"] and card["title"]:
        lines += [_cell(card["question"]), ""]
    for finding in findings:
        lines += _finding_lines(finding)
    lines += [f"## {plain('rely.title')}", "", *(f"- {_cell(limit)}" for limit in card["limits"])]
    lines += ["", f"## {plain('limits.person')}", ""]
    lines += _table(
        (plain("check.item"), plain("check.state")),
        [
            (plain(f"person.{name}"), text or f"**{plain('not_stated')}**")
            for name, text in card["stated_by_a_person"].items()
        ],
    )
    lines += [f"## {plain('nav.checklist')}", ""]
    lines += _table(
        (plain("check.item"), plain("check.sources"), plain("check.state")),
        [
            (row["item"], row["sources"], plain(f"check.state.{row['state']}"))
            for row in card["checklist"]
        ],
    )
    return "\n".join(lines).rstrip() + "\n"


def _finding_lines(finding: Finding) -> list[str]:
    """A finding's threshold, measures and subgroups."""
    lines = [f"## {_cell(sentence(finding.name))}", ""]
    if finding.point is not None:
        threshold = threshold_text(finding.point.get("threshold"))
        lines += [
            f"{plain('fact.threshold')}: {threshold} ({_cell(finding.point.get('rule'))})",
            "",
        ]
    head = (plain("measures.name"), plain("measures.value"), plain("measures.n"))
    lines += _table(
        head, [_measure_cells(row, show(row).title) for row in finding.measures.values()]
    )
    groups = [row for row in finding.subsets if row["name"] in BY_SUBGROUP]
    if groups:
        rows = [
            _measure_cells(row, f"{show(row).title}, {subset_text(str(row['subset']))}")
            for row in groups
        ]
        lines += [f"### {plain('sub.title')}", "", *_table(head, rows)]
    return lines


def _measure_cells(row: Row, title: str) -> tuple[str, str, str]:
    """Name, value with interval or the reason there is none, and size."""
    shown = show(row)
    value = shown.value or plain("not_estimable", reason=reason_of(row))
    if shown.interval:
        value += f" ({shown.interval})"
    if shown.status == "degenerate":
        value += f"; {plain('degenerate', reason=shown.reason)}"
    counts = [count_text(number(row[name])) for name in ("n", "n_positive", "n_patients")]
    return title, value, " / ".join(counts)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table in Markdown with an empty line behind it."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines] + [""]


def _cell(value: object) -> str:
    """A text that cannot leave its line or its cell, and holds no markup of its own."""
    text = re.sub(r"\s+", " ", str(value if value is not None else "")).strip()
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
