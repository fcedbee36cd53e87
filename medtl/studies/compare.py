"""Two studies, or two conditions of one, compared run by run: paired by seed or by fold.

Two cross-validations of the same folds are compared patient by patient too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medtl.errors import RunError
from medtl.metrics.paired_runs import PairedRuns, compare_runs
from medtl.run.files import RunFiles
from medtl.run.folder import Run
from medtl.storage.atomic import read_json
from medtl.studies.conditions import PLAN_FILE, load_plan
from medtl.studies.judgement import comparison_notes, effects_table
from medtl.studies.kfold import (
    CROSS_VALIDATED,
    FINE_TUNED,
    MEAN_OF_FOLDS,
    Result,
    contest_by,
    results_of,
)
from medtl.studies.kfold import to_markdown as results_table
from medtl.studies.rows import (
    Row,
    finished,
    lower_is_better,
    measures_row,
    primary_measure,
    read_rows,
    values_of,
)
from medtl.studies.summary import split_overlap


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed or fold only.

    Attributes:
        values: Seed or fold -> the measure.
        splits: Seed or fold -> hash of who was trained and tested on.
        overlap: Test share over training share, 0 when all runs share one split.
        paired_by: "seed" or "fold".
    """

    values: Mapping[int, float]
    splits: Mapping[int, str]
    overlap: float
    paired_by: str


@dataclass(frozen=True)
class Comparison:
    """The result of `compare_studies`.

    Attributes:
        measure: What is compared.
        first, second: What the user named.
        paired_by: "seed" or "fold".
        runs: Name -> first minus second, judged together.
        unpaired: Runs that only one of the two has.
        overlap: Test share over training share of the splits, 0 when all runs share one.
        patients: Of two cross-validations: each one's figures and the first's less the second's, by
            bootstrap of the patients that both tested, on all cases and each stratum.
        by_exams: Whether those cases are exams.
    """

    measure: str
    first: str
    second: str
    paired_by: str
    runs: Mapping[str, PairedRuns]
    unpaired: int
    overlap: float
    patients: Sequence[Result] = ()
    by_exams: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return {"schema": "medtl-comparison/1", **asdict(self)}


def compare_studies(first: str, second: str, *, measure: str | None = None) -> Comparison:
    """Compare two studies whose runs had the same seeds, or folds, on the same patients.

    Args:
        first: A study folder, or `FOLDER:CONDITION` for one of its conditions.
        second: The same.
        measure: Column of the rows; the task's own when not stated.

    Raises:
        RunError: When a folder is no study, nothing can be paired, or a pair had other patients.
    """
    measure = measure or primary_measure(_rows_of(_folder_of(first)[0]))
    a, b = _groups(first, measure), _groups(second, measure)
    if len(a) == len(b) == 1:
        pairs = {f"{first} - {second}": (next(iter(a.values())), next(iter(b.values())))}
    else:
        pairs = {name: (a[name], b[name]) for name in a if name in b}
    if not pairs:
        raise RunError(
            f"no condition is in both ({', '.join(a)}; {', '.join(b)})",
            fix="Name the two: FOLDER:CONDITION",
        )
    differences: dict[str, list[float]] = {}
    unpaired = 0
    for name, (one, other) in pairs.items():
        common = _same_runs(one, other, name)
        differences[name] = [one.values[key] - other.values[key] for key in common]
        unpaired += len(one.values) + len(other.values) - 2 * len(common)
    overlap = max(group.overlap for pair in pairs.values() for group in pair)
    return Comparison(
        measure=measure,
        first=first,
        second=second,
        paired_by=next(iter(pairs.values()))[0].paired_by,
        runs=compare_runs(
            differences, overlap=overlap, larger_is_better=not lower_is_better(measure)
        ),
        unpaired=unpaired,
        overlap=overlap,
        patients=(patients := _patient_by_patient(first, second)),
        by_exams=bool(patients and Run(_folder_of(first)[0]).recipe.data.exam_score),
    )


def _patient_by_patient(first: str, second: str) -> Sequence[Result]:
    """The comparison over patients of two cross-validations; of other studies, none."""
    import pandas as pd

    folders = [_folder_of(named)[0] for named in (first, second)]
    if not all((folder / CROSS_VALIDATED).is_file() for folder in folders):
        return ()
    tables = []
    for name, folder in zip(("first", "second"), folders, strict=True):
        table = pd.read_csv(RunFiles(folder).predictions, dtype={"patient_id": str})
        tables.append(table[table["model"] == FINE_TUNED].assign(model=name))
    both = pd.concat(tables, ignore_index=True)
    found = read_json(folders[0] / CROSS_VALIDATED)
    statistic = found["results"][0]["measures"][0]["name"].removesuffix(MEAN_OF_FOLDS)
    return results_of(both, contest_by(statistic), Run(folders[0]).recipe.data)


def _same_runs(one: Group, other: Group, name: str) -> list[int]:
    """The seeds or folds that both have, on the same patients."""
    if one.paired_by != other.paired_by:
        raise RunError("one has seeds, the other folds", where=name)
    common = sorted(set(one.values) & set(other.values))
    if not common:
        raise RunError(f"no {one.paired_by} is in both", where=name)
    differing = [key for key in common if one.splits[key] != other.splits[key]]
    if differing:
        raise RunError(
            f"{one.paired_by} {differing[0]} did not train and test on the same patients in both",
            where=name,
            fix="Compare runs of one manifest, with the same split seeds",
        )
    return common


def _folder_of(named: str) -> tuple[Path, str]:
    """The folder that the user named, and the condition after its colon."""
    if not Path(named).is_dir() and ":" in named:
        text, _, condition = named.rpartition(":")
        return Path(text), condition
    return Path(named), ""


def _rows_of(folder: Path) -> Sequence[Row]:
    """The rows of a study; of a cross-validation, one per finished fold."""
    if (folder / PLAN_FILE).is_file():
        return read_rows(folder)
    rows = []
    for run in map(Run, sorted(folder.glob("fold_*"))):
        if not run.files.metrics.is_file():
            continue
        rows.append(
            {
                **measures_row(run.metrics),
                "seed": int(run.path.name.removeprefix("fold_")),
                "split_sha256": run.cohort["split_hash"],
                "condition": "kfold",
                "status": "done",
            }
        )
    if not rows:
        raise RunError("this is no study", expected="a folder of `medtl study`", where=str(folder))
    return rows


def _groups(named: str, measure: str) -> dict[str, Group]:
    """The groups of runs of a folder, or the one that is named after the colon."""
    folder, condition = _folder_of(named)
    rows = _rows_of(folder)
    names = dict.fromkeys(row["condition"] for row in rows)
    if condition and condition not in names:
        raise RunError(
            f"no condition {condition!r}", expected=f"one of {', '.join(names)}", where=named
        )
    if (folder / PLAN_FILE).is_file():
        overlap = 0.0 if load_plan(folder).shares_the_split else split_overlap(folder)
        paired_by = "seed"
    else:
        overlap, paired_by = 1 / max(1, len(rows) - 1), "fold"
    done = finished(rows)
    return {
        name: Group(
            values=values_of(rows, name, measure),
            splits={seed: row["split_sha256"] for (n, seed), row in done.items() if n == name},
            overlap=overlap,
            paired_by=paired_by,
        )
        for name in ([condition] if condition else names)
    }


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    lines = [
        f"{comparison.measure}, {comparison.first} minus {comparison.second}, "
        f"paired by {comparison.paired_by}.",
        "",
        *effects_table(comparison.runs),
        "",
        *(f"- {note}" for note in comparison_notes(comparison.runs, comparison.overlap)),
    ]
    if comparison.unpaired:
        lines.append(f"- {comparison.unpaired} runs have no partner and are left out.")
    if comparison.patients:
        folds = next(iter(comparison.runs.values())).difference.n
        lines += ["", results_table(comparison.patients, folds or 0, by_exams=comparison.by_exams)]
    return "\n".join(lines) + "\n"
