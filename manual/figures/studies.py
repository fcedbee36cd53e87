"""Pictures that studies leave, on drawn films, and two figures of the published reports again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image

from manual.figures.pictures import film
from medtl.studies.plots import draw_controls
from medtl.studies.stress.corruptions import corruptions_of
from medtl.studies.stress.robustness_files import draw_grid
from medtl.types import Measure

REPORTS = Path(__file__).parents[2] / "reports"

CONTROLS = {
    "random_weights_x1": "the same network from random weights",
    "frozen_features": "frozen features, linear",
    "thumbnail": "a thumbnail of 8 x 8 pixels",
    "intensity": "intensities without a place",
    "metadata": "age, sex, view",
}
"""Name in shortcuts.json -> what stands beside its interval."""

RECIPE = """\
study: {question: "Is there an effusion?", synthetic: true}
data: {manifest: data/manifest.csv, target: effusion, ids: pseudonymous}
image: {modality: cxr, size: 224}
"""

SIDE = 120
"""Height of a film in the stress grid, in pixels."""

EXCHANGED = 4
"""Labels that are made wrong for the page of doubtful labels."""


def draw_stress_grid(out: Path) -> None:
    """Write `stress_grid.png`: one drawn film under every corruption, severities left to right."""
    unit = film(0, 160)[None]
    lines = {
        one.words["en"]: [one(unit, severity) for severity in range(len(one.strengths) + 1)]
        for one in corruptions_of("cxr")
    }
    draw_grid(lines, out / "stress_grid.png", side=SIDE)
    _shrink(out / "stress_grid.png", 64)


def draw_report_figures(out: Path) -> None:
    """Write `controls.svg` and `learning_curve.svg`, from the numbers of the published reports."""
    told = json.loads((REPORTS / "data" / "transfer_chest_xray.json").read_text(encoding="utf-8"))
    found = {c["name"]: Measure(**c["reaches"]) for c in told["controls"] if c["subset"] == "all"}
    table = (REPORTS / "transfer_chest_xray.md").read_text(encoding="utf-8")
    row = re.search(r"^\| the recipe:[^|]*\| ([\d.]+) \[([\d.]+), ([\d.]+)\]", table, re.MULTILINE)
    assert row is not None
    value, low, high = map(float, row.groups())
    recipe = Measure("auroc_mean_of_folds", value, low=low, high=high)
    reached = [recipe, *(found[name] for name in CONTROLS)]
    draw_controls(["the recipe", *CONTROLS.values()], reached, out / "controls.svg")
    shutil.copy(REPORTS / "learning_curve_chest_xray.svg", out / "learning_curve.svg")


def draw_audit(out: Path) -> None:
    """Write `audit.png`: the page of doubtful labels, of drawn films with four labels exchanged."""
    from medtl.demo.chest import write_chest_study
    from medtl.run.check import read_recipe
    from medtl.studies.learned.label_audit import audit_labels

    with TemporaryDirectory() as folder:
        place = Path(folder)
        manifest = write_chest_study(place / "data", patients=12)
        films = pd.read_csv(manifest)
        films = films[films["effusion"].isin([0, 1])].reset_index(drop=True)
        films["case_id"] = [Path(name).stem for name in films["image"]]
        noise = 0.3 * np.random.default_rng(0).random(len(films))
        score = np.where(films["effusion"] == 1, 1 - noise, noise)
        films.loc[: EXCHANGED - 1, "effusion"] = 1 - films.loc[: EXCHANGED - 1, "effusion"]
        films.to_csv(manifest, index=False)
        (place / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        (place / "run").mkdir()
        pd.DataFrame(
            {
                "case_id": films["case_id"],
                "patient_id": films["patient_id"],
                "split": "test",
                "label": "effusion",
                "y_true": films["effusion"],
                "y_score": score,
            }
        ).to_csv(place / "run" / "predictions.csv", index=False)
        recipe = read_recipe(place / "recipe.yaml")
        page = audit_labels(place / "run", recipe, place / "audit", most=8)
        _photograph(page, out / "audit.png", 1000, 720)


def _photograph(page: Path, out: Path, width: int, height: int) -> None:
    """Write what a page shows first, in a browser of so many pixels, as a small PNG."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox"]
        )
        view = browser.new_page(viewport={"width": width, "height": height})
        view.goto(page.resolve().as_uri())
        view.screenshot(path=out)
        browser.close()
    _shrink(out, 128)


def _shrink(path: Path, colours: int) -> None:
    """Write a picture again with so many colours."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(colours)
    few.save(path, optimize=True)
