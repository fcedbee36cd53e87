"""The demo from nothing to its report: what the README's first command promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browsing import look_at, needs_chromium

from medtl.demo.demonstration import run_demo
from medtl.errors import RunError


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("important")
    with pytest.raises(RunError, match="not empty"):
        run_demo(tmp_path)
    assert (tmp_path / "mine").read_text() == "important"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_demo(tmp_path_factory.mktemp("chest") / "demo").report_path


@pytest.mark.slow
def test_every_finding_is_learned_and_the_report_says_synthetic(report: Path) -> None:
    measures = json.loads(report.with_name("metrics.json").read_text())["measures"]
    auroc = {
        m["label"]: m["value"]
        for m in measures
        if (m["name"], m["split"], m["subset"]) == ("auroc", "test", "all")
    }
    findings = {name: auroc[name] for name in ("effusion", "nodule", "cardiomegaly")}
    assert min(findings.values()) > 0.85, findings
    assert "Synthetic images" in report.read_text()
    again = run_demo(report.parents[1], resume=True).report_path
    assert again == report


@needs_chromium
@pytest.mark.slow
def test_the_report_in_a_browser(report: Path) -> None:
    look_at(report, ["roc", "pr", "hist", "rel", "dec", "forest"])
