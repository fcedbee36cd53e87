"""What the command line shows while it works: bars with the time left, one line per epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from medtl.training.callbacks import Watcher
    from medtl.types import Stage


SHOWN_OF_A_RUN = ("auroc", "mae_months", "dice", "seconds")
"""What of a study's row is worth a line."""


WATCHED = {"auroc": "AUROC {:.3f}", "mae_months": "MAE {:.1f} months", "dice": "Dice {:.3f}"}
"""How a line names the statistic that early stopping watches."""


class Bars:
    """Progress bars of one command. `progress` and `watcher` are what the chain reports to."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}
        self._done: Counter[str] = Counter()

    def progress(self, what: str, done: int, total: int) -> None:
        """Show a piece of work."""
        if what not in self._tasks:
            self._tasks[what] = self._display.add_task(what, total=total)
        self._display.update(self._tasks[what], completed=done, total=total)

    def advance(self, what: str, total: int) -> None:
        """Show that one more of some pieces of work has been done."""
        self._done[what] += 1
        self.progress(what, self._done[what], total)

    def run_ended(self, row: Mapping[str, Any], total: int) -> None:
        """Show one line for a run of a study that has ended, and how many this worker has done."""
        self.advance("Runs", total)
        shown = row.get("error") or ", ".join(
            f"{name} {row[name]:.3f}" for name in SHOWN_OF_A_RUN if name in row
        )
        text = f"{row['condition']}, seed {row['seed']}: {shown}"
        self._display.console.print(text, highlight=False, markup=False)

    def watcher(self, *, epochs: bool = True) -> Watcher:
        """A watcher that shows one bar per stage and, if asked for, one line per epoch."""
        from medtl.training.callbacks import Watcher

        if not epochs:
            return Watcher(on_step=self._on_step)
        return Watcher(on_step=self._on_step, on_epoch=self._on_epoch)

    def _on_step(self, stage: Stage, epoch: int, done: int, batches: int) -> None:
        self.progress(f"Stage {stage.name}", epoch * batches + done, stage.epochs * batches)

    def _on_epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        row = history[-1]
        metric = "" if row["val_metric"] is None else f"  val {WATCHED[row['watched']]}"
        metric = metric.format(row["val_metric"])
        self._display.console.print(
            f"{row['stage']:>8}  epoch {row['epoch']:>3}  train loss {row['train_loss']:.4f}"
            f"  val loss {row['val_loss']:.4f}{metric}{'  best' if row['best'] else ''}",
            highlight=False,
        )


@contextmanager
def bars(console: Console) -> Iterator[Bars]:
    """Show progress bars while the block runs; plain lines when the output is not a terminal."""
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with display:
        yield Bars(display)
