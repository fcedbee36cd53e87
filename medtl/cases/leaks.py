"""Leaks: what lets a model be tested on what it has seen.

A patient in two splits is found from ids alone. The same image under two ids is found from decoded
pixels, so that neither a new file name nor another file format hides it.

Reference: Kapoor and Narayanan 2023, Patterns 4:100804 (leakage and the reproducibility crisis).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import LeakError, ManifestError
from medtl.storage.tables import raise_together, rows_text
from medtl.types import SPLITS, Case, Manifest

_MAX_ROWS = 5
"""Rows of one patient and split, or copies of one image, that a message names."""


def check_patients(manifest: Manifest) -> None:
    """Raise if a patient is in two splits.

    Raises:
        LeakError: Naming the rows and the (pseudonymous) patients.
    """
    raise_together(patient_faults(manifest.cases), "manifest")


def patient_faults(cases: Iterable[Case]) -> list[LeakError]:
    """Return one fault for each patient who is in more than one split."""
    cases = [case for case in cases if case.split]
    first: dict[str, str] = {}
    apart = {c.patient_id for c in cases if first.setdefault(c.patient_id, c.split) != c.split}
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        if case.patient_id in apart:
            rows[case.patient_id][case.split].append(case.row)
    return [
        LeakError(
            f"leak: patient {patient_id} is in " + " and in ".join(_places(rows_of)),
            fix="Give all images of a patient the same split",
        )
        for patient_id, rows_of in rows.items()
        if len(rows_of) > 1
    ]


def content_hash(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an image's shape, type and decoded values, in hexadecimal.

    Args:
        array: Any shape; the byte order and memory layout make no difference.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str}{array.shape}".encode())
    digest.update(little.data if little.size else b"")
    return digest.hexdigest()


def find_duplicates(hashes: Mapping[str, str], manifest: Manifest) -> list[tuple[Case, ...]]:
    """Return the groups of two or more cases whose pixels are identical, in file order.

    Args:
        hashes: Case id -> content hash; cases without one are left out.
        manifest: The cases.
    """
    same: dict[str, list[Case]] = defaultdict(list)
    for case in manifest.cases:
        if case.case_id in hashes:
            same[hashes[case.case_id]].append(case)
    return [tuple(group) for group in same.values() if len(group) > 1]


def check_pixels(hashes: Mapping[str, str], manifest: Manifest) -> tuple[str, ...]:
    """Return a note for each image that one split holds twice; raise if two splits share one.

    Args:
        hashes: Case id -> content hash, of all cases whose image can be read.
        manifest: The cases, each with its split.

    Raises:
        LeakError: Naming the cases and rows of every image that is in two splits.
    """
    groups = find_duplicates(hashes, manifest)
    fix = "Keep one copy, or put all copies in one split"
    faults = [
        LeakError(f"leak: identical pixels (same content hash) in {_named(group)}", fix=fix)
        for group in groups
        if len({case.split for case in group}) > 1
    ]
    raise_together(faults, "manifest")
    return tuple(_duplicate_note(group) for group in groups)


def without_copies(
    hashes: Mapping[str, str], manifest: Manifest
) -> tuple[Manifest, tuple[str, ...]]:
    """Return the manifest with the first of equal images alone, and which rows were left out.

    A copy in another split is left out too if its patient has no other image there: else two ids
    may be one person, whose other images would still leak, and the copy stays for `check_pixels`.

    Args:
        hashes: Case id -> content hash, of all cases whose image can be read.
        manifest: The cases, each with its split.

    Raises:
        ManifestError: If equal images have different labels or masks.
    """
    groups = find_duplicates(hashes, manifest)
    faults = [
        ManifestError(
            f"identical pixels with different labels or masks: {_named(group)}",
            expected="one label for one image",
            where="data.duplicates",
            fix="Correct the labels: which of them is dropped would decide",
        )
        for group in groups
        if len({_truth(case) for case in group}) > 1
    ]
    raise_together(faults, "manifest")
    images = Counter(case.patient_id for case in manifest.cases)
    dropped: dict[str, int] = {}
    for first, *copies in groups:
        for copy in copies:
            if copy.split == first.split or images[copy.patient_id] == 1:
                dropped[copy.case_id] = copy.row
                images[copy.patient_id] -= 1
    if not dropped:
        return manifest, ()
    cases = tuple(case for case in manifest.cases if case.case_id not in dropped)
    note = (
        f"{len(dropped)} images are copies of others (equal pixels, equal labels) and are left "
        f"out: {rows_text([*dropped.values()])}"
    )
    return replace(manifest, cases=cases), (note,)


def _truth(case: Case) -> tuple[object, ...]:
    """What is said of an image: its labels, and the bytes of its mask."""
    mask = case.mask.read_bytes() if case.mask is not None and case.mask.is_file() else case.mask
    return (*sorted(case.targets.items()), mask)


def _duplicate_note(group: Sequence[Case]) -> str:
    """Return what to say about one image that a split holds under several ids."""
    labels = {tuple(sorted(case.targets.items())) for case in group}
    oddities = ["with different labels"] if len(labels) > 1 else []
    oddities += ["under different patients"] if len({case.patient_id for case in group}) > 1 else []
    extra = f", {' and '.join(oddities)}" if oddities else ""
    return f"identical pixels in {_named(group)}{extra}"


def _named(group: Sequence[Case]) -> str:
    """Return "case c-1 (row 2, train) and case c-2 (row 9, test)"; every split is represented."""
    first = {case.split: case for case in reversed(group)}
    shown = sorted(group, key=lambda case: case is not first[case.split])[:_MAX_ROWS]
    shown = sorted(shown, key=lambda case: case.row)
    text = " and ".join(f"case {one.case_id} (row {one.row}, {one.split})" for one in shown)
    more = len(group) - len(shown)
    return f"{text} and {more} more" if more else text


def _places(rows_of: Mapping[str, Sequence[int]]) -> list[str]:
    """Return "train (rows 2, 5)" for each split of one patient."""
    places = []
    for split in sorted(rows_of, key=SPLITS.index):
        rows = rows_of[split]
        numbers = ", ".join(str(row) for row in rows[:_MAX_ROWS])
        more = f" and {len(rows) - _MAX_ROWS} more" if len(rows) > _MAX_ROWS else ""
        places.append(f"{split} ({'row' if len(rows) == 1 else 'rows'} {numbers}{more})")
    return places
