"""Search on runs that take no time: selection on validation, one look at the test, many workers."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tiny_study import write_tiny_study

from medtl.errors import RunError
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.storage.yaml import load_yaml
from medtl.studies.search import Search, read_space, run_search, to_markdown
from medtl.studies.single import SharedImages

SPACE = {
    "finetune.weight_decay": [0.0, 0.1],
    "finetune.batch_size": {"low": 4, "high": 12, "step": 4},
}


@dataclass(frozen=True)
class FakeRun:
    """A run whose loss is known: best at decay 0.1 and batch 8."""

    images: SharedImages = field(default_factory=SharedImages)
    own_split: bool = True
    keep_checkpoints: bool = False
    reports: bool = False
    tests: bool = True
    done: list = field(default_factory=list)
    fail: tuple = ()
    stop_at: int | None = None

    def __call__(self, recipe, folder):
        if len(self.done) == self.stop_at:
            raise KeyboardInterrupt
        self.done.append((folder.name, self.tests))
        if folder.name in self.fail:
            raise ValueError("no luck")
        spec = recipe.finetune
        loss = abs(spec.weight_decay - 0.1) + abs(spec.batch_size - 8)
        return {"val_loss": loss, "val_metric": None, **({"auroc": 0.75} if self.tests else {})}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_tiny_study(tmp_path_factory.mktemp("search") / "data")


def test_a_grid_tries_every_combination_and_tests_the_winner_once(recipe, tmp_path):
    run, out = FakeRun(), tmp_path / "s"
    found = run_search(recipe, Search(SPACE, "grid", 50), out, single=run)
    tried = {(t["finetune.weight_decay"], t["finetune.batch_size"]) for t in found.trials}
    assert tried == {(decay, batch) for decay in (0.0, 0.1) for batch in (4, 8, 12)}
    assert len(found.trials) == 6
    assert found.best == {"finetune.weight_decay": 0.1, "finetune.batch_size": 8}
    assert found.value == pytest.approx(0)
    assert [name for name, tests in run.done if tests] == ["selected"]
    assert found.test["auroc"] == 0.75
    assert "On the test cases, once: auroc 0.750" in to_markdown(found)
    assert load_yaml(out / "best_recipe.yaml")["finetune"]["batch_size"] == 8
    assert json.loads((out / "search.json").read_text())["best"] == dict(found.best)
    again = FakeRun()
    assert run_search(recipe, Search(SPACE, "grid", 50), out, single=again, resume=True) == found
    assert again.done == []


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_random_and_bayesian_search_give_the_same_trials_when_stopped(recipe, tmp_path, method):
    space = {"finetune.weight_decay": {"low": 1e-4, "high": 1.0, "log": True}}
    search = Search(space, method, 14)
    whole = run_search(recipe, search, tmp_path / "a", single=FakeRun())
    values = [trial["finetune.weight_decay"] for trial in whole.trials]
    assert len(set(values)) == 14
    assert all(1e-4 <= value <= 1 for value in values)
    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, search, tmp_path / "b", single=FakeRun(stop_at=5))
    run = FakeRun()
    parts = run_search(recipe, search, tmp_path / "b", single=run, resume=True)
    assert run.done[0][0] == "5"  # the trial that was stopped is finished, not lost
    assert parts.trials == whole.trials


def test_a_failed_trial_does_not_end_the_search(recipe, tmp_path):
    found = run_search(
        recipe, Search(SPACE, "grid", 6), tmp_path / "s", single=FakeRun(fail=("2",))
    )
    assert [t["state"] for t in found.trials].count("fail") == 1
    assert "| fail |" in to_markdown(found)
    with pytest.raises(RunError, match="every trial has failed"):
        run_search(recipe, Search(SPACE, "random", 1), tmp_path / "t", single=FakeRun(fail=("0",)))


def test_another_search_is_not_mixed_in(recipe, tmp_path):
    run_search(recipe, Search(SPACE, "random", 1), tmp_path / "s", single=FakeRun())
    with pytest.raises(RunError, match=r"plan has changed since the first run \(trials\)"):
        run_search(
            recipe, Search(SPACE, "random", 2), tmp_path / "s", single=FakeRun(), resume=True
        )


def test_the_test_cases_wait_until_no_trial_is_missing(recipe, tmp_path):
    out = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, Search(SPACE, "random", 2), out, single=FakeRun(stop_at=1))
    run = FakeRun()
    with Run(out / "trials" / "1").locked():
        found = run_search(recipe, Search(SPACE, "random", 2), out, single=run, resume=True)
    assert found.test is None
    assert "have not been looked at" in to_markdown(found)
    assert run.done == []


def _work(recipe: str, out: str) -> None:
    """A worker process."""
    run_search(Path(recipe), Search(SPACE, "random", 8), Path(out), single=FakeRun(), resume=True)


def test_two_workers_share_the_trials(recipe, tmp_path):
    context = multiprocessing.get_context("fork")
    out = tmp_path / "s"
    workers = [context.Process(target=_work, args=(str(recipe), str(out))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    found = run_search(recipe, Search(SPACE, "random", 8), out, single=FakeRun(), resume=True)
    assert [trial["number"] for trial in found.trials] == list(range(8))
    assert {trial["state"] for trial in found.trials} == {"complete"}
    assert found.test is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "nothing to search"),
        ("a: 3", "cannot read what a may be"),
        ("a: []", "cannot read what a may be"),
        ("a: [[1, 2]]", "cannot read what a may be"),
        ("a: {low: 1}", "cannot read what a may be"),
        ("a: {low: 2, high: 1}", "cannot read what a may be"),
        ("a: {low: 1, high: 2, log: true, step: 1}", "cannot read what a may be"),
    ],
)
def test_faults_of_a_space_are_said(tmp_path, text, message):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_space(path)


def test_a_space_is_read(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("a.b: [1, x, null]\nc: {low: 1e-5, high: 1e-3, log: true}\n")
    assert read_space(path) == {
        "a.b": [1, "x", None],
        "c": {"low": 1e-5, "high": 1e-3, "log": True},
    }


def test_a_grid_needs_steps():
    with pytest.raises(RunError, match="a grid needs a list, or a step, for a"):
        Search({"a": {"low": 0.0, "high": 1.0}}, "grid", 3)


def test_losses_of_different_loss_functions_are_not_compared(recipe, tmp_path):
    search = Search({"task.label_smoothing": [0.0, 0.1]}, "grid", 2)
    with pytest.raises(RunError, match="losses of trials cannot be compared"):
        run_search(recipe, search, tmp_path / "s", single=FakeRun())


def test_the_statistic_is_judged_by_when_the_recipe_watches_it(recipe, tmp_path):
    watching = ["finetune.early_stopping.monitor=val_metric"]
    assert read_recipe(recipe, watching).finetune.early_stopping.monitor == "val_metric"

    @dataclass(frozen=True)
    class Metric(FakeRun):
        def __call__(self, recipe, _folder):
            return {"val_loss": 1.0, "val_metric": recipe.finetune.weight_decay, "auroc": 0.5}

    search = Search({"finetune.weight_decay": [0.0, 0.1]}, "grid", 2)
    found = run_search(recipe, search, tmp_path / "s", single=Metric(), overrides=watching)
    assert (found.objective, found.value) == ("val_metric", 0.1)
