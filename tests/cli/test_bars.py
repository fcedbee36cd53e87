"""What a command says while it works: measures by their catalogue, not by a list of its own."""

from __future__ import annotations

from typing import Any

import pytest

from medtl.cli.bars import bars


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"auroc": 0.81449, "auroc[effusion]": 0.7, "auroc@site=n": 0.6}, "auroc 0.814"),
        ({"mae_percent": 4.25, "brier": 0.1, "seconds": 12.3}, "mae_percent 4.250, seconds 12.300"),
        ({"error": "no images", "auroc": 0.5}, "no images"),
    ],
)
def test_a_run_of_a_study_is_a_line(
    capsys: pytest.CaptureFixture[str], row: dict[str, Any], shown: str
) -> None:
    with bars() as display:
        display.run_ended({"condition": "a", "seed": 0, **row}, 1)
    assert f"a, seed 0: {shown}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("watched", "value", "shown"),
    [
        ("auroc", 0.81449, "val AUROC 0.814"),
        ("mae_months", 6.149, "val MAE 6.1 months"),
        ("mae_percent", 6.149, "val MAE 6.1 %"),
        ("dice", 0.5, "val Dice 0.500"),
        ("auroc", None, "val loss 0.5000  best"),
    ],
)
def test_an_epoch_is_a_line(
    capsys: pytest.CaptureFixture[str], watched: str, value: float | None, shown: str
) -> None:
    row = {
        **{"stage": "head", "epoch": 0, "train_loss": 0.25, "val_loss": 0.5, "best": True},
        **{"watched": watched, "val_metric": value},
    }
    with bars() as display:
        watcher = display.watcher()
        assert watcher.on_epoch is not None
        watcher.on_epoch([row])
    said = capsys.readouterr().err
    assert shown in said
    assert "epoch   1  train" in said  # the history counts from 0, people from 1
