"""Predict new images with a finished run: its own preprocessing, its frozen threshold."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from medtl.cases.paths import path_below
from medtl.data.reader import read_in_parts
from medtl.errors import RunError
from medtl.prediction.likeness import unlike_training
from medtl.prediction.mask_writer import sink_of
from medtl.prediction.sink import PREDICT_BATCH, Model
from medtl.run.files import RunFiles
from medtl.run.predicted import Predictions
from medtl.run.use.cases_to_predict import TABLES, CasesToPredict, find_cases
from medtl.run.use.mending import add_probabilities, judged_score
from medtl.storage.atomic import write_json
from medtl.storage.parts import WHOLE, Part, Share
from medtl.types import Case, Manifest, Progress, silent

if TYPE_CHECKING:
    import pandas as pd

    from medtl.evaluation.statements.recalibrated import Recalibrated


@dataclass(frozen=True)
class Judged:
    """What a run's evaluation left for its predictions.

    Attributes:
        thresholds: Label -> frozen threshold.
        recalibrations: What mends the probabilities; they stand beside the scores.
    """

    thresholds: Mapping[str, float]
    recalibrations: Sequence[Recalibrated] = ()


def predict_images(
    trained: Model,
    data: Path,
    out: Path | None,
    *,
    own: Path,
    judged: Judged,
    splits: Collection[str] = (),
    progress: Progress = silent,
) -> Predictions:
    """Predict images, and write the table if it has a place; see `Run.predict`.

    Args:
        trained: The best model of a run.
        data: A manifest, a folder of images, or one image.
        out: Where the table goes, checked; None writes nothing.
        own: The run's `manifest.csv`, read when `data` is the manifest that the run was made of.
        judged: The run's thresholds and what mends its probabilities.
        splits: Of the run's own cases; none stated takes validation and test.
        progress: Told of reading and predicting.

    Raises:
        RunError: When no image could be read, or masks have no place.
        ManifestError: As `find_cases`.
    """
    chosen = find_cases(own, data, trained, splits)
    scored = score_cases(trained, chosen.manifest, out, progress=progress)
    return finish_predictions(trained, chosen, scored, judged, out=out)


def score_cases(
    trained: Model,
    manifest: Manifest,
    out: Path | None,
    share: Share = WHOLE,
    *,
    progress: Progress = silent,
) -> Part:
    """Read and predict the cases of a share; nothing of an image stays in memory.

    Args:
        trained: The best model of a run.
        manifest: All cases.
        out: Where the table goes, and masks beside it; None where there is no place.
        share: Of the cases.
        progress: Told of reading and predicting.

    Returns:
        The scores as the run's own table has them; in the facts, what reading each image found.

    Raises:
        RunError: When masks have no place.
    """
    import pandas as pd

    reader = replace(trained.reader, root=manifest.root)
    masks = None if out is None else _masks_of(out)
    sink, told, profile = sink_of(trained.task), trained.task.inputs, trained.meta["profile"]
    by_id = {case.case_id: case for case in manifest.cases}
    tables, records = [], list[dict[str, Any]]()
    for store, read in read_in_parts(manifest.cases, reader, PREDICT_BATCH, share):
        facts_of = {record.case_id: record.facts for record in read}
        part = [told.completed(by_id[name], facts_of[name]) for name in store.case_ids]
        unknown = {case.case_id: list(told.unknown(case)) for case in part}
        if part:
            tables.append(sink.predict(trained, trained.scores(store, part), part, reader, masks))
        # Of many images little may stay: not the pixels, and not what the headers say.
        records += [
            {
                "case_id": r.case_id,
                "sha256": r.sha256,
                "cause": r.cause,
                "flags": list(r.flags),
                "unknown": unknown.get(r.case_id, []),
                "unlike": list(unlike_training(r.facts, profile)),
            }
            for r in read
        ]
        progress("Predicting", len(records), len(share.take(manifest.cases)))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Part(table, {"records": records})


def finish_predictions(
    trained: Model,
    chosen: CasesToPredict,
    scored: Part,
    judged: Judged,
    *,
    out: Path | None,
) -> Predictions:
    """Make the table of predictions of all scores, and write it if it has a place.

    Args:
        trained: The best model of a run.
        chosen: All cases.
        scored: All of them.
        judged: The run's thresholds and what mends its probabilities.
        out: Where the table goes, checked; None writes nothing.

    Raises:
        RunError: When no image could be read.
    """
    manifest, records, table = chosen.manifest, scored.facts["records"], scored.table
    files = {case.case_id: path_below(case.image, manifest.root) for case in manifest.cases}
    flagged, quarantined = _quality(records, files)
    read = {record["case_id"] for record in records if not record["cause"]}
    cases = [case for case in manifest.cases if case.case_id in read]
    if not cases:
        first = quarantined[0]
        raise RunError(f"no image could be read: {first['cause']}", where=first["file"])
    if absent := _without_column(trained, cases[0]):
        table.loc[table["label"].isin(absent), ["y_true", "y_true_raw"]] = None
    if not chosen.is_own:
        score = judged_score(table, trained.meta["recipe"]["data"].get("exam_score"))
        _add_columns(table, cases, files, judged.thresholds, score)
        if judged.recalibrations:
            add_probabilities(table, judged.recalibrations, score)
        # `medtl export` finds the images by them.
        table["content_sha256"] = table["case_id"].map({r["case_id"]: r["sha256"] for r in records})
        unlike = {record["case_id"]: "; ".join(record["unlike"]) for record in records}
        table["unlike_training"] = table["case_id"].map(unlike)
    quality, notes = None, chosen.notes
    if out is not None:
        notes = (*notes, *chosen.learned_line([record["sha256"] for record in records]))
        # New images are of no part: whoever reads the table takes all of them.
        written = table if table["split"].any() else table.drop(columns="split")
        sink_of(trained.task).write(written, trained.task, out)
        quality = out.with_suffix(".quality.json")
        listed = {"flagged": flagged, "quarantined": quarantined}
        if chosen.is_own:  # as the table: a path may name a patient whom the run's ids do not
            listed = {kind: tuple(map(_without_file, ones)) for kind, ones in listed.items()}
        write_json(quality, listed)
    unknown = Counter(flag for record in records for flag in record["unknown"])
    return Predictions(
        table, len(cases), flagged, quarantined, quality, unknown=unknown, notes=notes
    )


@contextmanager
def fetched_study(
    url: str, study: str, keep: str | os.PathLike[str] | None, progress: Progress
) -> Iterator[tuple[Path, int]]:
    """Yield a folder with the images of a study, and how many of its objects are none.

    Args:
        url: Address of the DICOMweb service.
        study: Study Instance UID.
        keep: A new folder for the images when the block has succeeded; None removes them.
        progress: Told of fetching.

    Raises:
        MedtlError: As `fetch_study`, or when `keep` exists.
    """
    from medtl.io.dicom.web import Server, fetch_study  # no list of images waits for pydicom

    if keep is not None and Path(keep).exists():
        raise RunError("the folder exists", where=Path(keep).name, fix="Choose another --keep")
    with TemporaryDirectory(prefix="medtl-study-") as temporary:
        progress("Fetching the study", 0, 1)
        fetched = fetch_study(Server(url), study, Path(temporary))
        progress("Fetching the study", 1, 1)
        yield Path(temporary), sum(fetched.left_out.values())
        if keep is not None:
            shutil.copytree(temporary, keep)


def check_destination(out: Path, *, again: bool = False) -> Path:
    """Find out before the work whether its result can be written; return where.

    Args:
        out: A table.
        again: Whether one that is there may be replaced: by whoever made it and goes on.

    Raises:
        RunError: For another ending than .csv or .parquet, a table that exists, or a folder that
            cannot be made.
    """
    if out.suffix.lower() not in TABLES:
        raise RunError(
            f"the ending {out.suffix!r} is unknown", expected=".csv or .parquet", where=str(out)
        )
    if out.exists() and not again:
        raise RunError("the table exists", where=str(out), fix="Choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"the folder cannot be made ({error.strerror})", where=str(out.parent)
        ) from error
    return out


def _masks_of(out: Path) -> Path:
    """The folder of the masks of a table: its own, or a second table would replace them."""
    files = RunFiles(out.parent)
    return files.masks if out == files.predictions else out.with_name(f"{out.stem}_masks")


def _without_column(trained: Model, case: Case) -> list[str]:
    """The findings whose column the manifest lacks, while it has those of others."""
    columns = trained.columns.targets
    if not case.targets or len(columns) != len(trained.task.labels):
        return []
    pairs = zip(trained.task.labels, columns, strict=True)
    return [label for label, column in pairs if column not in case.targets]


def _add_columns(
    table: pd.DataFrame,
    cases: Sequence[Case],
    files: Mapping[str, str],
    thresholds: Mapping[str, float],
    judged: str,
) -> None:
    """Add the file, its frame and, where a threshold was frozen, the decision (1 positive)."""
    if thresholds:
        table["threshold"] = table["label"].map(thresholds)
        known = table["threshold"].notna()
        decision = (table[judged] >= table["threshold"]).where(known)
        table["decision"] = decision.astype("Int64")
    table["file"] = table["case_id"].map(files)
    if any(case.frame is not None for case in cases):
        table["frame"] = table["case_id"].map({case.case_id: case.frame for case in cases})


def _without_file(one: Mapping[str, Any]) -> dict[str, Any]:
    """What is listed of an image, by its case alone."""
    return {key: value for key, value in one.items() if key != "file"}


def _quality(
    records: Sequence[Mapping[str, Any]], files: Mapping[str, str]
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """List the odd images and the unreadable ones, each with its file as the manifest names it."""
    seen = [
        {
            "case_id": record["case_id"],
            "file": files[record["case_id"]],
            "flags": [*record["flags"], *record["unknown"]],
            "unlike_training": record["unlike"],
        }
        for record in records
        if not record["cause"]
    ]
    flagged = tuple(one for one in seen if one["flags"] or one["unlike_training"])
    unread = [
        {"case_id": r["case_id"], "file": files[r["case_id"]], "cause": r["cause"]}
        for r in records
        if r["cause"]
    ]
    return flagged, tuple(unread)
