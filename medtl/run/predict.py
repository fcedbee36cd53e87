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

from medtl.cases.manifest import manifest_columns, read_manifest
from medtl.cases.pseudonyms import load_salt, pseudonym
from medtl.data.reader import read_in_parts
from medtl.errors import ManifestError, RunError
from medtl.prediction.likeness import unlike_training
from medtl.prediction.mask_writer import sink_of
from medtl.prediction.sink import PREDICT_BATCH, Model
from medtl.run.predicted import Predictions
from medtl.run.use.mending import add_probabilities, judged_score
from medtl.storage.atomic import write_json
from medtl.storage.parts import WHOLE, Part, Share
from medtl.storage.tables import read_table
from medtl.types import Case, Manifest, Progress, silent

if TYPE_CHECKING:
    import pandas as pd

    from medtl.evaluation.statements.recalibrated import Recalibrated

TABLES = {".csv", ".parquet"}
"""Endings of a manifest; anything else is an image or a folder of images."""


TEXTS = TABLES | {".yaml", ".yml", ".json", ".txt", ".md"}
"""Endings of what lies beside images and is none."""


def predict_images(
    trained: Model,
    data: Path,
    out: Path | None,
    *,
    own: Path,
    thresholds: Mapping[str, float],
    recalibrations: Sequence[Recalibrated] = (),
    progress: Progress = silent,
) -> Predictions:
    """Predict images, and write the table if it has a place; see `Run.predict`.

    Args:
        trained: The best model of a run.
        data: A manifest, a folder of images, or one image.
        out: Where the table goes, checked; None writes nothing.
        own: The run's `manifest.csv`, read when `data` is the manifest that the run was made of.
        thresholds: Label -> frozen threshold.
        recalibrations: What mends the probabilities; they stand beside the scores.
        progress: Told of reading and predicting.

    Raises:
        RunError: When no image could be read, or masks have no place.
        ManifestError: When there is nothing to predict.
    """
    manifest, is_own = find_cases(own, data, trained)
    scored = score_cases(trained, manifest, None if out is None else out.parent, progress=progress)
    judged = Judged(thresholds, recalibrations)
    return finish_predictions(trained, manifest, scored, judged, out=out, is_own=is_own)


def score_cases(
    trained: Model,
    manifest: Manifest,
    folder: Path | None,
    share: Share = WHOLE,
    *,
    progress: Progress = silent,
) -> Part:
    """Read and predict the cases of a share; nothing of an image stays in memory.

    Args:
        trained: The best model of a run.
        manifest: All cases.
        folder: Where masks go; None where there is no place.
        share: Of the cases.
        progress: Told of reading and predicting.

    Returns:
        The scores as the run's own table has them; in the facts, what reading each image found.

    Raises:
        RunError: When masks have no place.
    """
    import pandas as pd

    reader = replace(trained.reader, root=manifest.root)
    sink, told, profile = sink_of(trained.task), trained.task.inputs, trained.meta["profile"]
    by_id = {case.case_id: case for case in manifest.cases}
    tables, records = [], list[dict[str, Any]]()
    for store, read in read_in_parts(manifest.cases, reader, PREDICT_BATCH, share):
        facts_of = {record.case_id: record.facts for record in read}
        part = [told.completed(by_id[name], facts_of[name]) for name in store.case_ids]
        unknown = {case.case_id: list(told.unknown(case)) for case in part}
        if part:
            tables.append(sink.predict(trained, trained.scores(store, part), part, reader, folder))
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


@dataclass(frozen=True)
class Judged:
    """What a run's evaluation left for its predictions.

    Attributes:
        thresholds: Label -> frozen threshold.
        recalibrations: What mends the probabilities; they stand beside the scores.
    """

    thresholds: Mapping[str, float]
    recalibrations: Sequence[Recalibrated]


def finish_predictions(
    trained: Model,
    manifest: Manifest,
    scored: Part,
    judged: Judged,
    *,
    out: Path | None,
    is_own: bool,
) -> Predictions:
    """Make the table of predictions of all scores, and write it if it has a place.

    Args:
        trained: The best model of a run.
        manifest: All cases.
        scored: All of them.
        judged: The run's thresholds and what mends its probabilities.
        out: Where the table goes, checked; None writes nothing.
        is_own: Whether the cases are the run's own.

    Raises:
        RunError: When no image could be read.
    """
    records, table = scored.facts["records"], scored.table
    read = {record["case_id"] for record in records if not record["cause"]}
    cases = [case for case in manifest.cases if case.case_id in read]
    if not cases:
        raise RunError(f"no image could be read: {records[0]['cause']}", where=manifest.root.name)
    if absent := _without_column(trained, cases[0]):
        table.loc[table["label"].isin(absent), ["y_true", "y_true_raw"]] = None
    if not is_own:
        score = judged_score(table, trained.meta["recipe"]["data"].get("exam_score"))
        _add_columns(table, cases, manifest.root, judged.thresholds, score)
        if judged.recalibrations:
            add_probabilities(table, judged.recalibrations, score)
        # `medtl export` finds the images by them.
        table["content_sha256"] = table["case_id"].map({r["case_id"]: r["sha256"] for r in records})
        unlike = {record["case_id"]: "; ".join(record["unlike"]) for record in records}
        table["unlike_training"] = table["case_id"].map(unlike)
    flagged, quarantined = _quality(records)
    quality = None
    if out is not None:
        # New images are of no part: whoever reads the table takes all of them.
        written = table if table["split"].any() else table.drop(columns="split")
        sink_of(trained.task).write(written, trained.task, out)
        quality = out.with_suffix(".quality.json")
        write_json(quality, {"flagged": flagged, "quarantined": quarantined})
    unknown = Counter(flag for record in records for flag in record["unknown"])
    return Predictions(table, len(cases), flagged, quarantined, quality, unknown=unknown)


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


def check_destination(out: Path) -> Path:
    """Find out before the work whether its result can be written; return where.

    Raises:
        RunError: For another ending than .csv or .parquet, or a folder that cannot be made.
    """
    if out.suffix.lower() not in TABLES:
        raise RunError(
            f"the ending {out.suffix!r} is unknown", expected=".csv or .parquet", where=str(out)
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"the folder cannot be made ({error.strerror})", where=str(out.parent)
        ) from error
    return out


def find_cases(
    own: Path, data: Path, trained: Model, splits: Collection[str] = ("val", "test")
) -> tuple[Manifest, bool]:
    """Return the cases to predict, and whether they are the run's own.

    Args:
        own: The run's `manifest.csv`.
        data: A manifest, a folder of images, or one image.
        trained: Knows the columns, and the hash of the run's manifest.
        splits: Of the run's own cases.

    Raises:
        ManifestError: When there is nothing to predict, or the manifest has faults.
    """
    if data.suffix.lower() not in TABLES:
        return _manifest_of_files(data), False
    present = manifest_columns(data)
    columns = trained.columns
    known = columns.within(present).described_by(present)
    is_whole = len(known.targets) == len(columns.targets)
    of_findings = len(columns.targets) == len(trained.task.labels)  # each has its own column
    manifest = read_manifest(
        data,
        replace(
            known,
            targets=known.targets if is_whole or of_findings else (),
            one_image_per_patient=known.one_image_per_patient or "patient_id" not in present,
        ),
    )
    if manifest.sha256 != trained.meta["manifest_sha256"] or not own.is_file():
        if trained.task.encode is None:
            trained.task.truth_matrix(manifest.cases)  # refuses cells of no meaning before any work
        return manifest, False
    return _own_cases(own, manifest, splits), True


def _without_column(trained: Model, case: Case) -> list[str]:
    """The findings whose column the manifest lacks, while it has those of others."""
    columns = trained.columns.targets
    if not case.targets or len(columns) != len(trained.task.labels):
        return []
    pairs = zip(trained.task.labels, columns, strict=True)
    return [label for label, column in pairs if column not in case.targets]


def _own_cases(own: Path, manifest: Manifest, splits: Collection[str]) -> Manifest:
    """The run's cases of some splits, with the ids and splits that the run gave them.

    Rows are matched by position: the hash says that the file is the same, and ids are pseudonyms
    that another machine's salt would make different.
    """
    table = read_table(own)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    cases = [
        replace(case, case_id=row["case_id"], patient_id=row["patient_id"], split=row["split"])
        for case, row in zip(manifest.cases, rows, strict=True)
        if row["split"] in splits and row["content_sha256"]
    ]
    return replace(manifest, cases=tuple(cases))


def _manifest_of_files(data: Path) -> Manifest:
    """One case per file below a folder that is no table or text, or the one file."""
    if not data.exists():
        raise ManifestError("there is no such file or folder", where=data.name)
    root = data if data.is_dir() else data.parent
    files = sorted(p for p in data.rglob("*") if p.is_file()) if data.is_dir() else [data]
    files = [p for p in files if not p.name.startswith(".") and p.suffix.lower() not in TEXTS]
    if not files:
        raise ManifestError("the folder holds no files", where=data.name)
    salt = load_salt()
    names = [pseudonym("case", relative_path(path, root), salt) for path in files]
    cases = [
        Case(case_id=name, patient_id=name, image=path)
        for name, path in zip(names, files, strict=True)
    ]
    return Manifest(cases=tuple(cases), root=root, sha256="")


def _add_columns(
    table: pd.DataFrame,
    cases: Sequence[Case],
    root: Path,
    thresholds: Mapping[str, float],
    judged: str,
) -> None:
    """Add the file, its frame and, where a threshold was frozen, the decision (1 positive)."""
    if thresholds:
        table["threshold"] = table["label"].map(thresholds)
        known = table["threshold"].notna()
        decision = (table[judged] >= table["threshold"]).where(known)
        table["decision"] = decision.astype("Int64")
    files = {case.case_id: relative_path(case.image, root) for case in cases}
    table["file"] = table["case_id"].map(files)
    if any(case.frame is not None for case in cases):
        table["frame"] = table["case_id"].map({case.case_id: case.frame for case in cases})


def relative_path(path: Path, root: Path) -> str:
    """Return a file's path below the data folder, its name alone if it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _quality(
    records: Sequence[Mapping[str, Any]],
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """List the odd images and the unreadable ones."""
    seen = [
        {
            "case_id": record["case_id"],
            "flags": [*record["flags"], *record["unknown"]],
            "unlike_training": record["unlike"],
        }
        for record in records
        if not record["cause"]
    ]
    flagged = tuple(one for one in seen if one["flags"] or one["unlike_training"])
    unread = [{"case_id": r["case_id"], "cause": r["cause"]} for r in records if r["cause"]]
    return flagged, tuple(unread)
