"""A run that is stopped between two epochs, and goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from medtl.recipe.schema import Recipe
from medtl.run.chain import run_study
from medtl.run.folder import Run
from medtl.training.callbacks import Watcher


def stopped_and_resumed(recipe: Recipe, out: Path, *, after: int) -> Run:
    """Run a recipe, stop it after some epochs as Ctrl-C does, and return the run that went on."""

    def stop(history: Sequence[object]) -> None:
        if len(history) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(recipe, out, callbacks=[Watcher(on_epoch=stop)])
    return run_study(recipe, out, resume=True)
