"""`make gallery`: the manual's pictures and notebooks again, and the numbers that its pages name.

Everything is drawn from seeds: the same machine gives the same files. Reports' own pictures
(`docs/images/report*.png`) are not made here. The page of doubtful labels needs Chromium.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from manual.figures.frozen import draw_frozen, measure_frozen
from manual.figures.interval import draw_intervals, measure_intervals
from manual.figures.overview import draw_overview
from manual.figures.pictures import film
from manual.figures.promise import draw_promise, measure_promise
from manual.figures.shortcut import draw_shortcut, measure_shortcut
from manual.figures.studies import draw_audit, draw_report_figures, draw_stress_grid
from manual.figures.transforms import draw_transforms
from manual.figures.zero_gamma import draw_zero_gamma, measure_zero_gamma
from manual.notebook import write_notebooks
from medtl.preprocess.augment import augmenter
from medtl.preprocess.sheet import contact_sheet

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NUMBERS = Path(__file__).with_name("numbers.json")

MEASURED: Mapping[
    str, tuple[Callable[[], dict[str, Any]], Callable[[Path, dict[str, Any]], None]]
] = {
    "frozen": (measure_frozen, draw_frozen),
    "zero_gamma": (measure_zero_gamma, draw_zero_gamma),
    "promise": (measure_promise, draw_promise),
    "shortcut": (measure_shortcut, draw_shortcut),
    "interval": (measure_intervals, draw_intervals),
}
"""Figure -> what is measured for it, and what draws that."""


def main() -> None:
    """Draw everything."""
    draw_overview(IMAGES)
    draw_transforms(IMAGES)
    sheet = [(f"film {number + 1}", film(number, 150)[None]) for number in (0, 3)]
    contact_sheet(sheet, IMAGES / "contact_sheet.png", augment=augmenter("cxr"), copies=3)
    draw_stress_grid(IMAGES)
    draw_report_figures(IMAGES)
    draw_audit(IMAGES)
    write_notebooks()
    numbers = {}
    for name, (measure, draw) in MEASURED.items():
        numbers[name] = measure()
        draw(IMAGES, numbers[name])
    text = json.dumps(numbers, indent=1)
    NUMBERS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
