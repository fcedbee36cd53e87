"""What a trained network leaves: scores, masks on the source images, pictures of the worst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from medtl.cases.predictions import read_predictions
from medtl.data.batches import CaseSamples
from medtl.data.reader import Encode, ImageReader
from medtl.data.store import ImageStore
from medtl.io.masks import read_mask
from medtl.prediction.mask_writer import MaskWriter
from medtl.prediction.overlays import Shown, choose_worst, write_overlays
from medtl.preprocess.volume import Grid
from medtl.run.build import TrainedModel
from medtl.run.files import RunFiles
from medtl.storage.yaml import load_yaml
from medtl.tasks.structures import Structures
from medtl.training.epoch import network_outputs
from medtl.training.runtime import Runtime
from medtl.types import Case, Progress, silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtl.tasks.protocols import Task

PREDICT_BATCH = 32
"""Batch size of every prediction. Fixed, so that the same images give the same bits anywhere."""


def encode_of(task: Task) -> Encode | None:
    """What makes training masks of a mask file's values, or None for a task without masks."""
    return task.encode if isinstance(task, Structures) else None


def observed(task: Task, store: ImageStore) -> Task:
    """The task, once it has seen which structures the masks of a study show."""
    masks = ((case, store.mask(row)) for row, case in enumerate(store.case_ids))
    return cast(Structures, task).observed(masks)


def score_batches(
    trained: TrainedModel, samples: CaseSamples, progress: Progress
) -> Iterator[torch.Tensor]:
    """Yield the scores of all samples in their order, the same bits for the same samples."""
    runtime = Runtime(trained.recipe.run.device, trained.recipe.run.precision)
    batches = network_outputs(
        runtime.place(trained.model),
        samples,
        runtime,
        batch_size=PREDICT_BATCH,
        progress=lambda done, total: progress("Predicting", done, total),
    )
    for outputs, _ in batches:
        yield trained.task.decode(outputs)


def predict_scores(
    trained: TrainedModel, samples: CaseSamples, *, progress: Progress = silent
) -> NDArray[np.float32]:
    """Return `(n, K)` scores of some samples."""
    scores: NDArray[np.float32] = torch.cat([*score_batches(trained, samples, progress)]).numpy()
    return scores


def predict_masks(
    trained: TrainedModel,
    samples: CaseSamples,
    cases: Sequence[Case],
    reader: ImageReader,
    folder: Path,
    *,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Write the predicted masks of some cases, and their truth, on the grids of their images.

    Args:
        trained: Of a segmentation study.
        samples: The cases as network input.
        cases: The same cases, in the same order.
        reader: Reads them again as they were stored.
        folder: Where `masks/` goes.
        progress: Told of predicting.

    Returns:
        The rows of the predictions table.
    """
    task = cast(Structures, trained.task)
    strata = trained.recipe.data.strata
    writer = MaskWriter(folder, task, reader.preprocessor, strata)
    rows: list[dict[str, Any]] = []
    each = (score for batch in score_batches(trained, samples, progress) for score in batch)
    for case, scores in zip(cases, each, strict=True):
        image = reader.read(case)
        truth = None if case.mask is None else task.encode(reader.read_mask(case, image).array)
        rows += writer.write(case, image, scores.numpy(), truth)
    return rows


def draw_worst_masks(files: RunFiles, cases: Sequence[Case], reader: ImageReader) -> None:
    """Draw the test cases with the lowest overlap into `gallery/`.

    Args:
        files: Of a run that has been evaluated.
        cases: Those of the run.
        reader: Reads their images.
    """
    import pandas as pd

    table = read_predictions(files.predictions)
    names = load_yaml(files.predictions.with_suffix(".yaml"))["labels"]
    by_id = {case.case_id: case for case in cases}
    place = files.predictions.parent
    value_of = {name: int(value) for value, name in names.items()}

    def shown_of(case_id: str, label: str) -> Shown:
        rows = table[table["case_id"] == case_id]
        row = (rows[rows["label"] == label] if "label" in rows else rows).iloc[0]
        image = reader.read(by_id[case_id])
        masks = [read_mask(place / row[part], like=image) for part in ("truth", "prediction")]
        truth, predicted = (
            reader.preprocessor.mask_to_unit(
                (mask.array == value_of[label]).astype(np.uint8), image
            )
            for mask in masks
        )
        unit = reader.preprocessor.to_unit(image)
        grid = reader.preprocessor.grid(image)
        steps = grid.spacing if isinstance(grid, Grid) else None  # planes have square pixels
        return Shown(unit, truth == 1, predicted == 1, steps)

    overlaps = pd.read_csv(files.overlaps)
    write_overlays(files.gallery, choose_worst(overlaps), shown_of)
