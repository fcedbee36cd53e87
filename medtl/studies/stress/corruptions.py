"""Images that went wrong, by modality and severity, and probes of what a model looks at."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medtl.data.store import ImageStore
from medtl.errors import MedtlError
from medtl.preprocess.photometric import PHOTOMETRIC, apply_photometric
from medtl.preprocess.warp import warp, warp_coordinates
from medtl.storage.yaml import load_yaml

Unit = NDArray[np.float32]
Transform = Callable[[Unit, float, int], Unit]


MOVING = frozenset({"rotate", "patch_shuffle"})
"""Transforms that move what an image shows."""


@dataclass(frozen=True)
class Corruption:
    """One way of going wrong.

    Attributes:
        name: As in `corruptions.yaml`.
        kind: "corruption" has severities 1 to 5, "probe" has levels of its own.
        transform: What is done.
        strengths: Its parameter at each severity.
        words: Language -> what happens.
        modalities: Where it occurs; empty for everywhere.
    """

    name: str
    kind: Literal["corruption", "probe"]
    transform: str
    strengths: tuple[float, ...]
    words: Mapping[str, str]
    modalities: tuple[str, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether parts of the image lie elsewhere afterwards, so that a mask no longer fits."""
        return self.transform in MOVING

    def __call__(self, unit: Unit, severity: int) -> Unit:
        """Return the image at a severity; 0 is the image itself.

        What is drawn (noise, the order of patches) depends on the image alone: the same image is
        corrupted alike in every run.

        Args:
            unit: `(C, H, W)` or `(C, D, H, W)` in [0, 1]; of a volume every slice.
            severity: 0 to the number of strengths.

        Raises:
            MedtlError: For a severity that the table does not have.
        """
        if not 0 <= severity <= len(self.strengths):
            raise MedtlError(
                f"severity {severity} of {self.name}", expected=f"0 to {len(self.strengths)}"
            )
        if severity == 0:
            return unit
        strength, seed = self.strengths[severity - 1], zlib.crc32(unit.tobytes())
        if unit.ndim == 3:
            return _plane(self.transform, unit, strength, seed)
        slices = [
            _plane(self.transform, np.ascontiguousarray(unit[:, number]), strength, seed + number)
            for number in range(unit.shape[1])
        ]
        return np.stack(slices, axis=1)


@dataclass(frozen=True)
class AlteredStore(ImageStore):
    """Images of a store after a change that keeps their shape.

    Attributes:
        alter: From row and unit image to the changed one.
    """

    alter: Callable[[int, Unit], Unit] = lambda _row, unit: unit

    def unit(self, row: int) -> NDArray[np.float32]:
        """`(C, *S)` float32 in [0, 1], changed."""
        return self.alter(row, super().unit(row))


def corruptions_of(modality: str, kind: str = "corruption") -> list[Corruption]:
    """Return what can go wrong with images of a modality, in the order of the table.

    Args:
        modality: As in a recipe: "cxr", "mr", ...
        kind: "corruption" or "probe".

    >>> [corruption.name for corruption in corruptions_of("us")][:3]
    ['speckle', 'blur', 'low_contrast']
    """
    return [
        one
        for one in _table()
        if one.kind == kind and (not one.modalities or modality in one.modalities)
    ]


@cache
def _table() -> tuple[Corruption, ...]:
    """Every line of `corruptions.yaml`."""
    content: dict[str, Any] = load_yaml(Path(__file__).with_name("corruptions.yaml"))
    return tuple(
        Corruption(
            name,
            "probe" if section == "probes" else "corruption",
            line.get("transform", name),
            tuple(line["strengths"]),
            {language: line[language] for language in ("en", "ko")},
            tuple(line.get("modalities", ())),
        )
        for section in ("corruptions", "probes")
        for name, line in content[section].items()
    )


def _plane(transform: str, unit: Unit, strength: float, seed: int) -> Unit:
    """One picture `(C, H, W)` after a transform, in [0, 1]."""
    if transform in PHOTOMETRIC:
        return apply_photometric(transform, unit, strength, seed)
    result = OWN[transform](unit, strength, seed)
    return np.clip(result, 0, 1).astype(np.float32, copy=False)


def _rotate(unit: Unit, degrees: float, _: int) -> Unit:
    steps = {"rotate": {"degrees": degrees}}
    return warp(unit, warp_coordinates(steps, unit.shape[-2:]), "black")


def _border(unit: Unit, share: float, _: int) -> Unit:
    """Black from every side inwards, by a share of the side."""
    rows, columns = (round(side * share) for side in unit.shape[-2:])
    result = np.zeros_like(unit)
    inside = (..., slice(rows, unit.shape[-2] - rows), slice(columns, unit.shape[-1] - columns))
    result[inside] = unit[inside]
    return result


def _marker(unit: Unit, share: float, _: int) -> Unit:
    """A white square near the upper left corner, where side markers lie."""
    side, margin = round(min(unit.shape[-2:]) * share), round(min(unit.shape[-2:]) * 0.03)
    result = unit.copy()
    result[..., margin : margin + side, margin : margin + side] = 1
    return result


def _patch_shuffle(unit: Unit, grid: float, seed: int) -> Unit:
    """Tiles of an n x n grid in another order; what no tile covers stays."""
    n = int(grid)
    rows, columns = unit.shape[-2] // n, unit.shape[-1] // n
    places = [(row * rows, column * columns) for row in range(n) for column in range(n)]
    result = unit.copy()
    for target, source in zip(places, np.random.default_rng(seed).permutation(n * n), strict=True):
        (to_row, to_column), (row, column) = target, places[source]
        tile = unit[:, row : row + rows, column : column + columns]
        result[:, to_row : to_row + rows, to_column : to_column + columns] = tile
    return result


def _low_pass(unit: Unit, sigma: float, seed: int) -> Unit:
    return apply_photometric("blur", unit, sigma, seed)


def _high_pass(unit: Unit, sigma: float, seed: int) -> Unit:
    return unit - apply_photometric("blur", unit, sigma, seed) + np.float32(0.5)


def _edges(unit: Unit, _: float, __: int) -> Unit:
    """The length of the gradient, the largest of the picture being 1."""
    import cv2

    slopes = [
        np.hypot(*(cv2.Sobel(p, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))) for p in unit
    ]
    edges = np.stack(slopes)
    return np.asarray(edges / max(float(edges.max()), 1e-6), dtype=np.float32)


def _silhouette(unit: Unit, _: float, __: int) -> Unit:
    """0 and 1 at Otsu's threshold of each channel (Otsu 1979)."""
    import cv2

    planes = [np.rint(plane * 255).astype(np.uint8) for plane in unit]
    cut = [cv2.threshold(p, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1] for p in planes]
    return (np.stack(cut) > 0).astype(np.float32)


OWN: Mapping[str, Transform] = {
    "rotate": _rotate,
    "border": _border,
    "marker": _marker,
    "patch_shuffle": _patch_shuffle,
    "low_pass": _low_pass,
    "high_pass": _high_pass,
    "edges": _edges,
    "silhouette": _silhouette,
}
"""Transforms that are no augmentation."""
