"""A vision transformer on images that are no squares, from the files to report, page and export."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny_study import RECIPE, write_tiny_study

from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.edge.write import export_graph
from medtl.run.folder import Run
from medtl.run.service.serve import Desk

pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_an_oblong_transformer_goes_to_report_page_and_export(tmp_path):
    """Each run of a transformer ended in a traceback where its heat maps were drawn."""
    text = RECIPE.replace("size: 32", "size: [64, 48]").replace("test_resnet", "test_vit")
    text = text.replace("lr: {head: 1e-2, base: 1e-2}", "lr: {head: 1e-3, base: 1e-4}")
    recipe = read_recipe(write_tiny_study(tmp_path / "study", recipe=text))
    run = run_study(recipe, tmp_path / "run")
    assert run.report_path.is_file()
    gallery = tmp_path / "run" / "gallery"
    shown = json.loads((gallery / "gallery.json").read_text())
    assert shown
    for entry in shown:
        assert entry["overlay"] or entry["nothing_raised_the_score"]
        width, height = Image.open(gallery / entry["image"]).size
        assert height / width == pytest.approx(64 / 48, abs=0.05)
    films = tmp_path / "study" / "images"
    desk = Desk(run)
    seen = [json.loads(desk.look(film).body)["rows"] for film in sorted(films.iterdir())[:4]]
    assert any(row["heat"] for rows in seen for row in rows)

    scores = run.predict(films).frame.set_index("file")["y_score"]
    export_graph(run, tmp_path / "edge")
    exported = Run(tmp_path / "edge").predict(films).frame.set_index("file")["y_score"]
    np.testing.assert_allclose(exported.loc[scores.index], scores, rtol=0, atol=1e-4)
