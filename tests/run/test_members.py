"""`run.members`: several seeds, one model, one threshold, one report, one `predict`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tiny_study import write_tiny_study

from medtl.errors import WeightsError
from medtl.networks.pretrained.weight_files import read_weights
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.plan import describe_plan
from medtl.training.callbacks import Watcher


def logit(p):
    return np.log(p / (1 - p))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(recipe path, runs of seeds 3 and 4, run of both as members)."""
    folder = tmp_path_factory.mktemp("members")
    recipe = write_tiny_study(folder / "data")
    runs = [
        run_study(read_recipe(recipe, [f"run.seed={seed}"]), folder / f"seed{seed}")
        for seed in (3, 4)
    ]
    both = run_study(read_recipe(recipe, ["run.seed=3", "run.members=2"]), folder / "both")
    return recipe, runs, both


def test_the_score_is_the_mean_of_the_single_runs(study):
    _, runs, both = study
    single = [logit(run.predictions["y_score"]) for run in runs]
    assert np.abs(single[0] - single[1]).max() > 0.01
    np.testing.assert_allclose(
        logit(both.predictions["y_score"]), np.mean(single, axis=0), rtol=0, atol=2e-5
    )


def test_one_report_says_how_many_there_are(study):
    _, runs, both = study
    assert both.environment["members"] == 2
    assert "mean of 2 networks" in both.report_path.read_text("utf-8")
    assert "members" not in runs[0].environment
    assert "networks that were trained" not in runs[0].report_path.read_text("utf-8")
    pd.testing.assert_frame_equal(
        both.history.drop(columns="seconds"), runs[0].history.drop(columns="seconds")
    )
    other = pd.read_csv(both.path / "members" / "1" / "history.csv")
    assert other["val_loss"].tolist() == runs[1].history["val_loss"].tolist()
    assert [f.name for f in both.files.checkpoints.iterdir()] == ["best.safetensors"]
    assert not both.broken_seals()


def test_new_images_are_predicted_as_the_run_did(study):
    recipe, _, both = study
    table = both.predict(recipe.parent / "images").frame
    own = both.predictions
    assert len(table) == 60
    assert set(np.round(own["y_score"], 6)) <= set(np.round(table["y_score"], 6))


@pytest.mark.parametrize("stop_in", [0, 1])
def test_a_stopped_run_goes_on_to_the_same_bits(study, tmp_path, stop_in):
    recipe, _, both = study
    started = []

    def stop(history):
        if len(history) == 1:
            started.append(1)
        if len(started) == stop_in + 1 and len(history) == 2:
            raise KeyboardInterrupt

    parsed = read_recipe(recipe, ["run.seed=3", "run.members=2"])
    with pytest.raises(KeyboardInterrupt):
        run_study(parsed, tmp_path / "run", callbacks=[Watcher(on_epoch=stop)])
    again = run_study(parsed, tmp_path / "run", resume=True)
    assert again.files.predictions.read_bytes() == both.files.predictions.read_bytes()


def test_the_plan_counts_them(study):
    recipe, _, _ = study
    lines = "\n".join(describe_plan(read_recipe(recipe, ["run.members=2"])))
    assert "Networks: 2, one after another; their outputs are averaged" in lines


def test_a_training_cannot_start_from_several(study):
    _, _, both = study
    with pytest.raises(WeightsError, match="holds several networks"):
        read_weights(both.checkpoint)


def test_members_draw_from_later_seeds_and_share_the_split():
    from medtl.recipe.schema import parse_recipe

    given = {
        "study": {"question": "Is it?"},
        "data": {"manifest": "m.csv", "target": "t"},
        "image": {"modality": "cxr"},
        "run": {"seed": 5, "seeds": {"init": 7, "split": 2}, "members": 3},
    }
    third = parse_recipe(given, where="r").member(2)
    assert third.run.members == 1
    drawn = [third.seed_of(s) for s in ("split", "init", "order", "augment")]
    assert drawn == [2, 9, 7, 7]


def test_an_open_run_says_what_it_holds(study):
    _, _, both = study
    assert repr(Run(both.path)) == "Run('both': finished)"
