"""Run the conditions of a plan: paired by seed, resumable, by any number of workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from medtl.errors import RunError
from medtl.recipe.schema import Recipe
from medtl.run.check import read_recipe
from medtl.run.files import portable, refuse_existing
from medtl.run.folder import Run
from medtl.studies.conditions import Plan, fix_plan, seeded
from medtl.studies.rows import Row, add_row, finished, read_rows
from medtl.studies.single import SingleRun, shared_images
from medtl.studies.summary import Summary, summarise_study

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
        condition, seed = pair
        with lock:
            seeded_recipe = seeded(recipes[condition], seed, plan.vary)
            run = partial(run_one, seeded_recipe, run_folder(out, condition, seed))
            row = {
                "condition": condition,
                "seed": seed,
                **attempt(run, f"{condition}, seed {seed}"),
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            add_row(out, row)
        on_row(row)
        failures += row["status"] == "failed"
        if failures >= len(plan.conditions) and not finished(read_rows(out)):
            raise RunError(f"every run has failed; the last one: {row['error']}", where=str(out))
    return read_rows(out)


def run_folder(out: Path, condition: str, seed: int) -> Path:
    """Return the folder of one run of a study."""
    return out / "runs" / condition / f"seed-{seed}"


def run_conditions(
    recipe: str | PathLike[str],
    plan: Plan,
    out: str | PathLike[str],
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    single: SingleRun | None = None,
    on_row: Callable[[Row], None] = lambda _: None,
) -> Summary:
    """Run every condition of a plan with every seed, and sum up what is there.

    Args:
        recipe: The YAML file that the conditions change.
        plan: What to do.
        out: The study folder.
        overrides: Changes of the recipe in all conditions.
        resume: Go on with what is in the folder, or join the workers that are in it.
        single: How a run is done; its images and its split are set here.
        on_row: Told of every run that has ended.

    Raises:
        RecipeError: When a condition makes a faulty recipe; nothing has been run then.
        RunError: See `run_plan`.
    """
    recipe, out = Path(recipe), Path(out)

    def recipe_of(condition: str) -> Recipe:
        return read_recipe(recipe, [*overrides, *plan.conditions[condition]])

    with shared_images(out) as images:
        one = replace(single or SingleRun(), images=images, own_split=not plan.shares_the_split)
        run_plan(plan, recipe_of, out, run_one=one, resume=resume, on_row=on_row)
    return summarise_study(out)


def try_lock(folder: Path) -> ExitStack | None:
    """Return a lock on the folder of a run, None when another worker has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(Run(folder).locked())
        except RunError:
            return None
        return stack.pop_all()


def attempt(run: Callable[[], Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return what a run measures and that it is done, or that it failed and why."""
    try:
        return {"status": "done", **run()}
    except Exception as error:
        # The other runs must not be lost to the fault of one, whatever it is.
        log.exception("%s failed", name)
        return {"status": "failed", "error": f"{type(error).__name__}: {error}"}


def _claim_next(
    plan: Plan, out: Path, at_start: Mapping[Pair, Row], tried: set[Pair]
) -> tuple[Pair, ExitStack] | None:
    """The next run that is not done and that nobody works on, locked; None when there is none."""

    def is_open(pair: Pair) -> bool:
        return not _is_ended(_by_pair(read_rows(out)).get(pair), at_start.get(pair))

    for pair in plan.pairs:
        if pair in tried or not is_open(pair) or not (lock := try_lock(run_folder(out, *pair))):
            continue
        # Another worker may have ended it between the look and the lock.
        if is_open(pair):
            return pair, lock
        lock.close()
    return None


def _is_ended(row: Row | None, before: Row | None) -> bool:
    """Tell whether a run is done, or failed since this worker began (`before`: its row then)."""
    return row is not None and (row["status"] == "done" or row != before)


def _by_pair(rows: list[Row]) -> dict[Pair, Row]:
    """Rows by (condition, seed)."""
    return {(row["condition"], row["seed"]): row for row in rows}
