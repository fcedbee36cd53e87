"""Signs of life of the command line: bars with the time left, one line per epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medtl.metrics.catalogue import entry

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from medtl.training.callbacks import Watcher
    from medtl.types import Stage


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
        names = [name for name in row if entry(name).place == "primary" or name == "seconds"]
        shown = row.get("error") or ", ".join(f"{name} {row[name]:.3f}" for name in names)
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
        value, watched = row["val_metric"], entry(row["watched"])
        metric = "" if value is None else f"  val {watched.title} {watched.write(value)}"
        self._display.console.print(
            f"{row['stage']:>8}  epoch {row['epoch'] + 1:>3}  train loss {row['train_loss']:.4f}"
            f"  val loss {row['val_loss']:.4f}{metric}{'  best' if row['best'] else ''}",
            highlight=False,
        )


@contextmanager
def bars() -> Iterator[Bars]:
    """Show progress bars on stderr while the block runs; plain lines where it is no terminal."""
    from rich import progress
    from rich.console import Console

    display = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with display:
        yield Bars(display)
