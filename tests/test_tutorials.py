"""Every block of the tutorials and how-to pages runs, in its order, and says what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from fenced import blocks, run_page, says

DOCS = Path(__file__).parents[1] / "docs"
TUTORIALS = DOCS / "tutorials"
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_report_from_a_vendors_table() -> None:
    names = run_page(TUTORIALS / "vendor-table.md")
    assert names["ev"].auroc.n == 400
    assert Path("vendor-report/report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "run"), [("chest-films", "first"), ("bone-age", "hands"), ("masks", "kidney")]
)
def test_a_tutorial_ends_in_a_report(page: str, run: str) -> None:
    run_page(TUTORIALS / f"{page}.md")
    assert Path("runs", run, "report.html").is_file()
    assert Path("new.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_a_how_to_does_what_it_says(page: Path) -> None:
    assert blocks(page)
    run_page(page)


@pytest.mark.slow
def test_two_studies_of_few_labels_are_compared() -> None:
    run_page(TUTORIALS / "few-labels.md")


def test_no_tutorial_is_left_out() -> None:
    pages = {page.stem for page in TUTORIALS.glob("*.md")}
    assert pages == {"vendor-table", "chest-films", "bone-age", "masks", "few-labels"}


def test_the_korean_tutorial_is_the_english_one_in_its_blocks() -> None:
    korean = blocks(DOCS / "ko" / "vendor-table.md")
    assert len(korean) > 6
    assert korean == blocks(TUTORIALS / "vendor-table.md")


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ("a: 0.930\n...\nc\n", True),
        ("a: 0.9...\n", True),
        ("...\nc", True),
        ("a: 0.931\n", False),
        ("a: 0.930\nc\n", False),
        ("c\n...\na: 0.930\n", False),
    ],
)
def test_what_is_shown_is_compared(shown: str, same: bool) -> None:
    assert says("a: 0.930\nb\nc\n", shown) is same


def test_a_wrong_number_and_a_foreign_program_are_caught(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nmedtl version\n```\n\n```text\nmedtl 99\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"block 2 is not what was said"):
        run_page(page)
    page.write_text("```sh\nrm -r study\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="nobody runs 'rm'"):
        run_page(page)
