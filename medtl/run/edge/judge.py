"""A smaller graph beside the exact one, on a run's test cases: what it saves and costs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.data.reader import decode_cases
from medtl.evaluation.model_comparison import compare, compare_models
from medtl.evaluation.overlaps import overlap_table
from medtl.metrics.ranking import auroc
from medtl.metrics.readers.paired_shares import noninferiority
from medtl.prediction.portable import GRAPH, IMAGE, INPUTS, PortableModel, amend, read_portable
from medtl.run.edge.compress import Feed, Smaller, prune, quantise
from medtl.run.files import RunFiles
from medtl.run.predict import Judged, predict_images
from medtl.run.use.cases_to_predict import find_cases
from medtl.storage.atomic import write_json, write_text
from medtl.types import Case, Progress

if TYPE_CHECKING:
    import pandas as pd

    from medtl.metrics.comparison import PairedTest
    from medtl.run.folder import Run

CALIBRATION = 64
"""Training images that set ranges and say which channels do little."""

TIMED = 7
"""Calls of which the median is taken."""

BATCHES = (1, 8)


def shrink_and_judge(run: Run, folder: Path, smaller: Smaller, *, progress: Progress) -> None:
    """Make an exported graph smaller, and leave `edge.json` and `edge.md` about it.

    Args:
        run: Of which the folder is.
        folder: Holds the exact graph; it is changed where something smaller is asked for.
        smaller: What is wanted; its images are the run's own manifest.
        progress: Told of reading and predicting.

    Raises:
        RunError: When the images are not the run's own manifest.
    """
    assert smaller.images is not None
    exact = read_portable(folder, threads=1)
    cases = _of(run, exact, smaller.images, "train")[:CALIBRATION]
    _of(run, exact, smaller.images, "test")  # said before the work
    with TemporaryDirectory(prefix="medtl-edge-") as temporary:
        kept = Path(temporary) / "exact"
        shutil.copytree(folder, kept)
        models = {"exact": read_portable(kept, threads=1)}
        if smaller.int8 or smaller.prune:
            feeds = list(_feeds(exact, cases))
            changed: dict[str, Any] = {"int8": smaller.int8, "prune": smaller.prune}
            if smaller.prune:
                changed["blocks"] = prune(folder / GRAPH, smaller.prune, feeds)
            if smaller.int8:
                quantise(folder / GRAPH, feeds)
            amend(folder, smaller=changed)
            models["smaller"] = read_portable(folder, threads=1)
        tables = {
            name: _predicted(model, smaller.images, run, Path(temporary) / name, progress)
            for name, model in models.items()
        }
        rows = [_cost(name, model, cases) for name, model in models.items()]
        found = {
            "graphs": rows,
            "levels": [*_levels(exact, tables, run.thresholds)],
            "differences": _differences(run, exact, tables, smaller.margin),
        }
    write_json(folder / "edge.json", found)
    write_text(folder / "edge.md", _page(found, smaller))


def _of(run: Run, model: PortableModel, images: Path, split: str) -> list[Case]:
    """The run's cases of one split."""
    manifest = find_cases(run.files.manifest, images, model, (split,)).manifest
    root = manifest.root
    return [replace(case, image=root / case.image) for case in manifest.cases]


def _feeds(model: PortableModel, cases: Sequence[Case]) -> Iterator[Feed]:
    """The cases as calls of the graph; of a segmenter the windows that it sees."""
    store, _ = decode_cases(cases, model.reader)
    readable = [case for case in cases if case.case_id in set(store.case_ids)]
    for case, row in zip(readable, store.rows(readable), strict=True):
        image = model.reader.preprocessor.standardise(store.unit(int(row)))[None]
        inputs = model.task.inputs([case])
        if model.meta["windows"] is None:
            yield {IMAGE: image} | ({INPUTS: inputs} if inputs.shape[1] else {})
            continue
        seen: list[Any] = []

        def network(part: Any, seen: list[Any] = seen) -> Any:
            seen.append(part)
            return model.session.run(None, {IMAGE: part})[0]

        model.windows(image, network)
        yield from ({IMAGE: part} for part in seen[:4])


def _predicted(
    model: PortableModel, images: Path, run: Run, folder: Path, progress: Progress
) -> pd.DataFrame:
    """The predictions of the run's cases, with the Dice of its masks."""
    folder.mkdir(exist_ok=True)
    out = RunFiles(folder).predictions
    done = predict_images(
        model, images, out, own=run.files.manifest, judged=Judged({}), progress=progress
    ).frame
    return done if "y_score" in done else overlap_table(done, out)


def _levels(
    model: PortableModel, tables: Mapping[str, pd.DataFrame], cuts: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """How well each graph does on the test cases: AUROC and sensitivity, Dice, or the error."""
    watched = model.task.watched
    for name, table in tables.items():
        test = table[table["split"] == "test"]
        for label, rows in test.groupby("label", sort=False):
            found = {}
            if watched == "auroc":
                known = rows[rows["y_true"].isin([0, 1])]
                sick = known[known["y_true"] == 1]
                found["auroc"] = auroc(known["y_true"], known["y_score"]).value
                if label in cuts and len(sick):
                    found["sensitivity"] = float((sick["y_score"] >= cuts[str(label)]).mean())
            elif watched in rows:
                found[watched] = float(rows[watched].mean())
            elif "y_true" in rows:
                found[watched] = float((rows["y_score"] - rows["y_true"]).abs().mean())
            yield from (
                {"graph": name, "label": label, "measure": measure, "value": value}
                for measure, value in found.items()
            )


def _differences(
    run: Run, model: PortableModel, tables: Mapping[str, pd.DataFrame], margin: float
) -> list[dict[str, Any]]:
    """Smaller minus exact: paired differences with intervals, flips, and the margin."""
    import pandas as pd

    if len(tables) < 2:
        return []
    both = pd.concat([table.assign(model=name) for name, table in tables.items()])
    test, cuts = both[both["split"] == "test"], run.thresholds
    spread = float(getattr(model.task, "sd", 1.0))  # of a quantity, the margin is a share of it
    value = "" if model.task.watched == "auroc" else model.task.watched
    if value:
        # Pairs come in alphabetical order: the names are turned for smaller minus exact.
        turned = test.replace({"model": {"smaller": "a", "exact": "b"}})
        tests = list(compare(turned, "b", value=value).tests)
    else:
        thresholds = {(name, label): cut for label, cut in cuts.items() for name in tables}
        tests = compare_models(test, models=("smaller", "exact"), thresholds=thresholds)
    return [
        _row(one.label, one.test, margin * spread, higher=not value.startswith("mae"))
        | {"flips": _flips(test, one.label, cuts)}
        for one in tests
    ]


def _row(label: str, test: PairedTest, margin: float, *, higher: bool) -> dict[str, Any]:
    """One paired difference as JSON."""
    difference = test.difference
    shown = noninferiority(difference, margin, higher_is_better=higher)
    return {
        "label": label,
        "measure": difference.name,
        "value": difference.value,
        "low": difference.low,
        "high": difference.high,
        "n": difference.n,
        "reason": difference.reason,
        "margin": shown.margin,
        "not_inferior": shown.shown,
    }


def _flips(test: pd.DataFrame, label: str, cuts: Mapping[str, float]) -> float | None:
    """Share of the decisions at the frozen threshold that differ."""
    if label not in cuts or "y_score" not in test:
        return None
    wide = test[test["label"] == label].pivot(index="case_id", columns="model", values="y_score")
    called = wide.to_numpy(float) >= cuts[label]
    return float((called[:, 0] != called[:, 1]).mean())


def _cost(name: str, model: PortableModel, cases: Sequence[Case]) -> dict[str, Any]:
    """Size, and milliseconds an image on one thread."""
    feed = next(_feeds(model, cases[:4]))
    batches = BATCHES if model.meta["windows"] is None else BATCHES[:1]
    row: dict[str, Any] = {"graph": name, "bytes": (model.folder / GRAPH).stat().st_size}
    for size in batches:
        batch = {key: np.repeat(value, size, axis=0) for key, value in feed.items()}
        seconds = []
        for _ in range(TIMED):
            begun = time.perf_counter()
            model.session.run(None, batch)
            seconds.append(time.perf_counter() - begun)
        row[f"ms_batch_{size}"] = 1000 * median(seconds) / size
    return row


def _page(found: Mapping[str, Any], smaller: Smaller) -> str:
    """The same as a table for people."""
    lines = [
        "# The graph beside the exact one",
        "",
        f"int8: {'yes' if smaller.int8 else 'no'}; inner channels removed: {smaller.prune:.0%}; "
        f"margin stated: {smaller.margin:g}. Milliseconds an image, one thread.",
        "",
        "| graph | MB | ms, batch 1 | ms, batch 8 |",
        "|---|--:|--:|--:|",
    ]
    for row in found["graphs"]:
        eight = f"{row['ms_batch_8']:.1f}" if "ms_batch_8" in row else ""
        lines.append(
            f"| {row['graph']} | {row['bytes'] / 1e6:.1f} | {row['ms_batch_1']:.1f} | {eight} |"
        )
    if found["levels"]:
        lines += [
            "",
            "On the test cases:",
            "",
            "| label | measure | graph | value |",
            "|---|---|---|--:|",
        ]
    for row in found["levels"]:
        value = "not estimable" if row["value"] is None else f"{row['value']:.4f}"
        lines.append(f"| {row['label']} | {row['measure']} | {row['graph']} | {value} |")
    if found["differences"]:
        lines += [
            "",
            "Smaller minus exact, on the test cases:",
            "",
            "| label | measure | difference (95 % interval) | n | decisions that flip | "
            "not inferior |",
            "|---|---|--:|--:|--:|---|",
        ]
    for row in found["differences"]:
        value = "not estimable" if row["value"] is None else f"{row['value']:+.4f}"
        if row["low"] is not None:
            value += f" ({row['low']:+.4f} to {row['high']:+.4f})"
        flips = "" if row["flips"] is None else f"{row['flips']:.2%}"
        shown = {True: "shown", False: "not shown", None: "not estimable"}[row["not_inferior"]]
        lines.append(
            f"| {row['label']} | {row['measure']} | {value} | {row['n']} | {flips} | {shown} |"
        )
    return "\n".join(lines) + "\n"
