"""The baseline every fine-tuned network must beat: logistic regression on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from medtl.errors import RunError
from medtl.networks.backbones import Classifier
from medtl.recipe.schema import Recipe
from medtl.run.build import build_contract, build_decoder, build_network, build_reader
from medtl.run.outputs import Progress, silent
from medtl.training.runtime import Runtime
from medtl.types import Case, Manifest

FEATURE_SIZE = 224
"""Pixels per side for the frozen features, whatever the recipe trains at."""

STRENGTHS = tuple(10.0**k for k in range(-5, 2))
"""Inverse regularisation strengths to choose from."""

INNER_FOLDS = 4
"""Grouped folds of the training part by which the strength is chosen."""

BATCH = 32


def frozen_features(
    recipe: Recipe, manifest: Manifest, *, progress: Progress = silent
) -> tuple[NDArray[np.float32], list[Case]]:
    """Return the pooled features of all readable images under the recipe's initial weights.

    Args:
        recipe: Its backbone, weights and preprocessing are used, at `FEATURE_SIZE` pixels.
        manifest: The cases.
        progress: Told of reading and computing.

    Returns:
        `(n, F)` features and the `n` cases they belong to.
    """
    image = recipe.image.model_copy(update={"size": FEATURE_SIZE})
    recipe = recipe.model_copy(update={"image": image})
    reader = build_reader(recipe, build_contract(recipe), manifest.root)
    store, _ = build_decoder(recipe)(
        manifest.cases, reader, progress=lambda d, t: progress("Reading for the baseline", d, t)
    )
    preprocessor = reader.preprocessor.fit(store.unit(row) for row in range(len(store.case_ids)))
    runtime = Runtime(recipe.run.device, recipe.run.precision)
    model, _ = build_network(recipe, outputs=1)
    classifier = cast(Classifier, runtime.place(model).eval())
    features = []
    with torch.inference_mode():
        for start in range(0, len(store.case_ids), BATCH):
            rows = range(start, min(start + BATCH, len(store.case_ids)))
            units = np.stack([preprocessor.standardise(store.unit(row)) for row in rows])
            features.append(classifier.features(runtime.to_device(torch.from_numpy(units))).cpu())
            progress("Frozen features", rows[-1] + 1, len(store.case_ids))
    readable = set(store.case_ids)
    return torch.cat(features).numpy(), [c for c in manifest.cases if c.case_id in readable]


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
    the mean AUROC of inner folds of the training rows, grouped by patient.

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
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.flatnonzero(train & ~np.isnan(truth))
    classes = truth[rows].astype(int)
    if len(np.unique(classes)) < 2:
        raise RunError("the baseline's training rows hold one class only")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    inner = StratifiedGroupKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, scoring="roc_auc", cv=inner)
    search.fit(features[rows], classes, groups=np.asarray(groups)[rows])
    return np.asarray(search.predict_proba(features)[:, 1])
