"""What every bone-age network must beat: ridge regression on frozen features, and the median."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medtl.errors import RunError

STRENGTHS = tuple(10.0**k for k in range(6))
"""Penalties on the squared weights of standardised features to choose from."""

INNER_FOLDS = 4
"""Grouped folds of the training part by which the strength is chosen."""


def ridge_values(
    features: NDArray[np.floating],
    truth: NDArray[np.floating],
    groups: Sequence[str],
    *,
    train: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.float64]:
    """Return `(n,)` predictions of a ridge regression that saw the training rows only.

    Features are standardised with the training rows. The strength is chosen among `STRENGTHS` by
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
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = _known(truth, train)
    patients = np.asarray(groups)[rows]
    if len(np.unique(patients)) < INNER_FOLDS:
        raise RunError(
            f"the baseline's training rows are of {len(np.unique(patients))} patients",
            expected=f"{INNER_FOLDS} or more",
        )
    model = make_pipeline(StandardScaler(), Ridge())
    inner = GroupKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    search = GridSearchCV(
        model, {"ridge__alpha": STRENGTHS}, scoring="neg_mean_absolute_error", cv=inner
    )
    search.fit(features[rows], truth[rows], groups=patients)
    return np.asarray(search.predict(features), dtype=np.float64)


def median_values(truth: NDArray[np.floating], *, train: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return `(n,)` times the median of the training rows: what is right without any image.

    Args:
        truth: `(n,)` in the unit of the report; NaN where not known.
        train: `(n,)` rows that may be learned from.

    Raises:
        RunError: When no training row has a truth.
    """
    rows = _known(truth, train)
    return np.full(len(truth), float(np.median(truth[rows])))


def _known(truth: NDArray[np.floating], train: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The training rows whose truth is known."""
    rows = np.flatnonzero(train & ~np.isnan(truth))
    if not len(rows):
        raise RunError("no training row of the baseline has a known truth")
    return rows
