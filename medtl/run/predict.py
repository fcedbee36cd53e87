"""Predict new images with a finished run: its own preprocessing, its frozen threshold."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medtl.cases.columns import Columns
from medtl.cases.manifest import manifest_columns, read_manifest
from medtl.cases.predictions import write_predictions
from medtl.cases.pseudonyms import load_salt, pseudonym
from medtl.data.batches import Samples
from medtl.data.reader import ImageReader, ReadRecord, decode_cases
from medtl.errors import ManifestError, RunError
from medtl.io.dicom.web import Server, fetch_study
from medtl.prediction.likeness import unlike_training
from medtl.prediction.mask_writer import write_meanings
from medtl.prediction.table import predictions_table
from medtl.run.build import TrainedModel, load_trained
from medtl.run.outputs import Progress, predict_masks, predict_scores, silent
from medtl.storage.atomic import write_json
from medtl.storage.tables import read_table
from medtl.tasks.structures import Structures
from medtl.types import Case, Manifest

if TYPE_CHECKING:
    import pandas as pd

TABLES = {".csv", ".parquet"}
"""Endings of a manifest; anything else is an image or a folder of images."""


TEXTS = TABLES | {".yaml", ".yml", ".json", ".txt", ".md"}
"""Endings of what lies beside images and is none."""


@dataclass(frozen=True)
class Predicted:
    """What `predict_images` wrote.

    Attributes:
        images: Images predicted.
        flagged: Of them, unlike the training images or odd.
        quarantined: Images that could not be read.
        quality: File that lists both, beside the predictions.
        left_out: Objects of a fetched study that are no images.
        unknown: Flag -> images of which the network was not told all it asks for ("sex_unknown").
    """

    images: int
    flagged: int
    quarantined: int
    quality: Path
    left_out: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)


def predict_images(run: Path, data: Path, out: Path, *, progress: Progress = silent) -> Predicted:
    """Predict images into a predictions table.

    The run's own manifest (recognised by its hash) gives the run's validation and test cases with
    their truth: the same file as the run's `predictions.csv`. Any other manifest, folder or file is
    new: every image is predicted, truth is filled in where the manifest has the target columns, and
    columns are added for the file, the decision at the frozen threshold, and what is unlike the
    training images.

    Args:
        run: A finished run folder.
        data: A manifest, a folder of images, or one image.
        out: Where the table goes (CSV or Parquet); `OUT.quality.json` is written beside it.
        progress: Told of reading and predicting.

    Raises:
        RunError: When the run has no checkpoint, or no image could be read.
        ManifestError: When there is nothing to predict.
    """
    _check_destination(out)
    checkpoint = run / "checkpoints" / "best.safetensors"
    if not checkpoint.is_file():
        raise RunError("the run has no best checkpoint", where=run.name, fix="Train it first")
    trained = load_trained(checkpoint)
    manifest, is_own = _find_cases(run, data, trained)
    reader = replace(trained.reader, root=manifest.root)
    store, records = decode_cases(
        manifest.cases, reader, progress=lambda done, total: progress("Reading", done, total)
    )
    readable = set(store.case_ids)
    told = trained.task.inputs
    cases = [
        told.completed(case, record.facts)
        for case, record in zip(manifest.cases, records, strict=True)
        if case.case_id in readable
    ]
    if not cases:
        raise RunError("no image could be read", where=data.name, fix=records[0].cause)
    flags_of = {case.case_id: told.unknown(case) for case in cases}
    records = [replace(r, flags=(*r.flags, *flags_of.get(r.case_id, ()))) for r in records]
    with_truth = all(label in cases[0].targets for label in trained.recipe.data.targets)
    samples = Samples(
        store=store,
        rows=store.rows(cases),
        targets=np.zeros((len(cases), 1), dtype=np.float32),
        inputs=told(cases),
        standardise=reader.preprocessor.standardise,
    )
    table = _predict(trained, reader, samples, cases, out, with_truth=with_truth, progress=progress)
    unlike = {r.case_id: unlike_training(r.facts, trained.meta["profile"]) for r in records}
    if not is_own:
        thresholds = _thresholds(run)
        if thresholds:
            _add_decisions(table, thresholds)
        files = {case.case_id: _relative(case.image, manifest.root) for case in cases}
        table["file"] = table["case_id"].map(files)
        if any(case.frame is not None for case in cases):
            table["frame"] = table["case_id"].map({case.case_id: case.frame for case in cases})
        hashes = {r.case_id: r.sha256 for r in records}  # `medtl export` finds the images by them
        table["content_sha256"] = table["case_id"].map(hashes)
        table["unlike_training"] = table["case_id"].map(lambda c: "; ".join(unlike[c]))
    write_predictions(table, out)
    unknown = Counter(flag for flags in flags_of.values() for flag in flags)
    return replace(_write_quality(out, records, unlike), unknown=dict(unknown))


def predict_study(
    run: Path,
    url: str,
    study: str,
    *,
    out: Path,
    keep: Path | None = None,
    progress: Progress = silent,
) -> Predicted:
    """Predict the images of a study that a DICOMweb server has; nothing is sent to it.

    Args:
        run: A finished run folder.
        url: Address of the DICOMweb service.
        study: Study Instance UID.
        out: As in `predict_images`; its column `file` names SOP Instance UIDs.
        keep: A new folder that keeps the study's images; None removes them at the end.
        progress: Told of fetching, reading and predicting.

    Raises:
        MedtlError: As `dicomweb.fetch_study` and `predict_images`.
    """
    _check_destination(out)
    if keep is not None and keep.exists():
        raise RunError("the folder exists", where=keep.name, fix="Choose another --keep")
    with TemporaryDirectory(prefix="medtl-study-") as temporary:
        folder = Path(temporary)
        progress("Fetching the study", 0, 1)
        fetched = fetch_study(Server(url), study, folder)
        progress("Fetching the study", 1, 1)
        done = predict_images(run, folder, out, progress=progress)
        if keep is not None:
            shutil.copytree(folder, keep)
    return replace(done, left_out=sum(fetched.left_out.values()))


def _predict(
    trained: TrainedModel,
    reader: ImageReader,
    samples: Samples,
    cases: Sequence[Case],
    out: Path,
    *,
    with_truth: bool,
    progress: Progress,
) -> pd.DataFrame:
    """The predictions table; masks are written beside it."""
    import pandas as pd

    if trained.recipe.data.mask is not None:
        rows = predict_masks(trained, samples, cases, reader, out.parent, progress=progress)
        write_meanings(cast(Structures, trained.task), out)
        return pd.DataFrame(rows)
    scores = predict_scores(trained, samples, progress=progress)
    strata = trained.recipe.data.strata
    return predictions_table(trained.task, cases, scores, strata=strata, with_truth=with_truth)


def _check_destination(out: Path) -> None:
    """Find out before the work whether its result can be written."""
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


def _find_cases(run: Path, data: Path, trained: TrainedModel) -> tuple[Manifest, bool]:
    """The cases to predict, and whether they are the run's own."""
    if data.suffix.lower() not in TABLES:
        return _manifest_of_files(data), False
    present = manifest_columns(data)
    columns = Columns.of(dict(trained.recipe.data))
    known = columns.within(present).described_by(present)
    manifest = read_manifest(
        data,
        replace(
            known,
            targets=known.targets if len(known.targets) == len(columns.targets) else (),
            one_image_per_patient=known.one_image_per_patient or "patient_id" not in present,
        ),
    )
    if manifest.sha256 != trained.meta["manifest_sha256"]:
        return manifest, False
    return _own_cases(run, manifest), True


def _own_cases(run: Path, manifest: Manifest) -> Manifest:
    """The run's validation and test cases, with the ids and splits that the run gave them.

    Rows are matched by position: the hash says that the file is the same, and ids are pseudonyms
    that another machine's salt would make different.
    """
    table = read_table(run / "manifest.csv")
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    cases = [
        replace(case, case_id=row["case_id"], patient_id=row["patient_id"], split=row["split"])
        for case, row in zip(manifest.cases, rows, strict=True)
        if row["split"] in ("val", "test") and row["content_sha256"]
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
    names = [pseudonym("case", _relative(path, root), salt) for path in files]
    cases = [
        Case(case_id=name, patient_id=name, image=path)
        for name, path in zip(names, files, strict=True)
    ]
    return Manifest(cases=tuple(cases), root=root, sha256="")


def _thresholds(run: Path) -> dict[str, float]:
    """Label -> frozen threshold of the run."""
    path = run / "metrics.json"
    if not path.is_file():
        return {}
    points = json.loads(path.read_text("utf-8"))["operating_points"]
    return {point["label"]: float(point["threshold"]) for point in points}


def _add_decisions(table: pd.DataFrame, thresholds: Mapping[str, float]) -> None:
    """Add `threshold` and `decision` (1 positive, 0 negative) where a threshold was frozen."""
    table["threshold"] = table["label"].map(thresholds)
    known = table["threshold"].notna()
    table["decision"] = (table["y_score"] >= table["threshold"]).where(known).astype("Int64")


def _relative(path: Path, root: Path) -> str:
    """A file's path below the data folder."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _write_quality(
    out: Path, records: Sequence[ReadRecord], unlike: Mapping[str, Sequence[str]]
) -> Predicted:
    """Write what was odd or unreadable beside the predictions."""
    flagged = [
        {"case_id": r.case_id, "flags": list(r.flags), "unlike_training": list(unlike[r.case_id])}
        for r in records
        if not r.cause and (r.flags or unlike[r.case_id])
    ]
    quarantined: list[dict[str, Any]] = [
        {"case_id": r.case_id, "cause": r.cause} for r in records if r.cause
    ]
    path = out.with_suffix(".quality.json")
    write_json(path, {"flagged": flagged, "quarantined": quarantined})
    done = len(records) - len(quarantined)
    return Predicted(done, len(flagged), len(quarantined), path)
