"""The manifest: the table that says which images a study has, whose they are and what they show.

Every fault of a manifest is reported at once, with its row and what to do, before any work starts.
Ids leave this module as pseudonyms, and no message quotes a cell but a relative path.
"""

from __future__ import annotations

import gc
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from medtl.cases import leaks
from medtl.cases.case_rows import STRUCTURAL, CaseBuilder, Names, split_named
from medtl.cases.columns import NO_COLUMNS, Columns, Where
from medtl.cases.exams import exam_faults
from medtl.cases.labels import soft_notes
from medtl.cases.pseudonyms import load_salt, remember
from medtl.cases.raters import with_consensus
from medtl.cases.sidecar import read_sidecar
from medtl.errors import ManifestError, MedtlError
from medtl.storage import atomic
from medtl.storage.tables import (
    Table,
    is_formula,
    looks_like_data,
    nearest,
    raise_together,
    read_columns,
    read_table,
    rows_text,
    write_table,
)
from medtl.storage.yaml import dump_yaml
from medtl.types import Manifest

_MARKUP = re.compile(r"<\s*[/!a-zA-Z]|&[#a-zA-Z0-9]+;")

_ACTIVE = re.compile(r"^'*[=+\-@\t\r]|[<&]", re.MULTILINE)
"""In the lines of a row's cells: what may be a formula or markup. Most rows hold none."""

_FEW = 3
"""Faults of one cause that are told one by one are fewer."""

_TOGETHER = 1000
"""Rows that are looked through for formulas at once."""


class Checked(NamedTuple):
    """A manifest without faults.

    Attributes:
        images: How many it has.
        patients: How many they are of.
        notes: What was decided while reading it.
    """

    images: int
    patients: int
    notes: tuple[str, ...]


def manifest_columns(path: str | PathLike[str]) -> list[str]:
    """Return the names of a manifest's columns without reading its rows.

    Raises:
        ManifestError: If the file is missing, empty, or its header cannot be used.
    """
    return read_columns(Path(path))


def read_manifest(
    path: str | PathLike[str], columns: Columns = NO_COLUMNS, *, salt: bytes | None = None
) -> Manifest:
    r"""Return the cases of a CSV or Parquet manifest and of the YAML sidecar beside it.

    Args:
        path: The table. Image and mask paths in it are relative to its folder, or to the one that
            the sidecar names under `images`, and stay below it. The sidecar has the same name
            with the suffix `.yaml`; it may be absent.
        columns: Those that a study uses; all of them must be there.
        salt: Key of the pseudonyms. By default this user's own, and then the local table of
            `pseudonym.whois` learns the ids.

    Raises:
        ManifestError: Listing all faults of the table and the sidecar.
        LeakError: If all faults are patients in two splits.
        MedtlError: If the user's salt cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "a.png").touch()
        ...     file = Path(folder, "films.csv")
        ...     _ = file.write_text("image,patient_id,effusion\na.png,p1,1\n")
        ...     found = read_manifest(file, Columns(targets=["effusion"]))
        >>> found, dict(found.cases[0].targets)
        (Manifest(1 images of 1 patients), {'effusion': '1'})
    """
    read = _read(Path(path), columns, load_salt() if salt is None else salt, keeps=salt is None)
    if salt is None:
        remember(read.identities.items())
    return read.manifest


def check_manifest(
    path: str | PathLike[str], columns: Columns = NO_COLUMNS, *, salt: bytes | None = None
) -> Checked:
    r"""Look for every fault that `read_manifest` finds, and keep neither cases nor ids.

    Args:
        path: The table.
        columns: Those that a study uses.
        salt: Key of the pseudonyms in messages. By default this user's own.

    Raises:
        ManifestError: Listing all faults of the table and the sidecar.
        LeakError: If all faults are patients in two splits.
        MedtlError: If the user's salt cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "a.png").touch()
        ...     file = Path(folder, "films.csv")
        ...     _ = file.write_text("image,patient_id,effusion\na.png,p1,1\n")
        ...     check_manifest(file)
        Checked(images=1, patients=1, notes=())
    """
    key = load_salt() if salt is None else salt
    found = _read(Path(path), columns, key, keeps=False, keeps_images=False).manifest
    patients = len({case.patient_id for case in found.cases})
    return Checked(len(found.cases), patients, found.notes)


class _Read(NamedTuple):
    """A manifest, and pseudonym -> id where these are kept."""

    manifest: Manifest
    identities: Mapping[str, str]


def _read(
    path: Path, columns: Columns, salt: bytes, *, keeps: bool, keeps_images: bool = True
) -> _Read:
    """Return a manifest; without its images' paths where nobody will read these."""
    table = read_table(path)
    table = replace(table, columns=columns.known_names(table.columns))
    faults: list[MedtlError] = [*_column_faults(table, columns, path.parent), *table.faults]
    if "image" not in table.columns:
        raise_together(faults, path.name)
    if not table.rows and not table.faults:
        faults.append(ManifestError("empty: no rows below the header", fix="Add a row per image"))
    sidecar, sidecar_faults = read_sidecar(path, table.columns)
    names = Names(columns.ids, salt, keeps=keeps)
    root = (path.resolve().parent / sidecar["images"]).resolve()
    builder = CaseBuilder(table, columns, root, names, keeps_images=keeps_images)
    with _nothing_to_collect():
        cases, split_opinions, read = with_consensus(builder.with_readings(), columns)
        faults += [*_together(builder.faults), *leaks.patient_faults(cases), *builder.id_faults()]
        faults += [
            *builder.age_faults(),
            *builder.rater_faults(),
            *split_opinions,
            *exam_faults(cases),
        ]
    raise_together([*faults, *sidecar_faults], path.name)
    manifest = Manifest(
        cases=tuple(cases),
        root=builder.root,
        sha256=table.sha256,
        meanings=MappingProxyType({**sidecar["columns"], **sidecar["labels"]}),
        units=MappingProxyType(sidecar["units"]),
        source=sidecar["source"],
        licence=sidecar["licence"],
        notes=(
            *table.notes,
            *_active_notes(table),
            *builder.notes(),
            *read,
            *soft_notes(cases, columns),
        ),
    )
    return _Read(manifest, names.made)


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Let the garbage collector rest: a million cases that all stay cost it a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():  # what was made is old at once, and not looked through
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _active_notes(table: Table) -> list[str]:
    """Say which cells a spreadsheet or a browser would run."""
    suspects = [
        number
        for start in range(0, len(table.rows), _TOGETHER)
        if _ACTIVE.search("\n".join(chain(*table.rows[start : start + _TOGETHER])))
        for number in range(start, min(start + _TOGETHER, len(table.rows)))
    ]
    rows = [
        table.lines[number]
        for number in suspects
        if _ACTIVE.search("\n".join(table.rows[number]))
        and any(is_formula(cell) or _MARKUP.search(cell) for cell in table.rows[number])
    ]
    if not rows:
        return []
    found = f"{len(rows)} rows hold cells that look like formulas or markup ({rows_text(rows)})"
    return [f"{found}: taken as text, and escaped in all that is written"]


def write_manifest(
    rows: Sequence[Mapping[str, Any]],
    path: str | PathLike[str],
    sidecar: Mapping[str, Any] | None = None,
) -> None:
    """Write a manifest as CSV, and its sidecar if there is one, each atomically.

    Args:
        rows: Column -> value of each row. Texts that a spreadsheet would run are defused.
        path: The CSV file.
        sidecar: What the YAML file beside it says, under `sidecar.SIDECAR_KEYS`.
    """
    path = Path(path)
    if sidecar is not None:
        atomic.write_text(path.with_suffix(".yaml"), dump_yaml(dict(sidecar)))
    write_table(rows, path)


def place_for(folder: str | PathLike[str], out: str | PathLike[str] | None) -> Path:
    """Return where the manifest of a folder goes: `out`, by default `FOLDER/manifest.csv`.

    Raises:
        ManifestError: There is a manifest already, or it would lie below or beside its images.
    """
    folder = Path(folder)
    path = Path(out) if out else folder / "manifest.csv"
    if path.exists():
        raise ManifestError("the manifest exists", where=str(path), fix="Choose another --out")
    if not folder.resolve().is_relative_to(path.resolve().parent):
        raise ManifestError(
            "a manifest lies at or above its images",
            where=str(path),
            fix=f"Write it to {folder / 'manifest.csv'}",
        )
    return path


def write_manifest_of(
    folder: Path,
    rows: Sequence[Mapping[str, str]],
    path: Path,
    sidecar: Mapping[str, Any] | None = None,
) -> None:
    """Write rows whose image and mask paths start from a folder as a manifest at or above it."""
    below = folder.resolve().relative_to(path.resolve().parent)
    placed = [
        {
            name: (below / cell).as_posix() if name in ("image", "mask") and cell else cell
            for name, cell in row.items()
        }
        for row in rows
    ]
    write_manifest(placed, path, sidecar)


def _together(faults: Sequence[MedtlError]) -> Iterator[MedtlError]:
    """Yield the faults; three and more of one cause and one remedy are one."""
    groups: dict[tuple[str, str], list[MedtlError]] = defaultdict(list)
    for fault in faults:
        groups[fault.found, fault.fix].append(fault)
    for (found, fix), same in groups.items():
        if len(same) < _FEW:
            yield from same
        else:
            rows = [int(fault.where.removeprefix("row ")) for fault in same]
            yield ManifestError(found, where=rows_text(rows), fix=fix)


def _column_faults(table: Table, wanted: Columns, folder: Path) -> Iterator[ManifestError]:
    """Yield a fault for each column that is missing or nearly has the name of a known one."""
    columns = table.columns
    paths = "" if "image" in columns else _column_of_paths(table, folder)
    if "image" not in columns and not paths and any(looks_like_data(name) for name in columns):
        fix = "Write the names of the columns into the first line"
        yield ManifestError("no column 'image'; the first line does not look like names", fix=fix)
        return
    filtered = [Where.parse(wanted.where).column] if wanted.where else []
    for name in ["image", *wanted.names, *filtered]:
        if name not in columns:
            near = paths if name == "image" and paths else nearest(name, columns)
            fix = f"Did you mean '{near}'?" if near else "Add the column or name another"
            if near and name == "image":
                fix += f" Rename it, or state data.columns: {{image: {near}}}"
            yield ManifestError(
                f"no column '{name}'", expected=f"one of: {_listed(columns)}", fix=fix
            )
    absent = [name for name in STRUCTURAL[1:] if name not in columns]
    misspelled = {name: nearest(name, columns, likeness=1.0) for name in absent}
    for name, column in misspelled.items():
        if column:
            fix = f"Rename it to '{name}', or state data.columns: {{{name}: {column}}}"
            yield ManifestError(f"column '{column}' is not read", fix=fix)
    if misspelled.get("patient_id") == "" and not wanted.one_image_per_patient:
        yield ManifestError(
            "no column 'patient_id', so one patient could be in two splits",
            expected=f"it, or another name for it, among: {_listed(columns)}",
            fix="Add it, or state data.columns: {patient_id: NAME}; state "
            "`one_image_per_patient: true` if no patient has two images",
        )
    if "split" not in columns and not misspelled["split"]:
        yield from _hidden_split(table, [*wanted.names, *filtered])


def _listed(columns: Sequence[str]) -> str:
    """The names of columns, the first of many."""
    return ", ".join(column[:40] for column in columns[:30])


def _hidden_split(table: Table, known: Sequence[str]) -> Iterator[ManifestError]:
    """Yield a fault for a column of another name that says what is train and what is test."""
    for index, name in enumerate(table.columns):
        if name in known:
            continue
        parts = set[str]()
        for row in table.rows:
            if row[index]:
                parts.add(split_named(row[index]))
            if "" in parts:  # of most columns the first cell says that they are none
                break
        if "" not in parts and "train" in parts and len(parts) > 1:
            yield ManifestError(
                f"column '{name}' holds {', '.join(sorted(parts))} and is not read: the study "
                "would make other splits",
                fix=f"Rename it to 'split', or state data.columns: {{split: {name}}}; delete "
                "it if the study shall divide the patients anew",
            )


def _column_of_paths(table: Table, folder: Path) -> str:
    """The column whose first cell is a file below the folder, "" when there is none."""
    for name, cell in zip(table.columns, table.rows[0] if table.rows else (), strict=False):
        if Path(cell).suffix and not Path(name).suffix and (folder / cell).is_file():
            return name
    return ""
