"""YAML with the scalar rules of YAML 1.2, safe to read from strangers.

`1e-4` is a number, `no` is a text, `2020-01-01` and `12:30` are texts. Keys are always texts, as
written. ruamel.yaml does the syntax; this module gives its events a meaning, so that nothing but
null, booleans, numbers, texts, lists and mappings can come out, within limits. Its own resolver is
not used: it reads `1_000` and `0b11` as numbers and `2020-01-01` as a date, and obeys `%YAML 1.1`.

Reference: YAML 1.2.2, section 10.3 (core schema).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import YAMLError
from ruamel.yaml.tag import Tag

from medtl.errors import MedtlError, located

MAX_BYTES = 256 * 1024
"""Recipes and sidecars are a few kilobytes; more is a mistake or an attack."""

MAX_DEPTH = 20
"""Nesting of lists and mappings."""

MAX_NODES = 50_000
"""Values in the file with every alias written out: a bomb of aliases stops here."""

_CORE_SCHEMA: tuple[tuple[str, Callable[[str], Any]], ...] = (
    (r"~|null|Null|NULL|", lambda _text: None),
    (r"true|True|TRUE|false|False|FALSE", lambda text: text[0] in "tT"),
    (r"[-+]?[0-9]+", int),
    (r"0o[0-7]+", lambda text: int(text[2:], 8)),
    (r"0x[0-9a-fA-F]+", lambda text: int(text, 16)),
    (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
)
"""Forms of a plain scalar, each with its value; anything else is a text."""

_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})


def load_yaml(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        MedtlError: If the file is missing, too large, not UTF-8, not YAML, or no mapping; the
            message names the line.
    """
    path = Path(path)
    with located(path.name):
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise MedtlError("not a regular file", expected="a YAML file")
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            found = f"the file is not found or cannot be read ({error.strerror})"
            raise MedtlError(found, fix="Check the path") from error
        _refuse_large(len(data))
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            found = f"line {line} holds bytes that are not UTF-8"
            raise MedtlError(found, fix="Save the file with the encoding UTF-8") from error
        return loads(text, path.name)


def loads(text: str, name: str) -> dict[str, Any]:
    r"""Return the mapping that a YAML text holds.

    Args:
        text: The YAML document.
        name: What to call it in messages.

    Raises:
        MedtlError: If the text is empty, too large, not YAML, uses tags, repeats a key, nests too
            deeply, expands to too much, or holds anything but one mapping.

    >>> loads("lr: 1e-4\nanswer: no", "chest.yaml")
    {'lr': 0.0001, 'answer': 'no'}
    """
    with located(name):
        _refuse_large(len(text))
        try:
            value = _Document(YAML(typ="safe", pure=True).parse(text)).value()
        except YAMLError as error:
            raise _syntax_error(error) from error
        if value is None:
            raise MedtlError("the file is empty", expected="keys and values")
        if not isinstance(value, dict):
            found = f"the top level is {'a list' if isinstance(value, list) else 'a single value'}"
            raise MedtlError(found, expected="a mapping (`key: value`)")
        return value


def scalar(text: str) -> str:
    """Return a text as it must be written in YAML, also inside brackets.

    >>> scalar("ja"), scalar("null"), scalar("a, b")
    ('ja', '"null"', '"a, b"')
    """
    return dump_yaml({"x": [text]}).removeprefix("x: [").rstrip("]\n")


def dump_yaml(data: Any) -> str:
    """Return `data` as block-style YAML that `loads` and any YAML reader give back unchanged.

    Args:
        data: Mappings with text keys, lists, tuples, texts, finite or infinite numbers, booleans
            and None. Keys keep their order.

    Raises:
        TypeError: If it holds anything else.

    >>> print(dump_yaml({"lr": 1e-4, "ids": "no", "size": (1, 2)}), end="")
    lr: 0.0001
    ids: "no"
    size: [1, 2]
    """
    stream = StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.width = 4096  # long texts stay on their line
    opening = [ev.StreamStartEvent(), ev.DocumentStartEvent(explicit=False)]
    closing = [ev.DocumentEndEvent(explicit=False), ev.StreamEndEvent()]
    writer.emit([*opening, *_events(data), *closing], stream)
    return stream.getvalue()


class _Document:
    """Gives the events of one document their values, counting what it has made."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.num_nodes = 0
        self.anchors: dict[str, tuple[Any, int]] = {}
        """Anchor -> its value and how many nodes that is."""

    def value(self) -> Any:
        """Return the value of the one document, None when there is none."""
        value: Any = None
        starts = (event for event in self.events if isinstance(event, ev.DocumentStartEvent))
        for number, event in enumerate(starts):
            if number > 0:
                raise _fault("a second document starts", event, fix="Delete `---`")
            value = self._node(next(self.events), 0)
        return value

    def _node(self, event: Any, depth: int) -> Any:
        """Return the value of a node and of all below it."""
        if isinstance(event, ev.AliasEvent):  # it counts as if its value were written out
            if event.anchor not in self.anchors:
                raise _fault(f"the alias *{event.anchor} has no anchor before it", event)
            value, num_nodes = self.anchors[event.anchor]
            self._count(num_nodes, event)
            return value
        if depth > MAX_DEPTH:
            raise _fault(f"nested deeper than the limit of {MAX_DEPTH} levels", event)
        before = self.num_nodes
        self._count(1, event)
        _refuse_tag(event)
        if isinstance(event, ev.ScalarEvent):
            value = _scalar(event)
        else:
            below = takewhile(lambda one: not isinstance(one, ev.CollectionEndEvent), self.events)
            if isinstance(event, ev.SequenceStartEvent):
                value = [self._node(one, depth + 1) for one in below]
            else:
                value = self._mapping(below, depth + 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.num_nodes - before)
        return value

    def _mapping(self, keys: Iterator[Any], depth: int) -> dict[str, Any]:
        """Return a mapping whose keys come next; the value of each comes in between."""
        items: dict[str, Any] = {}
        for event in keys:
            if not isinstance(event, ev.ScalarEvent):
                raise _fault("a key is not a plain text", event, fix="Write `key: value`")
            _refuse_tag(event)
            if event.value == "<<" and event.implicit[0]:
                raise _fault("merge keys (`<<`) are not part of YAML 1.2", event)
            if event.value in items:
                raise _fault(f"duplicate key '{event.value}'", event, fix="Delete one of the two")
            self._count(1, event)
            items[event.value] = self._node(next(self.events), depth)
        return items

    def _count(self, num_nodes: int, event: Any) -> None:
        """Add to the number of nodes and stop at the limit."""
        self.num_nodes += num_nodes
        if self.num_nodes > MAX_NODES:
            raise _fault(f"expands to more than the limit of {MAX_NODES} values", event)


def _scalar(event: Any) -> Any:
    """Return the value of a scalar: quoted ones are texts, plain ones follow the schema."""
    if event.tag is not None or not event.implicit[0]:
        return event.value
    try:
        return _plain(event.value)
    except ValueError as error:  # an integer with more digits than Python converts
        raise _fault("a number has too many digits", event) from error


def _plain(text: str) -> Any:
    """Return the value of a plain scalar by the core schema."""
    return next((of(text) for form, of in _CORE_SCHEMA if re.fullmatch(form, text)), text)


def _refuse_tag(event: Any) -> None:
    """Raise for a tag, which could name code; only a text may be tagged as one."""
    if event.tag is not None and not (
        isinstance(event, ev.ScalarEvent) and event.tag in _TEXT_TAGS
    ):
        raise _fault("the tag (`!...`) is not allowed", event, fix="Write the value plainly")


def _refuse_large(size: int) -> None:
    """Raise if a text has more bytes than anything medtl reads as YAML."""
    if size > MAX_BYTES:
        raise MedtlError(f"larger than the limit of {MAX_BYTES // 1024} KiB")


def _fault(found: str, event: Any, *, fix: str = "") -> MedtlError:
    """Return an error at the line of an event."""
    return MedtlError(found, where=f"line {event.start_mark.line + 1}", fix=fix)


def _syntax_error(error: YAMLError) -> MedtlError:
    """Return the error for a text that is not YAML, with its line."""
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f"line {mark.line + 1}"
    problem = str(getattr(error, "problem", None) or "a character that is not allowed in YAML")
    if "\\t" in problem:
        return MedtlError("a tab indents the line", where=where, fix="Indent with spaces")
    return MedtlError(f"not YAML: {problem}", where=where, fix="Check quotes, colons and indents")


def _events(value: Any) -> Iterator[Any]:
    """Yield the events that write a value."""
    if isinstance(value, dict):
        yield ev.MappingStartEvent(None, None, True, flow_style=not value)
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key of a YAML mapping is {type(key).__name__}, not text")
            yield _scalar_event(key, is_text=True)
            yield from _events(item)
        yield ev.MappingEndEvent()
    elif isinstance(value, list | tuple):
        is_row = all(not isinstance(item, dict | list | tuple) for item in value)
        yield ev.SequenceStartEvent(None, None, True, flow_style=is_row)
        for item in value:
            yield from _events(item)
        yield ev.SequenceEndEvent()
    else:
        yield _scalar_event(*_written(value))


def _written(value: Any) -> tuple[str, bool]:
    """Return how a scalar is written, and whether it is a text."""
    if isinstance(value, str):
        return value, True
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value], False
    if isinstance(value, int):
        return str(value), False
    if isinstance(value, float):
        return repr(value).replace("inf", ".inf").replace("nan", ".nan"), False
    raise TypeError(f"{type(value).__name__} cannot be written as YAML")


def _scalar_event(text: str, is_text: bool) -> Any:
    """Return the event of a scalar; a text that would read as something else is quoted."""
    is_safe = re.fullmatch(r"[A-Za-z_][\w ./%()-]*(?<! )", text, re.ASCII) is not None
    is_old_boolean = text.lower() in {"y", "n", "yes", "no", "on", "off"}  # for YAML 1.1 readers
    is_quoted = is_text and (not is_safe or _plain(text) != text or is_old_boolean)
    # The emitter looks at the tag but leaves it out: (True, True) allows that for both styles.
    return ev.ScalarEvent(None, Tag(), (True, True), text, style='"' if is_quoted else None)
