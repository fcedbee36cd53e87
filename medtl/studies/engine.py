"""Runs the conditions of a plan: paired by seed, resumable, by any number of workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medtl.errors import RunError
from medtl.recipe.schema import Recipe
from medtl.run import record
from medtl.run.folder import portable, refuse_existing
from medtl.studies.conditions import Plan, fix_plan, seeded
from medtl.studies.rows import Row, add_row, finished, read_rows

log = logging.getLogger(__name__)

RunOne = Callable[[Recipe, Path], Mapping[str, Any]]
"""Does one run in its own folder, from wherever it was stopped, and returns its measures."""

Pair = tuple[str, int]
"""(condition, seed) of one run."""


def run_plan(
    plan: Plan,
    recipe_of: Callable[[str], Recipe],
    out: Path,
    *,
    run_one: RunOne,
    resume: bool = False,
    on_row: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """Do every run of a plan that has not been done; return the rows of the study.

    All conditions of a seed are run before the next seed, so that an unfinished study is paired. A
    run that another worker works on is left to it. A run that fails is recorded and the others go
    on; it is tried again when the study is resumed.

    Args:
        plan: What to do; it is written into the folder before the first run.
        recipe_of: Checked recipe of a condition. All are asked for before the first run.
        out: The study folder; runs go to `runs/CONDITION/seed-S/`.
        run_one: Does one run.
        resume: Go on with what is in the folder, or join the workers that are in it.
        on_row: Told of every run that this worker has ended.

    Raises:
        RunError: When the folder holds another plan, or as many runs fail as there are conditions
            and none succeeds.
    """
    recipes = {name: recipe_of(name) for name in plan.conditions}
    refuse_existing(out, resume=resume)
    (out / "runs").mkdir(parents=True, exist_ok=True)
    fix_plan(plan.to_dict(), portable(recipes[plan.reference]), out)
    at_start = _by_pair(read_rows(out))
    tried: set[Pair] = set()
    failures = 0
    while (claimed := _claim_next(plan, out, at_start, tried)) is not None:
        pair, lock = claimed
        tried.add(pair)
        with lock:
            row = _run(run_one, seeded(recipes[pair[0]], pair[1], plan.vary), out, pair)
            add_row(out, row)
        on_row(row)
        failures += row["status"] == "failed"
        if failures >= len(plan.conditions) and not finished(read_rows(out)):
            raise RunError(f"every run has failed; the last one: {row['error']}", where=str(out))
    return read_rows(out)


def run_folder(out: Path, condition: str, seed: int) -> Path:
    """Return the folder of one run of a study."""
    return out / "runs" / condition / f"seed-{seed}"


def _claim_next(
    plan: Plan, out: Path, at_start: Mapping[Pair, Row], tried: set[Pair]
) -> tuple[Pair, ExitStack] | None:
    """The next run that is not done and that nobody works on, locked; None when there is none."""
    for pair in plan.pairs:
        if pair in tried or _is_ended(_by_pair(read_rows(out)).get(pair), at_start.get(pair)):
            continue
        folder = run_folder(out, *pair)
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(record.locked(folder))
            except RunError:
                continue
            # Another worker may have ended it between the look and the lock.
            if not _is_ended(_by_pair(read_rows(out)).get(pair), at_start.get(pair)):
                return pair, stack.pop_all()
    return None


def _is_ended(row: Row | None, before: Row | None) -> bool:
    """Whether a run is done, or has failed since this worker began (`before`: its row then)."""
    return row is not None and (row["status"] == "done" or row != before)


def _run(run_one: RunOne, recipe: Recipe, out: Path, pair: Pair) -> Row:
    """The row of one run, whatever becomes of it."""
    condition, seed = pair
    row: dict[str, Any] = {"condition": condition, "seed": seed, "status": "done"}
    try:
        row |= run_one(recipe, run_folder(out, condition, seed))
    except Exception as error:
        # The other conditions must not be lost to the fault of one, whatever it is.
        log.exception("%s, seed %d failed", condition, seed)
        row |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return row | {"ended": datetime.now(UTC).isoformat(timespec="seconds")}


def _by_pair(rows: list[Row]) -> dict[Pair, Row]:
    """Rows by (condition, seed)."""
    return {(row["condition"], row["seed"]): row for row in rows}
