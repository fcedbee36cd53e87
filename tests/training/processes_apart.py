"""One of the processes of `test_processes_apart`: its own view of validation, or its own error."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from two_processes import HEAD, build

from medtl.errors import MedtlError, RunError
from medtl.tasks.findings import Findings
from medtl.training.callbacks import Watcher
from medtl.training.fit import fit
from medtl.training.runtime import Runtime, explained_failures

STAGE = replace(HEAD, epochs=8, patience=2)


def main(folder: Path, mode: str) -> None:
    """Train and write how it ended: epochs, or what was said."""
    torch.set_num_threads(1)
    limit = timedelta(seconds=15) if mode == "own values" else timedelta(minutes=10)
    torch.distributed.init_process_group("gloo", timeout=limit)
    run = build(folder)
    rank, epochs = run.runtime.rank, iter(range(99))

    def assess(*_: object) -> tuple[float, None]:
        """A loss that stays, but for noise of 1e-7 that only the second process sees fall."""
        return 0.5 * (1 - 1e-7 * rank * next(epochs)), None

    def fail(*_: object) -> None:
        if mode == "error" and rank == 1:
            raise RunError("this process broke")

    Findings.assess = assess  # type: ignore[method-assign]
    if mode == "own values":
        Runtime.agreed = lambda _, *values: values  # type: ignore[method-assign]
    ended = ""
    try:
        with explained_failures("little"):
            if mode == "broken":
                fail_now(rank)
            ended = str(fit(replace(run, callbacks=[Watcher(on_step=fail)]), [STAGE]).total_epochs)
    except MedtlError as error:
        ended = str(error)
        raise
    finally:
        (folder / f"rank{rank}.txt").write_text(ended)


def fail_now(rank: int) -> None:
    """Fail where no other process can be asked."""
    if rank == 1:
        raise RunError("this process broke")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
