"""The page of what reporting guidelines ask, and where each answer stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import medtl.report.page as report_page
from manual.markdown import code, table
from medtl.recipe.schema import Study
from medtl.storage.yaml import load_yaml

HEAD = """# What reporting guidelines ask

Each item of CLAIM, STARD-AI and TRIPOD+AI under its own number, in short words of ours; the
published wording decides. *Software* fills an item from the run's record, it is *drafted* for a
person to confirm, or it is for *a person* to state. The same list, with what was recorded in a run,
lies beside its report as `reporting_checklist.csv` and `.docx`.

"""

GUIDELINES: dict[str, dict[str, Any]] = load_yaml(
    Path(report_page.__file__).with_name("guidelines.yaml")
)
"""Guideline -> source, and items with number, text, who answers and what holds the answer."""

WHO = {"software": "software", "drafts": "drafted", "person": "a person"}


def reporting_page() -> str:
    """Return the page: a table for each guideline."""
    return HEAD + "\n".join(
        f"## {name}\n\n{told['source']}.\n\n"
        + table(("item", "what is asked", "by", "where"), map(_row, told["items"]))
        for name, told in GUIDELINES.items()
    )


def _row(item: dict[str, str]) -> tuple[str, str, str, str]:
    """One item; what it needs is a key of the recipe, the manuscript, or a part of the record."""
    return item["no"], item["text"], WHO[item["who"]], place_of(item["needs"])


def place_of(needs: str) -> str:
    """Return where the content that an item needs is stated or written."""
    if needs == "paper":
        return "the manuscript"
    if needs in Study.model_fields:
        return code(f"study.{needs}") + " of the recipe"
    return RECORDED.get(needs) or code(f"study.reporting.{needs}") + " of the recipe"


RECORDED = {
    "recipe": "report, *Run record*: the recipe, every default written out",
    "environment": "report, *Run record*: versions and machine",
    "history": "report, *How it learned*; `history.csv`",
    "weights": "report, *Run record*: which weights, and their hash",
    "missing_data": "report, *All measures*: rows without truth or score",
    "cohort": "report, *Cohort*",
    "cohort_excluded": "report, *Cohort*: what was left out, and why",
    "split": "report, *Cohort*: how patients were divided",
    "flow": "report, *Cohort*: the flow diagram",
    "demographics": "report, *Cohort*: age, sex, `data.strata`",
    "parts": "report, *Cohort*: the same for each part",
    "metrics": "report, *All measures*; `metrics.json`",
    "intervals": "report, *All measures*: interval and method of each",
    "threshold": "report, *Operating point*: the rule, and what it was chosen on",
    "counts": "report, *Confusion table*",
    "subgroups": "report, *Subgroups* of each finding: each column of `data.strata`",
    "clusters": "report, *Subgroups*: the column `site`",
    "variants": "report, *Does it hold under other choices?*",
    "uncertain": "report, *Does it hold under other choices?*: uncertain labels either way",
    "recalibration": "report, *Calibration and usefulness*: before and after",
    "gallery": "report, *Cases to look at*: Grad-CAM",
    "failures": "report, *Cases to look at*: the worst first",
    "limitations": "report, *Limits*, by fixed rules",
    "input_quality": "report, *Data quality*",
}
"""What software records -> where it stands."""
