"""Pictures of the most wrong and the least certain cases, with where the network looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medtl.storage.atomic import write_json
from medtl.types import OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["missed", "false_alarm", "uncertain"]

PER_KIND = 4
"""Cases of each kind shown per finding."""

PICTURE_SIDE = 1024
"""Most pixels of a picture's side: a nodule must be seen. Smaller images keep their own size."""

SCALE_FROM = 128
"""Pictures from this width on have a scale of the heat map at their right edge."""

MAX_CASES = 24
"""Pictures in one gallery: the report must stay a few megabytes."""


@dataclass(frozen=True)
class Entry:
    """One picture of the gallery."""

    case_id: str
    label: str
    kind: Kind
    y_true: int
    y_score: float
    threshold: float


@dataclass(frozen=True)
class Reading:
    """One picture of the gallery of a study that estimates a number, with its words."""

    case_id: str
    label: str
    value: str
    kind: Literal["worst"] = "worst"


def worst_readings(worst: Sequence[Mapping[str, Any]]) -> list[Reading]:
    """Return the estimates that are furthest off, as `metrics.json` lists them."""
    return [
        Reading(
            one["case_id"],
            one["label"],
            f"reference {one['reference']:.0f}, model {one['estimate']:.0f} ({one['error']:+.0f})",
        )
        for one in worst
        if "estimate" in one  # the list of a classification holds missed cases and false alarms
    ]


def choose_cases(
    table: pd.DataFrame, points: Sequence[OperatingPoint], *, per_kind: int = PER_KIND
) -> list[Entry]:
    """Return the test cases to look at: most wrong first, then nearest to the threshold.

    Args:
        table: Predictions with `split, case_id, label, y_true, y_score`.
        points: Frozen thresholds; a label without one is left out.
        per_kind: Cases of each kind and label.
    """
    test = table[(table["split"] == "test") & table["y_true"].notna()]
    entries: list[Entry] = []
    for point in points:
        rows = test[test["label"] == point.label]
        positive = rows["y_true"] == 1
        called = rows["y_score"] >= point.threshold
        distance = (rows["y_score"] - point.threshold).abs()
        order: dict[Kind, pd.Series[Any]] = {
            "missed": rows["y_score"][positive & ~called],
            "false_alarm": -rows["y_score"][~positive & called],
            "uncertain": distance[positive == called],
        }
        for kind, keys in order.items():
            for index in keys.sort_values(kind="stable").index[:per_kind]:
                case, truth, score = rows.loc[index, ["case_id", "y_true", "y_score"]]
                numbers = int(truth), float(score), point.threshold
                entries.append(Entry(str(case), point.label, kind, *numbers))
    return _thin(entries, MAX_CASES)


def write_gallery(
    folder: Path,
    entries: Sequence[Entry | Reading],
    *,
    unit_of: Callable[[str], NDArray[np.float32]],
    heat_of: Callable[[str, str], NDArray[np.float32] | None],
) -> None:
    """Write one picture and one overlay per entry, and `gallery.json`.

    Args:
        folder: Made when missing.
        entries: What `choose_cases` returned.
        unit_of: Case id -> `(C, H, W)` in [0, 1].
        heat_of: (case id, label) -> Grad-CAM `(h, w)` in [0, 1], resized to the picture here; all 0
            where nothing raised the score, which is then said in place of an overlay; None where
            the network has no map.
    """

    def drawn() -> Iterator[Drawn]:
        for entry in entries:
            picture = grey_to_rgb(unit_of(entry.case_id))
            heat = heat_of(entry.case_id, entry.label)
            said = {
                **asdict(entry),
                "nothing_raised_the_score": heat is not None and not heat.any(),
            }
            yield said, picture, overlay(picture, heat)

    write_pictures(folder, drawn(), ending="cam")


Drawn = tuple[Mapping[str, Any], NDArray[np.float32], NDArray[np.float32] | None]
"""What the list says of a case, its picture and its overlay, `(H, W, 3)` in [0, 1]."""


def write_pictures(
    folder: Path,
    drawn: Iterable[Drawn],
    *,
    ending: str,
) -> Path:
    """Write a picture and an overlay per case as PNG without any metadata; return their list.

    Args:
        folder: Made when missing.
        drawn: The cases; one may have no overlay.
        ending: Of the overlays' names.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, (entry, *pictures) in enumerate(drawn):
        names: list[str | None] = [f"{number:02d}.png", f"{number:02d}_{ending}.png"]
        for place, picture in enumerate(pictures):
            if picture is None:
                names[place] = None
                continue
            pixels = np.rint(picture * 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / str(names[place]))
        listed.append({**entry, "image": names[0], "overlay": names[1]})
    write_json(folder / "gallery.json", listed)
    return folder / "gallery.json"


def _thin(entries: list[Entry], limit: int) -> list[Entry]:
    """Keep the worst of every kind and label, then the second worst, until the limit."""
    kinds = list(dict.fromkeys(entry.kind for entry in entries))
    turn = Counter[tuple[str, str]]()
    ranked = []
    for position, entry in enumerate(entries):
        turn[entry.label, entry.kind] += 1
        rank = turn[entry.label, entry.kind], kinds.index(entry.kind), position
        ranked.append((rank, entry))
    kept = sorted(ranked, key=lambda item: item[0])[:limit]
    return [entry for _, entry in sorted(kept, key=lambda item: item[0][2])]


def grey_to_rgb(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a unit image `(C, H, W)` as a picture `(H, W, 3)` in [0, 1]."""
    channels = np.repeat(unit, 3, axis=0) if unit.shape[0] == 1 else unit
    return np.ascontiguousarray(np.moveaxis(channels, 0, -1))


def overlay(
    picture: NDArray[np.float32], heat: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """Lay the heat map over the picture: transparent where 0, orange to yellow where 1.

    The scale at the right edge runs from 0 below to 1, the strongest place of this picture, above.
    None where there is no heat to lay.
    """
    import cv2

    if heat is None or not heat.any():
        return None

    height, width = picture.shape[:2]
    heat = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
    if width >= SCALE_FROM:
        rows, bar = slice(height // 4, 3 * height // 4), slice(width - width // 32, width)
        ramp = np.linspace(1, 0, rows.stop - rows.start, dtype=np.float32)
        picture, heat = picture.copy(), heat.copy()
        picture[rows, bar], heat[rows, bar] = 0.25, ramp[:, None]
    color = np.stack([np.ones_like(heat), 0.35 + 0.55 * heat, 0.1 * np.ones_like(heat)], axis=-1)
    alpha = 0.6 * heat[..., None]
    return np.asarray(picture * (1 - alpha) + color * alpha, dtype=np.float32)
