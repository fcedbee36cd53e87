"""YAML with the scalar rules of YAML 1.2, safe to read from strangers.

`1e-4` is a number, `no` is a text, `2020-01-01` and `12:30` are texts. Keys are always texts, as
written. ruamel.yaml does the syntax; this module gives its events a meaning, so that nothing but
null, booleans, numbers, texts, lists and mappings can come out, within limits.

Reference: YAML 1.2.2, section 10.3 (core schema).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import YAMLError
from ruamel.yaml.tag import Tag

from medtl.errors import MedtlError

MAX_BYTES = 256 * 1024
"""Recipes and sidecars are a few kilobytes; more is a mistake or an attack."""

MAX_DEPTH = 20
"""Nesting of lists and mappings."""

MAX_NODES = 50_000
"""Values in the file with every alias written out: a bomb of aliases stops here."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})
_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        MedtlError: If the file is missing, too large, not UTF-8, not YAML, or no mapping; the
            message names the line.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise MedtlError("not a regular file", expected="a YAML file", where=path.name)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MedtlError(
            f"the file is not found or cannot be read ({error.strerror})",
            where=path.name,
            fix="Check the path",
        ) from error
    _refuse_large(len(data), path.name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MedtlError(
            f"line {line} holds bytes that are not UTF-8",
            where=path.name,
            fix="Save the file with the encoding UTF-8",
        ) from error
    return loads(text, path.name)


def loads(text: str, name: str) -> dict[str, Any]:
    """Return the mapping that a YAML text holds.

    Args:
        text: The YAML document.
        name: What to call it in messages.

    Raises:
        MedtlError: If the text is empty, too large, not YAML, uses tags, repeats a key, nests too
            deeply, expands to too much, or holds anything but one mapping.
    """
    _refuse_large(len(text), name)
    reader = YAML(typ="safe", pure=True)
    try:
        value = _Document(reader.parse(text), name).value()
    except YAMLError as error:
        raise _syntax_error(error, name) from error
    if value is None:
        raise MedtlError("the file is empty", expected="keys and values", where=name)
    if not isinstance(value, dict):
        found = "a list" if isinstance(value, list) else "a single value"
        raise MedtlError(
            f"the top level is {found}", expected="a mapping (`key: value`)", where=name
        )
    return value


def dump_yaml(data: Any) -> str:
    """Return `data` as block-style YAML that `loads` and any YAML reader give back unchanged.

    Args:
        data: Mappings with text keys, lists, tuples, texts, finite or infinite numbers, booleans
            and None. Keys keep their order.

    Raises:
        TypeError: If it holds anything else.
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

    def __init__(self, events: Iterator[Any], name: str) -> None:
        self.events = events
        self.name = name
        self.num_nodes = 0
        self.anchors: dict[str, tuple[Any, int]] = {}
        """Anchor -> its value and how many nodes that is."""

    def value(self) -> Any:
        """Return the value of the one document, None when there is none."""
        value: Any = None
        num_documents = 0
        for event in self.events:
            if isinstance(event, ev.DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    raise self._fault("a second document starts", event, fix="Delete `---`")
                value = self._node(next(self.events), 0)
        return value

    def _node(self, event: Any, depth: int) -> Any:
        """Return the value of a node and of all below it."""
        if isinstance(event, ev.AliasEvent):
            return self._alias(event)
        if depth > MAX_DEPTH:
            raise self._fault(f"nested deeper than the limit of {MAX_DEPTH} levels", event)
        before = self.num_nodes
        self._count(1, event)
        if isinstance(event, ev.ScalarEvent):
            value = self._scalar(event)
        elif event.tag is not None:
            raise self._tag_fault(event)
        elif isinstance(event, ev.SequenceStartEvent):
            value = self._sequence(depth)
        else:
            value = self._mapping(depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.num_nodes - before)
        return value

    def _sequence(self, depth: int) -> list[Any]:
        """Return a list, its start having been read."""
        items = []
        while not isinstance(event := next(self.events), ev.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        """Return a mapping, its start having been read."""
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), ev.MappingEndEvent):
            if not isinstance(event, ev.ScalarEvent):
                raise self._fault("a key is not a plain text", event, fix="Write `key: value`")
            key = event.value
            if event.tag is not None and event.tag not in _TEXT_TAGS:
                raise self._tag_fault(event)
            if key == "<<" and event.implicit[0]:
                raise self._fault("merge keys (`<<`) are not part of YAML 1.2", event)
            if key in items:
                raise self._fault(f"duplicate key '{key}'", event, fix="Delete one of the two")
            self._count(1, event)
            items[key] = self._node(next(self.events), depth + 1)
        return items

    def _alias(self, event: Any) -> Any:
        """Return the value that an alias stands for; it counts as if it were written out."""
        if event.anchor not in self.anchors:
            raise self._fault(f"the alias *{event.anchor} has no anchor before it", event)
        value, num_nodes = self.anchors[event.anchor]
        self._count(num_nodes, event)
        return value

    def _scalar(self, event: Any) -> Any:
        """Return the value of a scalar: quoted ones are texts, plain ones follow the schema."""
        if event.tag is not None and event.tag not in _TEXT_TAGS:
            raise self._tag_fault(event)
        if event.tag is not None or not event.implicit[0]:
            return event.value
        try:
            return _plain(event.value)
        except ValueError as error:  # an integer with more digits than Python converts
            raise self._fault("a number has too many digits", event) from error

    def _count(self, num_nodes: int, event: Any) -> None:
        """Add to the number of nodes and stop at the limit."""
        self.num_nodes += num_nodes
        if self.num_nodes > MAX_NODES:
            raise self._fault(f"expands to more than the limit of {MAX_NODES} values", event)

    def _tag_fault(self, event: Any) -> MedtlError:
        """Return the error for a tag, which could name code."""
        return self._fault("the tag (`!...`) is not allowed", event, fix="Write the value plainly")

    def _fault(self, found: str, event: Any, *, fix: str = "") -> MedtlError:
        """Return an error at the line of an event."""
        return MedtlError(found, where=f"{self.name}, line {event.start_mark.line + 1}", fix=fix)


def _refuse_large(size: int, name: str) -> None:
    """Raise if a text has more bytes than anything medtl reads as YAML."""
    if size > MAX_BYTES:
        raise MedtlError(f"larger than the limit of {MAX_BYTES // 1024} KiB", where=name)


def _plain(text: str) -> Any:
    """Return the value of a plain scalar by the core schema."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _INFINITE.fullmatch(text):
        return float(f"{match[1]}inf")
    return float("nan") if text in _NAN else text


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


def _syntax_error(error: YAMLError, name: str) -> MedtlError:
    """Return the error for a text that is not YAML, with its line."""
    mark = getattr(error, "problem_mark", None)
    where = name if mark is None else f"{name}, line {mark.line + 1}"
    problem = str(getattr(error, "problem", None) or "a character that is not allowed in YAML")
    if "\\t" in problem:
        return MedtlError("a tab indents the line", where=where, fix="Indent with spaces")
    return MedtlError(f"not YAML: {problem}", where=where, fix="Check quotes, colons and indents")
