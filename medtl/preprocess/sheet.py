"""The picture that `medtl check` draws: what the network sees, before and after augmentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtl.errors import MedtlError
from medtl.preprocess.augment import Augmenter
from medtl.preprocess.augment_volume import VolumeAugmenter
from medtl.types import FloatArray

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

LINE_PX = 14
"""Height of a line of text under a picture."""

GAP_PX = 8
"""Space between pictures."""


def contact_sheet(
    units: Sequence[tuple[str, FloatArray]],
    path: str | PathLike[str],
    *,
    augment: Augmenter | VolumeAugmenter | None = None,
    copies: int = 4,
    seed: int = 0,
) -> None:
    """Write a PNG with one row per image: the original, then augmented copies with what was done.

    Args:
        units: Title and `(C, H, W)` image in [0, 1], C 1 or 3, or a volume `(C, i, j, k)` on RAS
            axes, of which the middle axial plane is drawn. The title is printed as it is: give a
            pseudonymous case id, never a name or a path.
        path: The PNG to write; replaced in one step.
        augment: The policy; None draws the originals alone.
        copies: Augmented copies per row.
        seed: Of the copies; the same seed draws the same sheet.

    Raises:
        MedtlError: When there is no image, or one has other axes or values.

    >>> contact_sheet([("c-0001", np.zeros((1, 32, 32)))], Path("sheet.png"))
    >>> Path("sheet.png").is_file()
    True
    """
    path = Path(path)
    from PIL import Image

    if not units:
        raise MedtlError("no image for the contact sheet")
    drawn = [
        [(title, unit), *_copies(unit, augment, copies, np.random.default_rng((seed, row)))]
        for row, (title, unit) in enumerate(units)
    ]
    rows = [[(caption, _plane(unit)) for caption, unit in cells] for cells in drawn]
    lines = max(caption.count("\n") + 1 for cells in rows for caption, _ in cells)
    height = max(unit.shape[-2] for cells in rows for _, unit in cells) + LINE_PX * lines + GAP_PX
    width = max(unit.shape[-1] for cells in rows for _, unit in cells) + GAP_PX
    sheet = Image.new("RGB", (width * len(rows[0]) + GAP_PX, height * len(rows) + GAP_PX), "white")
    for row, cells in enumerate(rows):
        for column, (caption, unit) in enumerate(cells):
            place = (GAP_PX + column * width, GAP_PX + row * height)
            _paste(sheet, unit, caption, place)
    # Written beside its place first: an interrupted run leaves no half picture.
    partial = path.with_name(path.name + ".part")
    sheet.save(partial, format="PNG")
    os.replace(partial, path)


def _copies(
    unit: FloatArray,
    augment: Augmenter | VolumeAugmenter | None,
    copies: int,
    rng: np.random.Generator,
) -> list[tuple[str, FloatArray]]:
    """Augmented copies of one image, each with its history as caption."""
    if augment is None:
        return []
    drawn = [augment(unit, rng) for _ in range(copies)]
    return [("\n".join(map(str, one.history)) or "unchanged", one.array) for one in drawn]


def _plane(unit: FloatArray) -> FloatArray:
    """An image as it is; of a volume the middle axial plane, anterior up, right on the left."""
    if unit.ndim != 4:
        return unit
    return np.swapaxes(unit[..., unit.shape[-1] // 2], 1, 2)[:, ::-1, ::-1]


def _paste(sheet: Picture, unit: FloatArray, caption: str, place: tuple[int, int]) -> None:
    """Draw one image and its caption, cut to the image's width."""
    from PIL import Image, ImageDraw

    if unit.ndim != 3 or len(unit) not in (1, 3) or not (unit.min() >= 0 and unit.max() <= 1):
        raise MedtlError(
            f"an array of shape {unit.shape}", expected="(1 or 3, H, W) with values in [0, 1]"
        )
    grey_levels = np.rint(255 * np.broadcast_to(unit, (3, *unit.shape[1:]))).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(grey_levels.transpose(1, 2, 0)))
    sheet.paste(picture, place)
    for number, text in enumerate(caption.split("\n")):
        line = Image.new("RGB", (picture.width, LINE_PX), "white")
        ImageDraw.Draw(line).text((0, 1), text, fill="black")
        sheet.paste(line, (place[0], place[1] + picture.height + number * LINE_PX))
