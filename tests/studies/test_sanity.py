"""A recipe is tried before it is trained: what can be learned passes, what cannot fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny_study import RECIPE, write_tiny_study

from medtl.run.check import read_recipe
from medtl.studies.learned.sanity import _against_chance, _simplest, run_sanity


def verdicts(folder):
    found = json.loads((folder / "sanity.json").read_text())
    return {check["name"]: check["passed"] for check in found["checks"]}


@pytest.mark.slow
def test_a_recipe_that_can_be_learned_passes(tmp_path):
    recipe = read_recipe(write_tiny_study(tmp_path / "data", patients=120))
    found = {check.name: check for check in run_sanity(recipe, tmp_path / "out")}
    assert found["prior"].facts["prior"] == pytest.approx(np.log(2), abs=0.02)
    assert found["small"].facts["auroc"] > 0.9
    passed = {"prior": True, "one_batch": True, "shuffled": True, "small": True, "subset": None}
    assert verdicts(tmp_path / "out") == passed


@pytest.mark.slow
def test_images_that_say_nothing_fail(tmp_path):
    """Every image is the same: not one batch can be learned by heart."""
    path = write_tiny_study(tmp_path / "data", patients=120)
    for number, file in enumerate(sorted((tmp_path / "data" / "images").glob("*.png"))):
        pixels = np.full((40, 40), 100, np.uint8)
        pixels[0, 0] = number  # so that no two files are copies
        Image.fromarray(pixels).save(file)
    run_sanity(read_recipe(path), tmp_path / "out")
    found = verdicts(tmp_path / "out")
    assert found["small"] is False
    assert found["one_batch"] is False
    assert found["shuffled"]


@pytest.mark.slow
def test_labels_that_were_dealt_can_be_learned_by_heart_only(tmp_path):
    path = write_tiny_study(tmp_path / "data", patients=120)
    table = tmp_path / "data" / "manifest.csv"
    head, *lines = table.read_text().splitlines()
    rng = np.random.default_rng(1)
    dealt = rng.permutation(120) % 2
    cells = [line.split(",") for line in lines]
    rows = [[*c[:2], str(dealt[n // 2]), *c[3:]] for n, c in enumerate(cells)]
    table.write_text("\n".join([head, *map(",".join, rows)]) + "\n")
    run_sanity(read_recipe(path), tmp_path / "out")
    assert verdicts(tmp_path / "out")["one_batch"]
    assert verdicts(tmp_path / "out")["small"] is False


@pytest.mark.slow
def test_a_quantity_is_tried_by_its_extremes(tmp_path):
    task = "task: {kind: regression, unit: years}\n"
    text = RECIPE.replace("target: bright", "target: age").replace("strata: [site]", "strata: []")
    text = text.replace("operating_point: {sensitivity: 0.8}, prevalence: 0.1", "title: a") + task
    recipe = read_recipe(write_tiny_study(tmp_path / "data", patients=60, recipe=text))
    found = {check.name: check for check in run_sanity(recipe, tmp_path / "out")}
    assert found["prior"].passed
    assert found["subset"].facts["patients"] > 0


class Findings:
    """Truth as a task gives it."""

    larger_is_better = True

    def __init__(self, truth):
        self.truth = np.array(truth, dtype=np.float32)

    def truth_matrix(self, _cases):
        return self.truth


def test_the_simplest_question_of_classes_findings_and_quantities():
    classes = Findings([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(_simplest(classes, [])[:, 0], [np.nan, 1, 1, 0, 0])
    together = Findings([[1, 1], [0, 1], [0, 0]])
    assert _simplest(together, [])[:, 0].tolist() == [1, 1, 0]
    assert _simplest(Findings([[1], [0]]), []) is None
    quantity = Findings([[1], [2], [3]])
    quantity.larger_is_better = False
    np.testing.assert_array_equal(_simplest(quantity, [])[:, 0], [0, np.nan, 1])


def test_chance_is_left_by_what_ranks_and_not_by_noise():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=(80, 1)).astype(np.float32)
    noise = rng.random((80, 1)).astype(np.float32)
    assert _against_chance("small", truth, truth + 0.5 * noise, is_better=True).passed
    assert not _against_chance("shuffled", truth, truth + 0.5 * noise, is_better=False).passed
    assert _against_chance("shuffled", truth, noise, is_better=False).passed
    few = _against_chance("small", truth[:3], noise[:3], is_better=True)
    assert few.passed is None
    one = _against_chance("small", np.ones((5, 1), np.float32), noise[:5], is_better=True)
    assert one.facts["reason"] == "sanity.few"
