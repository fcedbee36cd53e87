"""The engine on runs that take no time: order, pairing, resuming, failing, several workers."""

from __future__ import annotations

import csv
import json
import multiprocessing
import time
from mmap import mmap
from pathlib import Path

import pytest
from tiny_study import RECIPE

from medtl.errors import RunError
from medtl.recipe.schema import parse_recipe
from medtl.run.folder import Run
from medtl.storage.yaml import loads
from medtl.studies import single
from medtl.studies.conditions import Plan
from medtl.studies.engine import run_folder, run_plan
from medtl.studies.rows import add_row, finished, measures_row, read_rows, values_of

PLAN = Plan({"none": (), "more": ("x=1",)}, "none", (0, 1, 2))
TINY = parse_recipe(loads(RECIPE, "tiny"))


class Runs:
    """Remembers what was run; `stop_at` and `fail` say where it is interrupted or fails."""

    def __init__(self, *, stop_at=None, fail=()):
        self.done, self.stop_at, self.fail = [], stop_at, fail

    def __call__(self, recipe, folder):
        pair = (folder.parent.name, int(folder.name.removeprefix("seed-")))
        assert recipe.seed_of("init") == recipe.seed_of("split") == pair[1]
        if len(self.done) == self.stop_at:
            raise KeyboardInterrupt
        if pair in self.fail or pair[0] in self.fail:
            raise ValueError("no luck")
        self.done.append(pair)
        return {"auroc": 0.5 + 0.125 * pair[1]}


def study(out, runs, *, plan=PLAN, resume=False, on_row=lambda _: None):
    return run_plan(plan, lambda _: TINY, out, run_one=runs, resume=resume, on_row=on_row)


def test_all_conditions_of_a_seed_come_before_the_next_seed(tmp_path):
    runs, told = Runs(), []
    rows = study(tmp_path / "s", runs, on_row=told.append)
    assert runs.done == list(PLAN.pairs)
    assert told == rows
    assert [(row["condition"], row["seed"], row["status"]) for row in rows] == [
        (name, seed, "done") for seed in (0, 1, 2) for name in ("none", "more")
    ]
    with (tmp_path / "s" / "rows.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["auroc"] for row in table] == ["0.5", "0.5", "0.625", "0.625", "0.75", "0.75"]


def test_the_plan_is_there_before_the_first_run(tmp_path):
    def look(recipe, folder):
        plan = json.loads((tmp_path / "s" / "plan.json").read_text())
        assert plan["seeds"] == [0, 1, 2]
        return {}

    study(tmp_path / "s", look)


@pytest.mark.parametrize("stop_at", [0, 1, 3, 5])
def test_a_stopped_study_goes_on_where_it_was(tmp_path, stop_at):
    first = Runs(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "s", first)
    assert len(read_rows(tmp_path / "s")) == stop_at
    second = Runs()
    rows = study(tmp_path / "s", second, resume=True)
    assert first.done + second.done == list(PLAN.pairs)
    assert len(finished(rows)) == 6
    third = Runs()
    study(tmp_path / "s", third, resume=True)
    assert third.done == []


def test_rows_are_enough_to_go_on(tmp_path):
    """The run folders are not in git; the plan and the rows are."""
    study(tmp_path / "s", Runs())
    (tmp_path / "t").mkdir()
    for name in ("plan.json", "rows.json"):
        (tmp_path / "t" / name).write_bytes((tmp_path / "s" / name).read_bytes())
    runs = Runs()
    study(tmp_path / "t", runs, resume=True)
    assert runs.done == []


def test_an_existing_folder_needs_resume_and_the_same_plan(tmp_path):
    study(tmp_path / "s", Runs())
    with pytest.raises(RunError, match="not empty"):
        study(tmp_path / "s", Runs())
    other = Plan({**PLAN.conditions, "third": ()}, "none", (0, 1, 2))
    with pytest.raises(RunError, match="plan has changed"):
        study(tmp_path / "s", Runs(), plan=other, resume=True)
    assert len(read_rows(tmp_path / "s")) == 6


def test_a_failed_run_is_recorded_and_the_others_go_on(tmp_path):
    runs = Runs(fail={("more", 1)})
    rows = study(tmp_path / "s", runs)
    assert len(finished(rows)) == 5
    assert [row["error"] for row in rows if row["status"] == "failed"] == ["ValueError: no luck"]
    again = Runs()
    rows = study(tmp_path / "s", again, resume=True)
    assert again.done == [("more", 1)]
    assert len(finished(rows)) == len(rows) == 6


def test_a_condition_that_always_fails_does_not_stop_the_study(tmp_path):
    rows = study(tmp_path / "s", Runs(fail={"more"}))
    assert len(finished(rows)) == 3


def test_a_study_in_which_everything_fails_stops(tmp_path):
    runs = Runs(fail={"none", "more"})
    with pytest.raises(RunError, match="every run has failed; the last one: ValueError: no luck"):
        study(tmp_path / "s", runs)
    assert len(read_rows(tmp_path / "s")) == 2


def test_a_run_that_another_worker_holds_is_left_to_it(tmp_path):
    out = tmp_path / "s"
    folder = run_folder(out, "none", 1)
    folder.mkdir(parents=True)
    runs = Runs()
    with Run(folder).locked():
        study(out, runs, resume=True)
    assert ("none", 1) not in runs.done
    assert len(runs.done) == 5
    study(out, runs, resume=True)
    assert len(runs.done) == 6


def test_a_run_that_another_worker_has_failed_meanwhile_is_left_alone(tmp_path):
    out = tmp_path / "s"

    def meanwhile(row):
        if row["condition"] == "none" and row["seed"] == 0:
            add_row(out, {"condition": "more", "seed": 0, "status": "failed", "error": "x"})

    runs = Runs()
    study(out, runs, on_row=meanwhile)
    assert ("more", 0) not in runs.done
    assert len(runs.done) == 5


def _work(out: str, seconds: float) -> None:
    """A worker process: runs that take a moment and leave who did them."""

    def slow(recipe, folder):
        time.sleep(seconds)
        with (folder / "done").open("a") as file:
            file.write("x")
        return {"auroc": 0.5}

    run_plan(PLAN, lambda _: TINY, Path(out), run_one=slow, resume=True)


def test_two_workers_share_a_study(tmp_path):
    context = multiprocessing.get_context("fork")
    out = tmp_path / "s"
    workers = [context.Process(target=_work, args=(str(out), 0.1)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(finished(read_rows(out))) == 6
    assert all((run_folder(out, *pair) / "done").read_text() == "x" for pair in PLAN.pairs)


def test_a_killed_worker_leaves_its_run_to_the_others(tmp_path):
    context = multiprocessing.get_context("fork")
    out = tmp_path / "s"
    worker = context.Process(target=_work, args=(str(out), 30))
    worker.start()
    while not run_folder(out, "none", 0).is_dir():
        time.sleep(0.02)
    worker.kill()
    worker.join()
    runs = Runs()
    study(out, runs, resume=True)
    assert runs.done == list(PLAN.pairs)


def measure(name, value, *, label="", subset="all", split="test"):
    return {"name": name, "value": value, "label": label, "subset": subset, "split": split}


def test_a_row_holds_the_test_measures():
    measures = [
        measure("auroc", 0.9),
        measure("auroc", 0.1, split="val"),
        measure("auroc", 0.8, subset="site=north"),
        measure("auroc", None, subset="site=south"),
        measure("brier", 0.2),
        measure("brier", 0.3, subset="site=north"),
        measure("ece", 0.3),
    ]
    assert measures_row({"measures": measures}) == {
        "auroc": 0.9,
        "auroc@site=north": 0.8,
        "brier": 0.2,
    }
    several = [measure("auroc", v, label=k) for k, v in (("a", 0.7), ("b", 0.9), ("macro", 0.8))]
    assert measures_row({"measures": several}) == {"auroc[a]": 0.7, "auroc[b]": 0.9, "auroc": 0.8}


def test_a_measure_that_the_rows_do_not_have_is_an_error(tmp_path):
    rows = study(tmp_path / "s", Runs())
    assert values_of(rows, "none", "auroc") == {0: 0.5, 1: 0.625, 2: 0.75}
    with pytest.raises(RunError, match="no measure 'dice'"):
        values_of(rows, "none", "dice")


def test_the_peak_of_memory_begins_anew_with_every_run(monkeypatch, tmp_path):
    if not single.PEAK_RESET.exists():
        pytest.skip("this system keeps one peak for the life of a process")
    monkeypatch.setattr(single.torch.cuda, "is_available", lambda: False)
    block = mmap(-1, 200 * 2**20)  # what malloc holds may stay with the process
    for page in range(0, len(block), 4096):
        block[page] = 1
    single.forget_peak()
    with_it = single.peak_gb()
    assert with_it > 0.2
    block.close()
    single.forget_peak()
    assert single.peak_gb() < with_it - 0.15
    monkeypatch.setattr(single, "PEAK", tmp_path / "none")
    assert single.peak_gb() is None
