"""The report in a real browser: no error, no network, slider, phone, dark, print, keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_example as example
import table_examples as tables
from browsing import AXE, CHROMIUM, Opened, chromium, look_at, metrics_behind

from medtl.report.pdf import write_pdf
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.evaluate import TableOptions, report_table
from medtl.run.folder import Run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

CONTRAST = """
() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => a * top[i] + (1 - a) * under[i]);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => {
      const s = v / 255;
      return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backdrop = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      layers.push(parse(getComputedStyle(e).backgroundColor));
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest('script, title, desc, .unseen, .skip')) continue;
    const style = getComputedStyle(element);
    const colour = element.closest('svg') ? style.fill : style.color;
    const under = backdrop(element);
    const lights = [light(over(parse(colour), under)), light(under)].sort((a, b) => b - a);
    const ratio = (lights[0] + 0.05) / (lights[1] + 0.05);
    const words = walker.currentNode.textContent.trim().slice(0, 40);
    if (ratio < 4.5) poor.push([ratio.toFixed(2), words]);
  }
  return poor;
}
"""

SMALLEST_LETTER = """
() => Math.min(...[...document.querySelectorAll('main *')]
  .filter((e) => e.checkVisibility() && e.childNodes[0]?.nodeType === 3
                 && e.childNodes[0].textContent.trim())
  .map((e) => {
    const svg = e.ownerSVGElement;
    const scale = svg ? svg.getBoundingClientRect().width / 360 : 1;
    return parseFloat(getComputedStyle(e).fontSize) * scale;
  }))
"""

NAMELESS = """
() => [...document.querySelectorAll('input, button, a, img, [tabindex="0"]')]
  .filter((e) => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()
                   || e.alt))
  .map((e) => e.outerHTML.slice(0, 60))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reports")
    kinds = ("single", "several", "bone_age")
    found = {k: Run(example.write_run(folder / k, k)).report().as_uri() for k in kinds}
    for kind, make in tables.KINDS.items():
        table = make(folder / f"table_{kind}")
        options = TableOptions(prevalence=0.1, model="net A" if kind == "models" else "")
        language = "ko" if kind == "classes" else "en"
        page = report_table(table, table.parent / "out", options, language=language)
        found[f"table_{kind}"] = page.as_uri()
    return found


@pytest.fixture
def opened(browser: Any, reports: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Any]:
    pages: list[Opened] = []

    def open_page(kind: str, **options: Any) -> Opened:
        pages.append(Opened(browser, reports[kind], **options))
        return pages[-1]

    yield open_page
    for page in pages:
        page.context.close()


@pytest.mark.parametrize("kind", ["single", "several", "bone_age"])
def test_opens_without_error_and_without_network(opened: Any, kind: str) -> None:
    view = opened(kind)
    widths = view.page.eval_on_selector_all("img", "all => all.map((i) => i.naturalWidth)")
    assert len(widths) == 24
    assert min(widths) > 0
    assert view.faults == []
    assert view.page.locator("html").get_attribute("lang") == "en"


def test_policy_stops_a_script_that_is_not_ours(opened: Any) -> None:
    view = opened("single")
    view.page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.bad = 1';"
        " document.body.append(s); }"
    )
    assert view.page.evaluate("() => window.bad") is None
    assert any("Content Security Policy" in fault for fault in view.faults)


def test_slider_starts_at_the_frozen_threshold(opened: Any) -> None:
    view = opened("single")
    counts = example.single()["counts"][0]
    assert view.counts() == {name: counts[name] for name in ("tp", "fp", "fn", "tn")}
    assert not view.page.locator(".banner.exploratory").is_visible()
    assert view.page.locator("[data-measured]").first.is_visible()


def test_slider_by_keyboard_shows_the_stored_counts(opened: Any) -> None:
    view = opened("single")
    slider = view.page.get_by_role("slider")
    before = view.page.locator("[data-sentence]").text_content()
    slider.focus()
    for _ in range(25):
        view.page.keyboard.press("ArrowLeft")
    points = json.loads(view.page.locator("#slider-data").text_content())["f0"]["points"]
    threshold, *cells = points[int(slider.input_value())]
    assert view.counts() == dict(zip(("tp", "fp", "fn", "tn"), cells, strict=True))
    stored = next(c for c in example.single()["curves"] if c["name"] == "threshold_table")
    index = stored["threshold"].index(threshold)
    assert view.counts() == {name: stored[name][index] for name in ("tp", "fp", "fn", "tn")}
    assert view.page.locator("[data-sentence]").text_content() != before
    assert f"threshold {threshold:.3f}" in slider.get_attribute("aria-valuetext")
    assert view.page.locator(".banner.exploratory").is_visible()
    assert not view.page.locator("[data-measured]").first.is_visible()
    mark = view.page.locator('svg[data-figure="roc"] [data-moving]')
    tp, fp, fn, tn = cells
    assert float(mark.get_attribute("cx")) == pytest.approx(50 + 296 * fp / (fp + tn), abs=0.1)
    assert float(mark.get_attribute("cy")) == pytest.approx(292 - 278 * tp / (tp + fn), abs=0.1)
    view.page.keyboard.press("Home")
    assert view.counts()["fn"] == 0
    view.page.locator("[data-reset]").click()
    assert view.page.locator("[data-sentence]").text_content() == before
    assert not view.page.locator(".banner.exploratory").is_visible()
    assert view.faults == []


def test_sliders_of_several_findings_do_not_touch_each_other(opened: Any) -> None:
    view = opened("several")
    panels = view.page.locator("[data-finding]")
    other = panels.nth(1).locator("[data-sentence]")
    before = other.text_content()
    panels.nth(0).get_by_role("slider").press("End")
    assert other.text_content() == before


def test_prevalence_box_redoes_the_thousand_patients(opened: Any) -> None:
    view = opened("single")
    counts = example.single()["counts"][0]
    view.page.locator('input[type="number"]').fill("20")
    shown = [int(view.out(f"n-{name}")) for name in ("tp", "fn", "fp", "tn")]
    sensitivity = counts["tp"] / (counts["tp"] + counts["fn"])
    assert shown[0] == round(200 * sensitivity)
    assert sum(shown) == 1000
    view.page.locator('input[type="number"]').fill("")
    assert view.page.locator("[data-thousand-ask]").is_visible()
    assert view.faults == []


def test_grad_cam_is_toggled_by_button_and_for_all(opened: Any) -> None:
    view = opened("single", reduced_motion="reduce")
    first = view.page.locator(".case").first
    opacity = "e => getComputedStyle(e).opacity"
    assert first.locator(".cam").evaluate(opacity) == "0"
    first.locator("[data-cam]").press("Enter")
    assert first.locator(".cam").evaluate(opacity) == "1"
    assert first.locator("[data-cam]").get_attribute("aria-pressed") == "true"
    view.page.locator("#cam-all").check()
    assert view.page.locator(".show-cam").count() == 12


@pytest.mark.parametrize("kind", ["single", "several", "bone_age"])
def test_phone_width_has_no_sideways_scroll_and_readable_letters(opened: Any, kind: str) -> None:
    view = opened(kind, viewport={"width": 375, "height": 800})
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 375
    smallest = view.page.evaluate(SMALLEST_LETTER)
    assert smallest >= 10.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["single", "several"])
def test_all_text_has_enough_contrast(opened: Any, kind: str, scheme: str) -> None:
    view = opened(kind, color_scheme=scheme)
    view.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    view.page.get_by_role("slider").first.press("End")
    assert view.page.evaluate(CONTRAST) == []
    background = view.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 22, 27)"}[scheme]


def test_contrast_check_finds_poor_text(opened: Any) -> None:
    view = opened("single")
    view.page.evaluate("document.querySelector('h1').style.color = '#999'")
    assert len(view.page.evaluate(CONTRAST)) == 1


def test_everything_is_reached_by_keyboard_and_has_a_name(opened: Any) -> None:
    view = opened("single")
    nameless = view.page.evaluate(NAMELESS)
    # The recipe scrolls and is named by its own text.
    assert nameless == []
    view.page.keyboard.press("Tab")
    assert view.page.evaluate("document.activeElement.className") == "skip"


BARE_HEADINGS = """
() => [...document.querySelectorAll('h2, h3')].filter((h) => h.checkVisibility()).filter((h) => {
  for (let e = h.nextElementSibling; e; e = e.nextElementSibling) {
    if (/^H[23]$/.test(e.tagName)) return e.tagName <= h.tagName;
    if (e.checkVisibility() && e.getBoundingClientRect().height > 1) return false;
  }
  return h.nextElementSibling !== null;
}).map((h) => h.textContent)
"""

CUT_OFF = """
() => [...document.querySelectorAll('.finding .legend dd, .finding .legend dt')].filter((e) => {
  const box = e.closest('.thousand-block').getBoundingClientRect();
  return e.checkVisibility() && e.getBoundingClientRect().right > box.right + 1;
}).map((e) => e.textContent)
"""


@pytest.mark.parametrize("kind", ["several", "bone_age"])
def test_a_print_has_no_heading_without_content_and_nothing_cut(opened: Any, kind: str) -> None:
    view = opened(kind, viewport={"width": 688, "height": 1000})
    view.page.emulate_media(media="print")
    assert view.page.evaluate(BARE_HEADINGS) == []
    assert view.page.evaluate(CUT_OFF) == []


@pytest.mark.parametrize("size", ["A4", "Letter"])
def test_prints_light_with_page_one_on_one_page(opened: Any, tmp_path: Path, size: str) -> None:
    view = opened("single", color_scheme="dark")
    pdf = view.page.pdf(path=str(tmp_path / "r.pdf"), format=size, print_background=True)
    assert 5 <= pdf.count(b"/Type /Page\n") <= 16
    view.page.emulate_media(media="print", color_scheme="dark")
    assert view.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert not view.page.get_by_role("slider").is_visible()
    assert view.page.locator(".thresholds").is_visible()
    view.page.set_viewport_size({"width": 688, "height": 1000})  # A4 less its margins, in px
    bottom = view.page.evaluate("document.getElementById('summary').getBoundingClientRect().bottom")
    assert bottom < 940
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 688


def test_without_script_the_page_is_complete(opened: Any) -> None:
    view = opened("single", java_script_enabled=False)
    words = view.page.locator("[data-sentence]").text_content()
    assert "of 100 images with pleural effusion, 95 are found and 5 missed" in words
    assert view.page.locator(".thresholds").is_visible()


TABLES = [f"table_{kind}" for kind in tables.KINDS]


@pytest.mark.parametrize("kind", TABLES)
def test_a_foreign_table_opens_without_error_network_or_sideways_scroll(
    opened: Any, kind: str
) -> None:
    view = opened(kind, viewport={"width": 375, "height": 800})
    assert view.faults == []
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 375
    language = "ko" if kind == "table_classes" else "en"
    assert view.page.locator("html").get_attribute("lang") == language


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed (.ci/run installs it)")
@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        *((kind, "light") for kind in ("single", "several", *TABLES)),
        *((kind, "dark") for kind in ("several", "table_segmentation")),
    ],
)
def test_axe_finds_no_serious_fault(opened: Any, kind: str, scheme: str) -> None:
    view = opened(kind, color_scheme=scheme)
    assert view.serious_faults() == []


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed (.ci/run installs it)")
def test_axe_finds_a_picture_without_words(opened: Any) -> None:
    view = opened("single")
    view.page.evaluate("document.querySelector('img').removeAttribute('alt')")
    assert [fault[0] for fault in view.serious_faults()] == ["image-alt"]


def test_numbers_of_a_table_are_those_of_metrics_json(opened: Any, reports: dict[str, str]) -> None:
    view, metrics = opened("table_classification"), metrics_behind(reports["table_classification"])
    counts = next(c for c in metrics["counts"] if c["subset"] == "all")
    assert view.counts() == {name: counts[name] for name in ("tp", "fp", "fn", "tn")}
    slider = view.page.get_by_role("slider")
    slider.focus()
    for _ in range(7):
        view.page.keyboard.press("ArrowRight")
    stored = next(c for c in metrics["curves"] if c["name"] == "threshold_table")
    rows = list(zip(*(stored[k] for k in ("threshold", "tp", "fp", "fn", "tn")), strict=True))
    assert tuple(view.counts()[k] for k in ("tp", "fp", "fn", "tn")) in {row[1:] for row in rows}
    assert view.page.locator(".banner.exploratory").is_visible()
    assert view.faults == []


@pytest.mark.parametrize(
    ("kind", "figures"),
    [
        ("table_classification", ["roc", "pr", "hist", "rel", "dec", "forest"]),
        ("table_bone_age", ["identity", "bland", "forest"]),
        ("table_segmentation", ["strip", "hd95", "area", "forest"]),
        ("table_models", ["roc", "models", "forest"]),
    ],
)
def test_figures_are_drawn_and_stand_on_paper(opened: Any, kind: str, figures: list[str]) -> None:
    view = opened(kind)
    view.page.emulate_media(media="print")
    for key in figures:
        picture = view.page.locator(f'svg[data-figure="{key}"]').first
        assert picture.is_visible(), key
        assert picture.bounding_box()["height"] > 60


def test_the_pdf_of_the_command_has_pages(reports: dict[str, str], tmp_path: Path) -> None:
    page = Path(reports["table_bone_age"].removeprefix("file://"))
    content = write_pdf(page, tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert 3 <= content.count(b"/Type /Page\n") <= 14


@pytest.mark.slow
def test_fourteen_findings_are_printed_on_25_pages(shared: Path, tmp_path: Path) -> None:
    known = shared / "oracles2" / "multi14.csv"
    if not known.is_file():
        pytest.skip("needs the second set of tables")
    table = tmp_path / known.name
    table.write_bytes(known.read_bytes())
    page = report_table(table, tmp_path / "out", TableOptions(prevalence={"Hernia": 0.0055}))
    content = write_pdf(page, tmp_path / "report.pdf").read_bytes()
    assert 15 < content.count(b"/Type /Page\n") <= 25


@pytest.mark.slow
def test_the_report_of_real_radiographs(shared: Path, tmp_path: Path) -> None:
    """The recipe of pipelines/, cut short: what matters here is the page."""
    changes = [
        f"data.manifest={shared / 'data' / 'cxr_nih_pneumonia' / 'manifest.csv'}",
        "image.size=64",
        "finetune.stages=[{name: head, train: head, epochs: 3, lr: 3e-3}]",
    ]
    recipe = Path(__file__).parents[2] / "pipelines" / "chest_xray.yaml"
    report = run_study(read_recipe(recipe, changes), tmp_path / "run").report_path
    look_at(report, ["roc", "pr", "hist", "rel", "dec", "forest"])
