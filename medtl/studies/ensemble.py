"""Ensembles: the mean score of several models on the same cases, beside each model alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtl.cases.exams import by_exam
from medtl.cases.predictions import write_predictions
from medtl.errors import RunError
from medtl.evaluation.assemble import evaluate
from medtl.run.files import RunFiles
from medtl.run.folder import Run
from medtl.storage.atomic import write_json, write_text
from medtl.studies.conditions import load_plan
from medtl.studies.engine import run_folder
from medtl.studies.judgement import markdown_table
from medtl.studies.rows import finished, lower_is_better, measures_row, read_rows

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["case_id", "split", "label"]
"""Columns that name the subject of a score."""

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Ensemble:
    """Single models and their ensemble.

    Attributes:
        singles: Name -> test measures of each model.
        ensemble: Test measures of the mean of their scores, with a threshold of its own.
        folder: Where the ensemble's predictions and metrics are.
    """

    singles: dict[str, dict[str, float]]
    ensemble: dict[str, float]
    folder: Path


def ensemble_study(out: str | PathLike[str], *, condition: str | None = None) -> Ensemble:
    """Average the models of a study's seeds on the test cases that they share.

    Args:
        out: A study folder whose seeds share one split (`--vary init,order,augment`).
        condition: One of the plan; its reference when not stated.

    Returns:
        The figures; they are left in `OUT/ensemble/CONDITION/` with the averaged predictions.

    Raises:
        RunError: When every seed has a split of its own, there are fewer than two finished runs,
            or their predictions are not there any more.
    """
    out = Path(out)
    plan = load_plan(out)
    name = condition or plan.reference
    if not plan.shares_the_split:
        raise RunError(
            "every seed of this study has test cases of its own",
            expected="models that were tested on the same cases",
            where=str(out),
            fix="Run the study with --vary init,order,augment: then all seeds share one split",
        )
    seeds = sorted(seed for n, seed in finished(read_rows(out)) if n == name)
    folders = [run_folder(out, name, seed) for seed in seeds]
    return ensemble_runs(folders, out / "ensemble" / name)


def ensemble_runs(folders: Sequence[Path], out: Path) -> Ensemble:
    """Average the predictions of some runs on the same test cases.

    Args:
        folders: Run folders of one recipe: seeds of a study that share a split, or folds that
            share their test part. The folds of a plain cross-validation share nothing.
        out: Where `predictions.csv`, `metrics.json` and `ensemble.md` go.

    Raises:
        RunError: For fewer than two runs, missing predictions, or runs of different cases.
    """
    if len(folders) < 2:
        raise RunError(f"{len(folders)} finished runs", expected="two or more", where=out.name)
    runs = [Run(folder) for folder in folders]
    tables = [run.predictions for run in runs]
    recipe = runs[0].stored_recipe
    mean = average(tables)
    out.mkdir(parents=True, exist_ok=True)
    files = RunFiles(out)
    write_predictions(mean, files.predictions)
    metrics = _metrics(mean, recipe)
    write_json(files.metrics, metrics)
    found = Ensemble(
        singles={
            folder.name: measures_row(_metrics(table, recipe))
            for folder, table in zip(folders, tables, strict=True)
        },
        ensemble=measures_row(metrics),
        folder=out,
    )
    write_text(out / "ensemble.md", to_markdown(found))
    return found


def average(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return a predictions table whose test scores are the means over some tables.

    Models that validated on the same cases are averaged there too. Models of folds, which
    validated on cases of their own, keep those scores: every case's model has not seen it.

    Args:
        tables: Of the same test cases and labels, in any order of rows.

    Raises:
        RunError: When a table has no scores, or other test cases or truths, or two of them
            validated on partly the same cases.
    """
    import pandas as pd

    if not all("y_score" in table for table in tables):
        raise RunError(
            "the predictions hold measures of masks, not scores",
            expected="y_score in predictions.csv",
            fix="Ensembles are made of classifiers and of bone ages",
        )
    validated = [set(table.loc[table["split"] == "val", "case_id"]) for table in tables]
    if all(cases == validated[0] for cases in validated):
        return _mean_table(tables)
    if sum(map(len, validated)) > len(set.union(*validated)):
        raise RunError("two models validated on partly the same cases")
    tested = _mean_table([table[table["split"] == "test"] for table in tables])
    return pd.concat([tested, *(table[table["split"] == "val"] for table in tables)])


def _mean_table(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The first table with the mean score of all, which must be of the same cases."""
    import numpy as np

    keys = [key for key in KEYS if key in tables[0]]
    indexed = [table.set_index(keys).sort_index() for table in tables]
    first = indexed[0]
    for number, table in enumerate(indexed[1:], start=1):
        if not table.index.equals(first.index):
            raise RunError(
                f"models 0 and {number} were not tested on the same cases",
                expected="runs that share one split",
            )
        if not np.array_equal(table["y_true"], first["y_true"], equal_nan=True):
            raise RunError(f"models 0 and {number} disagree about the truth of a case")
    mean = np.mean([table["y_score"].to_numpy(dtype=float) for table in indexed], axis=0)
    return first.assign(y_score=mean).reset_index()


def _metrics(table: pd.DataFrame, recipe: dict[str, Any]) -> dict[str, Any]:
    """The measures of a predictions table by the rules of the recipe of its runs."""
    study, exams = recipe["study"], recipe["data"].get("exam_score")
    if exams:
        table, _ = by_exam(table, exams)
    return evaluate(
        table,
        rule=study["operating_point"],
        prevalence=study.get("prevalence"),
        acting=study.get("acting"),
        strata=[name for name in recipe["data"]["strata"] if name in table],
    ).to_json()


def to_markdown(found: Ensemble) -> str:
    """Return single models and ensemble as a Markdown table."""
    names = [name for name in found.ensemble if "@" not in name and "[" not in name]
    columns = {name: [row[name] for row in found.singles.values() if name in row] for name in names}
    known = {name: values for name, values in columns.items() if values}
    rows = {
        **found.singles,
        "mean of singles": {name: sum(values) / len(values) for name, values in known.items()},
        "best of singles": {
            name: min(values) if lower_is_better(name) else max(values)
            for name, values in known.items()
        },
        ENSEMBLE: found.ensemble,
    }
    cells = [
        [model, *(f"{row[name]:.3f}" if name in row else "" for name in names)]
        for model, row in rows.items()
    ]
    lines = [
        f"Mean of the scores of {len(found.singles)} models on the same test cases; every row has "
        "the threshold that its own validation scores gave.",
        "",
        *markdown_table(f"l{'r' * len(names)}", ("model", *names), cells),
        "",
        "The best of the singles is known only after the test: it is no choice.",
    ]
    return "\n".join(lines) + "\n"
