"""Dice, 95th percentile of the surface distance and surface Dice of two masks of a volume."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.table import Row, compare, missing

SHAPE, SPACING, TOLERANCE_MM = (256, 256, 128), (1.0, 1.0, 2.0), 2.0


def rows() -> Iterator[Row]:
    """Yield the one comparison."""
    from medtl.metrics.overlap import compare_masks

    what, other = "Dice + HD95 + NSD, 256 x 256 x 128", "MONAI's three metrics"
    try:
        import torch
        from monai.metrics import (
            compute_dice,
            compute_hausdorff_distance,
            compute_surface_dice,
        )
    except ImportError as fault:
        yield missing(what, other, fault, 4)
        return
    truth = ellipsoid((120, 130, 60), (40, 35, 28))
    prediction = ellipsoid((123, 128, 62), (42, 33, 28))
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": SPACING}

    def ours() -> object:
        found = compare_masks(truth, prediction, SPACING, tolerances_mm=(TOLERANCE_MM,))
        return found.dice, found.hd95_mm, found.nsd[TOLERANCE_MM]

    def theirs() -> object:
        return (
            float(compute_dice(*pair)),
            float(compute_hausdorff_distance(*pair, percentile=95, **options)),
            float(compute_surface_dice(*pair, class_thresholds=[TOLERANCE_MM], **options)),
        )

    def agree(a: object, b: object) -> str:
        return f"largest difference {np.abs(np.subtract(a, b)).max():.1e}"  # type: ignore[arg-type]

    yield compare(what, other, ours, theirs, agree, target=4)


def ellipsoid(centre: tuple[int, ...], radii: tuple[int, ...]) -> np.ndarray:
    """A solid ellipsoid of about 160,000 voxels."""
    axes = np.ogrid[tuple(slice(length) for length in SHAPE)]
    parts = [((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)]
    return np.asarray(sum(parts) < 1)
