"""The manifest: the table that says which images a study has, whose they are and what they show.

Every fault of a manifest is reported at once, with its row and what to do, before any work starts.
Ids leave this module as pseudonyms, and no message quotes a cell but a relative path.
"""

from __future__ import annotations

import gc
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medtl.cases import leaks
from medtl.cases.columns import NO_COLUMNS, Columns, Where
from medtl.cases.exams import exam_faults
from medtl.cases.labels import Vocabulary, soft_notes
from medtl.cases.paths import locator
from medtl.cases.pseudonyms import Kind, age_unit, band_age, load_salt, pseudonym, remember
from medtl.cases.raters import with_consensus
from medtl.cases.sidecar import read_sidecar
from medtl.cases.spellings import is_rounded, spelled_alike
from medtl.errors import LeakError, ManifestError, MedtlError
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
from medtl.types import SPLITS, Case, Manifest

SPLIT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "train": "train",
        "training": "train",
        "val": "val",
        "valid": "val",
        "validation": "val",
        "validate": "val",
        "dev": "val",
        "test": "test",
        "testing": "test",
    }
)
"""Usual names of the parts of a study -> medtl's names."""

_NUMBER = re.compile(r"[-+]?\d{1,9}(\.\d*)?")
_OLDEST_YEARS = 130

_MARKUP = re.compile(r"<\s*[/!a-zA-Z]|&[#a-zA-Z0-9]+;")

_ACTIVE = re.compile(r"^'*[=+\-@\t\r]|[<&]", re.MULTILINE)
"""In the lines of a row's cells: what may be a formula or markup. Most rows hold none."""

_known_unit = lru_cache(4096)(age_unit)
"""Ages come again and again."""

_FEW = 3
"""Faults of one cause that are told one by one are fewer."""

_STRUCTURAL = ("image", "patient_id", "case_id", "split", "frame")
"""Columns whose misspelling would change what a study does, so it is never overlooked."""


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
    path = Path(path)
    table = read_table(path)
    table = replace(table, columns=columns.known_names(table.columns))
    faults: list[MedtlError] = [*_column_faults(table, columns, path.parent), *table.faults]
    if "image" not in table.columns:
        raise_together(faults, path.name)
    if not table.rows and not table.faults:
        faults.append(ManifestError("empty: no rows below the header", fix="Add a row per image"))
    sidecar, sidecar_faults = read_sidecar(path, table.columns)
    names = _Names(columns.ids, load_salt() if salt is None else salt, keeps=salt is None)
    root = (path.resolve().parent / sidecar["images"]).resolve()
    builder = _CaseBuilder(table, columns, root, names)
    with _nothing_to_collect():
        cases, split_opinions, read = with_consensus(builder.with_readings(), columns)
        faults += [*_together(builder.faults), *leaks.patient_faults(cases), *builder.id_faults()]
        faults += [*builder.age_faults(), *split_opinions, *exam_faults(cases)]
    raise_together([*faults, *sidecar_faults], path.name)
    if salt is None:
        remember(names.made.items())
    return Manifest(
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


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Let the garbage collector rest: a million cases that all stay cost it a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _active_notes(table: Table) -> list[str]:
    """Say which cells a spreadsheet or a browser would run."""
    rows = [
        line
        for line, row in zip(table.lines, table.rows, strict=True)
        if _ACTIVE.search("\n".join(row))
        and any(is_formula(cell) or _MARKUP.search(cell) for cell in row)
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


class _Names:
    """Makes pseudonyms and keeps which id each stands for."""

    def __init__(self, ids: str, salt: bytes, *, keeps: bool) -> None:
        self.ids = ids
        self.salt = salt
        self.keeps = keeps
        self.made: dict[str, str] = {}
        self.patients: dict[str, str] = {}

    def of(self, kind: Kind, text: str) -> str:
        """Return the name by which an id leaves this module."""
        return text if self.ids == "pseudonymous" else self.hashed(kind, text)

    def of_patient(self, text: str) -> str:
        """Return the name of a patient, one object for all of one patient's rows."""
        if text not in self.patients:
            self.patients[text] = self.of("patient", text)
        return self.patients[text]

    def hashed(self, kind: Kind, text: str) -> str:
        """Return the pseudonym of an id or path, whatever the user says about ids."""
        name = pseudonym(kind, text, self.salt)
        if self.keeps:
            self.made[name] = text
        return name


class _CaseBuilder:
    """Turns rows into cases, collecting what is wrong and what was decided on the way."""

    def __init__(self, table: Table, wanted: Columns, root: Path, names: _Names) -> None:
        self.table = table
        self.wanted = wanted
        self.root = root
        self.root_text = str(root).rstrip(os.sep) + os.sep
        self.remote = 0
        self.names = names
        self.faults: list[MedtlError] = []
        self.duplicates: list[int] = []
        self.boxes = 0
        self.readings: dict[tuple[str, int | None], dict[str, dict[str, str]]] = {}
        self.renamed: set[str] = set()
        self.alike: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
        self.spelled: list[str] = []
        self.where = Where.parse(wanted.where) if wanted.where else None
        self.passed_over: Counter[str] = Counter()
        self.vocabulary = Vocabulary(wanted)
        self.patients: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self.first_rows: dict[str, dict[str, int]] = defaultdict(dict)
        self.index = {name: i for i, name in enumerate(table.columns)}
        self.ages: dict[str | None, list[int]] = defaultdict(list)
        self.respelled: list[str] = []
        self.locate = locator(root, self.respelled)
        self.has_split = any(self._cell(row, "split") for row in table.rows)

    def with_readings(self) -> list[Case]:
        """Return the case of each image with what its raters said."""
        cases = list(self.cases())
        if not self.wanted.raters:
            return cases
        return [replace(c, readings=self.readings.get((str(c.image), c.frame), {})) for c in cases]

    def cases(self) -> Iterator[Case]:
        """Yield the case of each row; rows that repeat an earlier one are left out."""
        lines, rows = self.table.lines, self.table.rows
        seen: dict[str | tuple[str, int], int] = {}
        for number, (line, row) in enumerate(zip(lines, rows, strict=True)):
            if self.where is not None:
                cell = self._cell(row, self.where.column)
                if not self.where.holds(cell):
                    self.passed_over[cell or "(empty)"] += 1
                    continue
            image = self._path(row, "image", line)
            frame = self._frame(row, line)
            if image is None:  # the rest of the row is checked all the same
                yield self._case(row, line, self.root, frame)
                continue
            name = str(image)
            first = seen.setdefault(name if frame is None else (name, frame), number)
            if self.wanted.raters or self.wanted.reader is not None:
                self._read(row, line, (name, frame))
            if first != number:
                self._repeated(lines[first], rows[first], line, row)
                continue
            case = self._case(row, line, image, frame)
            self._unique("case_id", case.case_id, line, "Give every row its own")
            if self.wanted.one_image_per_patient and "patient_id" in self.index:
                fix = "Delete `one_image_per_patient` from the recipe"
                self._unique("patient_id", case.patient_id, line, fix)
            yield case

    def notes(self) -> list[str]:
        """Return what was decided about the rows."""
        notes = [f"the split '{name}' is read as {SPLIT_NAMES[name]}" for name in self.renamed]
        if self.respelled:
            notes.append(
                f"{len(self.respelled)} files were found by names that differ in ending, case or "
                f"slashes (for example {self.respelled[0]})"
            )
        if self.remote:
            notes.append(f"{self.remote} images are on servers, and looked for when they are read")
        if self.boxes:
            notes.append(
                f"{self.boxes} rows are further marks (boxes) that a rater made in one image: what "
                "they say is taken together"
            )
        if self.duplicates:
            rows = ", ".join(str(line) for line in self.duplicates[:10])
            notes.append(f"{len(self.duplicates)} duplicate rows left out (rows {rows})")
        if self.passed_over:
            seen = ", ".join(f"{cell} {n}" for cell, n in self.passed_over.most_common(8))
            left_out = f"{sum(self.passed_over.values())} rows are left out ({seen})"
            notes.append(f"{left_out}: they do not fulfil '{self.wanted.where}'")
        units = {"y": "years", "m": "months", "w": "weeks", "d": "days"}
        stated = [f"{len(self.ages[u])} in {word}" for u, word in units.items() if self.ages[u]]
        if stated:
            notes.append(f"ages are taken as years: {', '.join(stated)}")
        if unread := self.ages["unread"]:
            found = f"{len(unread)} ages are no number with a unit ({rows_text(unread)})"
            notes.append(f"{found}: taken as groups, and left out where they may be above 89")
        return [*sorted(notes), *self.vocabulary.notes(), *self.spelled]

    def id_faults(self) -> Iterator[MedtlError]:
        """Yield a fault for ids that a spreadsheet rounded, and for one person in two spellings.

        Two spellings within one split are a note: they leak nothing, but count one person twice.
        """
        rounded = [
            row for text, rows in self.patients.items() if is_rounded(text) for row, _ in rows
        ]
        if rounded:
            found = "patient ids were rounded by a spreadsheet (2.0231E+11)"
            fix = "Format the column as text in the spreadsheet and export it again"
            yield ManifestError(found, where=rows_text(rounded), fix=fix)
        for group in spelled_alike(self.patients, ids=True):
            places = [place for text in group for place in self.patients[text]]
            rows, splits = (
                rows_text([row for row, _ in places]),
                sorted({split for _, split in places}),
            )
            found = f"one patient id in {len(group)} spellings ({rows})"
            if len(splits) == 1 and self.has_split:
                self.spelled.append(f"{found}: counted as {len(group)} patients")
                continue
            apart = f", in {' and '.join(splits)}" if self.has_split else ""
            yield LeakError(
                f"leak: {found}{apart}",
                fix="Write the id of one person in one way; let the ids of two people differ by "
                "more than case, blanks and zeros",
            )

    def _case(self, row: tuple[str, ...], line: int, image: Path, frame: int | None) -> Case:
        """Return the case of a row whose image is there."""
        text = str(image)
        if text.startswith(self.root_text):
            relative = text[len(self.root_text) :].replace(os.sep, "/") or "."
        else:
            relative = image.as_posix()
            self.remote += 1
        name = relative if frame is None else f"{relative}#{frame}"
        self._check_age(row, line)
        given = self._cell(row, "case_id")
        if "case_id" in self.index and not given:
            self._fault(line, "no case_id", "Fill the cell, or delete the column")
        case_id = self.names.of("case", given) if given else self.names.hashed("case", name)
        split = self._split(row, line)
        return Case(
            case_id=case_id,
            patient_id=self._patient(row, line, case_id, split),
            image=image,
            targets=self._shared(self.vocabulary.targets(partial(self._cell, row))),
            strata=self._strata(row),
            split=split,
            mask=self._mask(row, line),
            frame=frame,
            row=line,
            exam=self._exam(row, line),
        )

    def _exam(self, row: tuple[str, ...], line: int) -> str:
        """Return the examination of a row, "" where the study does not ask for it."""
        if self.wanted.exam is None:
            return ""
        given = self._cell(row, self.wanted.exam)
        if not given:
            self._fault(line, f"no {self.wanted.exam}", "Fill the cell, or leave data.exam out")
        return self.names.of("study", given) if given else ""

    def age_faults(self) -> Iterator[MedtlError]:
        """Yield a fault for ages without a unit beside ages in months, weeks or days."""
        short = [line for unit in "mwd" for line in self.ages[unit]]
        if short and self.ages[""]:
            yield ManifestError(
                f"{len(self.ages[''])} ages have no unit and {len(short)} are in months, weeks or "
                "days",
                expected="one unit, or a unit in every cell",
                where=f"column 'age', {rows_text(sorted(short))}",
                fix="Write years (1.5), or the unit in all of them (065Y, 018M)",
            )

    def _check_age(self, row: tuple[str, ...], line: int) -> None:
        """Note an age that nobody has: a code for "unknown", or an error of typing."""
        given = self._cell(row, "age")
        unit = _known_unit(given)
        self.ages["unread" if unit is None and re.search(r"\d", given) else unit].append(line)
        if _NUMBER.fullmatch(given) and not 0 <= float(given) <= _OLDEST_YEARS:
            fix = "Write years, and leave the cell empty when the age is not known"
            self._fault(line, f"the age is out of the range 0 to {_OLDEST_YEARS} years", fix)

    def _patient(self, row: tuple[str, ...], line: int, case_id: str, split: str) -> str:
        """Return the patient of a row: an id, or the case itself if the user said so."""
        if "patient_id" not in self.index:
            return case_id
        patient_id = self._cell(row, "patient_id")
        if not patient_id:
            self._fault(line, "no patient_id", "Fill the cell: patients must not be in two splits")
            return case_id
        self.patients[patient_id].append((line, split))
        return self.names.of_patient(patient_id)

    def _split(self, row: tuple[str, ...], line: int) -> str:
        """Return the split of a row in medtl's word for it, "" if the table makes no splits."""
        given = self._cell(row, "split").casefold()
        split = SPLIT_NAMES.get(given, "")
        if split != given and split:
            self.renamed.add(given)
        if self.has_split and not split:
            near = nearest(given, SPLIT_NAMES)
            hint = f"Did you mean '{near}'?" if near else f"Write {', '.join(SPLITS)}"
            hint = hint if given else "Fill all cells of the column, or none"
            found = "unknown split" if given else "no split, though others have"
            self._fault(line, found, hint)
        return split

    def _frame(self, row: tuple[str, ...], line: int) -> int | None:
        """Return the frame that a row is about, None for the whole image."""
        given = self._cell(row, "frame")
        if not given:
            return None
        if not (given.isascii() and given.isdigit() and len(given) < 10):
            self._fault(line, "frame is no whole number", "Count frames from 0")
            return None
        return int(given)

    def _mask(self, row: tuple[str, ...], line: int) -> Path | None:
        """Return the path of a row's mask, None if it has none."""
        column = self.wanted.mask
        return self._path(row, column, line) if column and self._cell(row, column) else None

    def _path(self, row: tuple[str, ...], column: str, line: int) -> Path | None:
        """Return the path in a cell, None after noting why there is none to use."""
        found = self.locate(self._cell(row, column))
        if isinstance(found, Path):
            return found
        self._fault(line, f"{column}: {found[0]}", found[1])
        return None

    def _read(self, row: tuple[str, ...], line: int, image: tuple[str, int | None]) -> None:
        """Keep what the rater, or the raters, of a row said; note a row that names none."""
        said = self.vocabulary.readings(partial(self._cell, row))
        known = self.readings.setdefault(image, {})
        if self.wanted.reader is not None and not said:
            self._fault(line, f"no {self.wanted.reader}", "Say who read it, or delete the row")
        if self.wanted.listed_in is not None:  # a row for each finding, or box, of a rater
            for name, words in said.items():
                marks = known.get(name, words)
                said[name] = {one: max(marks[one], word) for one, word in words.items()}
        elif any(known.get(name, words) != words for name, words in said.items()):
            self._fault(line, "one rater labels the image again", "Keep one row a rater and image")
        known |= said

    def _repeated(
        self, first_line: int, first_row: tuple[str, ...], line: int, row: tuple[str, ...]
    ) -> None:
        """Note a row with the image of an earlier one: harmless only if all else is the same."""
        differ = [name for name, i in self.index.items() if row[i] != first_row[i]]
        conflict = [name for name in differ if name in {*self.wanted.names, *_STRUCTURAL[1:]}]
        if self.wanted.reader is not None:
            read = (self.wanted.reader, *self.wanted.read_as_targets)
            conflict = [column for column in conflict if column not in read]
            if differ and not conflict:  # another rater's row, or another box of the same one
                self.boxes += self.wanted.reader not in differ
                return
        if not differ or (self.wanted.drops_duplicates and not conflict):
            self.duplicates.append(line)
            return
        found = f"the image of row {first_line} again"
        if conflict:
            found += f", with conflicting {', '.join(conflict)} (a label, mask or id is wrong)"
        self._fault(line, found, "Keep one row per image")

    def _unique(self, column: str, name: str, line: int, fix: str) -> None:
        """Note a row whose id an earlier row has."""
        first = self.first_rows[column].setdefault(name, line)
        if first != line:
            self._fault(line, f"duplicate {column}: the one of row {first}", fix)

    def _strata(self, row: tuple[str, ...]) -> Mapping[str, str]:
        """Return the cells of the strata, ages above 89 as one band."""
        cells = {name: self._cell(row, name) for name in self.wanted.about}
        ages = {name: band_age(cell) for name, cell in cells.items() if name.casefold() == "age"}
        return self._shared({**cells, **ages})

    def _shared(self, cells: dict[str, str]) -> Mapping[str, str]:
        """The same cells as one object, in however many rows they stand."""
        return self.alike.setdefault(tuple(cells.items()), MappingProxyType(cells))

    def _cell(self, row: tuple[str, ...], column: str) -> str:
        """Return a cell, "" if the table lacks the column."""
        return row[self.index[column]] if column in self.index else ""

    def _fault(self, line: int, found: str, fix: str) -> None:
        """Note what is wrong with a row."""
        self.faults.append(ManifestError(found, where=f"row {line}", fix=fix))


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
            listed = ", ".join(column[:40] for column in columns[:30])
            fix = f"Did you mean '{near}'?" if near else "Add the column or name another"
            if near and name == "image":
                fix += f"? Rename it, or state data.columns: {{image: {near}}}"
            yield ManifestError(f"no column '{name}'", expected=f"one of: {listed}", fix=fix)
    absent = [name for name in _STRUCTURAL[1:] if name not in columns]
    misspelled = {name: nearest(name, columns, likeness=1.0) for name in absent}
    for name, column in misspelled.items():
        if column:
            fix = f"Rename it to '{name}', or state data.columns: {{{name}: {column}}}"
            yield ManifestError(f"column '{column}' is not read", fix=fix)
    if misspelled.get("patient_id") == "" and not wanted.one_image_per_patient:
        yield ManifestError(
            "no column 'patient_id', so one patient could be in two splits",
            fix="Add it, or state `one_image_per_patient: true` if no patient has two images",
        )


def _column_of_paths(table: Table, folder: Path) -> str:
    """The column whose first cell is a file below the folder, "" when there is none."""
    for name, cell in zip(table.columns, table.rows[0] if table.rows else (), strict=False):
        if Path(cell).suffix and not Path(name).suffix and (folder / cell).is_file():
            return name
    return ""
