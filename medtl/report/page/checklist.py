"""The items of CLAIM, STARD and TRIPOD+AI: filled in by software, or to be added by a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medtl.report.language.texts import plain
from medtl.report.page.finding import CALIBRATION, Finding

State = Literal["filled", "draft", "stated", "person", "absent"]
"""Filled or drafted by software, stated by a person, to be added by one, or not recorded."""


@dataclass(frozen=True)
class Item:
    """One thing that a guideline asks for.

    Attributes:
        key: Of its text.
        sources: Items of the guidelines (CLAIM 2020, STARD 2015 and TRIPOD+AI numbering).
        who: "software" fills it, it "drafts" what a person confirms, or only a "person" can.
        needs: Records, or fields of `study`, that hold it.
        section: Where in the page it is.
    """

    key: str
    sources: str
    who: Literal["software", "drafts", "person"]
    needs: tuple[str, ...] = ()
    section: str = "limits"


ITEMS = (
    Item("use", "STARD 3, CLAIM 3, TRIPOD+AI", "person", ("intended_use",), "summary"),
    Item("out_of_scope", "FDA, CHAI", "person", ("out_of_scope",), "summary"),
    Item("objective", "STARD 4, CLAIM 4", "person", ("endpoint",)),
    Item("design", "STARD 5, CLAIM 5-6", "person", ("external",)),
    Item("eligibility", "STARD 6-9, CLAIM 7-8", "person", ("sampling",)),
    Item("flow", "STARD 19, CLAIM 33", "software", ("cohort",), "cohort"),
    Item("demographics", "STARD 20-21, CLAIM 34", "software", ("cohort",), "cohort"),
    Item("preprocessing", "CLAIM 9", "software", ("recipe",), "record"),
    Item("missing_data", "STARD 15-16, CLAIM 13", "software", ("metrics",), "measures"),
    Item("reference", "STARD 10b-13, CLAIM 14-18", "person", ("reference_standard",)),
    Item("precision", "STARD 18, CLAIM 19", "drafts", ("metrics",), "measures"),
    Item("partitions", "CLAIM 20-21", "software", ("split",), "cohort"),
    Item("model", "CLAIM 22-24", "software", ("recipe", "environment"), "record"),
    Item("training", "CLAIM 25-27", "software", ("history",), "learning"),
    Item("cutoff", "STARD 12a, TRIPOD+AI", "software", ("threshold",), "f0"),
    Item("uncertainty", "STARD 14 and 24, CLAIM 28-29", "software", ("metrics",), "measures"),
    Item("crosstab", "STARD 23", "software", ("counts",), "f0"),
    Item("calibration", "TRIPOD+AI", "software", ("calibration",), "f0"),
    Item("subgroups", "STARD-AI, TRIPOD+AI", "software", ("subgroups",), "f0"),
    Item("robustness", "CLAIM 30", "software", ("variants",), "f0"),
    Item("explanation", "CLAIM 31", "software", ("gallery",), "cases"),
    Item("failures", "CLAIM 37, DECIDE-AI", "drafts", ("worst",), "cases"),
    Item("comparison", "STARD 14", "software", ("comparison",), "models"),
    Item("limitations", "STARD 26, CLAIM 38", "drafts", ("metrics",)),
    Item("interaction", "DECIDE-AI 2-17", "person"),
    Item("funding", "STARD 30, CLAIM 42, TRIPOD+AI", "person", ("funding",)),
    Item("availability", "CLAIM 40-42", "drafts", ("environment",), "record"),
)
"""The items, in the order of a paper."""

ONLY_CLASSIFIED = frozenset({"cutoff", "crosstab", "calibration"})
"""Items that mean nothing where no finding is a yes or no."""

Row = Mapping[str, Any]


def checklist(
    findings: Sequence[Finding], *, study: Row, metrics: Row, records: Row
) -> list[dict[str, str]]:
    """Return every item as text with its state.

    Args:
        findings: Those of the report.
        study: What a person stated.
        metrics: Content of metrics.json.
        records: `cohort`, `history`, `gallery`, `recipe_text`, `environment`, None where missing.
    """
    known = _known(findings, study=study, metrics=metrics, records=records)
    classified = any(finding.classified for finding in findings)
    rows = []
    for item in ITEMS:
        if item.key in ONLY_CLASSIFIED and not classified:
            continue
        state = _state(item, known)
        rows.append(
            {
                "item": plain(f"check.{item.key}"),
                "sources": item.sources,
                "state": state,
                "words": plain(f"check.state.{state}"),
                "section": item.section if state in ("filled", "draft", "stated") else "",
            }
        )
    return rows


def _state(item: Item, known: frozenset[str]) -> State:
    """The state of an item."""
    filled: dict[str, State] = {"software": "filled", "drafts": "draft", "person": "stated"}
    if item.needs and known.issuperset(item.needs):
        return filled[item.who]
    return "person" if item.who == "person" else "absent"


def _known(
    findings: Sequence[Finding], *, study: Row, metrics: Row, records: Row
) -> frozenset[str]:
    """The names of what there is to show."""
    cohort = records.get("cohort") or {}
    there = {
        "metrics": bool(findings),
        "cohort": bool(cohort),
        "split": bool(cohort.get("split_hash")),
        "recipe": bool(records.get("recipe_text")),
        "history": bool(records.get("history")),
        "environment": bool(records.get("environment")),
        "gallery": bool(records.get("gallery")),
        "threshold": any(finding.point for finding in findings),
        "counts": any(finding.counts for finding in findings),
        "calibration": any(set(CALIBRATION) & finding.measures.keys() for finding in findings),
        "subgroups": any(finding.subsets for finding in findings),
        "variants": bool(metrics.get("variants")),
        "worst": bool(metrics.get("worst") or records.get("gallery")),
        "comparison": bool(metrics.get("comparison") or metrics.get("readers")),
    }
    return frozenset(str(name) for name, value in [*there.items(), *study.items()] if value)
