"""Multi-reader multi-case studies: published values, hand cases, invariants and controls."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from medtl.errors import PredictionsError
from medtl.metrics.comparison import paired_auroc, two_sided_p
from medtl.metrics.intervals import normal_quantile
from medtl.metrics.ranking import auc_covariance
from medtl.metrics.readers.multireader import (
    against_readers,
    figures_of_merit,
    reader_study,
    variance_components,
)
from medtl.types import FloatArray

VAN_DYKE = Path(__file__).parents[2] / "../shared/oracles2/vandyke.csv"


def van_dyke() -> tuple[FloatArray, FloatArray]:
    if not VAN_DYKE.is_file():
        pytest.skip("the published table is not here")
    with VAN_DYKE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth = {int(row["case"]): int(row["truth"]) for row in rows}
    marks = np.full((2, 5, len(truth)), np.nan)
    place = {case: at for at, case in enumerate(sorted(truth))}
    for row in rows:
        at = int(row["treatment"]) - 1, int(row["reader"]) - 1, place[int(row["case"])]
        marks[at] = float(row["rating"])
    return np.array([truth[case] for case in sorted(truth)]), marks


def made_up(
    seed: int = 0, readers: int = 4, cases: int = 60, gain: float = 0.5
) -> tuple[FloatArray, FloatArray]:
    random = np.random.default_rng(seed)
    truth = np.arange(cases) % 3 == 0
    case = random.normal(size=cases) + truth
    skill = random.normal(0, 0.3, (2, readers, 1))
    noise = random.normal(size=(2, readers, cases)) + random.normal(size=(2, 1, cases))
    signal = np.array([gain, 0.0])[:, None, None] + 1 + skill
    return truth.astype(float), signal * truth + 0.5 * case + noise


def test_van_dyke_has_the_printed_values() -> None:
    study = reader_study(*van_dyke())
    parts, contrast = study.components, study.contrasts[0]
    assert parts is not None
    assert contrast.test.difference.low is not None
    assert parts.error_variance == pytest.approx(0.0007921325, abs=5e-11)
    assert parts.cov1 == pytest.approx(0.0003420090, abs=5e-11)
    assert parts.cov2 == pytest.approx(0.0003395265, abs=5e-11)
    assert parts.cov3 == pytest.approx(0.0002358497, abs=5e-11)
    assert parts.ms_modality == pytest.approx(0.004796171, abs=5e-10)
    assert parts.ms_interaction == pytest.approx(0.0005510306, abs=5e-11)
    assert (study.f, study.freedom) == pytest.approx((4.484854, 15.06611), abs=5e-6)
    assert (study.p, contrast.test.p) == pytest.approx((0.05123303, 0.05123303), abs=5e-9)
    assert contrast.freedom == pytest.approx(15.06611, abs=5e-6)
    assert contrast.error == pytest.approx(0.0206825, abs=5e-8)
    found = contrast.test.difference
    assert (found.value, found.low, found.high) == pytest.approx(
        (-0.04380032, -0.0878672, 0.00026655), abs=5e-8
    )


def test_fixed_readers_are_a_normal_test_of_the_mean_over_cases() -> None:
    truth, marks = made_up()
    _, covariance = auc_covariance(truth, marks.reshape(8, -1))
    signs = np.repeat([0.25, -0.25], 4)
    study = reader_study(truth, marks, readers="fixed")
    contrast = study.contrasts[0]
    assert contrast.error**2 == pytest.approx(signs @ covariance @ signs)
    assert contrast.test.statistic is not None
    assert contrast.test.p == pytest.approx(2 * norm.sf(abs(contrast.test.statistic)))
    assert study.p == pytest.approx(contrast.test.p, rel=1e-6)  # cov2 > cov3 in these data


def test_one_fixed_reader_is_delongs_paired_test() -> None:
    truth, marks = made_up()
    one = reader_study(truth, marks[:, :1], readers="fixed").contrasts[0].test
    known = paired_auroc(truth, marks[0, 0], marks[1, 0])
    error = known.difference.value / known.statistic
    low = known.difference.value - normal_quantile(0.95) * error
    assert (one.p, one.difference.low) == pytest.approx((two_sided_p(known.statistic), low))


def test_the_mean_of_one_modality_follows_hillis_2014() -> None:
    truth, marks = made_up()
    study = reader_study(truth, marks)
    aucs, covariance = auc_covariance(truth, marks[0])
    cov2 = covariance[~np.eye(4, dtype=bool)].mean()
    whole = aucs.var(ddof=1) + max(4 * cov2, 0)
    freedom = whole**2 / (aucs.var(ddof=1) ** 2 / 3)
    half = student.ppf(0.975, freedom) * np.sqrt(whole / 4)
    assert study.means[0].low == pytest.approx(aucs.mean() - half)
    assert study.means[0].high == pytest.approx(aucs.mean() + half)


def test_order_of_readers_and_cases_does_not_matter_and_swapping_turns_the_sign() -> None:
    truth, marks = made_up()
    usual = reader_study(truth, marks).contrasts[0].test
    cases, readers = np.random.default_rng(1).permutation(60), [2, 0, 3, 1]
    shuffled = reader_study(truth[cases], marks[:, readers][:, :, cases]).contrasts[0].test
    swapped = reader_study(truth, marks[::-1]).contrasts[0].test
    assert shuffled.p == pytest.approx(usual.p)
    assert usual.difference.value is not None
    assert usual.difference.low is not None
    assert swapped.difference.value == pytest.approx(-usual.difference.value)
    assert swapped.difference.high == pytest.approx(-usual.difference.low)


def test_patients_with_several_cases_widen_the_interval() -> None:
    truth, marks = made_up()
    doubled, patients = np.repeat(marks, 2, axis=2), np.repeat(np.arange(60), 2)
    known = reader_study(np.repeat(truth, 2), doubled, patients=patients)
    alone = reader_study(np.repeat(truth, 2), doubled)
    assert known.contrasts[0].error > alone.contrasts[0].error
    # Obuchowski's variance of doubled cases is DeLong's of single ones but for n / (n - 1).
    assert known.contrasts[0].error == pytest.approx(
        reader_study(truth, marks).contrasts[0].error, rel=0.01
    )


@pytest.mark.parametrize(("of", "cases"), [("sensitivity", 20), ("specificity", 40)])
def test_shares_are_means_of_right_answers(of: str, cases: int) -> None:
    truth, marks = made_up()
    mine = truth == (of == "sensitivity")
    right = (marks[0][:, mine] >= 1.0) == (of == "sensitivity")
    values, covariance = figures_of_merit(truth, marks[0], of)
    assert values == pytest.approx(right.mean(axis=1))
    assert covariance == pytest.approx(np.cov(right) / cases)
    study = reader_study(truth, marks, of=of)
    assert study.means[0].value == pytest.approx(right.mean())


def test_three_modalities_have_three_pairs_and_one_f() -> None:
    truth, marks = made_up()
    three = np.concatenate([marks, marks[:1] + 0.1 * marks[1:]])
    study = reader_study(truth, three)
    assert len(study.contrasts) == 3
    assert study.p is not None
    alone = reader_study(truth, three[:2]).contrasts[0].test
    assert study.contrasts[0].test.p == pytest.approx(alone.p)


def test_a_model_against_readers_is_the_difference_to_their_mean() -> None:
    truth, marks = made_up()
    score = marks[0].mean(axis=0)
    found = against_readers(truth, marks[1], score, readers="fixed")
    aucs, covariance = auc_covariance(truth, np.vstack([marks[1], score]))
    weights = np.array([-0.25] * 4 + [1.0])
    assert found.test.difference.value == pytest.approx(weights @ aucs)
    assert found.error**2 == pytest.approx(weights @ covariance @ weights)
    shares = against_readers(truth, marks[1] >= 1, score >= 0.8, of="specificity")
    expected = (score[truth == 0] < 0.8).mean() - (marks[1][:, truth == 0] < 1).mean()
    assert shares.test.difference.value == pytest.approx(expected)


def test_under_no_difference_p_is_small_as_often_as_it_says() -> None:
    small = [(reader_study(*made_up(seed, gain=0.0)).p or 1) < 0.1 for seed in range(300)]
    assert 0.05 < np.mean(small) < 0.15
    control = [(reader_study(*made_up(seed, gain=2.0)).p or 1) < 0.1 for seed in range(50)]
    assert np.mean(control) > 0.5


def test_equal_modalities_have_no_difference_and_no_interval() -> None:
    truth, marks = made_up()
    study = reader_study(truth, np.stack([marks[0], marks[0]]))
    found = study.contrasts[0].test
    assert (found.difference.value, found.difference.status, found.p) == (0, "degenerate", 1.0)
    assert study.p is None


def test_components_by_hand() -> None:
    theta = np.array([[0.7, 0.8], [0.8, 1.0]])
    parts = variance_components(theta, np.arange(16.0).reshape(2, 2, 2, 2))
    assert parts.error_variance == np.mean([0, 5, 10, 15])
    assert (parts.cov1, parts.cov2, parts.cov3) == (7.5, 7.5, 7.5)
    assert parts.ms_modality == pytest.approx(2 * np.var([0.75, 0.9], ddof=1))
    assert parts.ms_interaction == pytest.approx(4 * 0.025**2)


def test_what_cannot_be_analysed_is_refused() -> None:
    truth, marks = made_up()
    with pytest.raises(PredictionsError, match="1 reader"):
        reader_study(truth, marks[:, :1])
    with pytest.raises(PredictionsError, match="1 reader"):
        against_readers(truth, marks[0, :1], marks[0, 0])
    missing = marks.copy()
    missing[0, 0, 0] = np.nan
    with pytest.raises(PredictionsError, match="marks are missing"):
        reader_study(truth, missing)
    with pytest.raises(PredictionsError, match="no figure of merit"):
        reader_study(truth, marks, of="accuracy")
    with pytest.raises(PredictionsError, match="one class"):
        reader_study(np.ones(60), marks)
