"""Files that a release holds in another form: run lengths, boxes and pieces of masks; arrays.

Each is drawn when it is written, beside the manifest and never into the release.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.cases.releases.cells import Maker, Oddities, ReleasedRow, column_of, filled
from medtl.cases.releases.sources import Release, texts
from medtl.errors import ManifestError

MASK_KEYS = ("rle", "boxes", "unite", "offsets", "order", "size", "none")
"""Keys of a mask that is drawn."""

MAX_ARRAY_BYTES = 4 << 30
"""Of one array of images, which is held in memory."""

MADE = "made:"
"""Beginning of a cell whose file is not in the release, but made for the manifest."""


@dataclass(frozen=True)
class Imported:
    """The contents of a release folder, as the start of a manifest.

    Attributes:
        rows: Rows of the manifest; paths are relative to the folder.
        sidecar: What the YAML file beside the manifest says.
        notes: What was decided and what the user has to look at.
        made: Cell of `rows` that begins with `MADE` -> what makes the file.
    """

    rows: tuple[dict[str, str], ...]
    sidecar: dict[str, Any]
    notes: tuple[str, ...]
    made: Mapping[str, Maker] = field(default_factory=dict)


def mask_of(
    rule: Any, rows: Sequence[ReleasedRow], release: Release, odd: Oddities
) -> str | Maker | None:
    """Return the mask of an image: a file of the release, what draws it, or None.

    Args:
        rule: Templates of a file; or `rle` (a column of run lengths), `boxes` (columns of left,
            top, width, height) or `unite` (label -> templates of files, their pixels above 0).
        rows: All that the release says of the image.
        release: Its folder.
        odd: Takes the faults.
    """
    if not isinstance(rule, dict):
        wanted = [(template, filled(template, rows[0].cells)) for template in texts(rule, "mask")]
        there = [name for template, path in wanted for name in release.found(template, path)]
        return there[0] if there else None
    if unknown := {*rule} - {*MASK_KEYS}:
        raise ManifestError(
            f"unknown key '{min(unknown)}' of a mask", expected=", ".join(MASK_KEYS)
        )
    if "unite" in rule:
        parts = {
            int(label): [
                name
                for template in texts(given, "unite")
                for name in release.found(template, filled(template, rows[0].cells))
            ]
            for label, given in rule["unite"].items()
        }
        lacking = [label for label, names in parts.items() if not names]
        if lacking and len(lacking) < len(parts):
            odd.fault(rows[0], f"the mask of label {lacking[0]} is not there, that of others is")
        return None if lacking else partial(_united, release.root, parts)
    size = tuple(rule["size"])
    if "boxes" in rule:
        boxes = [[row.cells[column_of(one, row.cells)] for one in rule["boxes"]] for row in rows]
        return partial(_boxed, [b for b in boxes if all(b)], size)
    column = column_of(rule["rle"], rows[0].cells)
    runs = [row.cells[column] for row in rows]
    if not any(runs):
        return None
    drawn = [text for text in runs if text and text not in map(str, rule.get("none", ()))]
    try:
        mask = run_lengths(
            drawn,
            (size[0], size[1]),
            relative=rule["offsets"] == "relative",
            columns_first=rule["order"] == "columns",
        )
    except ValueError as error:
        odd.fault(rows[0], f"{column}: {error}")
        return None
    return partial(_png, mask)


def run_lengths(
    texts_: Sequence[str], size: tuple[int, int], *, relative: bool, columns_first: bool
) -> NDArray[np.uint8]:
    """Return the pixels that run lengths cover as 1, `(rows, columns)`.

    Args:
        texts_: Pairs of a start and a length each; the runs of all are united.
        size: Rows and columns.
        relative: A start is counted from the end of the run before, from 0; else it is a pixel's
            number, from 1.
        columns_first: Pixels are numbered down the columns.

    Raises:
        ValueError: A text is no pairs of whole numbers, or a run leaves the image.

    Reference:
        `mask_functions.py` of the SIIM-ACR Pneumothorax Segmentation challenge (relative); the
        run lengths of other Kaggle challenges are absolute. Both number pixels down the columns.

    >>> run_lengths(["1 2 1 1"], (2, 3), relative=True, columns_first=True).tolist()
    [[0, 1, 1], [1, 0, 0]]
    """
    flat = np.zeros(size[0] * size[1], np.uint8)
    for text in texts_:
        words = text.split()
        if len(words) % 2 or not all(word.isdecimal() for word in words):
            raise ValueError("run lengths are no pairs of whole numbers")
        place = 0
        for start, length in zip(map(int, words[::2]), map(int, words[1::2]), strict=True):
            place = place + start if relative else start - 1
            if place < 0 or place + length > flat.size:
                raise ValueError(f"a run leaves the image of {size[0]} x {size[1]} pixels")
            flat[place : place + length] = 1
            place += length
    return flat.reshape(size, order="F" if columns_first else "C")


def array_rows(release: Release, source: Mapping[str, Any]) -> Iterator[ReleasedRow]:
    """Yield the images of an .npz archive, each with its label and what writes it.

    Args:
        release: The folder.
        source: `arrays` (the archive), `parts` (split -> names of the arrays of images and
            labels). A vector of labels becomes the numbers of those that are 1, with bars between.

    Raises:
        ManifestError: It is no such archive, too large, or images and labels differ in number.
    """
    names = [n for pattern in texts(source["arrays"], "arrays") for n, _ in release.named(pattern)]
    if not names:
        wanted = ", ".join(texts(source["arrays"], "arrays"))
        raise ManifestError("no archive of arrays", expected=wanted, where=release.root.name)
    if len(names) > 1:
        found = f"{len(names)} archives of arrays ({', '.join(names[:8])})"
        raise ManifestError(
            found, expected="one a manifest", fix="Put the one you want into a folder"
        )
    for part, (images, labels) in source["parts"].items():
        pictures, numbers = _array(release.root / names[0], images, labels)
        for i, picture in enumerate(pictures):
            one = np.atleast_1d(numbers[i])
            hot = [str(k) for k, value in enumerate(one) if value]
            label = str(one[0]) if len(one) == 1 else "|".join(hot) or "none"
            stem = Path(names[0]).stem
            cells = {"part": str(part), "label": label, "number": f"{i:06d}", "archive": stem}
            flat = picture.ndim == 2 or picture.shape[-1] == 3
            cells["file"] = f"{part}_{i:06d}{'.png' if flat else '.nii.gz'}"
            maker = partial(_png if flat else _volume, picture)
            yield ReleasedRow(cells, f"{names[0]}: {images}", i, maker)


def _array(path: Path, images: str, labels: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images and labels of one part."""
    try:
        with zipfile.ZipFile(path) as archive:
            large = max(info.file_size for info in archive.infolist())
        if large > MAX_ARRAY_BYTES:
            found = f"an array of {large >> 20} MiB"
            fix = "Take the release at a smaller size (28 or 64 pixels)"
            raise ManifestError(found, expected="at most 4096 MiB", where=path.name, fix=fix)
        with np.load(path, allow_pickle=False) as arrays:
            pictures, numbers = arrays[images], arrays[labels]
    except (
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        found = f"no archive with the arrays {images} and {labels} ({type(error).__name__})"
        raise ManifestError(found, where=path.name) from error
    if len(pictures) != len(numbers) or pictures.ndim < 3 or pictures.dtype != np.uint8:
        found = f"{images} {pictures.shape} {pictures.dtype} and {labels} {numbers.shape}"
        raise ManifestError(found, expected="as many 8-bit images as labels", where=path.name)
    return pictures, numbers


def _png(array: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG with just these values."""
    from PIL import Image as Picture

    file = io.BytesIO()
    Picture.fromarray(array).save(file, "PNG")
    return file.getvalue()


def _volume(array: NDArray[np.uint8]) -> bytes:
    """The bytes of a NIfTI volume whose spacing nobody has published."""
    import gzip

    import nibabel

    made: Any = nibabel.Nifti1Image(array, np.eye(4))  # type: ignore[no-untyped-call]
    return gzip.compress(made.to_bytes(), mtime=0)


def _boxed(boxes: Sequence[Sequence[str]], size: tuple[int, ...]) -> bytes:
    """A mask of filled boxes: left, top, width, height in pixels from 0."""
    mask = np.zeros(size, np.uint8)
    for box in boxes:
        left, top, width, height = (round(float(cell)) for cell in box)
        mask[max(top, 0) : top + height, max(left, 0) : left + width] = 1
    return _png(mask)


def _united(root: Path, parts: Mapping[int, Sequence[str]]) -> bytes:
    """A mask of the pixels above 0 of several files, each group with its label."""
    from PIL import Image as Picture

    mask: NDArray[np.uint8] | None = None
    for label, names in parts.items():
        for name in names:
            with Picture.open(root / name) as picture:
                drawn = np.asarray(picture.convert("L")) > 0
            mask = np.zeros(drawn.shape, np.uint8) if mask is None else mask
            if mask.shape != drawn.shape:
                raise ManifestError(
                    f"a mask of {drawn.shape}", expected=f"{mask.shape}", where=name
                )
            mask[drawn] = label
    assert mask is not None
    return _png(mask)
