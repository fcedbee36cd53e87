import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics.paired_runs import ONE_CLASS_FOLD, mean_of_folds_auroc

TRUTH = [0, 0, 1, 1, 0, 1]
FOLD = [0, 0, 0, 1, 1, 1]


def test_by_hand():
    # fold 0: pairs (0.1, 0.3), (0.2, 0.3) both right: 1; fold 1: (0.5, 0.6) right, (0.5, 0.4) wrong
    first = [0.1, 0.2, 0.3, 0.6, 0.5, 0.4]
    second = [0.3, 0.2, 0.25, 0.9, 0.1, 0.8]  # fold 0: 0.5; fold 1: 1
    one, two, difference = mean_of_folds_auroc(TRUTH, [first, second], FOLD)
    assert (one.value, two.value, difference.value) == (0.75, 0.75, 0.0)


def test_scores_of_folds_are_never_ranked_together():
    rng = np.random.default_rng(0)
    truth, fold = rng.random(200) < 0.5, np.arange(200) % 4
    score = truth + rng.normal(size=200)
    shifted = score + 100.0 * fold
    plain, moved = (mean_of_folds_auroc(truth, [s], fold)[0] for s in (score, shifted))
    assert plain.value == pytest.approx(moved.value)
    assert plain.low == pytest.approx(moved.low)


def test_the_paired_interval_is_narrower_than_the_unpaired_ones_suggest():
    rng = np.random.default_rng(1)
    truth, fold = rng.random(400) < 0.5, np.arange(400) % 4
    first = truth + rng.normal(size=400)
    second = first + 0.1 * rng.normal(size=400)
    one, _, difference = mean_of_folds_auroc(truth, [first, second], fold)
    assert difference.high - difference.low < 0.5 * (one.high - one.low)


def test_the_same_model_twice_differs_by_nothing_and_that_is_flagged():
    rng = np.random.default_rng(2)
    truth, fold = rng.random(100) < 0.5, np.arange(100) % 2
    score = truth + rng.normal(size=100)
    difference = mean_of_folds_auroc(truth, [score, score], fold)[2]
    assert difference.value == 0
    assert difference.status == "degenerate"


def test_patients_are_drawn_whole():
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(60), 5)
    truth = patient % 2 == 0
    score = truth + np.repeat(rng.normal(size=60), 5)
    fold = patient % 3
    alone = mean_of_folds_auroc(truth, [score], fold)[0]
    grouped = mean_of_folds_auroc(truth, [score], fold, patients=patient)[0]
    assert grouped.n_patients == 60
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_lengths_must_agree():
    with pytest.raises(PredictionsError, match="6 references and 2 predictions or folds"):
        mean_of_folds_auroc(TRUTH, [[0.1, 0.2]], FOLD)


def test_a_fold_of_one_class_is_undefined():
    results = mean_of_folds_auroc([0, 0, 1, 1], [[0.1, 0.2, 0.3, 0.4]], [0, 0, 1, 1])
    assert [(m.value, m.status, m.reason) for m in results] == [(None, "undefined", ONE_CLASS_FOLD)]
