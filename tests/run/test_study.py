"""A study as an object: made of a file, a mapping or a table; trained, gone on with, refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tiny_study import write_tiny_study

from medtl.errors import ManifestError, RecipeError, RunError
from medtl.run.study import Plan, Study

TINY = {
    "image.size": 32,
    "model": {"backbone": "test_resnet", "weights": {"source": "none", "random_features": True}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(path / "tiny", patients=12)
    return path / "tiny"


def test_a_study_is_its_recipe_with_changes(folder: Path) -> None:
    study = Study(folder / "recipe.yaml", **{"image.size": 48, "finetune.stages.0.epochs": 7})
    assert study.recipe.image.size == 48
    assert study.recipe.finetune.stages[0].epochs == 7
    assert repr(study) == "Study('Is the square bright?', cxr 48 x 48, test_resnet)"
    assert repr(study.manifest) == "Manifest(24 images of 12 patients)"
    again = Study(Study(str(folder / "recipe.yaml")).recipe, **{"image.size": 48})
    again = Study(again.recipe, **{"finetune.stages.0.epochs": 7})
    assert again.recipe.fingerprint == study.recipe.fingerprint


def test_every_fault_is_said_at_once(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)recipe\.yaml: 2 faults.*image.size.*brihgt"):
        Study(folder / "recipe.yaml", target="brihgt", **{"image.size": "large"})
    with pytest.raises(RecipeError, match="data"):
        Study()


def test_a_mapping_is_not_changed(folder: Path) -> None:
    data = {
        "study": {"question": "Is it bright?"},
        "data": {"manifest": str(folder / "manifest.csv"), "target": "bright"},
        "image": {"modality": "cxr"},
    }
    assert Study(data, **TINY).recipe.image.size == 32
    assert data["image"] == {"modality": "cxr"}


def test_a_table_is_a_manifest(folder: Path, tmp_path: Path) -> None:
    table = pd.read_csv(folder / "manifest.csv")
    table["bright"] = table["bright"].astype(bool)
    study = Study(manifest=table, target="bright", modality="cxr", root=folder, **TINY)
    assert study.recipe.study.question == "Is bright present?"
    plain = Study(folder / "recipe.yaml").manifest
    assert [c.targets for c in study.manifest.cases] == [c.targets for c in plain.cases]
    assert [c.patient_id for c in study.manifest.cases] == [c.patient_id for c in plain.cases]

    table["image"] = [str(folder.resolve() / name) for name in table["image"]]
    same = Study(manifest=table, target="bright", modality="cxr", root=str(folder), **TINY)
    assert same.recipe.data == study.recipe.data  # the same cases are the same file
    with pytest.raises(ManifestError, match="outside the folder"):
        Study(manifest=table, target="bright", modality="cxr", root=tmp_path, **TINY)


def test_a_finished_run_is_returned_while_nothing_changed(folder: Path, tmp_path: Path) -> None:
    study = Study(folder / "recipe.yaml", **{"finetune.stages": [
        {"name": "head", "train": "head", "epochs": 1, "lr": 0.01}]})  # fmt: skip
    run = study.fit(tmp_path / "run")
    assert run.is_finished
    assert study.fit(str(tmp_path / "run")).state == "finished"
    with pytest.raises(RunError, match="exists and is not empty"):
        study.fit(tmp_path / "run", resume=False)
    with pytest.raises(RunError, match="another recipe"):
        Study(folder / "recipe.yaml").fit(tmp_path / "run")
    with pytest.raises(RunError, match="another recipe"):
        study.fit(tmp_path / "run", loss=max)

    text = (folder / "manifest.csv").read_text(encoding="utf-8")
    (folder / "manifest.csv").write_text(text.replace(",north,", ",south,", 1), encoding="utf-8")
    with pytest.raises(RunError, match="manifest or its split has changed"):
        study.fit(tmp_path / "run")
    (folder / "manifest.csv").write_text(text, encoding="utf-8")


def test_a_plan_shows_itself() -> None:
    plan = Plan(("train: 3 < 4", "head trains"))
    assert str(plan) == "train: 3 < 4\nhead trains"
    assert repr(plan) == "Plan(2 lines: print it)"
    assert plan._repr_html_() == "<pre>train: 3 &lt; 4\nhead trains</pre>"
