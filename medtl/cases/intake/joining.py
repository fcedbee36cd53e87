"""Joining a hospital's sheet to its images: by which id the two belong together, and what does not.

A sheet says "accession number 4711: pneumonia"; a DICOM header, a file name or a folder name says
4711. Which of them it is, is seen from how many rows find images. It happens before pseudonyms are
made, and no message quotes an id.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import PureWindowsPath

from medtl.cases.spellings import folded, folded_id, is_rounded
from medtl.errors import ManifestError
from medtl.storage.tables import rows_text

_SHOWN = 20
"""Signs of a pattern that a message shows."""


@dataclass(frozen=True)
class Join:
    """The row of a sheet that each image belongs to.

    Attributes:
        by: What of the images the sheet's column holds ("accession number").
        rows: For each image the index of its row in the sheet, or None.
        lonely_rows: Indices of the rows that no image belongs to.
        notes: What was taken, and how many on either side found no partner.
    """

    by: str
    rows: tuple[int | None, ...]
    lonely_rows: tuple[int, ...]
    notes: tuple[str, ...]


def join_sheet(
    keys: Sequence[str],
    images: Sequence[Mapping[str, Sequence[str]]],
    *,
    column: str,
    match: str | None = None,
) -> Join:
    """Return which row each image belongs to, by the id that most rows find images by.

    Args:
        keys: Cells of the sheet's key column, one a row.
        images: For each image, kind of id -> what it may be called by ("folder" may be several).
        column: Name of the key column, for messages.
        match: The kind of id, where the user has said it.

    Raises:
        ManifestError: When a key stands in two rows, a spreadsheet has rounded the keys, no id
            fits, or two kinds of id fit equally well and join the images differently.

    >>> images = [{"accession number": ["4711"], "patient id": ["P1"]},
    ...           {"accession number": ["4712"], "patient id": ["P1"]}]
    >>> join_sheet(["4712", "4711"], images, column="Fall").rows
    (1, 0)
    """
    row_of = _row_of(keys, column)
    kinds = list(dict.fromkeys(kind for image in images for kind in image))
    if match is not None:
        if match not in kinds:
            raise ManifestError(f"no image has a {match!r}", expected=f"one of {', '.join(kinds)}")
        kinds = [match]
    written = {key.strip() for key in keys}
    tried = {kind: _rows_by(kind, row_of, images, written) for kind in kinds}
    counts = {kind: len({row for row in rows if row is not None}) for kind, rows in tried.items()}
    best = max(counts.values(), default=0)
    names = [PureWindowsPath(key).name for key in keys]  # which knows both kinds of slashes
    files = {folded_id(name) for image in images for name in image.get("file name", ())}
    are_paths = names != [*keys] and not files.isdisjoint(map(folded_id, names))
    if best == 0 and are_paths and match is None:
        join = join_sheet(names, images, column=column, match="file name")
        said = f"of '{column}' the last part alone was compared: its folders are not these"
        return replace(join, notes=(*join.notes, said))
    if best == 0:
        called = {
            kind: _pattern(name for image in images for name in image.get(kind, ()))
            for kind in kinds
        }
        raise ManifestError(
            f"none of the {len(row_of)} ids in column '{column}' ({_pattern(keys)}) belongs to one "
            f"of {len(images)} images",
            expected="what the images are called by: "
            + ", ".join(f"{kind} ({pattern})" for kind, pattern in called.items()),
            fix="Name another column with --key, or write its ids as the images have them (in the "
            "patterns 9 is any digit and a any letter)",
        )
    fitting = [kind for kind in kinds if counts[kind] == best]
    if any(tried[kind] != tried[fitting[0]] for kind in fitting):
        raise ManifestError(
            f"column '{column}' fits {' and '.join(fitting)} equally well ({best} rows each), and "
            "they join the images differently",
            fix=f"Say which with --match, for example --match '{fitting[0]}'",
        )
    rows = tried[fitting[0]]
    lonely = tuple(sorted(set(row_of.values()) - set(rows)))
    notes = _notes(fitting[0], column, keys, rows, lonely)
    exact = [written & set(image.get(fitting[0], ())) for image in images]
    if any(row is not None and not same for row, same in zip(rows, exact, strict=True)):
        notes += (f"ids were compared without case, blanks and leading zeros ('{column}')",)
    return Join(fitting[0], rows, lonely, notes)


def _pattern(names: Iterable[str]) -> str:
    """How the most of some ids are written, without one of them.

    >>> _pattern(["PX-0012", "PX-0013", "7"])
    'like aa-9999'
    """
    forms = Counter(
        re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", name.strip())) for name in names if name.strip()
    )
    if not forms:
        return "all are empty"
    form = forms.most_common(1)[0][0]
    return f"like {form[:_SHOWN]}{'...' if len(form) > _SHOWN else ''}"


def _row_of(keys: Sequence[str], column: str) -> dict[str, int]:
    """Folded key -> index of its row."""
    rows: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key.strip():
            rows[folded_id(key)].append(index)
    rounded = [index for index, key in enumerate(keys) if is_rounded(key)]
    if rounded:
        raise ManifestError(
            f"{len(rounded)} ids in column '{column}' were rounded by a spreadsheet (2.0231E+11)",
            where=_sheet_rows(rounded),
            fix="Format the column as text in the spreadsheet, and export the sheet again",
        )
    twice = [group for group in rows.values() if len(group) > 1]
    if twice:
        raise ManifestError(
            f"{len(twice)} ids of column '{column}' stand in more than one row",
            where=_sheet_rows([index for group in twice for index in group]),
            fix="Leave one row an id, or name a column with --key whose ids differ",
        )
    return {key: group[0] for key, group in rows.items()}


def _rows_by(
    kind: str,
    row_of: Mapping[str, int],
    images: Sequence[Mapping[str, Sequence[str]]],
    written: Set[str],
) -> tuple[int | None, ...]:
    """Each image's row by one kind of id; None where no row, or more than one, has it.

    One person may have two spellings of an id, but 7.png and 07.png are two files: the row is that
    of the one whose name it spells, and of none when it spells neither.
    """
    found = ({row_of.get(folded_id(name)) for name in image.get(kind, ())} for image in images)
    known = [rows - {None} for rows in found]
    joined = tuple(next(iter(rows)) if len(rows) == 1 else None for rows in known)
    if kind != "file name":
        return joined
    files = defaultdict[int, set[tuple[str, ...]]](set)
    for row, image in zip(joined, images, strict=True):
        if row is not None:
            files[row].add(tuple(image[kind]))
    return tuple(
        row
        if row is not None and (len(files[row]) == 1 or not written.isdisjoint(image[kind]))
        else None
        for row, image in zip(joined, images, strict=True)
    )


def _notes(
    kind: str, column: str, keys: Sequence[str], rows: Sequence[int | None], lonely: Sequence[int]
) -> tuple[str, ...]:
    """Return notes on what was taken, and on what has no partner on either side."""
    joined = [row for row in rows if row is not None]
    notes = [
        f"'{column}' is the {kind} of the images: {len(joined)} of {len(rows)} images belong to "
        f"{len(set(joined))} of {len(keys)} rows"
    ]
    if len(joined) > len(set(joined)):
        notes.append("rows with several images give each of them the same label")
    if lonely:
        notes.append(f"{len(lonely)} rows have no image: {_sheet_rows(lonely)}")
    empty = sum(not folded(key) for key in keys)
    if empty:
        notes.append(f"{empty} rows have no '{column}'")
    if len(joined) < len(rows):
        notes.append(f"{len(rows) - len(joined)} images have no row and are left out")
    return tuple(notes)


def _sheet_rows(indices: Sequence[int]) -> str:
    """Row numbers as a spreadsheet counts them, the header being row 1."""
    return rows_text([index + 2 for index in indices])
