"""Patient-grouped cross-validation of a recipe, beside baselines in the same folds.

Two designs. `run_kfold` tests every patient once and asks how good a recipe is. `ensemble_kfold`
keeps the test patients apart, lets every other patient validate once, and averages the models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from medtl.cases.exams import by_exam
from medtl.cases.predictions import write_predictions
from medtl.cases.splits import kfold, validation_folds
from medtl.errors import RunError
from medtl.metrics.catalogue import entry
from medtl.metrics.paired_runs import mean_of_folds_auroc, mean_of_folds_mae
from medtl.prediction.table import predictions_table
from medtl.recipe.schema import Data, Recipe
from medtl.run.build import build_manifest, build_task
from medtl.run.chain import run_study
from medtl.run.files import RunFiles
from medtl.run.folder import Run
from medtl.run.prepare import split_cases
from medtl.storage.atomic import write_json, write_text
from medtl.studies.baseline import logistic_scores, median_values, ridge_values
from medtl.studies.ensemble import ENSEMBLE, Ensemble, ensemble_runs
from medtl.studies.judgement import markdown_table
from medtl.studies.learned.controls import CONTROLS, ControlImages, control_images
from medtl.tasks.protocols import Task
from medtl.types import Manifest, Measure, Progress, silent

if TYPE_CHECKING:
    import pandas as pd

    from medtl.training.callbacks import Callback

FINE_TUNED, FROZEN, MEDIAN = "fine_tuned", "frozen_features", "median"
"""Names of models in the tables: the recipe's, a linear control, and one that sees no image."""

CROSS_VALIDATED = "study.json"
"""What a finished cross-validation leaves in its folder: its results."""

MEAN_OF_FOLDS = "_mean_of_folds"
"""How the name of a statistic ends in them."""


@dataclass(frozen=True)
class Contest:
    """The comparison over folds of models that are watched by one statistic.

    Attributes:
        linear: Scores from features, truth and patients, learned from the rows `train`.
        blind: Name of a model that looks at no image -> the same.
        measure: From truth, scores of each model and folds to a measure of each model, then the
            difference of the first from each other one.
    """

    linear: Callable[..., NDArray[np.float64]]
    blind: Mapping[str, Callable[..., NDArray[np.float64]]]
    measure: Callable[..., list[Measure]]


CONTESTS: dict[str, Contest] = {
    "auroc": Contest(logistic_scores, {}, mean_of_folds_auroc),
    "mae": Contest(ridge_values, {MEDIAN: median_values}, mean_of_folds_mae),
}
"""Statistic that a task watches, without its unit -> what its networks are compared with."""


@dataclass(frozen=True)
class Result:
    """One line of the result: measures of each model, then the first less each other one."""

    label: str
    subset: str
    models: tuple[str, ...]
    measures: tuple[Measure, ...]


def run_kfold(
    recipe: Recipe,
    out: str | PathLike[str],
    *,
    folds: int = 5,
    baseline: Literal["frozen", "none"] = "frozen",
    resume: bool = False,
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
) -> list[Result]:
    """Cross-validate a recipe: every fold is a run folder, its outer part the test set.

    Each fold cuts its own validation part from its training patients, by which it stops early and
    chooses its threshold. Out-of-fold predictions go to `predictions.csv`, the result to
    `study.json` and `study.md`.

    Args:
        recipe: What each fold does.
        out: The study folder.
        folds: Number of outer folds, grouped by patient and stratified by the targets.
        baseline: "frozen" adds, in the same folds, logistic or ridge regression on frozen features
            and, for a quantity, the median.
        resume: Keep finished folds, go on with the unfinished one.
        progress: Told of reading and predicting.
        callbacks: Told of training.

    Raises:
        RunError: When `out` exists without `resume`, or holds folds of another split, or the task
            is one whose models are not compared over folds.
    """
    manifest, task, contest = started(recipe, out := Path(out), resume=resume)
    parts = _parts(recipe, manifest, task, folds, apart=False)
    folders = run_folds(recipe, parts, out, progress=progress, callbacks=callbacks)
    tables = fold_tables(folders, FINE_TUNED)
    if baseline == "frozen":
        images = control_images(recipe, manifest, progress=progress)
        tables += control_tables(images, contest, parts, [FROZEN])
    return summarise(tables, contest, recipe.data, out)


def ensemble_kfold(
    recipe: Recipe,
    out: str | PathLike[str],
    *,
    folds: int = 5,
    resume: bool = False,
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
) -> Ensemble:
    """Train one model per fold of what is not the test part, and average them on the test part.

    The test part is the recipe's. Each model stops early and chooses its threshold by its own
    fold; the ensemble's threshold comes from all folds, each scored by the model that did not
    train on it. The figures go to `ensemble/`.

    Args:
        recipe: What each fold does.
        out: The study folder.
        folds: Number of models.
        resume: Keep finished folds, go on with the unfinished one.
        progress: Told of reading and predicting.
        callbacks: Told of training.

    Raises:
        RunError: When `out` exists without `resume`, or holds folds of another split, or the task
            is one whose scores are not averaged.
    """
    manifest, task, _ = started(recipe, out := Path(out), resume=resume)
    parts = _parts(recipe, manifest, task, folds, apart=True)
    folders = run_folds(recipe, parts, out, progress=progress, callbacks=callbacks)
    return ensemble_runs(folders, out / ENSEMBLE)


def run_one_fold(
    recipe: Recipe,
    out: str | PathLike[str],
    number: int,
    *,
    folds: int,
    apart: bool,
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train and test one fold of a study, beside others that may be at work on theirs.

    `run_kfold` or `ensemble_kfold` with `resume` sums up when all are finished.

    Args:
        recipe: What each fold does.
        out: The study folder.
        number: Of the fold, from 0.
        folds: Number of folds.
        apart: Whether the test part is the recipe's, as in `ensemble_kfold`.
        progress: Told of reading and predicting.
        callbacks: Told of training.

    Raises:
        RunError: When there is no such fold, or as the whole study.
    """
    if not 0 <= number < folds:
        raise RunError(
            f"there is no fold {number}", expected=f"0 to {folds - 1}", fix="State --fold 0"
        )
    manifest, task, _ = started(recipe, out := Path(out), resume=True)
    parts = _parts(recipe, manifest, task, folds, apart=apart)
    folders = run_folds(recipe, parts, out, only=number, progress=progress, callbacks=callbacks)
    return Run(folders[number])


def _parts(
    recipe: Recipe, manifest: Manifest, task: Task, folds: int, *, apart: bool
) -> Sequence[Manifest]:
    """The cases of every fold, split; `apart`: every fold tests the recipe's test part."""
    strata, seed = task.strata(manifest.cases), recipe.seed_of("split")
    if apart:
        return validation_folds(split_cases(recipe, manifest, task), strata, folds, seed)
    return kfold(manifest, strata, folds, seed)


def started(recipe: Recipe, out: Path, *, resume: bool) -> tuple[Manifest, Task, Contest]:
    """Begin a study of folds: its cases, their task, how models are compared.

    Raises:
        RunError: When `out` exists without `resume`, the task's models are not compared so, or the
            recipe learns from a share of its patients.
    """
    if recipe.data.split.train_share < 1:
        raise RunError(
            "a cross-validation learns from all patients of its training folds",
            where="data.split.train_share",
            fix="Leave it out, or use medtl study learning-curve",
        )
    manifest = build_manifest(recipe)
    task = build_task(recipe, manifest.cases)
    contest = contest_of(recipe, task)
    Run.start(recipe, out, resume=resume)
    return manifest, task, contest


def run_folds(
    recipe: Recipe,
    parts: Sequence[Manifest],
    out: Path,
    *,
    only: int | None = None,
    progress: Progress,
    callbacks: Sequence[Callback],
) -> list[Path]:
    """Train and test every fold that is not finished; return the run folders.

    Args:
        recipe: What each fold does.
        parts: The cases of every fold, split.
        out: Where the run folders lie.
        only: This fold alone; None for all.
        progress: Told of reading and predicting.
        callbacks: Told of training.

    Raises:
        RunError: When `out` holds folds of another split.
    """
    folders = [out / f"fold_{number}" for number in range(len(parts))]
    for number, (folder, part) in enumerate(zip(folders, parts, strict=True)):
        run = Run(folder)
        run.refuse_other_manifest(part)
        if run.is_finished or only not in (None, number):
            continue
        run_study(
            recipe,
            folder,
            resume=folder.exists(),
            manifest=part,
            progress=partial(_prefixed, progress, f"Fold {number}: "),
            callbacks=callbacks,
        )
    return folders


def fold_tables(folders: Sequence[Path], model: str) -> list[pd.DataFrame]:
    """Return the predictions of each fold's test part, under the name of a model."""
    tables = enumerate(Run(folder).predictions for folder in folders)
    return [t[t["split"] == "test"].assign(fold=number, model=model) for number, t in tables]


def contest_of(recipe: Recipe, task: Task) -> Contest:
    """Return the comparison that fits a task.

    Args:
        recipe: Names the kind, for the message.
        task: Whose watched statistic decides.

    Raises:
        RunError: When models of such a task are not compared over folds.
    """
    if entry(task.watched).base not in CONTESTS:
        raise RunError(
            f"cross-validation does not know how to compare models of {recipe.task.kind}",
            expected=f"a task that is watched by its {' or '.join(CONTESTS)}",
            where="task.kind",
            fix="Use medtl study seeds, which splits the patients anew for every seed",
        )
    return contest_by(task.watched)


def contest_by(statistic: str) -> Contest:
    """Return the comparison of models that are watched by a statistic ("auroc", "mae_months")."""
    watched = entry(statistic)
    contest = CONTESTS[watched.base]
    if watched.unit:
        return replace(contest, measure=partial(contest.measure, unit=watched.unit))
    return contest


def _prefixed(progress: Progress, prefix: str, what: str, done: int, total: int) -> None:
    """Report work under the name of its fold."""
    progress(prefix + what, done, total)


def control_tables(
    images: ControlImages, contest: Contest, parts: Sequence[Manifest], names: Sequence[str]
) -> list[pd.DataFrame]:
    """Return out-of-fold predictions of controls, which learn from all but the test part.

    Args:
        images: Of the study.
        contest: What learns from the numbers of a control.
        parts: The cases of every fold, split.
        names: Of `CONTROLS`; one that knows nothing of the cases is left out.
    """
    recipe, cases = images.recipe, images.cases
    task = build_task(recipe, cases)
    truth, patients = task.truth_matrix(cases), [case.patient_id for case in cases]
    inputs = task.inputs(cases)
    learners = {}
    for name in names:
        features = CONTROLS[name](images)
        if features.shape[1]:
            learners[name] = partial(contest.linear, np.concatenate([features, inputs], axis=1))
    learners |= {name: partial(learn, inputs) for name, learn in contest.blind.items()}
    tables = []
    for number, part in enumerate(parts):
        split = {case.case_id: case.split for case in part.cases}
        is_test = np.array([split[case.case_id] == "test" for case in cases])
        train = [case for case, kept in zip(cases, ~is_test, strict=True) if kept]
        test = [case for case, chosen in zip(cases, is_test, strict=True) if chosen]
        for name, learn in learners.items():
            scores = [
                learn(column, patients, train=~is_test, seed=number)[is_test] for column in truth.T
            ]
            table = predictions_table(
                task.weighted(train), test, np.stack(scores, axis=1), strata=recipe.data.strata
            )
            tables.append(table.assign(split="test", fold=number, model=name))
    return tables


def summarise(
    tables: Sequence[pd.DataFrame], contest: Contest, data: Data, out: Path
) -> list[Result]:
    """Measure the pooled out-of-fold predictions and write the study's files.

    Where the recipe combines the images of an exam, exams are measured, as a run does.

    Args:
        tables: Predictions of every model and fold, the recipe's first.
        contest: How models are compared.
        data: The recipe's: its strata are subsets of their own, its exams are what is judged.
        out: The study folder.
    """
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    write_predictions(table, RunFiles(out).predictions)
    results = results_of(table, contest, data)
    folds = table["fold"].nunique()
    listed = [asdict(result) for result in results]
    write_json(
        out / CROSS_VALIDATED, {"schema": "medtl-kfold/1", "folds": folds, "results": listed}
    )
    write_text(out / "study.md", to_markdown(results, folds, by_exams=bool(data.exam_score)))
    return results


def results_of(table: pd.DataFrame, contest: Contest, data: Data) -> list[Result]:
    """Return the measures of every model on all cases and on each stratum, first model first.

    Args:
        table: Out-of-fold predictions of all models.
        contest: How models are compared.
        data: The recipe's.
    """
    strata = data.strata
    if data.exam_score:
        table, _ = by_exam(table, data.exam_score)
    subsets = [
        f"{column}={value}"
        for column in strata
        for value in sorted(set(table[column].dropna().astype(str)) - {""})
    ]
    return [
        _measure(table, contest, label, subset)
        for label in dict.fromkeys(table["label"])
        for subset in ("all", *subsets)
    ]


def _measure(table: pd.DataFrame, contest: Contest, label: str, subset: str) -> Result:
    """Measures of each model on one subset, and the paired differences."""
    rows = table[(table["label"] == label) & table["y_true"].notna()]
    if subset != "all":
        column, value = subset.split("=", 1)
        rows = rows[rows[column].astype(str) == value]
    wide = rows.pivot_table(
        index=["case_id", "patient_id", "fold", "y_true"], columns="model", values="y_score"
    ).reset_index()
    models = [name for name in dict.fromkeys(table["model"]) if name in wide]
    measures = contest.measure(
        wide["y_true"].to_numpy(dtype=float),
        [wide[name].to_numpy() for name in models],
        wide["fold"].to_numpy(),
        patients=wide["patient_id"].to_numpy(dtype=str),
    )
    return Result(label, subset, tuple(models), tuple(measures))


def to_markdown(results: Sequence[Result], folds: int, *, by_exams: bool = False) -> str:
    """Return the result as a Markdown table, intervals included."""
    first, *others = (name.replace("_", " ") for name in results[0].models)
    columns = [first, *others, *(f"{first} - {other}" for other in others)]
    cells = []
    for result in results:
        size = result.measures[0]
        row = [result.label, result.subset, str(size.n), str(size.n_patients)]
        cells.append([*row, *map(shown, result.measures)])
    head = ("label", "subset", "exams" if by_exams else "images", "patients", *columns)
    lines = [
        f"{results[0].measures[0].name}: mean of {folds} patient-grouped folds; 95 % intervals by "
        "bootstrap of patients within folds, which holds the sampling of test patients and not the "
        "variation of retraining.",
        "",
        *markdown_table(f"llrr{'l' * len(columns)}", head, cells),
    ]
    return "\n".join(lines) + "\n"


def shown(measure: Measure) -> str:
    """Return a measure as the text of a table cell.

    Example:
        >>> shown(Measure("auroc", 0.0, low=-1e-9, high=0.0021))
        '0.000 [0.000, 0.002]'
    """
    if measure.value is None:
        return f"not estimable: {measure.reason}"
    numbers = (measure.value, measure.low, measure.high)
    value, low, high = (None if x is None else f"{round(x, 3) + 0.0:.3f}" for x in numbers)
    return f"{value}" if low is None else f"{value} [{low}, {high}]"  # + 0.0: no -0.000
