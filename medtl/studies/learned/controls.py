"""Controls: a few numbers of every image that know little or nothing of the disease.

A linear model learns from them in the folds of a network. What a thumbnail, the header or a random
network reaches, the network has not shown to have learned from the finding (Geirhos et al. 2020,
"Shortcut learning in deep neural networks"; DeGrave et al. 2021 for chest radiographs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medtl.data.store import ImageStore
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.volume import VolumePreprocessor
from medtl.recipe.schema import Recipe
from medtl.run.build import build_contract, build_decoder, build_reader
from medtl.run.kinds import classifier
from medtl.training.runtime import Runtime
from medtl.types import Case, Manifest, Progress, silent

Features = NDArray[np.float32]

FEATURE_SIZE = 224
"""Pixels per side for the controls, whatever the recipe trains at."""

THUMBNAIL = 8
"""Pixels per side of the thumbnail."""

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
"""Of an image's intensities."""

LEVELS = 20
"""A column of text with more values than this is taken for identifiers and left out."""

BATCH = 32


@dataclass(frozen=True)
class ControlImages:
    """The readable images of a study, decoded once for all controls.

    Attributes:
        recipe: Of the study, at `FEATURE_SIZE` pixels.
        cases: `n` cases, in the order of the store.
        store: Their unit images.
        facts: What each file's header says; nothing of its intensities.
        preprocessor: Fitted to the images.
        progress: Told of computing.
    """

    recipe: Recipe
    cases: Sequence[Case]
    store: ImageStore
    facts: Sequence[Mapping[str, str | float]]
    preprocessor: Preprocessor | VolumePreprocessor
    progress: Progress = silent


def control_images(
    recipe: Recipe, manifest: Manifest, *, progress: Progress = silent
) -> ControlImages:
    """Decode the images of a study for its controls.

    Args:
        recipe: Its preprocessing is used, at `FEATURE_SIZE` pixels.
        manifest: The cases; those that cannot be read are left out.
        progress: Told of reading.
    """
    image = recipe.image.model_copy(update={"size": FEATURE_SIZE})
    recipe = recipe.model_copy(update={"image": image})
    reader = build_reader(recipe, build_contract(recipe), manifest.root)
    store, records = build_decoder(recipe)(
        manifest.cases, reader, progress=lambda d, t: progress("Reading for the controls", d, t)
    )
    read = {record.case_id: record.facts for record in records if not record.cause}
    facts = [
        {name: value for name, value in read[case_id].items() if not name.startswith("unit_")}
        for case_id in store.case_ids
    ]
    return ControlImages(
        recipe,
        [case for case in manifest.cases if case.case_id in read],
        store,
        facts,
        reader.require_images().fit(store.unit(row) for row in range(len(store.case_ids))),
        progress,
    )


def frozen_features(images: ControlImages) -> Features:
    """Return `(n, F)` pooled features of the network under the recipe's initial weights."""
    return _pooled(images, images.recipe, "Frozen features")


def random_features(images: ControlImages) -> Features:
    """Return `(n, F)` pooled features of the same network with random weights, never trained."""
    model = images.recipe.model.model_copy(update={"weights": images.recipe.model.weights.random})
    return _pooled(images, images.recipe.model_copy(update={"model": model}), "Random features")


def thumbnail(images: ControlImages) -> Features:
    """Return `(n, F)` means over `THUMBNAIL` parts of every side: no finding is that large."""
    return _of_each(images, _thumbnail)


def intensity(images: ControlImages) -> Features:
    """Return `(n, F)` mean, deviation, percentiles and clipped shares: exposure without a place."""
    return _of_each(images, _intensity)


def metadata(images: ControlImages) -> Features:
    """Return `(n, F)` of what is known without the pixels: columns of the manifest and the header.

    Numbers stand as they are, missing ones at the median with a mark; texts of up to `LEVELS`
    values as one column a value. `F` is 0 when nothing is known that differs.
    """
    told = _told(images)
    columns = [column for name in metadata_names(images) for column in _coded(told[name])]
    return np.array(columns, dtype=np.float32).reshape(len(columns), len(images.cases)).T


def metadata_names(images: ControlImages) -> list[str]:
    """Return the names of the facts that `metadata` uses."""
    return sorted(name for name, texts in _told(images).items() if _coded(texts))


CONTROLS: dict[str, Callable[[ControlImages], Features]] = {
    "frozen_features": frozen_features,
    "random_features": random_features,
    "thumbnail": thumbnail,
    "intensity": intensity,
    "metadata": metadata,
}
"""Name in the tables -> the numbers of every image."""


def _pooled(images: ControlImages, recipe: Recipe, what: str) -> Features:
    """Pooled features of a network that does not train."""
    runtime = Runtime(recipe.run.device, recipe.run.precision)
    model, _ = classifier(recipe, outputs=1)
    runtime.place(model).eval()
    features, number = [], len(images.cases)
    with torch.inference_mode():
        for start in range(0, number, BATCH):
            rows = range(start, min(start + BATCH, number))
            units = [images.preprocessor.standardise(images.store.unit(row)) for row in rows]
            batch = runtime.to_device(torch.from_numpy(np.stack(units)))
            features.append(model.features(batch).cpu())
            images.progress(what, rows[-1] + 1, number)
    return torch.cat(features).numpy()


def _of_each(images: ControlImages, numbers: Callable[[Features], Features]) -> Features:
    """The numbers of every unit image."""
    return np.stack([numbers(images.store.unit(row)) for row in range(len(images.cases))])


def _thumbnail(unit: Features) -> Features:
    pool = {3: torch.nn.AdaptiveAvgPool2d, 4: torch.nn.AdaptiveAvgPool3d}[unit.ndim](THUMBNAIL)
    return np.asarray(pool(torch.from_numpy(unit)).numpy().ravel())


def _intensity(unit: Features) -> Features:
    flat = unit.reshape(len(unit), -1)
    numbers = [flat.mean(1), flat.std(1), (flat <= 0).mean(1), (flat >= 1).mean(1)]
    return np.concatenate([*numbers, *np.percentile(flat, PERCENTILES, axis=1)]).astype(np.float32)


def _told(images: ControlImages) -> dict[str, list[str]]:
    """Name of a fact -> its text for every case, "" where it is not known."""
    rows = [
        {**{name: str(value) for name, value in facts.items()}, **case.strata}
        for case, facts in zip(images.cases, images.facts, strict=True)
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, "").strip() for row in rows] for name in names}


def _coded(texts: Sequence[str]) -> list[Features]:
    """The columns of one fact: a number and where it is missing, or one for every text."""
    known = sorted({text for text in texts if text})
    if len(set(texts)) < 2:
        return []
    try:
        numbers = np.array([float(text) if text else np.nan for text in texts], dtype=np.float32)
    except ValueError:
        if len(known) > LEVELS:
            return []
        return [np.array([text == value for text in texts], dtype=np.float32) for value in known]
    missing = np.isnan(numbers)
    columns = [np.where(missing, np.nanmedian(numbers), numbers)] if len(known) > 1 else []
    return [*columns, missing.astype(np.float32)] if missing.any() else columns
