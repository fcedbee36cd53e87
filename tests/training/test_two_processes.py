"""Two processes on a CPU, joined by gloo, train what one process trains with the same batches."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from launched import together
from tiny_study import write_tiny_study

from medtl.data.batches import EpochBatches
from medtl.errors import RunError

SCRIPT = Path(__file__).with_name("two_processes.py")


def started(folder: Path, processes: int) -> list[dict]:
    """Run the script in so many processes; return what each found."""
    folder.mkdir()
    together([sys.executable, str(SCRIPT), str(folder)], processes)
    return [json.loads((folder / f"rank{r}.json").read_text()) for r in range(processes)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return started(folder / "one", 1)[0], started(folder / "two", 2)


@pytest.mark.slow
def test_gradients_are_those_of_one_process(outcomes):
    one, two = outcomes
    assert (one["processes"], two[0]["processes"], two[1]["processes"]) == (1, 2, 2)
    assert max(one["sizes"]) % 2 == 0
    assert min(one["sizes"]) % 2 == 1, "a batch of which one process has a case more"
    for name, gradient in one["gradients"].items():
        for other in two:
            np.testing.assert_allclose(other["gradients"][name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_weights_statistics_and_metrics_are_those_of_one_process(outcomes):
    one, two = outcomes
    assert two[0]["state"] == two[1]["state"]
    for name, values in one["state"].items():
        np.testing.assert_allclose(two[0]["state"][name], values, rtol=1e-4, atol=1e-6)
        if "running" in name or "num_batches" in name:
            assert two[0]["state"][name] == values
    for row, other in zip(one["history"], two[0]["history"], strict=True):
        for key in ("train_loss", "val_loss"):
            assert other[key] == pytest.approx(row[key], rel=1e-5)
        assert other["best"] == row["best"]
    assert [row["train_loss"] for row in two[0]["history"]] == [
        row["train_loss"] for row in two[1]["history"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "parts"),
    [
        ("taught", {"label_loss", "teacher_loss", "teacher_agreement"}),
        ("self_trained", {"label_loss", "unlabelled_loss", "sure_answers"}),
    ],
)
def test_ways_of_learning_are_those_of_one_process(outcomes, run, parts):
    one, two = (found[run] for found in (outcomes[0], outcomes[1][0]))
    assert two["state"] == outcomes[1][1][run]["state"]
    for name, values in one["state"].items():
        np.testing.assert_allclose(two["state"][name], values, rtol=1e-4, atol=1e-6)
    for row, other in zip(one["history"], two["history"], strict=True):
        assert other["parts"] == pytest.approx(row["parts"], rel=1e-5)
        assert set(row["parts"]) == parts


@pytest.mark.slow
@pytest.mark.parametrize("run", ["attacked", "mixmatched"])
def test_ways_of_learning_that_draw_besides_end_in_one_network(outcomes, run):
    """Each process draws for its own part, so one process is met nearly and not to the bit."""
    one, (first, second) = outcomes[0][run], (found[run] for found in outcomes[1])
    assert first["state"] == second["state"]
    losses = [[row["train_loss"] for row in found["history"]] for found in (one, first)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.2)
    assert losses[1] != losses[0]


@pytest.mark.slow
def test_statistics_that_follow_parts_of_batches_are_refused(outcomes):
    one, two = outcomes
    assert one["adapt"] == ""
    assert all("batch norm cannot adapt to batches that several" in o["adapt"] for o in two)


def rows_of(files: dict[str, str]) -> dict[str, list[str]]:
    """The rows of each stored file, in any order: 2 views of 23 images, or 10 of validation."""
    rows = {}
    for name, content in files.items():
        count = 46 if len(content) % 46 == 0 else 10
        size = len(content) // count
        rows[name] = sorted(content[i * size : (i + 1) * size] for i in range(count))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["cached", "cached_own"])
def test_stored_activations_are_those_of_one_process_to_the_bit(outcomes, disk):
    one, two = outcomes
    expected = rows_of(one["cached"]["files"])
    assert {len(rows) for rows in expected.values()} == {46, 10}
    for other in two:
        assert rows_of(other[disk]["files"]) == expected


@pytest.mark.slow
def test_processes_share_the_work_of_the_frozen_layers_where_they_share_a_disk(outcomes):
    one, two = outcomes
    assert one["cached"]["seen"] == 46 + 10
    assert sum(other["cached"]["seen"] for other in two) == 46 + 10
    assert all(other["cached"]["seen"] > 20 for other in two)
    assert [other["cached_own"]["seen"] for other in two] == [46 + 10] * 2


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["cached", "cached_own"])
def test_training_on_stored_activations_is_that_of_one_process(outcomes, disk):
    one, two = outcomes
    assert two[0][disk]["state"] == two[1][disk]["state"]
    for name, values in one["cached"]["state"].items():
        np.testing.assert_allclose(two[0][disk]["state"][name], values, rtol=1e-4, atol=1e-6)
    rows = zip(one["cached"]["history"], two[0][disk]["history"], strict=True)
    for row, other in rows:
        assert other["val_loss"] == pytest.approx(row["val_loss"], rel=1e-5)


@pytest.mark.slow
def test_a_whole_run_in_two_processes_is_one_run(tmp_path):
    recipe = write_tiny_study(tmp_path / "study")
    losses = []
    for processes in (1, 2):
        out = tmp_path / f"run{processes}"
        changes = ["model.dropout=0", "finetune.cached_views=1", "finetune.stages.0.epochs=3"]
        run = [
            str(Path(sys.executable).with_name("medtl")),
            "run",
            str(recipe),
            *changes,
            "--out",
            str(out),
        ]
        together(run, processes)
        assert (out / "report.html").is_file()
        assert "run once for each of 1 views" in (out / "log.txt").read_text()
        with (out / "history.csv").open() as file:
            losses.append([float(row["val_loss"]) for row in csv.DictReader(file)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_of_the_processes_make_the_mean_of_the_batch(processes):
    parts = [
        list(EpochBatches(23, 8, seed=0, rank=r, processes=processes)) for r in range(processes)
    ]
    batches = EpochBatches(23, 8, seed=0, processes=processes)
    for index in range(len(batches)):
        own = [len(part[index]) for part in parts]
        weights = [batches.share(index, size) / processes for size in own]
        assert sum(weights) == pytest.approx(1.0)
        assert weights == pytest.approx([size / sum(own) for size in own])


def test_more_processes_than_images_in_a_batch_are_refused():
    with pytest.raises(
        RunError, match="batches of 7 images for 8 processes; expected at least one"
    ):
        EpochBatches(23, 8, seed=0, processes=8)
