"""The meaning of the cells of a target column, and what they must not say unnoticed.

A study is decided by what its labels mean. So nothing is guessed: a third word beside two, a second
spelling, a list in one cell and a word for "missing" stop the study, with the counts and the line
of the recipe that would answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from medtl.cases.columns import Columns
from medtl.cases.polarity import finding_of, is_absence
from medtl.cases.spellings import MISSING_WORDS, folded, spelled_alike
from medtl.errors import ManifestError
from medtl.metrics.scores import HALF, soft_label
from medtl.storage.yaml import scalar
from medtl.types import SPLITS, Case

FINDING_CELLS = frozenset({"0", "1", "-1", "0.0", "1.0", "-1.0"})
"""Cells of a finding's column that need no explanation."""

SEPARATORS = ("|", ";", ",", "/", "\\", "+", "&", "\n", "\u3001", "\uff0c", "\uff1b", " and ")
"""Separators of findings that one cell lists."""

_MAX_CLASSES = 50
"""More different words are no classes."""

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")


class Vocabulary:
    """Reads the cells of target columns as the recipe says, and counts what it folded.

    >>> read = Vocabulary(Columns(targets=["befund"], words=["ja"], meanings={"unklar": "-1"}))
    >>> read.targets({"befund": "Ja "}.get), read.targets({"befund": "unklar"}.get)
    ({'befund': 'ja'}, {'befund': '-1'})
    >>> read.notes()
    ["column 'befund': 1 cell is read as 'ja' (Ja)"]
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        meant = {folded(word): value for word, value in columns.meanings.items()}
        self._read = {folded(word): word for word in columns.words} | meant
        self._exact = {*columns.words, *columns.meanings}
        self._folded: dict[tuple[str, str], Counter[str]] = {}
        self._unlisted: Counter[str] = Counter()

    def targets(self, cell: Callable[[str], str | None]) -> dict[str, str]:
        """Return target -> what the study takes for it.

        Args:
            cell: Column of the table -> its text in one row.
        """
        if len(self.columns.raters) > 1:
            return {}
        if self.columns.listed_in is None:
            return {name: self._word(name, cell(name) or "") for name in self.columns.targets}
        text = cell(self.columns.listed_in) or ""
        parts = {part.strip() for part in text.split(self.columns.separator)} - {""}
        self._unlisted.update(parts - {*self.columns.targets})
        return {name: str(int(name in parts)) if parts else "" for name in self.columns.targets}

    def readings(self, cell: Callable[[str], str | None]) -> dict[str, dict[str, str]]:
        """Return rater -> target -> what was said, for a row that holds all raters or one."""
        raters, targets = self.columns.raters, self.columns.targets
        if len(raters) > 1:
            return {name: {targets[0]: self._word(name, cell(name) or "")} for name in raters}
        who = (cell(raters[0]) or "").strip() if raters else ""
        return {who: self.targets(cell)} if who else {}

    def _word(self, column: str, text: str) -> str:
        """What one cell is read as."""
        if text in self._exact or not text:
            return str(self.columns.meanings.get(text, text))
        word = self._read.get(folded(text))
        if word is None:
            return text
        self._folded.setdefault((column, word), Counter())[text.strip()] += 1
        return word

    def notes(self) -> list[str]:
        """Return what was read as something else than it says."""
        notes = [
            f"column {column!r}: {_cells(sum(seen.values()))} read as {word!r} ({', '.join(seen)})"
            for (column, word), seen in self._folded.items()
        ]
        if self._unlisted:
            listed = ", ".join(f"{name} ({n})" for name, n in self._unlisted.most_common(20))
            notes.append(f"column {self.columns.listed_in!r} lists also, as no target: {listed}")
        return notes


def _cells(count: int) -> str:
    """A number of cells with its verb."""
    return "1 cell is" if count == 1 else f"{count} cells are"


def meaning_faults(
    cases: Sequence[Case], column: str, *, positive: str | None, classes: Sequence[str]
) -> list[ManifestError]:
    """Return what a recipe must say of the words in a target column before anything is learned.

    Args:
        cases: Of the whole study, their cells read by a `Vocabulary`.
        column: A target column.
        positive: The word that counts as the finding, None when the recipe does not say.
        classes: The words that are classes, () when it does not say.
    """
    counts = Counter(case.targets.get(column, "").strip() for case in cases)
    del counts[""]
    words = [word for word in counts if word not in FINDING_CELLS]
    where = f"column {column!r}"
    fault = (
        _probability_fault(counts, where)
        or _spelling_fault(counts, where)
        or _list_fault(counts, where, column)
    )
    if fault is not None:
        return [fault]
    if positive is not None:
        return _third_values(counts, positive, where)
    if classes or not words or _are_grades([*counts]) or not 2 <= len(counts) <= _MAX_CLASSES:
        return []
    found = f"the values are {_counted(counts, [*counts])}"
    if len(counts) > 2:
        listed = ", ".join(map(scalar, sorted(counts)))
        fix = f"If all are classes: data.classes: [{listed}]. If not, map them in data.labels"
        return [ManifestError(found, expected="classes that are stated", where=where, fix=fix)]
    finding = finding_of(*counts)
    answers = [finding] if finding else sorted(counts)
    fix = (
        f"State which one is the finding: {' or '.join(f'positive: {scalar(a)}' for a in answers)}"
    )
    expected = "to be told which one is the finding"
    return [ManifestError(found, expected=expected, where="data.positive", fix=fix)]


def soft_faults(cases: Sequence[Case], column: str) -> list[ManifestError]:
    """Return a fault for cells of a soft label that are no probabilities."""
    counts = Counter(case.targets.get(column, "").strip() for case in cases)
    strange = [text for text in counts if text not in ("", "-1") and soft_label(text) is None]
    if not strange:
        return []
    return [
        ManifestError(
            f"the values {_counted(counts, strange)}",
            expected="a probability in [0, 1], -1 for uncertain, or nothing",
            where=f"column {column!r}",
            fix="Percent are divided by 100; words belong into data.labels, without data.soft",
        )
    ]


def soft_notes(cases: Sequence[Case], columns: Columns) -> list[str]:
    """Return what training and evaluation make of soft labels, none where there are none."""
    if not columns.soft:
        return []
    notes = []
    for column in columns.targets:
        known = [soft_label(case.targets.get(column, "")) for case in cases]
        shares = [share for share in known if share is not None]
        between = sum(share not in (0, 1) for share in shares)
        notes.append(
            f"{column}: {between} of {len(shares)} labels lie between 0 and 1; training takes them "
            f"as they are, evaluation as present above 0.5 and absent below "
            f"({sum(share == HALF for share in shares)} of exactly 0.5 are not scored)"
        )
    return notes


def _probability_fault(counts: Mapping[str, int], where: str) -> ManifestError | None:
    """Probabilities that the recipe does not call so."""
    shares = {word: soft_label(word) for word in counts if word != "-1"}
    between = [word for word, share in shares.items() if share not in (None, 0, 1)]
    if None in shares.values():
        return None
    if not between:
        return None
    return ManifestError(
        f"{sum(counts[word] for word in between)} labels lie between 0 and 1, for example "
        f"{between[0]!r}",
        expected="0 and 1, or to be told that they are probabilities",
        where=where,
        fix="State data.soft: true to train on them as they are (evaluation is at 0.5)",
    )


def _third_values(counts: Mapping[str, int], positive: str, where: str) -> list[ManifestError]:
    """Words beside the positive one, if there are two or more."""
    others = [word for word in counts if word != positive]
    if positive not in counts or len(others) < 2:
        return []
    answer = ", ".join([f"{scalar(positive)}: 1", *(f"{scalar(word)}: ..." for word in others)])
    return [
        ManifestError(
            f"beside {positive!r} ({counts[positive]}) stand {_counted(counts, others)}",
            expected="one word beside it",
            where=where,
            fix="Say what each means, 1 present, 0 absent, -1 uncertain, in place of "
            f"data.positive: labels: {{{answer}}}",
        )
    ]


def _spelling_fault(counts: Mapping[str, int], where: str) -> ManifestError | None:
    """Two spellings of one word."""
    alike = spelled_alike(counts)
    if not alike or FINDING_CELLS.issuperset(counts):
        return None
    return ManifestError(
        f"one value in several spellings: {'; '.join(_counted(counts, g) for g in alike)}",
        expected="one spelling each",
        where=where,
        fix="Correct the cells, or name the words in data.positive, data.classes or data.labels: "
        "cells that read alike are then taken for them",
    )


def listed_findings(cells: Collection[str]) -> tuple[str, list[str]] | None:
    """Return the separator and the findings of cells that list several, None when none does.

    Some of what is listed must stand alone in other cells; "no finding" is no finding.

    >>> listed_findings(["No Finding", "Mass", "Effusion|Mass"])
    ('|', ['Effusion', 'Mass'])
    """
    for separator in SEPARATORS:
        lists = [
            cell for cell in cells if sum(map(bool, map(str.strip, cell.split(separator)))) > 1
        ]
        parts = {part.strip() for cell in cells for part in cell.split(separator)} - {""}
        if any(part.strip() in cells for cell in lists for part in cell.split(separator)):
            return separator, sorted(part for part in parts if not is_absence(part))
    return None


def _list_fault(counts: Mapping[str, int], where: str, column: str) -> ManifestError | None:
    """Cells that list several findings."""
    found = listed_findings(counts.keys())
    if found is None:
        return None
    separator, findings = found
    lists = [cell for cell in counts if separator in cell]
    return ManifestError(
        f"{sum(counts[cell] for cell in lists)} cells list several findings, for example "
        f"{lists[0]!r}",
        expected="one value a cell",
        where=where,
        fix=f"Learn them side by side: data.target: [{', '.join(map(scalar, findings))}], "
        f"data.listed_in: {scalar(column)}, data.separator: {separator!r}",
    )


def _are_grades(words: Sequence[str]) -> bool:
    """Whether all are whole numbers without a gap: grades, and no slip of the pen among them."""
    numbers = [int(word) for word in words if re.fullmatch(r"\d{1,3}", word)]
    return len(numbers) == len(words) == max(numbers, default=0) - min(numbers, default=0) + 1


def _counted(counts: Mapping[str, int], words: Sequence[str]) -> str:
    """Words with how often they occur."""
    shown = [f"{word!r} ({counts[word]})" for word in words[:12]]
    more = [f"{len(words) - 12} more"] if len(words) > 12 else []
    return ", ".join(shown + more)


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
