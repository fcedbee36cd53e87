"""The manual's reference: everything that can be named stands on its page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest
import typer.main
from test_public_names import command_names

import medtl as mt
from manual.error_messages import ERRORS, Message, messages
from manual.markdown import cell
from manual.recipe_keys import since
from manual.reference import PAGES
from manual.reporting_items import GUIDELINES, RECORDED, place_of
from medtl.cases.releases.shelf import names as data_sets
from medtl.cli.main import app
from medtl.metrics.catalogue import CATALOGUE
from medtl.networks.pretrained.cards import TRIED, all_cards
from medtl.preprocess.safety import modality_names, safety, transform_names
from medtl.recipe.explain import recipe_keys

ROOT = Path(__file__).parents[1]


@cache
def page(name: str) -> str:
    """A page of the reference."""
    return PAGES[f"reference/{name}.md"]()


def public_names() -> list[str]:
    """Every name of the face, and every name of its rooms."""
    golden = json.loads((ROOT / "tests/golden/public_names.json").read_text(encoding="utf-8"))
    rooms = ("losses", "metrics", "preprocess", "report")
    inside = [f"mt.{room}.{name}" for room in rooms for name in getattr(mt, room).__all__]
    return [f"mt.{name}" for name in golden["package"] if name not in rooms] + inside


def beginnings() -> list[str]:
    """How the messages begin that stand where an error is made, as a search of the source finds."""
    made = rf"(?:{'|'.join(ERRORS)})\(\s*f?\"([^\"{{}}\\|]{{20,}})"
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "medtl").rglob("*.py"))
    found = {text.rsplit(" ", 1)[0] for source in sources for text in re.findall(made, source)}
    return sorted(found - {"found 3", "the age is"})


NAMES: dict[str, tuple[str, Callable[[], Iterable[str]]]] = {
    "command-line": ("\n## {}\n", lambda: command_names(typer.main.get_command(app))),
    "recipe": ("| `{}`", lambda: (k.name for k in recipe_keys() if k.plain.count("."))),
    "python": (r"{}", public_names),
    "measures": ("| `{}` |", lambda: CATALOGUE),
    "augmentation": ("\n`{}`", transform_names),
    "weight-cards": ("\n## {}\n", all_cards),
    "data-sets": ("--layout {}`", data_sets),
    "reporting-items": (
        "| {} |",
        lambda: {i["no"] for t in GUIDELINES.values() for i in t["items"]},
    ),
    "error-messages": ("{}", beginnings),
}
"""Page -> how a name stands on it, and the names."""


def lacking(text: str, form: str, names: Iterable[str]) -> list[str]:
    """The names that a page does not have; a name within a longer one is none."""
    return [
        name
        for name in names
        if not re.search(rf"(?<![\w.]){re.escape(form.format(name))}(?!\w)", text)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_every_name(name: str) -> None:
    form, names = NAMES[name]
    listed = list(names())
    assert len(listed) > 15
    assert lacking(page(name), form, listed) == []
    taken = listed[len(listed) // 2]
    without = page(name).replace(form.format(taken), "")
    assert taken in lacking(without, form, listed)


def test_no_page_is_left_out() -> None:
    assert {f"reference/{name}.md" for name in NAMES} == set(PAGES)
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [name for name in PAGES if name not in nav]


def test_a_command_has_its_options() -> None:
    section = page("command-line").partition("\n## report\n")[2].partition("\n## ")[0]
    command = typer.main.get_command(app).commands["report"]
    options = {o for p in command.params for o in p.opts if o.startswith("--") and o != "--help"}
    assert len(options) > 10
    assert not [option for option in options if f"`{option}" not in section]


def test_a_key_has_its_default_and_the_value_of_a_recipe() -> None:
    (row,) = [line for line in page("recipe").splitlines() if line.startswith("| `image.size`")]
    assert "at least 32, at most 2048" in row
    assert row.endswith("| `224` | `128` |")  # the first pipeline by name, bone_age.yaml


SOURCE = """
HINT = "Ask again"

def outer(x):
    found, fix = "no row", "Add one"
    if x:
        found, fix = f"{len(x)} rows of '{x.name}'", HINT
    raise ManifestError(found, fix=fix)

def inner(said, where):
    return ImageError(said, expected="one", where=where, fix="Mend it")

def caller(y):
    yield inner(f"got {y!r}", "a")
    yield inner("nothing" + (" at all" if y else ""), where="b")

def passed_on(error):
    raise RunError(error.found)
"""


def test_a_message_is_found_wherever_its_text_stands(tmp_path: Path) -> None:
    (tmp_path / "io").mkdir()
    (tmp_path / "io" / "one.py").write_text(SOURCE)
    assert set(messages(tmp_path)) == {
        Message("ManifestError", "io", "no row", "Add one"),
        Message("ManifestError", "io", "<number> rows of '<name>'", "Ask again"),
        Message("ImageError", "io", "got '<y>'; expected one", "Mend it"),
        Message("ImageError", "io", "nothing at all; expected one", "Mend it"),
        Message("ImageError", "io", "nothing; expected one", "Mend it"),
    }


@pytest.mark.parametrize(
    "cause",
    [
        lambda: mt.read_image("nowhere.dcm"),
        lambda: mt.read_image(__file__),
        lambda: mt.Study("nowhere.yaml"),
        lambda: mt.evaluate([0, 1], [0.1]),
        lambda: mt.evaluate([0, 1], [0.1, 0.2], groups={"sex": ["F"]}),
        lambda: mt.Run("nowhere").history,
    ],
)
def test_what_is_said_stands_on_the_page(cause: Callable[[], object]) -> None:
    with pytest.raises(mt.MedtlError) as caught:
        cause()
    (said,) = getattr(caught.value, "faults", [caught.value])
    assert is_shown(said.found + (f"; expected {said.expected}" * bool(said.expected)))
    assert not is_shown("the moon is no radiograph")


def is_shown(said: str) -> bool:
    """Whether the page has a message, its fields filled in somehow."""
    shown = re.findall(r"^\| `+ ?(.+?) ?`+ \|", page("error-messages"), re.MULTILINE)
    whole = [re.escape(one).replace("\\|", "|") for one in shown]
    return any(re.fullmatch(re.sub(r"<[\w.]+>", ".*", form), said) for form in whole)


def test_since_is_one_sentence_while_there_is_one_version() -> None:
    assert "released yet; all keys are there since 0." in since("## [Unreleased]")
    assert since("## [Unreleased]\n## [0.1.0] - 2026") == "All keys are there since 0.1.0."
    with pytest.raises(ValueError, match="several releases"):
        since("## [0.2.0]\n## [0.1.0]")
    assert "since 0." in page("recipe")


def test_a_measure_has_the_interval_that_a_report_names() -> None:
    rows = {line.split("`")[1]: line for line in page("measures").splitlines() if "| `" in line}
    assert "DeLong" in rows["auroc"]
    assert "Wilson or " in rows["sensitivity"]
    assert "Biometrika 1958" in rows["calibration_slope"]


def test_a_measure_that_nobody_describes_stops_the_manual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "new", CATALOGUE["auroc"])
    with pytest.raises(KeyError, match=r"measures.yaml has no 'new'"):
        PAGES["reference/measures.md"]()


def test_a_verdict_has_its_reason_and_range() -> None:
    text = page("augmentation")
    for transform in transform_names():
        section = text.partition(f"\n`{transform}`, ")[2].partition("\n## ")[0]
        for modality in modality_names():
            verdict = safety(transform, modality)
            (row,) = [x for x in section.splitlines() if x.startswith(f"| {modality} ")]
            assert verdict.level in row
            assert cell(verdict.reason) in row
    assert "-10 to 10" in text


def test_a_card_says_where_from_licence_input_and_what_was_tried() -> None:
    for card in all_cards().values():
        section = page("weight-cards").partition(f"## {card.name}\n")[2].partition("\n## ")[0]
        for said in (card.source, card.licence, card.citation, card.input_said, TRIED[card.tried]):
            assert cell(said) in section


def test_an_item_has_the_place_of_its_answer() -> None:
    needs = {item["needs"] for told in GUIDELINES.values() for item in told["items"]}
    assert not set(RECORDED) - needs
    software = {i["needs"] for t in GUIDELINES.values() for i in t["items"] if i["who"] != "person"}
    assert not [name for name in software if "study." in place_of(name)]
    assert place_of("funding") == "`study.funding` of the recipe"
    assert place_of("severity") == "`study.reporting.severity` of the recipe"


def test_an_example_without_a_heading_gets_one() -> None:
    pytest.importorskip("griffe", reason="comes with medtl[docs]")
    from manual.docstrings import with_sections

    text = "Two.\n\nExample:\n    >>> 1\n    1\n\n>>> 1 + 1\n2\n\nMore."
    assert with_sections(text) == (
        "Two.\n\nExamples:\n    >>> 1\n    1\n\nExamples:\n    >>> 1 + 1\n    2\n\nMore."
    )
