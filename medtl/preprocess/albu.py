"""The only door to albumentations: it is fed what it handles, and is a function of our seed.

albumentations 2.0.8 breaks on 16-bit images, and several of its transforms reduce a float image to
256 levels (CLAHE, Equalize, HueSaturationValue, ImageCompression, Downscale) or assume 8-bit data
(FancyPCA is a no-op on [0, 1], HEStain replaces the stain instead of varying it). Those are our own
in `transforms`; what is used here was measured to keep float32. The import takes seconds, so it
happens when the first of these transforms is applied and not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import MedtlError

Unit = NDArray[np.float32]


def apply_albumentations(name: str, unit: Unit, value: float, seed: int) -> Unit:
    """Return the image after one albumentations transform.

    Args:
        name: One of `ALBUMENTATIONS`.
        unit: `(C, H, W)` float32 in [0, 1].
        value: The transform's one parameter, as in the safety table.
        seed: Of what else it draws (where a patch lies).

    Raises:
        MedtlError: When albumentations is missing, or is its AGPL successor.

    >>> sorted(ALBUMENTATIONS)  # what `name` may be
    ['coarse_dropout', 'hue', 'saturation']
    """
    transform = ALBUMENTATIONS[name](_albumentations(), unit, value)
    transform.set_random_seed(seed)
    result = transform(image=np.ascontiguousarray(unit.transpose(1, 2, 0)))["image"]
    return np.ascontiguousarray(result.transpose(2, 0, 1))


def _hue(library: ModuleType, _: Unit, shift: float) -> Any:
    """Turn the hue by a fraction of the colour circle."""
    keep = (1.0, 1.0)
    return library.ColorJitter(
        brightness=keep, contrast=keep, saturation=keep, hue=(shift, shift), p=1
    )


def _saturation(library: ModuleType, _: Unit, factor: float) -> Any:
    """Multiply the distance from grey."""
    keep = (1.0, 1.0)
    return library.ColorJitter(
        brightness=keep, contrast=keep, saturation=(factor, factor), hue=(0.0, 0.0), p=1
    )


def _coarse_dropout(library: ModuleType, unit: Unit, area: float) -> Any:
    """Cover one patch, a fraction of the area, with the image's mean."""
    side = (float(np.sqrt(area)),) * 2
    fill = tuple(float(mean) for mean in unit.mean(axis=(1, 2)))
    return library.CoarseDropout(
        num_holes_range=(1, 1), hole_height_range=side, hole_width_range=side, fill=fill, p=1
    )


ALBUMENTATIONS: dict[str, Callable[[ModuleType, Unit, float], Any]] = {
    "hue": _hue,
    "saturation": _saturation,
    "coarse_dropout": _coarse_dropout,
}
"""Name in the safety table -> the transform with that one value."""


@cache
def _albumentations() -> ModuleType:
    """The library, without its question to the package index on import."""
    if "albumentationsx" in {name.lower() for name in _distributions("albumentations")}:
        raise MedtlError(
            "albumentationsx is installed; it is AGPL and replaces albumentations",
            expected="albumentations 2.0.8 (MIT)",
            fix="Uninstall albumentationsx and albumentations, then install albumentations==2.0.8",
        )
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    try:
        import albumentations
    except ImportError as error:
        raise MedtlError(
            "albumentations cannot be imported", fix="Install albumentations==2.0.8"
        ) from error
    return albumentations  # type: ignore[no-any-return]


def _distributions(package: str) -> list[str]:
    """Names of the installed distributions that bring an import name."""
    return list(metadata.packages_distributions().get(package, []))
