"""The masks of one image as a page shows them: outlines, and how large each structure is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medtl.cases.predictions import mask_labels
from medtl.io.masks import read_mask
from medtl.prediction.mask_writer import MasksShown
from medtl.prediction.overlays import draw_case
from medtl.prediction.sink import Model
from medtl.types import Case


class DrawnMask(NamedTuple):
    """One structure of an image.

    Attributes:
        label: Its name.
        size: In words, of the image's own grid.
        plain, outlined: `(H, W, 3)` in [0, 1]; three planes of a volume side by side.
    """

    label: str
    size: str
    plain: NDArray[np.float32]
    outlined: NDArray[np.float32]


def draw_masks(table: Path, model: Model, film: Path) -> list[DrawnMask]:
    """Return the structures that were predicted of one image.

    Args:
        table: What `predict_images` wrote of it, beside its masks.
        model: It predicted them.
        film: The image.
    """
    shown = MasksShown(table, model.reader)
    rows = shown.rows.to_dict("records")
    case = Case(rows[0]["case_id"], "film", film)
    image = model.reader.read(case)
    drawn = []
    for value, label in mask_labels(table).items():
        row = next(row for row in rows if row.get("label", label) == label)
        mask = read_mask(table.parent / row["prediction"], image).array == value
        plain, outlined = draw_case(shown(case, label))
        drawn.append(DrawnMask(label, size_of(int(mask.sum()), image.spacing), plain, outlined))
    return drawn


def size_of(pixels: int, spacing: Sequence[float] | None) -> str:
    """Return a size in words: an area, a volume, or a count where the spacing is not known.

    Args:
        pixels: That belong to the structure.
        spacing: Millimetres per pixel and axis.

    Example:
        >>> size_of(1250, (0.2, 0.2)), size_of(3000, (1.0, 1.0, 1.0)), size_of(7, None)
        ('0.5 cm²', '3 mL', '7 pixels')
    """
    if spacing is None:
        return f"{pixels} pixels"
    size = pixels * float(np.prod(spacing))
    return f"{size / 100:.3g} cm²" if len(spacing) == 2 else f"{size / 1000:.3g} mL"
