"""The two-by-two table and its measures."""

import math
from dataclasses import replace

import numpy as np
import pytest

from medtl.metrics import confusion
from medtl.metrics.confusion import Counts
from medtl.metrics.intervals import linearised_error, proportion, proportion_of_rows, wilson
from medtl.metrics.scores import CI

TABLE = Counts(tp=45, fp=10, fn=5, tn=140)


def rows(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    cells = [counts.tp, counts.fp, counts.fn, counts.tn]
    return np.repeat([1, 0, 1, 0], cells), np.repeat([1.0, 1.0, 0.0, 0.0], cells)


def shares(counts: Counts, **options: object) -> dict[str, object]:
    found = confusion.share_measures(*rows(counts), 0.5, **options)  # type: ignore[arg-type]
    return {measure.name: measure for measure in found}


def test_a_score_at_the_threshold_is_positive() -> None:
    assert confusion.count([1, 0], [0.5, 0.5], 0.5) == Counts(1, 1, 0, 0)
    assert confusion.count([1, 0], [0.5, 0.5], math.inf) == Counts(0, 0, 1, 1)


def test_tables_add() -> None:
    assert Counts(1, 2, 3, 4) + Counts(1, 1, 1, 1) == Counts(2, 3, 4, 5)


def test_shares_by_hand() -> None:
    found = {name: measure.value for name, measure in shares(TABLE).items()}  # type: ignore[attr-defined]
    assert found == {
        "sensitivity": 0.9, "specificity": 140 / 150, "ppv": 45 / 55, "npv": 140 / 145,
        "accuracy": 0.925, "prevalence": 0.25,
    }  # fmt: skip


def test_nobody_flagged_has_no_ppv() -> None:
    ppv = shares(Counts(0, 0, 9, 91))["ppv"]
    assert (ppv.value, ppv.status, ppv.reason) == (  # type: ignore[attr-defined]
        None, "undefined", "there are no flagged rows",
    )  # fmt: skip


def test_no_positives_have_no_sensitivity() -> None:
    found = shares(Counts(0, 24, 0, 16))
    assert found["sensitivity"].value is None  # type: ignore[attr-defined]
    assert found["specificity"].value == 0.4  # type: ignore[attr-defined]


def test_exact_interval_on_demand() -> None:
    sensitivity = shares(TABLE, interval="clopper-pearson")["sensitivity"]
    assert sensitivity.low == pytest.approx(0.7818646, abs=1e-6)  # type: ignore[attr-defined]
    assert sensitivity.method == "Clopper-Pearson"  # type: ignore[attr-defined]


def test_summaries_by_hand() -> None:
    assert confusion.summary_value("f1", TABLE) == pytest.approx(90 / 105)
    assert confusion.summary_value("youden", TABLE) == pytest.approx(0.9 + 14 / 15 - 1)
    assert confusion.summary_value("balanced_accuracy", TABLE) == pytest.approx(
        0.5 * (0.9 + 14 / 15)
    )
    top = 45 * 140 - 10 * 5
    assert confusion.summary_value("mcc", TABLE) == pytest.approx(
        top / math.sqrt(55 * 50 * 150 * 145)
    )
    chance = (55 * 50 + 145 * 150) / 200**2
    assert confusion.summary_value("kappa", TABLE) == pytest.approx((0.925 - chance) / (1 - chance))


def test_an_empty_margin_has_no_correlation() -> None:
    assert confusion.summary_value("mcc", Counts(0, 0, 9, 91)) is None
    assert confusion.summary_value("f1", Counts(0, 0, 0, 5)) is None
    found = confusion.summary_measures(*rows(Counts(0, 0, 9, 91)), 0.5, ci=CI(resamples=50))
    mcc = next(measure for measure in found if measure.name == "mcc")
    assert (mcc.value, mcc.status) == (None, "undefined")
    assert all(m.status == "undefined" for m in confusion.summary_measures([], [], 0.5))


def test_patients_widen_the_interval_of_a_summary() -> None:
    truth, score = rows(TABLE)
    patients = np.arange(200) // 5
    few = CI(resamples=500)
    alone, f1 = (
        next(m for m in confusion.summary_measures(truth, score, 0.5, patients=p, ci=few)
             if m.name == "f1")
        for p in (None, patients)
    )  # fmt: skip
    assert f1.value == alone.value
    assert f1.high - f1.low > alone.high - alone.low  # type: ignore[operator]


def test_likelihood_ratios_by_hand() -> None:
    positive, negative, odds = confusion.likelihood_ratios(TABLE)
    assert positive.value == pytest.approx(13.5)
    assert negative.value == pytest.approx(0.1 / (14 / 15))
    assert odds.value == pytest.approx(126)
    (se, se_low, se_high), (fp, fp_low, fp_high) = (
        (k / n, *wilson(k, n)) for k, n in ((45, 50), (10, 150))
    )
    low, high = positive.low, positive.high
    # Where the limits come from, before they are solved: a - L b = hypot(a - la, L (ub - b)).
    assert se - low * fp == pytest.approx(math.hypot(se - se_low, low * (fp_high - fp)))
    assert high * fp - se == pytest.approx(math.hypot(se_high - se, high * (fp - fp_low)))


def test_a_zero_cell_is_said_and_not_filled() -> None:
    positive, negative, odds = confusion.likelihood_ratios(Counts(30, 0, 10, 60))
    assert (positive.value, positive.status) == (None, "undefined")
    assert positive.reason == f"it divides by 0: it is at least {positive.low:.2f}"
    assert negative.value == pytest.approx(0.25)
    assert odds.status == "undefined"
    _, none_missed, _ = confusion.likelihood_ratios(Counts(12, 8, 0, 80))
    assert (none_missed.value, none_missed.low, none_missed.status) == (0.0, 0.0, "ok")
    assert 0.2 < none_missed.high < 0.4
    empty = confusion.likelihood_ratios(Counts(0, 0, 10, 60))
    assert [m.status for m in empty] == ["undefined", "ok", "undefined"]
    assert confusion.likelihood_ratios(Counts(0, 8, 12, 80))[2].status == "degenerate"
    assert {m.status for m in confusion.likelihood_ratios(Counts(0, 0, 0, 9))} == {"undefined"}


def test_one_patient_leaves_a_ratio_without_an_upper_end() -> None:
    shares = confusion.share_measures(*rows(TABLE), 0.5, patients=np.zeros(200))[:2]
    found = confusion.likelihood_ratios([replace(shares[0]), replace(shares[1], high=1.0)])[0]
    assert (found.status, found.high) == ("degenerate", None)
    assert found.reason.endswith("and has no upper end")


@pytest.mark.parametrize(
    ("counts", "ppv_low", "npv", "lr_low"),
    [
        (Counts(28, 0, 3, 32), 0.4800, (0.9728, 0.9963), 8.3067),
        (Counts(16, 0, 6, 43), 0.4856, (0.9488, 0.9856), 8.4948),
    ],
)
def test_nobody_wrongly_flagged_still_has_limits(
    counts: Counts, ppv_low: float, npv: tuple[float, float], lr_low: float
) -> None:
    found = confusion.predictive_values_at(counts, 0.1)
    assert (found[0].value, found[0].high) == (1.0, 1.0)
    assert found[0].low == pytest.approx(ppv_low, abs=5e-5)
    assert (found[1].low, found[1].high) == pytest.approx(npv, abs=5e-5)
    assert confusion.likelihood_ratios(counts)[0].low == pytest.approx(lr_low, abs=5e-5)


def test_patients_widen_what_follows_from_the_rates() -> None:
    truth, score = rows(TABLE)
    shares = [
        confusion.share_measures(truth, score, 0.5, patients=p)[:2]
        for p in (None, np.arange(200) // 5)
    ]
    for of in (confusion.likelihood_ratios, lambda two: confusion.predictive_values_at(two, 0.1)):
        alone, together = (of(two) for two in shares)
        for one, other in zip(alone, together, strict=True):
            assert other.value == pytest.approx(one.value)
            assert other.high - other.low > one.high - one.low


def test_balanced_accuracy_and_youden_have_mover_s_interval() -> None:
    found = {m.name: m for m in confusion.summary_measures(*rows(TABLE), 0.5)}
    (se, sl, su), (sp, pl, pu) = ((k / n, *wilson(k, n)) for k, n in ((45, 50), (140, 150)))
    low = se + sp - 1 - math.hypot(se - sl, sp - pl)
    high = se + sp - 1 + math.hypot(su - se, pu - sp)
    youden, balanced = found["youden"], found["balanced_accuracy"]
    assert (youden.low, youden.high) == pytest.approx((low, high))
    assert (balanced.low, balanced.high) == pytest.approx(((1 + low) / 2, (1 + high) / 2))


@pytest.mark.parametrize("counts", [Counts(9, 0, 0, 30), Counts(0, 3, 6, 30), Counts(6, 30, 0, 0)])
def test_summaries_of_tables_with_empty_cells_hold_their_value(counts: Counts) -> None:
    for measure in confusion.summary_measures(*rows(counts), 0.5, ci=CI(resamples=500)):
        if measure.value is not None:
            assert measure.low <= measure.value <= measure.high
            assert measure.high - measure.low > 0.05


def test_predictive_values_follow_bayes() -> None:
    ppv, npv = confusion.predictive_values_at(TABLE, 0.1)
    assert ppv.value == pytest.approx(0.09 / (0.09 + 0.06))
    assert npv.value == pytest.approx(0.84 / 0.85)
    (se, sl, _), (fp, _, fu) = ((k / n, *wilson(k, n)) for k, n in ((45, 50), (10, 150)))
    worst = (1 / ppv.low - 1) / 9  # (1 - specificity) / sensitivity at the lower end
    assert worst * se - fp == pytest.approx(math.hypot(fu - fp, worst * (se - sl)))


def test_predictive_value_at_the_own_prevalence_is_the_plain_one() -> None:
    ppv, npv = confusion.predictive_values_at(TABLE, 0.25)
    assert ppv.value == pytest.approx(45 / 55)
    assert npv.value == pytest.approx(140 / 145)


def test_predictive_value_without_flagged_or_class_is_undefined() -> None:
    ppv, npv = confusion.predictive_values_at(Counts(0, 0, 9, 91), 0.1)
    assert (ppv.value, ppv.status) == (None, "undefined")
    assert (npv.value, npv.status) == (pytest.approx(0.9), "ok")
    assert confusion.predictive_values_at(Counts(0, 5, 0, 5), 0.1)[0].status == "undefined"


def test_natural_frequencies_keep_the_sums() -> None:
    found = confusion.natural_frequencies(0.9, 0.93333, 0.055)
    assert found == Counts(tp=50, fp=63, fn=5, tn=882) or sum(vars(found).values()) == 1000
    assert found.tp + found.fn == round(1000 * 0.055)


def test_proportion_without_rows_says_of_what() -> None:
    measure = proportion("x", 0, 0, of="cases with the structure")
    assert (measure.status, measure.reason) == (
        "undefined",
        "there are no cases with the structure",
    )


def test_linearised_error_of_independent_rows_is_the_binomial_one() -> None:
    hits = np.repeat([True, False], [30, 70])
    expected = math.sqrt(0.3 * 0.7 / 99)
    assert linearised_error(hits, np.arange(100)) == pytest.approx(expected)
    assert math.isnan(linearised_error(hits, np.zeros(100, dtype=int)))


def test_a_share_of_images_has_the_interval_of_patients() -> None:
    hits = np.repeat([True, False], [30, 70])
    patients = np.arange(100) // 10  # all images of a patient alike: ten patients
    measure = proportion_of_rows("x", hits, patients=patients)
    assert measure.value == 0.3
    assert measure.n_patients == 10
    assert measure.high - measure.low > 0.5  # type: ignore[operator]
    assert "patients" in measure.method


def test_a_share_of_one_with_clusters_counts_patients() -> None:
    measure = proportion_of_rows("x", np.ones(40, dtype=bool), patients=np.arange(40) // 4)
    assert (measure.value, measure.high) == (1.0, 1.0)
    assert measure.low == pytest.approx(10 / (10 + 1.959963984540054**2))
