"""Ages and other numbers as groups, so that results can be broken down by them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.cases.spellings import spelled_alike
from medtl.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

MOST_GROUPS = 12
"""A column of numbers with more distinct values than this is divided into bands."""

NEVER_BANDED = frozenset({"sex", "view", "site", "scanner", "fold", "seed", "reader"})
"""Columns whose numbers are names."""

DECADES = (*range(0, 100, 10),)
"""Lower ends, in years, of the bands of an age; the last band is open."""

CHILDHOOD = (0, 36, 72, 120, 168)
"""Lower ends, in months, of the bands of a bone age: toddlers, before school, before puberty,
puberty, adolescents."""

UNKNOWN = "unknown"


def band_strata(table: pd.DataFrame, strata: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return the table with its columns of many numbers divided into bands, and what was done.

    An age is banded by decades, a column that ends with `_months` by the ages of childhood, any
    other by its quartiles. Empty cells and texts are "unknown"; few values stay as they are. Words
    that differ in capitals or spaces alone stay groups of their own, and that is said.

    Args:
        table: Cells may be text.
        strata: Columns to look at.

    >>> import pandas as pd
    >>> table, notes = band_strata(pd.DataFrame({"age": range(20, 60)}), ["age"])
    >>> table["age"].iloc[0], notes
    ('20-29', ['age was divided into decades'])
    """
    notes = []
    for name in strata:
        notes += _respelled(name, table[name])
        values = _numbers_of(table[name])
        if name in NEVER_BANDED or values is None or np.unique(values).size <= MOST_GROUPS:
            continue
        edges, way = _edges_of(name, values)
        table = table.assign(**{name: bands_of(values, edges)})
        notes.append(f"{name} was divided into {way}")
    return table, notes


def as_groups(column: pd.Series[Any]) -> np.ndarray:
    """Return the values of a column as text, "unknown" for empty cells, `(n,)`.

    Args:
        column: Any values.

    >>> import pandas as pd
    >>> as_groups(pd.Series(["F", None, ""])).tolist()
    ['F', 'unknown', 'unknown']
    """
    text = column.astype(object).where(column.notna(), UNKNOWN).astype(str)
    return text.replace("", UNKNOWN).to_numpy(dtype=object).astype(str)


def bands_of(values: FloatArray, edges: Sequence[float]) -> np.ndarray:
    """Return the band of each value as text ("40-49", "90+"), "unknown" for NaN, `(n,)` objects.

    Args:
        values: `(n,)`; NaN where there is none.
        edges: Ascending lower ends; the last band is open, and so is the first for lower values.

    >>> bands_of(np.array([3.0, 45.0, 99.0, np.nan]), (10, 40, 90)).tolist()
    ['<10', '40-89', '90+', 'unknown']
    """
    whole = all(float(edge).is_integer() for edge in edges)
    names = [
        f"{low:g}-{high - 1:g}" if whole else f"{low:g} to <{high:g}"
        for low, high in pairwise(edges)
    ]
    names = [f"<{edges[0]:g}", *names, f"{edges[-1]:g}+"]
    which = np.searchsorted(np.asarray(edges, dtype=float), values, side="right")
    found = [UNKNOWN if np.isnan(x) else names[i] for x, i in zip(values, which, strict=True)]
    return np.array(found, dtype=object)


def _numbers_of(column: pd.Series[Any]) -> FloatArray | None:
    """Return a column as numbers; None if a tenth or more of its filled cells are not."""
    import pandas as pd

    text = column.astype(str).str.strip()
    filled = column.notna() & (text != "") & (text.str.lower() != UNKNOWN)
    # DICOM writes an age as 058Y; one above 89 was read as the open band of the decades.
    text = text.str.removesuffix("Y").replace(f"{DECADES[-1]}+", str(DECADES[-1]))
    values = np.array(pd.to_numeric(text, errors="coerce"), dtype=float)
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values)
    return values if known.any() and (filled & ~known).sum() * 10 < filled.sum() else None


def _respelled(name: str, column: pd.Series[Any]) -> list[str]:
    """Return a note about words of a column that differ in spelling alone."""
    alike = spelled_alike(map(str, np.unique(as_groups(column.drop_duplicates()))))
    ways = ", ".join(repr(word) for group in alike for word in group)
    return [f"{name!r} holds {ways}: groups that differ in spelling alone"] if alike else []


def _edges_of(name: str, values: FloatArray) -> tuple[Sequence[float], str]:
    """Return the lower ends of the bands of a column, and the way in words."""
    if name.endswith("_months"):
        return CHILDHOOD, "bands of childhood"
    if name == "age" or name.startswith(("age_", "patient_age")):
        return DECADES, "decades"
    quartiles = np.unique(np.nanquantile(values, (0.25, 0.5, 0.75)).round(6))
    return tuple(float(edge) for edge in quartiles), "quarters of the rows"
