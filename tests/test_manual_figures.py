"""The manual's figures and the numbers that its pages take from them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from test_public_names import command_names

from manual.figures.interval import measure_intervals
from manual.figures.promise import RULES, STUDIES, TARGET
from manual.figures.studies import draw_report_figures
from manual.figures.transforms import pictured, strip
from manual.gallery import IMAGES, MEASURED, NUMBERS
from medtl.cli.main import app
from medtl.preprocess.safety import transform_names

ROOT = Path(__file__).parents[1]
FOUND: dict[str, Any] = json.loads(NUMBERS.read_text(encoding="utf-8"))


def interval(of: list[float]) -> str:
    """A value with its interval, as a page writes it."""
    value, low, high = of
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def share(of: float) -> str:
    """A share in percent, as a page writes it."""
    return f"{100 * of:.0f} %"


def named() -> dict[str, list[str]]:
    """Page of the explanations -> the numbers that it must name."""
    frozen, turned = FOUND["frozen"], FOUND["zero_gamma"]["turned"]
    promise, shortcut, study = FOUND["promise"], FOUND["shortcut"], FOUND["interval"]
    at = [promise["positives"].index(n) for n in (50, 200)]
    most = max(turned, key=lambda block: turned[block])
    return {
        "frozen": [f"{frozen[n][-1]:.2f}" for n in ("parameters_only", "statistics_too")],
        "zero-gamma": [f"{turned[most]:.2f} (`{most}`)"],
        "promises": [share(promise[rule][i]) for rule in RULES for i in at],
        "shortcuts": [interval(shortcut[n]) for n in ("as_in_training", "at_random", "without")],
        "intervals": [f"{study['true']:.2f}", f"{study['60_width']:.2f}",
                      f"{study['600_width']:.2f}",
                      f"{study['60_missed']} of forty and {study['600_missed']} of forty"],
    }  # fmt: skip


def lacking(text: str, numbers: list[str]) -> list[str]:
    """The numbers that a page does not name."""
    on_a_line = " ".join(text.split())
    return [n for n in numbers if not re.search(rf"(?<![\d.]){re.escape(n)}(?!\d)", on_a_line)]


@pytest.mark.parametrize("page", named())
def test_a_page_names_the_numbers_of_its_figure(page: str) -> None:
    text = (ROOT / "docs" / "explanation" / f"{page}.md").read_text(encoding="utf-8")
    assert lacking(text, named()[page]) == []
    assert "`make gallery`" in text
    assert lacking(text, ["0.987"]) == ["0.987"]


def test_every_figure_is_there_and_small() -> None:
    files = [path for path in IMAGES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6e6
    drawn = {path.stem for path in files}
    assert {*MEASURED, "overview", "contact_sheet", "stress_grid", "audit"} <= drawn
    assert {name for name in transform_names() if pictured(name)} <= drawn
    assert not pictured("mixup")


def test_the_gallery_shows_pictures_that_are_there_and_names_their_commands() -> None:
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[([^\]]+)\]\(images/([\w.]+)\)", text)
    assert len(shown) > 7
    assert not [name for _, name in shown if not (IMAGES / name).is_file()]
    commands = command_names(typer.main.get_command(app))
    named = re.findall(r"`medtl ([a-z -]+?)(?: [A-Z-].*?)?(?: manifest.csv)?`", text)
    assert len(named) > 6
    assert not [name for name in named if name not in commands]


def test_the_pictures_of_reports_are_drawn_from_their_numbers(tmp_path: Path) -> None:
    draw_report_figures(tmp_path)
    reports = ROOT / "reports"
    curve = (tmp_path / "learning_curve.svg").read_bytes()
    assert curve == (reports / "learning_curve_chest_xray.svg").read_bytes()
    assert (tmp_path / "controls.svg").stat().st_size > 5_000


def test_the_plain_threshold_is_kept_as_often_as_theory_says() -> None:
    """What exceeds the k-th of n scores from above is a share that is Beta(k, n - k + 1)."""
    from scipy.stats import beta

    for n, seen in zip(FOUND["promise"]["positives"], FOUND["promise"]["plain"], strict=True):
        k = int(np.ceil(TARGET * n - 1e-9))
        expected = beta.sf(TARGET, k, n - k + 1)
        assert abs(seen - expected) < 3.5 * np.sqrt(expected * (1 - expected) / STUDIES)
    assert min(FOUND["promise"]["assured"]) > 0.87


def test_held_statistics_do_not_move_and_others_do() -> None:
    assert set(FOUND["frozen"]["statistics_too"]) == {1.0}
    assert FOUND["frozen"]["parameters_only"][-1] < 0.6


def test_intervals_are_those_of_the_file() -> None:
    assert measure_intervals() == FOUND["interval"]


def test_a_strip_shows_both_ends() -> None:
    picture = strip("brightness")
    assert picture.shape == (150, 3 * 150 + 2 * 6, 3)
    original, darker, brighter = (picture[:, 156 * n : 156 * n + 150].mean() for n in range(3))
    assert darker < original < brighter
