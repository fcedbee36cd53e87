"""Spellings: cells that a person takes for the same word, and a program for two.

Spreadsheets add ".0", drop leading zeros and round long numbers; people mix cases, blanks and
signs that nobody sees. A study must not count one patient as two, or one class as two.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

MISSING_WORDS = frozenset({"nan", "na", "n/a", "#n/a", "null", "none", "nil", "missing", "?", "-"})
"""Words that programs and people write into a cell to say that there is nothing."""

_NO_ID = MISSING_WORDS | {
    "unknown",
    "anonymous",
    "anonymized",
    "anonymised",
    "#ref!",
    "#value!",
    "#name?",
    "#null!",
    "#num!",
    "#div/0!",
}

_WHOLE = re.compile(r"([-+]?\d+)[.,]0+")
_THOUSANDS = re.compile(r"\d{1,3}([.,'\u2019]\d{3})+")
_QUOTES = " \t=\"'`\u2018\u2019\u201c\u201d"
_JOINTS = re.compile(r"[-_./\\:\u2010-\u2015\u2212]+")
_ROUNDED = re.compile(r"[-+]?\d([.,]\d+)?[eE]\+?\d{1,2}")


def folded(text: str) -> str:
    r"""Return a cell without what no reader sees or means: case, width, blanks, a trailing ".0".

    >>> folded("Pneumonia\u200b") == folded("pneumonia"), folded("1.0"), folded("P\u00a03")
    (True, '1', 'p3')
    """
    if text.isascii() and text.isprintable():  # most cells: the same, sooner
        seen = text.casefold().replace(" ", "")
        whole = _WHOLE.fullmatch(seen)
        return whole[1] if whole else seen
    seen = "".join(
        sign
        for sign in unicodedata.normalize("NFKC", text).casefold()
        if not sign.isspace() and unicodedata.category(sign) not in ("Cf", "Cc")
    )
    whole = _WHOLE.fullmatch(seen)
    return whole[1] if whole else seen


def may_fold(texts: Iterable[str]) -> bool:
    """Return whether folding may make one of two texts: a quick look at a million.

    >>> may_fold(["c1", "c2"]), may_fold(["c1", "C1"]), may_fold(["1", "1.0"])
    (False, True, True)
    """
    whole = "".join(texts)
    is_plain = whole.isascii() and whole in (whole.lower(), whole.upper())
    return not is_plain or re.search(r"[\s.,]", whole) is not None


def folded_id(text: str) -> str:
    """Return an id folded, its numbers without leading zeros.

    >>> folded_id("00012"), folded_id("12.0"), folded_id("P 0003"), folded_id("p3")
    ('12', '12', 'p3', 'p3')
    """
    return re.sub(r"(?<!\d)0+(?=\d)", "", folded(text))


def alike_id(text: str) -> str:
    """Return an id as it is compared to find two spellings of it, never to join by.

    Beside what `folded_id` takes away: the quotes by which spreadsheets keep a text (="0012"),
    separators of thousands, and which sign, or none before a number, joins its parts.

    >>> alike_id('="0012"'), alike_id("12,340"), alike_id("P-003"), alike_id("2023/15")
    ('12', '12340', 'p3', '2023-15')
    """
    seen = folded_id(text)
    if seen.isalnum():
        return seen
    seen = folded(text.strip(_QUOTES))
    if _THOUSANDS.fullmatch(seen):
        return folded_id(re.sub(r"\D", "", seen))
    seen = _JOINTS.sub("-", seen).strip("-")
    return folded_id(re.sub(r"(?<=[^\W\d])-(?=\d)", "", seen))


def is_no_id(text: str) -> bool:
    """Return whether a cell says that there is no id, or that a spreadsheet could not show it.

    >>> is_no_id("nan"), is_no_id("####"), is_no_id("P7")
    (True, True, False)
    """
    seen = text.strip().casefold()
    return seen in _NO_ID or set(seen) == {"#"}


def is_rounded(text: str) -> bool:
    """Return whether a cell is a number that a spreadsheet has rounded, so that ids have merged.

    >>> is_rounded("2.0231E+11"), is_rounded("3E5"), is_rounded("202310000017")
    (True, True, False)
    """
    return bool(_ROUNDED.fullmatch(text.strip()))


def spelled_alike(texts: Iterable[str], *, ids: bool = False) -> list[tuple[str, ...]]:
    """Return the groups of two or more different cells that fold to the same, in order.

    Args:
        texts: Cells of one column; empty ones are passed over.
        ids: Whether they are ids, which differ by more than zeros, quotes and joints.

    >>> spelled_alike(["1", "1.0", "2", "1"]), spelled_alike(["p3", "P003"], ids=True)
    ([('1', '1.0')], [('p3', 'P003')])
    """
    fold = alike_id if ids else folded
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for text in texts:
        if text:
            groups[fold(text)][text] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]
