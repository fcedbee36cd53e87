"""Operating points: a threshold chosen by a stated rule on validation, frozen, applied to test."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.discrimination import ROUNDING, threshold_at_sensitivity
from medtl.metrics.ranking import Ranking, rank
from medtl.types import FloatArray, OperatingPoint

Rule = Mapping[str, float | str | bool]
"""One entry, the rule's name and its number: {"sensitivity": 0.9}."""


def choose_operating_point(
    y_true: ArrayLike, y_score: ArrayLike, rule: Rule, *, label: str = "", chosen_on: str = "val"
) -> OperatingPoint:
    """Return the threshold that the rule picks on these rows: never give it the test rows.

    Rules: `sensitivity` x (the highest score with at least x), `specificity` x (the lowest score
    with at least x), `youden`, `f1`, `net_benefit` p (best net benefit at threshold probability p),
    `cost_ratio` c (one missed patient costs as much as c false alarms). Ties go to the highest
    threshold. The threshold is a score that occurs, or infinity: flag nobody.

    Args:
        y_true: `(n,)`, 0 or 1, both present.
        y_score: `(n,)`, finite.
        rule: One entry.
        label: The finding.
        chosen_on: Name of the split, for the record.

    Raises:
        PredictionsError: If the rule is unknown or the rows hold one class only.
    """
    name, number = check_rule(rule)
    ranking = rank(y_true, y_score)
    if not (ranking.num_positive and ranking.num_negative):
        raise PredictionsError(
            f"the {chosen_on} rows of {label or 'the score'} hold one class only",
            expected="positives and negatives to choose a threshold from",
        )
    if name == "sensitivity":
        threshold = threshold_at_sensitivity(ranking, number)
    elif name == "specificity":
        threshold = _lowest_with_specificity(ranking, number)
    else:
        threshold = _best(ranking, _gain(ranking, name, number))
    return OperatingPoint(
        label, threshold, describe_rule(rule), chosen_on,
        n=ranking.positive.size, n_positive=ranking.num_positive,
    )  # fmt: skip


def describe_rule(rule: Rule) -> str:
    """Return the rule in words."""
    name, number = check_rule(rule)
    share = f"{number:.2f}" if round(number, 2) == number else f"{number:g}"
    return {
        "sensitivity": f"sensitivity >= {share}",
        "specificity": f"specificity >= {share}",
        "youden": "largest sensitivity + specificity",
        "f1": "largest F1",
        "net_benefit": f"largest net benefit at threshold probability {number:g}",
        "cost_ratio": f"least cost when a miss costs {number:g} false alarms",
    }[name]


RANGES = {
    "sensitivity": (0.0, 1.0),
    "specificity": (0.0, 1.0),
    "youden": (-math.inf, math.inf),
    "f1": (-math.inf, math.inf),
    "net_benefit": (0.0, 1.0),
    "cost_ratio": (0.0, math.inf),
}
"""Rule -> the open range that its number must lie in (1 is allowed for a share)."""


def check_rule(rule: Rule) -> tuple[str, float]:
    """Return the rule's name and number.

    Raises:
        PredictionsError: If it is not one known rule with a number in its range.
    """
    if len(rule) != 1 or next(iter(rule)) not in RANGES:
        names = ", ".join(RANGES)
        raise PredictionsError(f"the rule is {dict(rule)}", expected=f"one entry, one of {names}")
    name, given = next(iter(rule.items()))
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    low, high = RANGES[name]
    closed = name in ("sensitivity", "specificity") and number == 1
    if not (low < number < high or closed):
        raise PredictionsError(
            f"the rule {name} has the number {given!r}",
            expected=f"a number between {low:g} and {high:g}",
        )
    return name, number


def _lowest_with_specificity(ranking: Ranking, specificity: float) -> float:
    """Return the lowest score at which at least this share of negatives is left alone."""
    needed = math.ceil(specificity * ranking.num_negative - ROUNDING)
    allowed = np.flatnonzero(ranking.num_negative - ranking.fp >= needed)
    return float(ranking.thresholds[allowed[-1]]) if allowed.size else math.inf


def _gain(ranking: Ranking, name: str, number: float) -> FloatArray:
    """Return what the rule maximises at every threshold, `(k + 1,)`, the first flags nobody."""
    tp = np.concatenate([[0], ranking.tp])
    fp = np.concatenate([[0], ranking.fp])
    positives, negatives = ranking.num_positive, ranking.num_negative
    if name == "youden":
        # Whole numbers, so that ties are ties: J * positives * negatives.
        gain = tp * negatives - fp * positives
    elif name == "f1":
        gain = 2 * tp / (tp + fp + positives)
    elif name == "net_benefit":
        gain = tp - fp * number / (1 - number)
    else:
        gain = tp * number - fp
    return np.asarray(gain, dtype=float)


def _best(ranking: Ranking, gain: FloatArray) -> float:
    """Return the highest threshold whose gain is the largest but for rounding."""
    first = int(np.argmax(gain >= gain.max() - ROUNDING))
    return math.inf if first == 0 else float(ranking.thresholds[first - 1])
