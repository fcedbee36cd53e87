"""The polarity of two class words: the finding, and the one that says that it is not there.

A wrong answer turns a whole study round, so there are three answers: one word, the other, or none:
then the user is asked. The words of ten languages stand in `absence.yaml`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib.resources import as_file, files

from medtl.storage.yaml import load_yaml


def finding_of(first: str, second: str) -> str | None:
    """Return the one of two class words that names a finding, or None when that is not certain.

    Args:
        first: A value of the label column, or the name of a class folder.
        second: The other one.

    >>> finding_of("ja", "nein"), finding_of("No fracture", "Fracture")
    ('ja', 'Fracture')
    >>> finding_of("CT_NonCOVID", "CT_COVID"), finding_of("음성", "양성")
    ('CT_COVID', '양성')
    >>> finding_of("AD", "CN") is None, finding_of("healed", "not healed") is None
    (True, True)
    """
    words = _without_common_start(_fold(first), _fold(second))
    absent = [_is_absence(words[0], words[1]), _is_absence(words[1], words[0])]
    if None in absent or absent[0] == absent[1]:
        return None
    return second if absent[0] else first


def meanings_of(words: Iterable[str], positive: str | None = None) -> dict[str, int] | None:
    """Return 1 for the finding, 0 for its absence and -1 for "unclear", or None if not certain.

    Args:
        words: The values of a label column.
        positive: The one that is the finding, where the user has said it.

    >>> meanings_of(["unklar", "ja", "nein"])
    {'ja': 1, 'nein': 0, 'unklar': -1}
    >>> meanings_of(["AD", "CN"]) is None, meanings_of(["AD", "CN"], positive="AD")
    (True, {'AD': 1, 'CN': 0})
    """
    unclear = [w for w in words if _fold(w) in _lists()["uncertain"] and w != positive]
    known = [word for word in words if word not in unclear]
    if len(known) != 2:
        return None
    finding = positive if positive in known else finding_of(*known)
    if finding is None:
        return None
    (absence,) = {*known} - {finding}
    return {finding: 1, absence: 0, **dict.fromkeys(unclear, -1)}


def is_absence(word: str) -> bool:
    """Return whether a lone word surely says that nothing was found.

    >>> is_absence("No Finding"), is_absence("Effusion")
    (True, False)
    """
    return _is_absence(_fold(word), "") is True


def is_presence(word: str) -> bool:
    """Return whether a word says that a finding is there without naming it.

    >>> is_presence("Yes"), is_presence("pos."), is_presence("Effusion")
    (True, True, False)
    """
    return _fold(word) in _lists()["presence"]


def _is_absence(word: str, other: str) -> bool | None:
    """Return whether a folded word says that something is not there; None when both may be."""
    lists = _lists()
    if word in lists["absence"]:
        return True
    rest = _without_negation(word, other, lists)
    if rest is None:
        return False
    if rest in lists["absence"]:
        return False  # "not normal"
    return None if rest in lists["wellness"] else True


def _without_negation(word: str, other: str, lists: dict[str, frozenset[str]]) -> str | None:
    """Return what a word denies ("effusion" of "no effusion"); None when it denies nothing."""
    start, _, rest = word.partition(" ")
    if rest and start in lists["negations"]:
        return rest
    for ending in lists["endings"]:
        if word.endswith(ending) and word != ending:
            return word.removesuffix(ending).strip()
    for prefix in lists["glued"]:
        # Only beside the very word that it denies: "nonspecific" alone denies nothing.
        if other and word == prefix + other:
            return other
    return None


def _without_common_start(first: str, second: str) -> tuple[str, str]:
    """Two phrases without the words that both begin with ("ct covid", "ct noncovid")."""
    words, others = first.split(), second.split()
    while len(words) > 1 and len(others) > 1 and words[0] == others[0]:
        words, others = words[1:], others[1:]
    return " ".join(words), " ".join(others)


def _fold(text: str) -> str:
    """A text without case, accents, invisible signs and separators."""
    if text.strip() in ("-", "\u2212", "\u2013"):  # minus signs stand for "negative" in tables
        return "negative"
    if re.fullmatch(r"[-+]?\d+([.,]\d+)?", text.strip()):  # -1 is "uncertain", 1 is not
        return text.strip()
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    seen = "".join(sign for sign in plain if unicodedata.category(sign) not in ("Mn", "Cf"))
    return " ".join(re.split(r"[\s_\-.,:;()/]+", unicodedata.normalize("NFC", seen))).strip()


@cache
def _lists() -> dict[str, frozenset[str]]:
    """Name of a list in `absence.yaml` -> its words of all languages, folded."""
    with as_file(files("medtl.cases") / "absence.yaml") as path:
        table = load_yaml(path)
    return {
        name: frozenset(_fold(str(word)) for words in by_language.values() for word in words)
        for name, by_language in table.items()
    }
