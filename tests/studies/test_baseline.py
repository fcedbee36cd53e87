import numpy as np
import pytest

from medtl.errors import RunError
from medtl.studies.baseline import logistic_scores, median_values, ridge_values

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(200, 30))
TRUTH = 100 + FEATURES @ RNG.normal(size=30) * 5 + RNG.normal(size=200)
PATIENTS = [f"p{n // 2}" for n in range(200)]
TRAIN = np.arange(200) < 150


def test_it_finds_a_linear_truth_and_beats_the_median():
    ridge = ridge_values(FEATURES, TRUTH, PATIENTS, train=TRAIN, seed=0)
    median = median_values(FEATURES, TRUTH, PATIENTS, train=TRAIN, seed=0)
    errors = [np.abs(scores - TRUTH)[~TRAIN].mean() for scores in (ridge, median)]
    assert errors[0] < 1.5
    assert errors[1] > 10
    assert (median == np.median(TRUTH[:150])).all()


def test_the_other_rows_are_never_learned_from():
    changed = np.where(TRAIN, TRUTH, -1e6)
    first, second = (
        ridge_values(FEATURES, truth, PATIENTS, train=TRAIN, seed=0) for truth in (TRUTH, changed)
    )
    assert np.array_equal(first, second)


def test_rows_without_a_truth_are_left_out():
    unknown = TRUTH.copy()
    unknown[100:150] = np.nan
    first = ridge_values(FEATURES, unknown, PATIENTS, train=TRAIN, seed=0)
    second = ridge_values(FEATURES, TRUTH, PATIENTS, train=np.arange(200) < 100, seed=0)
    assert np.array_equal(first, second)
    assert median_values(FEATURES, unknown, PATIENTS, train=TRAIN, seed=0)[0] == np.median(
        TRUTH[:100]
    )


def test_noise_is_shrunk_to_the_mean():
    noise = RNG.normal(size=200)
    scores = ridge_values(FEATURES, noise, PATIENTS, train=TRAIN, seed=0)
    assert scores.std() < 0.1


def test_too_few_patients():
    with pytest.raises(RunError, match="are of 1 patients; expected 4 or more"):
        ridge_values(FEATURES, TRUTH, ["p"] * 200, train=TRAIN, seed=0)
    with pytest.raises(RunError, match="no training row"):
        median_values(FEATURES, np.full(200, np.nan), PATIENTS, train=TRAIN, seed=0)


@pytest.mark.parametrize(("number", "positive"), [(40, 20), (40, 3), (40, 1), (6, 2), (2, 1)])
def test_few_cases_and_columns_without_a_difference_are_learned_from_without_a_warning(
    number, positive
):
    rng = np.random.default_rng(1)
    truth = np.zeros(number, np.float32)
    truth[:positive] = 1
    features = rng.normal(size=(number, 6)).astype(np.float32)
    features[:, 0], features[:, 1], features[:, 2] = 7, 1e6, 1e-12
    features[:, 3] += 4 * truth
    patients = [f"p{n}" for n in range(number)]
    train = np.ones(number, bool)
    scores = logistic_scores(features, truth, patients, train=train, seed=0)
    assert np.isfinite(scores).all()
    assert scores[truth == 1].mean() > scores[truth == 0].mean()


def test_one_class_cannot_be_learned():
    with pytest.raises(RunError, match="hold one class only"):
        logistic_scores(FEATURES, np.ones(200), PATIENTS, train=TRAIN, seed=0)
