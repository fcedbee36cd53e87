"""From the rows of a manifest's table to its cases, and what is wrong with each row."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType

from medtl.cases.columns import Columns, Where
from medtl.cases.labels import Vocabulary
from medtl.cases.paths import locator
from medtl.cases.pseudonyms import Kind, age_unit, band_age, pseudonym
from medtl.cases.spellings import is_no_id, is_rounded, spelled_alike
from medtl.errors import LeakError, ManifestError, MedtlError
from medtl.storage.tables import Table, nearest, rows_text
from medtl.types import SPLITS, Case

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

_known_unit = lru_cache(4096)(age_unit)
"""Ages come again and again."""

STRUCTURAL = ("image", "patient_id", "case_id", "split", "frame")
"""Columns whose misspelling would change what a study does, so it is never overlooked."""


def split_named(text: str) -> str:
    """Return the split that a word means, "" for a word that means none.

    >>> split_named("Validation"), split_named("fold 1")
    ('val', '')
    """
    return SPLIT_NAMES.get(text.strip().casefold(), "")


class Names:
    """Makes pseudonyms and keeps which id each stands for."""

    def __init__(self, ids: str, salt: bytes, *, keeps: bool) -> None:
        self.ids = ids
        self.salt = salt
        self.keeps = keeps
        self.made: dict[str, str] = {}

    def of(self, kind: Kind, text: str) -> str:
        """Return the name by which an id leaves this module."""
        return text if self.ids == "pseudonymous" else self.hashed(kind, text)

    def hashed(self, kind: Kind, text: str) -> str:
        """Return the pseudonym of an id or path, whatever the user says about ids."""
        name = pseudonym(kind, text, self.salt)
        if self.keeps:
            self.made[name] = text
        return name


class CaseBuilder:
    """Turns rows into cases, collecting what is wrong and what was decided on the way."""

    def __init__(
        self, table: Table, wanted: Columns, root: Path, names: Names, *, keeps_images: bool = True
    ) -> None:
        self.table = table
        self.keeps_images = keeps_images
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
        self.patients: dict[str, list[Case]] = defaultdict(list)
        self.first_rows: dict[str, dict[str, int]] = defaultdict(dict)
        self.index = {name: i for i, name in enumerate(table.columns)}
        self.ages: dict[str | None, list[int]] = defaultdict(list)
        self.about = wanted.about
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
        for line, row in zip(lines, rows, strict=True):
            if self.where is not None:
                cell = self._cell(row, self.where.column)
                if not self.where.holds(cell):
                    self.passed_over[cell or "(empty)"] += 1
                    continue
            place = self._path(row, "image", line)
            frame = self._frame(row, line)
            if place is None:  # the rest of the row is checked all the same
                yield self._case(row, line, str(self.root), frame)
                continue
            name = self._relative(place, row)
            first = seen.setdefault(name if frame is None else (name, frame), line)
            if self.wanted.raters or self.wanted.reader is not None:
                self._read(row, line, (place, frame))
            if first != line:
                self._repeated(first, rows[bisect_left(lines, first)], line, row)
                continue
            case = self._case(row, line, place, frame)
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
        """Yield a fault for ids that are none or were rounded, and one person in two spellings.

        Two spellings within one split are a note: they leak nothing, but count one person twice.
        """
        rounded = [
            one.row for text, cases in self.patients.items() if is_rounded(text) for one in cases
        ]
        if rounded:
            found = "patient ids were rounded by a spreadsheet (2.0231E+11)"
            fix = "Format the column as text in the spreadsheet and export it again"
            yield ManifestError(found, where=rows_text(rounded), fix=fix)
        for text, cases in self.patients.items():
            if len(cases) > 1 and is_no_id(text):
                found = "one word for 'missing' stands as the patient_id"
                fix = "Write who it is: all these rows would count as one patient"
                yield ManifestError(found, where=rows_text([one.row for one in cases]), fix=fix)
        for group in spelled_alike(self.patients, ids=True):
            places = [place for text in group for place in self.patients[text]]
            rows, splits = (
                rows_text([place.row for place in places]),
                sorted({place.split for place in places}),
            )
            found = f"one patient id in {len(group)} spellings ({rows})"
            if len(splits) == 1 and self.has_split:
                self.spelled.append(f"{found}: counted as {len(group)} patients")
                continue
            apart = f", in {' and '.join(splits)}" if self.has_split else ""
            yield LeakError(
                f"leak: {found}{apart}",
                fix="Write the id of one person in one way; let the ids of two people differ by "
                "more than case, blanks, zeros, quotes and the signs between their parts",
            )

    def rater_faults(self) -> Iterator[MedtlError]:
        """Yield a fault for raters in several spellings: one would be a majority of two."""
        raters = {name for said in self.readings.values() for name in said}
        if self.wanted.reader is not None and (alike := spelled_alike(sorted(raters))):
            yield ManifestError(
                f"{len(alike)} raters stand in several spellings: each would count as several",
                where=f"column {self.wanted.reader!r}",
                fix="Write the name of one rater in one way",
            )

    def _relative(self, place: str, row: tuple[str, ...]) -> str:
        """The path of an image below the root; the cell itself where it says the same."""
        if not place.startswith(self.root_text):
            return Path(place).as_posix()
        relative = place[len(self.root_text) :].replace(os.sep, "/") or "."
        cell = self._cell(row, "image")
        return cell if cell == relative else relative

    def _case(self, row: tuple[str, ...], line: int, place: str, frame: int | None) -> Case:
        """Return the case of a row whose image is there."""
        relative = self._relative(place, row)
        self.remote += not place.startswith(self.root_text)
        name = relative if frame is None else f"{relative}#{frame}"
        self._check_age(row, line)
        given = self._cell(row, "case_id")
        if "case_id" in self.index and not given:
            self._fault(line, "no case_id", "Fill the cell, or delete the column")
        case_id = self.names.of("case", given) if given else self.names.hashed("case", name)
        split = self._split(row, line)
        patient = self._patient(row, line)
        others = self.patients[patient] if patient else []
        case = Case(
            case_id=case_id,
            # One object for all rows of a patient.
            patient_id=others[0].patient_id
            if others
            else self.names.of("patient", patient)
            if patient
            else case_id,
            image=Path(place) if self.keeps_images else self.root,
            targets=self._shared(self.vocabulary.targets(partial(self._cell, row))),
            strata=self._strata(row),
            split=split,
            mask=self._mask(row, line),
            frame=frame,
            row=line,
            exam=self._exam(row, line),
        )
        others.append(case)
        return case

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

    def _patient(self, row: tuple[str, ...], line: int) -> str:
        """Return the id of a row's patient, "" where there is none: the case itself then."""
        patient = self._cell(row, "patient_id")
        if "patient_id" in self.index and not patient:
            self._fault(line, "no patient_id", "Fill the cell: patients must not be in two splits")
        return patient

    def _split(self, row: tuple[str, ...], line: int) -> str:
        """Return the split of a row in medtl's word for it, "" if the table makes no splits."""
        given = self._cell(row, "split").casefold()
        split = split_named(given)
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
        if not column or not self._cell(row, column):
            return None
        found = self._path(row, column, line)
        return None if found is None else Path(found)

    def _path(self, row: tuple[str, ...], column: str, line: int) -> str | None:
        """Return the path in a cell, None after noting why there is none to use."""
        found = self.locate(self._cell(row, column))
        if isinstance(found, str):
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
        conflict = [name for name in differ if name in {*self.wanted.names, *STRUCTURAL[1:]}]
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
        cells = {name: self._cell(row, name) for name in self.about}
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
