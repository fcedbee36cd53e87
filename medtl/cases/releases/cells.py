"""The cells of a manifest, made from those of a release: templates, patterns, value maps, lists.

A rule is a text with {COLUMN} in it, or a mapping. No rule knows a data set; what cannot be read is
counted by cause and told once.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from medtl.cases.spellings import folded
from medtl.errors import ManifestError
from medtl.storage.tables import nearest, rows_text

RULE_KEYS = (
    *("from", "one_hot", "match", "listed", "each", "by", "values", "else", "minus", "range"),
    "note",
    "several",
)
"""Keys of a rule, in the order in which they act."""

Rule = Mapping[str, Any]
"""How a column is made: some of `RULE_KEYS`."""

Maker = Callable[[], bytes]
"""Returns the bytes of a file that is to be written."""

TOGETHER: Mapping[str, Callable[[Sequence[str]], str | None]] = {
    "same": lambda cells: cells[0] if len({*cells}) == 1 else None,
    "any": lambda cells: str(int("1" in cells)),
    "count": lambda cells: str(sum(map(bool, cells))),
    "list": lambda cells: "|".join(dict.fromkeys(filter(None, cells))),
}
"""How the cells of several rows that are about one image become one; None: they may not differ."""

_FEW = 3
"""Faults of one cause that are told row by row are fewer."""


@dataclass(frozen=True)
class ReleasedRow:
    """A row of a release.

    Attributes:
        cells: Column -> text.
        table: File that it stands in.
        line: Its line there, 0 where a file name is the row.
        picture: What writes the image, where the release has it in an array.
    """

    cells: Mapping[str, str]
    table: str
    line: int
    picture: Maker | None = None


class Oddities:
    """Collects what is wrong or worth a note, each cause once, with its rows and counts."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
        self._seen: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        self.noted: Counter[str] = Counter()

    def fault(
        self, row: ReleasedRow, found: str, *, expected: str = "", fix: str = "", seen: str = ""
    ) -> None:
        """Keep a fault of a row, and the value that it is about."""
        cause = found, expected, fix
        self._faults[cause].append((row.table, row.line))
        if seen:
            self._seen[cause][seen] += 1

    def faults(self) -> list[ManifestError]:
        """Return the faults; three and more of one cause are one, with how many rows they are."""
        made = []
        for (found, expected, fix), places in self._faults.items():
            seen = self._seen[found, expected, fix].most_common(8)
            told = (
                f"Seen: {', '.join(f'{value!r} ({n})' for value, n in seen)}. {fix}"
                if seen
                else fix
            )
            if len(places) < _FEW:
                wheres = [f"row {line}" if line else name for name, line in places]
                made += [ManifestError(found, expected=expected, where=w, fix=told) for w in wheres]
            else:
                tables = ", ".join(dict.fromkeys(name for name, _ in places if _))
                lines = [line for _, line in places if line]
                where = f"{tables}, {rows_text(lines)}" if lines else ""
                said = f"{len(places)} rows: {found}"
                made.append(ManifestError(said, expected=expected, where=where, fix=told))
        return made


def cell_of(name: str, rule: Any, rows: Sequence[ReleasedRow], odd: Oddities) -> str:
    r"""Return the cell that a rule makes of the rows that are about one image.

    Args:
        name: Of the column, for messages.
        rule: A template, a mapping with some of `RULE_KEYS`, or a list of rules whose first filled
            result is taken.
        rows: One, or several that a release has of one image.
        odd: Takes the faults.

    Raises:
        ManifestError: The rule is none, or names a column that the table does not have.

    >>> row = ReleasedRow({"Sex": "Female", "path": "p0012/a.png"}, "t.csv", 2)
    >>> cell_of("sex", {"from": "Sex", "values": {"female": "F"}}, [row], Oddities())
    'F'
    >>> cell_of("patient_id", {"from": "path", "match": "p(\\d+)/"}, [row], Oddities())
    '0012'
    """
    if isinstance(rule, dict) and not {*rule} <= {*RULE_KEYS}:
        odd_key = next(key for key in rule if key not in RULE_KEYS)
        near = nearest(odd_key, RULE_KEYS)
        fix = f"Did you mean '{near}'?" if near else "Delete it"
        raise ManifestError(f"unknown key '{odd_key}' of a column", where=name, fix=fix)
    cells = [_cell(rule, row, odd) for row in rows]
    way = rule.get("several", "same") if isinstance(rule, dict) else "same"
    if way not in TOGETHER:
        raise ManifestError(f"several: {way}", expected=f"one of {', '.join(TOGETHER)}", where=name)
    made = TOGETHER[way](cells)
    if made is None:
        fix = "Correct the release, or state `several` for the column"
        odd.fault(rows[0], f"the rows of one image differ in '{name}'", fix=fix)
    return made or ""


def filled(template: str, row: Mapping[str, str]) -> str:
    """Return a template with each {COLUMN} replaced by its cell; {COLUMN[:2]} is its beginning.

    Raises:
        ManifestError: The table has no such column.

    >>> filled("p{id[:2]}/{id}.png", {"id": "10000032"})
    'p10/10000032.png'
    """

    def cell(match: re.Match[str]) -> str:
        name, length = match[1], match[2]
        text = row[column_of(name, row)]
        return text[: int(length)] if length else text

    return re.sub(r"\{([^{}]+?)(?:\[:(\d+)\])?\}", cell, template)


def column_of(names: str | Sequence[str], columns: Iterable[str]) -> str:
    """Return the first of some names that is a column; a name may hold `*`.

    Raises:
        ManifestError: There is none.
    """
    wanted, there = [names] if isinstance(names, str) else [*names], [*columns]
    for name in wanted:
        if name in there:
            return name
        for column in there:
            if "*" in name and fnmatchcase(column, name):
                return column
    raise ManifestError(
        f"the table has no column '{wanted[0]}'", expected=f"one of {', '.join(there)}"
    )


def listed(text: str, separator: str) -> list[str]:
    """Return the parts of a cell that lists findings; "python" reads ['a', 'b'] as Python does.

    >>> listed("Mass|Nodule", "|"), listed("['nodule', ' normal', '']", "python")
    (['Mass', 'Nodule'], ['nodule', 'normal'])
    """
    if separator == "python":
        try:
            given = ast.literal_eval(text) if text else []
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            given = None
        if not isinstance(given, list) or not all(isinstance(part, str) for part in given):
            raise ValueError(text)
        parts = given
    else:
        parts = text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _cell(rule: Any, row: ReleasedRow, odd: Oddities) -> str:
    """The cell that a rule makes of one row."""
    if isinstance(rule, str):
        return filled(rule, row.cells)
    if isinstance(rule, list):  # the first that says anything
        return next((text for one in rule if (text := _cell(one, row, odd))), "")
    if isinstance(rule, dict) and "one_hot" in rule:
        return _hot(rule["one_hot"], row, odd)
    if not isinstance(rule, dict) or "from" not in rule or _is_bare(rule):
        raise ManifestError("a column is neither a text nor {from, values}", fix="Write '{COLUMN}'")
    column = column_of(rule["from"], row.cells)
    text = row.cells[column]
    for key, step in _STEPS.items():
        if key in rule:
            text = step(text, rule, column, row, odd)
    return text


def _is_bare(rule: Rule) -> bool:
    """Whether a mapping says no more than the one column that a template would."""
    return len(rule) == 1 and isinstance(rule["from"], str)


def _match(text: str, rule: Rule, column: str, row: ReleasedRow, odd: Oddities) -> str:
    """The part of a text that a pattern finds."""
    found = re.search(rule["match"], text)
    if found is None and "else" not in rule:
        odd.fault(row, f"the column {column} is not of the form {rule['match']}", seen=text[:40])
    elif found is None and "note" in rule:
        odd.noted[rule["note"]] += 1
    return found[1] or "" if found else str(rule.get("else", ""))


def _listed(text: str, rule: Rule, column: str, row: ReleasedRow, odd: Oddities) -> str:
    """The parts of a list, with bars between."""
    try:
        return "|".join(listed(text, rule["listed"]))
    except ValueError:
        odd.fault(row, f"the column {column} is no list", expected="['a', 'b']", seen=text[:40])
        return ""


def _meanings(text: str, rule: Rule, column: str, row: ReleasedRow, odd: Oddities) -> str:
    """What a value, or each part of a list, stands for."""
    if "each" not in rule:
        return _meaning(text, rule, column, row, odd)
    parts = (part.strip() for part in text.split(rule["each"]))
    return str(rule["each"]).join(_meaning(part, rule, column, row, odd) for part in parts)


def _minus(text: str, rule: Rule, _column: str, row: ReleasedRow, _odd: Oddities) -> str:
    """A number less that of another column, where both are there."""
    other = row.cells[column_of(rule["minus"], row.cells)]
    return f"{float(text) - float(other):g}" if text and other else ""


def _range(text: str, rule: Rule, column: str, _row: ReleasedRow, odd: Oddities) -> str:
    """A number, nothing for one that cannot be."""
    low, high = rule["range"]
    if not text or low <= float(text) <= high:
        return text
    odd.noted[f"have a {column} outside {low} to {high}, which is left empty"] += 1
    return ""


_STEPS: Mapping[str, Callable[[str, Rule, str, ReleasedRow, Oddities], str]] = {
    "match": _match,
    "listed": _listed,
    "values": _meanings,
    "minus": _minus,
    "range": _range,
}
"""Key of a rule -> what it does with the text, in this order."""


def _meaning(text: str, rule: Rule, column: str, row: ReleasedRow, odd: Oddities) -> str:
    """What a value stands for; a value that the rule does not know is a fault."""
    values = rule["values"]
    if "by" in rule:
        chosen = row.cells[column_of(rule["by"], row.cells)]
        if chosen not in values:
            odd.fault(row, f"'{chosen}' is unknown", expected=f"one of {', '.join(values)}")
            return ""
        values = values[chosen]
    known = {folded(str(key)): str(value) for key, value in values.items()}
    if folded(text) in known:
        return known[folded(text)]
    if "else" in rule:
        return str(rule["else"])
    odd.fault(
        row,
        f"a value of the column {column} has no meaning",
        expected=", ".join(key if key else repr(key) for key in values),
        fix="Say in the layout's `values` what it means",
        seen=text[:40] or "(empty)",
    )
    return ""


def _hot(names: Mapping[str, str], row: ReleasedRow, odd: Oddities) -> str:
    """The name of the one column that holds 1."""
    hot = [called for column, called in names.items() if folded(row.cells.get(column, "")) == "1"]
    if len(hot) != 1:
        odd.fault(
            row,
            f"{len(hot)} of the columns {', '.join(names)} hold 1",
            expected="exactly one",
            fix="Correct the row in the table, or take it out of it",
        )
        return ""
    return str(hot[0])
