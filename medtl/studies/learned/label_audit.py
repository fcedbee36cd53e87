"""Labels that the models doubt, on a page where a reader judges them one by one.

Each case is scored by a model that did not learn from its patient (the folds of `medtl study
kfold`, or the test part of a run), and cases are ranked by the loss of their given label
(Northcutt, Jiang and Chuang 2021, "Confident learning", JAIR 70, section 3.2: self-confidence).
What the reader marks as wrong goes back into the manifest by `medtl manifest relabel`.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtl.cases.manifest import write_manifest
from medtl.cases.sidecar import read_sidecar
from medtl.errors import MedtlError, PredictionsError, RunError
from medtl.recipe.schema import Recipe
from medtl.run.build import build_contract, build_decoder, build_manifest, build_reader
from medtl.run.folder import Run
from medtl.storage.atomic import write_json, write_text
from medtl.storage.tables import read_table, write_table
from medtl.studies.kfold import FINE_TUNED
from medtl.types import Case, Progress, silent

if TYPE_CHECKING:
    import pandas as pd

SIDE = 512
"""Pixels per side of the pictures on the page."""

MOST = 100
"""Suspects on a page: about an hour's reading."""

BEFORE = "{}_before_audit"
"""Name of the column that keeps what a relabelled column held."""

VERDICTS = ("right", "wrong", "unsure")


def rank_suspects(table: pd.DataFrame) -> pd.DataFrame:
    """Rank given labels by their loss under scores of models that did not see them.

    Args:
        table: `case_id, patient_id, label, y_true, y_score`; rows of classes that exclude each
            other (one truth of 1 a case, scores that sum to 1) are one suspect a case.

    Returns:
        `case_id, patient_id, label, given, likely, score, loss`, the worst first; `given` and
        `likely` are 0 or 1 for a finding and names for classes, `score` is that of `given`.

    Raises:
        PredictionsError: When no row has a truth of 0 or 1 and a score in [0, 1].

    >>> import pandas as pd
    >>> rows = {"case_id": ["a", "b"], "patient_id": ["p", "q"], "label": ["mass", "mass"]}
    >>> rank_suspects(pd.DataFrame(rows | {"y_true": [1, 0], "y_score": [0.1, 0.2]}))["case_id"][0]
    'a'
    """
    certain = table["y_true"].isin((0, 1)) & table["y_score"].between(0, 1)
    known = table[certain].reset_index(drop=True)
    if known.empty:
        raise PredictionsError(
            "no row has a truth of 0 or 1 and a score in [0, 1]",
            expected="predictions of a finding or of classes",
            fix="Audit masks and quantities by their worst cases in the report",
        )
    found = known.rename(columns={"y_score": "score"})[["case_id", "patient_id", "label"]].copy()
    truth, score = known["y_true"].to_numpy(int), known["y_score"].to_numpy(float)
    sums = known.groupby("case_id")[["y_true", "y_score"]].sum()
    if (
        known["label"].nunique() > 2
        and (sums["y_true"] == 1).all()
        and np.allclose(sums["y_score"], 1, atol=1e-3)
    ):
        best = known.loc[known.groupby("case_id")["y_score"].idxmax()].set_index("case_id")
        found["given"] = found["label"]
        found["likely"] = best.loc[found["case_id"], "label"].to_numpy()
        found["label"] = ""
        found, score = found[truth == 1], score[truth == 1]
    else:
        found["given"], found["likely"] = truth, (score >= 0.5).astype(int)
        score = np.where(truth == 1, score, 1 - score)
    found["score"] = score
    found["loss"] = -np.log(np.maximum(score, 1e-12))
    return found.sort_values(["loss", "case_id"], ascending=[False, True], ignore_index=True)


def audit_labels(
    study: str | PathLike[str],
    recipe: Recipe,
    out: str | PathLike[str],
    *,
    most: int = MOST,
    progress: Progress = silent,
) -> Path:
    """Write the page of the most doubtful labels; return its path.

    Beside `audit.html` lie `audit.csv`, all suspects ranked, and `label_studio.json`, the same for
    Label Studio. The page holds pictures of patients: it belongs where the images belong.

    Args:
        study: A folder of `medtl study kfold`, or a run, of which the test part is audited.
        recipe: Of the study, with the place of its manifest.
        out: The folder to write to; it must not exist yet.
        most: Suspects with a picture on the page.
        progress: Told of reading.

    Raises:
        PredictionsError: When the study predicts no findings or classes.
        RunError: When `out` exists, or none of the suspects is in the manifest.
    """
    out = Path(out)
    if out.exists():
        raise RunError("the folder exists", where=str(out), fix="Choose another --out")
    table = Run(study).predictions
    if "model" in table:
        table = table[table["model"] == FINE_TUNED]
    ranked = rank_suspects(table[table["split"] == "test"])
    manifest = build_manifest(recipe)
    cases = {case.case_id: case for case in manifest.cases}
    ranked = ranked[ranked["case_id"].isin(list(cases))].reset_index(drop=True)
    if ranked.empty:
        raise RunError(
            "no case of the predictions is in the manifest",
            expected="the manifest that the study was made from",
            where=str(study),
            fix="State it: data.manifest=PATH/manifest.csv",
        )
    suspects, words = _suspects(ranked, cases, recipe, manifest.root)
    shown = suspects[:most]
    seen = [cases[case_id] for case_id in dict.fromkeys(row["case_id"] for row in shown)]
    pictures = _pictures(recipe, seen, progress)
    out.mkdir(parents=True)
    write_table(suspects, out / "audit.csv")
    write_json(out / "label_studio.json", [_task(row) for row in shown])
    drawn = [{**row, "picture": pictures.get(row["case_id"], "")} for row in shown]
    write_text(out / "audit.html", _page(drawn, words, total=len(suspects)))
    return out / "audit.html"


Words = dict[str, dict[str, str]]
"""Target column -> a label as the models know it -> the cell that says so in the manifest."""


def _suspects(
    ranked: pd.DataFrame, cases: Mapping[str, Case], recipe: Recipe, root: Path
) -> tuple[list[dict[str, Any]], Words]:
    """The ranked labels with the cells of the manifest, and what each label is called there."""
    targets = recipe.data.targets
    column = {(recipe.data.names or {}).get(name, name): name for name in targets}
    rows: list[dict[str, Any]] = []
    told: dict[str, dict[str, Counter[str]]] = {}
    for rank, row in enumerate(ranked.to_dict("records"), start=1):
        case = cases[row["case_id"]]
        target = column.get(row["label"], targets[0])
        given, likely, cell = str(row["given"]), str(row["likely"]), case.targets.get(target, "")
        told.setdefault(target, {}).setdefault(given, Counter())[cell] += 1
        rows.append(
            {
                "rank": rank,
                "image": _place(case, root),
                "case_id": row["case_id"],
                "patient_id": row["patient_id"],
                "finding": row["label"] or target,
                "target": target,
                "given": given,
                "cell": cell,
                "likely": likely,
                "score": row["score"],
                "loss": row["loss"],
            }
        )
    return rows, {
        target: {given: cells.most_common(1)[0][0] for given, cells in sorted(labels.items())}
        for target, labels in told.items()
    }


def _place(case: Case, root: Path) -> str:
    """A case as its row in the manifest names it: its image and, of several, the frame."""
    name = (
        case.image.relative_to(root).as_posix() if root in case.image.parents else str(case.image)
    )
    return name if case.frame is None else f"{name}#{case.frame}"


def _pictures(recipe: Recipe, cases: Sequence[Case], progress: Progress) -> dict[str, str]:
    """Case id -> its picture as the address of a JPEG."""
    image = recipe.image.model_copy(update={"size": SIDE})
    recipe = recipe.model_copy(update={"image": image})
    reader = build_reader(recipe, build_contract(recipe), None)
    store, _ = build_decoder(recipe)(
        cases, reader, progress=lambda done, total: progress("Reading images", done, total)
    )
    return {case_id: _jpeg(store.unit(row)) for row, case_id in enumerate(store.case_ids)}


def _jpeg(unit: NDArray[np.float32]) -> str:
    """A unit image, or the middle slice of a volume, as the address of a JPEG."""
    from PIL import Image

    plane = unit if unit.ndim == 3 else unit[:, unit.shape[1] // 2]
    pixels = np.rint(np.moveaxis(plane, 0, -1) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        stream, "JPEG", quality=88
    )
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _task(row: Mapping[str, Any]) -> dict[str, Any]:
    """A suspect as Label Studio imports it: the image, and the label that is doubted."""
    choice = {"choices": [row["cell"]]}
    result = {"from_name": "label", "to_name": "image", "type": "choices", "value": choice}
    return {
        "data": {"image": row["image"], "case_id": row["case_id"], "finding": row["finding"]},
        "predictions": [
            {"model_version": "medtl", "score": row["score"], "result": [result]},
        ],
    }


def _page(suspects: Sequence[Mapping[str, Any]], words: Words, *, total: int) -> str:
    """The page: one suspect at a time, judged by key, exported as CSV."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medtl.studies.learned"), autoescape=True, undefined=StrictUndefined
    )
    # "<" is written as an escape, so that no cell of a table can end the script.
    data = json.dumps({"suspects": suspects, "words": words})
    return environment.get_template("audit.html.j2").render(
        data=data.replace("<", "\\u003c"), shown=len(suspects), total=total
    )


def relabel(
    manifest: pd.DataFrame, audit: pd.DataFrame, *, unsure: str | None = None
) -> tuple[pd.DataFrame, int]:
    """Return the manifest with the labels that an audit calls wrong, and how many were changed.

    What a column held before stands in a column of its own, "TARGET_before_audit".

    Args:
        manifest: With `image`, perhaps `frame`, and the target columns, all cells as text.
        audit: What the page exports: `image, target, cell, verdict, new_label`.
        unsure: The cell of a label that the reader was not sure of; None leaves it.

    Raises:
        MedtlError: For a verdict that is none, a wrong label without a new one, an image or a
            column that is not in the manifest, or a label that is no longer the one that was
            judged.
    """
    missing = {"image", "target", "cell", "verdict", "new_label"} - set(audit)
    if missing:
        raise MedtlError(
            f"the audit has no column {', '.join(sorted(missing))}",
            expected="what the page of `medtl audit` exports",
        )
    rows = {place: row for row, place in zip(manifest.index, _places(manifest), strict=True)}
    changed, number = manifest.copy(), 0
    for line, judged in enumerate(audit.to_dict("records"), start=2):
        where, row, target = f"audit, row {line}", rows.get(judged["image"]), judged["target"]
        if judged["verdict"] not in VERDICTS:
            raise MedtlError(
                f"the verdict {judged['verdict']!r}", expected=", ".join(VERDICTS), where=where
            )
        if row is None or target not in manifest:
            raise MedtlError(
                f"{judged['image']}, {target}: not in the manifest",
                expected="the manifest of the audit",
                where=where,
            )
        new = {"right": None, "wrong": judged["new_label"], "unsure": unsure}[judged["verdict"]]
        if new is None:
            continue
        if not new:
            raise MedtlError("a wrong label without a new one", where=where, fix="State new_label")
        if manifest.loc[row, target] != judged["cell"]:
            raise MedtlError(
                f"{judged['image']} holds {manifest.loc[row, target]!r}, not {judged['cell']!r}, "
                "which was judged",
                where=where,
                fix="Relabel the manifest that was audited",
            )
        kept = BEFORE.format(target)
        if kept not in changed:
            changed[kept] = manifest[target]
        changed.loc[row, target] = new
        number += new != judged["cell"]
    return changed, number


def relabel_manifest(
    manifest: str | PathLike[str],
    audit: str | PathLike[str],
    out: str | PathLike[str],
    *,
    unsure: str | None = None,
) -> int:
    """Write a manifest with the labels that an audit calls wrong; return how many were changed.

    The file beside it (`sidecar`) says where the images lie, as that of the old manifest does.

    Args:
        manifest: The manifest that was audited.
        audit: What the page exports.
        out: The manifest to write; it must not exist yet.
        unsure: As `relabel`.

    Raises:
        MedtlError: As `relabel`, or when `out` exists.
    """
    import pandas as pd

    manifest, out = Path(manifest), Path(out)
    if out.exists():
        raise MedtlError("the file exists", where=str(out), fix="Choose another --out")
    tables = [read_table(path) for path in (manifest, audit)]
    rows, judged = (pd.DataFrame(list(t.rows), columns=list(t.columns)) for t in tables)
    changed, number = relabel(rows, judged, unsure=unsure)
    sidecar, _ = read_sidecar(manifest, tables[0].columns)
    known = {key: value for key, value in sidecar.items() if value}
    known["images"] = str((manifest.resolve().parent / sidecar["images"]).resolve())
    written: list[dict[str, Any]] = changed.to_dict("records")  # type: ignore[assignment]
    write_manifest(written, out, known)
    return number


def _places(manifest: pd.DataFrame) -> list[str]:
    """What `_place` calls each row."""
    if "frame" not in manifest:
        return list(manifest["image"])
    pairs = zip(manifest["image"], manifest["frame"], strict=True)
    return [f"{image}#{frame}" if frame else image for image, frame in pairs]
