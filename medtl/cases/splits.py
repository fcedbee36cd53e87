"""Splits: who trains, who tunes, who tests. A patient is never divided.

One algorithm makes every split, also the folds: greedy iterative stratification, carried from
images to patients. The result depends on the patients and the seed, not on the order of rows.

Reference: Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data",
ECML PKDD, algorithm 1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ManifestError
from medtl.types import SPLITS, Case, IntArray, Manifest

INNER_VALIDATION = (7, 1)
"""Training to validation patients where validation is cut from what is not the test set."""


def grouped_split(
    groups: Sequence[str], labels: IntArray, fractions: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Return the part of each row, `(n,)`, so that parts hold their share of rows and labels.

    The rarest label is dealt out first, its largest groups first, each to the part that lacks it
    most; ties go to the part that lacks rows most, then by a draw. What has no label is dealt out
    last, by rows. When no more groups are left than parts are empty, those get one each.

    Args:
        groups: Patient of each row, `(n,)`; all rows of a patient go to one part.
        labels: 0 or 1, `(n, k)`: k findings, or one column per class or bin; k may be 0.
        fractions: Share of each part, positive, any scale: `(8, 1, 1)`, or `(1,) * 5` for folds.
        seed: Of the draws.

    Raises:
        ValueError: If shapes do not agree, labels are not 0 or 1, a share is not positive, or
            there are fewer patients than parts.
    """
    labels = np.asarray(labels)
    shares = np.asarray(fractions, dtype=np.float64)
    if labels.ndim != 2 or len(labels) != len(groups) or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, one row for each of {len(groups)} groups")
    if shares.ndim != 1 or not len(shares) or not (np.isfinite(shares) & (shares > 0)).all():
        raise ValueError("fractions must be positive numbers")
    names, members = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if len(names) < len(shares):
        raise ValueError(f"{len(names)} patients cannot fill {len(shares)} parts")
    counts = np.zeros((len(names), labels.shape[1]), dtype=np.int64)
    np.add.at(counts, members, labels)
    sizes = np.bincount(members)
    draws = [_draw(seed, str(name)) for name in names]
    return _deal(counts, sizes, shares / shares.sum(), draws)[members]


def assign_splits(
    manifest: Manifest, labels: IntArray, *, fractions: Sequence[float] = (8, 1, 1), seed: int = 0
) -> Manifest:
    """Return the manifest with a split for every case: the given ones where there are any.

    Without a test part, a given validation part becomes the test part; without a validation part,
    one is cut from the training patients. A note says so.

    Args:
        manifest: Cases with `split` "" for all, or given for all.
        labels: What to stratify by, 0 or 1, `(number of cases, k)`.
        fractions: Training, validation and test share of a split that is made.
        seed: Of the split that is made.

    Raises:
        ManifestError: If the given splits lack a training part or anything to test on, or there
            are too few patients.
    """
    given = {case.split for case in manifest.cases}
    if not given - {""}:
        return _make(manifest, labels, fractions, seed)
    if not {"train"} < given:
        raise ManifestError(
            f"the split column has only {' and '.join(sorted(given))}",
            expected="train and test, with or without val",
            fix="Name all parts, or delete the column to have them made",
        )
    notes = []
    if "test" not in given:
        manifest = _with_splits(
            manifest, ["test" if case.split == "val" else case.split for case in manifest.cases]
        )
        notes.append("the manifest has no test part: its validation part became the test part")
    if {"val", "test"} - given:
        manifest, note = _cut_validation(manifest, labels, seed)
        notes.append(note)
    return replace(manifest, notes=(*manifest.notes, *notes))


def nested_share(manifest: Manifest, labels: IntArray, share: float, seed: int) -> Manifest:
    """Return the manifest with a share of its training patients; all others stay.

    With one seed, the patients of a smaller share are among those of a larger one. Patients are
    counted within those of the same labels, of whom at least one stays.

    Args:
        manifest: Split.
        labels: What to stratify by, 0 or 1, `(number of cases, k)`.
        share: In (0, 1]; 1 changes nothing.
        seed: Of who comes first.
    """
    if share == 1:
        return manifest
    groups = _path_groups(manifest)
    own: dict[str, NDArray[np.bool_]] = {}
    for case, group, row in zip(manifest.cases, groups, np.asarray(labels) > 0, strict=True):
        if case.split == "train":
            own[group] = own.get(group, row) | row
    alike: dict[bytes, list[str]] = {}
    for group in sorted(own, key=lambda name: (_draw(seed, name), name)):
        alike.setdefault(own[group].tobytes(), []).append(group)
    kept = {name for names in alike.values() for name in names[: math.ceil(share * len(names))]}
    cases = [
        case
        for case, group in zip(manifest.cases, groups, strict=True)
        if case.split != "train" or group in kept
    ]
    note = f"{len(kept)} of {len(own)} training patients are used, stratified, seed {seed}"
    return replace(manifest, cases=tuple(cases), notes=(*manifest.notes, note))


def kfold(manifest: Manifest, labels: IntArray, folds: int, seed: int) -> list[Manifest]:
    """Return one manifest per fold: every patient is in the test part of exactly one.

    Each fold cuts its own validation part, 1/8, from its other patients. Given splits are ignored.

    Args:
        manifest: The cases.
        labels: What to stratify by, 0 or 1, `(number of cases, k)`.
        folds: Number of folds, at least 2.
        seed: Of the folds and of the cuts.

    Raises:
        ManifestError: If there are too few folds, or too few patients for them.
    """
    _refuse_few_folds(folds)
    _refuse_few(manifest.cases, max(folds, len(SPLITS)))
    groups = _path_groups(manifest)
    fold_of = grouped_split(groups, labels, (1,) * folds, seed)
    manifests = []
    for fold in range(folds):
        splits = ["test" if k == fold else "train" for k in fold_of]
        one, note = _cut_validation(_with_splits(manifest, splits), labels, seed + 1 + fold)
        about = f"fold {fold + 1} of {folds} is the test part; seed {seed}"
        manifests.append(replace(one, notes=(*one.notes, about, note)))
    return manifests


def validation_folds(manifest: Manifest, labels: IntArray, folds: int, seed: int) -> list[Manifest]:
    """Return one manifest per fold: all have its test part, and each validates other patients.

    Every patient who is not in the test part validates in exactly one fold and trains in the rest.

    Args:
        manifest: Cases with a split, of which the test part is kept.
        labels: What to stratify by, 0 or 1, `(number of cases, k)`.
        folds: Number of folds, at least 2.
        seed: Of the folds.

    Raises:
        ManifestError: If there are too few folds, or too few patients for them.
    """
    rows = [i for i, case in enumerate(manifest.cases) if case.split != "test"]
    _refuse_few_folds(folds)
    _refuse_few([manifest.cases[i] for i in rows], folds)
    groups = _path_groups(manifest)
    fold_of = grouped_split([groups[i] for i in rows], labels[rows], (1,) * folds, seed)
    manifests = []
    for fold in range(folds):
        splits = [case.split for case in manifest.cases]
        for i, k in zip(rows, fold_of, strict=True):
            splits[i] = "val" if k == fold else "train"
        about = f"fold {fold + 1} of {folds} is the validation part; seed {seed}"
        one = _with_splits(manifest, splits)
        manifests.append(replace(one, notes=(*one.notes, about)))
    return manifests


def split_hash(manifest: Manifest) -> str:
    """Return the SHA-256 of which case is in which split, whatever the order of rows."""
    lines = sorted(f"{case.case_id}\t{case.split}\n" for case in manifest.cases)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _make(manifest: Manifest, labels: IntArray, fractions: Sequence[float], seed: int) -> Manifest:
    """Return the manifest with a split of the given shares."""
    _refuse_few(manifest.cases, len(SPLITS))
    parts = grouped_split(_path_groups(manifest), labels, fractions, seed)
    made = _with_splits(manifest, [SPLITS[part] for part in parts])
    shares = ":".join(f"{share:g}" for share in fractions)
    note = f"split by patient {shares}, stratified, seed {seed}"
    return replace(made, notes=(*made.notes, note))


def _cut_validation(manifest: Manifest, labels: IntArray, seed: int) -> tuple[Manifest, str]:
    """Return the manifest with 1/8 of its training patients as validation part, and a note."""
    rows = [i for i, case in enumerate(manifest.cases) if case.split == "train"]
    _refuse_few([manifest.cases[i] for i in rows], len(INNER_VALIDATION))
    groups = _path_groups(manifest)
    parts = grouped_split([groups[i] for i in rows], labels[rows], INNER_VALIDATION, seed)
    splits = [case.split for case in manifest.cases]
    for i, part in zip(rows, parts, strict=True):
        splits[i] = SPLITS[part]
    cut = _with_splits(manifest, splits)
    num_all = _num_patients(manifest.cases[i] for i in rows)
    num_val = _num_patients(case for case in cut.cases if case.split == "val")
    return cut, f"{num_val} of {num_all} training patients were cut off for validation, seed {seed}"


def _path_groups(manifest: Manifest) -> list[str]:
    """Return a name of each case's patient that no salt changes: its first image path.

    Draws go by it, so that the same table gives the same split on every machine.
    """
    first: dict[str, str] = {}
    paths = [case.image.relative_to(manifest.root).as_posix() for case in manifest.cases]
    paths = [f"{path}#{case.frame}" for path, case in zip(paths, manifest.cases, strict=True)]
    for case, path in zip(manifest.cases, paths, strict=True):
        first[case.patient_id] = min(path, first.get(case.patient_id, path))
    return [first[case.patient_id] for case in manifest.cases]


def _with_splits(manifest: Manifest, splits: Sequence[str]) -> Manifest:
    """Return the manifest with these splits, one per case."""
    pairs = zip(manifest.cases, splits, strict=True)
    return replace(manifest, cases=tuple(replace(case, split=split) for case, split in pairs))


def _refuse_few_folds(folds: int) -> None:
    """Raise if a fold would have nobody to learn from."""
    if folds < 2:
        raise ManifestError(f"{folds} folds", expected="2 or more", fix="Ask for more folds")


def _refuse_few(cases: Sequence[Case], least: int) -> None:
    """Raise if there are too few patients for that many parts."""
    num_patients = _num_patients(cases)
    if num_patients < least:
        raise ManifestError(
            f"{num_patients} patient{'' if num_patients == 1 else 's'} ({len(cases)} rows) are too "
            f"few for a split into {least} parts",
            expected=f"at least {least} patients",
            fix="Add patients",
        )


def _num_patients(cases: Iterable[Case]) -> int:
    """Return how many patients the cases are of."""
    return len({case.patient_id for case in cases})


def _draw(seed: int, name: str) -> int:
    """Return a number that looks random and depends on nothing but seed and name."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big")


def _deal(
    counts: IntArray, sizes: IntArray, shares: NDArray[np.float64], draws: Sequence[int]
) -> NDArray[np.int64]:
    """Return the part of each group (see `grouped_split`).

    Args:
        counts: Rows of each group with each label, `(groups, k)`.
        sizes: Rows of each group, `(groups,)`.
        shares: Share of each part, summing to 1.
        draws: One per group, for ties.
    """
    lacking_labels = shares[:, None] * counts.sum(axis=0)
    lacking_rows = shares * sizes.sum()
    part_of = np.full(len(sizes), -1, dtype=np.int64)
    num_free, empty = len(sizes), set(range(len(shares)))

    def deal(group: int, lacking: NDArray[np.float64]) -> None:
        nonlocal num_free
        allowed = sorted(empty) if num_free <= len(empty) else range(len(shares))
        part = max(
            allowed,
            key=lambda p: (
                round(float(lacking[p]), 9),
                round(float(lacking_rows[p]), 9),
                (p + draws[group]) % len(shares),
            ),
        )
        part_of[group] = part
        lacking_labels[part] -= counts[group]
        lacking_rows[part] -= sizes[group]
        num_free -= 1
        empty.discard(part)

    while (left := counts[part_of < 0].sum(axis=0)).any():
        label = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        having = np.flatnonzero((part_of < 0) & (counts[:, label] > 0)).tolist()
        for group in sorted(having, key=lambda g: (-counts[g, label], -sizes[g], draws[g])):
            deal(group, lacking_labels[:, label])
    rest = np.flatnonzero(part_of < 0).tolist()
    for group in sorted(rest, key=lambda g: (-sizes[g], draws[g])):
        deal(group, lacking_rows)
    return part_of
