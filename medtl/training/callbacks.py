"""Who is told of steps and epochs: progress bars, history files, trackers, a user's own code."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medtl.errors import extras_named
from medtl.storage.atomic import write_text
from medtl.types import Stage

if TYPE_CHECKING:
    from medtl.training.runtime import Runtime

History = Sequence[Mapping[str, Any]]
"""One row per finished epoch, with the keys of `COLUMNS` and the `parts` of the objective."""

CURVES = ("train_loss", "val_loss", "val_metric", "lr_head", "lr_base", "mean_gamma")
"""Columns that trackers draw. Rates are the epoch's highest; gamma is of zero-gamma's blocks."""

COLUMNS = ("stage", "epoch", *CURVES, "seconds", "best")
"""Of `history.csv`; the parts of the objective follow them."""


class StopTraining(Exception):  # noqa: N818 - a request, not an error
    """Raised by a callback: end the training after this epoch, with the best one so far.

    >>> def on_epoch(history):
    ...     if history[-1]["seconds"] > 600:
    ...         raise StopTraining
    """


class Callback(Protocol):
    """What the loop tells of its progress.

    Either method may raise `StopTraining`. Any other exception ends the training too, after a
    checkpoint has been written: a resumed run goes on from there.
    """

    def on_step(self, stage: Stage, epoch: int, done: int, batches: int, /) -> None:
        """Hear of one batch.

        Args:
            stage: The current stage.
            epoch: Finished epochs of the stage.
            done: Batches of this epoch that are done.
            batches: Batches of an epoch.
        """
        ...

    def on_epoch(self, history: History, /) -> None:
        """Hear of one epoch, in the process that writes files.

        Args:
            history: All epochs so far; the last row is the one that has ended.
        """
        ...


@dataclass(frozen=True)
class Watcher:
    """A callback made of functions.

    Attributes:
        on_step, on_epoch: The methods of `Callback`; nothing happens where none is given.
    """

    on_step: Callable[[Stage, int, int, int], None] = lambda *_: None
    on_epoch: Callable[[History], None] = lambda *_: None


class Listeners:
    """The callbacks of one call of `fit`, and what they and the signals ask of it.

    Args:
        callbacks: Told in their order.
        runtime: What one process is asked, all of them do.
        is_signalled: Whether a signal to stop is waiting.

    Attributes:
        error: The first exception of a callback in a step, None before.
    """

    def __init__(
        self, callbacks: Sequence[Callback], runtime: Runtime, is_signalled: Callable[[], bool]
    ) -> None:
        self._callbacks, self._runtime, self._is_signalled = callbacks, runtime, is_signalled
        self._is_over = False
        self.error: Exception | None = None

    def on_step(self, stage: Stage, epoch: int, done: int, batches: int) -> None:
        """Tell of one batch; an exception is kept until the loop can write a checkpoint."""
        for callback in self._callbacks:
            try:
                callback.on_step(stage, epoch, done, batches)
            except StopTraining:
                self._is_over = True
            except Exception as error:  # the loop raises it between two steps: see `check`
                self.error = self.error or error

    def on_epoch(self, history: History) -> None:
        """Tell of one epoch, whose checkpoint is written."""
        for callback in self._callbacks:
            try:
                callback.on_epoch(history)
            except StopTraining:
                self._is_over = True

    def want_a_break(self) -> bool:
        """Whether the loop is to stop here, to go on from here another time."""
        return self._runtime.in_any_process(self._is_signalled() or self.error is not None)

    def want_the_end(self) -> bool:
        """Whether no further epoch is to be trained."""
        return self._runtime.in_any_process(self._is_over)

    def check(self) -> None:
        """Leave the loop if that is wanted.

        Raises:
            KeyboardInterrupt: After a signal. The exception of a callback, after one.
        """
        if self.want_a_break():
            raise self.error or KeyboardInterrupt


def csv_listener(path: Path) -> Watcher:
    """Rewrite `history.csv` after every epoch; a resumed run continues it without a gap."""

    def listen(history: History) -> None:
        text = io.StringIO()
        parts = dict.fromkeys(name for row in history for name in row.get("parts", {}))
        writer = csv.DictWriter(text, (*COLUMNS, *parts), lineterminator="\n")
        writer.writeheader()
        for row in history:
            cells = {column: row[column] for column in COLUMNS} | row.get("parts", {})
            writer.writerow({c: "" if cell is None else cell for c, cell in cells.items()})
        write_text(path, text.getvalue())

    return Watcher(on_epoch=listen)


def tensorboard_listener(folder: Path) -> Watcher:
    """Add every new epoch to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def listen(history: History) -> None:
        watched = f"val_{history[-1].get('watched', 'metric')}"
        for name, value in _curves(history).items():
            tag = watched if name == "val_metric" else name
            writer.add_scalar(tag, value, history[-1]["epoch"])
        writer.flush()

    return Watcher(on_epoch=listen)


def mlflow_listener(uri: str, run_name: str) -> Watcher:
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
        mlflow.log_metrics(_curves(history), step=history[-1]["epoch"])

    return Watcher(on_epoch=listen)


def _curves(history: History) -> dict[str, float]:
    """The numbers of the last epoch that trackers draw."""
    row = history[-1]
    known = {name: row[name] for name in CURVES if row[name] is not None}
    parts: Mapping[str, float] = row.get("parts", {})
    return {**known, **parts}
