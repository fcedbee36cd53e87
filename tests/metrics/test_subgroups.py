"""Gaps between groups."""

import numpy as np
import pytest
from scipy.stats import norm

from medtl.errors import PredictionsError
from medtl.metrics import subgroups
from medtl.types import Measure

RNG = np.random.default_rng(0)
SEX = np.repeat(["M", "F"], [120, 80])
TRUTH = RNG.integers(0, 2, 200)
SCORE = 1 / (1 + np.exp(-RNG.normal(size=200) - TRUTH))


def by_name(found: list[subgroups.Gap]) -> dict[str, subgroups.Gap]:
    return {gap.of: gap for gap in found}


def test_the_largest_group_is_the_reference() -> None:
    found = by_name(subgroups.gaps(TRUTH, SCORE, {"sex": SEX}, threshold=0.5))
    gap = found["sensitivity"]
    assert (gap.group, gap.reference, gap.difference.subset) == ("F", "M", "sex=F")
    flagged = SCORE >= 0.5
    shares = [flagged[(sex == SEX) & (TRUTH == 1)].mean() for sex in "FM"]
    assert gap.difference.value == pytest.approx(shares[0] - shares[1])
    assert gap.difference.low < gap.difference.value < gap.difference.high  # type: ignore[operator]
    assert gap.p is not None
    assert gap.detectable > 0  # type: ignore[operator]


def test_a_stated_reference_changes_the_sign() -> None:
    forth = by_name(subgroups.gaps(TRUTH, SCORE, {"sex": SEX}, threshold=0.5))
    back = by_name(
        subgroups.gaps(TRUTH, SCORE, {"sex": SEX}, threshold=0.5, reference={"sex": "F"})
    )
    for of in ("sensitivity", "specificity", "auroc"):
        assert back[of].difference.value == pytest.approx(-forth[of].difference.value)  # type: ignore[operator]
        assert back[of].p == pytest.approx(forth[of].p)


def test_gap_of_the_auc_has_the_error_of_two_delongs() -> None:
    from medtl.metrics.ranking import auc_covariance

    gap = by_name(subgroups.gaps(TRUTH, SCORE, {"sex": SEX}))["auroc"]
    variances = [auc_covariance(TRUTH[s == SEX], SCORE[s == SEX])[1][0, 0] for s in "MF"]
    half = 1.959964 * np.sqrt(sum(variances))
    assert (gap.difference.high - gap.difference.low) / 2 == pytest.approx(half, rel=0.02)  # type: ignore[operator]
    z = abs(gap.difference.value) / np.sqrt(sum(variances))  # type: ignore[arg-type]
    # The interval is not symmetric: its side towards 0 is the longer one here.
    assert 1 < gap.p / (2 * norm.sf(z)) < 2  # type: ignore[operator]


@pytest.mark.parametrize("shift", [0.1, 0.4, 0.8])
def test_the_auc_is_tested_as_its_interval_says(shift: float) -> None:
    """p is below 0.05 where the interval leaves 0 out, and there is none beside a threshold."""
    found = subgroups.gaps(TRUTH, SCORE - shift * TRUTH * (SEX == "F"), {"sex": SEX})
    (gap,) = found
    outside = not gap.difference.low <= 0 <= gap.difference.high  # type: ignore[operator]
    assert (gap.p < 0.05) == outside  # type: ignore[operator]
    beside = by_name(subgroups.gaps(TRUTH, SCORE, {"sex": SEX}, threshold=0.5))
    assert beside["auroc"].p is None


def test_a_group_without_positives_has_no_sensitivity_gap() -> None:
    truth = np.where(SEX == "F", 0, TRUTH)
    found = by_name(subgroups.gaps(truth, SCORE, {"sex": SEX}, threshold=0.5))
    assert (found["sensitivity"].difference.status, found["sensitivity"].p) == ("undefined", None)
    assert "sex = F" in found["sensitivity"].difference.reason
    assert found["auroc"].difference.status == "undefined"
    assert found["specificity"].difference.status == "ok"


def test_patients_widen_the_gap_also_when_they_are_in_both_groups() -> None:
    patients = np.arange(200) % 100
    alone = by_name(subgroups.gaps(TRUTH, SCORE, {"view": SEX}, threshold=0.5))
    copies = [np.concatenate([x, x]) for x in (TRUTH, SCORE, SEX)]
    together = by_name(
        subgroups.gaps(
            *copies[:2], {"view": copies[2]}, threshold=0.5, patients=np.tile(range(200), 2)
        )
    )
    for of in ("sensitivity", "auroc"):
        width, before = (g.difference.high - g.difference.low for g in (together[of], alone[of]))  # type: ignore[operator]
        # The intervals of the groups are t's of patients where those alone are Wilson's: 2 to 6 %.
        assert width == pytest.approx(before, rel=0.07), of
        rows = by_name(subgroups.gaps(*copies[:2], {"view": copies[2]}, threshold=0.5))[of]
        naive = rows.difference.high - rows.difference.low  # type: ignore[operator]
        assert naive < 0.75 * width, of
    both = subgroups.gaps(TRUTH, SCORE, {"view": SEX}, threshold=0.5, patients=patients)
    assert all("patients" in gap.difference.method for gap in both)


def test_the_gap_of_the_auc_joins_the_intervals_of_the_groups() -> None:
    from medtl.metrics.intervals import mover_sum
    from medtl.metrics.ranking import auroc

    gap = by_name(subgroups.gaps(TRUTH[:60], SCORE[:60], {"sex": np.tile(["M", "F"], 30)}))["auroc"]
    female, male = (auroc(TRUTH[:60][at::2], SCORE[:60][at::2]) for at in (1, 0))
    parts = (female.value, female.low, female.high), (-male.value, -male.high, -male.low)  # type: ignore[operator]
    if gap.group == "M":
        parts = (male.value, male.low, male.high), (-female.value, -female.high, -female.low)  # type: ignore[assignment,operator]
    assert (gap.difference.low, gap.difference.high) == pytest.approx(mover_sum(*parts))


def test_a_group_of_one_patient_has_neither_interval_nor_test() -> None:
    # Five images of one patient know nothing of other patients, however alike they are.
    rng = np.random.default_rng(3)
    sex = np.repeat(["M", "F"], [40, 5])
    patients = np.concatenate([np.arange(40), np.full(5, 40)])
    truth, score = np.tile([1, 0], 23)[:45], rng.normal(size=45)
    for gap in subgroups.gaps(truth, score, {"sex": sex}, threshold=0, patients=patients):
        assert (gap.difference.low, gap.p) == (None, None), gap.of
    (gap,) = subgroups.mean_gaps({"x": score}, {"sex": sex}, patients=patients)
    assert gap.difference.reason == "a group has fewer than 5 patients for it"
    assert (gap.difference.low, gap.p) == (None, None)


@pytest.mark.parametrize(("patients", "judged"), [(4, False), (5, True)])
def test_means_of_a_few_patients_are_not_compared(patients: int, judged: bool) -> None:
    values = np.concatenate([np.linspace(0.90, 0.91, patients), np.linspace(0.93, 0.94, 30)])
    sites = np.repeat(["a", "b"], [patients, 30])
    (gap,) = subgroups.mean_gaps({"dice": values}, {"site": sites})
    assert gap.difference.value == pytest.approx(-0.03)
    assert (gap.p is not None, gap.difference.low is not None) == (judged, judged)


def test_means_are_compared_by_welch() -> None:
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(4)
    first, second = rng.normal(0, 3, 12), rng.normal(1, 1, 30)
    (gap,) = subgroups.mean_gaps({"x": [*first, *second]}, {"g": np.repeat(["a", "b"], [12, 30])})
    known = ttest_ind(first, second, equal_var=False)
    assert gap.difference.value == pytest.approx(first.mean() - second.mean())
    assert gap.p == pytest.approx(known.pvalue)
    bounds = (gap.difference.low, gap.difference.high)
    assert bounds == pytest.approx(tuple(known.confidence_interval(0.95)))


def test_p_is_adjusted_within_the_family_of_tests() -> None:
    site = np.array(list("ABCD"))[np.arange(200) % 4]
    found = subgroups.gaps(TRUTH, SCORE, {"sex": SEX, "site": site}, threshold=0.5)
    adjusted = subgroups.adjust_for_multiplicity(found)
    tested = [gap for gap in adjusted if gap.p is not None]
    assert len(tested) == 2 * (1 + 3)
    assert all(gap.p <= gap.p_bh <= gap.p_holm for gap in tested)  # type: ignore[operator]
    assert all(gap.p_holm is None for gap in adjusted if gap.of == "auroc")


def test_small_groups_are_marked_and_keep_their_value() -> None:
    measure = Measure("auroc", 0.8, low=0.6, high=0.9)
    marked = subgroups.flag_small(measure, rows=200, positives=9)
    assert (marked.value, marked.status) == (0.8, "degenerate")
    assert "9 positives" in marked.reason
    assert subgroups.flag_small(measure, rows=29, positives=20).status == "degenerate"
    assert subgroups.flag_small(measure, rows=30, positives=10) is measure


def test_a_reference_that_does_not_occur_is_refused() -> None:
    with pytest.raises(PredictionsError, match="no row has sex = X; expected one of F, M"):
        subgroups.gaps(TRUTH, SCORE, {"sex": SEX}, reference={"sex": "X"})


def test_one_group_has_no_gap() -> None:
    assert subgroups.gaps(TRUTH, SCORE, {"sex": np.full(200, "M")}, threshold=0.5) == []
