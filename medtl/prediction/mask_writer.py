"""Predicted masks on the grid of the image as it was stored, and the table that names them.

A run folder gets `masks/predicted/` and `masks/truth/`: one file per case, or one per case and
structure where structures may overlap. They lie voxel for voxel on the source image, whatever its
orientation and spacing, and evaluation reads these files, not the network's working grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medtl.cases.predictions import write_predictions
from medtl.io.masks import write_mask
from medtl.losses.known import IGNORE
from medtl.storage.atomic import write_text
from medtl.storage.yaml import dump_yaml
from medtl.tasks.structures import Structures
from medtl.types import Case, FloatArray, Image


class Geometry(Protocol):
    """What brings maps back onto an image: `Preprocessor` or `VolumePreprocessor`."""

    def grid(self, image: Image) -> Any:
        """Where an image lies on the working grid."""
        ...

    def from_unit(self, probabilities: FloatArray, grid: Any) -> NDArray[np.float32]:
        """Maps on the working grid on the image's own pixels."""
        ...


@dataclass(frozen=True)
class MaskWriter:
    """Writes what a segmentation study predicts.

    Attributes:
        folder: The run folder.
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
                write_mask(self.folder / path, _plane(mask, number), like=image)
                row["prediction" if part == "predicted" else part] = path.as_posix()
            rows.append(row)
        return rows

    def _files(self) -> list[tuple[str, int | None]]:
        """(structure, its number) of each file of a case; one file for exclusive structures."""
        if self.task.exclusive:
            return [("", None)]
        return list(zip(self.task.labels, range(len(self.task.labels)), strict=True))

    def _path(self, part: str, case: Case, image: Image, number: int | None) -> Path:
        """Where a mask lies below the run folder."""
        ending = ".png" if image.array.ndim == 3 else ".nii.gz"
        name = case.case_id if number is None else f"{case.case_id}_{number + 1}"
        (self.folder / "masks" / part).mkdir(parents=True, exist_ok=True)
        return Path("masks") / part / f"{name}{ending}"


def write_mask_table(rows: Sequence[Mapping[str, Any]], task: Structures, path: Path) -> None:
    """Write the predictions table of masks and, beside it, what their values mean.

    Args:
        rows: What `MaskWriter.write` returned for all cases.
        task: The structures.
        path: `predictions.csv`; `predictions.yaml` is written beside it.
    """
    import pandas as pd

    write_predictions(pd.DataFrame(list(rows)), path)
    write_meanings(task, path)


def write_meanings(task: Structures, path: Path) -> None:
    """Write, beside a predictions table, what the values of its masks mean."""
    numbers = range(1, len(task.labels) + 1)
    values = [group[0] for group in task.values] if task.exclusive else numbers
    names = {str(value): label for value, label in zip(values, task.labels, strict=True)}
    write_text(path.with_suffix(".yaml"), dump_yaml({"labels": names}))


def _plane(mask: NDArray[np.uint8], number: int | None) -> NDArray[np.uint8]:
    """The whole label map, or one structure with its own value."""
    if number is None:
        return mask
    return np.asarray(mask[number] * np.uint8(number + 1), dtype=np.uint8)
