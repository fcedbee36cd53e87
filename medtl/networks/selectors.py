"""One small grammar that names layers, for freezing, batch norm and zero-gamma alike.

layer4   name:layer4        one name
blocks.[45]   layer*        a glob
/layer[34]/                 a regular expression that matches the whole name
first:2  middle:1  last:1   counted in forward order; the head is not counted
stage:4                     all names of one stage; the stem is stage 0
frac:0.75-1.0               those whose middle lies in this fraction of the depth
random:2@7                  two at random with seed 7, a control for the above
all   none                  everything, head included; nothing
a,b   !c                    union; exclusion (alone: everything but c)
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from medtl.errors import SelectorError

_TERMS = re.compile(r"\s*(!?)\s*(/(?:\\.|[^/\\])*/|[^,]*?)\s*(?:,|$)")


@dataclass(frozen=True)
class _Layers:
    """The names to choose from: all of them, and the numbered ones (no head) with their stages."""

    names: tuple[str, ...]
    body: tuple[str, ...]
    stages: tuple[int, ...]


def resolve(
    selector: str | Sequence[str],
    names: Sequence[str],
    *,
    head: str | None = "head",
    stages: Sequence[int] | None = None,
) -> tuple[str, ...]:
    """Return the names that a selector chooses, in forward order.

    Args:
        selector: A selector, or several whose union is meant.
        names: What can be chosen, in forward order: layer groups, or eligible blocks.
        head: The name that counted forms (`first:`, `last:`, `frac:`, ...) leave out.
        stages: Stage of each name; without it every name is its own stage, counted from 0.

    Raises:
        SelectorError: When a term is malformed or chooses nothing, or exclusions leave nothing.
    """
    numbered = zip(names, range(len(names)) if stages is None else stages, strict=True)
    body = [(name, stage) for name, stage in numbered if name != head]
    layers = _Layers(tuple(names), tuple(n for n, _ in body), tuple(s for _, s in body))
    chosen: set[str] = set()
    excluded: set[str] = set()
    only_exclusions = True
    for negated, term in _terms(selector):
        if negated:
            excluded.update(_match(term, layers))
        else:
            only_exclusions = False
            chosen.update(_match(term, layers))
    remaining = (set(names) if only_exclusions else chosen) - excluded
    if excluded and not remaining:
        raise SelectorError(
            f"the exclusions of '{_text(selector)}' leave no layer",
            expected="at least one layer",
            fix="Write 'none' to select nothing",
        )
    return tuple(name for name in names if name in remaining)


def _text(selector: str | Sequence[str]) -> str:
    """A selector as one string."""
    return selector if isinstance(selector, str) else ",".join(selector)


def _terms(selector: str | Sequence[str]) -> list[tuple[bool, str]]:
    """Split at commas outside of /.../ into (is exclusion, term)."""
    text = _text(selector)
    terms: list[tuple[bool, str]] = []
    position = 0
    while position < len(text) or not terms:
        match = _TERMS.match(text, position)
        if match is None or not match[2]:
            raise SelectorError(
                f"'{text}' has an empty or malformed term",
                expected="names, globs or /patterns/ separated by commas",
            )
        terms.append((bool(match[1]), match[2]))
        position = match.end()
    return terms


def _match(term: str, layers: _Layers) -> tuple[str, ...]:
    """The names that one term chooses."""
    if term == "none":
        return ()
    if term == "all":
        return layers.names
    if re.fullmatch(r"/.*/", term):
        found = _by_pattern(term, layers.names)
    else:
        form, separator, argument = term.partition(":")
        if separator:
            return _by_form(term, form, argument, layers)
        found = tuple(name for name in layers.names if fnmatchcase(name, term))
    return found or _refuse(term, layers)


def _by_pattern(term: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that a /regular expression/ matches from end to end."""
    try:
        pattern = re.compile(term[1:-1].replace(r"\/", "/"))
    except re.error as error:
        raise SelectorError(
            f"'{term}' is not a valid pattern ({error})", expected="a regular expression"
        ) from error
    return tuple(name for name in names if pattern.fullmatch(name))


def _by_form(term: str, form: str, argument: str, layers: _Layers) -> tuple[str, ...]:
    """The names that a `form:argument` chooses."""
    if form not in _FORMS:
        raise SelectorError(
            f"'{term}' is no known form of selector",
            expected="one of " + ", ".join(f"{name}:" for name in _FORMS),
            fix=_nearest(form, _FORMS),
        )
    pattern, example, choose = _FORMS[form]
    match = re.fullmatch(pattern, argument)
    if match is None:
        raise SelectorError(f"'{term}' is malformed", expected=f"the form {example}")
    return choose(layers, *match.groups()) or _refuse(term, layers)


def _middle(layers: _Layers, count: str) -> tuple[str, ...]:
    start = (len(layers.body) - int(count)) // 2
    return layers.body[start : start + int(count)] if start >= 0 else ()


def _fraction(layers: _Layers, low: str, high: str) -> tuple[str, ...]:
    """Half-open, so that neighbouring fractions share no layer."""
    depth = len(layers.body)
    return tuple(
        name
        for index, name in enumerate(layers.body)
        if float(low) <= (index + 0.5) / depth < float(high)
    )


def _random(layers: _Layers, count: str, seed: str) -> tuple[str, ...]:
    if int(count) > len(layers.body):
        return ()
    return tuple(random.Random(int(seed)).sample(layers.body, int(count)))


_Choice = Callable[..., tuple[str, ...]]

_COUNT = r"([1-9]\d*)"
_SHARE = r"(0(?:\.\d+)?|1(?:\.0+)?|\.\d+)"

_FORMS: dict[str, tuple[str, str, _Choice]] = {
    "name": (r"(.+)", "name:layer4", lambda of, name: (name,) if name in of.names else ()),
    "first": (_COUNT, "first:2", lambda of, n: of.body[: int(n)] if int(n) <= len(of.body) else ()),
    "middle": (_COUNT, "middle:2", _middle),
    "last": (_COUNT, "last:2", lambda of, n: of.body[-int(n) :] if int(n) <= len(of.body) else ()),
    "stage": (
        r"(\d+)",
        "stage:4",
        lambda of, n: tuple(one for one, k in zip(of.body, of.stages, strict=True) if k == int(n)),
    ),
    "frac": (rf"{_SHARE}-{_SHARE}", "frac:0.75-1.0", _fraction),
    "random": (rf"{_COUNT}@(\d+)", "random:2@7", _random),
}
"""Form -> (pattern of its argument, example, what it chooses)."""


def _refuse(term: str, layers: _Layers) -> tuple[str, ...]:
    """Say that a term chooses nothing, and what could have been chosen."""
    raise SelectorError(
        f"'{term}' selects no layer",
        expected=f"one of {', '.join(layers.names)}" if layers.names else "a network with layers",
        fix=_nearest(term.removeprefix("name:"), layers.names),
    )


def _nearest(word: str, known: Sequence[str] | dict[str, tuple[str, str, _Choice]]) -> str:
    """A hint at the nearest known name, or ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean '{close[0]}'?" if close else ""
