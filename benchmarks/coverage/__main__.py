"""Draw the samples, keep what is done, and write the study.

Samples come in lots; each lot is a function of the seed, the cell and its number, and is kept in a
file when it is done, so that a study that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import textwrap
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.coverage import findings, others, promises
from benchmarks.coverage.cell import DRAWS, Cell, Tally, counted

ROOT = Path(__file__).parents[2]
SEED = 20270418
"""Of the study that is kept; no interval was chosen on it."""

SETS = 1000
"""Samples of a cell."""

LOT = 100
"""Samples that are drawn and kept together."""

LEAST = 0.92
"""Coverage that no cell with 30 rows and 5 of each class may miss (of a nominal 0.95)."""

RARELY = 0.05
"""An interval that fewer samples have is not judged."""

Builder = tuple[Callable[..., Cell], tuple[float, ...]]

SIZES = ((5, 25), (5, 95), (10, 20), (10, 90), (15, 15), (25, 5), (30, 70), (60, 240))
AREAS = (0.75, 0.9)
CLUSTERED = ((5, 25), (15, 15), (20, 40), (30, 70))

PARTS: dict[str, Sequence[Builder]] = {
    "Decisions": [(findings.decision, (m, n, a)) for m, n in SIZES for a in AREAS],
    "Findings": [(findings.finding, (m, n, a)) for m, n in SIZES for a in AREAS],
    "Findings, several images of a patient": [
        (findings.finding, (m, n, a, 3)) for m, n in CLUSTERED for a in AREAS
    ],
    "Bands of the figures": [
        (findings.bands, size)
        for size in ((5, 25, 0.75), (15, 15, 0.9), (30, 70, 0.75), (60, 240, 0.9),
                     (15, 15, 0.75, 3), (30, 70, 0.9, 3))
    ],
    "Quantities": [(others.quantity, (n,)) for n in (30, 100)],
    "Quantities, several images of a patient": [(others.quantity, (n, 3)) for n in (30, 60)],
    "Overlap of masks": [
        (others.overlaps, size) for size in ((30,), (60,), (100,), (30, 3), (60, 3))
    ],
    "Groups and paired models": [
        (others.groups, size)
        for size in ((5, 25), (15, 15), (30, 70), (5, 25, 3), (15, 15, 3), (30, 70, 3))
    ],
    "Exclusive classes": [(findings.classes, (number,)) for number in (10, 20, 50)],
    "Means over findings": [(findings.macro, size) for size in ((5, 25), (10, 90), (30, 70))],
    "Cross-validation": [(others.folds, size) for size in ((5, 25), (15, 15), (5, 25, 3))],
    "Temperature": [(others.temperature, (n,)) for n in (30, 60, 200)],
    "Another place": [(others.places, size) for size in ((5, 25), (15, 15), (30, 70))],
    "Sites": [(others.sites, (number,)) for number in (3, 5, 10)],
    "Readers": [(others.readers, size) for size in ((3, 15, 15), (5, 30, 70), (10, 60, 60))],
}  # fmt: skip

SLOW = "Bands of the figures"
"""Part of which every fourth lot is drawn."""

Task = tuple[str, int, int, int]
"""Part, place of the cell in it, number of the lot, samples."""


def lot(task: Task, seed: int) -> dict[str, object]:
    """Return the tallies of one lot of a cell, as they are kept."""
    part, place, number, sets = task
    builder, size = PARTS[part][place]
    cell = builder(*size)
    rng = np.random.default_rng([seed, zlib.crc32(f"{part}, {cell.name}".encode()), number])
    tallies = counted(cell, rng, sets)
    kept = {name: tally.as_row() for name, tally in tallies.items()}
    return {"task": list(task), "cell": cell.name, "exact": cell.draw is None, "tallies": kept}


def _lot(job: tuple[Task, int]) -> dict[str, object]:
    return lot(*job)


def study(sets: int, seed: int, kept: Path, workers: int, only: str = "") -> list[dict]:  # type: ignore[type-arg]
    """Return every lot of the study, those from the file and those that were still to do."""
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    exact = {(row["task"][0], row["task"][1]) for row in done if row["exact"]}
    known = {tuple(row["task"]) for row in done}
    todo = [
        task
        for number in range(-(-sets // LOT))
        for part, cells in PARTS.items()
        for place in range(len(cells))
        if (task := (part, place, number, min(LOT, sets - number * LOT))) not in known
        and (part, place) not in exact
        and (number == 0 or part != "Decisions")
        and (number % 4 == 0 or part != SLOW)
        and only in part
    ]
    kept.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool, kept.open("a") as file:
        for row in pool.map(_lot, ((task, seed) for task in todo)):
            file.write(json.dumps(row) + "\n")
            file.flush()
            done.append(row)
    return done


def summed(rows: list[dict]) -> dict[str, dict[str, dict[str, Tally]]]:  # type: ignore[type-arg]
    """Return part -> cell -> name of the interval -> tally."""
    found: dict[str, dict[str, dict[str, Tally]]] = {part: {} for part in PARTS}
    for row in sorted(rows, key=lambda row: row["task"][1]):
        cell = found[row["task"][0]].setdefault(row["cell"], {})
        for name, tally in row["tallies"].items():
            cell.setdefault(name, Tally()).add(Tally(**tally))
    return found


def page(found: dict[str, dict[str, dict[str, Tally]]], sets: int, seed: int) -> list[str]:
    """Return the lines of the report."""
    drawn = [
        int(tally.samples)
        for cells in found.values()
        for tallies in cells.values()
        for tally in tallies.values()
        if not tally.exact
    ]
    about = (
        f"`make coverage` draws up to {sets} samples a cell; this page has {min(drawn)} to "
        f"{max(drawn)}, the fewest for the {SLOW[0].lower() + SLOW[1:]}, which are slow. The seed "
        f"is {seed}, on which nothing was chosen; {DRAWS.resamples} resamples where an interval "
        "needs the bootstrap. An entry is the share of the 95 percent intervals that hold the "
        "truth, and after ± the standard error that it has from the number of samples. Decisions "
        "at a threshold are counted, not drawn: every table with its probability. Entries below "
        f"{LEAST} are marked `<`, and `<<` where they are by more than twice their error. In "
        "brackets is the share of samples that have an interval, where that is not all; `-` is "
        "fewer than one in twenty. Scores are binormal, their probabilities calibrated, class "
        "sizes fixed. Lots of samples are kept in `runs/coverage/`: a stopped study goes on."
    )
    lines = ["# Do the intervals hold the truth?", "", *textwrap.wrap(about, 100), ""]
    below = []
    for part, cells in found.items():
        if not cells:
            continue
        names = list(dict.fromkeys(name for tallies in cells.values() for name in tallies))
        lines += [f"## {part}", "", "| interval | " + " | ".join(cells) + " |"]
        lines.append("|---|" + "--:|" * len(cells))
        for name in names:
            texts = [shown(tallies.get(name, Tally())) for tallies in cells.values()]
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
            below += [
                f"- {part}, {cell}: {name} {text}"
                for cell, text in zip(cells, texts, strict=True)
                if text.startswith("<")
            ]
        lines.append("")
    return [
        *lines,
        *promises.section(seed),
        "## Below",
        "",
        *(below or [f"No entry is below {LEAST}."]),
    ]


def shown(tally: Tally) -> str:
    """Return an entry of the table."""
    if tally.there <= RARELY * tally.samples:
        return "-"
    share = tally.there / tally.samples
    rare = f" ({share:.2f})" if share < 0.995 else ""
    surely = tally.share + 2 * tally.error < LEAST
    mark = "<<" if surely else "<" if tally.share < LEAST else ""
    error = "" if tally.exact else f" ± {tally.error:.3f}"
    return f"{mark}{tally.share:.3f}{error}{rare}"


def main() -> None:
    """Run the study and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=ROOT / "reports/coverage.md")
    parser.add_argument("--only", default="", help="parts whose name holds this")
    chosen = parser.parse_args()
    kept = ROOT / f"runs/coverage/{chosen.seed}.jsonl"
    rows = study(chosen.sets, chosen.seed, kept, chosen.workers, chosen.only)
    lines = page(summed(rows), chosen.sets, chosen.seed)
    chosen.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[lines.index("## Below") :]))


if __name__ == "__main__":
    main()
