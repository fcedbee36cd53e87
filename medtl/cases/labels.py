"""What a column of labels must not hold unnoticed: strangers, words for "missing", one value."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medtl.errors import ManifestError
from medtl.types import SPLITS, Case

MISSING_WORDS = frozenset({"nan", "na", "n/a", "#n/a", "null", "none", "nil", "missing", "?", "-"})
"""What programs and people write into a cell of numbers to say that there is none."""

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")


def label_faults(
    cases: Sequence[Case], column: str, classes: Sequence[str] = ()
) -> list[ManifestError]:
    """Return what is wrong with the values of a column of labels.

    Words for "missing" are honest names of classes ("NA", "None") among other words; among numbers
    they are not, and they must not become a class. Stated classes settle both.

    Args:
        cases: Of the whole study.
        column: A target column.
        classes: All values that it may have, () when the user does not say.
    """
    rows: dict[str, list[str]] = {}
    for case in cases:
        rows.setdefault(case.targets[column], []).append(str(case.row))
    values = [value for value in rows if value]
    if classes:
        strangers = [value for value in values if value not in classes]
        faults = [
            ManifestError(
                f"data.classes: {name!r} occurs in no row",
                where=f"column {column!r}",
                fix="Take it out of data.classes, or correct the column",
            )
            for name in classes
            if name not in rows
        ]
    else:
        words = [value for value in values if not _NUMBER.fullmatch(value)]
        is_numeric = len(words) < len(values)
        all_missing = all(word.casefold() in MISSING_WORDS for word in words)
        strangers, faults = (words if is_numeric and all_missing else []), []
    expected = f"one of {', '.join(classes)}" if classes else "a number, or nothing"
    fix = "Leave a cell empty when the label is not known; else correct it, or state data.classes"
    return faults + [
        ManifestError(
            f"the label {value!r} (rows {', '.join(rows[value][:5])})",
            expected=expected,
            where=f"column {column!r}",
            fix=fix,
        )
        for value in strangers
    ]


def one_value_notes(cases: Sequence[Case], columns: Sequence[str]) -> list[str]:
    """Return a note for each split in which a target column has one value only."""
    notes = []
    for split in SPLITS:
        part = [case for case in cases if case.split == split]
        for column in columns:
            values = {case.targets[column] for case in part} - {""}
            if part and len(values) < 2:
                only = f"the class {values.pop()!r} only" if values else "no known label"
                notes.append(
                    f"the {split} split holds {only} of column {column!r}: statistics that compare "
                    "classes, such as the AUROC, are undefined there"
                )
    return notes
