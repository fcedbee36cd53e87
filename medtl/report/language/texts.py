"""The report's words: one YAML file per language beside this module, the same keys in each.

Values in `{braces}` are escaped when a text is filled in (`fill`); the texts themselves may hold
markup. A key that is missing raises, so a template cannot show a hole. What `metrics/` says in
English (reasons, methods, notes) is translated by phrase, and stays English where none is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from markupsafe import Markup

from medtl.errors import RunError
from medtl.storage.yaml import load_yaml

LANGUAGES = ("en", "ko")

_SPOKEN: ContextVar[str] = ContextVar("language", default="en")

_VARIABLE = re.compile(
    r"'[^']*'(?:, '[^']*')*|(?<=against )[^,;]+"
    r"|^\S+(?= was divided)|^[^:;]+(?=: \d+ of \d+ cases have)"
    r"|(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?%?"
)
"""The parts that differ between two uses of one English phrase: names, and numbers."""


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Let every text in the block be of one language.

    Args:
        language: One of `LANGUAGES`.

    Raises:
        RunError: For another language.
    """
    if language not in LANGUAGES:
        raise RunError(f"no language {language!r}", expected=f"one of {', '.join(LANGUAGES)}")
    token = _SPOKEN.set(language)
    try:
        yield
    finally:
        _SPOKEN.reset(token)


def spoken() -> str:
    """Return the language of the block, "en" outside any."""
    return _SPOKEN.get()


@cache
def texts_of(language: str) -> Mapping[str, str]:
    """Return key -> text of a language."""
    return dict(_file(language)["texts"])


@cache
def phrases_of(language: str) -> Mapping[str, str]:
    """Return English phrase -> phrase of a language; a `#` stands for a number or a quoted name."""
    return dict(_file(language).get("phrases") or {})


@cache
def findings_of(language: str) -> Mapping[str, str]:
    """Return the English name of a finding, in small letters -> its name in a language."""
    return dict(_file(language).get("findings") or {})


def known_finding(words: str) -> str:
    """Return the name of a finding or structure in the language of the block; "" for others.

    >>> with speaking("ko"):
    ...     known_finding("Pleural Effusion")
    '흉수'
    """
    return findings_of(spoken()).get(words.casefold().replace("-", " "), "")


def _file(language: str) -> dict[str, dict[str, str]]:
    """The content of a language's file."""
    return load_yaml(Path(__file__).parent / f"{language}.yaml")


def fill(key: str, **values: object) -> Markup:
    """The text of `key` with `values` escaped into its braces."""
    return Markup(particles(Markup(texts_of(spoken())[key]).format(**values)))


def plain(key: str, **values: object) -> str:
    """The text of `key` as a plain string, not yet escaped, for places without markup."""
    return particles(texts_of(spoken())[key].format(**values))


_PARTICLES = {"이(가)": ("이", "가"), "을(를)": ("을", "를"), "은(는)": ("은", "는")}
"""Korean particle as a text writes it -> after a consonant, and after a vowel."""

_OPEN_DIGITS = "2459"
"""Digits whose Korean name ends in a vowel."""


def particles(text: str) -> str:
    """Return a text with its Korean particles chosen by the word before them.

    What stands in brackets is not read aloud; after a Latin letter both forms stay.

    >>> particles("편향(추정)이(가), 오차이(가), 75을(를), 40%을(를), Dice이(가)")
    '편향(추정)이, 오차가, 75를, 40%를, Dice이(가)'
    """

    def chosen(found: re.Match[str]) -> str:
        last, closed, open_ = found["last"], *_PARTICLES[found["particle"]]
        if last.isascii() and last.isalpha():
            return found[0]
        is_closed = last not in _OPEN_DIGITS + "%" if last.isascii() else (ord(last) - 0xAC00) % 28
        return found["last"] + found["aside"] + (closed if is_closed else open_)

    return _BEFORE.sub(chosen, text)


_BEFORE = re.compile(
    r"(?P<last>[0-9A-Za-z%가-힣])(?P<aside>(?:\([^()]*\))?(?:</\w+>)?)(?P<particle>이\(가\)|을\(를\)|은\(는\))"
)


def knows(key: str) -> bool:
    """Tell whether there is a text of that key."""
    return key in texts_of(spoken())


def translated(english: object) -> str:
    """A reason, method or note of `metrics/` in the language of the block.

    Parts joined by "; " or ", " are looked up whole first, then one by one.
    """
    text = str(english)
    if spoken() == "en" or not text:
        return text
    for mark in ("; ", ", "):
        found = _phrase(text)
        if found is not None:
            return found
        if mark in text:
            return mark.join(translated(part) for part in text.split(mark))
    return _phrase(text) or text


def _phrase(text: str) -> str | None:
    """The known phrase with the numbers and names of the text, in their order."""
    pattern = phrases_of(spoken()).get(_VARIABLE.sub("#", text))
    if pattern is None:
        return None
    values = iter(_VARIABLE.findall(text))
    return re.sub("#", lambda _: next(values, "#"), pattern)
