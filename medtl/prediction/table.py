"""Scores become the predictions table: the one door between machine learning and medicine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medtl.cases.exams import EXAM, by_exam
from medtl.cases.predictions import read_predictions, write_predictions
from medtl.data.reader import ImageReader
from medtl.errors import MedtlError
from medtl.prediction.gallery import (
    PICTURE_SIDE,
    Entry,
    Reading,
    choose_cases,
    worst_readings,
    write_gallery,
)
from medtl.prediction.sink import Evaluated, Model, TrainedModel
from medtl.preprocess.pipeline import Preprocessor
from medtl.tasks.protocols import Task
from medtl.types import Case, Progress, silent

if TYPE_CHECKING:
    import pandas as pd

    from medtl.networks.backbones import Classifier


class TableSink:
    """Scores become rows, and the cases to look at are drawn with where the network looked."""

    def predict(
        self,
        model: Model,
        scores: Iterable[NDArray[np.float32]],
        cases: Sequence[Case],
        reader: ImageReader,
        masks: Path | None,
    ) -> pd.DataFrame:
        """Return one row per case and label; see `Sink.predict`."""
        del reader, masks
        columns = model.columns
        known = all(label in cases[0].targets for label in columns.targets)
        return predictions_table(
            model.task, cases, np.concatenate([*scores]), strata=columns.strata, with_truth=known
        )

    def write(self, table: pd.DataFrame, task: Task, out: Path) -> None:
        """Write the table; its columns say all."""
        del task
        write_predictions(table, out)

    def illustrate(self, study: Evaluated, *, progress: Progress = silent) -> None:
        """Draw the most wrong and the least certain cases."""
        if study.reader.features:  # there are no images to draw
            return
        trained: TrainedModel[Classifier, Task] = study.trained()
        entries: list[Entry | Reading] = [
            *choose_cases(_judged(study), study.points),
            *worst_readings(study.worst),
        ]
        drawn = 0

        def heat_of(case_id: str, label: str) -> NDArray[np.float32] | None:
            nonlocal drawn
            drawn += 1
            progress("Drawing cases", drawn, len(entries))
            return heat_map(trained, study.unit_of(case_id), study.cases[case_id], label)

        def picture_of(case_id: str) -> NDArray[np.float32]:
            """The image as the network's grid shows it, at its own resolution."""
            try:
                return source_picture(study.reader, study.cases[case_id])
            except MedtlError:  # the file is gone, or no picture: what was stored is shown
                return study.unit_of(case_id)

        write_gallery(study.gallery, entries, unit_of=picture_of, heat_of=heat_of)


def heat_map(
    trained: TrainedModel[Classifier, Task], unit: NDArray[np.float32], case: Case, label: str
) -> NDArray[np.float32] | None:
    """Return where features raise the score of a label; see `medtl.prediction.gradcam.grad_cam`.

    Args:
        trained: The best model of a run.
        unit: The case's unit image.
        case: Says what the network is told besides the image.
        label: The score to explain.
    """
    import torch

    from medtl.prediction.gradcam import grad_cam

    image = torch.from_numpy(trained.reader.preprocessor.standardise(unit))[None]
    extra = torch.from_numpy(trained.task.inputs([case]))
    return grad_cam(trained.model, image, lambda out: trained.task.explain(out, label), extra)


def source_picture(reader: ImageReader, case: Case) -> NDArray[np.float32]:
    """Return `(C, H, W)` in [0, 1] on a grid as the network's, but of the pixels of the source.

    Raises:
        MedtlError: When the file cannot be read, or holds a volume.
    """
    preprocessor = reader.preprocessor
    if not isinstance(preprocessor, Preprocessor):
        raise MedtlError("a volume is no picture")
    image = replace(reader, at_least=None).read(case)
    grid = preprocessor.grid_shape
    factor = min(PICTURE_SIDE, max(image.array.shape[1:])) / max(grid)
    size = tuple(max(side, round(side * factor)) for side in grid)
    return replace(preprocessor, size=size).to_unit(image)


def _judged(study: Evaluated) -> pd.DataFrame:
    """The rows that were evaluated; an exam is shown by its image with the highest score."""
    table = read_predictions(study.predictions)
    if study.exams is None:
        return table
    exams, _ = by_exam(table, study.exams)
    return exams.assign(case_id=exams["shown"])


def predictions_table(
    task: Task,
    cases: Sequence[Case],
    scores: NDArray[np.float32],
    *,
    strata: Sequence[str] = (),
    with_truth: bool = True,
) -> pd.DataFrame:
    """Return the tidy table of some cases: one row per case and label.

    Args:
        task: Names the labels and reads the truth.
        cases: `n` cases.
        scores: `(n, K)` in the unit of the report.
        strata: Columns of `Case.strata` that the report breaks results by.
        with_truth: False leaves `y_true` empty for images without labels.

    Returns:
        Columns `case_id, patient_id, split, label, y_true, y_true_raw, y_score`, `strata`, and
        `exam_id` where the study has exams.
    """
    import pandas as pd

    rows = []
    for case, score in zip(cases, scores, strict=True):
        who = {"case_id": case.case_id, "patient_id": case.patient_id, "split": case.split}
        who |= {EXAM: case.exam} if case.exam else {}
        for row in task.rows(case, score):
            truth = {} if with_truth else {"y_true": None, "y_true_raw": ""}
            rows.append({**who, **row, **truth, **{s: case.strata.get(s, "") for s in strata}})
    table = pd.DataFrame(rows)
    table["y_true"] = table["y_true"].astype("Float64")
    return table
