"""Runs a recipe under the conditions of a plan and sums the study up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medtl.recipe.schema import Recipe
from medtl.run.check import read_recipe
from medtl.studies.conditions import Plan
from medtl.studies.engine import run_plan
from medtl.studies.rows import Row
from medtl.studies.single import SharedImages, SingleRun
from medtl.studies.summary import Summary, summarise_study


def run_conditions(
    recipe: Path,
    plan: Plan,
    out: Path,
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

    def recipe_of(condition: str) -> Recipe:
        return read_recipe(recipe, [*overrides, *plan.conditions[condition]])

    images = SharedImages(out / "cache" / str(os.getpid()))
    one = replace(single or SingleRun(), images=images, own_split=not plan.shares_the_split)
    try:
        run_plan(plan, recipe_of, out, run_one=one, resume=resume, on_row=on_row)
    finally:
        shutil.rmtree(out / "cache" / str(os.getpid()), ignore_errors=True)
    return summarise_study(out)
