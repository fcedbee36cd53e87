"""Key pictures of predictions: which calls are shown, the outline of a mask, the export of both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from medtl.data.reader import ImageReader
from medtl.preprocess.pipeline import Preprocessor
from medtl.run.use.cases_to_predict import find_cases
from medtl.run.use.key_pictures import _called, draw_key_pictures
from medtl.tasks.structures import Structures


def test_calls_above_their_threshold_are_shown_else_the_highest_score() -> None:
    rows = pd.DataFrame(
        {"label": ["a", "b", "c"], "y_score": [0.4, 0.9, 0.2], "decision": ["1", "0", "1"]}
    )
    assert _called(rows) == ["a", "c"]
    assert _called(rows.assign(decision="0")) == ["b"]
    assert _called(rows.drop(columns="decision")) == ["b"]


def test_the_outline_of_a_mask_is_drawn(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for name in ("seen", "empty"):
        Image.fromarray(np.full((64, 64), 90, np.uint8)).save(films / f"{name}.png")
    task = Structures(("lung",), ((1,),))
    reader = ImageReader(Preprocessor(size=64, scale="window", window=(127.5, 255.0)))
    meta = {"manifest_sha256": "", "recipe": {"data": {}}}
    model: Any = SimpleNamespace(task=task, reader=replace(reader, labels={1: "lung"}), meta=meta)
    cases = {
        case.image.stem: case.case_id for case in find_cases(tmp_path, films, model).manifest.cases
    }
    rows = ["case_id,patient_id,split,truth,prediction,spacing_mm"]
    for name, case_id in cases.items():
        mask = np.zeros((64, 64), np.uint8)
        mask[20:40, 20:40] = name == "seen"
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        rows.append(f"{case_id},{case_id},,,{name}.png,")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows) + "\n")
    table.with_suffix(".yaml").write_text("labels: {1: lung}\n")
    draw_key_pictures(model, films, table, tmp_path / "key", own=tmp_path / "manifest.csv")
    (entry,) = json.loads((tmp_path / "key" / "gallery.json").read_text())
    assert (entry["case_id"], entry["label"]) == (cases["seen"], "lung")
    plain, drawn = (
        np.asarray(Image.open(tmp_path / "key" / entry[part]).convert("RGB"), int)
        for part in ("image", "overlay")
    )
    changed = np.argwhere(np.abs(plain - drawn).sum(axis=-1) > 0)
    side = len(plain) / 64  # the outline of rows and columns 20 to 39, and nothing else
    np.testing.assert_allclose(changed.min(axis=0), 20 * side, atol=side)
    np.testing.assert_allclose(changed.max(axis=0), 40 * side, atol=side)
