"""Where the history of a run goes: a CSV always, TensorBoard by default, MLflow when asked for."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medtl.errors import extras_named
from medtl.storage.atomic import write_text

History = Sequence[Mapping[str, Any]]
Listener = Callable[[History], None]

# Rates are the epoch's highest; mean_gamma is the mean |gamma| of the blocks of zero-gamma.
COLUMNS = (
    "stage",
    "epoch",
    "train_loss",
    "val_loss",
    "val_metric",
    "lr_head",
    "lr_base",
    "mean_gamma",
    "seconds",
    "best",
)
CURVES = ("train_loss", "val_loss", "val_metric", "lr_head", "lr_base", "mean_gamma")


def csv_listener(path: Path) -> Listener:
    """Rewrite `history.csv` after every epoch; a resumed run continues it without a gap."""

    def listen(history: History) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({c: "" if row[c] is None else row[c] for c in COLUMNS})
        write_text(path, text.getvalue())

    return listen


def tensorboard_listener(folder: Path) -> Listener:
    """Add every new epoch to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def listen(history: History) -> None:
        row = history[-1]
        for name in CURVES:
            if row[name] is not None:
                writer.add_scalar(name, row[name], row["epoch"])
        writer.flush()

    return listen


def mlflow_listener(uri: str, run_name: str) -> Listener:
    """Log every new epoch to an MLflow server or folder.

    Raises:
        InstallationError: When MLflow is not installed.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # nothing calls home
    with extras_named():
        import mlflow
    mlflow.set_tracking_uri(uri)
    mlflow.start_run(run_name=run_name)

    def listen(history: History) -> None:
        row = history[-1]
        values = {name: row[name] for name in CURVES if row[name] is not None}
        mlflow.log_metrics(values, step=row["epoch"])

    return listen
