"""Pictures of the most wrong and the least certain cases, with where the network looked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
                row = rows.loc[index]
                entries.append(
                    Entry(
                        case_id=str(row["case_id"]),
                        label=point.label,
                        kind=kind,
                        y_true=int(row["y_true"]),
                        y_score=float(row["y_score"]),
                        threshold=point.threshold,
                    )
                )
    return _thin(entries, MAX_CASES)


def write_gallery(
    folder: Path,
    entries: Sequence[Entry | Reading],
    *,
    unit_of: Callable[[str], NDArray[np.float32]],
    heat_of: Callable[[str, str], NDArray[np.float32]],
) -> None:
    """Write one picture and one overlay per entry, and `gallery.json`.

    Args:
        folder: Made when missing.
        entries: What `choose_cases` returned.
        unit_of: Case id -> `(C, H, W)` in [0, 1].
        heat_of: (case id, label) -> Grad-CAM `(h, w)` in [0, 1], resized to the picture here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[Mapping[str, Any]] = []
    for number, entry in enumerate(entries):
        picture = _grey_to_rgb(unit_of(entry.case_id))
        overlay = _overlay(picture, heat_of(entry.case_id, entry.label))
        names = f"{number:02d}.png", f"{number:02d}_cam.png"
        for name, pixels in zip(names, (picture, overlay), strict=True):
            _write_png(folder / name, pixels)
        listed.append({**entry.__dict__, "image": names[0], "overlay": names[1]})
    write_json(folder / "gallery.json", listed)


def _thin(entries: list[Entry], limit: int) -> list[Entry]:
    """Keep the worst of every kind and label, then the second worst, until the limit."""
    kinds = list(dict.fromkeys(entry.kind for entry in entries))
    turn: dict[tuple[str, str], int] = {}
    ranked = []
    for position, entry in enumerate(entries):
        key = (entry.label, entry.kind)
        turn[key] = turn.get(key, 0) + 1
        ranked.append((turn[key], kinds.index(entry.kind), position, entry))
    kept = sorted(ranked, key=lambda item: item[:3])[:limit]
    return [entry for *_, entry in sorted(kept, key=lambda item: item[2])]


def _grey_to_rgb(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(H, W, 3)` in [0, 1]."""
    channels = np.repeat(unit, 3, axis=0) if unit.shape[0] == 1 else unit
    return np.ascontiguousarray(np.moveaxis(channels, 0, -1))


def _overlay(picture: NDArray[np.float32], heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay the heat map over the picture: transparent where 0, orange to yellow where 1."""
    import cv2

    height, width = picture.shape[:2]
    heat = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
    color = np.stack([np.ones_like(heat), 0.35 + 0.55 * heat, 0.1 * np.ones_like(heat)], axis=-1)
    alpha = 0.6 * heat[..., None]
    return np.asarray(picture * (1 - alpha) + color * alpha, dtype=np.float32)


def _write_png(path: Path, picture: NDArray[np.float32]) -> None:
    """Write an 8-bit PNG without any metadata."""
    from PIL import Image

    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(path, optimize=True)
