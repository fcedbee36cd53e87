import sys

import pytest

from medtl.errors import InstallationError
from medtl.training.callbacks import csv_listener, mlflow_listener, tensorboard_listener

ROW = {
    "stage": "head",
    "epoch": 0,
    "train_loss": 0.5,
    "val_loss": 0.25,
    "val_metric": None,
    "lr_head": 1e-3,
    "lr_base": None,
    "mean_gamma": None,
    "seconds": 1.5,
    "best": 1,
}


def test_the_csv_is_rewritten_whole(tmp_path):
    listen = csv_listener(tmp_path / "history.csv").on_epoch
    listen([ROW])
    listen([ROW, {**ROW, "epoch": 1, "best": 0}])
    lines = (tmp_path / "history.csv").read_text().splitlines()
    columns = "stage,epoch,train_loss,val_loss,val_metric,lr_head,lr_base,mean_gamma,seconds,best"
    assert lines[0] == columns
    assert lines[1:] == ["head,0,0.5,0.25,,0.001,,,1.5,1", "head,1,0.5,0.25,,0.001,,,1.5,0"]


def test_tensorboard_gets_every_epoch(tmp_path):
    tensorboard_listener(tmp_path).on_epoch([ROW])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["train_loss", "val_loss", "lr_head"]
    assert events.Scalars("val_loss")[0].value == 0.25


def test_tensorboard_names_the_watched_statistic(tmp_path):
    row = {**ROW, "val_metric": 0.8, "watched": "auroc"}
    listen = tensorboard_listener(tmp_path).on_epoch
    listen([row])
    listen([row, {**row, "stage": "full", "epoch": 1, "val_metric": 0.9}])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert [round(e.value, 2) for e in events.Scalars("val_auroc")] == [0.8, 0.9]
    assert [e.step for e in events.Scalars("val_auroc")] == [0, 1]


def test_mlflow_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InstallationError, match=r"mlflow is not installed.*medtl\[tracking\]"):
        mlflow_listener("runs", "name")
