"""Embeddings from elsewhere: a table of vectors joined to a sheet becomes a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtl.cases.intake.joining import join_sheet
from medtl.cases.manifest import write_manifest
from medtl.errors import ManifestError
from medtl.storage.atomic import atomic_path
from medtl.storage.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

_OF_IMAGES = ("image", "frame", "mask")
"""Columns of a sheet that speak of the images, which the vectors stand for."""

LEAST_JOINED = 0.5
"""Share of the sheet's rows that must find a vector; below it the key is another."""


@dataclass(frozen=True)
class JoinedFeatures:
    """A manifest of vectors.

    Attributes:
        rows: Of the manifest, one a vector.
        vectors: `(rows, features)` float32.
        notes: What was joined, what found no partner.
    """

    rows: tuple[dict[str, str], ...]
    vectors: NDArray[np.float32]
    notes: tuple[str, ...]


def read_vectors(
    path: Path, key: str, columns: str | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    """Return the ids of a table of features, and its vectors.

    Args:
        path: `.parquet`, `.csv` or `.tsv` with the ids in column `key` and either one column of
            lists or a column a feature; `.npz` with an array of ids named `key` and one of vectors.
        key: Of the ids.
        columns: Names of the features (`*` for any letters); None takes all besides the key.

    Raises:
        ManifestError: When the key is not there, a column is no feature, or vectors differ in
            length.
    """
    if not path.is_file():
        raise ManifestError("there is no such file", where=path.name)
    read = _of_arrays if path.suffix.lower() == ".npz" else _of_table
    ids, vectors = read(path, key, columns)
    if vectors.ndim != 2 or not len(vectors) or len(ids) != len(vectors):
        found = f"{len(ids)} ids and numbers of shape {vectors.shape}"
        raise ManifestError(found, expected="a vector of one length for each id", where=path.name)
    return ids, vectors


def join_features(table: Path, sheet: Path, key: str, columns: str | None = None) -> JoinedFeatures:
    """Return the rows of a sheet with the vectors of a table that belong to them.

    Args:
        table: As of `read_vectors`.
        sheet: Patients, labels and whatever a study reports by; its column `key` names the vectors.
        key: Column of both.
        columns: Of the features.

    Raises:
        ManifestError: As `read_vectors` and `join_sheet`; or when the sheet lacks the key, or less
            than half of its rows find a vector.
    """
    ids, vectors = read_vectors(table, key, columns)
    read = read_table(sheet)
    if key not in read.columns:
        raise ManifestError(
            f"no column {key!r}", expected=f"one of {', '.join(read.columns)}", where=sheet.name
        )
    keys = [row[read.columns.index(key)] for row in read.rows]
    joined = join_sheet(keys, [{"id": [one]} for one in ids], column=key)
    found = len(keys) - len(joined.lonely_rows)
    if found < LEAST_JOINED * len(keys):
        raise ManifestError(
            f"{found} of {len(keys)} rows find a vector among {len(ids)}",
            expected="at least half of them",
            where=sheet.name,
            fix="Leave out the rows that have none, or name another column with --key",
        )
    pairs = [(row, place) for place, row in enumerate(joined.rows) if row is not None]
    kept = [name for name in read.columns if name not in _OF_IMAGES]
    rows = tuple(dict(zip(read.columns, read.rows[row], strict=True)) for row, _ in sorted(pairs))
    notes = tuple(note.replace("image", "vector") for note in joined.notes)
    return JoinedFeatures(
        tuple({name: row[name] for name in kept} for row in rows),
        vectors[[place for _, place in sorted(pairs)]],
        (*notes, f"{vectors.shape[1]} features a vector"),
    )


def write_features(found: JoinedFeatures, out: Path) -> None:
    """Write the manifest, and the vectors beside it (`.npy`).

    Raises:
        ManifestError: When one of the two is there already.
    """
    vectors = out.with_suffix(".npy")
    for path in (out, vectors):
        if path.exists():
            raise ManifestError("the file exists", where=path.name, fix="Choose another --out")
    with atomic_path(vectors) as temporary, temporary.open("wb") as file:
        np.save(file, found.vectors)
    rows = [
        {"image": vectors.name, "frame": str(number), **row}
        for number, row in enumerate(found.rows)
    ]
    write_manifest(rows, out)


def _of_arrays(path: Path, key: str, columns: str | None) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and vectors of an archive of NumPy's."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise ManifestError("no archive of plain arrays (.npz)", where=path.name) from error
    ids = arrays.pop(key, None)
    named = [name for name in arrays if fnmatch(name, columns or "*")]
    if ids is None or len(named) != 1:
        raise ManifestError(
            f"arrays {', '.join([*arrays, *([] if ids is None else [key])])}",
            expected=f"the ids as {key!r} and one array of vectors",
            where=path.name,
            fix="Name the ids with --key, and the vectors with --columns",
        )
    return [str(one) for one in ids.tolist()], np.asarray(arrays[named[0]], dtype=np.float32)


def _of_table(path: Path, key: str, columns: str | None) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and vectors of a table."""
    import pandas as pd

    suffix = path.suffix.lower()
    if suffix == ".parquet":
        frame = pd.read_parquet(path)
    elif suffix in (".csv", ".tsv"):
        frame = pd.read_csv(path, dtype={key: str}, sep="\t" if suffix == ".tsv" else ",")
    else:
        raise ManifestError(
            f"a table {suffix!r}", expected=".parquet, .csv, .tsv or .npz", where=path.name
        )
    if key not in frame.columns:
        some = ", ".join(map(str, frame.columns[:6]))
        raise ManifestError(f"no column {key!r}", expected=f"one of {some}, ...", where=path.name)
    named = [name for name in frame.columns if name != key and fnmatch(str(name), columns or "*")]
    return [str(one).strip() for one in frame[key]], _vectors(frame, named, path.name)


def _vectors(frame: pd.DataFrame, named: Sequence[Any], where: str) -> NDArray[np.float32]:
    """The numbers of some columns: one of lists, or a column a feature.

    An id or a label among the features would be learned from, so whole numbers are no feature.
    """
    if len(named) == 1 and frame[named[0]].dtype == object:
        try:
            return np.stack([np.asarray(cell, dtype=np.float32) for cell in frame[named[0]]])
        except (TypeError, ValueError) as error:
            found = f"column {named[0]!r} holds no vectors of one length"
            raise ManifestError(found, where=where) from error
    strange = [str(name) for name in named if frame[name].dtype.kind != "f"]
    if strange or not named:
        some = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")
        raise ManifestError(
            f"columns that hold no fractions ({some})" if strange else "no column of features",
            expected="numbers with fractions in all columns besides the key",
            where=where,
            fix="Name the columns of the features: --columns 'f*'",
        )
    return frame[list(named)].to_numpy(dtype=np.float32)
