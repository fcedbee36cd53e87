"""Embeddings from elsewhere: a head is learned on them, and all that follows works."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from medtl.cases.intake.embeddings import join_features, write_features
from medtl.errors import RecipeError, RunError
from medtl.networks.backbones import build_classifier
from medtl.networks.groups import layer_groups
from medtl.networks.weights import WeightsSource
from medtl.recipe.schema import parse_recipe
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.service.serve import Desk
from medtl.run.service.watch import Folder, Watch
from medtl.run.use.key_pictures import draw_key_pictures

RECIPE = """
study: {question: Is there an effusion?}
data: {manifest: study.csv, target: effusion, ids: pseudonymous}
image: {modality: cxr}
model: {backbone: features, dropout: 0}
finetune:
  stages: [{name: head, train: head, epochs: 3, lr: {head: 0.01}}]
  batch_size: 16
run: {tensorboard: false}
"""


def minimal(**sections):
    """A recipe of features as plain data, with changes."""
    data = {
        "study": {"question": "Is there an effusion?"},
        "data": {"manifest": "study.csv", "target": "effusion"},
        "image": {"modality": "cxr"},
        "model": {"backbone": "features"},
    }
    return {name: {**data.get(name, {}), **more} for name, more in sections.items()} | {
        name: part for name, part in data.items() if name not in sections
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(folder, truth, vectors) of 120 patients; the first four of 12 features say who is ill."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.arange(120) % 2)
    vectors = rng.normal(size=(120, 12)) + np.outer(truth, [1.5] * 4 + [0] * 8)
    vectors = (vectors * np.linspace(1, 40, 12) + 5).astype(np.float32)
    ids = [f"film-{number}" for number in range(120)]
    np.savez(folder / "all.npz", film=np.array(ids), vectors=vectors)
    sheet = {"film": ids, "patient_id": [f"p{i}" for i in range(120)], "effusion": truth}
    pd.DataFrame(sheet).to_csv(folder / "labels.csv", index=False)
    joined = join_features(folder / "all.npz", folder / "labels.csv", "film")
    write_features(joined, folder / "study.csv")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder, truth, vectors


@pytest.mark.slow
def test_a_head_on_features_is_what_it_says(study):
    """Each score is that of the head's own weights on features standardised by hand."""
    folder, truth, vectors = study
    run = run_study(read_recipe(folder / "recipe.yaml"), folder / "run")
    manifest = run.manifest
    row_of = {patient: int(patient[1:]) for patient in manifest["patient_id"]}
    split = dict(zip(manifest["patient_id"], manifest["split"], strict=True))
    train = vectors[[row_of[p] for p, part in split.items() if part == "train"]].astype(float)
    tensors = load_file(run.files.best)
    weight = tensors["model.head.linear.weight"].numpy().astype(float)[0]
    bias = float(tensors["model.head.linear.bias"])
    table = run.predictions
    rows = table["patient_id"].map(row_of).to_numpy()
    standard = (vectors[rows] - train.mean(axis=0)) / train.std(axis=0)
    expected = 1 / (1 + np.exp(-(standard @ weight + bias)))
    np.testing.assert_allclose(table["y_score"], expected, rtol=0, atol=1e-5)
    assert (table["y_true"].to_numpy() == truth[rows]).all()
    assert run.evaluation.measure("auroc").value > 0.9
    assert run.report_path.is_file()

    for refused in (
        lambda: Desk(run),
        lambda: Watch(run, Folder(folder), folder / "out"),
        lambda: draw_key_pictures(run.trained, folder, folder, folder, own=run.files.manifest),
    ):
        with pytest.raises(RunError, match=r"trained on 12 features made elsewhere"):
            refused()
    again = Run(folder / "run").predict(folder / "study.csv").frame.set_index("patient_id")
    theirs = table.set_index("patient_id")["y_score"]
    np.testing.assert_allclose(again.loc[theirs.index, "y_score"], theirs, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_vectors_that_are_not_there_are_said_before_training(study, tmp_path):
    folder, _, vectors = study
    lines = (folder / "study.csv").read_text()
    (tmp_path / "study.csv").write_text(lines)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    np.save(tmp_path / "study.npy", vectors[:5])
    with pytest.raises(RunError, match=r"115 of 120 images could not be used .*of 5 vectors"):
        run_study(read_recipe(tmp_path / "recipe.yaml"), tmp_path / "run")


def test_the_network_is_a_head_alone():
    model, report = build_classifier(
        "features", outputs=1, weights=WeightsSource("none"), extra_features=5
    )
    assert [group.name for group in layer_groups(model)] == ["head"]
    assert report.contract.channels == 1
    x = torch.randn(2, 1, 4)
    sex = torch.randn(2, 1)
    expected = model.head.linear(torch.cat([x[:, 0], sex], dim=1))
    assert torch.equal(model.eval()(x, sex), expected)


def test_no_weights_are_asked_for_and_none_are_random():
    recipe = parse_recipe(minimal())
    assert recipe.model.weights.source == "none"
    assert not recipe.model.is_random
    with pytest.raises(RecipeError, match="backbone features has no weights"):
        parse_recipe(minimal(model={"weights": "timm"}))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("augment", "transforms", {"rotate": {}}),
        ("finetune", "mix", {"mixup": 0.2}),
        ("model", "reuse_until", "layer2"),
        ("image", "spacing", [1.0, 1.0, 1.0]),
    ],
)
def test_what_is_of_pictures_is_a_fault(section, key, value):
    more = {key: value}
    if key == "spacing":
        more["patch"] = [32, 32, 32]
    with pytest.raises(RecipeError, match=rf"{section}\.{key}.* is of images"):
        parse_recipe(minimal(**{section: more}))
