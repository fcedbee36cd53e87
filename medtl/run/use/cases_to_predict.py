"""The cases that a prediction is asked for: of the run's own manifest, of another one, or files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medtl.cases.intake.masks_beside import masks_among, masks_line
from medtl.cases.manifest import manifest_columns, read_manifest
from medtl.cases.paths import path_below
from medtl.cases.pseudonyms import load_salt, pseudonym
from medtl.errors import ManifestError
from medtl.storage.spreadsheets import TABLES as MANIFESTS
from medtl.storage.tables import read_table
from medtl.types import SPLITS, Case, Manifest

if TYPE_CHECKING:
    from medtl.prediction.sink import Model

TABLES = {".csv", ".parquet"}
"""Endings of a table of predictions."""

TEXTS = MANIFESTS | {".yaml", ".yml", ".json", ".md"}
"""Endings of what lies beside images and is none."""

HELD_OUT = ("val", "test")
"""Parts of a run's own manifest that are predicted when nothing else is asked for."""


LEARNED_FROM = frozenset({"train", "val"})
"""Parts that chose the weights, the epoch or the threshold."""


@dataclass(frozen=True)
class CasesToPredict:
    """The cases that a prediction is asked for.

    Attributes:
        manifest: All of them.
        is_own: Whether they are cases of the run's own manifest, with its ids and parts.
        notes: What was left out, and why.
        own: The run's `manifest.csv`, which knows the pixels that the network learned from.
    """

    manifest: Manifest
    is_own: bool = False
    notes: tuple[str, ...] = ()
    own: Path | None = None

    def learned_line(self, hashes: Collection[str]) -> list[str]:
        """Return what is said where new images are some that the run was trained or tuned on.

        Args:
            hashes: Of the decoded images, one each.
        """
        if self.is_own or self.own is None or not self.own.is_file():
            return []
        learned = {
            row["content_sha256"] for row in _own_rows(self.own) if row["split"] in LEARNED_FROM
        }
        known = sum(one in learned for one in hashes if one)
        if not known:
            return []
        return [
            f"The run was trained or tuned on {known} of these images (equal pixels): their scores "
            "say nothing about new patients"
        ]


def find_cases(
    own: Path, data: Path, trained: Model, splits: Collection[str] = ()
) -> CasesToPredict:
    """Return the cases to predict.

    Args:
        own: The run's `manifest.csv`.
        data: A manifest, a folder of images, or one image.
        trained: Knows the columns, and the hash of the run's manifest.
        splits: Of the run's own cases; none stated takes `HELD_OUT`.

    Raises:
        ManifestError: When there is nothing to predict, the manifest has faults, or splits are
            asked for that are none or of images that have none.
    """
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise ManifestError(
            f"no part of a run is called {', '.join(map(repr, unknown))}",
            expected=f"some of {', '.join(SPLITS)}",
            where="--splits",
        )
    if data.suffix.lower() not in MANIFESTS:
        chosen = _of_files(data)
    else:
        chosen = _of_manifest(own, data, trained, splits or HELD_OUT)
    if splits and not chosen.is_own:
        raise ManifestError(
            "these images are not the run's own, and are in no part of it",
            expected="the manifest that the run was made of, unchanged",
            where=data.name,
        )
    return replace(chosen, own=own)


def _of_manifest(own: Path, data: Path, trained: Model, splits: Collection[str]) -> CasesToPredict:
    """The cases of a manifest: all of a new one, some parts of the run's own."""
    present = manifest_columns(data)
    columns = trained.columns
    known = columns.within(present).described_by(present)
    is_whole = len(known.targets) == len(columns.targets)
    of_findings = len(columns.targets) == len(trained.task.labels)  # each has its own column
    manifest = read_manifest(
        data,
        replace(
            known,
            targets=known.targets if is_whole or of_findings else (),
            one_image_per_patient=known.one_image_per_patient or "patient_id" not in present,
        ),
    )
    if manifest.sha256 != trained.meta["manifest_sha256"] or not own.is_file():
        if trained.task.encode is None:
            trained.task.truth_matrix(manifest.cases)  # refuses cells of no meaning before any work
        return CasesToPredict(manifest)
    return _own_cases(own, manifest, splits)


def _own_cases(own: Path, manifest: Manifest, splits: Collection[str]) -> CasesToPredict:
    """The run's cases of some splits, with the ids and splits that the run gave them."""
    rows = _rows_of(own, manifest)
    cases = [
        replace(case, case_id=row["case_id"], patient_id=row["patient_id"], split=row["split"])
        for case, row in zip(manifest.cases, rows, strict=True)
        if row is not None and row["split"] in splits and row["content_sha256"]
    ]
    if not cases:
        raise ManifestError(
            f"the run has no image of {' or '.join(splits)} that could be read", where=own.name
        )
    read = [row["split"] for row in rows if row is not None and row["content_sha256"]]
    others = Counter(split for split in read if split not in splits)
    notes = [_left_out(others, splits, len(rows))] if others else []
    if lost := len(rows) - len(read):
        notes.append(
            f"{lost} images of the manifest are left out here as by the run: they could not be "
            "read, are copies, or were not drawn (its data_quality.json and report)"
        )
    return CasesToPredict(replace(manifest, cases=tuple(cases)), is_own=True, notes=tuple(notes))


def _rows_of(own: Path, manifest: Manifest) -> list[dict[str, str] | None]:
    """The run's row of each case; None for one that it dropped.

    Rows are matched by position: the hash says that the file is the same, and ids are pseudonyms
    that another machine's salt would make different. Where the run dropped some, the ids remain.

    Raises:
        ManifestError: When it dropped some, and the ids are of another machine.
    """
    rows = _own_rows(own)
    if len(rows) == len(manifest.cases):
        return [*rows]
    by_id = {row["case_id"]: row for row in rows}
    found = [by_id.get(case.case_id) for case in manifest.cases]
    if len(rows) != sum(row is not None for row in found):
        raise ManifestError(
            f"the run kept {len(rows)} of {len(found)} rows, and its ids are of another machine: "
            "which rows it kept cannot be known",
            where=own.name,
            fix="Predict the run's own manifest on the machine that made the run",
        )
    return found


def _own_rows(own: Path) -> list[dict[str, str]]:
    """The rows of a run's `manifest.csv`."""
    table = read_table(own)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _left_out(others: Counter[str], splits: Collection[str], total: int) -> str:
    """What is said of the parts of a run's own manifest that are not asked for."""
    asked, left = (
        " and ".join(name for name in SPLITS if name in part) for part in (splits, others)
    )
    why = ", from which the network learned" if "train" in others else ""
    return (
        f"The run's own manifest: of its {total} images {sum(others.values())} were left out, "
        f"those of {left}{why}. Predicted: {asked}. For all: --splits {','.join(SPLITS)}"
    )


def _of_files(data: Path) -> CasesToPredict:
    """One case per file below a folder that is no table, text or mask, or the one file."""
    if not data.exists():
        raise ManifestError("there is no such file or folder", where=data.name)
    root = data if data.is_dir() else data.parent
    files = sorted(p for p in data.rglob("*") if p.is_file()) if data.is_dir() else [data]
    files = [p for p in files if not p.name.startswith(".") and p.suffix.lower() not in TEXTS]
    if not files:
        raise ManifestError("the folder holds no files", where=data.name)
    masks = masks_among(path.relative_to(root) for path in files)
    notes = (masks_line(masks),) if masks else ()
    files = [path for path in files if path.relative_to(root) not in masks]
    return CasesToPredict(Manifest(cases=_cases_of(files, root), root=root, sha256=""), notes=notes)


def _cases_of(files: Sequence[Path], root: Path) -> tuple[Case, ...]:
    """One case per file, each of its own patient."""
    salt = load_salt()
    names = [pseudonym("case", path_below(path, root), salt) for path in files]
    return tuple(
        Case(case_id=name, patient_id=name, image=path)
        for name, path in zip(names, files, strict=True)
    )
