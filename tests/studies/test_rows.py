"""What a column of a study's rows means: its direction, and which one is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtl.studies.conditions import Plan, read_plan
from medtl.studies.rows import compared, lower_is_better, primary_measure
from medtl.studies.search import read_space


@pytest.mark.parametrize(
    "name",
    ["brier", "log_loss", "mae_months", "mae_percent", "hd95_mm", "val_loss",
     "mae_months@sex=F", "log_loss[effusion]"],
)  # fmt: skip
def test_errors_improve_downwards(name: str) -> None:
    assert lower_is_better(name)


@pytest.mark.parametrize(
    "name",
    ["auroc", "average_precision", "sensitivity", "specificity", "dice", "auroc@site=brier",
     "val_metric", "dice@sex=F"],
)  # fmt: skip
def test_all_others_improve_upwards(name: str) -> None:
    assert not lower_is_better(name)


def test_the_task_s_own_measure_is_compared() -> None:
    assert primary_measure([{"seconds": 3.0, "hd95_mm": 9.0, "dice": 0.8}]) == "dice"
    assert primary_measure([{"mae_months@sex=F": 1.0}, {"mae_months": 2.0}]) == "mae_months"
    assert primary_measure([{"mae_percent": 1.0}]) == "mae_percent"
    assert primary_measure([{"brier": 0.1, "dice": 0.2, "auroc": 0.9}]) == "auroc"
    assert primary_measure([]) == "auroc"


def test_the_measures_of_a_row_are_those_of_the_whole_test_set() -> None:
    row = {"epochs": 4, "brier": 0.1, "auroc": 0.9, "auroc@sex=F": 0.8, "auroc[b]": 0.7}
    assert compared({**row, "val_loss": 0.3, "seed": 1}) == ["auroc", "brier"]


def test_files_are_named_by_text_too(tmp_path: Path) -> None:
    plan, space = tmp_path / "plan.yaml", tmp_path / "space.yaml"
    plan.write_text("conditions: {a: [], b: ['finetune.batch_size=4']}", "utf-8")
    space.write_text("finetune.batch_size: [4, 8]", "utf-8")
    conditions = {"a": (), "b": ("finetune.batch_size=4",)}
    assert (
        read_plan(str(plan), seeds=2) == read_plan(plan, seeds=2) == Plan(conditions, "a", (0, 1))
    )
    assert read_space(str(space)) == {"finetune.batch_size": [4, 8]}
