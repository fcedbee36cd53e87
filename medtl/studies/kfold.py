"""Patient-grouped cross-validation of a recipe, beside a baseline in the same folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from medtl.build import build_manifest, build_task
from medtl.io.atomic import write_json, write_text
from medtl.io.predictions import read_predictions, write_predictions
from medtl.io.split import kfold
from medtl.metrics.folds import mean_of_folds_auroc
from medtl.outputs import Progress, silent
from medtl.prediction.table import predictions_table
from medtl.recipe import Recipe
from medtl.run import claim, refuse_other_manifest, run_study
from medtl.studies.baseline import frozen_features, logistic_scores
from medtl.types import Manifest, Measure

if TYPE_CHECKING:
    import pandas as pd

    from medtl.training.loop import Watcher

FINE_TUNED, FROZEN = "fine_tuned", "frozen_features"
"""Names of the two models in the tables."""


@dataclass(frozen=True)
class Result:
    """One line of the result: a label, a subset, and its measures."""

    label: str
    subset: str
    measures: tuple[Measure, ...]


def run_kfold(
    recipe: Recipe,
    out: Path,
    *,
    folds: int = 5,
    baseline: Literal["frozen", "none"] = "frozen",
    resume: bool = False,
    progress: Progress = silent,
    watcher: Watcher | None = None,
) -> list[Result]:
    """Cross-validate a recipe: every fold is a run folder, its outer part the test set.

    Each fold cuts its own validation part from its training patients, by which it stops early and
    chooses its threshold. Out-of-fold predictions go to `predictions.csv`, the result to
    `study.json` and `study.md`.

    Args:
        recipe: What each fold does.
        out: The study folder.
        folds: Number of outer folds, grouped by patient and stratified by the targets.
        baseline: "frozen" adds logistic regression on frozen features in the same folds.
        resume: Keep finished folds, go on with the unfinished one.
        progress: Told of reading and predicting.
        watcher: Told of training.

    Raises:
        RunError: When `out` exists without `resume`, or holds folds of another split.
    """
    claim(recipe, out, resume=resume)
    (out / "checkpoints").rmdir()
    manifest = build_manifest(recipe)
    strata = build_task(recipe, manifest.cases).strata(manifest.cases)
    parts = kfold(manifest, strata, folds, recipe.seed_of("split"))
    tables = []
    for number, part in enumerate(parts):
        folder = out / f"fold_{number}"
        refuse_other_manifest(folder, part)
        if not (folder / "checksums.json").is_file():
            unfinished = folder.exists()
            run_study(
                recipe,
                folder,
                resume=unfinished,
                manifest=part,
                progress=partial(_prefixed, progress, f"Fold {number}: "),
                watcher=watcher,
            )
        tables.append(_test_rows(folder, number))
    if baseline == "frozen":
        tables += _baseline_tables(recipe, manifest, parts, progress)
    return _summarise(tables, recipe.data.strata, out, folds)


def _prefixed(progress: Progress, prefix: str, what: str, done: int, total: int) -> None:
    """Report work under the name of its fold."""
    progress(prefix + what, done, total)


def _test_rows(folder: Path, number: int) -> pd.DataFrame:
    """The test predictions of one fold."""
    table = read_predictions(folder / "predictions.csv")
    test = table[table["split"] == "test"].copy()
    return test.assign(fold=number, model=FINE_TUNED)


def _baseline_tables(
    recipe: Recipe, manifest: Manifest, parts: Sequence[Manifest], progress: Progress
) -> list[pd.DataFrame]:
    """Out-of-fold predictions of the baseline, which learns from all but the test part."""
    features, cases = frozen_features(recipe, manifest, progress=progress)
    patients = [case.patient_id for case in cases]
    tables = []
    for number, part in enumerate(parts):
        split = {case.case_id: case.split for case in part.cases}
        is_test = np.array([split[case.case_id] == "test" for case in cases])
        task = build_task(recipe, cases)
        truth = task.truth_matrix(cases)
        scores = np.stack(
            [
                logistic_scores(features, column, patients, train=~is_test, seed=number)
                for column in truth.T
            ],
            axis=1,
        )
        test = [case for case, chosen in zip(cases, is_test, strict=True) if chosen]
        table = predictions_table(task, test, scores[is_test], strata=recipe.data.strata)
        tables.append(table.assign(split="test", fold=number, model=FROZEN))
    return tables


def _summarise(
    tables: Sequence[pd.DataFrame], strata: Sequence[str], out: Path, folds: int
) -> list[Result]:
    """Measure the pooled out-of-fold predictions and write the study's files."""
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    write_predictions(table, out / "predictions.csv")
    subsets = ["all"]
    for column in strata:
        values = sorted(set(table[column].dropna().astype(str)) - {""})
        subsets += [f"{column}={value}" for value in values]
    results = [
        _measure(table, label, subset)
        for label in dict.fromkeys(table["label"])
        for subset in subsets
    ]
    listed = [{**asdict(result)} for result in results]
    write_json(out / "study.json", {"schema": "medtl-kfold/1", "folds": folds, "results": listed})
    write_text(out / "study.md", to_markdown(results, folds))
    return results


def _measure(table: pd.DataFrame, label: str, subset: str) -> Result:
    """Mean-of-folds AUROC of each model on one subset, and their paired difference."""
    rows = table[(table["label"] == label) & table["y_true"].notna()]
    if subset != "all":
        column, value = subset.split("=", 1)
        rows = rows[rows[column].astype(str) == value]
    wide = rows.pivot_table(
        index=["case_id", "patient_id", "fold", "y_true"], columns="model", values="y_score"
    ).reset_index()
    models = [name for name in (FINE_TUNED, FROZEN) if name in wide]
    measures = mean_of_folds_auroc(
        wide["y_true"].to_numpy(dtype=float),
        [wide[name].to_numpy() for name in models],
        wide["fold"].to_numpy(),
        patients=wide["patient_id"].to_numpy(dtype=str),
    )
    return Result(label, subset, tuple(measures))


def to_markdown(results: Sequence[Result], folds: int) -> str:
    """Return the result as a Markdown table, intervals included."""
    lines = [
        f"Mean of {folds} patient-grouped folds; 95 % intervals by bootstrap of patients within "
        "folds, which holds the sampling of test patients and not the variation of retraining.",
        "",
        "| label | subset | images | patients | fine-tuned | frozen features | difference |",
        "|---|---|--:|--:|---|---|---|",
    ]
    for result in results:
        first = result.measures[0]
        shown = [_shown(measure) for measure in result.measures] + ["", ""]
        cells = [result.label, result.subset, str(first.n), str(first.n_patients), *shown[:3]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shown(measure: Measure) -> str:
    """A measure in a table cell."""
    if measure.value is None:
        return f"not estimable: {measure.reason}"
    interval = "" if measure.low is None else f" [{measure.low:.3f}, {measure.high:.3f}]"
    return f"{measure.value:.3f}{interval}"
