"""Predicted masks on the grid of the image as it was stored, and the table that names them.

A folder beside the table, `masks/` of a run and `NEW_masks/` of `NEW.csv`, gets `predicted/` and
`truth/`: one file per case, or one per case and structure where structures may overlap. They lie
voxel for voxel on the source image, whatever its orientation and spacing, and evaluation reads
these files, not the network's working grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medtl.cases.predictions import mask_labels, write_predictions
from medtl.data.reader import ImageReader
from medtl.errors import RunError
from medtl.io.masks import read_mask, write_mask
from medtl.losses.known import IGNORE
from medtl.prediction.overlays import Shown, choose_worst, write_overlays
from medtl.prediction.sink import Evaluated, Model, Sink
from medtl.prediction.table import TableSink
from medtl.storage.atomic import write_text
from medtl.storage.filenames import file_name
from medtl.storage.tables import read_table
from medtl.storage.yaml import dump_yaml
from medtl.tasks.protocols import Task
from medtl.tasks.structures import Structures
from medtl.types import Case, FloatArray, Image, Progress, silent

if TYPE_CHECKING:
    import pandas as pd


class Geometry(Protocol):
    """The way of maps back onto an image: `Preprocessor` or `VolumePreprocessor`."""

    def grid(self, image: Image) -> Any:
        """Place of an image on the working grid."""
        ...

    def from_unit(self, probabilities: FloatArray, grid: Any) -> NDArray[np.float32]:
        """Maps on the working grid on the image's own pixels."""
        ...


@dataclass(frozen=True)
class MaskWriter:
    """Writer of the masks that a segmentation study predicts.

    Attributes:
        folder: For the masks, beside the table that names them.
        task: Which pixels mean what.
        geometry: The preprocessing that made the network's input.
        strata: Columns of `Case.strata` that the report breaks results by.
    """

    folder: Path
    task: Structures
    geometry: Geometry
    strata: Sequence[str] = ()

    def write(
        self,
        case: Case,
        image: Image,
        scores: FloatArray,
        truth: NDArray[np.uint8] | None = None,
    ) -> list[dict[str, Any]]:
        """Write the masks of one case; return its rows of the predictions table.

        Pixels of unknown truth are background in both files, so that they count nowhere.

        Args:
            case: Names the files.
            image: As it was read.
            scores: `(outputs, *T)` probabilities on the working grid.
            truth: `(*S)` or `(K, *S)` on the image's own grid, as `Structures.encode` returned it;
                None for a case without a mask.
        """
        on_image = self.geometry.from_unit(scores, self.geometry.grid(image))
        predicted = self.task.label_map(on_image)
        parts = {"predicted": predicted}
        if truth is not None:
            parts["predicted"] = np.where(truth == IGNORE, np.uint8(0), predicted)
            parts["truth"] = self.task.file_values(truth)
        rows = []
        for label, number in self._files():
            row: dict[str, Any] = {
                "case_id": case.case_id,
                "patient_id": case.patient_id,
                "split": case.split,
                **({"label": label} if label else {}),
                "truth": "",
                "prediction": "",
                **{name: case.strata.get(name, "") for name in self.strata},
                "spacing_mm": " ".join(f"{step:.6g}" for step in image.spacing or ()),
            }
            for part, mask in parts.items():
                path = self._path(part, case, image, number)
                write_mask(self.folder.parent / path, _plane(mask, number), like=image)
                row["prediction" if part == "predicted" else part] = path.as_posix()
            rows.append(row)
        return rows

    def _files(self) -> list[tuple[str, int | None]]:
        """(structure, its number) of each file of a case; one file for exclusive structures."""
        if self.task.exclusive:
            return [("", None)]
        return list(zip(self.task.labels, range(len(self.task.labels)), strict=True))

    def _path(self, part: str, case: Case, image: Image, number: int | None) -> Path:
        """Path of a mask, from the folder of the table."""
        ending = ".png" if image.array.ndim == 3 else ".nii.gz"
        name = file_name(case.case_id) + ("" if number is None else f"_{number + 1}")
        (self.folder / part).mkdir(parents=True, exist_ok=True)
        return Path(self.folder.name) / part / f"{name}{ending}"


class MaskSink:
    """Masks are written onto the grids of their images, and drawn where they agree least."""

    def predict(
        self,
        model: Model,
        scores: Iterable[NDArray[np.float32]],
        cases: Sequence[Case],
        reader: ImageReader,
        masks: Path | None,
    ) -> pd.DataFrame:
        """Return one row per case, or per case and structure where they overlap."""
        import pandas as pd

        if masks is None:
            raise RunError("masks are files and have no place", fix="State where the table goes")
        task = model.task
        writer = MaskWriter(masks, task, reader.require_images(), model.columns.strata)
        rows: list[dict[str, Any]] = []
        each = (score for batch in scores for score in batch)
        for case, score in zip(cases, each, strict=True):
            image = reader.read(case)
            truth = None if case.mask is None else task.encode(reader.read_mask(case, image).array)
            rows += writer.write(case, image, score, truth)
        return pd.DataFrame(rows)

    def write(self, table: pd.DataFrame, task: Structures, out: Path) -> None:
        """Write the table and, beside it, what the values of its masks mean."""
        write_predictions(table, out)
        numbers = range(1, len(task.labels) + 1)
        values = [group[0] for group in task.values] if task.exclusive else numbers
        names = {str(value): label for value, label in zip(values, task.labels, strict=True)}
        write_text(out.with_suffix(".yaml"), dump_yaml({"labels": names}))

    def illustrate(self, study: Evaluated, *, progress: Progress = silent) -> None:
        """Draw the cases with the lowest overlap."""
        import pandas as pd

        del progress
        shown = MasksShown(study.predictions, study.reader)

        def shown_of(case_id: str, label: str) -> Shown:
            return shown(study.cases[case_id], label)

        overlaps = pd.read_csv(study.overlaps)
        write_overlays(study.gallery, choose_worst(overlaps), shown_of)


class MasksShown:
    """What is drawn of the cases of a table of masks.

    Args:
        predictions: The table; its masks lie below its folder.
        reader: Reads the images that it is about.
    """

    def __init__(self, predictions: Path, reader: ImageReader) -> None:
        import pandas as pd

        self.reader, self.folder = reader, predictions.parent
        table = read_table(predictions)  # of new images too, which have no split
        self.rows = pd.DataFrame(table.rows, columns=list(table.columns))
        self.value_of = {name: value for value, name in mask_labels(predictions).items()}

    def __call__(self, case: Case, label: str) -> Shown:
        """Return image, truth (empty where it is not known) and prediction of a structure."""
        rows = self.rows[self.rows["case_id"] == case.case_id]
        row = (rows[rows["label"] == label] if "label" in rows else rows).iloc[0]
        image, preprocessor = self.reader.read(case), self.reader.require_images()
        unit = preprocessor.to_unit(image)

        def on_grid(file: str) -> NDArray[np.bool_]:
            if not file:
                return np.zeros(unit.shape[1:], dtype=bool)
            mask = read_mask(self.folder / file, image).array == self.value_of[label]
            return np.asarray(preprocessor.mask_to_unit(mask.astype(np.uint8), image) == 1)

        steps = getattr(preprocessor.grid(image), "spacing", None)  # planes: square pixels
        return Shown(unit, on_grid(row["truth"]), on_grid(row["prediction"]), steps)


def sink_of(task: Task) -> Sink:
    """Return where the predictions of a task go: masks where it has them, else rows."""
    return TableSink() if task.encode is None else MaskSink()


def _plane(mask: NDArray[np.uint8], number: int | None) -> NDArray[np.uint8]:
    """The whole label map, or one structure with its own value."""
    if number is None:
        return mask
    return np.asarray(mask[number] * np.uint8(number + 1), dtype=np.uint8)
