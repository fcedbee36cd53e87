"""A table of masks as a table of overlaps: one row per case and structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.cases.predictions import mask_labels
from medtl.errors import MedtlError, PredictionsError, located
from medtl.io.masks import WHITE, read_mask
from medtl.io.pairs import Mask
from medtl.metrics.overlap import case_overlaps

if TYPE_CHECKING:
    import pandas as pd

PLACE_FLAGS = ("mask_place_rounded", "mask_place_not_comparable")
"""Flags of a pair of masks that are said in `overlap.csv`."""

IGNORED = "ignore"
"""Name of mask values that are not known: no structure."""

TOLERANCES_MM = (1.0, 2.0)
"""Of the normalised surface Dice."""


def overlap_table(rows: pd.DataFrame, table: Path) -> pd.DataFrame:
    """Return one row per case and structure with overlap, distances and sizes.

    Args:
        rows: With `case_id, truth, prediction`, and for pictures without a size `spacing_mm`: one
            number, or one per axis, in millimetres.
        table: The file they come from; the masks lie relative to its folder, the names of the
            values are the `labels` of the YAML file of the same name; voxels of one called
            "ignore" (nnU-Net's word) count nowhere. Without it, all that is not 0 is one structure.

    Raises:
        PredictionsError: If a mask is missing, has another grid or values without a name.
    """
    import pandas as pd

    structures = mask_labels(table) or {1: "structure"}
    kept = [name for name in map(str, rows) if name not in ("truth", "prediction", "spacing_mm")]
    found: list[dict[str, Any]] = []
    for _, row in rows.iterrows():
        own = _of_the_row(row, structures)
        ignored = [value for value, name in own.items() if name == IGNORED]
        truth = _mask_of(row, "truth", table, own)
        prediction = _mask_of(row, "prediction", table, own, like=truth)
        where = f"{table.name}, {row['case_id']}"
        stated = _stated_spacing(row, truth.array.ndim, where)
        sizes, others = truth.spacing, prediction.spacing
        if not stated and sizes and others and not np.allclose(sizes, others, rtol=1e-3):
            raise PredictionsError(
                "truth and prediction have other voxel sizes",
                expected="masks on the same grid",
                where=where,
                fix="Resample the prediction to the truth's grid, nearest neighbour",
            )
        not_known = np.isin(truth.array, ignored)
        compared = [
            np.where(not_known | np.isin(mask.array, ignored), 0, mask.array)
            for mask in (truth, prediction)
        ]
        with located(where):
            overlaps = case_overlaps(
                compared[0],
                compared[1],
                stated or truth.spacing,
                structures={value: name for value, name in own.items() if value not in ignored},
                tolerances_mm=TOLERANCES_MM,
            )
        odd = [flag for flag in prediction.flags if flag in PLACE_FLAGS]
        about = {**{name: row[name] for name in kept}, **({"flags": "; ".join(odd)} if odd else {})}
        found += [{**about, **overlap} for overlap in overlaps]
    return pd.DataFrame(found)


def _of_the_row(row: pd.Series[Any], structures: Mapping[int, str]) -> Mapping[int, str]:
    """The structures of a row's files: the one that it names (they may overlap), or all."""
    named = row.get("label")
    return {value: name for value, name in structures.items() if name == named} or structures


def _mask_of(
    row: pd.Series[Any],
    column: str,
    table: Path,
    structures: Mapping[int, str],
    *,
    like: Mask | None = None,
) -> Mask:
    """Return the mask that a cell names, on the grid of another if one is given."""
    where = f"{table.name}, {column} of {row['case_id']}"
    path = table.parent / str(row[column])
    if not path.exists():
        raise PredictionsError(
            "the mask cannot be read: there is no such file",
            expected="a path relative to the table",
            where=where,
        )
    try:
        # Labels are named only where white is one of them: others get this table's own message.
        mask = read_mask(path, like, labels=structures if WHITE in structures else None)
    except MedtlError as error:
        raise PredictionsError(
            error.found, expected=error.expected, where=where, fix=error.fix
        ) from error
    if len(structures) == 1 and len(mask.labels) == 1:
        value = next(iter(structures))  # black and white, whatever white is
        return replace(mask, array=np.where(mask.array != 0, value, 0).astype(np.uint16))
    unknown = sorted(set(mask.labels) - {*structures})
    if unknown:
        raise PredictionsError(
            f"the mask holds the value {unknown[0]}",
            expected=f"0 or one of {', '.join(map(str, structures))}",
            where=where,
            fix=f"Name it in {table.with_suffix('.yaml').name}: labels: {{{unknown[0]}: NAME}}",
        )
    return mask


def _stated_spacing(row: pd.Series[Any], axes: int, where: str) -> tuple[float, ...]:
    """Return the voxel size that the table states, one number standing for all axes; or ()."""
    text = str(row.get("spacing_mm", "") or "")
    try:
        spacing = tuple(float(step) for step in text.replace(",", " ").split())
    except ValueError:
        raise PredictionsError(
            f"spacing_mm is {text!r}",
            expected='millimetres per axis, such as "0.7 0.7"',
            where=where,
        ) from None
    return spacing * axes if len(spacing) == 1 else spacing
