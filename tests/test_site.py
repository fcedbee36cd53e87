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
    "reference/error-messages.html",
    "ko/index.html",
    "ko/chest-films.html",
)

DESK, PHONE = (1280, 900), (390, 844)

VIEWS = dict.fromkeys(LOOKED_AT, ((DESK, "light"), (PHONE, "dark")))
"""Page -> the screens and schemes it is looked at in: all four for the first page alone."""

VIEWS["index.html"] += ((DESK, "dark"), (PHONE, "light"))

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
    for size, scheme in VIEWS[name]:
        view = Page(browser, name, size, scheme)
        if faults := view.faults():
            found[size, scheme] = faults
        view.context.close()
    assert found == {}


def test_a_picture_without_words_is_found(browser: Any) -> None:
    view = Page(browser, "index.html", DESK, "light")
    view.page.evaluate("document.querySelector('article img').removeAttribute('alt')")
    assert [fault[0] for fault in view.faults()] == ["image-alt"]


class Page:
    """A page of the built site, and what went out while it was open."""

    def __init__(self, browser: Any, name: str, size: tuple[int, int], scheme: str) -> None:
        self.width, height = size
        viewport = {"width": self.width, "height": height}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(0)  # no test depends on time
        self.fetched: list[list[str]] = []
        self.page.on("request", self._request)
        self.page.goto((SITE / name).as_uri())

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
