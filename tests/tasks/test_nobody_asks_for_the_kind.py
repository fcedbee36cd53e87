"""What a kind of study does differently is asked of its task, its sink and its entry in one table.

A cast to a task or network, an `isinstance` of one, a comparison with the name of a kind, or a look
at whether a store holds masks is the same question in disguise. There is none outside of `tasks/`
and the literal tables.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

MEDTL = Path(__file__).parents[2] / "medtl"

TYPES = {"Task", "Findings", "Classes", "Structures", "Regression", "Classifier", "Segmenter"}
KINDS = {"classification", "regression", "bone_age", "segmentation"}

ITSELF = ("tasks/", "networks/", "evaluation/", "demo/")
"""Tasks and networks know themselves; evaluation's kinds are those of a table, whoever made it."""


def questions(source: str) -> Iterator[str]:
    """Yield the places where code asks which kind of study it has."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            of = {"cast": node.args[:1], "isinstance": node.args[1:2]}.get(node.func.id, [])
            names = {name for part in of for name in _names(part)}
            if names & TYPES:
                yield f"line {node.lineno}: {node.func.id} of {', '.join(sorted(names & TYPES))}"
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            words = {word for side in sides for word in _texts(side)}
            if words & KINDS:
                yield f"line {node.lineno}: compares with {', '.join(sorted(words & KINDS))}"
            asked = [s for s in sides if isinstance(s, ast.Attribute) and s.attr == "masks"]
            if asked and any(isinstance(s, ast.Constant) and s.value is None for s in sides):
                yield f"line {node.lineno}: asks whether there are masks"


def _names(node: ast.AST) -> Iterator[str]:
    """Names of types in an expression, or in the text of one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value)
    yield from (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _texts(node: ast.AST) -> Iterator[str]:
    """Texts of a constant, or of the constants of a tuple, list or set."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    yield from (p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str))


def test_nobody_asks_which_kind_of_study_it_has():
    found = [
        f"{path.relative_to(MEDTL)}, {question}"
        for path in sorted(MEDTL.rglob("*.py"))
        if not path.relative_to(MEDTL).as_posix().startswith(ITSELF)
        if not (path.parent.name == "data" and path.name == "store.py")
        for question in questions(path.read_text("utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "cast(Classifier, trained.model)",
        "cast('Structures', task)",
        "isinstance(task, (int, Structures))",
        "if recipe.task.kind == 'segmentation': pass",
        "'bone_age' != kind",
        "kind in ('regression', 'other')",
        "if store.masks is not None: pass",
        "None is self.store.masks",
    ],
)
def test_a_question_is_found(code):
    assert len(list(questions(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "KINDS[recipe.task.kind].network(recipe)",
        "cast(Dataset[Batch], samples)",
        "task: Task = read_task(stored)",
        "weights.kind == 'timm'",
        "spec.masks is spec.others",
        "{'segmentation': MaskSink()}",
    ],
)
def test_what_is_no_question_is_not_found(code):
    assert not list(questions(code))
