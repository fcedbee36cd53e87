"""Cases that have a truth and no score: how many, of which class, and what they could change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medtl.metrics.comparison import fisher_exact
from medtl.metrics.ranking import auroc
from medtl.metrics.scores import CI, Scores

if TYPE_CHECKING:
    import pandas as pd

MANY = 0.05
"""Share of rows without a score above which they are a limit."""

UNEQUAL = 0.05
"""p of Fisher's test below which positives and negatives lack scores unequally."""


@dataclass(frozen=True)
class Bounds:
    """A measure of the rows with a score, and if all others were read wrongly or rightly.

    Attributes:
        measure: "sensitivity", "specificity" or "auroc".
        value: Of the rows with a score. worst, best: Of all rows.
    """

    measure: str
    value: float
    worst: float
    best: float


@dataclass(frozen=True)
class MissingScores:
    """Test rows of a finding that have a certain truth and no score.

    Attributes:
        label: The finding.
        positives, negatives: Rows with a truth.
        positives_missing, negatives_missing: Those of them without a score.
        p: Of Fisher's test that both classes lack scores alike.
        is_limit: More than `MANY` are missing, or unequally.
        bounds: At the threshold where there is one, and of the AUROC.
    """

    label: str
    positives: int
    negatives: int
    positives_missing: int
    negatives_missing: int
    p: float
    is_limit: bool
    bounds: tuple[Bounds, ...]


def missing_scores(
    test: pd.DataFrame, thresholds: Mapping[str, float], ci: CI
) -> list[MissingScores]:
    """Return the findings whose test rows lack scores.

    Args:
        test: Test rows with `label`, `y_true` and `y_score`.
        thresholds: Label -> frozen one.
        ci: Of the AUROC, whose value alone is used.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"label": "x", "y_true": [1, 1, 0], "y_score": [0.9, None, 0.2]})
    >>> found = missing_scores(table, {"x": 0.5}, CI())[0]
    >>> found.positives_missing, [(b.measure, b.value, b.worst, b.best) for b in found.bounds][0]
    (1, ('sensitivity', 1.0, 0.5, 1.0))
    """
    found = []
    for label, rows in test.groupby("label", sort=False):
        truth = rows["y_true"].to_numpy(dtype=float, na_value=np.nan)
        score = rows["y_score"].to_numpy(dtype=float, na_value=np.nan)
        truth, score = truth[np.isfinite(truth)] == 1, score[np.isfinite(truth)]
        missing = ~np.isfinite(score)
        if not missing.any():
            continue
        positives, negatives = int(truth.sum()), int((~truth).sum())
        lost = int((missing & truth).sum()), int((missing & ~truth).sum())
        p = fisher_exact((lost[0], positives), (lost[1], negatives)) if positives * negatives else 1
        bounds = []
        threshold = thresholds.get(str(label))
        if threshold is not None:
            for name, mine in (("sensitivity", truth), ("specificity", ~truth)):
                right = (score >= threshold) == truth
                bounds += _of_share(name, right[mine], missing[mine])
        if not Scores.of(truth[~missing], score[~missing]).one_class:
            bounds.append(_of_auroc(truth, score, missing, ci))
        is_limit = missing.mean() > MANY or p < UNEQUAL
        found.append(
            MissingScores(str(label), positives, negatives, *lost, p, bool(is_limit), tuple(bounds))
        )
    return found


def _of_share(name: str, right: np.ndarray, missing: np.ndarray) -> list[Bounds]:
    """Return the bounds of a share of the rows of a class, where some have a score."""
    hits, lost, total = int(right[~missing].sum()), int(missing.sum()), right.size
    if lost == total:
        return []
    return [Bounds(name, hits / (total - lost), hits / total, (hits + lost) / total)]


def _of_auroc(truth: np.ndarray, score: np.ndarray, missing: np.ndarray, ci: CI) -> Bounds:
    """Return the bounds of the AUROC: rows without a score lie at the wrong or the right end."""
    low, high = score[~missing].min() - 1, score[~missing].max() + 1
    ends = [np.where(missing, np.where(truth == up, high, low), score) for up in (False, True)]
    values = [
        float(auroc(truth[rows], of[rows], ci=ci).value or 0)
        for rows, of in ((~missing, score), *((np.ones_like(missing), end) for end in ends))
    ]
    return Bounds("auroc", *values)
