"""The chapter on what breaks a model: first levels, orders, answers, threats, two languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import report_example as example
from browsing import AXE, Opened, chromium, needs_chromium
from PIL import Image
from test_report_html import text_of, written

from medtl.report.page.breaking import breaking_view

WORDS = {
    "noise": {"en": "noise of a low dose", "ko": "저선량 잡음"},
    "blur": {"en": "blur", "ko": "흐림"},
    "pgd": {"en": "attack in 10 steps, the model known", "ko": "모델을 아는 반복 공격"},
    "patch": {"en": "a painted square, the model known", "ko": "모델을 아는 사각형 조각 공격"},
    "transfer": {"en": "attack built from the public start weights alone", "ko": "초기 가중치"},
}


def measure(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "value": value, "low": value - 0.05, "high": value + 0.05,
            "status": "ok", "reason": "", "label": "mass", "confidence": 0.95}  # fmt: skip


def row(family: str, name: str, level: int, strength: float, value: float, **more: Any) -> Any:
    shares = {"sensitivity": measure("sensitivity", value), "flipped": measure("flipped", 0.25)}
    return {"family": family, "name": name, "level": level, "strength": strength, "label": "mass",
            "reaches": measure("auroc_mean_of_folds", value), "drop": None, "shares": shares,
            "example": value, **more}  # fmt: skip


def stress_test(folder: Path, **changed: Any) -> Path:
    """A stress test of one finding: noise costs from level 2 on, blur nothing, attacks all."""
    rows = [row("clean", "clean", 0, 0.0, 0.9)]
    rows += [row("corruptions", "blur", n, n, 0.9) for n in (1, 2)]
    rows += [row("corruptions", "noise", n, n / 10, value) for n, value in ((1, 0.85), (2, 0.6))]
    rows += [
        row("attacks", name, n, strength, value)
        for name, value in (("pgd", 0.1), ("transfer", 0.7))
        for n, strength in enumerate((0.002, 0.01, 0.05), start=1)
    ]
    rows += [row("attacks", "patch", n, n / 10, 0.4) for n in (1, 2, 3)]
    costs = {"noise": (2, 2), "blur": (None, None), "pgd": (1, 1), "transfer": (3, None)}
    verdicts = [
        {"label": "mass", "name": name, "loss_from": loss, "below_from": below}
        for name, (loss, below) in {**costs, "patch": (1, 1)}.items()
    ]
    found = {"rows": rows, "verdicts": verdicts, "words": WORDS, "modality": "cxr", "images": 200,
             "patients": 150, "least_sensitivity": 0.8, "left_out": ["x: no shape"],
             "thresholds": {"mass": 0.7}, "tuned": "run", "example": "c-1"}  # fmt: skip
    (folder / "pictures").mkdir(parents=True)
    for one in rows:
        Image.new("L", (40, 50), 90).save(folder / "pictures" / f"{one['name']}_{one['level']}.jpg")
    (folder / "robustness.json").write_text(json.dumps(found | changed), "utf-8")
    return folder


def test_a_run_without_a_stress_test_has_no_chapter(tmp_path: Path) -> None:
    assert breaking_view(None) is None
    assert breaking_view(tmp_path) is None
    assert "What breaks it" not in text_of(written(tmp_path, example.single(), stress=tmp_path))


def test_what_breaks_first_stands_first(tmp_path: Path) -> None:
    view = breaking_view(stress_test(tmp_path / "s"))
    assert view is not None
    bad, attacks = view["parts"][0]["families"]
    assert [one["title"] for one in bad["rows"]] == ["noise of a low dose", "blur"]
    assert bad["rows"][0]["loss"] == "first at level 2"
    assert bad["rows"][1]["loss"] == "no loss is shown"
    assert bad["rows"][1]["below"] == "–"
    assert bad["rows"][0]["hardest"].value == "0.600"
    assert bad["rows"][0]["flipped"].value == "25%"
    assert [figure.title for figure in bad["figures"]] == ["Noise of a low dose"]  # not of blur
    assert [one["name"] for one in attacks["rows"]] == ["pgd", "patch", "transfer"]


def test_the_answer_under_a_picture_is_that_of_the_frozen_threshold(tmp_path: Path) -> None:
    view = breaking_view(stress_test(tmp_path / "s"))
    assert view is not None
    lines = {line["title"]: line["cells"] for line in view["example"]["lines"]}
    noise = lines["noise of a low dose"]
    assert [(cell["level"], cell["text"], cell["flagged"]) for cell in noise] == [
        (1, "0.85", True),
        (2, "0.60", False),
    ]
    assert noise[0]["image"].startswith("data:image/jpeg;base64,")


def test_a_picture_that_is_missing_or_a_link_is_left_out(tmp_path: Path) -> None:
    folder = stress_test(tmp_path / "s")
    (folder / "pictures" / "noise_1.jpg").unlink()
    (folder / "pictures" / "noise_1.jpg").symlink_to(folder / "pictures" / "blur_1.jpg")
    (folder / "pictures" / "noise_2.jpg").unlink()
    view = breaking_view(folder)
    assert view is not None
    cells = {line["title"]: line["cells"] for line in view["example"]["lines"]}
    assert [cell["image"] for cell in cells["noise of a low dose"]] == ["", ""]
    assert cells["blur"][0]["image"]


def test_threats_are_said_with_the_runs_own_numbers(tmp_path: Path) -> None:
    view = breaking_view(stress_test(tmp_path / "s"))
    assert view is not None
    white, transfer, patch = view["threats"]
    assert "at most 1% of the range" in white
    assert "AUROC 0.100 (0.050 to 0.150), in place of 0.900" in white
    assert "the public start weights alone" in transfer
    assert "0.700" in transfer
    assert "a square of 20% of the picture's side" in patch


def test_an_error_has_no_decisions_and_its_own_unit(tmp_path: Path) -> None:
    rows = [
        row(family, name, level, 1.0, value)
        for family, name, level, value in (
            ("clean", "clean", 0, 9.0),
            ("corruptions", "noise", 1, 30.0),
        )
    ]
    for one in rows:
        one |= {"shares": {}, "reaches": measure("mae_months", one["example"])}
    verdicts = [{"label": "mass", "name": "noise", "loss_from": 1, "below_from": None}]
    words = {"noise": WORDS["noise"]}
    changed = {"rows": rows, "verdicts": verdicts, "words": words, "thresholds": {}}
    folder = stress_test(tmp_path / "s", **changed, least_sensitivity=None)
    view = breaking_view(folder)
    assert view is not None
    part = view["parts"][0]
    assert not part["decides"]
    assert part["families"][0]["rows"][0]["hardest"].value == "30.0 months"
    assert view["example"]["lines"][0]["cells"][0]["flagged"] is None
    assert "What breaks it" in text_of(written(tmp_path, example.single(), stress=folder))


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", ("What breaks it", "Noise of a low dose", "Left out: x: no shape")),
     ("ko", ("무엇에 무너지는가", "저선량 잡음", "2단계에서 처음", "표시 안 함"))],
)  # fmt: skip
def test_the_chapter_is_said_in_both_languages(
    tmp_path: Path, language: str, said: tuple[str, ...]
) -> None:
    folder = stress_test(tmp_path / "s")
    words = text_of(written(tmp_path, example.single(), stress=folder, language=language))
    for text in said:
        assert text in words


@needs_chromium
@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_chapter_is_accessible_and_fits(tmp_path: Path, width: int, scheme: str) -> None:
    written(tmp_path, example.single(), stress=stress_test(tmp_path / "s"))
    with chromium() as browser:
        options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        opened = Opened(browser, (tmp_path / "report.html").as_uri(), **options)
        assert opened.serious_faults() == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.faults == []
