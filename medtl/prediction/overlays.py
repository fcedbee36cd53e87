"""Pictures of the worst segmentations: outlines of truth and prediction, in three planes.

Volumes lie in RAS order and are shown as radiologists look at them: the patient's right on the
picture's left, anterior up in the axial plane and to the left in the sagittal one, superior up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medtl.metrics.overlap import surface
from medtl.prediction.gallery import write_pictures
from medtl.preprocess.geometry import nearest, resize

if TYPE_CHECKING:
    import pandas as pd

PER_STRUCTURE = 4
"""Cases shown for each structure."""

MAX_PICTURES = 24
"""Pictures in one gallery: the report must stay a few megabytes."""

SIDE = 640
"""Pixels of the longest side of a plane."""

TRUTH, PREDICTION = (0.2, 0.9, 0.3), (1.0, 0.55, 0.1)
"""Colours of the outlines: green and orange."""


@dataclass(frozen=True)
class WorstCase:
    """One structure of one case."""

    case_id: str
    label: str
    dice: float


class Shown(NamedTuple):
    """The arrays that are drawn of a case, all on one grid.

    Attributes:
        unit: `(C, *S)` in [0, 1].
        truth, predicted: `(*S)` booleans.
        spacing: Millimetres per axis, or None for square pixels.
    """

    unit: NDArray[np.float32]
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    spacing: Sequence[float] | None


def choose_worst(overlaps: pd.DataFrame, *, per_structure: int = PER_STRUCTURE) -> list[WorstCase]:
    """Return the test cases with the lowest Dice of each structure.

    Args:
        overlaps: One row per case and structure with `case_id, label, split, dice`.
        per_structure: Cases per structure.
    """
    test = overlaps[(overlaps["split"] == "test") & overlaps["dice"].notna()]
    worst = test.sort_values(["dice", "case_id"], kind="stable").groupby("label", sort=False)
    rows = worst.head(per_structure).head(MAX_PICTURES)
    named = zip(rows["case_id"], rows["label"], rows["dice"], strict=True)
    chosen = [WorstCase(str(case), str(label), float(dice)) for case, label, dice in named]
    return sorted(chosen, key=lambda one: (one.label, one.dice))


def write_overlays(
    folder: Path, cases: Sequence[WorstCase], shown_of: Callable[[str, str], Shown]
) -> None:
    """Write one picture and one overlay per case, and `gallery.json`.

    Args:
        folder: Made when missing.
        cases: What `choose_worst` returned.
        shown_of: (case id, label) -> what is drawn.
    """
    drawn = []
    for case in cases:
        words = f"Dice {case.dice:.2f}; green: reference, orange: model"
        entry = {**asdict(case), "kind": "worst", "value": words}
        drawn.append((entry, *draw_case(shown_of(case.case_id, case.label))))
    write_pictures(folder, drawn, ending="outlines")


def draw_case(shown: Shown) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a picture `(H, W, 3)` in [0, 1], and the same with both outlines.

    A volume is cut where the masks differ most: sagittal, coronal and axial, side by side.

    Args:
        shown: A plane or a volume.
    """
    spacing = shown.spacing or (1.0,) * shown.truth.ndim
    if shown.truth.ndim == 2:
        planes = [(shown.unit, shown.truth, shown.predicted, spacing)]
    else:
        planes = [_cut(shown, axis, spacing) for axis in range(3)]
    drawn = [_draw(*plane) for plane in planes]
    plain, outlined = zip(*drawn, strict=True)
    return _side_by_side(plain), _side_by_side(outlined)


_Plane = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Sequence[float]]


def _cut(shown: Shown, axis: int, spacing: Sequence[float]) -> _Plane:
    """One plane of a volume, turned as it is looked at."""
    others = tuple(other for other in range(3) if other != axis)
    differs = (shown.truth ^ shown.predicted).sum(axis=others)
    masked = (shown.truth | shown.predicted).sum(axis=others)
    at = int(np.argmax(differs if differs.any() else masked))

    def view(array: NDArray[Any]) -> NDArray[Any]:
        plane = np.take(array, at, axis=array.ndim - 3 + axis)
        return np.ascontiguousarray(np.swapaxes(plane, -1, -2)[..., ::-1, ::-1])

    steps = (spacing[others[1]], spacing[others[0]])
    return view(shown.unit), view(shown.truth), view(shown.predicted), steps


def _draw(
    unit: NDArray[np.float32],
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    spacing: Sequence[float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A plane in its true proportions, and the same with outlines."""
    extent = [length * step for length, step in zip(truth.shape, spacing, strict=True)]
    rows, columns = (max(1, round(SIDE * mm / max(extent))) for mm in extent)
    grey = unit[:1].repeat(3, axis=0) if len(unit) != 3 else unit
    picture = np.ascontiguousarray(np.moveaxis(resize(grey, (rows, columns)), 0, -1))
    outlined = picture.copy()
    for mask, color in ((truth, TRUTH), (predicted, PREDICTION)):
        line = surface(nearest(mask, (rows, columns)))
        line[1:] |= line[:-1]  # two pixels wide: it is seen on a phone too
        line[:, 1:] |= line[:, :-1]
        outlined[line] = color
    return picture, outlined


def _side_by_side(pictures: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Pictures in a row, the lower ones in the middle of the height."""
    height = max(len(picture) for picture in pictures)
    padded = []
    for picture in pictures:
        above = (height - len(picture)) // 2
        padded.append(np.pad(picture, ((above, height - len(picture) - above), (0, 0), (0, 0))))
    return np.concatenate(padded, axis=1)
