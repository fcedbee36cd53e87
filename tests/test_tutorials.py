"""Every block of the tutorials and how-to pages runs, in its order, and says what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from desks import DESKS
from fenced import blocks, run_page, says

from medtl.errors import RecipeError

DOCS = Path(__file__).parents[1] / "docs"
TUTORIALS = DOCS / "tutorials"
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))

SHORTER = {
    "--seeds 30": "--seeds 2",
    "--seeds 5": "--seeds 2",
    "--seeds 3": "--seeds 2",
    "--folds 5": "--folds 2",
    "--trials 30": "--trials 2",
    "--shares 0.1,0.25,0.5,0.75,1": "--shares 0.5,1",
    "manifest.csv --out runs/stress": "manifest.csv --quick --out runs/stress",
}
"""Words of how-to pages that only take long -> what is run in their place."""

NOT_RUN = {
    "an archive": 2,
    "an Orthanc": 1,
    "serves until": 1,
    "the page above": 1,
    "a cluster": 1,
    "SLURM": 1,
    "processes of its own": 2,
    "hours": 1,
}
"""Word of the reason why a block is not run here -> blocks of that reason."""


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
@pytest.mark.parametrize("page", DESKS)
def test_a_page_does_what_it_says_on_a_full_desk(page: str) -> None:
    DESKS[page]()
    run_page(DOCS / f"{page}.md", SHORTER)


def test_every_block_is_run_or_says_why_not() -> None:
    of_desks = {page.stem: blocks(page) for page in DOCS.glob("*.md")}
    by_others = {"index", "python"}  # of a first page below, and in test_notebook
    assert {name for name, found in of_desks.items() if found} - by_others == set(DESKS)
    others = [blocks(page) for page in (*HOW_TO, *TUTORIALS.glob("*.md"))]
    found = [*of_desks.values(), *others]
    reasons = [block.not_run for of in found for block in of if block.not_run]
    counted = {word: sum(word in reason for reason in reasons) for word in NOT_RUN}
    assert counted == NOT_RUN
    assert len(reasons) == sum(NOT_RUN.values())


def test_what_is_not_run_stands_in_the_line_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: no rm -->\n```sh\nrm -r study\n```\n", encoding="utf-8")
    run_page(page)
    assert [block.not_run for block in blocks(page)] == ["no rm"]
    page.write_text("```yaml\nimage: {modality: cxr, sise: 64}\n```\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"image.sise: unknown key"):
        run_page(page)
    page.write_text("```sh\npip install 'medtl[nothing]'\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        run_page(page)


@pytest.mark.slow
def test_two_studies_of_few_labels_are_compared() -> None:
    run_page(TUTORIALS / "few-labels.md")


def test_no_tutorial_is_left_out() -> None:
    pages = {page.stem for page in TUTORIALS.glob("*.md")}
    assert pages == {"vendor-table", "chest-films", "bone-age", "masks", "few-labels"}


@pytest.mark.parametrize("name", ["chest-films", "bone-age", "masks", "vendor-table"])
def test_a_korean_tutorial_is_the_english_one_in_its_blocks_and_pictures(name: str) -> None:
    korean, english = DOCS / "ko" / f"{name}.md", TUTORIALS / f"{name}.md"
    assert len(blocks(korean)) > 6
    assert blocks(korean) == blocks(english)
    korean_text, english_text = (page.read_text(encoding="utf-8") for page in (korean, english))
    pictures = re.compile(r"images/[\w.]+")
    assert pictures.findall(korean_text) == pictures.findall(english_text)
    assert korean_text.count("\n## ") == english_text.count("\n## ")


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
