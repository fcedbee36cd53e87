"""From a predictions table, whoever made it, to `metrics.json` and a report. Without torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.cases.predictions import read_predictions
from medtl.errors import MedtlError, PredictionsError
from medtl.evaluation.assemble import evaluate
from medtl.evaluation.cohort import describe_table
from medtl.evaluation.model_comparison import without_readers
from medtl.evaluation.result import Evaluation
from medtl.io.masks import WHITE, read_mask
from medtl.io.pairs import Mask
from medtl.metrics.operating_point import Rule
from medtl.metrics.overlap import case_overlaps
from medtl.report.render import write_report
from medtl.run.files import RunFiles
from medtl.storage.atomic import write_json, write_text
from medtl.storage.yaml import load_yaml
from medtl.types import OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

PLACE_FLAGS = ("mask_place_rounded", "mask_place_not_comparable")
"""Flags of a pair of masks that are said in `overlap.csv`."""

KNOWN_STRATA = ("age", "sex", "view", "site", "scanner")
"""Columns that a foreign table is broken down by when the user names none."""

TOLERANCES_MM = (1.0, 2.0)
"""Of the normalised surface Dice."""

OPENINGS = "test_openings.jsonl"
"""Beside a run or a table: one line per model whose test results were computed."""

STUDY_KEYS = ("question", "title", "intended_use", "out_of_scope", "reference_standard",
              "sampling", "external", "endpoint", "funding", "synthetic")  # fmt: skip
"""What the `study` part of a table's sidecar may say."""


@dataclass(frozen=True)
class TableOptions:
    """What a user states about a table that some tool made.

    Attributes:
        threshold: Fixed before the test set was seen, for every label; without one, it is chosen
            on rows with split "val" (Youden), or left out when there are none.
        prevalence: Of the finding where the model would be used, in (0, 1).
        strata: Columns to break the results by; empty for those of `KNOWN_STRATA` it has.
        one_image_per_patient: Stated for a table without `patient_id`.
        model: The one to report in full when the table holds several; "" is the first by name.
    """

    threshold: float | None = None
    prevalence: float | None = None
    strata: Sequence[str] = ()
    one_image_per_patient: bool = False
    model: str = ""


def evaluate_rows(
    rows: pd.DataFrame,
    files: RunFiles,
    *,
    rule: Rule,
    prevalence: float | None,
    strata: Sequence[str],
) -> Evaluation:
    """Return the statistics of a run's predictions.

    Args:
        rows: The predictions of the run.
        files: Of the run.
        rule: How to choose the threshold, on validation rows.
        prevalence: Of the finding where the model would be used, in (0, 1).
        strata: Columns to break the results by, as far as they are there.
    """
    rows = _with_overlaps(rows, files.predictions, files.overlaps)
    present = [name for name in strata if name in rows]
    result = evaluate(rows, rule=rule, prevalence=prevalence, strata=present)
    openings = count_openings(files.folder.resolve().parent / OPENINGS, rows, "")
    return replace(result, test_openings=openings)


def evaluate_table(table: Path, out: Path, options: TableOptions = TableOptions()) -> Evaluation:
    """Compute the statistics of a table that any tool made, and leave them in `metrics.json`.

    Of a table of masks, the overlap of every case is left in `overlap.csv` beside it.

    Args:
        table: CSV or Parquet with `case_id, y_true, y_score`, or with `case_id, truth, prediction`.
        out: `metrics.json` to write.
        options: What the user states.

    Raises:
        PredictionsError: For a table that is not a predictions table.
    """
    rows = read_predictions(table, one_image_per_patient=options.one_image_per_patient)
    return _write_metrics(rows, table, out, options)


def report_table(
    table: Path,
    out: Path,
    options: TableOptions = TableOptions(),
    *,
    language: str = "en",
) -> Path:
    """Evaluate a table that any tool made, and write everything a reader needs into a folder.

    Args:
        table: As for `evaluate_table`. A YAML file of the same name may hold `study` (question,
            intended_use, ...) and `labels`.
        out: Folder of metrics.json, report.html, model_card.md and .json; made when missing.
        options: What the user states.
        language: Of the report, "en" or "ko".

    Returns:
        The path of `report.html`.

    Raises:
        PredictionsError: For a table that is not a predictions table, or a sidecar with other keys.
    """
    study = _study_of(table)
    rows = read_predictions(table, one_image_per_patient=options.one_image_per_patient)
    out.mkdir(parents=True, exist_ok=True)
    files = RunFiles(out)
    result = _write_metrics(rows, table, files.metrics, options)
    rows, _ = without_readers(rows)
    if result.comparison is not None:
        rows = rows[rows["model"] == result.comparison.shown]
    if options.prevalence is not None:
        study = {**study, "prevalence": options.prevalence}
    return write_report(
        files.report,
        metrics=result.to_json(),
        study=study,
        cohort=describe_table(rows, result.kind == "classification"),
        gallery=RunFiles(table.parent).gallery,
        synthetic=study.get("synthetic") is True,
        language=language,
    )


def _write_metrics(rows: pd.DataFrame, table: Path, out: Path, options: TableOptions) -> Evaluation:
    """Evaluate the rows of a table, write the statistics and return them."""
    _check_options(rows, table, options)
    rows = _with_overlaps(rows, table, RunFiles(out.parent).overlaps)
    of_models, _ = without_readers(rows)
    points = []
    if options.threshold is not None:
        test = of_models[of_models["split"] == "test"]
        labels = dict.fromkeys(test["label"]) if "label" in test else [""]
        points = [
            OperatingPoint(name, options.threshold, "given", "given", 0, 0) for name in labels
        ]
    names = sorted(map(str, of_models["model"].unique())) if "model" in of_models else []
    model = options.model or (names[0] if len(names) > 1 else None)
    result = evaluate(
        rows,
        rule=None if points or not (rows["split"] == "val").any() else {"youden": True},
        operating_points=points,
        prevalence=options.prevalence,
        strata=options.strata or [name for name in KNOWN_STRATA if name in rows],
        model=model,
    )
    openings = count_openings(table.resolve().parent / OPENINGS, of_models, model or "")
    result = replace(result, test_openings=openings)
    write_json(out, result.to_json())
    return result


def _check_options(rows: pd.DataFrame, table: Path, options: TableOptions) -> None:
    """Refuse what does not fit the table, before anything is computed."""
    missing = [name for name in options.strata if name not in rows.columns]
    if missing:
        raise PredictionsError(
            f"no column {', '.join(missing)}",
            expected=f"some of {', '.join(rows.columns)}",
            where=table.name,
        )
    if options.prevalence is not None and not 0 < options.prevalence < 1:
        raise PredictionsError(
            f"a prevalence of {options.prevalence:g}", expected="a share between 0 and 1"
        )
    if options.threshold is not None and math.isnan(options.threshold):
        raise PredictionsError("the threshold is not a number", fix="State --threshold 0.5")


def _study_of(table: Path) -> dict[str, Any]:
    """Return what the YAML file beside a table says about the study."""
    file = table.with_suffix(".yaml")
    study = load_yaml(file).get("study", {}) if file.is_file() else {}
    unknown = [key for key in study if key not in STUDY_KEYS] if isinstance(study, dict) else ["it"]
    if unknown:
        raise PredictionsError(
            f"study has the key {unknown[0]!r}", expected=f"some of {', '.join(STUDY_KEYS)}",
            where=file.name,
        )  # fmt: skip
    return dict(study)


def _with_overlaps(rows: pd.DataFrame, table: Path, out: Path) -> pd.DataFrame:
    """Return the rows unchanged, or for masks one row per case and structure, also as a file."""
    if "y_score" in rows or "prediction" not in rows:
        return rows
    overlaps = overlap_table(rows, table)
    write_text(out, overlaps.to_csv(index=False, lineterminator="\n"))
    return overlaps


def overlap_table(rows: pd.DataFrame, table: Path) -> pd.DataFrame:
    """Return one row per case and structure with overlap, distances and sizes.

    Args:
        rows: With `case_id, truth, prediction`, and for pictures without a size `spacing_mm`: one
            number, or one per axis, in millimetres.
        table: The file they come from; the masks lie relative to its folder, the names of the
            values are the `labels` of the YAML file of the same name. Without it, all that is not
            0 is one structure.

    Raises:
        PredictionsError: If a mask is missing, has another grid or values without a name.
    """
    import pandas as pd

    structures = _structures_of(table)
    kept = [name for name in map(str, rows) if name not in ("truth", "prediction", "spacing_mm")]
    found: list[dict[str, Any]] = []
    for _, row in rows.iterrows():
        own = _of_the_row(row, structures)
        truth = _mask_of(row, "truth", table, own)
        prediction = _mask_of(row, "prediction", table, own, like=truth)
        where = f"{table.name}, {row['case_id']}"
        stated = _stated_spacing(row, truth.array.ndim, where)
        sizes, others = truth.spacing, prediction.spacing
        if not stated and sizes and others and not np.allclose(sizes, others, rtol=1e-3):
            raise PredictionsError(
                "truth and prediction have other voxel sizes", where=where,
                expected="masks on the same grid",
                fix="Resample the prediction to the truth's grid, nearest neighbour",
            )  # fmt: skip
        try:
            overlaps = case_overlaps(
                truth.array, prediction.array, stated or truth.spacing,
                structures=own, tolerances_mm=TOLERANCES_MM,
            )  # fmt: skip
        except PredictionsError as error:
            raise PredictionsError(
                error.found, expected=error.expected, fix=error.fix, where=where
            ) from error
        odd = [flag for flag in prediction.flags if flag in PLACE_FLAGS]
        about = {**{name: row[name] for name in kept}, **({"flags": "; ".join(odd)} if odd else {})}
        found += [{**about, **overlap} for overlap in overlaps]
    return pd.DataFrame(found)


def _structures_of(table: Path) -> dict[int, str]:
    """Return value in the masks -> name of the structure."""
    file = table.with_suffix(".yaml")
    labels = load_yaml(file).get("labels") if file.is_file() else None
    if labels is None:
        return {1: "structure"}
    try:
        structures = {int(value): str(name) for value, name in labels.items() if int(value) != 0}
    except (AttributeError, ValueError):
        structures = {}
    if not structures:
        raise PredictionsError(
            "labels do not name the values of the masks",
            expected="labels: {1: liver, 2: spleen}",
            where=file.name,
        )
    return structures


def _of_the_row(row: pd.Series[Any], structures: Mapping[int, str]) -> Mapping[int, str]:
    """The structures of a row's files: the one that it names (they may overlap), or all."""
    named = row.get("label")
    return {value: name for value, name in structures.items() if name == named} or structures


def _mask_of(
    row: pd.Series[Any],
    column: str,
    table: Path,
    structures: Mapping[int, str],
    *,
    like: Mask | None = None,
) -> Mask:
    """Return the mask that a cell names, on the grid of another if one is given."""
    where = f"{table.name}, {column} of {row['case_id']}"
    path = table.parent / str(row[column])
    if not path.exists():
        raise PredictionsError(
            "the mask cannot be read: there is no such file",
            expected="a path relative to the table",
            where=where,
        )
    try:
        # Labels are named only where white is one of them: others get this table's own message.
        mask = read_mask(path, like, labels=structures if WHITE in structures else None)
    except MedtlError as error:
        raise PredictionsError(
            error.found, expected=error.expected, where=where, fix=error.fix
        ) from error
    if len(structures) == 1 and len(mask.labels) == 1:
        value = next(iter(structures))  # black and white, whatever white is
        return replace(mask, array=np.where(mask.array != 0, value, 0).astype(np.uint16))
    unknown = sorted(set(mask.labels) - {*structures})
    if unknown:
        raise PredictionsError(
            f"the mask holds the value {unknown[0]}", where=where,
            expected=f"0 or one of {', '.join(map(str, structures))}",
            fix=f"Name it in {table.with_suffix('.yaml').name}: labels: {{{unknown[0]}: NAME}}",
        )  # fmt: skip
    return mask


def _stated_spacing(row: pd.Series[Any], axes: int, where: str) -> tuple[float, ...]:
    """Return the voxel size that the table states, one number standing for all axes; or ()."""
    text = str(row.get("spacing_mm", "") or "")
    try:
        spacing = tuple(float(step) for step in text.replace(",", " ").split())
    except ValueError:
        raise PredictionsError(
            f"spacing_mm is {text!r}", expected='millimetres per axis, such as "0.7 0.7"',
            where=where,
        ) from None  # fmt: skip
    return spacing * axes if len(spacing) == 1 else spacing


def count_openings(file: Path, rows: pd.DataFrame, model: str) -> dict[str, int] | None:
    """Note that the test rows were looked at; return how many models have been, and which is this.

    The same predictions count once, however often they are evaluated. Nothing in the file depends
    on the time.

    Args:
        file: `OPENINGS` beside the run or the table; a line is added for a new model.
        rows: Predictions; only the test rows matter.
        model: Of those in the table, the one that is reported.

    Returns:
        `models` (of this folder, on these test cases) and `this` (counted from 1); None if the
        folder cannot be written.
    """
    test = rows[rows["split"] == "test"] if "split" in rows else rows
    cases = _digest(sorted(set(test["case_id"].astype(str))))
    parts = test.groupby("model", sort=True) if "model" in test else [("", test)]
    columns = [name for name in ("label", "case_id", "y_score", "dice", "iou") if name in test]
    hashes = {
        str(name): _digest(sorted(map(repr, part[columns].itertuples(index=False, name=None))))
        for name, part in parts
    }
    seen = [line["model"] for line in _openings(file) if line["test"] == cases]
    fresh = [value for value in dict.fromkeys(hashes.values()) if value not in seen]
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"test": cases, "model": value}) + "\n" for value in fresh)
    except OSError:
        return None
    known = list(dict.fromkeys([*seen, *fresh]))
    this = hashes.get(model, next(iter(hashes.values()), ""))
    return {"models": len(known), "this": known.index(this) + 1} if this else None


def _openings(file: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of the list of openings that can be read."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and {"test", "model"} <= entry.keys():
            yield entry


def _digest(parts: Sequence[str]) -> str:
    """Return a short hash of texts in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def summarise(found: Evaluation) -> Iterator[str]:
    """Yield the headline measures of an evaluation on the test rows, and its notes."""
    for measure in found.headlines():
        name = f"{measure.label} {measure.name}".strip()
        if measure.value is None:
            yield f"{name}: not estimable, {measure.reason}"
            continue
        interval = ""
        if measure.low is not None and measure.high is not None:
            interval = f" [{measure.low:.3f}, {measure.high:.3f}]"
        flag = f" ({measure.reason})" if measure.status == "degenerate" else ""
        yield f"{name}: {measure.value:.3f}{interval}, n = {measure.n}{flag}"
    yield from found.notes
