"""A sensitivity or specificity that is promised for new patients, and with which certainty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import beta

from medtl.errors import PredictionsError
from medtl.metrics import operating_point as points
from medtl.metrics.operating_point import choose_operating_point
from medtl.metrics.ranking import rank
from medtl.metrics.scores import Scores

PLAIN = {"sensitivity": 0.9}
ASSURED = {"sensitivity": 0.9, "assurance": 0.9}


@pytest.mark.parametrize(("share", "needed"), [(0.9, 22), (0.95, 45), (0.8, 11), (0.99, 230)])
def test_so_many_patients_are_needed_when_none_is_missed(share: float, needed: int) -> None:
    assert points.patients_for_assurance(share) == needed
    assert share**needed <= 0.1 < share ** (needed - 1)
    assert points.misses_allowed(needed, share) == 0
    assert points.misses_allowed(needed - 1, share) is None


@pytest.mark.parametrize("patients", [22, 37, 38, 40, 52, 100, 333])
def test_misses_allowed_equal_the_lower_bound_of_clopper_and_pearson(patients: int) -> None:
    bounds = [beta.ppf(0.1, patients - k, k + 1) for k in range(patients)]
    allowed = max(k for k, bound in enumerate(bounds) if bound >= 0.9)
    assert points.misses_allowed(patients, 0.9, 0.9) == allowed


def test_the_threshold_lies_in_the_middle_of_the_gap_below() -> None:
    truth, score = np.repeat([0, 1], [10, 40]), np.arange(50.0)
    point = choose_operating_point(truth, score, ASSURED)
    # One of 40 may be missed: 11 is the second lowest positive, 10 the score below it.
    assert point.threshold == 10.5
    assert (point.target, point.n_patients, point.assurance, point.reason) == (0.9, 40, 0.9, "")
    assert choose_operating_point(truth, score, PLAIN).threshold == 14.0


def test_specificity_is_promised_from_the_other_side() -> None:
    truth, score = np.repeat([0, 1], [40, 10]), np.arange(50.0)
    point = choose_operating_point(truth, score, {"specificity": 0.9, "assurance": 0.9})
    # One false alarm of 40: score 39, and the middle of the gap to 38, which may not be flagged.
    assert (point.threshold, point.n_patients, point.assurance) == (38.5, 40, 0.9)


def test_ties_are_flagged_together() -> None:
    score = np.concatenate([np.zeros(10), [1.0, 2.0, 2.0], np.full(37, 5.0)])
    point = choose_operating_point(np.repeat([0, 1], [10, 40]), score, ASSURED)
    assert point.threshold == 1.5


def test_a_threshold_between_neighbouring_floats_still_parts_them() -> None:
    low = 0.7
    score = np.repeat([low, np.nextafter(low, 1)], [10, 40])
    point = choose_operating_point(np.repeat([0, 1], [10, 40]), score, ASSURED)
    assert point.threshold == score[-1]


def test_below_the_lowest_score_there_is_no_gap() -> None:
    score = np.repeat([5.0, 1.0], [10, 40])  # the lowest score of all is the positives'
    assert choose_operating_point(np.repeat([0, 1], [10, 40]), score, ASSURED).threshold == 1.0


def test_too_few_patients_promise_nothing_and_say_how_many_would() -> None:
    truth, score = np.repeat([0, 1], [30, 21]), np.arange(51.0)
    point = choose_operating_point(truth, score, ASSURED)
    assert point.threshold == choose_operating_point(truth, score, PLAIN).threshold
    assert point.assurance is None
    assert point.reason == "22 patients with the finding are needed to promise it, there are 21"
    other = choose_operating_point(1 - truth, score, {"specificity": 0.9, "assurance": 0.9})
    assert other.reason == "22 patients without the finding are needed to promise it, there are 21"


def test_a_share_of_one_cannot_be_promised() -> None:
    truth, score = np.repeat([0, 1], [30, 300]), np.arange(330.0)
    point = choose_operating_point(truth, score, {"sensitivity": 1.0, "assurance": 0.9})
    assert point.assurance is None
    assert point.reason == "no number of patients can promise that nobody is missed"


def test_patients_with_several_images_count_once() -> None:
    """Twice the same image of each patient promises no more than one."""
    truth, score = np.repeat([0, 1], [10, 40]), np.arange(50.0)
    twice = Scores.of(np.tile(truth, 2), np.tile(score, 2), np.tile(np.arange(50), 2))
    once = choose_operating_point(truth, score, ASSURED)
    assert choose_operating_point(twice, rule=ASSURED).threshold == once.threshold
    # Counted as 80 patients, four misses would be allowed: the negative control.
    rows = choose_operating_point(np.tile(truth, 2), np.tile(score, 2), ASSURED)
    assert rows.threshold > once.threshold
    few = Scores.of(np.tile(truth, 2), np.tile(score, 2), np.repeat(np.arange(10), 10))
    assert choose_operating_point(few, rule=ASSURED).assurance is None


def test_no_assurance_and_an_assurance_of_zero_are_the_plain_rule() -> None:
    truth, score = np.repeat([0, 1], [10, 40]), np.arange(50.0)
    plain = choose_operating_point(truth, score, PLAIN)
    assert choose_operating_point(truth, score, {**PLAIN, "assurance": 0}) == plain
    assert (plain.target, plain.n_patients, plain.assurance, plain.reason) == (0.9, 40, None, "")
    assert choose_operating_point(truth, score).target is None


def test_a_score_that_cannot_keep_a_specificity_flags_nobody() -> None:
    truth, score = np.repeat([1, 0], [10, 30]), np.concatenate([np.arange(10.0), np.full(30, 99)])
    point = choose_operating_point(truth, score, {"specificity": 0.9, "assurance": 0.9})
    assert point.threshold == math.inf


@pytest.mark.parametrize(
    "rule",
    [{"youden": True, "assurance": 0.9}, {"sensitivity": 0.9, "assurance": 1},
     {"sensitivity": 0.9, "assurance": "high"}, {"specificity": 0.9, "assurance": -0.1}],
)  # fmt: skip
def test_an_assurance_that_means_nothing_is_refused(rule: dict[str, float]) -> None:
    with pytest.raises(PredictionsError, match=r"has the assurance .*expected a certainty"):
        choose_operating_point([0, 1], [0.1, 0.9], rule)


# Simulated elsewhere, 3,000 studies a cell: share that keeps it, mean specificity; plain, assured.
PRINTED = {
    (40, 0.85): (0.38, 0.60, 0.92, 0.39),
    (40, 0.95): (0.36, 0.86, 0.91, 0.71),
    (100, 0.85): (0.40, 0.59, 0.94, 0.45),
    (100, 0.95): (0.41, 0.86, 0.94, 0.76),
}


@pytest.mark.parametrize(("positives", "auroc"), PRINTED)
def test_the_promise_is_kept(positives: int, auroc: float) -> None:
    """Of 2,000 studies 88 percent keep it; with the plain rule, the control, less than half do."""
    rng = np.random.default_rng(positives)
    shift = math.sqrt(2) * float(ndtri(auroc))
    truth = np.repeat([False, True], [positives, positives])
    scores = rng.normal(size=(2000, 2 * positives)) + shift * truth
    kept, found_as_printed = {}, list[float]()
    for name, rule in (("plain", PLAIN), ("assured", ASSURED)):
        found = [choose_operating_point(truth, row, rule).threshold for row in scores]
        kept[name] = float((ndtr(shift - np.array(found)) >= 0.9).mean())
        found_as_printed += [kept[name], float(ndtr(found).mean())]
    assert kept["assured"] >= 0.88
    assert kept["plain"] < 0.5
    assert found_as_printed == pytest.approx(PRINTED[positives, auroc], abs=0.035)


def test_a_wrong_direction_breaks_the_promise() -> None:
    """The threshold above the one chosen misses one patient more than is allowed."""
    truth, score = np.repeat([0, 1], [10, 40]), np.arange(50.0)
    at = points.assured_threshold(rank(truth, score), "sensitivity", 0.9, 0.9)
    misses = int((score[truth == 1] < at + 1).sum())
    assert misses > (points.misses_allowed(40, 0.9) or 0)
