"""docs/python.md and the executed notebooks, top to bottom, on the demos' images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import medtl as mt
from manual.notebook import SOURCES, cells_of, notebook, notebook_of, run_cells

ROOT = Path(__file__).parents[1]

RECIPE = """
study: {question: "Is there an effusion?", synthetic: true}
data: {manifest: data/manifest.csv, target: effusion, ids: pseudonymous}
image: {modality: cxr, size: 96}
model: {backbone: test_resnet, weights: {source: none, random_features: true}}
finetune:
  batch_size: 16
  stages:
    - {name: head, train: head, epochs: 1, lr: 1e-2}
    - {name: full, train: all, epochs: 1, lr: {head: 1e-2, base: 1e-2}}
run: {tensorboard: false, device: cpu}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with films, a recipe and new images, as the page and the notebook name them."""
    from medtl.demo.chest import write_chest_study

    folder = tmp_path_factory.mktemp("desk")
    write_chest_study(folder / "data", patients=24, workers=1)
    (folder / "chest.yaml").write_text(RECIPE)
    films = sorted((folder / "data" / "images").glob("*.dcm"))
    shutil.copy(films[0], folder / "a.dcm")
    (folder / "incoming").mkdir()
    for film in films[:3]:
        shutil.copy(film, folder / "incoming")
    return folder


def test_the_page_runs_top_to_bottom(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 4
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"python.md, block {number}", "exec"), names)
    told = names["own"].environment["given_in_python"]
    assert told == "loss: gentle; backbone: backbone; metric: hits"


def test_the_first_day(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    film = mt.read_image("a.dcm")
    assert re.fullmatch(r"Image\((CR|DX), 1 x \d+ x \d+, [\d.]+ mm.*\)", repr(film))
    assert film.plot().images
    study = mt.Study("chest.yaml", **{"image.size": 64})
    assert study.recipe.image.size == 64
    assert "Stage full" in str(study.check())
    run = study.fit("runs/day")
    assert isinstance(run, mt.Run)

    changed = (desk / "runs/day/report.html").stat().st_mtime_ns
    assert repr(study.fit("runs/day")) == repr(run)  # again: it is there
    assert (desk / "runs/day/report.html").stat().st_mtime_ns == changed

    run = mt.Run("runs/day")
    assert list(run.history["stage"]) == ["head", "full"]
    assert set(run.predictions["split"]) == {"val", "test"}
    assert isinstance(run.evaluation, mt.Evaluation)
    assert sum(parameter.numel() for parameter in run.network.parameters()) > 1000
    assert [line.get_label() for line in run.plot().lines[:2]] == ["train", "val"]
    new = run.predict("incoming/")
    assert isinstance(new, mt.Predictions)
    assert new.images == len(new.frame) == 3
    assert "3 images" in new._repr_html_()

    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 2, 300)
    y_score = 1 / (1 + np.exp(-(rng.normal(size=300) + 1.3 * y_true)))
    ids = np.arange(300) // 2
    ev = mt.evaluate(y_true, y_score, patients=ids)
    assert ev.auroc.n == len(y_true)
    assert ev.auroc.name in set(ev.frame()["name"])
    assert ev.plot.roc().lines
    assert "<table" in ev._repr_html_()
    assert ev.report("report.html").is_file()
    said = str(mt.metrics.auroc(y_true, y_score))
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], n = 300 \(DeLong\)", said)
    for shown in (film, study, study.manifest, study.recipe, run, new, ev, ev.plot, ev.auroc):
        assert len(repr(shown)) < 400, shown


def test_a_figure_is_that_of_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    truth, ids = rng.integers(0, 2, 120), np.arange(120) // 3
    score = np.clip(0.3 * truth + rng.random(120) * 0.7, 0, 1)
    table = pd.DataFrame({
        "case_id": [f"{n:03d}" for n in range(120)], "patient_id": ids, "split": "test",
        "label": "", "y_true": truth, "y_score": score,
    })  # fmt: skip
    table.to_csv(tmp_path / "table.csv", index=False)
    out = tmp_path / "metrics.json"
    script = "from medtl.cli.main import main; main()"
    command = [sys.executable, "-c", script, "evaluate", str(tmp_path / "table.csv"), "--out"]
    subprocess.run([*command, str(out)], check=True, cwd=ROOT, capture_output=True)
    of_command = mt.Evaluation.from_json(out)
    of_arrays = mt.evaluate(truth, score, patients=ids)
    assert of_arrays.measures == of_command.measures
    assert of_arrays.curves == of_command.curves
    assert len(of_arrays.measures) > 5


def without_numbers(text: str) -> str:
    """A text without numbers, what they decide and blanks: other processors round otherwise."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d+(\.\d+)?|NaN|\b(yes|no)\b", "#", text))


EXACT = {
    "chest": "auroc: 0.938 [0.438, 0.997], n = 8 (hull of DeLong",
    "bone-age": "value                            7.5",
}
"""Notebook -> what its last cell says, which no training is behind."""


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_says_what_it_shows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = json.loads(notebook_of(source).read_text(encoding="utf-8"))
    cells = cells_of(source.read_text(encoding="utf-8"))
    assert [("".join(c["source"])) for c in shown["cells"]] == [text for _, text in cells]
    outputs = run_cells([text for kind, text in cells if kind == "code"])
    kept = [c["outputs"] for c in shown["cells"] if c["cell_type"] == "code"]
    written = ["".join(out[0]["text"]) if out else "" for out in kept]
    assert [*map(without_numbers, written)] == [*map(without_numbers, outputs)]
    if source.stem in EXACT:
        assert EXACT[source.stem] in written[-1]
        assert written[-1] == outputs[-1]
    assert notebook_of(source).stat().st_size < 20_000


def test_each_study_has_its_notebook() -> None:
    assert [source.stem for source in SOURCES] == ["bone-age", "chest", "masks"]
    written = {path.stem for path in (ROOT / "docs" / "tutorials").glob("*.ipynb")}
    assert written == {source.stem for source in SOURCES}


def test_a_cell_keeps_what_it_prints_and_its_last_value() -> None:
    cells = cells_of(
        "# Two\n\n```python\na = 2\nprint(a)\na + 1\n```\nThen\n\n```python\nb = a\n```\n"
    )
    assert [kind for kind, _ in cells] == ["markdown", "code", "markdown", "code"]
    assert run_cells([text for kind, text in cells if kind == "code"]) == ["2\n3", ""]
    made = notebook(cells, ["2\n3", ""])["cells"]
    assert made[1]["outputs"][0]["text"] == ["2\n", "3"]
    assert made[3]["outputs"] == []
