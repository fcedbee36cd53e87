"""The runs of a study, one row each: in `rows.json` and, for people, `rows.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medtl.errors import RunError
from medtl.metrics.catalogue import CATALOGUE, entry
from medtl.run.files import RunFiles
from medtl.storage.atomic import write_json, write_text
from medtl.storage.lock import locked

Row = Mapping[str, Any]
"""`condition`, `seed`, `status` ("done" or "failed"), then measures, or the `error`."""


def read_rows(out: Path) -> list[Row]:
    """Return the rows of a study, in the order in which their runs ended; none before the first.

    Args:
        out: A study folder.
    """
    path = out / "rows.json"
    rows: list[Row] = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []
    return rows


def finished(rows: Sequence[Row]) -> dict[tuple[str, int], Row]:
    """Return the rows of the runs that ended well, by (condition, seed)."""
    return {(row["condition"], row["seed"]): row for row in rows if row["status"] == "done"}


def add_row(out: Path, row: Row) -> None:
    """Add a row, in place of an earlier one of the same run; other workers wait meanwhile.

    Args:
        out: The study folder.
        row: Of a run that ended, well or not.
    """
    with my_turn(out):
        same = (row["condition"], row["seed"])
        kept = [r for r in read_rows(out) if (r["condition"], r["seed"]) != same]
        rows = [*kept, row]
        write_json(out / "rows.json", {"schema": "medtl-rows/1", "rows": rows})
        write_text(out / "rows.csv", _to_csv(rows))


def values_of(rows: Sequence[Row], condition: str, measure: str) -> dict[int, float]:
    """Return seed -> value of one measure over the finished runs of one condition.

    Args:
        rows: Of a study.
        condition: Its name.
        measure: A column ("auroc", or "auroc@site=north" for a subset).

    Raises:
        RunError: When finished runs have no such column.
    """
    own = [row for (name, _), row in finished(rows).items() if name == condition]
    columns = {column for row in own for column in row}
    if own and measure not in columns:
        raise RunError(
            f"the rows have no measure {measure!r}",
            expected=f"one of {', '.join(sorted(columns - {'condition', 'status'}))}",
        )
    return {row["seed"]: row[measure] for row in own if row.get(measure) is not None}


def compared(row: Mapping[str, Any]) -> list[str]:
    """Return the test measures that stand in a row, those of subsets and single labels left out.

    They are in the order of the catalogue, so that the first one that is primary is the task's own.
    """
    known = list(CATALOGUE)
    plain = [name for name in row if not {"@", "["} & set(name) and entry(name).place]
    return sorted(plain, key=lambda name: known.index(entry(name).base))


def primary_measure(rows: Sequence[Row]) -> str:
    """Return the measure that a study of these runs compares."""
    found = compared({column: None for row in rows for column in row})
    return next((name for name in found if entry(name).place == "primary"), "auroc")


def lower_is_better(measure: str) -> bool:
    """Return which way a column improves; its subset and its label do not matter."""
    return entry(measure.partition("@")[0].partition("[")[0]).better == "lower"


def measures_row(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the test measures of a `metrics.json` as columns of a row.

    With several labels the macro mean has the plain name and each label a column of its own,
    "auroc[effusion]". Primary measures are given for every subset too, "auroc@site=north".

    Args:
        metrics: The content of the file; measures without a value are left out.
    """
    measures = [m for m in metrics["measures"] if m["split"] == "test" and entry(m["name"]).place]
    single = len({m["label"] for m in measures}) == 1
    columns: dict[str, float] = {}
    for m in measures:
        is_whole = single or m["label"] == "macro"
        name = m["name"] if is_whole else f"{m['name']}[{m['label']}]"
        if m["value"] is None:
            continue
        if m["subset"] == "all":
            columns[name] = m["value"]
        elif is_whole and entry(name).place == "primary":
            columns[f"{name}@{m['subset']}"] = m["value"]
    return columns


def _to_csv(rows: Sequence[Row]) -> str:
    """The rows as a table, columns in the order of their first appearance."""
    buffer = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


@contextmanager
def my_turn(out: Path) -> Iterator[None]:
    """Wait until no other worker writes results, and keep them waiting while the block runs.

    Args:
        out: The study folder.
    """
    with locked(RunFiles(out).lock, wait=True):
        yield
