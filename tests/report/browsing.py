"""A report in a real browser, and what went wrong while it was open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

AXE = Path.home() / ".cache" / "medtl-ci" / "node_modules" / "axe-core" / "axe.min.js"
"""Where `.ci/run` installs axe-core: outside the repository."""

FAULTS = """
async () => (await axe.run()).violations
  .filter((v) => ['serious', 'critical'].includes(v.impact))
  .map((v) => [v.id, v.nodes[0].html.slice(0, 120)])
"""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield found
        found.close()


def metrics_behind(address: str) -> dict[str, Any]:
    """The metrics.json beside a report."""
    return dict(
        json.loads(
            Path(address.removeprefix("file://")).with_name("metrics.json").read_text("utf-8")
        )
    )


class Opened:
    """A page and what went wrong while it was open."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._request)
        self.page.goto(address)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.faults.append(request.url)

    def out(self, name: str) -> str:
        return str(self.page.locator(f'[data-out="{name}"]').first.text_content())

    def serious_faults(self) -> list[list[str]]:
        """What axe-core finds with everything unfolded: its rule, and the element."""
        self.page.evaluate(
            "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
        )
        self.page.evaluate(AXE.read_text("utf-8"))
        found: list[list[str]] = self.page.evaluate(FAULTS)
        return found

    def counts(self) -> dict[str, int]:
        return {name: int(self.out(name)) for name in ("tp", "fp", "fn", "tn")}


def look_at(report: Path, figures: list[str]) -> None:
    """Open the report of a run as its reader would: move the slider, print it, hear it read."""
    with chromium() as browser:
        view = Opened(browser, report.as_uri())
        widths = view.page.eval_on_selector_all("img", "all => all.map((i) => i.naturalWidth)")
        assert widths, "no pictures"
        assert min(widths) > 0
        if slider := view.page.get_by_role("slider").all():
            stored = metrics_behind(report.as_uri())["curves"]
            tables = [curve for curve in stored if curve["name"] == "threshold_table"]
            before = view.counts()
            slider[0].focus()
            for _ in range(9):
                view.page.keyboard.press("ArrowRight")
            after = view.counts()
            assert after != before
            rows = {row for t in tables for row in zip(*(t[n] for n in after), strict=True)}
            assert tuple(after.values()) in rows
        if AXE.is_file():
            assert view.serious_faults() == []
        view.page.emulate_media(media="print")
        # The short print leaves some figures out; what it has can be read.
        drawn = [view.page.locator(f'svg[data-figure="{key}"]').first for key in figures]
        heights = [box["height"] for figure in drawn if (box := figure.bounding_box())]
        assert heights
        assert min(heights) > 60
        assert view.faults == []
        view.context.close()
