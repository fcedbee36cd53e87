"""The manual as pages, in a browser: on a desk and on a phone, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import AXE, FAULTS, chromium, needs_chromium

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"

LOOKED_AT = (
    "index.html",
    "gallery.html",
    "tutorials/few-labels.html",
    "how-to/reviewers.html",
    "reference/recipe.html",
    "ko/index.html",
)

SCREENS = {"desk": (1280, 900), "phone": (390, 844)}

pytestmark = [
    needs_chromium,
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="`make docs` builds the site"),
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed (.ci/run installs it)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_page_is_readable_for_everyone(name: str, browser: Any) -> None:
    """As axe sees it; and nothing is too wide, missing or fetched."""
    found = {}
    for screen, (width, height) in SCREENS.items():
        for scheme in ("light", "dark"):
            view = Page(browser, name, scheme, width, height)
            if faults := view.faults():
                found[screen, scheme] = faults
            view.context.close()
    assert found == {}


def test_a_picture_without_words_is_found(browser: Any) -> None:
    view = Page(browser, "index.html", "light", 1280, 900)
    view.page.evaluate("document.querySelector('article img').removeAttribute('alt')")
    assert [fault[0] for fault in view.faults()] == ["image-alt"]


class Page:
    """A page of the built site, and what went out while it was open."""

    def __init__(self, browser: Any, name: str, scheme: str, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        self.context = browser.new_context(viewport=size, color_scheme=scheme)
        self.page = self.context.new_page()
        self.fetched: list[list[str]] = []
        self.page.on("request", self._request)
        self.page.goto((SITE / name).as_uri())
        self.width = width

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.fetched.append(["fetched", request.url])

    def faults(self) -> list[list[str]]:
        """What is wrong, by rule and place."""
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        broken = self.page.eval_on_selector_all(
            "img", "all => all.filter((i) => !i.naturalWidth).map((i) => ['broken', i.src])"
        )
        self.page.evaluate(AXE.read_text("utf-8"))
        found: list[list[str]] = self.page.evaluate(FAULTS)
        too_wide = [["wider than the screen", str(wide)]] if wide > self.width else []
        return [*found, *broken, *too_wide, *self.fetched]
