"""Spellings: cells that a person takes for the same word, and a program for two.

Spreadsheets add ".0", drop leading zeros and round long numbers; people mix cases, blanks and
signs that nobody sees. A study must not count one patient as two, or one class as two.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_WHOLE = re.compile(r"([-+]?\d+)[.,]0+")
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


def folded_id(text: str) -> str:
    """Return an id folded, its numbers without leading zeros.

    >>> folded_id("00012"), folded_id("12.0"), folded_id("P 0003"), folded_id("p3")
    ('12', '12', 'p3', 'p3')
    """
    return re.sub(r"(?<!\d)0+(?=\d)", "", folded(text))


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
        ids: Whether numbers with and without leading zeros are the same.

    >>> spelled_alike(["1", "1.0", "2", "1"]), spelled_alike(["p3", "P003"], ids=True)
    ([('1', '1.0')], [('p3', 'P003')])
    """
    fold = folded_id if ids else folded
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for text in texts:
        if text:
            groups[fold(text)][text] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]
