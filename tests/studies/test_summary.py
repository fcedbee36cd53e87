"""From rows to a table, a verdict, plots, a comparison: the arithmetic by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medtl.errors import RunError
from medtl.studies.compare import compare_studies
from medtl.studies.compare import to_markdown as comparison_markdown
from medtl.studies.conditions import Plan, factorial_plan
from medtl.studies.rows import add_row
from medtl.studies.summary import summarise, summarise_study, to_markdown

SEEDS = (0, 1, 2, 3, 4)
NOISE = np.array([0.010, -0.004, 0.003, -0.007, 0.001])
BASE = np.array([0.80, 0.84, 0.78, 0.82, 0.81])


def rows_of(values, measure="auroc"):
    return [
        {"condition": name, "seed": seed, "status": "done", measure: float(value),
         "split_sha256": f"s{seed}"}
        for name, column in values.items()
        for seed, value in enumerate(column)
    ]  # fmt: skip


def write_study(out, plan, rows):
    """A study folder as the engine leaves it."""
    out.mkdir()
    recipe = {"data": {"split": {"fractions": [8.0, 1.0, 1.0]}}}
    (out / "plan.json").write_text(json.dumps({**plan.to_dict(), "recipe": recipe}))
    for row in rows:
        add_row(out, row)
    return out


PLAN = Plan({"none": (), "up": (), "same": ()}, "none", SEEDS)
VALUES = {"none": BASE, "up": BASE + 0.08 + NOISE, "same": BASE + NOISE[::-1]}


def test_differences_are_paired_by_seed():
    summary = summarise(PLAN, rows_of(VALUES), overlap=0.0)
    up, same = summary.effects
    assert up.name == "up"
    assert up.runs.difference.value == pytest.approx(0.08 + NOISE.mean())
    assert up.by_seed[1] == pytest.approx(0.08 - 0.004)
    assert up.runs.verdict == "better"
    assert same.runs.verdict == "not shown"
    assert summary.cells[0].mean == pytest.approx(BASE.mean())
    assert summary.cells[0].sd == pytest.approx(BASE.std(ddof=1))


def test_what_each_network_takes_stands_beside_its_measure():
    large = "25 M parameters, 8.2 GFLOP an image, each place sees 427 px"
    small = "4.6 M parameters, 0.78 GFLOP an image, each place sees 299 px"
    rows = [
        {**row, "network": large if row["condition"] == "none" else small, "seconds": 60.0 * n,
         "peak_gb": 2.0 if row["condition"] == "none" else None}
        for n, row in enumerate(rows_of(VALUES))
    ]  # fmt: skip
    summary = summarise(PLAN, rows)
    assert [(c.condition, c.network, c.minutes, c.peak_gb) for c in summary.costs] == [
        ("none", large, 2.0, 2.0),
        ("up", small, 7.0, None),
        ("same", small, 12.0, None),
    ]
    text = to_markdown(summary)
    assert f"| none | {large} | 2.0 | 2.0 |" in text
    assert f"| up | {small} | 7.0 |  |" in text
    # The negative control: one network is no comparison of networks, and older rows name none.
    assert not summarise(PLAN, [{**row, "network": small} for row in rows]).costs
    assert "minutes a run" not in to_markdown(summarise(PLAN, rows_of(VALUES)))


def test_a_lower_brier_score_is_better():
    summary = summarise(PLAN, rows_of(VALUES, "brier"), measure="brier")
    assert summary.effects[0].runs.verdict == "worse"


def test_the_overlap_of_the_splits_counts_only_when_seeds_split_anew():
    shared = Plan(PLAN.conditions, "none", SEEDS, vary=("init",))
    alone = summarise(shared, rows_of(VALUES), overlap=0.3)
    anew = summarise(PLAN, rows_of(VALUES), overlap=0.3)
    assert alone.overlap == 0
    assert anew.effects[0].runs.p > alone.effects[0].runs.p


def test_an_unfinished_study_says_what_is_missing():
    rows = rows_of(VALUES)
    unfinished = [row for row in rows if (row["condition"], row["seed"]) != ("up", 4)]
    failed = {"condition": "same", "seed": 4, "status": "failed", "error": "ValueError: no luck"}
    unfinished = [row for row in unfinished if (row["condition"], row["seed"]) != ("same", 4)]
    summary = summarise(PLAN, [*unfinished, failed])
    assert [effect.runs.difference.n for effect in summary.effects] == [4, 4]
    text = to_markdown(summary)
    assert "Unfinished: 1 runs have not been done." in text
    assert "Failed: same, seed 4: ValueError: no luck" in text


def test_a_study_without_any_run_has_a_summary():
    summary = summarise(PLAN, [])
    assert summary.missing == 15
    assert summary.cells[0].mean is None
    assert all(effect.runs.verdict == "undefined" for effect in summary.effects)
    assert "| none | 0 |" in to_markdown(summary)


def test_factors_have_mean_effects_and_interactions():
    plan = factorial_plan({"a": {"a0": [], "a1": []}, "b": {"b0": [], "b1": []}}, seeds=SEEDS)
    # a is worth 0.06; b nothing without a, 0.02 with it.
    values = {
        "a0+b0": BASE,
        "a0+b1": BASE + NOISE,
        "a1+b0": BASE + 0.06,
        "a1+b1": BASE + 0.08 + NOISE[::-1],
    }
    effects = {effect.name: effect for effect in summarise(plan, rows_of(values)).effects}
    assert [effect.kind for effect in effects.values()] == ["main", "main", "interaction"]
    a = effects["a: a1 instead of a0"].runs.difference.value
    assert a == pytest.approx(0.07, abs=1e-9)
    b = effects["b: b1 instead of b0"].runs.difference.value
    assert b == pytest.approx(0.01 + NOISE.mean())
    both = effects["a1 x b1"].runs.difference.value
    assert both == pytest.approx(0.02)


def test_the_files_of_a_study(tmp_path):
    plan = Plan(dict.fromkeys(("none", "first3", "middle3", "last3"), ()), "none", SEEDS)
    values = {
        "none": BASE,
        "first3": BASE - 0.1 + NOISE,
        "middle3": BASE + NOISE[::-1],
        "last3": BASE + 0.1 + NOISE,
    }
    out = write_study(tmp_path / "s", plan, rows_of(values))
    summarise_study(out)
    text = (out / "summary.md").read_text()
    assert "| last3 | 5 | +0.101 [" in text
    assert "better |" in text
    assert "s^2 (1/n + 0.11)" in text
    assert "![position.svg](position.svg)" in text
    content = json.loads((out / "summary.json").read_text())
    assert content["overlap"] == pytest.approx(1 / 9)
    assert [effect["runs"]["verdict"] for effect in content["effects"]] == [
        "worse", "not shown", "better"
    ]  # fmt: skip
    first = {path.name: path.read_bytes() for path in out.glob("*.svg")}
    assert set(first) == {"differences.svg", "position.svg"}
    summarise_study(out)
    assert first == {path.name: path.read_bytes() for path in out.glob("*.svg")}


def test_two_conditions_of_a_study_are_compared(tmp_path):
    out = write_study(tmp_path / "s", PLAN, rows_of(VALUES))
    comparison = compare_studies(f"{out}:up", f"{out}:none")
    (runs,) = comparison.runs.values()
    assert runs.difference.value == pytest.approx(0.08 + NOISE.mean())
    assert runs.verdict == "better"
    assert comparison.overlap == pytest.approx(1 / 9)
    assert "paired by seed" in comparison_markdown(comparison)
    json.dumps(comparison.to_json())


def test_two_studies_are_compared_condition_by_condition(tmp_path):
    a = write_study(tmp_path / "a", PLAN, rows_of(VALUES))
    fewer = [row for row in rows_of({**VALUES, "up": BASE}) if row["seed"] != 2]
    b = write_study(tmp_path / "b", PLAN, fewer)
    comparison = compare_studies(str(a), str(b))
    assert list(comparison.runs) == ["none", "up", "same"]
    assert comparison.runs["none"].verdict == "identical"
    assert comparison.runs["up"].difference.n == 4
    assert comparison.unpaired == 3
    assert "3 runs have no partner" in comparison_markdown(comparison)


def test_what_cannot_be_compared_is_refused(tmp_path):
    out = write_study(tmp_path / "s", PLAN, rows_of(VALUES))
    other = [{**row, "split_sha256": "x"} for row in rows_of(VALUES)]
    elsewhere = write_study(tmp_path / "t", PLAN, other)
    with pytest.raises(RunError, match="not train and test on the same patients"):
        compare_studies(f"{out}:up", f"{elsewhere}:none")
    with pytest.raises(RunError, match="no condition 'down'"):
        compare_studies(f"{out}:down", f"{out}:none")
    with pytest.raises(RunError, match="this is no study"):
        compare_studies(str(tmp_path), str(out))
    with pytest.raises(RunError, match="no measure 'dice'"):
        compare_studies(f"{out}:up", f"{out}:none", measure="dice")
    one = write_study(tmp_path / "u", Plan({"x": ()}, "x", (0,)), [])
    with pytest.raises(RunError, match="no condition is in both"):
        compare_studies(str(out), str(one))
    late = [{**row, "seed": row["seed"] + 9} for row in rows_of({"x": BASE})]
    later = write_study(tmp_path / "v", Plan({"x": ()}, "x", (9,)), late)
    with pytest.raises(RunError, match="no seed is in both"):
        compare_studies(f"{out}:up", str(later))


def write_folds(out, values):
    """Finished folds of a cross-validation."""
    for number, value in enumerate(values):
        folder = out / f"fold_{number}"
        folder.mkdir(parents=True)
        measure = {"name": "auroc", "value": value, "label": "", "subset": "all", "split": "test"}
        (folder / "metrics.json").write_text(json.dumps({"measures": [measure]}))
        (folder / "cohort.json").write_text(json.dumps({"split_hash": f"f{number}"}))
    return out


def test_cross_validations_are_paired_by_fold(tmp_path):
    a = write_folds(tmp_path / "a", [0.9, 0.8, 0.85, 0.88])
    b = write_folds(tmp_path / "b", [0.8, 0.71, 0.74, 0.79])
    comparison = compare_studies(str(a), str(b))
    assert comparison.paired_by == "fold"
    assert comparison.overlap == pytest.approx(1 / 3)
    (runs,) = comparison.runs.values()
    assert runs.difference.value == pytest.approx(0.0975)
    seeds = write_study(tmp_path / "s", Plan({"x": ()}, "x", (0,)), rows_of({"x": BASE}))
    with pytest.raises(RunError, match="one has seeds, the other folds"):
        compare_studies(str(a), str(seeds))
