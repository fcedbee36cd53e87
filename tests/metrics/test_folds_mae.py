import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics.paired_runs import mean_of_folds_mae
from medtl.metrics.scores import CI

TRUTH, FOLD = [10, 20, 30, 40], [0, 0, 0, 1]


def test_by_hand():
    # Fold 0: errors 1, 2, 3; fold 1: error 10. Folds count the same, rows do not.
    model, median = [11, 18, 33, 50], [20, 20, 20, 20]
    one, two, difference = mean_of_folds_mae(TRUTH, [model, median], FOLD)
    assert one.name == two.name == "mae_months_mean_of_folds"
    assert one.value == pytest.approx((2 + 10) / 2)
    assert two.value == pytest.approx((20 / 3 + 20) / 2)
    assert difference.name == "mae_months_difference"
    assert difference.value == pytest.approx(one.value - two.value)
    assert (one.n, one.n_patients) == (4, 4)


def test_the_first_is_compared_with_every_other():
    rng = np.random.default_rng(0)
    truth, fold = rng.normal(100, 40, 60), np.arange(60) % 3
    models = [truth + rng.normal(0, sd, 60) for sd in (5, 10, 20)]
    measures = mean_of_folds_mae(truth, models, fold)
    values = [m.value for m in measures]
    assert [m.name for m in measures[3:]] == ["mae_months_difference"] * 2
    assert values[3:] == pytest.approx([values[0] - values[1], values[0] - values[2]])
    assert measures[4].high < 0


def test_the_paired_interval_is_narrower_than_the_unpaired_ones_suggest():
    rng = np.random.default_rng(1)
    truth, fold = rng.normal(100, 40, 400), np.arange(400) % 4
    first = truth + rng.normal(0, 20, 400)
    one, _, difference = mean_of_folds_mae(truth, [first, first + rng.normal(0, 2, 400)], fold)
    assert difference.high - difference.low < 0.5 * (one.high - one.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    expected, covered = 10 * np.sqrt(2 / np.pi), 0
    for k in range(100):
        error, fold = rng.normal(0, 10, 200), np.arange(200) % 5
        measure = mean_of_folds_mae(np.zeros(200), [error], fold, ci=CI(resamples=300, seed=k))[0]
        covered += measure.low <= expected <= measure.high
    assert 87 <= covered <= 100


def test_patients_are_drawn_whole():
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(40), 5)
    truth, fold = np.zeros(200), patient % 2
    prediction = np.repeat(rng.normal(0, 10, 40), 5)
    alone = mean_of_folds_mae(truth, [prediction], fold)[0]
    grouped = mean_of_folds_mae(truth, [prediction], fold, patients=patient)[0]
    assert grouped.n_patients == 40
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_no_rows_is_undefined():
    measures = mean_of_folds_mae([], [[], []], [])
    assert [(m.value, m.status, m.reason) for m in measures] == [
        (None, "undefined", "there are no rows")
    ] * 3


def test_lengths_must_agree():
    with pytest.raises(PredictionsError, match=r"4 references and 3 predictions or folds"):
        mean_of_folds_mae(TRUTH, [[1, 2, 3]], FOLD)
    with pytest.raises(PredictionsError, match="1 of 4 values of y_score are not finite"):
        mean_of_folds_mae(TRUTH, [[1, 2, 3, np.nan]], FOLD)
