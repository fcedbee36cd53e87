"""Vectors of numbers that a network elsewhere made of images, in a table of NumPy's (.npy)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from medtl.errors import ImageError, located
from medtl.io.cost import name_of
from medtl.types import Image


def read_features(
    path: str | PathLike[str], row: int | None, *, root: str | PathLike[str] | None = None
) -> Image:
    """Return one vector of a table as an image of one dimension, `(1, features)`.

    Args:
        path: A `.npy` file of floats, `(vectors, features)`, as `medtl manifest features` writes.
        row: Number of the vector, from 0.
        root: Folder that messages name the file from; else its base name is used.

    Raises:
        ImageError: When the file is no such table, has no such row, or a number is not finite.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "all.npy"), np.eye(3, dtype=np.float32))
        ...     read_features(Path(folder, "all.npy"), 1).array
        array([[0., 1., 0.]], dtype=float32)
    """
    path = Path(path)
    with located(name_of(path, root)):
        try:
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ImageError(
                "no table of features",
                expected="a .npy file of floats, which medtl manifest features writes",
                fix="For images, name their backbone: model.backbone",
            ) from error
        if not isinstance(table, np.ndarray) or table.ndim != 2 or table.dtype.kind != "f":
            raise ImageError("no table of floats", expected="(vectors, features)")
        if row is None or not 0 <= row < len(table):
            raise ImageError(
                f"no row {row} of {len(table)} vectors",
                expected=f"a column 'frame' with 0 to {len(table) - 1}",
            )
        vector = np.array(table[row], dtype=np.float32)
        if bad := int((~np.isfinite(vector)).sum()):
            raise ImageError(f"{bad} of {len(vector)} features are not finite")
        return Image(vector[None])
