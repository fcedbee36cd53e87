"""The page of error messages: every place of the source that makes one of medtl's own errors.

A field of an f-string is shown by its name, `<name>`. A message that stands in a variable is looked
up in the function that makes the error, and one that comes as an argument where it is called.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from manual.markdown import cell, table
from medtl import errors

PACKAGE = Path(errors.__file__).parent

ERRORS: Mapping[str, str] = {
    name: (value.__doc__ or "").strip().splitlines()[0]
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.MedtlError)
}
"""Error class -> what it means."""

ROOMS: Mapping[str, str] = {
    "recipe": "The recipe",
    "cases": "Tables, sheets and manifests",
    "io": "Image files",
    "preprocess": "Preparation and augmentation",
    "data": "Reading the images of a run",
    "networks": "Networks and weights",
    "losses": "Losses",
    "tasks": "Tasks",
    "training": "Training",
    "metrics": "Measures",
    "evaluation": "Evaluation",
    "prediction": "Prediction",
    "report": "Reports",
    "run": "Runs",
    "studies": "Studies",
    "export": "Export",
    "storage": "Files and folders",
    "demo": "The demos",
    "cli": "The command line",
    "errors": "What is not installed",
    "types": "Values",
}
"""Room of the package -> what its messages are about, in the order in which a study meets them."""

HEAD = """# Error messages

Every message that medtl itself gives, from the source. It says what was found, what was expected
and what to do, and before that where: the file, row or key. What differs from case to case is shown
as `<name>`. A message ends a command with status 1; that of one image among many sets the image
aside, and the work goes on. A fault of the program itself is none of these: it ends in a traceback.

| class | is |
|---|---|
"""


_Function = ast.FunctionDef | ast.AsyncFunctionDef

_DEPTH = 3
"""How many variables of variables, and callers of callers, are looked up."""


@dataclass(frozen=True)
class Message:
    """One message: its class, the room that gives it, its text, and what to do."""

    error: str
    room: str
    text: str
    fix: str


def messages_page() -> str:
    """Return the page: the classes, then for each room its messages in alphabetical order."""
    classes = "".join(f"| `{name}` | {cell(meaning)} |\n" for name, meaning in ERRORS.items())
    parts = [HEAD + classes]
    found = {(m.room, m.error, m.text, m.fix) for m in messages(PACKAGE)}
    for room, title in ROOMS.items():
        rows = sorted((text, fix, error) for of, error, text, fix in found if of == room)
        if rows:
            shown = [(_as_code(text), fix, f"`{error}`") for text, fix, error in rows]
            parts.append(f"\n## {title}\n\n{table(('message', 'what to do', 'class'), shown)}")
    return "".join(parts)


def _as_code(text: str) -> str:
    """Show a message as code, backticks in it too."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def messages(package: Path) -> Iterator[Message]:
    """Yield the messages of a package, as often as they stand there."""
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        source = _Source(ast.parse(path.read_text(encoding="utf-8")))
        for call, name in source.errors():
            arguments = {key.arg: key.value for key in call.keywords}
            first = call.args[0] if call.args else arguments["found"]
            if isinstance(first, ast.Attribute) and first.attr == "found":
                continue  # passes on another one, with more of its place
            asked = [first, arguments.get("expected"), arguments.get("fix")]
            for found, expected, fix in source.variants(asked, call):
                text = f"{found}; expected {expected}" if expected else found
                if re.sub(r"<\S+?>", "", found).strip(" ;:.,'"):  # else another one, passed on
                    yield Message(name, room, text, fix)


def _together(parts: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Yield what belongs together: parts with as many variants as others vary with them."""
    several = {len(variants) for variants in parts if len(variants) > 1}
    if len(several) == 1:
        (count,) = several
        parts = [variants if len(variants) > 1 else [*variants] * count for variants in parts]
        yield from zip(*parts, strict=True)
    else:
        yield from itertools.product(*parts)


class _Source:
    """One module: which function a node lies in, and what a name stands for there."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree

    def errors(self) -> Iterator[tuple[ast.Call, str]]:
        """Yield every call that makes one of medtl's errors, but those that hold others."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
                if name in ERRORS and name != "RecipeError":
                    yield node, name

    @cached_property
    def functions(self) -> Sequence[_Function]:
        """The functions, outer ones before those within them."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]

    def function_of(self, node: ast.expr) -> _Function | None:
        """Return the innermost function around a node."""
        around = [f for f in self.functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
        return around[-1] if around else None

    def variants(
        self, nodes: Sequence[ast.expr | None], at: ast.expr, depth: int = 0
    ) -> Iterator[Sequence[str]]:
        """Yield what some expressions may be together at a place, for each caller of a function."""
        function = self.function_of(at)
        asked = {node.id for node in nodes if isinstance(node, ast.Name)} if function else set()
        given = [name for name in asked if name in _parameters(function)]
        calls = list(self._calls(function)) if function and given and depth < _DEPTH else []
        for call, values in calls:
            there = [
                values.get(node.id, node) if isinstance(node, ast.Name) else node for node in nodes
            ]
            yield from self.variants(there, call, depth + 1)
        if not calls:
            yield from _together([self.texts(node, at) for node in nodes])

    def texts(self, node: ast.expr | None, at: ast.expr, depth: int = 0) -> list[str]:
        """Return the texts that an expression may be at a place, fields by their names."""
        if node is None:
            return [""]
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            return ["".join(map(self._part, node.values))]
        if isinstance(node, ast.IfExp):
            return self.texts(node.body, at, depth) + self.texts(node.orelse, at, depth)
        if isinstance(node, ast.BoolOp):
            return [text for value in node.values for text in self.texts(value, at, depth)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = (self.texts(node.left, at, depth), self.texts(node.right, at, depth))
            return [left + right for left, right in itertools.product(*sides)]
        if isinstance(node, ast.Name) and depth < _DEPTH:
            meant = self._set_to(node, at)
            texts = [text for value in meant for text in self.texts(value, at, depth + 1)]
            texts = texts or self._imported(node.id)
            if texts:
                return texts
        return [f"<{_name(node)}>"]

    def _part(self, part: ast.expr) -> str:
        """One part of an f-string: its text, or the name of its field."""
        if isinstance(part, ast.FormattedValue):
            quoted = "'" if part.conversion == ord("r") else ""
            return f"{quoted}<{_name(part.value)}>{quoted}"
        return str(part.value) if isinstance(part, ast.Constant) else ""

    def _set_to(self, name: ast.Name, at: ast.expr) -> list[ast.expr]:
        """Return what a name is set to in the function of a place, or in the module."""
        function = self.function_of(at)
        set_to = list(_assigned(function, name.id)) if function else []
        return set_to or [v for s in self.tree.body for v in _assigned(s, name.id, deep=False)]

    def _imported(self, name: str) -> list[str]:
        """Return the text that another module of medtl has for a constant."""
        for part in self.tree.body:
            names = [alias.name for alias in getattr(part, "names", [])]
            if isinstance(part, ast.ImportFrom) and part.module and name in names:
                value = getattr(import_module(part.module), name)
                return [value] if isinstance(value, str) else []
        return []

    def _calls(self, function: _Function) -> Iterator[tuple[ast.expr, dict[str, ast.expr]]]:
        """Yield the calls of a function in its module, and what each gives for its parameters."""
        names = _parameters(function)
        for call in (node for node in ast.walk(self.tree) if isinstance(node, ast.Call)):
            called = call.func
            if getattr(called, "id", getattr(called, "attr", "")) == function.name:
                places = names[1:] if names[:1] == ["self"] else names
                given = dict(zip(places, call.args, strict=False))
                given |= {key.arg: key.value for key in call.keywords if key.arg}
                yield call, {name: given.get(name, ast.Constant("")) for name in places}


def _parameters(function: _Function | None) -> list[str]:
    """Return the names of a function's parameters, in their order."""
    if function is None:
        return []
    own = function.args
    return [argument.arg for argument in (*own.posonlyargs, *own.args, *own.kwonlyargs)]


def _assigned(node: ast.AST, name: str, *, deep: bool = True) -> Iterator[ast.expr]:
    """Yield what a name is set to in a statement, and with `deep` in all that it holds."""
    for part in ast.walk(node) if deep else [node]:
        targets = part.targets if isinstance(part, ast.Assign) else []
        if isinstance(part, ast.AnnAssign | ast.NamedExpr):
            targets = [part.target]
        for target in targets:
            value = getattr(part, "value", None)
            if isinstance(target, ast.Name) and target.id == name and value is not None:
                yield value
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = zip(target.elts, value.elts, strict=False)
                yield from (v for t, v in pairs if isinstance(t, ast.Name) and t.id == name)


def _name(node: ast.expr) -> str:
    """Name the value of a field: the last name in it that says something."""
    if isinstance(node, ast.Call):
        called = _name(node.func)
        if called == "len":
            return "number"
        return _name(node.args[0]) if node.args else called
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_")
    if isinstance(node, ast.Name):
        return node.id.strip("_")
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)]
    return _name(names[0]) if names else "..."
