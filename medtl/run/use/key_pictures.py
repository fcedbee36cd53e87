"""Key pictures of what `medtl predict` saw: a heat map of each call, the outline of each mask.

`Run.export` adds them to the patient's study as Secondary Captures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtl.data.reader import ImageReader, read_in_parts
from medtl.prediction.gallery import Drawn, grey_to_rgb, overlay, write_pictures
from medtl.prediction.mask_writer import MasksShown
from medtl.prediction.overlays import draw_case
from medtl.prediction.sink import PREDICT_BATCH, TrainedModel
from medtl.prediction.table import heat_map, source_picture
from medtl.run.use.cases_to_predict import find_cases
from medtl.storage.tables import read_table
from medtl.types import Case

if TYPE_CHECKING:
    import pandas as pd


def draw_key_pictures(
    trained: TrainedModel[Any, Any], data: Path, table: Path, folder: Path, *, own: Path
) -> Path:
    """Draw the predictions of a table; return the list of pictures, a gallery for `Run.export`.

    Args:
        trained: The best model of a run, which made the predictions.
        data: What was predicted: a manifest, a folder of images, or one image.
        table: The predictions.
        folder: Made when missing.
        own: The run's `manifest.csv`.

    Raises:
        RunError: When the run takes features in place of images.
    """
    trained.reader.require_images()
    manifest = find_cases(own, data, trained).manifest
    reader = replace(trained.reader, root=manifest.root)
    if trained.task.encode is None:
        drawn = _heat_maps(trained, reader, manifest.cases, _scores(table))
    else:
        drawn = _outlines(MasksShown(table, reader), manifest.cases)
    return write_pictures(folder, drawn, ending="key")


def _scores(table: Path) -> pd.DataFrame:
    """The rows of a table; those of new images have no split."""
    import pandas as pd

    read = read_table(table)
    rows = pd.DataFrame(read.rows, columns=list(read.columns))
    return rows.assign(y_score=rows["y_score"].astype(float))


def _heat_maps(
    trained: TrainedModel[Any, Any],
    reader: ImageReader,
    cases: tuple[Case, ...],
    table: pd.DataFrame,
) -> Iterator[Drawn]:
    """Every call above its threshold, else the highest score, with what raised it."""
    by_id = {case.case_id: case for case in cases}
    for store, records in read_in_parts(cases, reader, PREDICT_BATCH):
        facts = {record.case_id: record.facts for record in records}
        for row, case_id in enumerate(store.case_ids):
            case = trained.task.inputs.completed(by_id[case_id], facts[case_id])
            picture = grey_to_rgb(source_picture(reader, case))
            for label in _called(table[table["case_id"] == case_id]):
                heat = heat_map(trained, store.unit(row), case, label)
                yield {"case_id": case_id, "label": label}, picture, overlay(picture, heat)


def _called(rows: pd.DataFrame) -> list[str]:
    """The labels of a case to show."""
    called = rows[rows["decision"] == "1"] if "decision" in rows else rows[:0]
    shown = called if len(called) else rows.nlargest(1, "y_score")
    return [str(label) for label in shown["label"]]


def _outlines(shown: MasksShown, cases: tuple[Case, ...]) -> Iterator[Drawn]:
    """Every structure of which something was found."""
    predicted = set(shown.rows["case_id"])
    for case in cases:
        for label in shown.value_of if case.case_id in predicted else ():
            seen = shown(case, label)
            if seen.predicted.any():
                yield {"case_id": case.case_id, "label": label}, *draw_case(seen)
