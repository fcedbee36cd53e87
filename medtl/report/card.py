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
    subset_text,
)
from medtl.report.language.texts import plain, spoken
from medtl.report.page.caveats import stated
from medtl.report.page.drawings import BY_SUBGROUP
from medtl.report.page.finding import Finding, base_of, show

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
        "stated_by_a_person": {name: words or None for name, words in stated(study)},
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


def measure_cells(row: Row) -> tuple[str, str, str]:
    """Name, value with interval or the reason there is none, and size, for the Markdown card."""
    shown = show(row)
    value = shown.value or plain("not_estimable", reason=reason_of(row))
    if shown.interval:
        value += f" ({shown.interval})"
    if shown.status == "degenerate":
        key = "degenerate" if shown.interval else "no_interval"
        value += f"; {plain(key, reason=shown.reason)}"
    counts = [count_text(number(row[name])) for name in ("n", "n_positive", "n_patients")]
    subset = "" if row["subset"] == "all" else f", {subset_text(str(row['subset']))}"
    return shown.title + subset, value, " / ".join(counts)


def by_subgroup(finding: Finding) -> list[Row]:
    """The measures of subgroups that the Markdown card lists."""
    return [row for row in finding.subsets if base_of(row["name"]) in BY_SUBGROUP]


def cell(value: object) -> str:
    """A text that cannot leave its line or its cell, and holds no markup of its own."""
    text = re.sub(r"\s+", " ", str(value if value is not None else "")).strip()
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
