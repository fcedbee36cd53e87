"""A whole study on tiny images: what a run leaves, the split of a seed, a kill, an ensemble."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tiny_study import RECIPE, write_tiny_study

from medtl.data import decoded
from medtl.errors import RecipeError, RunError
from medtl.run.check import read_recipe
from medtl.studies.conditions import Plan, seeds_plan
from medtl.studies.engine import run_conditions
from medtl.studies.ensemble import average, ensemble_study, to_markdown
from medtl.studies.rows import read_rows
from medtl.studies.single import SingleRun, split_anew

PLAN = Plan({"none": (), "lower": ("finetune.stages.1.lr=1e-3",)}, "none", (0, 1))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    text = RECIPE.replace("epochs: 2", "epochs: 1")
    return write_tiny_study(tmp_path_factory.mktemp("study") / "data", recipe=text)


@pytest.fixture(scope="module")
def study(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("conditions") / "study"
    summary = run_conditions(recipe, PLAN, out)
    return out, summary


def test_a_run_leaves_its_row_and_no_checkpoint(study):
    out, summary = study
    assert [cell.n for cell in summary.cells] == [2, 2]
    for row in read_rows(out):
        folder = out / "runs" / row["condition"] / f"seed-{row['seed']}"
        metrics = json.loads((folder / "metrics.json").read_text())
        value = {
            m["name"]: m["value"]
            for m in metrics["measures"]
            if (m["split"], m["subset"]) == ("test", "all")
        }
        assert {"auroc", "sensitivity", "specificity", "brier"} <= set(row)
        assert all(row[name] == value[name] for name in ("auroc", "sensitivity", "brier"))
        assert row["epochs"] == 2
        assert row["val_loss"] > 0
        assert row["medtl"]
        assert not list((folder / "checkpoints").iterdir())
        assert (folder / "predictions.csv").is_file()
        assert not (folder / "report.html").exists()
    assert (out / "summary.md").is_file()
    assert not list((out / "cache").iterdir())


def test_another_study_of_the_same_images_decodes_none(study, recipe, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoded, "decode_cases", refuse)
    once = replace(PLAN, seeds=(0,))
    run_conditions(recipe, once, tmp_path / "s")
    assert {row["status"] for row in read_rows(tmp_path / "s")} == {"done"}
    with pytest.raises(RunError, match="decoded again"):
        run_conditions(recipe, once, tmp_path / "t", overrides=["image.size=40"])


def test_a_seed_has_one_split_whatever_the_condition(study):
    out, _ = study
    splits = {}
    for row in read_rows(out):
        splits.setdefault(row["seed"], set()).add(row["split_sha256"])
    assert [len(found) for found in splits.values()] == [1, 1]
    assert splits[0] != splits[1]


def test_no_file_of_a_study_names_a_folder_of_this_machine(study):
    out, _ = study
    for name in ("plan.json", "rows.json", "summary.json", "summary.md"):
        assert str(out.parent) not in (out / name).read_text()


def test_a_given_split_is_not_used_when_every_seed_splits(recipe, tmp_path):
    table = pd.read_csv(recipe.parent / "manifest.csv")
    numbers = table["patient_id"].str.removeprefix("Kim-").astype(int)
    table["split"] = np.where(numbers < 20, "train", np.where(numbers < 25, "val", "test"))
    table["image"] = [str(recipe.parent / name) for name in table["image"]]
    path = recipe.parent / "given.csv"
    table["image"] = pd.read_csv(recipe.parent / "manifest.csv")["image"]
    table.to_csv(path, index=False)
    checked = read_recipe(recipe, [f"data.manifest={path}"])
    manifest = split_anew(checked)
    given = dict(zip(table["image"], table["split"], strict=True))
    made = {c.image.relative_to(manifest.root).as_posix(): c.split for c in manifest.cases}
    assert made != given
    by_patient = {}
    for case in manifest.cases:
        by_patient.setdefault(case.patient_id, set()).add(case.split)
    assert all(len(found) == 1 for found in by_patient.values())


def test_a_faulty_condition_is_found_before_any_run(recipe, tmp_path):
    plan = Plan({"none": (), "odd": ("finetune.epochs=3",)}, "none", (0,))
    with pytest.raises(RecipeError, match=r"finetune\.epochs"):
        run_conditions(recipe, plan, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_killed_study_ends_in_the_same_rows(study, recipe, tmp_path):
    """Stopped in the middle of an epoch, in the third run, and resumed."""
    from medtl.training.callbacks import Watcher

    steps = 0

    def kill(*_):
        nonlocal steps
        steps += 1
        if steps == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_conditions(
            recipe, PLAN, tmp_path / "s", single=SingleRun(callbacks=[Watcher(on_step=kill)])
        )
    stopped = len(read_rows(tmp_path / "s"))
    assert 0 < stopped < 4
    run_conditions(recipe, PLAN, tmp_path / "s", resume=True)
    told = ("seconds", "peak_gb", "ended", "commit")  # of the machine, not of the study

    def kept(out):
        return [{k: v for k, v in row.items() if k not in told} for row in read_rows(out)]

    assert kept(tmp_path / "s") == kept(study[0])


def test_seeds_that_share_a_split_make_an_ensemble(recipe, tmp_path):
    out = tmp_path / "s"
    plan = seeds_plan(2, vary=("init", "order"))
    summary = run_conditions(
        recipe, plan, out, single=SingleRun(keep_checkpoints=True, reports=True)
    )
    assert summary.overlap == 0
    rows = read_rows(out)
    assert len({row["split_sha256"] for row in rows}) == 1
    first = out / "runs" / "recipe" / "seed-0"
    assert [p.name for p in (first / "checkpoints").iterdir()] == ["best.safetensors"]
    assert (first / "report.html").is_file()
    found = ensemble_study(out)
    tables = [
        pd.read_csv(out / "runs" / "recipe" / f"seed-{seed}" / "predictions.csv") for seed in (0, 1)
    ]
    mean = pd.read_csv(found.folder / "predictions.csv").set_index("case_id")["y_score"]
    expected = pd.concat(tables).groupby("case_id")["y_score"].mean()
    pd.testing.assert_series_equal(mean.sort_index(), expected, check_names=False)
    assert found.singles["seed-1"]["auroc"] == rows[1]["auroc"]
    assert "| mean of singles |" in to_markdown(found)


def test_seeds_with_splits_of_their_own_make_no_ensemble(study):
    with pytest.raises(RunError, match="test cases of its own"):
        ensemble_study(study[0])


def table_of(cases, truth, scores):
    return pd.DataFrame({"case_id": cases, "split": "test", "y_true": truth, "y_score": scores})


def test_only_models_of_the_same_cases_are_averaged():
    first = table_of(["a", "b"], [0.0, np.nan], [0.2, 0.4])
    second = table_of(["b", "a"], [np.nan, 0.0], [0.6, 0.0])
    assert average([first, second])["y_score"].tolist() == pytest.approx([0.1, 0.5])
    with pytest.raises(RunError, match="not tested on the same cases"):
        average([first, table_of(["a", "c"], [0.0, 1.0], [0.2, 0.4])])
    with pytest.raises(RunError, match="measures of masks"):
        average([first.drop(columns="y_score"), second])
    with pytest.raises(RunError, match="partly the same cases"):
        average([first.assign(split="val"), second.assign(split=["val", "test"])])
    with pytest.raises(RunError, match="disagree about the truth"):
        average([first, table_of(["a", "b"], [1.0, np.nan], [0.2, 0.4])])


def test_an_ensemble_needs_two_runs(tmp_path, recipe):
    out = tmp_path / "s"
    run_conditions(recipe, seeds_plan(1, vary=("init",)), out)
    with pytest.raises(RunError, match="two or more"):
        ensemble_study(out)
