"""Operating points: a threshold chosen by a stated rule on validation, frozen, applied to test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from medtl.errors import PredictionsError
from medtl.metrics.discrimination import threshold_at_sensitivity
from medtl.metrics.ranking import Ranking, rank
from medtl.metrics.resampling import ROUNDING
from medtl.metrics.scores import (
    Truth,
    Values,
    num_patients,
)
from medtl.types import BoolArray, FloatArray, IntArray, OperatingPoint

Rule = Mapping[str, float | str | bool]
"""The rule's name and its number, {"sensitivity": 0.9}; a share perhaps with its "assurance"."""

ASSURANCE = 0.9
"""Certainty of a promised share where a study states none."""

YOUDEN: Rule = MappingProxyType({"youden": True})


def choose_operating_point(
    y_true: Truth,
    y_score: Values = None,
    rule: Rule = YOUDEN,
    *,
    label: str = "",
    chosen_on: str = "val",
) -> OperatingPoint:
    """Return the threshold that the rule picks on these rows: never give it the test rows.

    Rules: `sensitivity` x (the highest score with at least x), `specificity` x (the lowest score
    with at least x), `youden`, `f1`, `net_benefit` p (best net benefit at threshold probability p),
    `cost_ratio` c (one missed patient costs as much as c false alarms). Ties go to the highest
    threshold. The threshold is a score that occurs, or infinity: flag nobody.

    That a score reached a sensitivity of 0.9 here says little of new patients: about every third
    such threshold keeps it. With an `assurance` beside a share, {"sensitivity": 0.9, "assurance":
    0.9}, the threshold is one that keeps it with this certainty (`assured_threshold`); where there
    are too few patients for a promise, the plain rule is used and `reason` says how many would do.

    Args:
        y_true: `(n,)`, 0 or 1, both present, or a `Scores` that knows the patients.
        y_score: `(n,)`, finite.
        rule: One entry, or a share and its assurance.
        label: The finding.
        chosen_on: Name of the split, for the record.

    Raises:
        PredictionsError: If the rule is unknown or the rows hold one class only.

    Reference:
        Wilks, Ann Math Stat 1941;12:91 (distribution-free tolerance limits); Clopper and Pearson
        1934.

    >>> choose_operating_point([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.9], {"sensitivity": 1.0}).threshold
    0.4
    """
    name, number = check_rule(rule)
    assurance = float(rule.get("assurance", 0))
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
    n, positives = ranking.positive.size, ranking.num_positive
    point = OperatingPoint(label, threshold, describe_rule(rule), chosen_on, n, positives)
    return _promised(point, ranking, name, number, assurance) if name in SHARES else point


SHARES = ("sensitivity", "specificity")
"""Rules whose number is a share of a class, which can be promised."""


def _promised(
    point: OperatingPoint, ranking: Ranking, name: str, share: float, assurance: float
) -> OperatingPoint:
    """Return the operating point with the promise that was asked for, or why there is none."""
    concerned = ranking.positive if name == "sensitivity" else ~ranking.positive
    patients = num_patients(ranking.patient_numbers[concerned])
    point = replace(point, target=share, n_patients=patients)
    if not assurance:
        return point
    needed = patients_for_assurance(share, assurance)
    if patients < needed:
        whom = "with the finding" if name == "sensitivity" else "without the finding"
        reason = f"{needed} patients {whom} are needed to promise it, there are {patients}"
        if math.isinf(needed):
            reason = "no number of patients can promise that nobody is missed"
        return replace(point, reason=reason)
    threshold = assured_threshold(ranking, name, share, assurance)
    return replace(point, threshold=threshold, assurance=assurance)


def patients_for_assurance(share: float, assurance: float = ASSURANCE) -> float:
    """Return the least number of patients of a class with which a share of it can be promised.

    Args:
        share: Sensitivity or specificity aimed at, in (0, 1]; infinity for 1.
        assurance: Certainty of the promise, in (0, 1).

    Reference:
        n >= ln(1 - assurance) / ln(share): none of n is missed; Wilks 1941.

    >>> patients_for_assurance(0.9), patients_for_assurance(0.95)
    (22, 45)
    """
    if share == 1:
        return math.inf
    return math.ceil(math.log(1 - assurance) / math.log(share) - ROUNDING)


def misses_allowed(patients: int, share: float, assurance: float = ASSURANCE) -> int | None:
    """Return how many of the patients may be missed; None where there are too few for a promise.

    Args:
        patients: Of the class, at least 1.
        share: Aimed at, in (0, 1).
        assurance: Certainty, in (0, 1).

    >>> misses_allowed(40, 0.9), misses_allowed(100, 0.9), misses_allowed(21, 0.9)
    (1, 5, None)
    """
    allowed = np.flatnonzero(_is_promised(np.arange(patients), patients, share, assurance))
    return int(allowed[-1]) if allowed.size else None


def _is_promised(
    misses: FloatArray | IntArray, patients: int, share: float, assurance: float
) -> BoolArray:
    """Return whether Clopper and Pearson's lower bound of the share found is at least `share`."""
    from scipy.special import betainc

    # Beta^-1(delta; n - k, k + 1) >= share, without the inverse.
    beyond = betainc(patients - misses, misses + 1, share)
    return np.asarray(beyond <= 1 - assurance + ROUNDING)


def assured_threshold(ranking: Ranking, name: str, share: float, assurance: float) -> float:
    """Return the threshold that keeps a sensitivity or specificity with this certainty.

    For sensitivity the highest, for specificity the lowest score whose one-sided lower bound of
    Clopper and Pearson is at least the share, moved to the middle of the gap below it. Patients
    with several rows count once: the share of rows missed is taken as that of so many patients.

    Args:
        ranking: Of the validation rows, with enough patients (`patients_for_assurance`).
        name: "sensitivity" or "specificity".
        share: Aimed at, in (0, 1).
        assurance: Certainty, in (0, 1).

    Returns:
        A number, or infinity where every score has too many false alarms.

    >>> truth, score = [0] * 5 + [1] * 40, np.arange(45.0)
    >>> assured_threshold(rank(truth, score), "sensitivity", 0.9, 0.9)  # one of 40 is missed
    5.5
    """
    if name == "sensitivity":
        concerned, missed = ranking.positive, 1 - ranking.tp / ranking.num_positive
    else:
        concerned, missed = ~ranking.positive, ranking.fp / ranking.num_negative
    patients = num_patients(ranking.patient_numbers[concerned])
    allowed = _is_promised(missed * patients, patients, share, assurance)
    at = np.flatnonzero(allowed)
    if not at.size:
        return math.inf
    # Down the scores fewer positives are missed and more negatives flagged.
    chosen = int(at[0] if name == "sensitivity" else at[-1])
    score, below = (float(value) for value in np.append(ranking.thresholds, math.nan)[chosen:][:2])
    middle = (score + below) / 2
    return middle if below < middle < score else score


def with_assurance(rule: Rule) -> Rule:
    """Return the rule with the assurance that it has where none is stated: 0.9 for a share.

    >>> with_assurance({"sensitivity": 0.95}), with_assurance({"youden": True})
    ({'assurance': 0.9, 'sensitivity': 0.95}, {'youden': True})
    """
    return {"assurance": ASSURANCE, **rule} if rule.keys() & {*SHARES} else rule


def describe_rule(rule: Rule) -> str:
    """Return the rule in words.

    >>> describe_rule({"sensitivity": 0.9})
    'sensitivity >= 0.90'
    """
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

    >>> check_rule({"youden": True})
    ('youden', 1.0)
    """
    entries = {name: number for name, number in rule.items() if name != "assurance"}
    if len(entries) != 1 or next(iter(entries)) not in RANGES:
        names = ", ".join(RANGES)
        raise PredictionsError(f"the rule is {dict(rule)}", expected=f"one entry, one of {names}")
    name, given = next(iter(entries.items()))
    if "assurance" in rule and not (name in SHARES and _is_assurance(rule["assurance"])):
        raise PredictionsError(
            f"the rule {name} has the assurance {rule['assurance']!r}",
            expected="a certainty such as 0.9, or 0 for no promise, beside a sensitivity or a "
            "specificity",
        )
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    low, high = RANGES[name]
    closed = name in SHARES and number == 1
    if not (low < number < high or closed):
        raise PredictionsError(
            f"the rule {name} has the number {given!r}",
            expected=f"a number between {low:g} and {high:g}",
        )
    return name, number


def _is_assurance(given: float | str) -> bool:
    """Return whether a value is a certainty in [0, 1)."""
    try:
        return 0 <= float(given) < 1
    except ValueError:
        return False


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
