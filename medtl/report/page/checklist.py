"""The items of CLAIM, STARD-AI and TRIPOD+AI: filled in by software, or to be added by a person.

A state comes from content: a record that is there and empty fills nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from medtl.report.language.numbers import number
from medtl.report.language.texts import plain, translated
from medtl.report.page.finding import Finding
from medtl.storage.yaml import load_yaml

State = Literal["filled", "draft", "stated", "person", "absent"]
"""Filled or drafted by software, stated by a person, to be added by one, or not recorded."""


@dataclass(frozen=True)
class Item:
    """One thing that a guideline asks for.

    Attributes:
        key: Of its text.
        sources: Items of CLAIM 2024, STARD-AI 2025 and TRIPOD+AI 2024, by their own numbers.
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
    Item("use", "CLAIM 3, STARD-AI 3, TRIPOD+AI 3b", "person", ("intended_use",), "summary"),
    Item("out_of_scope", "FDA, CHAI", "person", ("out_of_scope",), "summary"),
    Item("objective", "CLAIM 4, STARD-AI 4, TRIPOD+AI 4", "person", ("endpoint",)),
    Item("design", "CLAIM 33, STARD-AI 29, TRIPOD+AI 16", "person", ("external",)),
    Item("eligibility", "CLAIM 7-8, STARD-AI 7-11, TRIPOD+AI 5a-6b", "person", ("sampling",)),
    Item("flow", "CLAIM 35, STARD-AI 24, TRIPOD+AI 20a", "software", ("flow",), "cohort"),
    Item(
        "demographics",
        "CLAIM 36, STARD-AI 25, TRIPOD+AI 20b",
        "software",
        ("demographics",),
        "cohort",
    ),
    Item("preprocessing", "CLAIM 9, STARD-AI 14, TRIPOD+AI 7", "software", ("recipe",), "record"),
    Item(
        "missing_data",
        "CLAIM 12, STARD-AI 19-20, TRIPOD+AI 11",
        "software",
        ("missing_data",),
        "measures",
    ),
    Item(
        "reference", "CLAIM 14-18, STARD-AI 16-17, TRIPOD+AI 8", "person", ("reference_standard",)
    ),
    Item("precision", "CLAIM 21, STARD-AI 22, TRIPOD+AI 10", "drafts", ("intervals",), "measures"),
    Item("partitions", "CLAIM 19-20, TRIPOD+AI 12a", "software", ("split",), "cohort"),
    Item(
        "model",
        "CLAIM 22-24, STARD-AI 15a, TRIPOD+AI 22",
        "software",
        ("recipe", "environment"),
        "record",
    ),
    Item(
        "training", "CLAIM 25-26, STARD-AI 15b, TRIPOD+AI 12c", "software", ("history",), "learning"
    ),
    Item("cutoff", "STARD-AI 15c, TRIPOD+AI 15", "software", ("threshold",), "f0"),
    Item(
        "uncertainty",
        "CLAIM 28-29, STARD-AI 31, TRIPOD+AI 23a",
        "software",
        ("intervals",),
        "measures",
    ),
    Item("crosstab", "STARD-AI 30", "software", ("counts",), "f0"),
    Item("calibration", "TRIPOD+AI 12e", "software", ("calibration",), "f0"),
    Item("subgroups", "STARD-AI 23, TRIPOD+AI 14 and 23a", "software", ("subgroups",), "f0"),
    Item("robustness", "CLAIM 30, STARD-AI 21", "software", ("variants",), "f0"),
    Item("explanation", "CLAIM 31", "software", ("gallery",), "cases"),
    Item("failures", "CLAIM 39", "drafts", ("worst",), "cases"),
    Item("comparison", "STARD-AI 18, TRIPOD+AI 12e", "software", ("comparison",), "models"),
    Item("limitations", "CLAIM 40, STARD-AI 33, TRIPOD+AI 26", "drafts", ("metrics",)),
    Item("interaction", "DECIDE-AI 2-17", "person"),
    Item(
        "acquisition",
        "CLAIM 13, STARD-AI 13-14, TRIPOD+AI 5b",
        "person",
        ("acquisition",),
        "cohort",
    ),
    Item("severity", "STARD-AI 26a-b", "person", ("severity",), "cohort"),
    Item("ethics", "STARD-AI 6, TRIPOD+AI 17", "person", ("ethics",)),
    Item("registration", "CLAIM 34, STARD-AI 36, TRIPOD+AI 18d", "person", ("registration",)),
    Item("annotators", "CLAIM 16-17, STARD-AI 12, TRIPOD+AI 8b", "person", ("annotators",)),
    Item("dates", "STARD-AI 9, TRIPOD+AI 5b", "person", ("dates",)),
    Item("funding", "CLAIM 44, STARD-AI 38-39, TRIPOD+AI 18a-b", "person", ("funding",)),
    Item("availability", "CLAIM 43, STARD-AI 40a, TRIPOD+AI 18e-f", "person", ("availability",)),
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
    known = known_content(findings, study=study, metrics=metrics, records=records)
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


DRAFTED = {"acquisition": "devices", "severity": "severities"}
"""What a person states -> the facts from which software can draft it."""


def _state(item: Item, known: frozenset[str]) -> State:
    """The state of an item."""
    filled: dict[str, State] = {"software": "filled", "drafts": "draft", "person": "stated"}
    if item.needs and known.issuperset(item.needs):
        return filled[item.who]
    if any(DRAFTED.get(name) in known for name in item.needs):
        return "draft"
    return "person" if item.who == "person" else "absent"


def known_content(
    findings: Sequence[Finding], *, study: Row, metrics: Row, records: Row
) -> frozenset[str]:
    """The names of what there is to show; what is there and empty is not among them.

    Args:
        findings: As for `checklist`, like the others.
        study: What a person stated.
        metrics: Content of metrics.json.
        records: Of the run.
    """
    cohort = records.get("cohort") or {}
    rows = [row for finding in findings for row in finding.measures.values() if _says(row)]
    groups = [row for finding in findings for row in finding.subsets if _has(row, "value")]
    compared = _compared(groups)
    labels = [
        counts
        for split in (cohort.get("splits") or {}).values()
        for counts in (split.get("labels") or {}).values()
    ]
    uncertain = any(number(counts.get("uncertain")) for counts in labels)
    missing = any(number(counts.get("missing")) for counts in labels)
    gallery = (records.get("gallery") or {}).get("groups")
    counted = [finding.counts for finding in findings if finding.counts]
    there = {
        "metrics": any(_has(row, "value") for row in rows),
        "intervals": any(_has(row, "low") for row in rows),
        "cohort": any(number(split.get("images")) for split in cohort.get("splits", {}).values()),
        "demographics": _has_characteristics(cohort),
        "devices": _has_levels(cohort, "device") or _has_levels(cohort, "manufacturer"),
        "severities": _has_levels(cohort, "severity"),
        "parts": _has_characteristics(cohort) and len(cohort["splits"]) > 1,
        "flow": bool(cohort.get("excluded") or (cohort and records.get("data_quality"))),
        "cohort_excluded": bool(cohort.get("excluded")),
        "split": bool(cohort.get("split_hash")),
        "missing_data": missing or uncertain or bool(metrics.get("missing_scores")),
        "uncertain": uncertain,
        "recipe": bool(records.get("recipe_text")),
        "weights": "weights" in (records.get("recipe_text") or ""),
        "history": bool(records.get("history")),
        "environment": bool(records.get("environment")),
        # Pictures without a map of what raised the score explain nothing.
        "gallery": any(case.get("overlay") for group in gallery or [] for case in group["cases"]),
        "threshold": any(finding.point for finding in findings),
        "counts": any(c["tp"] + c["fn"] and c["fp"] + c["tn"] for c in counted),
        "calibration": any(_has(f.named("calibration_slope"), "value") for f in findings),
        "subgroups": bool(compared),
        "clusters": bool(compared & CLUSTERS),
        "recalibration": bool(metrics.get("recalibrations")),
        "variants": bool(metrics.get("variants")),
        "worst": bool(metrics.get("worst") or gallery),
        "failures": bool(metrics.get("worst") or gallery),
        "limitations": bool(findings),
        "comparison": bool(metrics.get("comparison") or metrics.get("readers")),
    }
    said = {**study, **(study.get("reporting") or {})}
    return frozenset(str(name) for name, value in [*there.items(), *said.items()] if value)


CLUSTERS = frozenset({"site", "scanner", "hospital"})
"""Columns whose groups are places, between which results may differ."""


def _compared(groups: Sequence[Row]) -> set[str]:
    """The columns with more than one group that has a result; one group compares nothing."""
    subsets = {str(row["subset"]) for row in groups}
    columns = Counter(subset.partition("=")[0] for subset in subsets)
    return {column for column, n in columns.items() if n > 1}


OF_ANY_TABLE = frozenset({"brier", "log_loss", "ece", "ece_if_calibrated", "prevalence"})
"""Measures that exist for one class too, and say nothing of performance there."""


def _says(row: Row) -> bool:
    """Whether a measure could tell good from bad on its rows."""
    positives = number(row.get("n_positive"))
    of_one_class = positives in (0, number(row.get("n")))
    return not (of_one_class and str(row.get("name")) in OF_ANY_TABLE)


def _has(row: Row, part: str) -> bool:
    """Whether a measure has a value, or an end of its interval."""
    return number(row.get(part)) is not None


def _has_levels(cohort: Row, column: str) -> bool:
    """Whether some case of a part has a known value of a column."""
    parts = (cohort.get("splits") or {}).values()
    return any(set(map(str, part.get(column) or {})) - {"", "unknown"} for part in parts)


def _has_characteristics(cohort: Row) -> bool:
    """Whether the cases are described by more than how many they are and what they have."""
    known = {"images", "patients", "labels"}
    for split in (cohort.get("splits") or {}).values():
        for name, value in split.items():
            levels = value if isinstance(value, Mapping) else {value: 1}
            if name not in known and set(map(str, levels)) - {"", "unknown", "None"}:
                return True
    return False


@cache
def guidelines() -> dict[str, Any]:
    """The guidelines by name: where they are published, and their items."""
    return dict(load_yaml(Path(__file__).with_name("guidelines.yaml")))


def dossier(known: frozenset[str], study: Row) -> list[dict[str, str]]:
    """Every item of every guideline, with its own number and its state.

    Args:
        known: Of `known_content`.
        study: What a person stated; it stands beside its item.

    >>> rows = dossier(frozenset({"intervals"}), {})
    >>> [(row["no"], row["state"]) for row in rows if row["guideline"] == "CLAIM 2024"][28]
    ('29', 'filled')
    """
    rows, said = [], {**study, **(study.get("reporting") or {})}
    for name, guideline in guidelines().items():
        for item in guideline["items"]:
            state = _state(Item("", "", item["who"], (item["needs"],)), known)
            rows.append(
                {
                    **{"guideline": name, "no": item["no"], "text": translated(item["text"])},
                    **{"state": state, "words": plain(f"check.state.{state}")},
                    "said": str(said.get(item["needs"]) or ""),
                }
            )
    return rows
