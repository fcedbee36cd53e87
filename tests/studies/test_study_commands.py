"""The study commands as they are typed."""

from __future__ import annotations

import json

import pytest
from tiny_study import RECIPE, write_tiny_study
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import RunError


def medtl(*arguments):
    """Run a command in this process; return what it printed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_conditions_then_summary_then_compare(tmp_path):
    text = RECIPE.replace("epochs: 2", "epochs: 1")
    recipe = write_tiny_study(tmp_path / "data", recipe=text)
    plan = tmp_path / "plan.yaml"
    plan.write_text("conditions: {low: ['finetune.stages.1.lr=1e-4'], high: []}\n")
    out = tmp_path / "study"
    said = medtl(
        *("study", "conditions", recipe, "finetune.batch_size=16"),
        *("--plan", plan, "--seeds", 2, "--out", out),
    )
    assert "| high | 2 |" in said
    assert "batch_size: 16" in (out / "runs/low/seed-1/recipe.yaml").read_text()
    assert "Test brier, reference: low." in medtl("study", "summary", out, "--measure", "brier")
    report = tmp_path / "comparison.json"
    said = medtl("study", "compare", f"{out}:low", f"{out}:high", "--out", report)
    assert "paired by seed" in said
    assert json.loads(report.read_text())["measure"] == "auroc"


def test_search(tmp_path):
    text = RECIPE.replace("epochs: 2", "epochs: 1")
    recipe = write_tiny_study(tmp_path / "data", recipe=text)
    space = tmp_path / "space.yaml"
    space.write_text("finetune.stages.1.lr.base: [1e-4, 1e-2]\n")
    out = tmp_path / "search"
    said = medtl(
        *("study", "search", recipe, "--space", space),
        *("--method", "grid", "--trials", 9, "--out", out),
    )
    assert "2 trials, judged by val_loss." in said
    assert "On the test cases, once: auroc" in said
    assert (out / "selected" / "report.html").is_file()
    assert not (out / "trials" / "0" / "predictions.csv").exists()


def test_zero_gamma_needs_a_staged_recipe(tmp_path):
    one = "stages: [{name: full, train: all, epochs: 1, lr: 1e-2}]"
    head, _, tail = RECIPE.partition("  stages:")
    text = head + "  " + one + tail[tail.index("\nrun:") :]
    recipe = write_tiny_study(tmp_path / "data", recipe=text)
    with pytest.raises(RunError, match="trains the head first"):
        medtl("study", "zero-gamma", recipe, "--out", tmp_path / "z")
    assert not (tmp_path / "z").exists()
