"""What the documents name exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_architecture import LAYERS

from manual.reference import PAGES as MADE

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


def names_in(text: str) -> list[str]:
    """Dotted names of medtl in backticks, calls without their parentheses."""
    return re.findall(r"`(medtl(?:\.\w+)+)(?:\(.*?\))?`", text)


def exists(name: str, root: Path) -> bool:
    """Whether `package.module.function` or `...Class.member` is defined below `root`."""
    folder, parts = root, name.split(".")
    while parts and (folder / parts[0]).is_dir():
        folder = folder / parts.pop(0)
    if not parts:
        return True
    source = folder / f"{parts[0]}.py"
    if not source.is_file():
        source, parts = folder / "__init__.py", ["__init__", *parts]
    body = ast.parse(source.read_text(encoding="utf-8")).body if source.is_file() else []
    for part in parts[1:]:
        found = [node for node in body if part in defined_by(node)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def defined_by(node: ast.stmt) -> set[str]:
    """The names a statement of a module or class body defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_in_a_page_exists(page: Path) -> None:
    missing = [
        name for name in names_in(page.read_text(encoding="utf-8")) if not exists(name, ROOT)
    ]
    assert not missing


def test_names_are_found_in_the_architecture() -> None:
    assert len(names_in((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))) > 15


def test_layers_in_the_architecture_are_those_of_the_test() -> None:
    rows = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## ")[1]
    first_cells = re.findall(r"^\| (`.+?`) \|", rows, re.MULTILINE)
    assert " ".join(first_cells).replace("`", "").split() == [p for layer in LAYERS for p in layer]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("medtl.types.Image", True),
        ("medtl.types.Image.spacing", True),
        ("medtl.types.SPLITS", True),
        ("medtl.metrics", True),
        ("medtl.lazily", True),
        ("medtl.types.Picture", False),
        ("medtl.types.Image.size", False),
        ("medtl.nowhere.read", False),
    ],
)
def test_a_name_that_does_not_exist_is_caught(name: str, found: bool) -> None:
    assert exists(name, ROOT) is found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    there = [(page.parent / link).exists() or made(page, link) for link in links]
    assert not [link for link, is_there in zip(links, there, strict=True) if not is_there]


def made(page: Path, link: str) -> bool:
    """Whether a link leads to a page that is made when the manual is built."""
    there = (page.parent / link).resolve()
    inside = there.is_relative_to(ROOT / "docs")
    return inside and there.relative_to(ROOT / "docs").as_posix() in MADE


def links_out_of_the_manual(page: Path) -> list[str]:
    """Links that leave `docs/` for anything but `reports/`, which .ci/manual.py puts into it."""
    inside = (ROOT / "docs", ROOT / "reports")
    found = re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text(encoding="utf-8"))
    targets = {link: (page.parent / link).resolve() for link in found}
    return [link for link, target in targets.items() if not any(map(target.is_relative_to, inside))]


def test_no_link_leaves_the_manual(tmp_path: Path) -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "reports").glob("*.md")]
    assert not {page.name: links for page in pages if (links := links_out_of_the_manual(page))}
    control = tmp_path / "page.md"
    control.write_text("[code](../medtl/types.py#L1), [web](https://example.org)")
    assert links_out_of_the_manual(control) == ["../medtl/types.py"]


def test_ci_builds_the_manual() -> None:
    assert re.search(r"^make .*\bdocs\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    pages = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("0*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    index = (ROOT / "docs" / "decisions" / "index.md").read_text(encoding="utf-8")
    assert not [name for name in pages if name not in index]


def test_decisions_have_their_sections() -> None:
    sections = ("Context", "Decision", "Alternatives measured", "Consequences")
    for page in (ROOT / "docs" / "decisions").glob("0*.md"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(sections), page.name
        assert re.search(r"^\*\*Status:\*\* (accepted|superseded by \d{4})$", text, re.MULTILINE)


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 120
