"""A learning curve as a study: nested shares, the rows summed up, the command."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_study import RECIPE, write_tiny_study
from typer.testing import CliRunner

from medtl.cases.splits import nested_share
from medtl.cli.main import app
from medtl.errors import RunError
from medtl.run.check import read_recipe
from medtl.studies.kfold import run_kfold
from medtl.studies.learned.training_shares import (
    NETWORK,
    curve_markdown,
    curve_plan,
    learning_curve,
    summarise_curve,
)
from medtl.types import Case, Manifest


def split_manifest(patients=40):
    cases = [
        Case(f"{p}-{k}", f"p{p}", Path(f"/x/{p}-{k}.png"), split="train" if p < 30 else "test")
        for p in range(patients)
        for k in range(2)
    ]
    return Manifest(tuple(cases), Path("/x"), sha256="")


LABELS = np.array([[p % 3 == 0] for p in range(40) for _ in range(2)], dtype=int)


def trained(manifest):
    return {case.patient_id for case in manifest.cases if case.split == "train"}


def test_a_smaller_share_is_part_of_a_larger_one():
    manifest = split_manifest()
    shares = [trained(nested_share(manifest, LABELS, s, seed=0)) for s in (0.1, 0.4, 0.7, 1.0)]
    assert all(small < large for small, large in itertools.pairwise(shares))
    assert [len(s) for s in shares] == [3, 12, 21, 30]
    positives = [sum(int(name[1:]) % 3 == 0 for name in s) for s in shares]
    assert positives == [1, 4, 7, 10]


def test_the_other_parts_and_whole_patients_stay():
    manifest = split_manifest()
    small = nested_share(manifest, LABELS, 0.1, seed=0)
    assert [c for c in small.cases if c.split == "test"] == [
        c for c in manifest.cases if c.split == "test"
    ]
    assert len(small.cases) == 2 * 3 + 20
    assert "3 of 30 training patients" in small.notes[-1]
    assert trained(nested_share(manifest, LABELS, 0.4, seed=1)) != trained(
        nested_share(manifest, LABELS, 0.4, seed=0)
    )


def rows(plan, value, *, train=0.3, val=0.32):
    return {
        (name, seed): {
            "condition": name,
            "seed": seed,
            "status": "done",
            "auroc": value(float(name[6:]) * 400) + 0.001 * (seed - 1),
            "train_loss": train,
            "val_loss": val,
            "train_patients": round(float(name[6:]) * 400),
        }
        for name, seed in plan.pairs
    }


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    return write_tiny_study(folder, recipe=RECIPE.replace("epochs: 2", "epochs: 1"))


def test_a_curve_says_what_more_patients_bring(recipe):
    plan = curve_plan(read_recipe(recipe), [1.0, 0.1, 0.5, 0.25], 3)
    assert list(plan.conditions) == ["share-0.1", "share-0.25", "share-0.5", "share-1"]
    assert plan.shares_the_split
    curve = learning_curve(plan, rows(plan, lambda n: 1 - n**-0.5), frozen=[[0.6] * 3] * 4)
    assert curve.patients == (40, 100, 200, 400)
    truth = 400**-0.5 - 600**-0.5
    assert curve.gain.value == pytest.approx(truth, abs=0.002)
    assert curve.gain.low < truth < curve.gain.high
    assert curve.limit == "bias"
    text = curve_markdown(curve)
    assert "200 more patients: auroc rises by 0.0" in text
    assert "| 40 | frozen features | 0.600 | 0.000 |" in text


def test_a_gap_between_the_losses_is_variance(recipe):
    plan = curve_plan(read_recipe(recipe), [0.5, 1.0], 2)
    curve = learning_curve(plan, rows(plan, lambda n: 1 - 1 / n, train=0.01, val=0.5))
    assert curve.limit == "variance"
    assert curve.law is None  # two shares are too few for three constants
    assert "not estimable: 2 numbers of patients" in curve_markdown(curve)
    assert list(curve.values) == [NETWORK]


@pytest.mark.parametrize("shares", [[1.0], [0.0, 1.0], [0.5, 1.5]])
def test_shares_that_are_none_are_refused(recipe, shares):
    with pytest.raises(RunError, match="expected two or more in"):
        curve_plan(read_recipe(recipe), shares, 2)


def test_a_cross_validation_does_not_learn_from_a_share(recipe, tmp_path):
    checked = read_recipe(recipe, ["data.split.train_share=0.5"])
    with pytest.raises(RunError, match="learning-curve"):
        run_kfold(checked, tmp_path / "out", folds=2)


@pytest.mark.slow
def test_the_command_draws_the_curve_and_goes_on(recipe, tmp_path):
    out = tmp_path / "curve"
    arguments = ["study", "learning-curve", str(recipe), "--out", str(out), "--seeds", "2"]
    result = CliRunner().invoke(app, [*arguments, "--shares", "0.3,0.6,1"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "frozen features" in result.output
    assert "200 more patients" in result.output
    assert (out / "learning_curve.svg").read_text().startswith("<?xml")
    curve = summarise_curve(out)
    assert curve.patients == tuple(sorted(curve.patients))
    (out / "rows.json").write_text('{"rows": []}')
    with pytest.raises(RunError, match="6 of 6 runs have not ended well"):
        summarise_curve(out)


def test_case_order_does_not_matter():
    manifest = split_manifest()
    turned = replace(manifest, cases=manifest.cases[::-1])
    assert trained(nested_share(manifest, LABELS, 0.4, seed=0)) == trained(
        nested_share(turned, LABELS[::-1], 0.4, seed=0)
    )
