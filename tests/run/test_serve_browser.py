"""The page of a run in Chromium: by keyboard, on a phone, and as axe-core sees it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from browsing import AXE, chromium, needs_chromium
from PIL import Image
from portable_folder import film, write_folder

from medtl.run.folder import Run
from medtl.run.service.serve import serve

DROP = """
(name) => {
  const dropped = new DataTransfer();
  dropped.items.add(new File(['no film'], name));
  const told = { dataTransfer: dropped, bubbles: true, cancelable: true };
  document.querySelector('h1').dispatchEvent(new DragEvent('drop', told));
}
"""


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 375])
def test_a_film_is_looked_at_by_keyboard(tmp_path: Path, width: int) -> None:
    Image.fromarray(film(240)).save(tmp_path / "film.png")
    server = serve(Run(write_folder(tmp_path / "edge")), host="127.0.0.1", port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server, chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(120_000)  # a machine under load
        faults: list[str] = []
        page.on("filechooser", lambda _: None)  # asked for before any key: then none is missed
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "film"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(tmp_path / "film.png")
        page.wait_for_selector("#result:not([hidden])")
        assert page.inner_text("#rows").startswith("bright\t1\t0.5\t")
        assert "above the threshold" in page.inner_text("#rows")
        assert page.inner_text("#status") == "film.png: done."
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        (tmp_path / "text.png").write_bytes(b"no film")
        page.set_input_files("#film", tmp_path / "text.png")
        page.locator("#status", has_text="no image").wait_for()
        page.evaluate(DROP, "dark.png")  # beside the field: it must not replace the page
        page.locator("#status", has_text="dark.png: no image").wait_for()
        assert page.evaluate("document.getElementById('film').value") == ""
        assert not [fault for fault in faults if "422" not in fault]
        if AXE.is_file():
            page.evaluate(AXE.read_text(encoding="utf-8"))
            found = page.evaluate("async () => (await axe.run()).violations")
            assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        server.shutdown()
