"""Thresholds chosen by rule."""

import math

import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics.confusion import count
from medtl.metrics.operating_point import choose_operating_point, describe_rule

TRUTH = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 0])
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05])


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ({"sensitivity": 0.75}, 0.6),  # 3 of 4 positives: the highest such score
        ({"sensitivity": 1.0}, 0.3),
        ({"specificity": 5 / 6}, 0.6),  # one false alarm of six: the lowest such score
        ({"specificity": 1.0}, 0.8),
        ({"youden": True}, 0.6),  # 3/4 + 5/6, more than 2/4 + 6/6 and 4/4 + 3/6
        ({"f1": True}, 0.6),  # 6/8
        ({"cost_ratio": 10}, 0.3),  # a miss costs ten false alarms
        ({"cost_ratio": 0.1}, 0.8),
        ({"net_benefit": 0.1}, 0.3),  # the same as a cost ratio of 9
        ({"net_benefit": 0.9}, 0.8),
    ],
)
def test_rules_by_hand(rule: dict[str, float], threshold: float) -> None:
    point = choose_operating_point(TRUTH, SCORE, rule, label="x")
    assert point.threshold == threshold
    assert (point.label, point.chosen_on, point.n, point.n_positive) == ("x", "val", 10, 4)


def test_ties_go_to_the_highest_threshold() -> None:
    # Youden is 1/2 at 0.9 and again at 0.3.
    point = choose_operating_point([1, 0, 1, 0], [0.9, 0.5, 0.3, 0.1], {"youden": True})
    assert point.threshold == 0.9


def test_a_useless_score_flags_nobody() -> None:
    point = choose_operating_point([0, 0, 1], [0.9, 0.8, 0.1], {"specificity": 0.9})
    assert point.threshold == math.inf
    assert count([0, 1], [5.0, 9.0], point.threshold).tp == 0


@pytest.mark.parametrize("share", [0.8, 0.9, 0.95, 0.99])
def test_the_rule_holds_on_the_rows_it_was_chosen_on(share: float) -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, 300)
    score = (rng.normal(size=300) + truth).round(1)
    sensitive = choose_operating_point(truth, score, {"sensitivity": share}).threshold
    specific = choose_operating_point(truth, score, {"specificity": share}).threshold
    table = count(truth, score, sensitive)
    assert table.tp / truth.sum() >= share
    above = score[score > sensitive].min()
    assert count(truth, score, above).tp / truth.sum() < share
    assert count(truth, score, specific).tn / (1 - truth).sum() >= share


def test_rules_in_words() -> None:
    assert describe_rule({"sensitivity": 0.9}) == "sensitivity >= 0.90"
    assert describe_rule({"specificity": 0.975}) == "specificity >= 0.975"
    assert describe_rule({"youden": True}) == "largest sensitivity + specificity"


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(PredictionsError, match=r"the rule is .*expected one entry, one of sens"):
        describe_rule({"sensitvity": 0.9})
    with pytest.raises(PredictionsError, match="one entry"):
        describe_rule({"sensitivity": 0.9, "specificity": 0.9})


@pytest.mark.parametrize("rule", [{"sensitivity": 90}, {"net_benefit": 1}, {"cost_ratio": "a"}])
def test_number_out_of_range_is_refused(rule: dict[str, float]) -> None:
    with pytest.raises(PredictionsError, match="expected a number between"):
        describe_rule(rule)


def test_one_class_cannot_choose() -> None:
    with pytest.raises(PredictionsError, match="the val rows of x hold one class only"):
        choose_operating_point([0, 0], [0.1, 0.2], {"youden": True}, label="x")
