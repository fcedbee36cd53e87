"""A trained network and its scores, and what each kind of study makes of them: its sink.

torch is loaded when a `TrainedModel` is asked for scores, not before: what an exported graph
predicts goes into the same sinks without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from medtl.cases.columns import Columns
from medtl.cases.exams import Combine
from medtl.data.reader import ImageReader
from medtl.data.store import ImageStore
from medtl.tasks.protocols import Task
from medtl.types import Case, OperatingPoint, Progress, silent

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

NetworkT = TypeVar("NetworkT", bound="nn.Module")
TaskT = TypeVar("TaskT", bound=Task)

PREDICT_BATCH = 32
"""Batch size of every prediction. Fixed, so that the same images give the same bits anywhere."""


class Model(Protocol):
    """A trained network with all that makes predictions of images, whatever it runs by."""

    @property
    def task(self) -> Any:
        """What its outputs mean."""
        ...

    @property
    def reader(self) -> ImageReader:
        """How a file becomes a unit image."""
        ...

    @property
    def columns(self) -> Columns:
        """Those of the manifest that training read."""
        ...

    @property
    def meta(self) -> Mapping[str, Any]:
        """The training profile and the hash of the manifest, among others."""
        ...

    def scores(
        self, store: ImageStore, cases: Sequence[Case], progress: Progress = silent
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the scores of all cases in their order, in batches `(B, ...)`.

        Args:
            store: Holds the cases' unit images.
            cases: At least one.
            progress: Told of predicting.
        """
        ...


@dataclass(frozen=True)
class TrainedModel(Generic[NetworkT, TaskT]):
    """A checkpoint, ready to predict.

    Attributes:
        model: The network with its best weights.
        task: What its outputs mean.
        reader: How a file becomes a unit image.
        columns: Those of the manifest that training read.
        device, precision: To compute on and in, as the recipe states them.
        recipe: The recipe it was trained by, for those who know recipes.
        meta: All that the checkpoint says (training profile, hashes, position).
    """

    model: NetworkT
    task: TaskT
    reader: ImageReader
    columns: Columns
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    recipe: Any
    meta: Mapping[str, Any]

    def scores(
        self, store: ImageStore, cases: Sequence[Case], progress: Progress = silent
    ) -> Iterator[NDArray[np.float32]]:
        """Yield scores as `Model.scores`: the same bits for the same cases."""
        for outputs in self.outputs(store, cases, progress):
            yield self.task.decode(outputs).numpy()

    def outputs(
        self, store: ImageStore, cases: Sequence[Case], progress: Progress = silent
    ) -> Iterator[Tensor]:
        """Yield what the network says before it is decoded (logits), for the same arguments."""
        from medtl.data.batches import Samples
        from medtl.training.epoch import network_outputs
        from medtl.training.runtime import Runtime

        runtime = Runtime(self.device, self.precision)
        samples = Samples(
            store=store,
            rows=store.rows(cases),
            targets=np.zeros((len(cases), 1), dtype=np.float32),
            inputs=self.task.inputs(cases),
            standardise=self.reader.preprocessor.standardise,
        )
        batches = network_outputs(
            runtime.place(self.model),
            samples,
            runtime,
            batch_size=PREDICT_BATCH,
            progress=lambda done, total: progress("Predicting", done, total),
        )
        yield from (outputs for outputs, _ in batches)


@dataclass(frozen=True)
class Evaluated:
    """A study whose test cases were predicted and evaluated, for those who draw some of them.

    Attributes:
        cases: Case id -> case.
        reader: Reads their images again.
        unit_of: Case id -> its unit image as it was stored.
        predictions: `predictions.csv`; masks lie below its folder.
        overlaps: `overlap.csv`, of a study of masks.
        points: Frozen thresholds.
        worst: The cases that are furthest off, as `metrics.json` lists them.
        trained: Reads the best model.
        gallery: The folder to draw into.
        exams: How the scores of an exam's images were combined; None where images were judged.
    """

    cases: Mapping[str, Case]
    reader: ImageReader
    unit_of: Callable[[str], NDArray[np.float32]]
    predictions: Path
    overlaps: Path
    points: Sequence[OperatingPoint]
    worst: Sequence[Mapping[str, Any]]
    trained: Callable[[], TrainedModel[Any, Any]]
    gallery: Path
    exams: Combine | None = None


class Sink(Protocol):
    """Where the predictions of a kind of study go: into rows, or into masks and rows."""

    def predict(
        self,
        model: Model,
        scores: Iterable[NDArray[np.float32]],
        cases: Sequence[Case],
        reader: ImageReader,
        masks: Path | None,
    ) -> pd.DataFrame:
        """Return the predictions of some cases; what is no row is written as a file.

        Args:
            model: What the scores are from.
            scores: Of the cases, in batches.
            cases: The cases in the same order.
            reader: Reads them again as they were stored.
            masks: Folder for masks, beside the table; None when the table alone is wanted.

        Raises:
            RunError: When there are masks to write, and no folder.
        """
        ...

    def write(self, table: pd.DataFrame, task: Any, out: Path) -> None:
        """Write the table, and beside it what a reader needs to understand it."""
        ...

    def illustrate(self, study: Evaluated, *, progress: Progress = silent) -> None:
        """Draw the test cases that are worth a look into the gallery."""
        ...
