"""The lines that a run ends with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medtl.evaluation.assemble import evaluate
from medtl.evaluation.result import Evaluation
from medtl.metrics.scores import CI
from medtl.run.words.ending import headline


def evaluated(names: str, *, val: tuple[int, ...] = (0, 1)) -> Evaluation:
    """Findings whose validation rows have these truths; scores by chance."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "case_id": f"{split}{n}",
            "split": split,
            "label": label,
            "y_true": truths[n % len(truths)],
            "y_score": rng.uniform(0.1, 0.9),
        }
        for label in names
        for split, truths in (("val", val), ("test", (0, 1)))
        for n in range(40)
    ]
    return evaluate(pd.DataFrame(rows), rule={"sensitivity": 0.9}, ci=CI(resamples=20))


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtl.run.words.ending.training_line", lambda _run: "Training: done")


def said(found: Evaluation) -> list[str]:
    run: Any = SimpleNamespace(evaluation=found)
    return [*headline(run)]


def test_the_findings_are_counted_without_their_means() -> None:
    lines = said(evaluated("abc"))
    assert "  3 findings; each with its threshold is in the report" in lines
    assert not any("No threshold" in line for line in lines)
    two = said(evaluated("ab"))
    assert [line.split(":")[0] for line in two if "threshold" in line] == ["  a", "  b"]


def test_a_finding_without_a_threshold_is_said_with_the_reason() -> None:
    reason = "validation holds one class only"
    (line,) = [line for line in said(evaluated("a", val=(0,))) if "threshold" in line]
    assert line == f"  No threshold, and so no decisions, for 'a': {reason}"
    many = [line for line in said(evaluated("abcd", val=(1,))) if "No threshold" in line]
    assert many == [
        f"  No threshold, and so no decisions, for 'a': {reason}",
        f"  No threshold, and so no decisions, for 'b': {reason}",
        "  No threshold for 2 more findings: see the report",
    ]


def test_a_threshold_that_flags_nobody_is_said() -> None:
    rows = [
        {"case_id": f"{s}{n}", "split": s, "y_true": n % 2, "y_score": 1 - n % 2 + n / 100}
        for s in ("val", "test")
        for n in range(40)
    ]
    found = evaluate(pd.DataFrame(rows), rule={"specificity": 0.999}, ci=CI(resamples=20))
    lines = said(found)
    assert any("threshold inf" in line for line in lines)
    assert "  no validation score meets the rule: this threshold flags nobody" in lines
