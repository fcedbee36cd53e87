"""Models that every fine-tuned network must beat: linear ones and, for a quantity, the median.

All learn from the training rows only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import RunError

STRENGTHS = tuple(10.0**k for k in range(-5, 2))
"""Inverse regularisation strengths of the logistic regression to choose from."""

PENALTIES = tuple(10.0**k for k in range(6))
"""Penalties on the squared weights of standardised features to choose from."""

INNER_FOLDS = 4
"""Grouped folds of the training part by which the strength is chosen."""


def logistic_scores(
    features: NDArray[np.float32],
    truth: NDArray[np.float32],
    groups: Sequence[str],
    *,
    train: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.float64]:
    """Return `(n,)` probabilities of a logistic regression that saw the training rows only.

    Features are standardised with the training rows. The strength is chosen among `STRENGTHS` by
    the mean AUROC of inner folds of the training rows, grouped by patient; where no fold can hold
    both classes there is nothing to choose by, and the strongest regularisation is taken.

    Args:
        features: `(n, F)`.
        truth: `(n,)` of 0, 1 and NaN; rows without a certain truth are not learned from.
        groups: `(n,)` patients.
        train: `(n,)` rows that may be learned from.
        seed: Of the inner folds.

    Raises:
        RunError: When the training rows hold one class only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    rows = _known(truth, train)
    if len(np.unique(truth[rows])) < 2:
        raise RunError("the baseline's training rows hold one class only")
    known, patients = truth[rows].astype(int), np.asarray(groups)[rows]
    # No fold more than patients of the rarer class: the others could not be judged.
    most = min(INNER_FOLDS, *(len(np.unique(patients[known == k])) for k in (0, 1)))
    cut = StratifiedGroupKFold(most, shuffle=True, random_state=seed) if most > 1 else None
    inner = [
        parts
        for parts in (cut.split(known, known, patients) if cut else ())
        if all(len(np.unique(known[part])) == 2 for part in parts)
    ]
    strengths = {"logisticregression__C": STRENGTHS if inner else STRENGTHS[:1]}
    whole = [(np.arange(len(rows)),) * 2]
    model = _tuned(LogisticRegression(max_iter=5000), strengths, "roc_auc", inner or whole)
    # In 32 bits the search for the optimum can end without reaching it, on one machine or another.
    doubles = features.astype(np.float64)
    model.fit(doubles[rows], known)
    return np.asarray(model.predict_proba(doubles)[:, 1])


def ridge_values(
    features: NDArray[np.floating],
    truth: NDArray[np.floating],
    groups: Sequence[str],
    *,
    train: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.float64]:
    """Return `(n,)` predictions of a ridge regression that saw the training rows only.

    Features are standardised with the training rows. The penalty is chosen among `PENALTIES` by
    the mean absolute error of inner folds of the training rows, grouped by patient.

    Args:
        features: `(n, F)`; numbers that join the image (sex) are further columns.
        truth: `(n,)` in the unit of the report; rows with NaN are not learned from.
        groups: `(n,)` patients.
        train: `(n,)` rows that may be learned from.
        seed: Of the inner folds.

    Raises:
        RunError: When the training rows are of fewer than `INNER_FOLDS` patients.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold

    rows = _known(truth, train)
    patients = np.asarray(groups)[rows]
    if len(np.unique(patients)) < INNER_FOLDS:
        raise RunError(
            f"the baseline's training rows are of {len(np.unique(patients))} patients",
            expected=f"{INNER_FOLDS} or more",
        )
    inner = GroupKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    model = _tuned(Ridge(), {"ridge__alpha": PENALTIES}, "neg_mean_absolute_error", inner)
    model.fit(features[rows], truth[rows], groups=patients)
    return np.asarray(model.predict(features), dtype=np.float64)


def median_values(
    features: NDArray[np.floating],
    truth: NDArray[np.floating],
    groups: Sequence[str],
    *,
    train: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.float64]:
    """Return `(n,)` times the median of the training rows: what is right without any image.

    Args:
        features: Not looked at; every baseline takes the same arguments.
        truth: `(n,)` in the unit of the report; NaN where not known.
        groups: Not looked at.
        train: `(n,)` rows that may be learned from.
        seed: Not used.

    Raises:
        RunError: When no training row has a truth.
    """
    del features, groups, seed
    return np.full(len(truth), float(np.median(truth[_known(truth, train)])))


def _tuned(model: Any, choices: Mapping[str, Sequence[float]], scoring: str, folds: Any) -> Any:
    """A model on standardised features whose strength is chosen in inner folds."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), model)
    return GridSearchCV(pipeline, dict(choices), scoring=scoring, cv=folds)


def _known(truth: NDArray[np.floating], train: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The training rows whose truth is known."""
    rows = np.flatnonzero(train & ~np.isnan(truth))
    if not len(rows):
        raise RunError("no training row of the baseline has a known truth")
    return rows
