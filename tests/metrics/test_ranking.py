"""AUROC, DeLong and the counts under them."""

import math

import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.evaluation.arrays import evaluate_arrays
from medtl.metrics import ranking
from medtl.metrics.intervals import logit_wald, newcombe_auc, t_quantile
from medtl.metrics.scores import CI
from medtl.types import FloatArray, IntArray

TRUTH = np.array([1, 0, 1, 0, 0, 1])
SCORE = np.array([0.9, 0.8, 0.7, 0.7, 0.2, 0.1])


def pairs_won(truth: IntArray, score: FloatArray) -> float:
    """AUC by its definition, pair by pair."""
    won = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in score[truth == 1]
        for b in score[truth == 0]
    ]
    return sum(won) / len(won)


def brute_delong(truth: IntArray, a: FloatArray, b: FloatArray) -> float:
    """Covariance of two AUCs from the m x n kernel, DeLong 1988 as printed."""
    kernels = []
    for score in (a, b):
        positive, negative = score[truth == 1][:, None], score[truth == 0][None]
        kernels.append((positive > negative) + 0.5 * (positive == negative))
    rows = np.cov([kernel.mean(axis=1) for kernel in kernels])
    columns = np.cov([kernel.mean(axis=0) for kernel in kernels])
    return rows[0, 1] / kernels[0].shape[0] + columns[0, 1] / kernels[0].shape[1]


def noisy(n: int, seed: int = 0, decimals: int = 8) -> tuple[IntArray, FloatArray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    return truth, (rng.normal(size=n) + truth).round(decimals)


def test_counts_at_thresholds_by_hand() -> None:
    found = ranking.rank(TRUTH, SCORE)
    assert found.thresholds.tolist() == [0.9, 0.8, 0.7, 0.2, 0.1]
    assert found.tp.tolist() == [1, 1, 2, 2, 3]
    assert found.fp.tolist() == [0, 1, 2, 3, 3]


def test_auc_by_hand() -> None:
    # Positive 0.9 beats 3, 0.7 beats 0.2 and ties 0.7, 0.1 beats none: 4.5 of 9.
    assert ranking.auroc(TRUTH, SCORE).value == 0.5


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_auc_equals_its_definition_with_ties(decimals: int) -> None:
    truth, score = noisy(60, decimals=decimals)
    assert ranking.auroc(truth, score).value == pytest.approx(pairs_won(truth, score), abs=1e-12)
    found = ranking.rank(truth, score)
    area = ranking.area_under_roc(found.tp, found.fp)
    assert float(area) == pytest.approx(pairs_won(truth, score), abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 8])
def test_delong_covariance_equals_the_printed_formula(decimals: int) -> None:
    truth, a = noisy(50, decimals=decimals)
    b = (a + np.random.default_rng(1).normal(size=50)).round(decimals)
    _, covariance = ranking.auc_covariance(truth, np.stack([a, b]))
    assert covariance[0, 0] == pytest.approx(brute_delong(truth, a, a), abs=1e-14)
    assert covariance[0, 1] == pytest.approx(brute_delong(truth, a, b), abs=1e-14)


def test_auc_of_a_reversed_score_is_not_flipped() -> None:
    truth, score = noisy(80)
    area = ranking.auroc(truth, score).value
    assert area is not None
    assert area > 0.5
    assert ranking.auroc(truth, -score).value == pytest.approx(1 - area)


def test_one_class_is_undefined_with_its_reason() -> None:
    measure = ranking.auroc([0, 0, 0], [0.1, 0.2, 0.3])
    assert (measure.value, measure.low, measure.status) == (None, None, "undefined")
    assert "one class" in measure.reason


def test_no_rows_is_undefined() -> None:
    assert ranking.auroc([], []).status == "undefined"


def test_perfect_separation_is_degenerate_not_certain() -> None:
    measure = ranking.auroc([0] * 30 + [1] * 20, np.arange(50))
    assert (measure.value, measure.high, measure.status) == (1.0, 1.0, "degenerate")
    assert measure.low == pytest.approx(0.9159389, abs=1e-6)  # Newcombe 2006, method 5
    assert measure.method.startswith("Newcombe")


def test_constant_score_is_degenerate_around_a_half() -> None:
    measure = ranking.auroc([0] * 30 + [1] * 20, np.full(50, 0.5))
    assert (measure.value, measure.status) == (0.5, "degenerate")
    assert measure.low is not None
    assert measure.low < 0.4


def test_one_positive_has_a_value_without_an_interval() -> None:
    measure = ranking.auroc([1, 0, 0, 0], [0.5, 0.6, 0.1, 0.2])
    assert measure.value == pytest.approx(2 / 3)
    assert (measure.low, measure.status) == (None, "degenerate")


def test_duplicated_rows_of_a_patient_do_not_narrow_the_interval() -> None:
    truth, score = noisy(80)
    once = ranking.auroc(truth, score)
    patients = np.tile(np.arange(80), 3)
    thrice = ranking.auroc(np.tile(truth, 3), np.tile(score, 3), patients=patients)
    assert thrice.value == pytest.approx(once.value)
    variance = float(ranking.auc_covariance(truth, score)[1][0, 0])
    smaller = min(int(truth.sum()), int((1 - truth).sum()))
    bounds = logit_wald(once.value or 0, math.sqrt(variance), t_quantile(smaller - 1, 0.95))
    assert (thrice.low, thrice.high) == pytest.approx(bounds, abs=1e-12)
    assert thrice.n_patients == 80
    naive = ranking.auroc(np.tile(truth, 3), np.tile(score, 3))
    assert naive.low is not None
    assert once.low is not None
    assert naive.low > once.low + 0.02  # the control: without patients it is too narrow


def test_clustered_variance_agrees_with_the_bootstrap() -> None:
    from medtl.metrics.resampling import bootstrap

    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(100), 3)
    effect = rng.normal(size=100)[patients]
    truth = (rng.random(300) < 0.4).astype(int)
    score = truth + effect + rng.normal(size=300)
    _, covariance = ranking.auc_covariance(truth, score, patients)
    found = ranking.rank(truth, score)
    draws = bootstrap(
        lambda w: ranking.area_under_roc(*ranking.weighted_counts(found, w)),
        patients[found.order],
    )
    assert np.sqrt(covariance[0, 0]) == pytest.approx(draws.std(), rel=0.08)


def test_influence_squares_sum_to_the_variance() -> None:
    truth, score = noisy(400)
    influence = ranking.auc_influence(truth, score)
    _, covariance = ranking.auc_covariance(truth, score)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    assert float(influence @ influence) == pytest.approx(covariance[0, 0], rel=0.01)


def test_average_precision_by_hand() -> None:
    # Recall steps of 1/3 at precision 1, 2/4 and 3/6.
    found = ranking.rank(TRUTH, SCORE)
    assert float(ranking.step_precision(found.tp, found.fp)) == pytest.approx(2 / 3)


def test_average_precision_equals_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score

    truth, score = noisy(200, decimals=1)
    found = ranking.rank(truth, score)
    ours = float(ranking.step_precision(found.tp, found.fp))
    assert ours == pytest.approx(average_precision_score(truth, score), abs=1e-12)


def test_partial_area_equals_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    from medtl.metrics.discrimination import partial_auc

    truth, score = noisy(200, decimals=1)
    measure = partial_auc(truth, score, specificity=0.8, ci=CI(resamples=10))
    assert measure.value == pytest.approx(roc_auc_score(truth, score, max_fpr=0.2), abs=1e-12)
    whole = partial_auc(truth, score, specificity=0.0, standardised=False, ci=CI(resamples=10))
    assert whole.value == pytest.approx(roc_auc_score(truth, score), abs=1e-12)


def test_coarse_ranking_keeps_exact_counts() -> None:
    truth, score = noisy(5000)
    exact, coarse = ranking.rank(truth, score), ranking.coarsen(ranking.rank(truth, score), 100)
    assert coarse.thresholds.size <= 100
    kept = np.isin(exact.thresholds, coarse.thresholds)
    assert exact.tp[kept].tolist() == coarse.tp.tolist()
    assert coarse.tp[-1] == exact.tp[-1]
    assert coarse.fp[-1] == exact.fp[-1]


def test_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(PredictionsError, match="1 of 3 values of y_score are not finite"):
        ranking.auroc([0, 1, 1], [0.1, np.nan, 0.2])


def test_truth_other_than_0_and_1_is_refused() -> None:
    with pytest.raises(PredictionsError, match="y_true holds -1"):
        ranking.auroc([0, 1, -1], [0.1, 0.3, 0.2])


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(PredictionsError, match="2 truths and 3 scores"):
        ranking.auroc([0, 1], [0.1, 0.3, 0.2])


def test_a_matrix_of_scores_is_refused() -> None:
    with pytest.raises(PredictionsError, match="shape"):
        ranking.auroc([0, 1], np.zeros((2, 2)))


def test_patient_ids_of_another_length_are_refused() -> None:
    with pytest.raises(PredictionsError, match="1 patient ids for 2 rows"):
        ranking.auroc([0, 1], [0.1, 0.2], patients=["a"])


@pytest.mark.parametrize(("positives", "hull"), [(29, True), (30, False)])
def test_a_small_class_has_the_hull_of_two_intervals(positives: int, hull: bool) -> None:
    rng = np.random.default_rng(4)
    truth = np.repeat([1, 0], [positives, 200])
    score = rng.normal(size=truth.size) + truth
    found = ranking.auroc(truth, score)
    variance = float(ranking.auc_covariance(truth, score)[1][0, 0])
    one = logit_wald(found.value or 0, math.sqrt(variance), 1.959963984540054)
    two = newcombe_auc(found.value or 0, positives, 200)
    expected = (min(one[0], two[0]), max(one[1], two[1])) if hull else one
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)
    assert ("hull" in found.method) == hull


@pytest.mark.parametrize("words", [["no", "yes", "no"], [0, None, "yes"]])
def test_words_in_place_of_truths_are_named(words: list[object]) -> None:
    said = f"y_true cannot be read as numbers; its first value is {words[0]!r}"
    for judge in (ranking.auroc, evaluate_arrays):
        with pytest.raises(PredictionsError, match=said):
            judge(words, [0.1, 0.9, 0.3])
    assert ranking.auroc(np.array(["no", "yes", "no"]) == "yes", [0.1, 0.9, 0.3]).value == 1
