"""Two models on the same cases, and several tests at once."""

import numpy as np
import pandas as pd
import pytest

from medtl.errors import PredictionsError
from medtl.evaluation.model_comparison import compare_models
from medtl.metrics import comparison


def scored(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    base = rng.normal(size=n) + truth
    return truth, base + 0.3 * rng.normal(size=n), base + rng.normal(size=n)


def test_the_sign_is_first_minus_second() -> None:
    truth, a, b = scored()
    forth, back = comparison.paired_auroc(truth, a, b), comparison.paired_auroc(truth, b, a)
    assert forth.difference.value == pytest.approx(-back.difference.value)  # type: ignore[operator]
    assert forth.statistic == pytest.approx(-back.statistic)  # type: ignore[operator]
    assert forth.p == pytest.approx(back.p)
    assert forth.statistic > 0  # type: ignore[operator]


def test_pairing_is_stronger_than_two_intervals() -> None:
    from medtl.metrics.ranking import auroc

    truth, a, b = scored()
    test = comparison.paired_auroc(truth, a, b)
    width = test.difference.high - test.difference.low  # type: ignore[operator]
    singles = [auroc(truth, score) for score in (a, b)]
    apart = np.hypot(*[(m.high - m.low) for m in singles])  # type: ignore[operator]
    assert width < apart


def test_the_same_model_twice_has_p_1() -> None:
    truth, a, _ = scored()
    test = comparison.paired_auroc(truth, a, 2 * a)
    assert (test.difference.value, test.p, test.difference.status) == (0.0, 1.0, "degenerate")


def test_false_alarms_of_the_paired_test_are_5_percent() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        truth = np.repeat([0, 1], 40)
        base = rng.normal(size=80) + truth
        a, b = (base + rng.normal(size=80) for _ in "ab")
        p = comparison.paired_auroc(truth, a, b).p
        hits += p is not None and p < 0.05
    assert 0.02 < hits / 400 < 0.09


def test_one_class_cannot_be_compared() -> None:
    test = comparison.paired_auroc([0, 0], [0.1, 0.2], [0.2, 0.1])
    assert (test.difference.status, test.p) == ("undefined", None)
    test = comparison.paired_auroc([1, 0, 0], [0.1, 0.2, 0.0], [0.2, 0.1, 0.3])
    assert (test.difference.status, test.p) == ("degenerate", None)


def test_patients_widen_the_difference() -> None:
    truth, a, b = (np.tile(x, 3) for x in scored(60))
    alone = comparison.paired_auroc(truth, a, b)
    together = comparison.paired_auroc(truth, a, b, patients=np.tile(np.arange(60), 3))
    assert together.difference.value == alone.difference.value
    assert together.p > alone.p  # type: ignore[operator]
    assert "patients" in together.method


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 2 / 32), (1, 5, 2 * 7 / 64)],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    first = np.array([True] * only_first + [False] * only_second + [True, False])
    second = np.array([False] * only_first + [True] * only_second + [True, False])
    assert comparison.mcnemar(first, second) == comparison.McNemar(
        only_first, only_second, pytest.approx(p)
    )


def test_fisher_equals_scipy() -> None:
    from scipy.stats import fisher_exact

    for a, n, b, m in [(3, 10, 7, 12), (0, 5, 0, 9), (5, 5, 0, 4), (30, 66, 17, 55), (8, 8, 9, 9)]:
        expected = fisher_exact([[a, n - a], [b, m - b]])[1]
        assert comparison.fisher_exact((a, n), (b, m)) == pytest.approx(expected, abs=1e-10)


def test_paired_t_equals_scipy() -> None:
    from scipy.stats import ttest_rel

    first, second = [0.81, 0.84, 0.80, 0.86], [0.79, 0.80, 0.81, 0.82]
    test, expected = comparison.paired_t(first, second), ttest_rel(first, second)
    assert (test.statistic, test.p) == pytest.approx((expected.statistic, expected.pvalue))
    interval = expected.confidence_interval()
    assert (test.difference.low, test.difference.high) == pytest.approx(tuple(interval))


def test_pairs_that_do_not_allow_a_test() -> None:
    assert comparison.paired_t([1.0], [0.5]).difference.status == "undefined"
    assert comparison.paired_t([1.0, 2.0], [0.5, 1.5]).difference.status == "degenerate"
    assert comparison.wilcoxon([], []).difference.status == "undefined"
    assert comparison.wilcoxon([1.0] * 8, [1.0] * 8).p == 1.0
    assert comparison.wilcoxon([1.0, 2.0], [0.0, 0.0]).p is None


def test_wilcoxon_estimates_the_shift() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=60)
    test = comparison.wilcoxon(first, first - 0.5 + 0.2 * rng.normal(size=60))
    assert test.difference.value == pytest.approx(0.5, abs=0.1)
    assert test.difference.low > 0  # type: ignore[operator]
    assert test.p < 1e-6  # type: ignore[operator]


def test_holm_and_benjamini_hochberg_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert comparison.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert comparison.holm([]) == []
    assert comparison.benjamini_hochberg([0.9, 0.8]) == pytest.approx([0.9, 0.9])


def test_minimum_detectable_difference_is_2_8_errors() -> None:
    assert comparison.minimum_detectable_difference(1.0) == pytest.approx(1.959964 + 0.841621)


def long_table() -> pd.DataFrame:
    truth, a, b = scored(80)
    parts = []
    for model, score in (("a", a), ("b", b), ("c", a + b)):
        parts.append(pd.DataFrame({
            "case_id": [f"c{i}" for i in range(80)], "patient_id": [f"p{i}" for i in range(80)],
            "split": "test", "label": "x", "model": model, "y_true": truth.astype(float),
            "y_score": score,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_every_pair_of_models_is_compared_on_common_cases() -> None:
    table = long_table().drop(index=[0, 1, 165])  # two of a, one of c
    table.loc[90, "y_score"] = np.nan
    found = compare_models(table)
    assert [(item.first, item.second) for item in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found[0].test.difference.n == 77
    assert found[0].dropped == 78 + 80 - 2 * 77
    assert all(item.p_holm >= item.test.p for item in found)  # type: ignore[operator]


def test_the_order_of_the_rows_does_not_pair_the_wrong_cases() -> None:
    table = long_table()
    shuffled = table.sample(frac=1, random_state=0)
    for one, other in zip(compare_models(table), compare_models(shuffled), strict=True):
        assert one.test.difference.value == pytest.approx(other.test.difference.value)


def test_models_that_cannot_be_compared_are_refused() -> None:
    table = long_table()
    with pytest.raises(PredictionsError, match="no column model"):
        compare_models(table.drop(columns="model"))
    with pytest.raises(PredictionsError, match="one model, a"):
        compare_models(table[table["model"] == "a"])
    with pytest.raises(PredictionsError, match="several rows for one case"):
        compare_models(pd.concat([table, table.head(1)]))
    other = table.copy()
    other.loc[0, "y_true"] = 1 - other.loc[0, "y_true"]
    with pytest.raises(PredictionsError, match="disagree about the truth"):
        compare_models(other)
