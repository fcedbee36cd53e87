"""How much of a result is reached without the finding, and whether the pretraining helped.

In the folds of one cross-validation, with paired differences: the recipe, its controls
(`studies.learned.controls`), and the same recipe from random weights, with as many steps and more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from medtl.cases.splits import kfold
from medtl.errors import RunError
from medtl.networks.groups import layer_groups
from medtl.recipe.schema import Recipe
from medtl.run.build import LEAST_ADAPTED, build_stages
from medtl.run.files import RunFiles
from medtl.run.kinds import classifier
from medtl.storage.atomic import write_json, write_text
from medtl.studies.judgement import markdown_table
from medtl.studies.kfold import (
    FINE_TUNED,
    Result,
    control_tables,
    fold_tables,
    run_folds,
    shown,
    started,
    summarise,
)
from medtl.studies.learned.controls import CONTROLS, control_images, metadata_names
from medtl.studies.plots import draw_controls
from medtl.studies.rows import lower_is_better
from medtl.types import Measure, Progress, Stage, ZeroGamma, silent

if TYPE_CHECKING:
    from medtl.training.callbacks import Callback

FROM_RANDOM = "random_weights_x"
"""Name, before the factor of its steps, of the recipe that starts from random weights."""

BESIDE = (*CONTROLS, f"{FROM_RANDOM}1", f"{FROM_RANDOM}2")
"""What stands beside a recipe unless something else is asked for."""

TITLES = {
    FINE_TUNED: "the recipe",
    "frozen_features": "frozen features, pretrained",
    "random_features": "frozen features, random weights",
    "thumbnail": "8 x 8 thumbnail",
    "intensity": "intensity statistics",
    "metadata": "metadata alone",
    "random_weights_x1": "recipe from random weights, as many steps",
    "random_weights_x2": "recipe from random weights, twice the steps",
    "median": "median, no image",
}
"""Name of a model -> in words."""

RANDOM_RATE = 1e-3
"""Learning rate from random weights: AdamW's own default; the recipe's are for tuned layers."""


@dataclass(frozen=True)
class Control:
    """One model beside the recipe's.

    Attributes:
        label, subset: What was asked of whom.
        name: Of the model.
        reaches: Its own measure.
        gain: The recipe's less its own; for errors, above 0 is worse.
        verdict: In words.
    """

    label: str
    subset: str
    name: str
    reaches: Measure
    gain: Measure
    verdict: str


def run_shortcuts(
    recipe: Recipe,
    out: str | PathLike[str],
    *,
    folds: int = 5,
    beside: Sequence[str] = BESIDE,
    resume: bool = False,
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
) -> list[Control]:
    """Cross-validate a recipe beside its controls and beside itself from random weights.

    The folder is that of `run_kfold`, which it may go on with; the folds from random weights lie
    in folders of their own. Adds `shortcuts.json`, `shortcuts.md` and `shortcuts.svg`, written
    anew after every part: what costs least comes first.

    Args:
        recipe: What each fold does.
        out: The study folder.
        folds: Number of outer folds, grouped by patient and stratified by the targets.
        beside: Names of `CONTROLS`, and "random_weights_x" with a factor of the recipe's steps for
            the same network from random weights.
        resume: Keep finished folds, go on with the unfinished one.
        progress: Told of reading and predicting.
        callbacks: Told of training.

    Raises:
        RunError: When `out` exists without `resume`, or holds folds of another split, or the task
            is one whose models are not compared over folds, or a control is not known.
    """
    factors = [name.removeprefix(FROM_RANDOM) for name in beside if name.startswith(FROM_RANDOM)]
    controls = [name for name in beside if not name.startswith(FROM_RANDOM)]
    if unknown := set(controls) - set(CONTROLS):
        raise RunError(
            f"no control {', '.join(sorted(unknown))}",
            expected=f"some of {', '.join(CONTROLS)}",
            fix="State them: --controls thumbnail,metadata",
        )
    manifest, task, contest = started(recipe, out := Path(out), resume=resume)
    parts = kfold(manifest, task.strata(manifest.cases), folds, recipe.seed_of("split"))
    train = partial(run_folds, parts=parts, progress=progress, callbacks=callbacks)
    tables = fold_tables(train(recipe, out=out), FINE_TUNED)
    images = control_images(recipe, manifest, progress=progress)
    tables += control_tables(images, contest, parts, controls)
    columns = metadata_names(images)
    found = _written(summarise(tables, contest, recipe.data, out), columns, folds, out)
    for factor in factors:
        where = out / f"{FROM_RANDOM}{factor}"
        where.mkdir(exist_ok=True)
        tables += fold_tables(train(random_start(recipe, int(factor)), out=where), where.name)
        found = _written(summarise(tables, contest, recipe.data, out), columns, folds, out)
    return found


def _written(
    results: Sequence[Result], columns: Sequence[str], folds: int, out: Path
) -> list[Control]:
    """Write what the models so far reach, as data, in words and as a picture; return it."""
    found = judged(results)
    write_json(
        RunFiles(out).shortcuts,
        {
            "schema": "medtl-shortcuts/1",
            "folds": folds,
            "metadata": columns,
            "recipe": [
                {"label": r.label, "subset": r.subset, "reaches": asdict(r.measures[0])}
                for r in results
            ],
            "controls": [asdict(control) for control in found],
        },
    )
    models = [TITLES.get(name, name) for name in results[0].models]
    draw_controls(models, results[0].measures[: len(models)], out / "shortcuts.svg")
    write_text(out / "shortcuts.md", shortcuts_markdown(results, found, columns, folds))
    return found


def random_start(recipe: Recipe, factor: int = 1) -> Recipe:
    """Return the same network and images from random weights, trained whole from the first step.

    As many steps as all stages of the recipe have together, times a factor, in one stage that no
    patience ends; the best epoch is kept by the recipe's own rule. Batch norm follows the batches,
    for random statistics describe nothing; batches are therefore of `LEAST_ADAPTED` or more, and
    epochs of fewer steps are more.

    Args:
        recipe: What starts from pretrained weights.
        factor: Of its steps.
    """
    tuning = recipe.finetune
    batch = max(LEAST_ADAPTED, tuning.batch_size)
    accumulate = max(1, tuning.batch_size * tuning.accumulate // batch)
    longer = batch * accumulate / (tuning.batch_size * tuning.accumulate)
    model = recipe.model.model_copy(update={"weights": recipe.model.weights.random})
    start = recipe.model_copy(update={"model": model})
    groups = [group.name for group in layer_groups(classifier(start, outputs=1)[0])]
    stages = build_stages(recipe, groups)
    epochs = math.ceil(factor * longer * sum(stage.epochs for stage in stages))
    rates = {"head": RANDOM_RATE, "base": RANDOM_RATE}
    stage = Stage(
        "full", "all", epochs, rates, batch_norm="adapt", warmup_epochs=1, patience=epochs
    )
    course = {
        "preset": None,
        "stages": (stage,),
        "zero_gamma": ZeroGamma(),
        "cached_views": 0,
        "batch_size": batch,
        "accumulate": accumulate,
    }
    return start.model_copy(update={"finetune": recipe.finetune.model_copy(update=course)})


def judged(results: Sequence[Result]) -> list[Control]:
    """Return each model beside the recipe's, label by label and subset by subset, in words."""
    return [
        Control(result.label, result.subset, name, own, gain, _verdict(name, own, gain))
        for result in results
        for name, own, gain in zip(
            result.models[1:],
            result.measures[1 : len(result.models)],
            result.measures[len(result.models) :],
            strict=True,
        )
    ]


def _verdict(name: str, own: Measure, gain: Measure) -> str:
    """What a control's measure and the recipe's gain over it say."""
    if gain.value is None or gain.low is None or gain.high is None:
        return f"not estimable: {gain.reason or own.reason}"
    sign = -1 if lower_is_better(own.name) else 1
    ends = sorted((sign * gain.low, sign * gain.high))
    subject = "pretraining" if name.startswith(FROM_RANDOM) else "the recipe"
    size = f"{sign * gain.value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
    if ends[0] > 0:
        return f"{subject} adds {size}"
    if ends[1] < 0:
        return f"{subject} is worse, by {size}"
    return f"that {subject} adds anything is not shown: {size}"


def shortcuts_markdown(
    results: Sequence[Result], found: Sequence[Control], columns: Sequence[str], folds: int
) -> str:
    """Return what each control reaches and what the recipe adds, as Markdown.

    Args:
        results: Of the study.
        found: What `judged` says of them.
        columns: Names of the facts behind the control "metadata".
        folds: Their number.
    """
    first = results[0]
    rows = [
        [c.label, c.subset, TITLES.get(c.name, c.name), shown(c.reaches), c.verdict] for c in found
    ]
    lines = [
        f"{first.measures[0].name}, {folds} patient-grouped folds; the recipe on all cases reaches "
        f"{shown(first.measures[0])}.",
        "",
        *markdown_table("lllll", ("label", "subset", "control", "reaches", "verdict"), rows),
        "",
        f"Metadata: {', '.join(columns) or 'nothing is known that differs'}. Intervals (95 %) hold "
        "the sampling of test patients, not the variation of retraining, and are not adjusted for "
        "the number of controls.",
    ]
    return "\n".join(lines) + "\n"
